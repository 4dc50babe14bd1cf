//! SIGHUP (RELIABILITY G-66, G-67).

use std::time::Duration;

use super::{PASSWORD, Process, Setup};

const OLD: &str = "the first key of 47 Zebras and 12 Okapis!";
const NEW: &str = "quite another one: 93 Giraffes 5 Lemurs?";
const REFUSED: &str = "the settings cannot be used; those in force stay";
pub const READ: &str = "the settings were read again";

/// Sends the signal and waits until it was acted on.
pub async fn hang_up(process: &Process, message: &str) {
    let logged = || process.log().iter().filter(|record| record["message"] == message).count();
    let before = logged();
    process.signal("-HUP");
    process.until("read again", Duration::from_secs(3), async || logged() > before).await;
}

async fn is_good(process: &Process, token: &str) -> bool {
    let answer = process.client().with_bearer(token).get("/api/v1/users/me").await;
    assert!([200, 401].contains(&answer.status.as_u16()), "{answer:?}");
    answer.status == 200
}

#[tokio::test]
async fn a_signing_key_is_rotated_without_a_restart_and_a_bad_file_changes_nothing() {
    let setup = Setup::shared().await;
    let settings = |lines: &str| setup.write("tollgate.toml", &format!("[auth]\n{lines}"));
    settings(&format!("secret_key = {OLD:?}"));
    let mut process = setup.serve().await;
    let old = process.token("admin", PASSWORD).await;

    settings("secret_key = 'too short'\ncolour = 'red'");
    hang_up(&process, REFUSED).await;
    let error = process.logged(REFUSED).unwrap()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("auth.secret_key") && error.contains("auth.colour"), "{error}");
    assert!(!error.contains("too short") && !error.contains("red"), "{error}");
    assert!(is_good(&process, &old).await);
    assert!(is_good(&process, &process.token("admin", PASSWORD).await).await);

    settings(&format!("secret_key = {NEW:?}\nprevious_secret_keys = {OLD:?}"));
    hang_up(&process, READ).await;
    let new = process.token("admin", PASSWORD).await;
    let head = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_ne!(head(&old), head(&new), "signed with another key");
    assert!(is_good(&process, &old).await, "nobody is logged out");
    assert!(is_good(&process, &new).await);

    settings(&format!("secret_key = {NEW:?}"));
    hang_up(&process, READ).await;
    assert!(!is_good(&process, &old).await, "the old key is gone");
    assert!(is_good(&process, &new).await);
    process.stop(Duration::from_secs(3)).await;
}

/// Where the key was made at the first start, nothing is to be lost.
#[tokio::test]
async fn a_hangup_without_any_settings_changes_nothing() {
    let process = Setup::sqlite().serve().await;
    let token = process.token("admin", PASSWORD).await;
    hang_up(&process, READ).await;
    assert!(is_good(&process, &token).await);
}
