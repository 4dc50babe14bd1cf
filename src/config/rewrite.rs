//! How an upstream's answers are rewritten: the field `rewrite` of its table.
//!
//! ```toml
//! rewrite = true                      # or false, or a table:
//! [upstreams.rewrite]
//! max_body_bytes = 2097152
//! [[upstreams.rewrite.rules]]
//! types = ["javascript"]
//! paths = ["/static/*"]               # below the mount; none: every path
//! find = '"/api/(v\d)'
//! replace = '"{prefix}/api/$1'
//! [[upstreams.rewrite.rules]]
//! types = ["json"]
//! pointer = "/items/*/url"            # or key = "url"; a value that is a URL is mapped
//! ```
//!
//! Everything is checked while it is read, so that nothing of a rule can fail
//! later. Patterns are of the `regex` crate, which needs time in proportion to
//! the text, and are held small: a pattern with thousands of states would still
//! be too slow for every page.

use regex::bytes::{Regex, RegexBuilder};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::addresses::path_pattern;
use crate::domain::policy::PathPattern;

/// Longest pattern, bytes.
const MAX_PATTERN: usize = 2048;
/// What a compiled pattern may need, bytes: some thousand states.
const MAX_COMPILED: usize = 64 * 1024;
/// Nesting of groups in a pattern.
const MAX_NESTING: u32 = 64;
const MAX_RULES: usize = 64;

#[derive(Clone, Debug)]
pub struct RewriteConfig {
    pub enabled: bool,
    /// A body that is longer is not touched if that is known beforehand, and no
    /// rule is applied to it otherwise. Bytes, decoded.
    pub max_body_bytes: u64,
    /// A body above [`Self::max_body_bytes`] that decodes to more than this many
    /// times its size is broken off.
    pub max_ratio: u32,
    /// What the HTML rewriter may hold, bytes.
    pub memory: usize,
    pub rules: Vec<RewriteRule>,
    /// Whether pages get the script that maps what scripts ask for.
    pub script: bool,
}

/// What to replace in bodies of some types.
#[derive(Clone, Debug)]
pub struct RewriteRule {
    /// Never empty.
    pub types: Vec<BodyKind>,
    /// Empty: every path.
    pub paths: Vec<PathPattern>,
    pub find: Find,
}

#[derive(Clone, Debug)]
pub enum Find {
    /// Every match in the text of the body.
    Text { pattern: Regex, replace: Template },
    /// The text values at some places of a JSON document.
    Json { place: JsonPlace, change: JsonChange },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonPlace {
    /// The segments of a pointer (RFC 6901); `None` stands for any.
    Pointer(Vec<Option<String>>),
    /// Every member of this name.
    Key(String),
}

#[derive(Clone, Debug)]
pub enum JsonChange {
    /// The value is a URL and is mapped as one.
    Url,
    /// The whole value becomes this.
    Value(Template),
    /// Every match within the value.
    Matches(Regex, Template),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyKind {
    Json,
    Javascript,
    Css,
    Html,
    Text,
}

/// A replacement: text, `$1`, `${1}`, `{prefix}`; `$$` is a dollar sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Group(usize),
    /// The mount's path prefix, without a slash at its end.
    Prefix,
}

impl Default for RewriteConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max_body_bytes: 2 * 1024 * 1024,
            max_ratio: 100,
            memory: 4 * 1024 * 1024,
            rules: vec![],
            script: true,
        }
    }
}

/// Patterns are compared as they were written.
impl PartialEq for RewriteConfig {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Eq for RewriteConfig {}

impl Template {
    /// `groups` counts the pattern's, with the whole match.
    fn parse(text: &str, groups: usize) -> Result<Self, String> {
        let mut parts = vec![];
        let mut rest = text;
        while let Some(at) = rest.find(['$', '{']) {
            push_text(&mut parts, &rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{prefix}") {
                parts.push(Part::Prefix);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("$$") {
                push_text(&mut parts, "$");
                rest = after;
            } else if let Some(after) = rest.strip_prefix('$') {
                let (group, after) = group(after).ok_or_else(|| {
                    format!("expected $1, ${{1}} or $$ at {:?}", &rest[..rest.len().min(8)])
                })?;
                if group >= groups {
                    return Err(format!("${group}: the pattern has no such group"));
                }
                parts.push(Part::Group(group));
                rest = after;
            } else {
                push_text(&mut parts, "{");
                rest = &rest[1..];
            }
        }
        push_text(&mut parts, rest);
        Ok(Self(parts))
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

/// The number of a group and what follows it. One digit without braces.
fn group(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = match text.strip_prefix('{') {
        Some(inner) => inner.split_once('}')?,
        None => text.split_at_checked(1)?,
    };
    Some((digits.parse().ok()?, rest))
}

fn pattern(text: &str) -> Result<Regex, String> {
    if text.is_empty() || text.len() > MAX_PATTERN {
        return Err(format!("find: expected a pattern of 1 to {MAX_PATTERN} bytes"));
    }
    let built = RegexBuilder::new(text)
        // Bodies are bytes of any charset; and Unicode classes are large.
        .unicode(false)
        .size_limit(MAX_COMPILED)
        .nest_limit(MAX_NESTING)
        .build();
    let regex = built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "find: expected a smaller pattern; \
             repetitions like {1000} multiply what they repeat"
            .to_owned(),
        error => format!("find: expected a regular expression: {error}"),
    })?;
    // It would match between any two bytes.
    if regex.is_match(b"") {
        return Err("find: expected a pattern that does not match the empty text".to_owned());
    }
    Ok(regex)
}

fn pointer(text: &str) -> Result<JsonPlace, String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("pointer: expected a JSON pointer like /items/*/url".to_owned());
    };
    let segment = |segment: &str| match segment {
        "*" => None,
        name => Some(name.replace("~1", "/").replace("~0", "~")),
    };
    Ok(JsonPlace::Pointer(rest.split('/').map(segment).collect()))
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    enabled: Option<bool>,
    max_body_bytes: Option<u64>,
    max_ratio: Option<u32>,
    memory: Option<usize>,
    #[serde(default)]
    rules: Vec<RewriteRule>,
    script: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    types: Vec<BodyKind>,
    #[serde(default)]
    paths: Vec<String>,
    find: Option<String>,
    pointer: Option<String>,
    key: Option<String>,
    replace: Option<String>,
}

impl TryFrom<Table> for RewriteConfig {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let usual = Self::default();
        let config = Self {
            enabled: table.enabled.unwrap_or(usual.enabled),
            max_body_bytes: table.max_body_bytes.unwrap_or(usual.max_body_bytes),
            max_ratio: table.max_ratio.unwrap_or(usual.max_ratio),
            memory: table.memory.unwrap_or(usual.memory),
            rules: table.rules,
            script: table.script.unwrap_or(usual.script),
        };
        let fault = |name: &str, range: &str| Err(format!("{name}: expected {range}"));
        match &config {
            c if !(1024..=64 << 20).contains(&c.max_body_bytes) => {
                fault("max_body_bytes", "1024 to 67108864")
            }
            c if !(2..=10_000).contains(&c.max_ratio) => fault("max_ratio", "2 to 10000"),
            c if !(64 << 10..=64 << 20).contains(&c.memory) => {
                fault("memory", "65536 to 67108864 bytes")
            }
            c if c.rules.len() > MAX_RULES => fault("rules", "at most 64"),
            _ => Ok(config),
        }
    }
}

impl TryFrom<RuleTable> for RewriteRule {
    type Error = String;

    fn try_from(table: RuleTable) -> Result<Self, String> {
        let RuleTable { types, paths, find, pointer, key, replace } = table;
        if types.is_empty() {
            return Err("types: expected at least one".to_owned());
        }
        let pattern = find.as_deref().map(self::pattern).transpose()?;
        let groups = pattern.as_ref().map_or(0, Regex::captures_len);
        let replace = replace.map(|text| Template::parse(&text, groups)).transpose();
        let replace = replace.map_err(|error| format!("replace: {error}"))?;
        let place = match (pointer, key) {
            (Some(_), Some(_)) => return Err("expected pointer or key, not both".to_owned()),
            (Some(text), None) => Some(self::pointer(&text)?),
            (None, key) => key.map(JsonPlace::Key),
        };
        let find = match (place, pattern, replace) {
            (None, Some(pattern), Some(replace)) => Find::Text { pattern, replace },
            (None, None, _) => return Err("expected find, pointer or key".to_owned()),
            (_, Some(_), None) => return Err("replace: expected a text beside find".to_owned()),
            (Some(_), ..) if types != [BodyKind::Json] => {
                return Err("types: expected [\"json\"] beside pointer or key".to_owned());
            }
            (Some(place), pattern, replace) => {
                let change = match (pattern, replace) {
                    (Some(pattern), Some(replace)) => JsonChange::Matches(pattern, replace),
                    (_, Some(value)) => JsonChange::Value(value),
                    (_, None) => JsonChange::Url,
                };
                Find::Json { place, change }
            }
        };
        let pattern = |text: &String| path_pattern(text).map(|text| PathPattern::new(&text));
        let paths = paths.iter().map(pattern).collect::<Result<_, _>>();
        Ok(Self { types, paths: paths.map_err(|error| format!("paths: {error}"))?, find })
    }
}

impl<'de> Deserialize<'de> for RewriteRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(RuleTable::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for RewriteConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SwitchOrTable)
    }
}

struct SwitchOrTable;

impl<'de> Visitor<'de> for SwitchOrTable {
    type Value = RewriteConfig;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("true, false or a table")
    }

    fn visit_bool<E>(self, enabled: bool) -> Result<RewriteConfig, E> {
        Ok(RewriteConfig { enabled, ..RewriteConfig::default() })
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<RewriteConfig, M::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        RewriteConfig::try_from(table).map_err(M::Error::custom)
    }
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
mod tests;
