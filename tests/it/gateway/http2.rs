//! HTTP/2 with prior knowledge in front, HTTP/1.1 behind.

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{address, admin_key, in_front_of, recorded};
use crate::support::recorder::{Recorder, ok};

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
