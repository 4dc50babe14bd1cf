//! `tollgate tokens` and `tollgate secrets`, beside instances that serve.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Process, Setup, commands::JSON, commands::refused};
use crate::support::Client;

const MINE: &str = "/api/v1/tokens/my-tokens";
const ROTATE: [&str; 2] = ["secrets", "rotate"];
const STOP: Duration = Duration::from_secs(5);
const OLD: &str = "a key of 47 Zebras and 12 Okapis!";
const NEW: &str = "a key of 31 Lemurs and 58 Quokkas!";
const OTHER: &str = "a key of 90 Ocelots and 73 Narwhals!";

async fn json(setup: &Setup, arguments: &[&str]) -> Value {
    setup.run(&[arguments, &JSON].concat(), "").await.expect(0).json()
}

async fn buy(client: &Client) -> String {
    let body = json!({ "duration_hours": 24 });
    client.post("/api/v1/tokens/purchase", body).await.expect(201).text("token").to_owned()
}

/// The texts of the admin's tokens; the empty one stands for those that cannot
/// be read.
async fn texts(client: &Client) -> BTreeSet<String> {
    let answer = client.get(MINE).await.expect(200);
    let items = answer.json["items"].as_array().unwrap().iter();
    items.map(|token| token["token"].as_str().unwrap_or_default().to_owned()).collect()
}

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

/// Logged in as the admin whichever instance it is.
async fn serve(setup: &Setup) -> (Process, Client) {
    let process = setup.serve().await;
    let admin = process.admin().await;
    (process, admin)
}

#[tokio::test]
async fn tokens_are_given_listed_and_ended_under_a_running_server() {
    let setup = Setup::shared().await;
    let (process, admin) = serve(&setup).await;
    let grant = ["tokens", "grant", "--user", "admin", "--hours", "5", "--upstream", "echo"];
    let given = json(&setup, &grant).await;
    let (id, text) = (given[0]["token_id"].as_str().unwrap(), given[0]["token"].as_str().unwrap());
    let of = |name: &str| given[0][name].clone();
    assert_eq!((of("duration_hours"), of("upstream")), (json!(5), json!("echo")));
    assert_eq!((of("origin"), of("status")), (json!("grant"), json!("unused")));
    assert_eq!(texts(&admin).await, set([text]));
    let table = setup.run(&grant, "").await.expect(0).stdout;
    assert_eq!(table.matches("tga_").count(), 2, "prefix and text: {table}");

    let list = async |arguments: &str| {
        let arguments: Vec<_> = arguments.split_whitespace().collect();
        json(&setup, &[&["tokens", "list"], &arguments[..]].concat()).await
    };
    let mut listed = list("").await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[1]["token_id"], id, "the newest first");
    assert!(listed.as_array().unwrap().iter().all(|row| row.get("token").is_none()));
    assert!(!listed.to_string().contains(&text[8..]));

    let ended = json(&setup, &["tokens", "revoke", id]).await;
    assert_eq!((&ended[0]["status"], ended[0].get("token")), (&json!("revoked"), None));
    // Once more is not an error, as over HTTP.
    json(&setup, &["tokens", "revoke", id]).await;
    listed = list("--user admin --status revoked").await;
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["token_id"]), (1, &json!(id)));
    assert_eq!(list("--status active").await, json!([]));
    let answer = admin.get(&format!("{MINE}?active_only=true")).await.expect(200);
    assert_eq!(answer.json["items"].as_array().unwrap().len(), 1);

    let missing = "01890a5d-ac96-774b-bcce-b302099a8057";
    refused(setup.run(&["tokens", "revoke", missing], "").await, "no such token");
    let nobody = ["tokens", "grant", "--user", "nobody", "--hours", "5"];
    refused(setup.run(&nobody, "").await, "no such");
    refused(setup.run(&["tokens", "list", "--user", "nobody"], "").await, "no such");
    let nowhere = ["tokens", "grant", "--user", "admin", "--hours", "5", "--upstream", "nowhere"];
    refused(setup.run(&nowhere, "").await, "no upstream of this name");
    drop(process);
}

/// The whole way from the key that was made by itself to a configured one, as
/// the README describes it.
#[tokio::test]
async fn the_sealing_key_is_changed_and_every_text_stays_readable() {
    let old = Setup::shared().await;
    let (mut process, client) = serve(&old).await;
    let mut bought = BTreeSet::new();
    for _ in 0..3 {
        bought.insert(buy(&client).await);
    }
    let nothing = json!({ "resealed": 0, "left": [] });
    assert_eq!(json(&old, &ROTATE).await, nothing, "there is but one key");
    process.stop(STOP).await;

    let made = std::fs::read_to_string(old.path().join("data/secrets/sealing")).unwrap();
    let both = old.clone().set("SECRETS_KEY", NEW).set("SECRETS_PREVIOUS_KEYS", made.trim());
    let (mut process, client) = serve(&both).await;
    bought.insert(buy(&client).await);
    let rotated = AtomicBool::new(false);
    let reading = async {
        while !rotated.load(Ordering::Relaxed) {
            assert_eq!(texts(&client).await, bought);
        }
    };
    let rotating = async {
        assert_eq!(json(&both, &ROTATE).await, json!({ "resealed": 3, "left": [] }));
        assert_eq!(json(&both, &ROTATE).await, nothing, "twice is once");
        rotated.store(true, Ordering::Relaxed);
    };
    tokio::join!(reading, rotating);
    process.stop(STOP).await;

    let new = old.clone().set("SECRETS_KEY", NEW);
    let (mut process, client) = serve(&new).await;
    assert_eq!(texts(&client).await, bought, "the old key is not needed any more");
    assert_eq!(json(&new, &ROTATE).await, nothing);
    process.stop(STOP).await;
}

/// An instance that is restarted last goes on sealing with the old key.
#[tokio::test]
async fn a_second_rotation_takes_what_a_late_instance_sealed() {
    let old = Setup::shared().await.set("SECRETS_KEY", OLD);
    if !old.environment["DATABASE_URL"].starts_with("postgres") {
        // On SQLite there is no second instance.
        return;
    }
    let old = old.set("AUTH_SECRET_KEY", "a shared key of Zebras, 0123456789!");
    let (_late, late) = serve(&old).await;
    let both = old.clone().set("SECRETS_KEY", NEW).set("SECRETS_PREVIOUS_KEYS", OLD);
    let (_restarted, restarted) = serve(&both).await;
    let mut bought = set([&buy(&late).await, &buy(&restarted).await]);
    assert_eq!(json(&both, &ROTATE).await, json!({ "resealed": 1, "left": [] }));
    assert_eq!(texts(&late).await, set([""]), "it does not have the key, and serves still");
    bought.insert(buy(&late).await);
    assert_eq!(texts(&restarted).await, bought);
    assert_eq!(json(&both, &ROTATE).await, json!({ "resealed": 1, "left": [] }));
    assert_eq!(texts(&restarted).await, bought);
}

#[tokio::test]
async fn what_no_key_opens_is_named_and_left_as_it_is() {
    let old = Setup::shared().await.set("SECRETS_KEY", OLD);
    let (mut process, client) = serve(&old).await;
    let lost = buy(&client).await;
    let listed = client.get(MINE).await.expect(200);
    let id = listed.json["items"][0]["token_id"].as_str().unwrap().to_owned();
    process.stop(STOP).await;
    let (mut process, client) = serve(&old.clone().set("SECRETS_KEY", OTHER)).await;
    let kept = buy(&client).await;
    process.stop(STOP).await;

    let new = old.clone().set("SECRETS_KEY", NEW).set("SECRETS_PREVIOUS_KEYS", OTHER);
    let (_process, client) = serve(&new).await;
    for resealed in [1, 0] {
        let ran = new.run(&[&ROTATE[..], &JSON].concat(), "").await.expect(1);
        let report = ran.json();
        assert_eq!(report["resealed"], resealed, "{ran:?}");
        assert_eq!(report["left"].as_array().unwrap().len(), 1, "{ran:?}");
        assert_eq!(report["left"][0]["token_id"], id, "{ran:?}");
        assert_eq!(report["left"][0]["sealing_key"].as_str().unwrap().len(), 16, "{ran:?}");
        assert!(ran.stderr.contains("SECRETS_PREVIOUS_KEYS"), "{ran:?}");
        for secret in [OLD, NEW, OTHER, &lost, &kept] {
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran:?}");
        }
    }
    let table = new.run(&ROTATE, "").await.expect(1).stdout;
    assert!(table.contains(&id), "{table}");
    assert_eq!(texts(&client).await, set([&kept, ""]));
    // It was left, not broken: with its key it opens, and is sealed again.
    let found = old.clone().set("SECRETS_KEY", NEW).set("SECRETS_PREVIOUS_KEYS", OLD);
    assert_eq!(json(&found, &ROTATE).await, json!({ "resealed": 1, "left": [] }));
    assert_eq!(texts(&client).await, set([&kept, &lost]));
}
