//! What a usual client sees.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, accept_async, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _, protocol::CloseFrame},
};

use crate::support::TestApp;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(30);

/// An upstream that sends back what it is sent, and tells of how it was closed.
async fn echo() -> (String, tokio::sync::mpsc::UnboundedReceiver<Option<u16>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (closed, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let closed = closed.clone();
            tokio::spawn(async move {
                let mut socket = accept_async(socket).await.unwrap();
                let mut code = None;
                while let Some(Ok(message)) = socket.next().await {
                    match message {
                        Message::Close(frame) => code = frame.map(|frame| frame.code.into()),
                        Message::Text(_) | Message::Binary(_) => {
                            socket.send(message).await.unwrap();
                        }
                        _ => {}
                    }
                }
                let _ = closed.send(code);
            });
        }
    });
    (url, seen)
}

/// Opens one with these fields; the status if it was refused.
async fn open(app: &TestApp, path: &str, fields: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let url = format!("{}{path}", app.base.replace("http:", "ws:"));
    let mut request = url.into_client_request().unwrap();
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match timeout(PATIENCE, connect_async(request)).await.unwrap() {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Code and reason of the close that comes next.
async fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        match timeout(PATIENCE, socket.next()).await.expect("it stays open") {
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                return (code.into(), reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn messages_pass_both_ways_and_are_counted() {
    let (url, mut seen) = echo().await;
    let app = TestApp::configured([("UPSTREAM_URL", &*url)]).await;
    let admin = app.admin().await;
    let (id, _) = app.key(&admin, json!({ "name": "other" })).await;
    let issued = admin.post("/api/v1/keys", json!({ "name": "socket" })).await.expect(201);
    let key = issued.text("key");
    let mut socket = open(&app, "/api/v1/proxy/ws?a=1", &[("x-api-key", key)]).await.unwrap();
    for at in 0..20u8 {
        let sent = match at % 2 {
            0 => Message::text(format!("message {at}")),
            _ => Message::binary(vec![at; 70_000]),
        };
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap(), sent);
    }
    socket.close(None).await.unwrap();
    assert_eq!(timeout(PATIENCE, seen.recv()).await.unwrap(), Some(None));
    drop(socket);
    // The socket and the twenty messages of the client.
    let path = format!("/api/v1/keys/{}", issued.text("id"));
    let mut requests = json!(null);
    for _ in 0..100 {
        app.flush().await;
        requests = admin.get(&path).await.expect(200).json["usage"]["totals"]["requests"].clone();
        if requests == 21 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(requests, 21);
    let other = admin.get(&format!("/api/v1/keys/{id}")).await.expect(200);
    assert_eq!(other.json["usage"]["totals"]["requests"], 0);
}

#[tokio::test]
async fn without_a_good_credential_none_is_opened() {
    let (url, _seen) = echo().await;
    let app = TestApp::configured([("UPSTREAM_URL", &*url)]).await;
    for (fields, status) in [
        (&[][..], 401),
        (&[("x-api-key", "tg_nothing")], 401),
        (&[("x-access-token", "tga_nothing")], 401),
        (&[("authorization", "Bearer a.b.c")], 401),
    ] {
        let refused = open(&app, "/api/v1/proxy/ws", fields).await;
        assert_eq!(refused.err(), Some(status), "{fields:?}");
    }
}

#[tokio::test]
async fn a_key_that_is_deleted_ends_its_sockets_and_no_other() {
    let (url, mut seen) = echo().await;
    let app = TestApp::configured([("UPSTREAM_URL", &*url)]).await;
    let admin = app.admin().await;
    let issue = async |name: &str| {
        let issued = admin.post("/api/v1/keys", json!({ "name": name })).await.expect(201);
        (issued.text("id").to_owned(), issued.text("key").to_owned())
    };
    let ((one_id, one), (_, two)) = (issue("one").await, issue("two").await);
    let mut first = open(&app, "/api/v1/proxy/ws", &[("x-api-key", &one)]).await.unwrap();
    let mut second = open(&app, "/api/v1/proxy/ws", &[("x-api-key", &two)]).await.unwrap();
    admin.delete(&format!("/api/v1/keys/{one_id}")).await.expect(204);
    assert_eq!(closed(&mut first).await, (1008, "revoked".to_owned()));
    assert_eq!(timeout(PATIENCE, seen.recv()).await.unwrap(), Some(Some(1001)));
    second.send(Message::text("still here")).await.unwrap();
    let answer = timeout(PATIENCE, second.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer, Message::text("still here"));
}
