//! The operator's rules, on a body that is there as a whole.
//!
//! A pattern needs time in proportion to the text for one match, but finding
//! every match can cost the square of it (`.*[^x]|x` looks to the end each
//! time). So a body has a time, [`TIME`], and what is left when that is over
//! stays as it is.

use std::{borrow::Cow, time::Duration};

use regex::bytes::{Captures, Regex};

use super::{cpu::CpuTime, json, names::Names};
use crate::config::rewrite::{Find, JsonChange, Part, RewriteRule, Template};

/// For all rules on one body, of the processor. Its worker serves nobody else meanwhile.
const TIME: Duration = Duration::from_millis(100);

/// Whether a rule is for answers to this path.
pub fn is_for_path(rule: &RewriteRule, path: &str) -> bool {
    rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.matches(path))
}

/// Applies those of the site's rules whose numbers are given.
pub fn apply(names: &Names, numbers: &[u8], body: Vec<u8>) -> Vec<u8> {
    let mut time = CpuTime::of(TIME);
    let mut body = body;
    for number in numbers {
        let Some(rule) = names.site.config.rules.get(usize::from(*number)) else { continue };
        let changed = match &rule.find {
            Find::Text { pattern, replace } => {
                replace_all(pattern, replace, names.prefix(), &body, &mut time)
            }
            Find::Json { place, change } => {
                json::replace(&body, place, |text| json_value(names, change, text, &mut time))
            }
        };
        if let Some(changed) = changed {
            body = changed;
        }
        if time.is_over() {
            tracing::warn!(rule = number, "a body is not rewritten to its end: it takes too long");
            break;
        }
    }
    body
}

fn json_value(
    names: &Names,
    change: &JsonChange,
    text: &str,
    time: &mut CpuTime,
) -> Option<String> {
    match change {
        JsonChange::Url => names.map(text, true),
        JsonChange::Value(template) => {
            let mut out = vec![];
            expand(template, names.prefix(), None, &mut out);
            String::from_utf8(out).ok()
        }
        JsonChange::Matches(pattern, template) => {
            let changed = replace_all(pattern, template, names.prefix(), text.as_bytes(), time)?;
            // A pattern of bytes may cut a character in two.
            String::from_utf8(changed).ok()
        }
    }
}

/// `None`: no match.
fn replace_all(
    pattern: &Regex,
    template: &Template,
    prefix: &str,
    text: &[u8],
    time: &mut CpuTime,
) -> Option<Vec<u8>> {
    let mut out = vec![];
    let mut kept = 0;
    for found in pattern.captures_iter(text) {
        let Some(whole) = found.get(0) else { break };
        out.extend_from_slice(&text[kept..whole.start()]);
        expand(template, prefix, Some(&found), &mut out);
        kept = whole.end();
        if time.is_over() {
            break;
        }
    }
    if kept == 0 {
        return None;
    }
    out.extend_from_slice(&text[kept..]);
    Some(out)
}

fn expand(template: &Template, prefix: &str, found: Option<&Captures<'_>>, out: &mut Vec<u8>) {
    for part in &template.0 {
        let text = match part {
            Part::Text(text) => Cow::Borrowed(text.as_bytes()),
            Part::Prefix => Cow::Borrowed(prefix.as_bytes()),
            Part::Group(group) => {
                let group = found.and_then(|found| found.get(*group));
                group.map_or(Cow::Borrowed(&b""[..]), |group| Cow::Borrowed(group.as_bytes()))
            }
        };
        out.extend_from_slice(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{cpu::used_by_thread, test_support::names_at},
        *,
    };
    use crate::config::rewrite::RewriteConfig;

    fn config(rules: &str) -> RewriteConfig {
        toml::from_str(rules).unwrap()
    }

    #[test]
    fn rules_are_applied_in_their_order() {
        let names = names_at(
            "/app",
            Some(config(
                "[[rules]]\ntypes = ['javascript']\nfind = '\"/(api|ws)'\nreplace = '\"{prefix}/$1'\n\
             [[rules]]\ntypes = ['javascript']\nfind = 'app'\nreplace = '$$0'",
            )),
        );
        let body = apply(&names, &[0, 1], b"f(\"/api/x\", \"/other\", \"/ws\", \"\xff\")".to_vec());
        assert_eq!(body, b"f(\"/$0/api/x\", \"/other\", \"/$0/ws\", \"\xff\")");
        assert_eq!(apply(&names, &[0], b"nothing".to_vec()), b"nothing");
    }

    #[test]
    fn values_of_a_document_are_changed_and_nothing_else_of_it() {
        let names = names_at(
            "/app",
            Some(config(
                "[[rules]]\ntypes = ['json']\npointer = '/a/*/u'\n\
             [[rules]]\ntypes = ['json']\nkey = 'k'\nfind = '^/(.)'\nreplace = '{prefix}/\"$1'\n\
             [[rules]]\ntypes = ['json']\npointer = '/v'\nreplace = '{prefix}'",
            )),
        );
        let body = br#"{ "a" : [ {"u":"/x\u0041\n", "n": 1.0}, {"u": "y"}], "u": "/x",
            "k": 10000000000000000000001, "d": {"k": "/\"q\u00e9"}, "v": "old"}"#;
        let expected = r#"{ "a" : [ {"u":"/app/xA\n", "n": 1.0}, {"u": "y"}], "u": "/x",
            "k": 10000000000000000000001, "d": {"k": "/app/\"\"qé"}, "v": "/app"}"#;
        let changed = apply(&names, &[0, 1, 2], body.to_vec());
        assert_eq!(String::from_utf8(changed).unwrap(), expected);
        for broken in [&b"{\"a\": [{\"u\": \"/x"[..], b"\xff", b"[", b"", b"{\"k\":}", b"nul"] {
            assert_eq!(apply(&names, &[0, 1, 2], broken.to_vec()), broken);
        }
    }

    #[test]
    fn a_rule_that_takes_the_square_of_the_body_is_stopped() {
        let names = names_at(
            "/app",
            Some(config("[[rules]]\ntypes = ['text']\nfind = '.*[^x]|x'\nreplace = 'y'")),
        );
        let before = used_by_thread();
        let body = apply(&names, &[0], vec![b'x'; 2 << 20]);
        let used = used_by_thread().saturating_sub(before);
        assert!(used < Duration::from_secs(2), "{used:?}");
        assert_eq!(body.len(), 2 << 20);
    }
}
