//! Bad tokens made from a good one. All that can be is signed with the right
//! key, so that nothing but the fault itself can be what it is refused for.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{SECRET, encode, part, sign};

/// Of base64url, by their value.
const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(super) type Corpus = Vec<(String, String)>;

/// Who the good token is for, and what of others an attacker may know.
pub(super) struct Origin<'a> {
    pub token: &'a str,
    pub refresh_token: &'a str,
    /// `sub` and `sid` of somebody else.
    pub stranger: (&'a str, &'a str),
}

pub(super) fn corpus(origin: &Origin) -> Corpus {
    let maker = Maker { header: part(origin.token, 0), claims: part(origin.token, 1) };
    let mut all = vec![];
    maker.algorithms(origin.token, &mut all);
    maker.keys(&mut all);
    maker.headers(&mut all);
    maker.times(&mut all);
    maker.claims(origin, &mut all);
    maker.duplicates(&mut all);
    maker.payloads(origin.token, &mut all);
    shapes(origin, &mut all);
    signatures(origin.token, &mut all);
    all
}

struct Maker {
    header: Value,
    claims: Value,
}

fn good(header: &str, claims: &str) -> String {
    sign(header, claims, SECRET.as_bytes(), Algorithm::HS256)
}

impl Maker {
    fn with_header(&self, name: &str, value: Option<Value>) -> String {
        good(&changed(&self.header, name, value), &self.claims.to_string())
    }

    fn with_claim(&self, name: &str, value: Option<Value>) -> String {
        good(&self.header.to_string(), &changed(&self.claims, name, value))
    }

    /// The algorithm is configured; what a token says of it cannot change it.
    fn algorithms(&self, token: &str, all: &mut Corpus) {
        let signature = token.rsplit_once('.').unwrap().1;
        let names = [
            "none", "None", "NONE", "nOnE", "none ", "", "hs256", "Hs256", "HS256 ", "HS384",
            "HS512", "RS256", "RS384", "PS256", "ES256", "EdDSA", "dir", "A256KW", "\u{0}",
        ];
        let mut values: Vec<Option<Value>> = names.iter().map(|name| Some(json!(name))).collect();
        values.extend([Some(Value::Null), Some(json!(1)), Some(json!(["HS256"])), None]);
        for value in values {
            let header = changed(&self.header, "alg", value.clone());
            let claims = self.claims.to_string();
            let message = format!("{}.{}", encode(&header), encode(&claims));
            all.push((format!("alg {value:?}, no signature"), format!("{message}.")));
            all.push((format!("alg {value:?}, old signature"), format!("{message}.{signature}")));
            all.push((format!("alg {value:?}, signed"), good(&header, &claims)));
        }
        for (name, algorithm) in [("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
            let header = changed(&self.header, "alg", Some(json!(name)));
            let claims = self.claims.to_string();
            let token = sign(&header, &claims, SECRET.as_bytes(), algorithm);
            all.push((format!("really {name}"), token));
            let token = sign(&self.header.to_string(), &claims, SECRET.as_bytes(), algorithm);
            all.push((format!("secretly {name}"), token));
        }
    }

    fn keys(&self, all: &mut Corpus) {
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        let kid = self.header["kid"].as_str().unwrap();
        let other = "another key of Zebras, 0123456789!!!!";
        for key in ["", " ", "secret", "null", "tollgate", kid, other, &SECRET[1..], "\0"] {
            let token = sign(&header, &claims, key.as_bytes(), Algorithm::HS256);
            all.push((format!("signed with {key:?}"), token));
        }
    }

    fn headers(&self, all: &mut Corpus) {
        let own = json!({ "kty": "oct", "k": encode("attacker"), "alg": "HS256" });
        let extras = [
            ("jwk", own.clone()),
            ("jku", json!("https://attacker.example/jwks.json")),
            ("x5u", json!("https://attacker.example/cert.pem")),
            ("x5c", json!(["MIIB"])),
            ("x5t", json!("abc")),
            ("x5t#S256", json!("abc")),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("crit", json!(["b64"])),
            ("b64", json!(false)),
            ("b64", json!(true)),
            ("zip", json!("DEF")),
            ("enc", json!("A256GCM")),
            ("cty", json!("JWT")),
            ("epk", own),
            ("p2c", json!(2_000_000_000)),
            ("nonce", json!("x")),
            ("iss", json!("tollgate")),
        ];
        for (name, value) in extras {
            let token = self.with_header(name, Some(value.clone()));
            all.push((format!("{name} {value}"), token));
            let header = changed(&self.header, name, Some(value));
            let claims = self.claims.to_string();
            let token = sign(&header, &claims, b"attacker", Algorithm::HS256);
            all.push((format!("{name}, signed with a key of its own"), token));
        }
        let kid = self.header["kid"].as_str().unwrap();
        let kids = [
            json!("../../../../../../dev/null"),
            json!("/dev/null"),
            json!("/proc/self/environ"),
            json!("x' UNION SELECT 'attacker' --"),
            json!("' OR 1=1 --"),
            json!("| id"),
            json!("http://127.0.0.1/"),
            json!(""),
            json!("0"),
            json!(format!("{kid} ")),
            json!(format!("{kid}\u{0}")),
            json!(kid.to_uppercase()),
            json!(&kid[1..]),
            json!("x".repeat(1000)),
            json!(0),
            json!([kid]),
            json!({ "kid": kid }),
            Value::Null,
        ];
        for value in kids.into_iter().map(Some).chain([None]) {
            let token = self.with_header("kid", value.clone());
            all.push((format!("kid {value:?}"), token));
            let header = changed(&self.header, "kid", value.clone());
            for key in ["", "attacker"] {
                let claims = self.claims.to_string();
                let token = sign(&header, &claims, key.as_bytes(), Algorithm::HS256);
                all.push((format!("kid {value:?}, signed with {key:?}"), token));
            }
        }
        for value in ["JWT", "jwt", "at+JWT ", "application/at+jwt", "rt+jwt", "id_token", ""] {
            all.push((format!("typ {value}"), self.with_header("typ", Some(json!(value)))));
        }
        for value in [Some(Value::Null), Some(json!(["at+jwt"])), None] {
            all.push((format!("typ {value:?}"), self.with_header("typ", value)));
        }
    }

    fn times(&self, all: &mut Corpus) {
        let header = self.header.to_string();
        let now = self.claims["iat"].as_i64().unwrap();
        for claim in ["exp", "nbf", "iat"] {
            let value = self.claims[claim].as_i64().unwrap();
            let texts = [
                format!("\"{value}\""),
                format!("{value}.0"),
                format!("{value}.5"),
                format!("{value}e0"),
                "1e400".to_owned(),
                "-1e400".to_owned(),
                "1e10".to_owned(),
                "NaN".to_owned(),
                "Infinity".to_owned(),
                "18446744073709551615".to_owned(),
                "9".repeat(400),
                "null".to_owned(),
                "true".to_owned(),
                "[]".to_owned(),
                "{}".to_owned(),
                format!("[{value}]"),
                "\"2099-01-01T00:00:00Z\"".to_owned(),
            ];
            let marked = changed(&self.claims, claim, Some(json!("@")));
            for text in texts {
                let claims = marked.replace("\"@\"", &text);
                all.push((format!("{claim} {text:.40}"), good(&header, &claims)));
            }
            all.push((format!("without {claim}"), self.with_claim(claim, None)));
        }
        for at in [0, -1, i64::MIN, now - 60, now - 86_400] {
            all.push((format!("exp {at}"), self.with_claim("exp", Some(json!(at)))));
        }
        for claim in ["nbf", "iat"] {
            for at in [now + 120, now + 86_400, i64::MAX] {
                all.push((format!("{claim} {at}"), self.with_claim(claim, Some(json!(at)))));
            }
        }
    }

    fn claims(&self, origin: &Origin, all: &mut Corpus) {
        for claim in ["iss", "aud"] {
            let right = self.claims[claim].clone();
            let values = [
                json!("attacker"),
                json!(""),
                json!("Tollgate"),
                json!("tollgate "),
                json!("tollgate/"),
                json!("tollgat"),
                json!([right]),
                json!(["attacker", right]),
                json!({ "0": right }),
                json!(0),
                Value::Null,
            ];
            for value in values {
                all.push((format!("{claim} {value}"), self.with_claim(claim, Some(value))));
            }
        }
        let (sub, sid) = origin.stranger;
        let unknown = json!(uuid::Uuid::now_v7());
        for (claim, stranger) in [("sub", sub), ("sid", sid)] {
            let values = [
                json!(stranger),
                unknown.clone(),
                json!(uuid::Uuid::nil()),
                json!(""),
                json!("admin"),
                json!("' OR 1=1 --"),
                json!(0),
                json!([self.claims[claim]]),
                Value::Null,
            ];
            for value in values {
                all.push((format!("{claim} {value}"), self.with_claim(claim, Some(value))));
            }
        }
        for value in [json!("x"), json!(1), Value::Null] {
            all.push((format!("jti {value}"), self.with_claim("jti", Some(value))));
        }
        for value in [json!(1), json!(["ada"]), Value::Null] {
            all.push((format!("username {value}"), self.with_claim("username", Some(value))));
        }
        for value in [json!("admin"), json!([1]), json!({ "admin": true }), Value::Null] {
            all.push((format!("roles {value}"), self.with_claim("roles", Some(value))));
        }
        for claim in ["iss", "aud", "sub", "sid", "jti", "username", "roles"] {
            all.push((format!("without {claim}"), self.with_claim(claim, None)));
        }
    }

    /// Two readers may believe different ones.
    fn duplicates(&self, all: &mut Corpus) {
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        for (name, value) in self.claims.as_object().unwrap() {
            let twice = format!("{{{}:{value},{}", json!(name), &claims[1..]);
            all.push((format!("{name} twice"), good(&header, &twice)));
        }
        for (name, value) in self.header.as_object().unwrap() {
            let twice = format!("{{{}:{value},{}", json!(name), &header[1..]);
            all.push((format!("{name} twice"), good(&twice, &claims)));
        }
    }

    fn payloads(&self, token: &str, all: &mut Corpus) {
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        let bodies = [
            String::new(),
            "null".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            "\"\"".to_owned(),
            format!("[{claims}]"),
            format!("\"{token}\""),
            token.to_owned(),
            json!({ "token": token }).to_string(),
            format!("{claims}{claims}"),
            format!("{claims} x"),
            format!("\u{feff}{claims}"),
            format!("{claims}// comment"),
            claims[..claims.len() - 1].to_owned(),
            claims.replace('"', "'"),
            claims.replace("\"exp\"", "\"EXP\""),
            claims.replace("\"exp\"", "\"e\\u0078p \""),
            changed(&self.claims, "pad", Some(json!("x".repeat(4096)))),
            changed(&self.claims, "pad", Some(json!("x".repeat(16_000)))),
        ];
        for body in bodies {
            all.push((format!("claims {body:.60}"), good(&header, &body)));
        }
        for header in ["", "null", "[]", "{}", "\"HS256\"", &format!("[{header}]"), token] {
            all.push((format!("header {header:.60}"), good(header, &claims)));
        }
    }
}

/// The text itself: segments, alphabet, padding, space.
fn shapes(origin: &Origin, all: &mut Corpus) {
    let token = origin.token;
    let [header, claims, signature]: [&str; 3] =
        token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let padded = |text: &str| format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4 + 1));
    let texts = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "null".to_owned(),
        "undefined".to_owned(),
        "Bearer".to_owned(),
        header.to_owned(),
        format!("{header}.{claims}"),
        format!("{header}.{claims}."),
        format!("{header}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{header}{claims}{signature}"),
        format!("{claims}.{header}.{signature}"),
        format!("{header}.{signature}.{claims}"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{token}"),
        format!("{token}.{token}"),
        format!("{header}.{claims}.{signature}.{signature}.{signature}"),
        format!("{header}. {claims}.{signature}"),
        format!("{header}.{claims} .{signature}"),
        format!("{header}.{claims}. {signature}"),
        format!("{header}\t.{claims}.{signature}"),
        format!("{token},{token}"),
        format!("{token} {token}"),
        format!("{token},"),
        format!("\"{token}\""),
        format!("Bearer {token}"),
        format!("{}.{claims}.{signature}", padded(header)),
        format!("{header}.{}.{signature}", padded(claims)),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}.{signature}=="),
        token.replace('.', "%2E"),
        token.replace('.', "%2e"),
        token.replace('.', ":"),
        token.to_uppercase(),
        token.to_lowercase(),
        token.chars().rev().collect(),
        token[1..].to_owned(),
        origin.refresh_token.to_owned(),
        format!("{header}.{claims}.{}", STANDARD_NO_PAD.encode([0xfb; 32])),
        format!("{header}.{claims}.{}", "A".repeat(43)),
        format!("{header}.{claims}.{}", "x".repeat(20_000)),
        "x".repeat(20_000),
    ];
    all.extend(texts.into_iter().map(|text| (format!("the text {text:.80}"), text)));
}

/// Every byte of the signature counts, and so does every byte it is about.
fn signatures(token: &str, all: &mut Corpus) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let turned = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for at in 0..signature.len() {
        all.push((format!("signature at {at}"), format!("{message}.{}", turned(signature, at))));
    }
    for at in (0..message.len()).step_by(13).filter(|at| message.as_bytes()[*at] != b'.') {
        all.push((format!("message at {at}"), format!("{}.{signature}", turned(message, at))));
    }
    // The last character has two bits that stand for nothing.
    let (body, last) = signature.split_at(signature.len() - 1);
    let last = DIGITS.find(last).unwrap();
    for spare in 1..4 {
        let digit = &DIGITS[last + spare..=last + spare];
        all.push((format!("spare bits {spare}"), format!("{message}.{body}{digit}")));
    }
    for length in [1, 16, 42] {
        let cut = &signature[..length];
        all.push((format!("{length} of the signature"), format!("{message}.{cut}")));
    }
    all.push(("a longer signature".to_owned(), format!("{token}AAAA")));
}

fn changed(object: &Value, name: &str, value: Option<Value>) -> String {
    let mut object = object.clone();
    let fields = object.as_object_mut().unwrap();
    match value {
        Some(value) => drop(fields.insert(name.to_owned(), value)),
        None => drop(fields.remove(name)),
    }
    object.to_string()
}
