//! Time passes in use: what begins one, what it opens, what ends it.

mod cost;
mod ending;
mod first_use;
mod forwarded;
mod races;
mod redis_copy;
mod refused;
mod revoked;
mod status;

use tollgate::domain::audit::SYSTEM;
use tollgate::{
    domain::{
        id::{PassId, UserId},
        token::TokenHash,
    },
    services::passes::{Holder, Order},
};

use crate::support::{Answer, Client, TestApp};

const HELLO: &str = "/api/v1/proxy/hello";
const STATUS: &str = "/api/v1/tokens/status";

/// A pass that was given to somebody.
#[derive(Clone)]
struct Given {
    id: PassId,
    owner: UserId,
    text: String,
}

async fn id_of(user: &Client) -> UserId {
    user.get("/api/v1/users/me").await.expect(200).text("id").parse().unwrap()
}

async fn give(app: &TestApp, owner: UserId, hours: u32) -> Given {
    let order = Order { duration_hours: hours, upstream: None };
    let given = app.app.services.passes.grant(&SYSTEM, owner, order, None).await.unwrap();
    let text = given.token.unwrap().expose().to_owned();
    Given { id: given.pass.id, owner, text }
}

/// One of an hour, for a user of this name who is made for it.
async fn pass_of(app: &TestApp, name: &str) -> Given {
    let owner = id_of(&app.user(name).await).await;
    give(app, owner, 1).await
}

impl Given {
    fn hash(&self) -> TokenHash {
        TokenHash::of_pass(&self.text).unwrap()
    }

    /// Somebody who sends it with every request.
    fn bearer(&self, app: &TestApp) -> Client {
        app.anonymous().with("x-access-token", &self.text)
    }

    async fn status(&self, app: &TestApp) -> Answer {
        self.bearer(app).get(STATUS).await.expect(200)
    }

    async fn revoke(&self, app: &TestApp) {
        app.app.services.passes.revoke(&SYSTEM, Holder::User(self.owner), self.id).await.unwrap();
    }

    async fn refund(&self, app: &TestApp) {
        app.app.services.passes.refund(&SYSTEM, self.owner, self.id, None).await.unwrap();
    }
}
