//! `Content-Security-Policy`: our inline scripts are let in, and the upstream's
//! own name becomes ours.
//!
//! Always by hash: a nonce is known only where the policy comes as a field, and
//! a hash lets in nothing else. A policy that allows inline scripts as it is
//! stays so, since a hash would make browsers ignore its `'unsafe-inline'`.

use super::names::{self, Names};

/// The name of the script's policy for trusted types.
const TRUSTED_TYPES: &str = "tollgate";

/// What a page's policies mean for what is done to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strictness {
    /// Inline scripts need a nonce or a hash.
    pub scripts: bool,
    /// Inline styles are known by their hash, and must stay as they are.
    pub styles: bool,
}

impl Strictness {
    /// That of a field with any number of policies, and of one before it.
    #[must_use]
    pub fn and(self, policies: &str) -> Self {
        let mut all = self;
        for policy in policies.split(',') {
            let directives = parse(policy);
            all.scripts |= effective(&directives).is_some_and(|at| !allows_inline(&directives[at]));
            let style = |words: &Vec<&str>| {
                name_of(words).starts_with("style-src") || name_of(words) == "default-src"
            };
            let hash = |word: &&str| word.len() > 4 && word[..4].eq_ignore_ascii_case("'sha");
            all.styles |= directives.iter().any(|words| style(words) && words.iter().any(hash));
        }
        all
    }
}

/// The changed field. `hashes` are those of our scripts, as sources.
pub fn amend(names: &Names, policies: &str, hashes: &[String]) -> String {
    let changed = policies.split(',').map(|policy| amend_one(names, policy, hashes));
    changed.collect::<Vec<_>>().join(",")
}

fn amend_one(names: &Names, policy: &str, hashes: &[String]) -> String {
    let directives = parse(policy);
    let scripts =
        effective(&directives).filter(|at| !hashes.is_empty() && !allows_inline(&directives[*at]));
    let mut out: Vec<String> = Vec::with_capacity(directives.len() + 1);
    for (at, words) in directives.iter().enumerate() {
        let name = name_of(words);
        let mut words: Vec<String> = match name.as_str() {
            "report-uri" => words.iter().map(|word| report(names, word)).collect(),
            _ => words.iter().map(|word| source(names, word)).collect(),
        };
        if name == "trusted-types" && !hashes.is_empty() {
            words.retain(|word| !word.eq_ignore_ascii_case("'none'"));
            if !words.iter().any(|word| word == "*" || word == TRUSTED_TYPES) {
                words.push(TRUSTED_TYPES.to_owned());
            }
        }
        let whole = words.join(" ");
        if scripts == Some(at) {
            words.retain(|word| !word.eq_ignore_ascii_case("'none'"));
            words.extend(hashes.iter().filter(|hash| !whole.contains(*hash)).cloned());
            if name == "default-src" {
                // Only scripts get the hashes.
                out.push(whole);
                "script-src".clone_into(&mut words[0]);
            }
            out.push(words.join(" "));
        } else {
            out.push(whole);
        }
    }
    out.join("; ")
}

fn parse(policy: &str) -> Vec<Vec<&str>> {
    let directives =
        policy.split(';').map(|text| text.split_ascii_whitespace().collect::<Vec<_>>());
    directives.filter(|words| !words.is_empty()).collect()
}

fn name_of(words: &[&str]) -> String {
    words[0].to_ascii_lowercase()
}

/// The directive that decides about script elements. Of one that is repeated
/// the first holds.
fn effective(directives: &[Vec<&str>]) -> Option<usize> {
    let find = |name: &str| directives.iter().position(|words| name_of(words) == name);
    find("script-src-elem").or_else(|| find("script-src")).or_else(|| find("default-src"))
}

fn allows_inline(words: &[&str]) -> bool {
    let is = |keyword: &str| words.iter().any(|word| word.eq_ignore_ascii_case(keyword));
    let begins = |prefix: &str| {
        let begins = |word: &&str| {
            word.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        words.iter().any(begins)
    };
    is("'unsafe-inline'") && !is("'strict-dynamic'") && !begins("'nonce-") && !begins("'sha")
}

/// A source that is the upstream by name becomes ours.
fn source(names: &Names, word: &str) -> String {
    let (scheme, rest) = word.split_once("://").unwrap_or(("", word));
    let known = matches!(scheme, "" | "http" | "https" | "ws" | "wss");
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let is_host = host.contains(['.', ':']) || !scheme.is_empty();
    let upstream = |own: &Vec<u8>| names::is_same(host.as_bytes(), own);
    if !known || !is_host || !names.site.upstreams.iter().any(upstream) {
        return word.to_owned();
    }
    match names.our_origin() {
        Some(origin) if !path.is_empty() => format!("{origin}{}{path}", names.prefix()),
        _ => "'self'".to_owned(),
    }
}

fn report(names: &Names, word: &str) -> String {
    names.map(word, true).unwrap_or_else(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::test_support::names, *};

    #[test]
    fn our_scripts_are_let_in_and_nothing_else() {
        let cases = [
            ("default-src 'self'", "default-src 'self'; script-src 'self' 'sha256-H='"),
            ("script-src 'none'", "script-src 'sha256-H='"),
            (
                "script-src 'nonce-abc' 'unsafe-inline'",
                "script-src 'nonce-abc' 'unsafe-inline' 'sha256-H='",
            ),
            ("script-src 'unsafe-inline'", "script-src 'unsafe-inline'"),
            ("img-src *", "img-src *"),
            (
                "script-src *; script-src-elem a.example",
                "script-src *; script-src-elem a.example 'sha256-H='",
            ),
            (
                "default-src 'none', script-src x.example",
                "default-src 'none'; script-src 'sha256-H=',script-src x.example 'sha256-H='",
            ),
            (
                "report-uri /csp; connect-src ws://up.example:8188 up.example:8188/api/",
                "report-uri /app/csp; connect-src 'self' https://gate.example/app/api/",
            ),
            ("trusted-types 'none'", "trusted-types tollgate"),
            ("sandbox", "sandbox"),
            ("", ""),
        ];
        let hashes = ["'sha256-H='".to_owned()];
        for (policy, expected) in cases {
            let amended = amend(&names(), policy, &hashes);
            assert_eq!(amended, expected, "{policy}");
            assert_eq!(amend(&names(), &amended, &hashes), expected, "{policy}: twice");
        }
    }

    #[test]
    fn a_policy_tells_what_inline_may_be() {
        let cases = [
            ("default-src 'self'", true, false),
            ("script-src 'unsafe-inline'", false, false),
            ("img-src *", false, false),
            ("style-src 'sha256-x'", false, true),
            ("script-src 'unsafe-inline', script-src 'nonce-a'", true, false),
        ];
        for (policy, scripts, styles) in cases {
            let strictness = Strictness::default().and(policy);
            assert_eq!(strictness, Strictness { scripts, styles }, "{policy}");
        }
    }
}
