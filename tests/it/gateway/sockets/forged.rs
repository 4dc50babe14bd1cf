//! On its way to a socket, too, who a request acts for is ours to say
//! (RELIABILITY G-110, G-111).

use super::PATH;
use crate::{
    gateway::forgeries::{LISTED, Told, assert_ours_are_there, forgeries},
    streams::{FREE, address, put_in_front},
    support::{
        TestApp,
        recorder::{Recorder, Reply},
        websocket::{SWITCHING, Wire, ask},
    },
};

#[tokio::test]
async fn no_client_can_say_who_it_is_when_it_asks_for_a_socket() {
    let switching = |_: &_| Reply::SendThenClose(SWITCHING.as_bytes().to_vec());
    let recorder = Recorder::start(switching).await;
    let mut settings = FREE.to_vec();
    settings.push(("SERVER_TRUSTED_PROXIES", ""));
    let settings = settings.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    let app = TestApp::with(crate::support::Options { settings, ..Default::default() }).await;
    let many = super::MANY;
    put_in_front(&app, &recorder.url(), &format!("{many}\nauth = 'optional'"));
    let (key, admin) = Told::of_admin(&app).await;
    let admin = Told { host: "a", prefix: Some("/up"), ..admin };
    let (mut passed, mut refused) = (0, 0);
    for forgery in forgeries() {
        for credential in ["", &format!("X-API-Key: {key}\r\n")] {
            let asked =
                Wire::ask(address(&app), ask(PATH, &format!("{credential}{forgery}"))).await;
            let seen = recorder.take();
            if asked.status == 400 {
                assert!(seen.is_empty(), "{forgery:?}");
                refused += 1;
                continue;
            }
            assert_eq!((asked.status, seen.len()), (101, 1), "{forgery:?}: {}", asked.head);
            passed += 1;
            let told = if credential.is_empty() { &admin.nobody() } else { &admin };
            told.assert_all_of(&seen[0], &forgery);
            assert_eq!(seen[0].all("connection"), ["upgrade"], "{forgery:?}");
            assert_eq!(seen[0].all("upgrade"), ["websocket"], "{forgery:?}");
        }
    }
    assert!(passed > 300 && refused > 300, "{passed} {refused}");
}

/// What `Connection` lists is taken away, whatever it is; ours are set after.
#[tokio::test]
async fn a_list_of_fields_to_drop_drops_none_of_ours() {
    let switching = |_: &_| Reply::SendThenClose(SWITCHING.as_bytes().to_vec());
    let recorder = Recorder::start(switching).await;
    let settings =
        FREE.into_iter().chain([("SERVER_TRUSTED_PROXIES", ""), ("AUTH_ALGORITHM", "EdDSA")]);
    let settings = settings.map(|(name, value)| (name, value.to_owned())).collect();
    let app = TestApp::with(crate::support::Options { settings, ..Default::default() }).await;
    let theirs = "basic_auth_user = 'door'\nbasic_auth_password = 'opens'\nassertion = true\n\
                  [auth]\nalgorithm = 'EdDSA'";
    put_in_front(&app, &recorder.url(), &format!("{}\n{theirs}", super::MANY));
    let (key, admin) = Told::of_admin(&app).await;
    let admin = Told { host: "a", prefix: Some("/up"), ..admin };
    for (listed, dropped) in LISTED {
        let fields = format!(
            "X-API-Key: {key}\r\n{listed}Authorization: Basic dTpw\r\nCookie: a=1\r\n\
             X-Mine: 1\r\nX-Other: 2\r\nAccept: c\r\nSec-WebSocket-Protocol: a, b\r\n"
        );
        let asked = Wire::ask(address(&app), ask(PATH, &fields)).await;
        let seen = recorder.take();
        assert_eq!((asked.status, seen.len()), (101, 1), "{listed:?}: {}", asked.head);
        assert_ours_are_there(&seen[0], &admin, listed, dropped);
        assert_eq!(seen[0].all("connection"), ["upgrade"], "{listed:?}");
        assert_eq!(seen[0].all("sec-websocket-protocol"), ["a, b"], "{listed:?}");
    }
}
