//! On its way to a socket, too, who a request acts for is ours to say
//! (RELIABILITY G-110, G-111).

use super::PATH;
use crate::{
    gateway::{admin_key, identity::forgeries},
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
    let key = admin_key(&app).await;
    let user_id = app.admin().await.get("/api/v1/users/me").await.text("id").to_owned();
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
            let head = seen[0].head.to_lowercase();
            assert!(!head.contains("forged"), "{forgery:?} reached the upstream: {head}");
            let expected: &[&str] = if credential.is_empty() { &[] } else { &[&user_id] };
            assert_eq!(seen[0].all("x-user-id"), expected, "{forgery:?}");
            let name: &[&str] = if credential.is_empty() { &[] } else { &["admin"] };
            assert_eq!(seen[0].all("x-username"), name, "{forgery:?}");
            assert_eq!(seen[0].all("x-key-id").len(), expected.len(), "{forgery:?}");
            assert_eq!(seen[0].all("x-forwarded-for"), ["127.0.0.1"], "{forgery:?}");
            assert_eq!(seen[0].all("x-forwarded-host"), ["a"], "{forgery:?}");
            assert_eq!(seen[0].all("x-forwarded-proto"), ["http"], "{forgery:?}");
            assert_eq!(seen[0].all("x-request-id").len(), 1, "{forgery:?}");
            assert_eq!(seen[0].all("connection"), ["upgrade"], "{forgery:?}");
            assert_eq!(seen[0].all("upgrade"), ["websocket"], "{forgery:?}");
            for hop in ["trailer", "forwarded", "x-real-ip", "x-a", "x-api-key"] {
                assert!(seen[0].all(hop).is_empty(), "{hop} after {forgery:?}");
            }
        }
    }
    assert!(passed > 300 && refused > 300, "{passed} {refused}");
}

/// What `Connection` lists is taken away, whatever it is; ours are set after.
#[tokio::test]
async fn a_list_of_fields_to_drop_drops_none_of_ours() {
    let switching = |_: &_| Reply::SendThenClose(SWITCHING.as_bytes().to_vec());
    let recorder = Recorder::start(switching).await;
    let app = TestApp::configured(FREE).await;
    put_in_front(&app, &recorder.url(), super::MANY);
    let key = admin_key(&app).await;
    let fields = format!(
        "X-API-Key: {key}\r\nConnection:\r\nConnection: X-User-Id, x-forwarded-for\r\n\
         Connection: via, x-mine, Cookie, X-API-Key\r\nX-Mine: 1\r\nX-Other: 2\r\n\
         Sec-WebSocket-Protocol: a, b\r\nCookie: a=1\r\n"
    );
    assert_eq!(Wire::ask(address(&app), ask(PATH, &fields)).await.status, 101);
    let seen = recorder.take().remove(0);
    for ours in ["x-user-id", "x-forwarded-for", "via", "x-request-id"] {
        assert_eq!(seen.all(ours).len(), 1, "{ours}: {}", seen.head);
    }
    assert!(seen.all("x-mine").is_empty() && seen.all("cookie").is_empty(), "{}", seen.head);
    assert_eq!((seen.all("x-other"), seen.all("connection")), (vec!["2"], vec!["upgrade"]));
    assert_eq!(seen.all("sec-websocket-protocol"), ["a, b"]);
}
