//! What a client may try in order to say who it is, and what an upstream must be
//! told whatever it tries (RELIABILITY G-110, G-111).

use std::fmt::Debug;

use serde_json::json;

use crate::support::{TestApp, recorder::Delivery};

/// Values that some server may make one of, or several.
pub const VALUES: [&str; 9] = [
    "",
    " ",
    "forged, forged",
    "\tforged\t",
    "forged ",
    "%66orged",
    "\"forged\"",
    "forged;admin",
    "forged\r\n folded",
];

pub const RESERVED: [&str; 13] = [
    "X-User-Id",
    "X-Username",
    "X-Roles",
    "X-Token-Id",
    "X-Key-Id",
    "X-Real-IP",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Anything",
    "X-Tollgate-Anything",
    "X-Tollgate-Assertion",
];

/// Every way of writing a name that some server reads as this one.
pub fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned(), name.to_lowercase(), name.to_uppercase()];
    let mut upper = false;
    let mixed = name.chars().map(|c| {
        upper = !upper;
        if upper { c.to_ascii_lowercase() } else { c.to_ascii_uppercase() }
    });
    all.push(mixed.collect());
    all.extend("!#$%&'*+.^_`|~".chars().map(|c| name.replace('-', &c.to_string())));
    all.extend(["%2d", "%2D"].map(|c| name.replace('-', c)));
    // One hyphen at a time, and the first letter.
    for (at, _) in name.match_indices('-') {
        all.extend(["_", ".", "%2d"].map(|c| format!("{}{c}{}", &name[..at], &name[at + 1..])));
    }
    all.push(format!("%{:02x}{}", name.as_bytes()[0], &name[1..]));
    all
}

/// Heads that try to say who the client is: every spelling of a name, in every
/// form of a field, once and repeated, listed in `Connection` and as trailers.
pub fn forgeries() -> Vec<String> {
    let mut all = Vec::new();
    for name in RESERVED {
        for spelling in spellings(name) {
            all.push(format!("{spelling}: forged\r\n"));
            all.push(format!("{spelling}: forged\r\n{spelling}: forged-again\r\n"));
            all.push(format!("{spelling}:\r\n"));
        }
        for value in VALUES {
            all.push(format!("{name}: {value}\r\n"));
        }
        all.push(format!("{name} : forged\r\n"));
        all.push(format!("{name}\t: forged\r\n"));
        all.push(format!(" {name}: forged\r\n"));
        all.push(format!("Connection: {name}\r\n{name}: forged\r\n"));
        all.push(format!("Connection:\r\nConnection: x-a, {name}\r\nConnection: close\r\n"));
        all.push(format!("Connection: {}\r\n", name.to_lowercase()));
        all.push(format!("Connection: keep-alive,,{name} , via\r\nUpgrade: websocket\r\n"));
        all.push(format!(
            "Transfer-Encoding: chunked\r\nTrailer: {name}\r\n\r\n0\r\n{name}: forged\r\n"
        ));
    }
    all
}

/// Who an upstream must be told that a request is from, and how it came.
pub struct Told {
    /// The id, the name, the roles and the key's id; `None` for nobody.
    pub who: Option<[String; 4]>,
    pub host: &'static str,
    pub prefix: Option<&'static str>,
}

impl Told {
    /// Of the admin, by this key of his.
    pub async fn of_admin(app: &TestApp) -> (String, Self) {
        let admin = app.admin().await;
        let issued = admin.post("/api/v1/keys", json!({ "name": "test" })).await.expect(201);
        let me = admin.get("/api/v1/users/me").await.expect(200);
        let roles = me.json["roles"].as_array().unwrap().iter().map(|role| role.as_str().unwrap());
        let roles = roles.collect::<Vec<_>>().join(",");
        let who = [me.text("id"), "admin", &roles, issued.text("id")].map(str::to_owned);
        (issued.text("key").to_owned(), Self { who: Some(who), host: "a.example", prefix: None })
    }

    pub fn nobody(&self) -> Self {
        Self { who: None, ..*self }
    }

    /// Nothing beside it may be there, under whatever name that is read as one
    /// of ours, and nothing of it twice.
    pub fn assert_all_of(&self, seen: &Delivery, forgery: &dyn Debug) {
        let head = seen.head.to_lowercase();
        assert!(!head.contains("forged"), "{forgery:?} reached the upstream: {head}");
        let mut expected = vec![
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-host", self.host),
            ("x-forwarded-proto", "http"),
        ];
        expected.extend(self.prefix.map(|prefix| ("x-forwarded-prefix", prefix)));
        if let Some(who) = &self.who {
            let names = ["x-user-id", "x-username", "x-roles", "x-key-id"];
            expected.extend(names.into_iter().zip(who.iter().map(String::as_str)));
        }
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut found: Vec<_> = lines
            .map(|(name, value)| (name, value.trim()))
            .filter(|(name, _)| may_be_ours(name) && *name != "x-request-id")
            .collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, expected, "{forgery:?}");
        assert_eq!(seen.all("x-request-id").len(), 1, "{forgery:?}");
        for dropped in ["trailer", "x-a", "x-api-key", "te", "keep-alive"] {
            assert!(seen.all(dropped).is_empty(), "{dropped} after {forgery:?}");
        }
    }
}

/// Whether some server could read this name as one that only we may use.
fn may_be_ours(name: &str) -> bool {
    let letters = |name: &str| {
        let name = name.to_lowercase().replace("%2d", "-").replace("%78", "x");
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>()
    };
    let name = letters(name);
    let begins = ["xforwarded", "xtollgate"].iter().any(|prefix| name.starts_with(prefix));
    begins || name == "xrequestid" || RESERVED.iter().any(|reserved| letters(reserved) == name)
}

/// An upstream with a credential of its own, which is told by a signed field
/// who asks.
pub const THEIRS_TOO: [(&str, &str); 4] = [
    ("AUTH_ALGORITHM", "EdDSA"),
    ("UPSTREAM_BASIC_AUTH_USER", "door"),
    ("UPSTREAM_BASIC_AUTH_PASSWORD", "opens"),
    ("UPSTREAM_ASSERTION", "true"),
];

/// Lists of fields, and which of a client's own they take away.
pub const LISTED: [(&str, &[&str]); 8] = [
    ("Connection: Authorization\r\n", &[]),
    ("Connection: Cookie\r\n", &["cookie"]),
    ("Connection: X-User-Id, X-Username,X-Roles ,X-Key-Id\r\n", &[]),
    ("Connection: X-Forwarded-For, x-forwarded-host, X-FORWARDED-PROTO\r\n", &[]),
    ("Connection: X-Tollgate-Assertion, X-Request-Id, Via, X-API-Key\r\n", &[]),
    ("Connection:\r\nConnection: x-mine\r\nConnection: via, accept\r\n", &["x-mine", "accept"]),
    ("Connection: close, Host, Content-Length, Transfer-Encoding\r\n", &[]),
    ("Connection:,, ,authorization,,cookie,x-other,\r\n", &["cookie", "x-other"]),
];

/// Whether all that is ours reached the upstream of [`THEIRS_TOO`], and of the
/// client's all but what was listed.
pub fn assert_ours_are_there(seen: &Delivery, told: &Told, listed: &str, dropped: &[&str]) {
    let assertion = seen.all("x-tollgate-assertion");
    assert_eq!(assertion.len(), 1, "{listed:?}");
    assert_eq!(assertion[0].split('.').count(), 3, "{listed:?}");
    // The rest as if there were none.
    let head = seen.head.replace(&format!(": {}\r\n", assertion[0]), ": \r\n");
    let head = head.replace("x-tollgate-assertion: \r\n", "");
    told.assert_all_of(&Delivery { head, ..seen.clone() }, &listed);
    assert_eq!(seen.all("authorization"), ["Basic ZG9vcjpvcGVucw=="], "{listed:?}");
    assert_eq!((seen.all("via").len(), seen.all("host").len()), (1, 1), "{listed:?}");
    for name in ["cookie", "x-mine", "x-other", "accept"] {
        let expected = usize::from(!dropped.contains(&name));
        assert_eq!(seen.all(name).len(), expected, "{name} after {listed:?}: {}", seen.head);
    }
}
