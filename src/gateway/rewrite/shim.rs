//! The texts that are put into pages: our script and the import map.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{importmap, names};

const SOURCE: &str = include_str!("shim.js");

/// An inline script.
#[derive(Debug)]
pub struct Inline {
    /// The whole element.
    pub element: String,
    /// What a policy lets it in by.
    pub hash: String,
}

impl Inline {
    fn new(attributes: &str, text: &str) -> Self {
        let digest = STANDARD.encode(Sha256::digest(text.as_bytes()));
        Self {
            element: format!("<script{attributes}>{text}</script>"),
            hash: format!("'sha256-{digest}'"),
        }
    }

    /// The script of a place.
    pub fn script(prefix: &str, upstreams: &[Vec<u8>]) -> Self {
        Self::new("", &text(prefix, upstreams))
    }

    /// The import map of a place.
    pub fn import_map(prefix: &str) -> Self {
        Self::new(" type=\"importmap\"", &importmap::ours(prefix))
    }
}

/// The script's text, without its comments and indentation.
pub fn text(prefix: &str, upstreams: &[Vec<u8>]) -> String {
    // As `URL.host` says it, whatever the scheme.
    let bare = |host: &[u8]| String::from_utf8_lossy(names::bare(host)).to_ascii_lowercase();
    let hosts: Vec<_> = upstreams.iter().map(|host| bare(host)).collect();
    let lines = SOURCE.lines().map(str::trim).filter(|line| !line.is_empty());
    let code: Vec<_> = lines.filter(|line| !line.starts_with("//")).collect();
    let arguments = format!("{}, {}", json!(prefix), json!(hosts)).replace('<', "\\u003c");
    format!("{}({arguments});", code.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_cannot_end_its_element_and_is_ascii() {
        let text = text("/app", &[b"</script>:443".to_vec()]);
        assert!(text.is_ascii() && !text.contains("</") && !text.contains("<!--"), "{text}");
        assert!(text.starts_with("(function rewrite(prefix, hosts) {"), "{text}");
        assert!(text.ends_with("})(\"/app\", [\"\\u003c/script>\"]);"), "{text}");
        assert!(text.len() < 13 * 1024, "{} bytes", text.len());
    }
}
