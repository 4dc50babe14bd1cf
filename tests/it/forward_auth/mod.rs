//! What other proxies are told about requests that they ask about.

mod limits;
mod named;
mod policies;
pub mod proxies;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tollgate::config::{Config, Sources};

use crate::support::{Answer, Client, TestApp, UNLIMITED, unique};

const VERIFY: &str = "/api/v1/auth/verify";

/// Upstreams that nothing is ever sent to.
const UPSTREAMS: &str = r#"
[[upstreams]]
name = "app"
mount = "/app"
url = "http://127.0.0.1:1"
assertion = true
origins = ["https://friend.example"]
[[upstreams.paths]]
path = "/static/*"
auth = "public"
[[upstreams.paths]]
path = "/open/*"
auth = "optional"
[[upstreams.paths]]
path = "/read/*"
methods = ["GET"]
[[upstreams.paths]]
path = "/keys/*"
credentials = ["api_key"]
[[upstreams.paths]]
path = "/scoped/*"
scopes = ["chat:write"]
[[upstreams.paths]]
path = "/admins/*"
roles = ["admin"]

[[upstreams]]
name = "open"
mount = "/open"
url = "http://127.0.0.1:1"
auth = "public"

[[upstreams]]
name = "other"
mount = "/other"
url = "http://127.0.0.1:1"
"#;

/// An instance with these upstreams.
async fn guard() -> TestApp {
    let settings = [UNLIMITED[0], UNLIMITED[1], ("AUTH_ALGORITHM", "EdDSA")];
    let app = TestApp::configured(settings).await;
    upstreams(&app);
    app
}

fn upstreams(app: &TestApp) {
    let file = Some(UPSTREAMS.to_owned());
    let environment = [("AUTH_ALGORITHM".to_owned(), "EdDSA".to_owned())].into();
    let config = Config::load(&Sources { file, environment, ..Sources::default() }).unwrap();
    app.app.services.upstreams.replace(&config.upstreams);
}

/// Asks as nginx does.
async fn ask(client: &Client, method: &str, uri: &str) -> Answer {
    ask_with(client, "", method, uri).await
}

async fn ask_with(client: &Client, options: &str, method: &str, uri: &str) -> Answer {
    let client = client.with("x-original-method", method).with("x-original-uri", uri);
    client.get(&format!("{VERIFY}{options}")).await
}

async fn send(client: &Client, method: &str, path: &str) -> Answer {
    client.send(Method::from_bytes(method.as_bytes()).unwrap(), path, None, Bytes::new()).await
}

/// Somebody with one of each.
struct Ada {
    id: String,
    login: Client,
    key: Client,
    key_id: String,
    pass: Client,
    pass_text: String,
    pass_id: String,
}

impl Ada {
    async fn new(app: &TestApp) -> Self {
        let login = app.user(&unique("ada")).await;
        let me = login.get("/api/v1/users/me").await.expect(200);
        let (key_id, key) = app.key(&login, json!({ "name": "k" })).await;
        let day = json!({ "duration_hours": 24 });
        let bought = login.post("/api/v1/tokens/purchase", day).await.expect(201);
        Self {
            id: me.text("id").to_owned(),
            login,
            key,
            key_id,
            pass: app.anonymous().with("x-access-token", bought.text("token")),
            pass_text: bought.text("token").to_owned(),
            pass_id: bought.text("token_id").to_owned(),
        }
    }

    /// The most recent requests as the log has them, the last one first.
    async fn log(&self, app: &TestApp) -> Vec<serde_json::Value> {
        app.flush().await;
        let log = self.login.get("/api/v1/usage/requests").await.expect(200);
        log.json["items"].as_array().unwrap().clone()
    }
}
