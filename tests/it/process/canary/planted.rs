//! What must not be found, and how it is looked for.

use base64::{Engine as _, engine::general_purpose};

use super::FIXED;
use crate::support::Answer;

/// What was planted, with its name.
pub struct Planted(pub Vec<(&'static str, String)>);

impl Planted {
    pub fn fixed() -> Self {
        Self(FIXED.map(|secret| ("setting or password", secret.to_owned())).into())
    }

    pub fn add(&mut self, name: &'static str, secret: &str) {
        let entry = (name, secret.to_owned());
        if !self.0.contains(&entry) {
            self.0.push(entry);
        }
    }

    /// A voucher's code, which may be typed in other ways.
    pub fn add_code(&mut self, code: &str) {
        let plain = code.replace('-', "");
        self.add("voucher", &code.to_lowercase());
        self.add("voucher", &plain.to_lowercase());
        self.add("voucher", &plain);
        self.add("voucher", code);
    }

    /// All texts of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(found, _)| *found == name).map(|(_, secret)| &**secret).collect()
    }

    /// Where a secret is found in any form, once each.
    pub fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut needles = vec![];
        for (name, secret) in &self.0 {
            needles.extend(forms(name, secret).into_iter().map(|(form, text)| (name, form, text)));
        }
        // Most pairs of bytes begin none of them.
        let mut beginning = vec![vec![]; 1 << 16];
        for (number, (.., needle)) in needles.iter().enumerate() {
            beginning[pair(needle[0], needle[1])].push(number);
        }
        let (mut told, mut found) = (vec![false; needles.len()], vec![]);
        for at in 1..bytes.len() {
            for &number in &beginning[pair(bytes[at - 1], bytes[at])] {
                let (name, form, needle) = &needles[number];
                let rest = &bytes[at - 1..];
                if told[number] || !rest.starts_with(needle) {
                    continue;
                }
                told[number] = true;
                let context =
                    &bytes[at.saturating_sub(300)..(at + needle.len() + 40).min(bytes.len())];
                let context = String::from_utf8_lossy(context);
                found.push(format!("{name} ({form}) in {place}: …{context}…"));
            }
        }
        found
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(u16::from_be_bytes([first, second]))
}

/// The forms in which a secret may appear.
fn forms(name: &str, secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let hex = hex::encode(secret);
    let mut forms = vec![
        ("raw", secret.as_bytes().to_vec()),
        ("URL-encoded", encoded.into_bytes()),
        ("hex", hex.to_uppercase().into_bytes()),
        ("hex", hex.into_bytes()),
    ];
    // Within something longer it begins at any of three places.
    for shift in 0..3 {
        let padded = [vec![b'.'; shift], secret.as_bytes().to_vec()].concat();
        for engine in [general_purpose::STANDARD, general_purpose::URL_SAFE] {
            let text = engine.encode(&padded);
            let whole = &text[4.min(shift * 4)..text.len() - 4];
            forms.push(("base64", whole.as_bytes().to_vec()));
        }
    }
    // A JWT's beginning is its header. Of the others no more than 8 characters
    // are shown on purpose (`prefix`).
    if !matches!(name, "login token" | "login cookie" | "assertion" | "webhook token") {
        forms.push(("first 12 characters", secret.as_bytes()[..12].to_vec()));
    }
    let long = [
        "key",
        "login token",
        "access token",
        "ticket",
        "login cookie",
        "assertion",
        "chat cookie",
        "webhook token",
    ];
    if long.contains(&name) {
        // Of a signed token the signature: others say the same with other names.
        let own = secret.rfind('.').map_or(secret.len() / 2, |dot| dot + 1);
        forms.push(("12 of its own", secret.as_bytes()[own..own + 12].to_vec()));
    }
    if name == "access token" {
        let bits = general_purpose::URL_SAFE_NO_PAD.decode(&secret["tga_".len()..]).unwrap();
        forms.push(("its bits in hex", hex::encode(&bits[..16]).into_bytes()));
        forms.push(("its bits", bits[..16].to_vec()));
    }
    forms
}

/// All answers and outputs that must not contain a secret.
#[derive(Default)]
pub struct Answers(Vec<u8>);

impl Answers {
    pub fn keep(&mut self, answer: &Answer) {
        self.keep_text(&format!("{:?}", answer.headers));
        self.0.extend_from_slice(&answer.body);
        self.0.push(b'\n');
    }

    pub fn keep_text(&mut self, text: &str) {
        self.0.extend(text.bytes());
        self.0.push(b'\n');
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn the_search_finds_every_form() {
    let planted = Planted(vec![("test", "Canary-test-0123?/x".to_owned())]);
    let basic = general_purpose::STANDARD.encode("user:Canary-test-0123?/x");
    for text in [
        "a Canary-test-0123?/x b",
        "Canary-test-",
        "q=Canary-test-0123%3F%2Fx",
        &hex::encode("Canary-test-0123?/x"),
        &basic,
        &general_purpose::STANDARD.encode("us:Canary-test-0123?/x."),
        &general_purpose::URL_SAFE.encode("u:Canary-test-0123?/x.."),
    ] {
        assert!(!planted.found_in("here", text.as_bytes()).is_empty(), "{text}");
    }
    assert!(planted.found_in("here", b"Canary-tes and nothing else").is_empty());
}

#[test]
fn the_search_finds_codes_and_tokens_but_not_their_shown_beginning() {
    let mut planted = Planted(vec![]);
    planted.add_code("7G3K-9QXN-4T2V-WM8D");
    let token = format!("tga_{}", general_purpose::URL_SAFE_NO_PAD.encode([0x5a; 48]));
    planted.add("access token", &token);
    for text in ["7g3k9qxn4t2vwm8d", "x7G3K9QXN4T2VWM8D", "7g3k-9qxn-4t2v", &token[..12]] {
        assert!(!planted.found_in("here", text.as_bytes()).is_empty(), "{text}");
    }
    for bytes in [&[0x5a; 16][..], hex::encode([0x5a; 48]).as_bytes()] {
        assert!(!planted.found_in("here", bytes).is_empty(), "{bytes:?}");
    }
    let shown = format!("7G3K 7G3K-9Q {}", &token[..8]);
    assert!(planted.found_in("here", shown.as_bytes()).is_empty());
}
