//! What the upstream is told of who holds a pass, and what it is not.

use super::{give, id_of};
use crate::support::{
    Options, TestApp,
    raw::Raw,
    recorder::{Recorder, ok},
};

/// In front of `recorder`, mounted at `/`.
pub(super) async fn in_front_of(recorder: &Recorder) -> TestApp {
    let url = recorder.url();
    let settings = [("UPSTREAM_URL", url.as_str()), ("UPSTREAM_MOUNT", "/")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    TestApp::with(Options { settings, ..Options::default() }).await
}

fn spellings() -> Vec<String> {
    let mut all = vec![];
    for name in ["X-Token-Id", "X-Key-Id", "X-User-Id", "X-Username", "X-Roles"] {
        let cases = [name.to_owned(), name.to_lowercase(), name.to_uppercase()];
        let others = "!#$%&'*+.^_`|~".chars().map(|c| name.replace('-', &c.to_string()));
        for spelling in cases.into_iter().chain(others) {
            all.push(format!("{spelling}: forged\r\n"));
            all.push(format!("Connection: {spelling}\r\n{spelling}: forged\r\n"));
        }
    }
    all
}

#[tokio::test]
async fn the_upstream_learns_who_holds_the_pass_and_nothing_that_was_made_up() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder).await;
    let address = app.running.as_ref().unwrap().address();
    let owner = id_of(&app.user("ada").await).await;
    let pass = give(&app, owner, 1).await;
    let (owner, id) = (owner.to_string(), pass.id.to_string());
    let (mut passed, mut refused) = (0, 0);
    for forgery in spellings() {
        let head = format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Access-Token: {}\r\n", pass.text);
        let answer = Raw::exchange(address, format!("{head}{forgery}\r\n")).await;
        let seen = recorder.take();
        if answer.status == 400 {
            assert!(seen.is_empty(), "{forgery:?}");
            refused += 1;
            continue;
        }
        assert_eq!((answer.status, seen.len()), (200, 1), "{forgery:?}");
        passed += 1;
        for (name, value) in [
            ("x-token-id", id.as_str()),
            ("x-user-id", owner.as_str()),
            ("x-username", "ada"),
            ("x-roles", "user"),
        ] {
            assert_eq!(seen[0].all(name), [value], "{forgery:?}");
        }
        assert!(seen[0].all("x-key-id").is_empty(), "{forgery:?}");
        assert!(!seen[0].head.to_lowercase().contains("forged"), "{}", seen[0].head);
        assert!(!seen[0].head.contains("tga_"), "{}", seen[0].head);
    }
    assert!(passed >= 30 && refused >= 70, "{passed} {refused}");
}

/// Of several good credentials the pass decides who it is.
#[tokio::test]
async fn a_pass_goes_before_a_key_and_a_login() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder).await;
    let ada = id_of(&app.user("ada").await).await;
    let pass = give(&app, ada, 1).await;
    let grace = app.user("grace").await;
    let (_, key) = app.key(&grace, serde_json::json!({ "name": "k" })).await;
    let client = key.with("x-access-token", &pass.text);
    client.get("/x").await.expect(200);
    let seen = recorder.take().remove(0);
    assert_eq!(seen.all("x-user-id"), [ada.to_string()]);
    assert_eq!(seen.all("x-token-id"), [pass.id.to_string()]);
    assert!(seen.all("x-key-id").is_empty() && seen.all("x-api-key").is_empty());
}

/// Usage is the user's; no key had a part in it.
#[tokio::test]
async fn what_is_used_with_a_pass_is_its_owners_usage() {
    let recorder = Recorder::start(ok).await;
    let app = in_front_of(&recorder).await;
    let user = app.user("ada").await;
    let pass = give(&app, id_of(&user).await, 1).await;
    for _ in 0..3 {
        pass.bearer(&app).get("/used").await.expect(200);
    }
    app.flush().await;
    let requests = user.get("/api/v1/usage/requests").await.expect(200);
    let items = requests.json["items"].as_array().unwrap();
    assert_eq!(items.len(), 3, "{items:?}");
    for item in items {
        assert_eq!((&item["path"], &item["key_id"]), (&"/used".into(), &serde_json::Value::Null));
        assert_eq!(item["user_id"], pass.owner.to_string());
    }
}
