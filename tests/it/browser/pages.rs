//! The pages as documents: safe, complete without a script or another host, and
//! fit for those who do not see them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use sha2::{Digest as _, Sha256};

use super::{Browser, signed_in, text};
use crate::support::{Answer, TestApp};

const PAGES: [&str; 4] = ["/login", "/logout", "/.tollgate/login", "/.tollgate/logout"];

fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    text.split_once(begin).unwrap().1.split_once(end).unwrap().0
}

/// The values of an attribute of every such element.
fn all<'t>(page: &'t str, element: &str, attribute: &str) -> Vec<Option<&'t str>> {
    let (element, attribute) = (format!("<{element} "), format!(" {attribute}=\""));
    let value = |at: usize| {
        let tag = page[at + element.len() - 1..].split('>').next()?;
        tag.split_once(&attribute)?.1.split('"').next()
    };
    page.match_indices(&element).map(|(at, _)| value(at)).collect()
}

async fn every_page(app: &TestApp) -> Vec<Answer> {
    let (stranger, ada) = (Browser::new(app), signed_in(app, "ada").await);
    let mut pages = vec![];
    for path in PAGES {
        pages.push(stranger.open(path).await.expect(200));
        pages.push(ada.open(path).await.expect(200));
    }
    let wrong = [("username", "ada"), ("password", "x")];
    pages.push(stranger.fill_in("/login?next=/x", &wrong).await.expect(401));
    let other = [("sec-fetch-site", "cross-site")];
    let sent = Some((super::FORM, String::new()));
    pages.push(stranger.send(Method::POST, "/login", &other, sent).await.expect(403));
    pages
}

#[tokio::test]
async fn a_page_admits_its_own_style_and_nothing_else() {
    let app = TestApp::unlimited().await;
    for page in every_page(&app).await {
        let (html, policy) = (text(&page), page.header("content-security-policy").to_owned());
        let style = between(&html, "<style>", "</style>");
        let hash = STANDARD.encode(Sha256::digest(style));
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; \
                 form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
            )
        );
        assert_eq!(page.header("x-frame-options"), "DENY");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "same-origin");
        assert_eq!(page.header("cache-control"), "no-store");
        for foreign in
            ["<script", " style=", " onclick", "http:", "https:", "//", "@import", "url("]
        {
            assert!(!html.contains(foreign), "{foreign} in {html}");
        }
    }
}

#[tokio::test]
async fn a_page_can_be_read_by_everybody() {
    let app = TestApp::unlimited().await;
    for page in every_page(&app).await {
        let html = text(&page);
        assert!(html.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{html}");
        assert!(
            html.contains("<meta name=\"viewport\"") && html.contains("color-scheme:light dark")
        );
        for once in ["<title>", "<main>", "<h1>"] {
            assert_eq!(html.matches(once).count(), 1, "{once}");
        }
        let failed = page.status != 200;
        assert_eq!(html.matches("role=\"alert\"").count(), usize::from(failed));
        let (ids, types) = (all(&html, "input", "id"), all(&html, "input", "type"));
        let labels = all(&html, "label", "for");
        let completes = all(&html, "input", "autocomplete");
        for (at, kind) in types.iter().enumerate() {
            if *kind != Some("hidden") {
                assert!(labels.contains(&ids[at]) && ids[at].is_some(), "{html}");
                assert!(completes[at].is_some(), "{html}");
            }
        }
        if html.contains("id=\"username\"") {
            assert!(completes.contains(&Some("username")));
            assert!(completes.contains(&Some("current-password")));
            assert_eq!(html.matches("autofocus").count(), 1);
            assert_eq!(html.contains("<title>Error: "), failed);
            assert_eq!(
                html.matches("aria-describedby=\"problem\"").count(),
                usize::from(failed) * 3
            );
        }
    }
}

/// The pages are the operator's: a name in any letters, and a colour.
#[tokio::test]
async fn the_operator_names_and_colours_the_pages() {
    let app = TestApp::configured([
        ("SERVER_SITE_NAME", "A <b>& \"C\"</style> Ä"),
        ("SERVER_SITE_COLOR", "#FFcc00"),
    ])
    .await;
    let page = text(&Browser::new(&app).open("/login").await.expect(200));
    let escaped = "A &lt;b&gt;&amp; &quot;C&quot;&lt;/style&gt; Ä";
    assert_eq!(page.matches(escaped).count(), 2, "{page}");
    assert_eq!(page.matches("</style>").count(), 1);
    assert!(page.contains(":root{--brand:#ffcc00;--on-brand:#000}"), "{page}");
    let plain = TestApp::start().await;
    let page = text(&Browser::new(&plain).open("/login").await.expect(200));
    assert!(page.contains("<title>Sign in – Tollgate</title>") && page.contains("--on-brand:#fff"));
}

/// What somebody typed in or was sent to type in is text.
#[tokio::test]
async fn nothing_that_was_typed_in_becomes_markup() {
    let app = TestApp::unlimited().await;
    for evil in ["\"><script>alert(1)</script>", "\" onfocus=\"x", "</style><svg/onload=x>"] {
        let browser = Browser::new(&app);
        let login = format!("/login?{}", super::form(&[("next", &format!("/?a={evil}"))]));
        let fields = [("username", evil), ("password", "x")];
        let page = text(&browser.fill_in(&login, &fields).await.expect(401));
        let plain = text(&browser.open("/login").await.expect(200));
        assert!(!page.contains(evil), "{page}");
        // What was wrong is one element more.
        let tags = |html: &str| html.matches('<').count();
        assert_eq!(tags(&page), tags(&plain) + 2, "{page}");
        assert_eq!(page.matches('"').count() % 2, 0);
    }
}
