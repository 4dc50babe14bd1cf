//! Names are judged by what they mean when they are connected to (G-40, G-119).

use std::sync::Arc;

use super::{get, public, resolver::Names, targets, with};
use crate::support::{
    Options, TestApp,
    recorder::{Recorder, ok},
};

/// An instance before `http://name.test` on the recorder's port, which makes a
/// connection for each request.
async fn named(recorder: &Recorder, names: &Arc<Names>, private: bool) -> TestApp {
    let port = recorder.address.port();
    let rest = format!(
        "url='http://name.test:{port}'\nprivate_addresses={private}\npool_idle_seconds=0\n\
         connect_timeout_seconds=0.5"
    );
    with(&public(&rest), Options { resolver: names.clone(), ..Options::default() }).await
}

/// Every answer leads to this machine, where somebody listens: a connection that
/// is made in spite of the rule is seen.
#[tokio::test]
async fn a_name_that_leads_within_is_not_connected_to_where_that_is_forbidden() {
    for answer in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "127.0.0.1 127.0.0.1",
        "127.0.0.1 ::ffff:127.0.0.1",
        "127.0.0.2",
        "127.255.255.254",
        "::ffff:7f00:1",
    ] {
        let recorder = Recorder::start(ok).await;
        let names = Names::answering(&[answer]);
        let app = named(&recorder, &names, false).await;
        let refused = get(&app, "/").await;
        assert_eq!(refused.status, 502, "{answer}");
        assert_eq!(refused.json()["code"], "upstream_failed");
        for inner in ["127.", "name.test", &recorder.address.port().to_string()] {
            assert!(!refused.text().contains(inner), "{inner} in {}", refused.text());
        }
        assert_eq!(recorder.connections(), 0, "{answer}");
        assert_eq!(targets(&app).await[0]["last_error"], "address_refused");

        let app = named(&recorder, &names, true).await;
        let here = !answer.starts_with("127.0.0.2") && !answer.starts_with("127.255");
        assert_eq!(get(&app, "/").await.status, if here { 200 } else { 502 }, "{answer}");
    }
}

#[tokio::test]
async fn metadata_services_are_never_connected_to() {
    let recorder = Recorder::start(ok).await;
    for answer in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "fe80::1",
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "64:ff9b::a9fe:a9fe",
        "224.0.0.1",
        "169.254.169.254 0.0.0.0",
    ] {
        let app = named(&recorder, &Names::answering(&[answer]), true).await;
        assert_eq!(get(&app, "/").await.status, 502, "{answer}");
        assert_eq!(targets(&app).await[0]["last_error"], "address_refused", "{answer}");
    }
    // 0.0.0.0 and :: would have led here.
    assert_eq!(recorder.connections(), 0);
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_each_connection_and_judged_each_time() {
    let recorder = Recorder::start(ok).await;
    let names = Names::answering(&["127.0.0.1", "0.0.0.0", "127.0.0.1", "169.254.169.254"]);
    let app = named(&recorder, &names, true).await;
    // A refusal is tried once more, and that looks the name up again.
    for (status, lookups, connections) in [(200, 1, 1), (200, 3, 2), (502, 5, 2)] {
        assert_eq!(get(&app, "/").await.status, status);
        assert_eq!(names.asked(), vec!["name.test"; lookups]);
        assert_eq!(recorder.connections(), connections);
    }
}

#[tokio::test]
async fn of_several_addresses_the_allowed_ones_are_used() {
    let recorder = Recorder::start(ok).await;
    for answer in ["169.254.169.254 127.0.0.1", "0.0.0.0 127.0.0.1 fe80::1", "127.0.0.9 127.0.0.1"]
    {
        let app = named(&recorder, &Names::answering(&[answer]), true).await;
        assert_eq!(get(&app, "/").await.status, 200, "{answer}");
    }
    assert_eq!(recorder.connections(), 3);
}

#[tokio::test]
async fn a_name_without_an_address_is_a_502_that_says_nothing_of_it() {
    let recorder = Recorder::start(ok).await;
    for answers in [&[""][..], &[]] {
        let app = named(&recorder, &Names::answering(answers), true).await;
        let answer = get(&app, "/").await;
        assert_eq!((answer.status, &answer.json()["code"]), (502, &"upstream_failed".into()));
        assert!(!answer.text().contains("inner.example") && !answer.text().contains("name.test"));
    }
}

#[tokio::test]
async fn redirects_are_the_clients_to_follow() {
    let elsewhere = Recorder::start(ok).await;
    let location = format!("{}/secret", elsewhere.url());
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let recorder = Recorder::start(move |_| {
        crate::support::recorder::Reply::Send(answer.clone().into_bytes())
    })
    .await;
    let app = super::start(&public(&format!("url='{}'", recorder.url()))).await;
    for path in ["/", "/a?b=http://169.254.169.254/"] {
        let answer = get(&app, path).await;
        assert_eq!((answer.status, answer.header("location")), (302, Some(&*location)));
    }
    assert_eq!((recorder.take().len(), elsewhere.connections()), (2, 0));
}
