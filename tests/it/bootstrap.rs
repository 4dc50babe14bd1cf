//! The first admin is made once, however many instances start at once.

use futures_util::future::join_all;
use secrecy::SecretString;
use tollgate::{
    config::AdminConfig,
    domain::{page::PageRequest, user::Role},
    services::{accounts::UserFilter, bootstrap::first_admin, logins::Device},
};

use crate::support::TestApp;

const ROUNDS: usize = 100;
const INSTANCES: usize = 4;

/// RELIABILITY G-150.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_instances_that_start_at_once_one_makes_the_admin() {
    let app = TestApp::unlimited().await;
    let services = &app.app.services;
    let config = AdminConfig { password: None, ..app.app.config.admin.clone() };
    let mut databases = vec![];
    for _ in 0..INSTANCES {
        databases.push(app.database.open().await);
    }
    for round in 0..ROUNDS {
        app.database.execute("DELETE FROM users").await;
        app.database.execute("DELETE FROM settings").await;
        let starting = databases
            .iter()
            .map(|db| first_admin(db, &services.accounts, &config, &services.clock));
        let made = join_all(starting).await;
        let mut made: Vec<_> = made.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(made.len(), 1, "round {round}");

        let all = services.accounts.list(&UserFilter::default(), PageRequest::FIRST).await.unwrap();
        assert_eq!(all.items.len(), 1, "round {round}");
        assert!(all.items[0].roles.has(Role::Admin));
        if round % 20 == 0 {
            // The winner's password is the one that holds.
            let admin = made.remove(0);
            let password: SecretString = admin.generated_password.unwrap();
            let device = Device { address: app.address.into(), user_agent: None, request_id: None };
            services.logins.login(&admin.username, &password, &device).await.unwrap();
        }
        let again = first_admin(&databases[0], &services.accounts, &config, &services.clock).await;
        assert!(again.unwrap().is_none(), "round {round}");
    }
    for db in databases {
        db.close().await;
    }
}

#[tokio::test]
async fn an_admin_that_was_removed_does_not_come_back() {
    let app = TestApp::start().await;
    let (services, config) = (&app.app.services, &app.app.config.admin);
    app.database.execute("DELETE FROM users").await;
    let again = first_admin(&app.app.db, &services.accounts, config, &services.clock).await;
    assert!(again.unwrap().is_none());
}
