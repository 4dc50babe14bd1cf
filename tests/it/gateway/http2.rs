//! HTTP/2 with prior knowledge in front, HTTP/1.1 behind.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{
    address, admin_key,
    forgeries::{RESERVED, Told, VALUES, spellings},
    in_front_of, recorded,
};
use crate::support::{
    http2::{Http2, over_http2},
    recorder::{Recorder, ok},
};

fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

#[tokio::test]
async fn the_same_rules_hold_over_http2() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[]).await;
    let key = admin_key(&app).await;
    let url = format!("http://{}", address(&app));
    let request = Request::post(format!("{url}/a?b=c"))
        .header("x-api-key", &key)
        .header("x-user-id", "forged")
        .header("forwarded", "for=forged")
        .header("cookie", "a=1")
        .header("cookie", "tollgate_x=1")
        .header("cookie", "b=2")
        .body(Full::from("body"))
        .unwrap();
    let answer = client().request(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert_eq!(answer.headers()["cache-control"], "private");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");

    let seen = recorder.take().remove(0);
    assert_eq!(seen.request_line(), "POST /a?b=c HTTP/1.1");
    assert!(!seen.head.contains("forged") && !seen.head.contains(&key[..12]), "{}", seen.head);
    assert_eq!(seen.all("x-user-id").len(), 1);
    assert_eq!(seen.all("x-forwarded-host"), [address(&app).to_string()]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.all("via"), ["2 tollgate"]);
    assert_eq!(seen.body, b"body");
    let record = &recorded(&app, 1).await[0];
    assert_eq!((&record["outcome"], &record["bytes_in"]), (&"completed".into(), &4.into()));

    for (path, status) in [("/a/%2e%2e/b", 400), ("/?k=tga_", 200), ("/health/live", 200)] {
        let request = Request::get(format!("{url}{path}"))
            .header("x-api-key", &key)
            .body(Full::default())
            .unwrap();
        assert_eq!(client().request(request).await.unwrap().status(), status, "{path}");
    }
}

#[tokio::test]
async fn many_streams_share_a_connection_and_get_their_own_answers() {
    let recorder = Recorder::start(|delivery| {
        let path = delivery.request_line().split(' ').nth(1).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
        crate::support::recorder::Reply::Send(head.into_bytes())
    })
    .await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "public")]).await;
    let (client, url) = (client(), format!("http://{}", address(&app)));
    let requests = (0..200).map(|n| {
        let (client, url) = (client.clone(), format!("{url}/{n}"));
        async move {
            let answer = client.request(Request::get(url).body(Full::default()).unwrap()).await;
            let body = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, format!("/{n}"));
        }
    });
    futures_util::future::join_all(requests).await;
    assert_eq!(recorded(&app, 200).await.len(), 200);
}

/// Over HTTP/2, too, who a request acts for is ours to say (RELIABILITY G-110):
/// in frames that no usual client would send, in trailers, too.
#[tokio::test]
async fn no_client_can_say_who_it_is_over_http2() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder, &[("UPSTREAM_AUTH", "optional")]).await;
    let (key, admin) = Told::of_admin(&app).await;
    let mut forgeries = vec![];
    for name in RESERVED {
        let lower = name.to_lowercase();
        for spelling in spellings(name) {
            forgeries.push(vec![(spelling.clone(), "forged")]);
            forgeries.push(vec![(spelling.clone(), "forged"), (spelling, "forged-again")]);
        }
        forgeries.extend(VALUES.map(|value| vec![(lower.clone(), value)]));
        forgeries.push(vec![(format!("{lower} "), "forged")]);
        forgeries.push(vec![(format!(":{lower}"), "forged")]);
        forgeries.push(vec![("connection".to_owned(), name), (lower, "forged")]);
    }
    assert!(forgeries.len() >= 500, "{}", forgeries.len());
    let (mut passed, mut refused) = (0, 0);
    for (number, forgery) in forgeries.iter().enumerate() {
        let forged = forgery.iter().map(|(name, value)| (name.as_str(), *value));
        let forged: Vec<_> = forged.collect();
        let begin = [(":method", "POST"), (":scheme", "http"), (":path", "/x")];
        let mut fields = [&begin[..], &[(":authority", "a.example")]].concat();
        // With a credential and without, in turn, among the fields and behind
        // the body.
        let credential = number % 2 == 0;
        fields.extend(credential.then_some(("x-api-key", key.as_str())));
        let told = if credential { &admin } else { &admin.nobody() };
        let head = over_http2(address(&app), &[&fields[..], &forged].concat(), &[]).await;
        let seen = recorder.take();
        assert_eq!(seen.len(), usize::from(head == Http2::Ok), "{forgery:?}");
        match head {
            Http2::Ok => passed += 1,
            Http2::Refused => refused += 1,
        }
        for delivery in seen {
            told.assert_all_of(&delivery, forgery);
            assert_eq!(delivery.all("via"), ["2 tollgate"], "{forgery:?}");
        }
        // What is wrong with a trailer is seen once the request is under way.
        _ = over_http2(address(&app), &fields, &forged).await;
        for delivery in recorder.take() {
            told.assert_all_of(&delivery, forgery);
            assert_eq!(delivery.body, b"x", "{forgery:?}");
        }
    }
    assert!(passed > 100 && refused > 300, "{passed} {refused}");
}
