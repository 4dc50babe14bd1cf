//! Pages of several origins in one browser.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use http::Method;
use serde_json::json;
use tollgate::domain::clock::FakeClock;

use super::{ORIGIN, OTHER, hello, settings};
use crate::support::{Answer, Client, Options, TestApp, epoch, recorder::Recorder};

const VALIDATE: &str = "/api/v1/session/validate";

/// What a browser keeps for us, for all pages of one site.
#[derive(Default)]
struct Kept(BTreeMap<String, String>);

impl Kept {
    /// What the page of this origin asks, after it this answer's cookies are kept.
    async fn ask(&mut self, page: &Client, method: Method, path: &str, body: &str) -> Answer {
        let pairs: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let page =
            if pairs.is_empty() { page.clone() } else { page.with("cookie", &pairs.join("; ")) };
        let kind = (!body.is_empty()).then_some("application/json");
        let answer = page.send(method, path, kind, body.to_owned().into()).await;
        for field in answer.headers.get_all("set-cookie") {
            let (name, rest) = field.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap().to_owned();
            let forgotten = rest.contains("Max-Age=0;");
            assert_eq!(forgotten, value.is_empty());
            self.0.insert(name.to_owned(), value);
            self.0.retain(|_, value| !value.is_empty());
        }
        answer
    }

    async fn begin(&mut self, page: &Client, domain: &str) -> String {
        let body = json!({ "origin_domain": domain }).to_string();
        let made = self.ask(page, Method::POST, "/api/v1/session/create", &body).await;
        made.expect(201).text("session_id").to_owned()
    }

    /// The session that is valid on this page.
    async fn session(&mut self, page: &Client) -> Option<String> {
        let state = self.ask(page, Method::GET, VALIDATE, "").await.expect(200);
        assert_eq!(state.json["valid"], !state.json["session_id"].is_null());
        state.json["session_id"].as_str().map(str::to_owned)
    }
}

/// Browsers keep one cookie of a name for all pages of a site, whatever their
/// origins.
#[tokio::test]
async fn pages_of_two_origins_have_sessions_of_their_own() {
    const OURS: &str = "http://gate.example.com";
    let recorder = Recorder::start(hello).await;
    let clock = FakeClock::starting_at(epoch());
    let mut settings = settings(&recorder.url());
    settings.push(("SERVER_PUBLIC_URL", OURS.to_owned()));
    let options = Options { settings, clock: clock.clone(), in_memory: true, ..Options::default() };
    let app = TestApp::with(options).await;
    let page = |origin: &str| app.anonymous().with("origin", origin).with("user-agent", "B/1");
    let (shop, other) = (page(ORIGIN), page(OTHER));
    let mut kept = Kept::default();
    let first = kept.begin(&shop, "shop.example.com").await;
    assert_eq!(kept.session(&other).await, None);
    let second = kept.begin(&other, "other.example.com").await;
    let names: Vec<_> = kept.0.keys().cloned().collect();
    assert_eq!((names.len(), names[0].as_str()), (2, "chat_session_id"));
    assert!(names[1].starts_with("chat_session_id_"), "{names:?}");
    // Past half their lives both get another cookie, each in its place.
    clock.advance(TimeDelta::hours(13));
    let before = kept.0.clone();
    for (page, session) in [(&shop, &first), (&other, &second), (&shop, &first), (&other, &second)]
    {
        assert_eq!(kept.session(page).await.as_ref(), Some(session));
        let path = "/api/v1/chat/message";
        kept.ask(page, Method::POST, path, r#"{"message":"q"}"#).await.expect(200);
    }
    assert!(
        kept.0.keys().eq(before.keys())
            && kept.0.values().zip(before.values()).all(|(a, b)| a != b)
    );
    // Our own page is not told apart by a field of its own where it only reads.
    let ours = app.anonymous().with("user-agent", "B/1").with("host", "gate.example.com");
    let third = kept.begin(&ours.with("origin", OURS), "gate.example.com").await;
    let ours = ours.with("sec-fetch-site", "same-origin");
    assert_eq!((kept.session(&ours).await.as_ref(), kept.0.len()), (Some(&third), 3));
    // Of what one page ends nothing is another's.
    kept.ask(&other, Method::DELETE, "/api/v1/session", "").await.expect(204);
    assert_eq!((kept.session(&other).await, kept.0.len()), (None, 2));
    let path = format!("/api/v1/chat/history/{first}");
    assert_eq!(kept.session(&shop).await, Some(first));
    let second = kept.begin(&other, "other.example.com").await;
    kept.ask(&shop, Method::DELETE, &path, "").await.expect(204);
    assert_eq!(kept.session(&shop).await, None);
    assert!(!kept.0.contains_key("chat_session_id"));
    assert_eq!(kept.session(&other).await.as_ref(), Some(&second));
    // It keeps its place while it has one.
    let next = kept.begin(&other, "other.example.com").await;
    assert_eq!((kept.session(&other).await, kept.0.len()), (Some(next), 2));
    let first = kept.begin(&shop, "shop.example.com").await;
    assert_eq!((kept.session(&shop).await, kept.0.len()), (Some(first), 3));
    // What opens nothing any more is taken away, from there where it is.
    clock.advance(TimeDelta::hours(25));
    for (page, left) in [(&other, 1), (&ours, 0)] {
        assert_eq!((kept.session(page).await, kept.0.len()), (None, left));
    }
}
