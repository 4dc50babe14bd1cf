//! Every operation that changes something has one row, and says who and what.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::{assert_good, count, rows};
use crate::{
    authorisation::{Cast, ask, cast, operations, request},
    streams::{FREE, Open, Source, listed, put_in_front},
    support::{Options, TestApp},
};

/// What the one row of an operation says was done; or why it has none.
enum Expected {
    Row(&'static str),
    None(&'static str),
    /// There are no chats here; what is shown in their tests.
    OfChats(&'static str),
}
use Expected::{None, OfChats, Row};

/// Every operation of the document that is not a GET.
const TABLE: &[(&str, Expected)] = &[
    ("register", Row("account.registered")),
    ("login", Row("login.succeeded")),
    (
        "refresh_tokens",
        None("prolongs a session whose beginning has a row; a token used twice has one"),
    ),
    ("logout", Row("session.ended")),
    ("logout_all", Row("session.all_ended")),
    ("change_password", Row("password.changed")),
    (
        "create_ticket",
        None("stands for the credential that asks, once and for half a minute: no new right"),
    ),
    ("end_session", Row("session.ended")),
    ("update_me", Row("account.updated")),
    ("delete_me", Row("account.deleted")),
    ("create_key", Row("key.created")),
    ("update_key", Row("key.updated")),
    ("delete_key", Row("key.deleted")),
    ("rotate_key", Row("key.rotated")),
    ("verify_key", None("a use of the key, which is in the usage")),
    ("proxy_post", None("the upstream's, and in the usage")),
    ("update_user", Row("account.access_changed")),
    ("create_user", Row("account.created")),
    ("remove_user", Row("account.deleted")),
    ("redeem_voucher", Row("voucher.redeemed")),
    ("credit_wallet", Row("wallet.credited")),
    ("create_vouchers", Row("voucher.created")),
    ("revoke_voucher", Row("voucher.revoked")),
    ("purchase_token", Row("token.purchased")),
    ("revoke_token", Row("token.revoked")),
    ("refund_token", Row("token.refunded")),
    ("grant_token", Row("token.granted")),
    ("revoke_anyones_token", Row("token.revoked")),
    ("cut_connection", Row("connection.cut")),
    ("create_chat_session", OfChats("a visitor has no account and no right")),
    ("end_chat_session", OfChats("the visitor's own")),
    ("send_chat_message", OfChats("a use of the session, which is in the usage")),
    ("stream_chat_message", OfChats("a use of the session, which is in the usage")),
    ("delete_chat", OfChats("chat.deleted, by an admin")),
    ("end_anyones_chat_session", OfChats("chat_session.ended")),
    ("reload_settings", Row("settings.reloaded")),
    ("set_log_level", Row("log_level.changed")),
];

#[tokio::test]
async fn every_operation_that_changes_something_has_exactly_one_row() {
    let settings = FREE.map(|(name, value)| (name, value.to_owned())).to_vec();
    // Other tests' streams would be listed with ours.
    let app = TestApp::with(Options { settings, in_memory: true, ..Options::default() }).await;
    let table: BTreeMap<&str, &Expected> = TABLE.iter().map(|(id, row)| (*id, row)).collect();
    assert_eq!(table.len(), TABLE.len(), "an operation stands twice");
    let operations = operations().into_iter().filter(|operation| operation.method != Method::GET);
    let (mut seen, mut open) = (0, Option::None);
    for operation in operations {
        let id = operation.id.as_str();
        let expected = table.get(id).unwrap_or_else(|| panic!("{id} is not in the table"));
        seen += 1;
        if let OfChats(reason) = expected {
            assert!(!reason.is_empty());
            continue;
        }
        let is_admins = operation.path.contains("/admin/");
        let cast = cast(&app, if is_admins { "admin" } else { "owner" }).await;
        let (target, body) = match id {
            "cut_connection" => {
                let (id, held) = open_stream(&app, &cast).await;
                open = Some(held);
                (Some(id), Option::None)
            }
            // Something that was not so.
            "update_user" => {
                (request(id, &cast).0, Some(json!({ "roles": ["user", "moderator"] })))
            }
            _ => request(id, &cast),
        };
        let client = cast.caller.with("user-agent", "route test").with("x-request-id", id);
        let before = count(&app.app.services).await;
        let target = target.unwrap_or_default();
        let answer = ask(&client, &operation, "/api/v1", &target, body.as_ref()).await;
        assert!(answer.status.is_success(), "{id}: {answer:?}");
        let new = app.app.services.audit.after(before).await.unwrap();
        let action = match expected {
            None(reason) => {
                assert!(!reason.is_empty(), "{id} has no row and no reason");
                assert!(new.is_empty(), "{id}: {new:#?}");
                continue;
            }
            Row(action) => action,
            OfChats(_) => unreachable!("those were left out"),
        };
        let [row] = &new[..] else { panic!("{id} has {} rows: {new:#?}", new.len()) };
        assert_eq!((&*row.action, &*row.actor_kind), (*action, "user"), "{id}");
        assert_eq!(row.request_id.as_deref(), Some(id));
        assert_eq!(row.user_agent.as_deref(), Some("route test"), "{id}");
        assert_eq!(row.address.as_deref(), Some(&*app.address.to_string()), "{id}");
        if !is_admins && id != "register" {
            assert_eq!(row.actor_name, cast.owner, "{id}");
        }
        for state in [&row.before, &row.after].into_iter().flatten() {
            assert!(serde_json::from_str::<Value>(state).unwrap().is_object(), "{id}: {state}");
        }
    }
    assert!(open.is_some(), "no stream was cut");
    assert_eq!(seen, table.len(), "the table has more than the document");
    assert_good(&app.app.services.audit.verify(Option::None).await.unwrap());
    let rowless = TABLE.iter().filter(|(_, expected)| !matches!(expected, Row(_))).count();
    assert!(rows(&app.app.services).await.len() > seen - rowless);
}

/// Or whoever has an account could fill the log.
#[tokio::test]
async fn what_changes_nothing_has_no_row() {
    let app = TestApp::unlimited().await;
    let user = app.user("ada").await;
    let (id, _) = app.key(&user, json!({ "name": "k" })).await;
    let before = count(&app.app.services).await;
    for _ in 0..3 {
        user.patch("/api/v1/users/me", json!({})).await.expect(200);
        user.patch(&format!("/api/v1/keys/{id}"), json!({ "name": "k" })).await.expect(200);
    }
    assert_eq!(count(&app.app.services).await, before);
    user.patch("/api/v1/users/me", json!({ "full_name": "Ada" })).await.expect(200);
    assert_eq!(count(&app.app.services).await, before + 1);
}

/// The id of a stream, and what keeps it open.
async fn open_stream(app: &TestApp, cast: &Cast) -> (String, (Source, Open)) {
    let source = Source::start().await;
    put_in_front(app, &source.url(), "auth = 'optional'");
    let open = Open::begin(app, "/events", "A: b").await;
    let id = listed(&cast.caller, "", 1).await[0]["id"].as_str().unwrap().to_owned();
    (id, (source, open))
}
