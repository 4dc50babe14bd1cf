//! Reloading cuts nothing (RELIABILITY G-66).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinSet};

use super::{Process, Setup, alone};
use crate::support::{
    raw::Raw,
    recorder::{Recorder, Reply, ok},
};

const RELOADS: usize = 200;
const STREAMS: usize = 24;
const CLIENTS: usize = 4;

/// Chunks until told to stop: then the end.
fn ticking(stop: Arc<AtomicBool>) -> Reply {
    let (sender, parts) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        _ = sender.send(head.into());
        let mut tick = 0;
        while !stop.load(SeqCst) {
            _ = sender.send(format!("8\r\n{tick:08}\r\n").into());
            tick += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        _ = sender.send(b"8\r\nthe end.\r\n0\r\n\r\n".to_vec());
        // The gateway closes when it has taken it.
        tokio::time::sleep(Duration::from_secs(20)).await;
    });
    Reply::Stream(parts)
}

fn file(upstream: &str, round: usize) -> String {
    // Every second round the upstream itself changes, in others its neighbour.
    let (pending, neighbour) = (100 + round / 2, round.div_ceil(2));
    format!(
        "[[upstreams]]\nname='app'\nmount='/'\nauth='public'\nurl='{upstream}'\n\
         max_pending={pending}\n\
         [[upstreams]]\nname='n{neighbour}'\nmount='/n'\nurl='http://127.0.0.1:9'\n"
    )
}

async fn ask_on(address: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut client = Raw::connect(address).await;
    let mut answered = 0;
    while !stop.load(SeqCst) {
        client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.answer().await.expect("the connection stays");
        assert_eq!((answer.status, answer.text(), answer.complete), (200, "ok", true));
        answered += 1;
    }
    answered
}

fn logged(process: &Process, message: &str) -> usize {
    process.log().iter().filter(|record| record["message"] == message).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_reloads_cut_neither_a_stream_nor_a_request() {
    let _alone = alone().await;
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (stopping, opening) = (stop.clone(), opened.clone());
    let recorder = Recorder::start(move |delivery| {
        if delivery.request_line().contains("/stream") {
            opening.fetch_add(1, SeqCst);
            ticking(stopping.clone())
        } else {
            ok(delivery)
        }
    })
    .await;
    let setup = Setup::shared().await.set("LOG_LEVEL", "info");
    setup.write("tollgate.toml", &file(&recorder.url(), 0));
    let process = setup.serve().await;
    let address: SocketAddr = process.base.strip_prefix("http://").unwrap().parse().unwrap();

    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        streams.spawn(async move {
            let mut client = Raw::connect(address).await;
            client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.answer().await.expect("an answer")
        });
    }
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(ask_on(address, stop.clone()));
    }
    process
        .until("streaming", Duration::from_secs(10), async || opened.load(SeqCst) == STREAMS)
        .await;

    let admin = process.admin().await;
    for round in 1..=RELOADS {
        setup.write("tollgate.toml", &file(&recorder.url(), round));
        let answer = admin.post_empty("/api/v1/admin/reload").await.expect(200);
        assert!(
            !answer.json["changed"].as_array().unwrap().is_empty(),
            "round {round}: {answer:?}"
        );
        if round % 20 == 0 {
            // By signal too, and with a file that cannot be used.
            let before = logged(&process, "the settings were read again");
            process.signal("-HUP");
            process
                .until("read again", Duration::from_secs(5), async || {
                    logged(&process, "the settings were read again") > before
                })
                .await;
            setup.write("tollgate.toml", "[[upstreams]]\nname='app'");
            admin.post_empty("/api/v1/admin/reload").await.expect(422);
        }
    }
    stop.store(true, SeqCst);
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client.unwrap();
    }
    assert!(answered > RELOADS, "{answered}");
    let mut whole = 0;
    while let Some(stream) = streams.join_next().await {
        let answer = stream.unwrap();
        let text = answer.text();
        assert!(answer.complete && text.ends_with("the end."), "{}", text.len());
        let ticks = text.len() / 8 - 1;
        let chunks = text.as_bytes().chunks(8).take(ticks).enumerate();
        for (tick, chunk) in chunks {
            assert_eq!(chunk, format!("{tick:08}").as_bytes(), "something is missing");
        }
        assert!(ticks > 20, "{ticks}");
        whole += 1;
    }
    assert_eq!((whole, opened.load(SeqCst)), (STREAMS, STREAMS));
    drop(process);
}
