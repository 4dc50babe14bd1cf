//! Traces: what collectors and upstreams are told of requests (docs/traces.md).

mod ends;

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    chat,
    support::{
        Options, TestApp, UNLIMITED,
        otlp::{Receiver, Span},
        recorder::{self, Recorder, Reply},
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const PROXY: &str = "/api/v1/proxy";

/// An instance in front of this upstream, with more settings.
async fn gate(receiver: &Receiver, upstream: &str, more: &[(&'static str, &str)]) -> TestApp {
    let mut settings: BTreeMap<&'static str, String> = UNLIMITED
        .into_iter()
        .chain([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.url()),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("UPSTREAM_AUTH", "public"),
            ("UPSTREAM_URL", upstream),
        ])
        .map(|(name, value)| (name, value.to_owned()))
        .collect();
    settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let settings = settings.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    TestApp::with(Options { settings, ..Options::default() }).await
}

async fn upstream() -> Recorder {
    Recorder::start(recorder::ok).await
}

async fn flush(app: &TestApp) {
    let tracer = app.app.tracer.as_ref().unwrap();
    assert!(tracer.flush(std::time::Duration::from_secs(30)).await);
}

fn one<'s>(spans: &'s [Span], what: &str, is: impl Fn(&&Span) -> bool) -> &'s Span {
    let found: Vec<_> = spans.iter().filter(is).collect();
    let [one] = &*found else { panic!("{what}: {found:#?} of {spans:#?}") };
    one
}

#[tokio::test]
async fn a_trace_goes_on_through_two_gateways_to_the_upstream() {
    let (receiver, last) = (Receiver::start().await, upstream().await);
    let name = [("OTEL_SERVICE_NAME", "inner"), ("UPSTREAM_MOUNT", "/")];
    let inner = gate(&receiver, &last.url(), &name).await;
    let name = [
        ("OTEL_SERVICE_NAME", "outer"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=a%20test,service.name=no"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20let-me-in,x-tenant=a"),
        ("UPSTREAM_ROUTES", "/some/*"),
    ];
    let outer = gate(&receiver, &inner.base, &name).await;
    let client = outer.anonymous().with("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    let client = client.with("tracestate", "vendor=what-it-likes");
    client.get(&format!("{PROXY}/some/where?with=a-query")).await.expect(200);

    let spans = receiver.until(4, |_| true).await;
    assert!(spans.iter().all(|span| span.trace == TRACE && !span.failed), "{spans:#?}");
    let of = |name: &str, server| {
        let what = format!("{name} {server}");
        one(&spans, &what, |span| {
            span.process["service.name"] == name && span.is_server() == server
        })
        .clone()
    };
    let chain = [of("outer", true), of("outer", false), of("inner", true), of("inner", false)];
    let mut parent = SPAN.to_owned();
    for (span, remote) in chain.iter().zip([true, false, true, false]) {
        assert_eq!((&span.parent, span.remote), (&parent, remote), "{spans:#?}");
        parent.clone_from(&span.id);
    }
    let asked = &last.deliveries()[0];
    assert_eq!(asked.all("traceparent"), [format!("00-{TRACE}-{parent}-01")]);
    assert_eq!(asked.all("tracestate"), ["vendor=what-it-likes"]);

    let [server, call, ..] = &chain;
    assert_eq!(server.process["deployment.environment.name"], "a test");
    assert_eq!(server.process["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(server.name, format!("GET {PROXY}/some/*"));
    let address = inner.base.trim_start_matches("http://");
    let port = address.split(':').nth(1).unwrap();
    let own = outer.base.rsplit(':').next().unwrap();
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/api/v1/proxy/some/*"),
        ("url.path", "/api/v1/proxy/some/where"),
        ("url.scheme", "http"),
        ("http.response.status_code", "200"),
        ("server.address", "127.0.0.1"),
        ("server.port", own),
        ("client.address", &outer.address.to_string()),
        ("network.protocol.version", "1.1"),
        ("tollgate.upstream", "default"),
        ("http.response.body.size", "2"),
        ("error.type", "-"),
    ] {
        assert_eq!(server.says(name), value, "{name}: {server:#?}");
    }
    assert_eq!(call.name, "GET");
    assert_eq!(call.says("server.port"), port);
    assert_eq!(call.says("http.response.status_code"), "200");
    assert!(!format!("{spans:?}").contains("a-query"), "no query is told");
    let exports = receiver.deliveries();
    assert!(exports.iter().any(|it| it.all("authorization") == ["Bearer let-me-in"]));
    assert!(exports.iter().any(|it| it.all("x-tenant") == ["a"]));
}

#[tokio::test]
async fn what_is_kept_is_told_to_the_upstream_and_to_the_collector_alike() {
    let (sampled, left) = (format!("00-{TRACE}-{SPAN}-01"), format!("00-{TRACE}-{SPAN}-00"));
    let low = format!("00-00000000000000010000000000000001-{SPAN}-00");
    let ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
    let nobody = ("OTEL_TRACES_TRUSTED_PARENTS", "192.0.2.0/24");
    for (settings, said, kept) in [
        (vec![], "", true),
        (vec![], &*left, false),
        (vec![nobody], &left, true),
        (vec![("OTEL_TRACES_SAMPLER", "always_on")], &left, true),
        (vec![("OTEL_TRACES_SAMPLER", "always_off")], &sampled, false),
        (vec![("OTEL_TRACES_SAMPLER", "parentbased_always_off")], "", false),
        (vec![("OTEL_TRACES_SAMPLER", "parentbased_always_off")], &sampled, true),
        (vec![ratio, ("OTEL_TRACES_SAMPLER_ARG", "0")], "", false),
        (vec![ratio, ("OTEL_TRACES_SAMPLER_ARG", "1")], "", true),
        (vec![ratio, ("OTEL_TRACES_SAMPLER_ARG", "0"), nobody], &sampled, false),
        (
            vec![("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.01")],
            &low,
            true,
        ),
    ] {
        let (receiver, last) = (Receiver::start().await, upstream().await);
        let app = gate(&receiver, &last.url(), &settings).await;
        let client = app.anonymous();
        let client = if said.is_empty() { client } else { client.with("traceparent", said) };
        client.get(&format!("{PROXY}/x")).await.expect(200);
        // A balancer's question begins none.
        app.anonymous().get("/health/live").await.expect(200);
        let case = format!("{settings:?} {said}");
        if kept {
            receiver.until(2, |_| true).await;
        }
        flush(&app).await;
        assert_eq!(receiver.spans().len(), if kept { 2 } else { 0 }, "{case}");
        let told = last.deliveries()[0].all("traceparent")[0].to_owned();
        assert!(told.ends_with(if kept { "-01" } else { "-00" }), "{case}: {told}");
        assert!(said.is_empty() || told[3..35] == said[3..35], "{case}: {told}");
        assert_ne!(told, said, "{case}");
    }
}

#[tokio::test]
async fn where_there_are_no_traces_what_the_client_says_passes_as_it_is() {
    let (receiver, last) = (Receiver::start().await, upstream().await);
    for off in [("OTEL_EXPORTER_OTLP_ENDPOINT", ""), ("OTEL_SDK_DISABLED", "true")] {
        let app = gate(&receiver, &last.url(), &[off]).await;
        assert!(app.app.tracer.is_none());
        for said in [&*format!("00-{TRACE}-{SPAN}-01"), "nonsense"] {
            let client = app.anonymous().with("traceparent", said).with("tracestate", "!");
            client.get(&format!("{PROXY}/x")).await.expect(200);
            let asked = last.take().pop().unwrap();
            assert_eq!(
                (asked.all("traceparent"), asked.all("tracestate")),
                (vec![said], vec!["!"])
            );
        }
        app.anonymous().get(&format!("{PROXY}/x")).await.expect(200);
        assert!(!last.take()[0].names().contains(&"traceparent".to_owned()));
    }
    assert!(receiver.deliveries().is_empty());
}

#[tokio::test]
async fn what_is_no_trace_context_is_not_gone_on_with() {
    let (receiver, last) = (Receiver::start().await, upstream().await);
    let app = gate(&receiver, &last.url(), &[]).await;
    let good = format!("00-{TRACE}-{SPAN}-01");
    let path = format!("{PROXY}/x");
    for said in [vec!["nonsense"], vec![&*good, &good], vec!["00-0-0-01"]] {
        let mut client = app.anonymous().with("tracestate", "vendor=1");
        for one in &said {
            client = client.with("traceparent", one);
        }
        client.get(&path).await.expect(200);
        let asked = last.take().pop().unwrap();
        let [told] = &*asked.all("traceparent") else { panic!("{asked:?}") };
        assert!(told.len() == 55 && !told.contains(TRACE), "{said:?}: {told}");
        assert!(asked.all("tracestate").is_empty(), "{said:?}");
    }
    // What is wrong with the list is no reason to leave the trace.
    let client = app.anonymous().with("traceparent", &good).with("tracestate", "=");
    // Nor may the client have ours taken off on the way.
    client.with("connection", "traceparent").get(&path).await.expect(200);
    let asked = last.take().pop().unwrap();
    assert!(asked.all("traceparent")[0].contains(TRACE) && asked.all("tracestate").is_empty());
    let spans = receiver.until(8, |_| true).await;
    let new = spans.iter().filter(|span| span.is_server() && span.parent.is_empty());
    assert_eq!(new.count(), 3, "{spans:#?}");
}

#[tokio::test]
async fn an_operator_may_keep_traces_from_an_upstream() {
    let (receiver, last) = (Receiver::start().await, upstream().await);
    let table = format!(
        "[[upstreams]]\nname = \"out\"\nmount = \"/out\"\ntargets = [\"{}\"]\nauth = \"public\"\n\
         request_headers = {{ remove = [\"traceparent\", \"tracestate\"] }}\n",
        last.url()
    );
    let app = gate(&receiver, "", &[("FILE", &table)]).await;
    let client = app.anonymous().with("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    client.get("/out/x").await.expect(200);
    assert!(last.deliveries()[0].all("traceparent").is_empty());
    receiver.until(2, |span| span.trace == TRACE).await;
}

#[tokio::test]
async fn a_route_of_ours_tells_what_it_asked_the_database() {
    let receiver = Receiver::start().await;
    let app = gate(&receiver, "", &[]).await;
    let user = app.user("ada").await;
    let traced = user.with("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    let (id, _) = app.key(&traced, json!({ "name": "k" })).await;
    let name = traced.get(&format!("/api/v1/keys/{id}")).await.expect(200);
    let servers = receiver.until(2, |span| span.trace == TRACE && span.is_server()).await;
    flush(&app).await;
    let spans = receiver.spans();
    let server = one(&servers, "GET", |span| span.name == "GET /api/v1/keys/{id}");
    assert_eq!(server.says("http.route"), "/api/v1/keys/{id}", "{name:?}");
    assert_eq!(server.says("user.id").len(), 36);
    let made = one(&servers, "POST", |span| span.name == "POST /api/v1/keys");
    let calls: Vec<_> = spans.iter().filter(|span| span.parent == made.id).collect();
    for name in ["database begin", "database api_keys", "database commit"] {
        let call = calls.iter().find(|span| span.name == name);
        let call = call.unwrap_or_else(|| panic!("{name}: {calls:#?}"));
        assert_eq!(call.says("db.system.name"), "other_sql");
        assert!(made.started <= call.started && call.ended <= made.ended, "{call:?} {made:?}");
    }
    let nothing = app.anonymous().get("/api/v1/nothing/here").await;
    nothing.expect(404);
    let span = &receiver.until(1, |span| span.says("http.response.status_code") == "404").await[0];
    assert_eq!((span.name.as_str(), span.says("http.route"), span.failed), ("GET", "-", false));
}

#[tokio::test]
async fn a_chat_answer_is_of_the_trace_of_its_question() {
    let (receiver, workflow) = (Receiver::start().await, Recorder::start(chat::hello).await);
    let chat = chat::settings(&workflow.url());
    let chat: Vec<_> = chat.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let app = gate(&receiver, "", &chat).await;
    let mut visitor = chat::begin(&app).await;
    visitor.client = visitor.client.with("traceparent", &format!("00-{TRACE}-{SPAN}-01"));
    visitor.ask(json!({ "message": "hi" })).await.expect(200);
    let is_call = |span: &Span| span.trace == TRACE && span.says("tollgate.upstream") == "chat";
    let call = receiver.until(1, is_call).await.remove(0);
    assert_eq!(call.says("http.response.status_code"), "200");
    let asked = &workflow.deliveries()[0];
    assert_eq!(asked.all("traceparent"), [format!("00-{TRACE}-{}-01", call.id)]);
    let server = receiver.until(1, |span| span.id == call.parent).await.remove(0);
    assert!(server.is_server() && server.parent == SPAN && !call.failed, "{server:#?}");
}

#[tokio::test]
async fn who_is_asked_in_vain_is_told_of_as_failed() {
    for (reply, status, why, asked) in [
        ("reset", 502, "broken", "-"),
        ("refused", 502, "unreachable", "-"),
        ("500", 500, "500", "500"),
        ("404", 404, "404", "404"),
    ] {
        let receiver = Receiver::start().await;
        let last = Recorder::start(move |_| match reply {
            "reset" => Reply::Reset,
            status => Reply::Send(
                format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").into_bytes(),
            ),
        })
        .await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let url = if reply == "refused" { format!("http://{closed}") } else { last.url() };
        let app = gate(&receiver, &url, &[]).await;
        app.anonymous().get(&format!("{PROXY}/x")).await.expect(status);
        let spans = receiver.until(2, |_| true).await;
        let server = one(&spans, reply, |span| span.is_server());
        let call = one(&spans, reply, |span| !span.is_server());
        assert_eq!(call.says("error.type"), why, "{call:#?}");
        assert_eq!(call.says("http.response.status_code"), asked, "{call:#?}");
        assert!(call.failed && server.failed == (status >= 500), "{reply}: {server:#?}");
    }
}
