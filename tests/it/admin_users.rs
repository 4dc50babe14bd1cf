//! Accounts that admins make and delete.

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tollgate::{
    domain::{
        audit::{Actor, Origin, SYSTEM},
        id::UserId,
        user::{NewUser, Role, Roles},
    },
    services::accounts::{AccessChange, AccountError},
};

use crate::support::{Answer, Client, PASSWORD, TestApp, unique};

const USERS: &str = "/api/v1/admin/users";

async fn create(admin: &Client, name: &str, fields: Value) -> Answer {
    let mut body = json!({ "username": name, "email": format!("{name}@example.com") });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    admin.post(USERS, body).await
}

async fn remove(admin: &Client, id: &str) -> Answer {
    admin.delete(&format!("{USERS}/{id}")).await
}

async fn change(admin: &Client, id: &str, fields: Value) -> Answer {
    admin.patch(&format!("{USERS}/{id}"), fields).await
}

/// An account of this role, logged in, with its id.
async fn somebody(app: &TestApp, admin: &Client, role: &str) -> (String, Client) {
    let name = unique(role);
    let fields = json!({ "password": PASSWORD, "roles": ["user", role] });
    let id = create(admin, &name, fields).await.expect(201).text("id").to_owned();
    (id, app.log_in(&name, PASSWORD).await)
}

#[tokio::test]
async fn an_admin_makes_an_account_whose_owner_can_log_in() {
    // Whoever else may.
    let app = TestApp::configured([("AUTH_REGISTRATION", "closed")]).await;
    let admin = app.admin().await;
    for (fields, roles, active, generated) in [
        (json!({ "password": PASSWORD }), json!(["user"]), true, false),
        (json!({}), json!(["user"]), true, true),
        (json!({ "roles": ["moderator"], "full_name": "Mo" }), json!(["moderator"]), true, true),
        (json!({ "roles": ["admin", "user"] }), json!(["user", "admin"]), true, true),
        (json!({ "roles": [] }), json!([]), true, true),
        (json!({ "password": PASSWORD, "is_active": false }), json!(["user"]), false, false),
    ] {
        let name = unique("made");
        let made = create(&admin, &name, fields.clone()).await.expect(201);
        assert_eq!((&made.json["roles"], &made.json["is_active"]), (&roles, &json!(active)));
        assert_eq!(made.json["password"].is_string(), generated, "{fields}");
        let password = made.json["password"].as_str().unwrap_or(PASSWORD).to_owned();
        assert_eq!(app.login(&name, &password).await.status == 200, active, "{fields}");

        let mut shown = made.json.clone();
        shown.as_object_mut().unwrap().remove("password");
        let read = admin.get(&format!("{USERS}/{}", made.text("id"))).await.expect(200);
        assert_eq!(read.json, shown);
        let audit = format!("/api/v1/admin/audit?target={}&limit=1", made.text("id"));
        let log = admin.get(&format!("{audit}&action=account.created")).await.expect(200);
        let row = &log.json["items"][0];
        assert_eq!(
            (&row["action"], &row["actor_name"]),
            (&json!("account.created"), &json!("admin"))
        );
        assert_eq!(row["after"]["roles"], roles, "{row}");
        assert!(!row.to_string().contains(&password), "{row}");
    }
}

/// The generated one too is as long as the settings ask for.
#[tokio::test]
async fn a_generated_password_is_long_enough() {
    let settings = [("AUTH_PASSWORD_MIN_LENGTH", "40"), ("ADMIN_PASSWORD", &"long".repeat(16))];
    let app = TestApp::configured(settings).await;
    let admin = app.log_in("admin", &"long".repeat(16)).await;
    let made = create(&admin, &unique("long"), json!({})).await.expect(201);
    assert_eq!(made.text("password").len(), 40);
    let given = create(&admin, &unique("short"), json!({ "password": PASSWORD })).await;
    given.expect_problem(422, "validation_failed");
}

#[tokio::test]
async fn what_nobody_could_register_with_nobody_is_given() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    app.register("taken").await;
    for (body, field) in [
        (json!({ "username": "ab", "email": "a@example.com" }), "username"),
        (json!({ "username": "a b c", "email": "a@example.com" }), "username"),
        (json!({ "username": "abc", "email": "example.com" }), "email"),
        (json!({ "username": "abc", "email": "a@b.com", "password": "short" }), "password"),
        (json!({ "username": "abc", "email": "a@b.com", "password": "password123" }), "password"),
        (json!({ "username": "abc", "email": "a@b.com", "full_name": "a\u{7}" }), "full_name"),
        (json!({ "username": "abc", "email": "a@b.com", "roles": ["owner"] }), "roles"),
        (json!({ "username": "abc", "email": "a@b.com", "id": "7" }), "id"),
        (json!({ "email": "a@example.com" }), "username"),
    ] {
        let refused =
            admin.post(USERS, body.clone()).await.expect_problem(422, "validation_failed");
        assert!(refused.json["errors"].to_string().contains(field), "{body}: {refused:?}");
    }
    for (name, email, code) in [
        ("TAKEN", "other@example.com", "username_taken"),
        ("other", "Taken@Example.com", "email_taken"),
    ] {
        let body = json!({ "username": name, "email": email });
        admin.post(USERS, body).await.expect_problem(409, code);
    }
    let all = admin.get(USERS).await.expect(200);
    assert_eq!(all.json["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_deleted_account_is_gone_everywhere_and_its_money_stays_on_record() {
    let priced = [("TOKEN_PRICE_24H", "500"), ("RATE_LIMIT_PER_MINUTE", "0")];
    let apps = match TestApp::instances(2, &priced).await {
        Some(apps) => apps,
        None => vec![TestApp::configured(priced).await],
    };
    let (app, other) = (&apps[0], apps.last().unwrap());
    let (admin, name) = (app.admin().await, unique("ada"));
    let id = app.register(&name).await.text("id").to_owned();
    let pair = app.login(&name, PASSWORD).await.expect(200);
    let ada = app.anonymous().with_bearer(pair.text("access_token"));
    let (key_id, key) = app.key(&ada, json!({ "name": "k" })).await;
    let credit = admin.with("idempotency-key", &unique("k"));
    let path = format!("{USERS}/{id}/wallet/credit");
    credit.post(&path, json!({ "amount_minor": 700, "reason": "r" })).await.expect(201);
    let bought = ada.post("/api/v1/tokens/purchase", json!({ "duration_hours": 24 })).await;
    let pass = bought.expect(201).text("token").to_owned();
    let pass = app.anonymous().with("x-access-token", &pass);
    for client in [&ada, &key, &pass] {
        for at in [app, other] {
            client.at(&at.base).get("/api/v1/proxy/warm").await.expect(200);
        }
    }

    let before = app.app.services.wallet.verify(|_| {}).await.unwrap();
    remove(&admin, &id).await.expect(204);
    for client in [&ada, &key, &pass] {
        // On the other instance as soon as it hears of it.
        client.get("/api/v1/proxy/x").await.expect_problem(401, "invalid_credential");
        let client = client.at(&other.base);
        let began = std::time::Instant::now();
        while client.get("/api/v1/proxy/x").await.status != 401 {
            assert!(began.elapsed() < crate::support::LATE, "still good on the other instance");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let refresh = json!({ "refresh_token": pair.text("refresh_token") });
    app.anonymous().post("/api/v1/auth/refresh", refresh).await.expect(401);
    app.login(&name, PASSWORD).await.expect_problem(401, "invalid_login");
    admin.get(&format!("{USERS}/{id}")).await.expect_problem(404, "not_found");
    admin.get(&format!("/api/v1/keys/{key_id}")).await.expect_problem(404, "not_found");

    let wallet = admin.get(&format!("{USERS}/{id}/wallet")).await.expect(200);
    assert_eq!(wallet.json["balance_minor"], 200);
    assert_eq!(wallet.json["recent"].as_array().unwrap().len(), 2);
    let after = app.app.services.wallet.verify(|found| panic!("{found}")).await.unwrap();
    assert_eq!((after.differences, after.transactions), (0, before.transactions));

    let log = admin.get(&format!("/api/v1/admin/audit?target={id}&limit=1")).await.expect(200);
    let row = &log.json["items"][0];
    assert_eq!((&row["action"], &row["actor_name"]), (&json!("account.deleted"), &json!("admin")));
    assert_eq!(row["before"]["username"], name.as_str(), "{row}");

    // Its name is free again, and is somebody else.
    let again = app.register(&name).await.text("id").to_owned();
    assert_ne!(again, id);
    key.get("/api/v1/proxy/x").await.expect(401);
}

#[tokio::test]
async fn who_is_not_there_or_oneself_is_not_deleted() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let own = admin.get("/api/v1/users/me").await.text("id").to_owned();
    remove(&admin, &own).await.expect_problem(409, "own_account");
    for id in [uuid::Uuid::now_v7().to_string(), uuid::Uuid::nil().to_string(), "7".to_owned()] {
        remove(&admin, &id).await.expect_problem(404, "not_found");
    }
    let (id, boss) = somebody(&app, &admin, "admin").await;
    remove(&boss, &own).await.expect(204);
    remove(&admin, &id).await.expect(401);
    remove(&boss, &own).await.expect_problem(404, "not_found");
    remove(&boss, &id).await.expect_problem(409, "own_account");
    boss.get("/api/v1/users/me").await.expect(200);
}

/// How many could still change who is an admin.
async fn left(app: &TestApp) -> i64 {
    app.database.number("SELECT COUNT(*) FROM users WHERE (roles & 4) <> 0 AND is_active").await
}

/// Every way there is to stop being an admin, or to make somebody else stop.
async fn leave(way: usize, (me, id): (&Client, &str), other: &str) -> Answer {
    match way % 6 {
        0 => me.json(Method::DELETE, "/api/v1/users/me", &json!({ "password": PASSWORD })).await,
        1 => change(me, id, json!({ "roles": ["user"] })).await,
        2 => change(me, id, json!({ "is_active": false })).await,
        3 => remove(me, other).await,
        4 => change(me, other, json!({ "roles": [] })).await,
        _ => change(me, other, json!({ "is_active": false })).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_any_number_of_admins_who_leave_at_once_one_stays() {
    const ADMINS: usize = 6;
    let app = TestApp::unlimited().await;
    let mut boss = app.admin().await;
    let mut boss_id = boss.get("/api/v1/users/me").await.text("id").to_owned();
    for round in 0..8 {
        let mut all = vec![(boss_id, boss)];
        for _ in 1..ADMINS {
            let next = somebody(&app, &all[0].1, "admin").await;
            all.push(next);
        }
        let leaving = (0..ADMINS).map(|at| {
            let ((id, me), (other, _)) = (&all[at], &all[(at + 1) % ADMINS]);
            // All in one way, then each in another.
            leave(if round < 6 { round } else { at + round }, (me, id), other)
        });
        let answers = join_all(leaving).await;
        assert!(left(&app).await >= 1, "round {round}: {answers:?}");
        assert!(answers.iter().all(|answer| answer.status.as_u16() < 500), "{answers:?}");
        let mut stayed = None;
        for (id, client) in all {
            if client.get(USERS).await.status == 200 && stayed.is_none() {
                stayed = Some((id, client));
            } else if let Some((_, boss)) = &stayed {
                remove(boss, &id).await;
            }
        }
        (boss_id, boss) = stayed.expect("somebody who can log in stayed");
        app.database
            .execute("UPDATE users SET roles = 1 WHERE (roles & 4) <> 0 AND NOT is_active")
            .await;
    }
}

/// A command that gives a role writes all of them. It must not take one that was
/// given meanwhile: that of the last admin for example.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_role_given_by_a_command_takes_none_that_is_given_meanwhile() {
    let app = TestApp::unlimited().await;
    let admin = app.admin().await;
    let (id, _) = somebody(&app, &admin, "user").await;
    let user: UserId = id.parse().unwrap();
    let accounts = &app.app.services.accounts;
    for round in 0..30 {
        change(&admin, &id, json!({ "roles": ["user"] })).await.expect(200);
        let (granted, changed) = tokio::join!(
            accounts.grant_role(&SYSTEM, user, Role::Moderator),
            change(&admin, &id, json!({ "roles": ["user", "admin"] })),
        );
        granted.unwrap();
        changed.expect(200);
        let roles = accounts.get(user).await.unwrap().roles;
        assert!(roles.has(Role::Admin), "round {round}: {roles}");
    }
}

/// A request that was let in while its sender was an admin may come to the change
/// itself when he is none any more.
#[tokio::test]
async fn whoever_is_no_admin_any_more_changes_nobody() {
    let app = TestApp::unlimited().await;
    let boss = app.admin().await;
    let accounts = &app.app.services.accounts;
    let (victim, _) = somebody(&app, &boss, "admin").await;
    let victim: UserId = victim.parse().unwrap();
    let ended = [
        ("demoted", json!({ "roles": ["user"] })),
        ("disabled", json!({ "is_active": false })),
        ("deleted", Value::Null),
    ];
    for (how, fields) in ended {
        let (id, _) = somebody(&app, &boss, "admin").await;
        let late = Actor::user(id.parse().unwrap(), how, Origin::default());
        if fields.is_null() {
            remove(&boss, &id).await.expect(204);
        } else {
            change(&boss, &id, fields).await.expect(200);
        }
        let before = app.database.number("SELECT COUNT(*) FROM users").await;
        let new = NewUser {
            username: unique("heir"),
            email: format!("{}@example.com", unique("heir")),
            full_name: None,
            roles: Roles::USER.with(Role::Admin),
            is_active: true,
        };
        let password = PASSWORD.to_owned().into();
        let less = AccessChange { roles: Some(Roles::USER), is_active: None };
        for refused in [
            accounts.create(&late, new, &password).await.map(drop),
            accounts.remove(&late, victim).await,
            accounts.change_access(&late, victim, less).await.map(drop),
            accounts.grant_role(&late, victim, Role::Moderator).await.map(drop),
        ] {
            assert!(matches!(refused, Err(AccountError::NotAdmin)), "{how}: {refused:?}");
        }
        assert_eq!(app.database.number("SELECT COUNT(*) FROM users").await, before, "{how}");
        let roles = accounts.get(victim).await.unwrap().roles;
        assert!(roles.has(Role::Admin) && !roles.has(Role::Moderator), "{how}");
    }
}
