//! Signing out ends the login session, wherever it is used.

use http::{Method, header};

use super::{APP, Browser, SetCookie, hidden, signed_in, text};
use crate::support::{LATE, PASSWORD, TestApp, unique};

#[tokio::test]
async fn signing_out_ends_the_session_and_forgets_the_cookies() {
    let app = TestApp::unlimited().await;
    for path in ["/logout", "/.tollgate/logout"] {
        let name = unique("ada");
        let browser = signed_in(&app, &name).await;
        let kept = Browser::new(&app);
        kept.set_cookie("sid", &browser.cookie("sid").unwrap());

        let page = browser.open(path).await.expect(200);
        assert!(text(&page).contains(&name));
        kept.open(APP).await.expect(200);
        let answer = browser.fill_in(path, &[]).await.expect(303);
        assert_eq!(answer.header("location"), path.replace("out", "in"));
        let cleared = answer.headers.get_all(header::SET_COOKIE).iter();
        let cleared: Vec<_> =
            cleared.map(|field| SetCookie::parse(field.to_str().unwrap())).collect();
        assert_eq!(cleared.len(), 3);
        assert!(cleared.iter().all(|cookie| cookie.max_age == 0 && cookie.value.is_empty()));
        assert!(browser.cookies().is_empty());

        // Not only this browser forgot it.
        kept.open(APP).await.expect(303);
        let page = browser.open(path).await.expect(200);
        assert!(text(&page).contains("You are not signed in."));
    }
}

/// To sign out is not to sign out others.
#[tokio::test]
async fn signing_out_ends_this_login_and_no_other() {
    let app = TestApp::unlimited().await;
    let here = signed_in(&app, "ada").await;
    let there = Browser::new(&app);
    there.sign_in("ada").await;
    let api = app.log_in("ada", PASSWORD).await;
    here.fill_in("/logout", &[]).await.expect(303);
    there.open(APP).await.expect(200);
    api.get("/api/v1/users/me").await.expect(200);
}

#[tokio::test]
async fn the_api_ends_logins_of_browsers_too() {
    let app = TestApp::unlimited().await;
    for way in 0..4 {
        let name = unique("ada");
        let browser = signed_in(&app, &name).await;
        let api = app.log_in(&name, PASSWORD).await;
        let session = super::tokens::claims(&browser.cookie("sid").unwrap());
        match way {
            0 => api.post_empty("/api/v1/auth/logout-all").await.expect(204),
            1 => {
                let body = serde_json::json!({ "current_password": PASSWORD,
                    "new_password": "staple battery horse" });
                api.post("/api/v1/auth/password", body).await.expect(204)
            }
            2 => {
                let id = session["sid"].as_str().unwrap();
                api.delete(&format!("/api/v1/auth/sessions/{id}")).await.expect(204)
            }
            _ => {
                let body = serde_json::json!({ "password": PASSWORD });
                api.json(Method::DELETE, "/api/v1/users/me", &body).await.expect(204)
            }
        };
        browser.open(APP).await.expect(303);
    }
}

#[tokio::test]
async fn a_login_and_its_end_hold_on_every_instance() {
    let Some(apps) =
        TestApp::instances(2, &[("SECRETS_KEY", "kQ8vN3zRkZ1xW7yT5bL0sD2fG4hJ6mP9cE")]).await
    else {
        return;
    };
    let name = unique("ada");
    apps[0].register(&name).await;
    let here = Browser::new(&apps[0]);
    // A form of one instance can be sent to another.
    let page = here.open("/login").await.expect(200);
    let there = here.at(&apps[1]);
    let token = hidden(&page, "form").unwrap();
    let fields = [("form", token.as_str()), ("username", &name), ("password", PASSWORD)];
    there.submit("/login", &fields).await.expect(303);
    let here = there.at(&apps[0]);
    let kept = there.at(&apps[0]);
    here.open(APP).await.expect(200);
    there.open(APP).await.expect(200);
    there.fill_in("/logout", &[]).await.expect(303);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(1) + LATE;
    while kept.open(APP).await.status != 303 {
        assert!(std::time::Instant::now() < end, "still good after a second");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
