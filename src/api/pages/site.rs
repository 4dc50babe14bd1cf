//! How the pages look, made once: the operator's name and colour, one style
//! sheet, and the policy that admits that and nothing else.

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::config::{Rgb, ServerConfig};

/// The operator's site.
pub struct Site {
    pub name: String,
    /// Where somebody goes who signed in without having asked for a page.
    pub home: String,
    pub style: String,
    /// `Content-Security-Policy`.
    pub policy: HeaderValue,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--bad:#a4001d;--line:#6b7280}
@media(prefers-color-scheme:dark){:root{--bad:#ffb3ba;--line:#9ca3af}}
*{box-sizing:border-box}
body{margin:0;background:Canvas;color:CanvasText;font:1rem/1.5 system-ui,sans-serif;\
border-top:.4rem solid var(--brand)}
main{max-width:24rem;margin:0 auto;padding:3rem 1rem;overflow-wrap:anywhere}
.site{margin:0;font-weight:600}
h1{margin:0 0 1.5rem;font-size:1.75rem;line-height:1.2}
h2{margin:2.5rem 0 0;font-size:1.1rem}
label{display:block;margin:1rem 0 .25rem;font-weight:600}
input,button{display:block;width:100%;min-height:2.75rem;padding:.5rem .75rem;font:inherit;\
border:1px solid var(--line);border-radius:.375rem}
input{background:Field;color:FieldText}
button{margin-top:1.5rem;border-color:transparent;background:var(--brand);color:var(--on-brand);\
font-weight:600;cursor:pointer}
a{color:inherit}
:focus-visible{outline:3px solid CanvasText;outline-offset:2px}
[role=alert]{margin:0 0 1rem;padding:.75rem 1rem;border:2px solid var(--bad);\
border-radius:.375rem;color:var(--bad);font-weight:600}
[aria-invalid=true]{border:2px solid var(--bad)}
";

impl Site {
    /// `prefix` is that of the first upstream.
    pub fn new(server: &ServerConfig, prefix: &str) -> Self {
        let Rgb(rgb) = server.site_color;
        let on_brand = if is_light(rgb) { "#000" } else { "#fff" };
        let brand = hex::encode(rgb);
        let style = format!(":root{{--brand:#{brand};--on-brand:{on_brand}}}\n{STYLE}");
        let hash = STANDARD.encode(Sha256::digest(&style));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        Self {
            name: server.site_name.clone(),
            home: format!("{prefix}/"),
            style,
            policy: HeaderValue::try_from(policy).expect("base64 and words"),
        }
    }
}

/// Whether black reads better on it than white does (WCAG 2.2, contrast ratio).
fn is_light(rgb: [u8; 3]) -> bool {
    let linear = |part: u8| {
        let part = f64::from(part) / 255.0;
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    let [red, green, blue] = rgb.map(linear);
    let luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    // (l + .05) / .05 > 1.05 / (l + .05)
    (luminance + 0.05).powi(2) > 0.05 * 1.05
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_on_any_colour_can_be_read() {
        for (rgb, light) in [
            ([0, 0, 0], false),
            ([255, 255, 255], true),
            ([0x1f, 0x5f, 0xa8], false),
            ([255, 255, 0], true),
            ([0, 0, 255], false),
            ([0x75, 0x75, 0x75], false),
            ([0x77, 0x77, 0x77], true),
        ] {
            assert_eq!(is_light(rgb), light, "{rgb:?}");
        }
    }
}
