//! What presets promise of a socket and of requests, as the upstream sees it.

use super::{PATH, app};
use crate::{
    streams::{address, put_in_front},
    support::{
        TestApp,
        raw::{Raw, headers},
        recorder::{Recorder, ok},
        websocket::{Upstream, Wire},
    },
};

const FROM_PAGE: &str = "Origin: http://a\r\nReferer: http://a/up/workflow/1\r\n";

/// n8n lets a socket in whose `Origin` is of the host that `X-Forwarded-Host`
/// names, else `Host`; so all three must be the client's. The others compare it
/// with `Host`, which is their own.
#[tokio::test]
async fn the_origin_of_a_page_is_what_the_application_compares_it_with() {
    let upstream = Upstream::start().await;
    let own = upstream.address.to_string();
    for (preset, host) in [("n8n", "a"), ("comfyui", &*own), ("jupyter", &own), ("ollama", &own)] {
        let app = app(&upstream, &format!("auth = 'public'\npreset = '{preset}'")).await;
        let mut wire = Wire::open(address(&app), PATH, FROM_PAGE).await;
        wire.echoes("works").await;
        drop(wire);
        let head = upstream.heads().remove(0);
        let all = |name| headers(&head, name).collect::<Vec<_>>();
        assert_eq!(all("host"), [host], "{preset}: {head}");
        assert_eq!(all("origin"), [format!("http://{host}")], "{preset}: {head}");
        assert_eq!(all("x-forwarded-host"), ["a"], "{preset}: {head}");
        assert_eq!(all("x-forwarded-prefix"), ["/up"], "{preset}: {head}");

        let recorder = Recorder::start(ok).await;
        let settings = format!("auth = 'public'\npreset = '{preset}'");
        put_in_front(&app, &recorder.url(), &settings);
        let host = if preset == "n8n" { "a".to_owned() } else { recorder.address.to_string() };
        let request = format!(
            "POST /up/rest/login HTTP/1.1\r\nHost: a\r\n{FROM_PAGE}Content-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(Raw::exchange(address(&app), request).await.status, 200, "{preset}");
        let seen = recorder.take().remove(0);
        assert_eq!(seen.all("host"), [&*host], "{preset}");
        assert_eq!(seen.all("origin"), [format!("http://{host}")], "{preset}");
        assert_eq!(seen.all("x-forwarded-host"), ["a"], "{preset}");
    }
}

/// Behind a proxy that ends TLS and names the host.
#[tokio::test]
async fn n8n_behind_another_proxy_sees_the_host_that_the_browser_does() {
    let upstream = Upstream::start().await;
    let app = app(&upstream, "auth = 'public'\npreset = 'n8n'").await;
    let fields = "X-Forwarded-Host: flows.example\r\nX-Forwarded-Proto: https\r\n\
                  Origin: https://flows.example\r\n";
    Wire::open(address(&app), PATH, fields).await.echoes("works").await;
    let head = upstream.heads().remove(0);
    let all = |name| headers(&head, name).collect::<Vec<_>>();
    assert_eq!(all("host"), ["flows.example"]);
    assert_eq!(all("origin"), ["https://flows.example"]);
    assert_eq!(
        (all("x-forwarded-host"), all("x-forwarded-proto")),
        (vec!["flows.example"], vec!["https"])
    );
}

/// A body of n8n may have 16 MiB and not one byte more, one of Ollama 64 MiB.
#[tokio::test]
async fn bodies_are_as_large_as_the_preset_says() {
    let recorder = Recorder::start(ok).await;
    for (preset, mib) in [("n8n", 16), ("ollama", 64)] {
        let app = TestApp::configured(crate::streams::FREE).await;
        put_in_front(&app, &recorder.url(), &format!("auth = 'public'\npreset = '{preset}'"));
        let most: usize = mib << 20;
        let head =
            |length| format!("POST /up/x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        // Refused by what it says, before any of it comes.
        let over = Raw::exchange(address(&app), head(most + 1)).await;
        assert_eq!((over.status, over.json()["code"].as_str()), (413, Some("body_too_large")));
        let mut client = Raw::connect(address(&app)).await;
        client.send(head(most)).await;
        client.send(vec![b'x'; most]).await;
        assert_eq!(client.answer().await.unwrap().status, 200, "{preset}");
        assert_eq!(recorder.take().pop().unwrap().body.len(), most, "{preset}");
    }
}
