//! Logins of browsers over real sockets: pages, cookies, what other sites may
//! not do, and the signed identity.

mod assertion;
mod cookies;
mod csrf;
mod gateway;
mod login;
mod logout;
mod next;
mod pages;
mod renewal;
mod tokens;

use std::{collections::BTreeMap, sync::Mutex};

use bytes::Bytes;
use http::{Method, header};

use crate::support::{Answer, Client, PASSWORD, TestApp};

const FORM: &str = "application/x-www-form-urlencoded";
/// Behind the prefix of the default upstream.
const APP: &str = "/api/v1/proxy/app";

/// A browser as far as we need one: it keeps cookies and says what browsers say
/// about where a request comes from.
pub struct Browser {
    client: Client,
    pub origin: String,
    https: bool,
    jar: Mutex<BTreeMap<String, String>>,
}

impl Browser {
    /// Over plain http.
    pub fn new(app: &TestApp) -> Self {
        Self::with(app, false)
    }

    /// Behind a proxy that speaks https.
    pub fn https(app: &TestApp) -> Self {
        Self::with(app, true)
    }

    fn with(app: &TestApp, https: bool) -> Self {
        let client = app.anonymous();
        let client = if https { client.with("x-forwarded-proto", "https") } else { client };
        let authority = app.base.trim_start_matches("http://");
        let scheme = if https { "https" } else { "http" };
        let origin = format!("{scheme}://{authority}");
        Self { client, origin, https, jar: Mutex::default() }
    }

    /// Over plain http, at a proxy before an instance.
    pub fn before(app: &TestApp, base: &str) -> Self {
        let client = Client::new(base);
        Self { client, origin: base.to_owned(), ..Self::new(app) }
    }

    /// The same browser, cookies and all, when another instance answers it.
    pub fn at(&self, app: &TestApp) -> Self {
        let authority = app.base.trim_start_matches("http://");
        let scheme = if self.https { "https" } else { "http" };
        Self {
            client: self.client.at(&app.base),
            origin: format!("{scheme}://{authority}"),
            https: self.https,
            jar: Mutex::new(self.cookies()),
        }
    }

    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.jar.lock().unwrap().clone()
    }

    /// The full name of the cookie here.
    pub fn name(&self, short: &str) -> String {
        if self.https { format!("__Host-tollgate-{short}") } else { format!("tollgate_{short}") }
    }

    /// The value of a cookie by its short name.
    pub fn cookie(&self, short: &str) -> Option<String> {
        self.cookies().get(&self.name(short)).cloned()
    }

    pub fn set_cookie(&self, short: &str, value: &str) {
        self.jar.lock().unwrap().insert(self.name(short), value.to_owned());
    }

    pub fn drop_cookie(&self, short: &str) {
        self.jar.lock().unwrap().remove(&self.name(short));
    }

    /// A request with these fields and the cookies.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: Option<(&str, String)>,
    ) -> Answer {
        let mut client = self.client.clone();
        let cookies = self.cookies();
        if !cookies.is_empty() {
            let pairs: Vec<_> =
                cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            client = client.with("cookie", &pairs.join("; "));
        }
        for (name, value) in fields {
            client = client.with(name, value);
        }
        let (media, body) = body.map_or((None, String::new()), |(media, text)| (Some(media), text));
        let answer = client.send(method, path, media, Bytes::from(body)).await;
        for field in answer.headers.get_all(header::SET_COOKIE) {
            self.keep(field.to_str().unwrap());
        }
        answer
    }

    /// Keeps a cookie as a browser would, and holds every one to G-96.
    fn keep(&self, field: &str) {
        let cookie = SetCookie::parse(field);
        cookie.check(self.https);
        let mut jar = self.jar.lock().unwrap();
        if cookie.max_age == 0 {
            jar.remove(&cookie.name);
        } else {
            jar.insert(cookie.name, cookie.value);
        }
    }

    /// Opens a page.
    pub async fn open(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &NAVIGATION, None).await
    }

    /// Sends a form of a page of this origin.
    pub async fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let own = [("sec-fetch-site", "same-origin"), ("origin", self.origin.as_str())];
        self.send(Method::POST, path, &own, Some((FORM, form(fields)))).await
    }

    /// Opens the page and sends its form with these fields, as a person would.
    pub async fn fill_in(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.open(path).await.expect(200);
        let (form, next) = (hidden(&page, "form").unwrap(), hidden(&page, "next"));
        let mut all = vec![("form", form.as_str())];
        all.extend(next.as_deref().map(|next| ("next", next)));
        all.extend(fields);
        self.submit(path.split('?').next().unwrap(), &all).await
    }

    pub async fn sign_in(&self, name: &str) -> Answer {
        self.fill_in("/login", &[("username", name), ("password", PASSWORD)]).await.expect(303)
    }
}

/// What a browser says when a person opens a page.
pub const NAVIGATION: [(&str, &str); 4] = [
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-site", "none"),
];

/// A registered user, signed in with a browser over http.
pub async fn signed_in(app: &TestApp, name: &str) -> Browser {
    app.register(name).await;
    let browser = Browser::new(app);
    browser.sign_in(name).await;
    browser
}

pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

pub fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// The value of a hidden field of a page.
pub fn hidden(page: &Answer, name: &str) -> Option<String> {
    let text = text(page);
    let begin = format!("<input type=\"hidden\" name=\"{name}\" value=\"");
    let (_, rest) = text.split_once(&begin)?;
    let (value, _) = rest.split_once('"').unwrap();
    Some(value.replace("&amp;", "&").replace("&quot;", "\"").replace("&lt;", "<"))
}

/// One `Set-Cookie` of ours.
#[derive(Debug)]
pub struct SetCookie {
    pub name: String,
    pub value: String,
    pub max_age: i64,
    attributes: Vec<String>,
    length: usize,
}

impl SetCookie {
    pub fn parse(field: &str) -> Self {
        let mut parts = field.split(';').map(str::trim);
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let attributes: Vec<String> = parts.map(str::to_owned).collect();
        let max_age = attributes.iter().find_map(|part| part.strip_prefix("Max-Age="));
        let max_age = max_age.unwrap().parse().unwrap();
        let (name, value) = (name.to_owned(), value.to_owned());
        Self { name, value, max_age, attributes, length: field.len() }
    }

    /// RELIABILITY G-96.
    #[track_caller]
    pub fn check(&self, https: bool) {
        let has = |attribute: &str| self.attributes.iter().any(|part| part == attribute);
        assert!(has("HttpOnly") && has("SameSite=Lax") && has("Path=/"), "{self:?}");
        assert_eq!(has("Secure"), https, "{self:?}");
        let prefix = if https { "__Host-tollgate-" } else { "tollgate_" };
        assert!(self.name.starts_with(prefix), "{self:?}");
        assert!(!self.attributes.iter().any(|part| part.starts_with("Domain")), "{self:?}");
        assert_eq!(self.attributes.len(), 4 + usize::from(https), "{self:?}");
        assert!(self.length <= 4096, "{self:?}");
    }
}
