//! Entity tags of rewritten answers.
//!
//! A rewritten body is not the upstream's, so its tag says so: it becomes weak
//! and gets a mark that stands for how this version of ours rewrites at this
//! place. When a client asks again, the mark comes off and the upstream compares
//! its own tag. A copy whose mark is another, because rules, prefix or program
//! have changed, is asked for anew instead of being confirmed. Where the
//! upstream gives no tag but a date, the mark alone is the tag, for the same
//! reason.

/// What a mark begins with.
pub const MARK: &str = "~tg";

/// A tag seen from our side.
#[derive(Debug, PartialEq, Eq)]
pub enum Unmarked {
    /// With the mark in force; the upstream's own tag, if it had one.
    Ours(Option<String>),
    /// Another mark of ours.
    Outdated,
    Foreign,
}

/// The tag of what a body with `own` is rewritten to.
pub fn marked(own: Option<&str>, mark: &str) -> Option<String> {
    let Some(own) = own else { return Some(format!("W/\"{MARK}n{mark}\"")) };
    let (kind, opaque) = match own.strip_prefix("W/") {
        Some(opaque) => ('w', opaque),
        None => ('s', own),
    };
    let opaque = opaque.strip_prefix('"')?.strip_suffix('"')?;
    Some(format!("W/\"{opaque}{MARK}{kind}{mark}\""))
}

pub fn unmark(tag: &str, mark: &str) -> Unmarked {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let opaque = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some((own, end)) = opaque.and_then(|opaque| opaque.rsplit_once(MARK)) else {
        return Unmarked::Foreign;
    };
    let Some((kind, found)) = end.split_at_checked(1) else { return Unmarked::Foreign };
    match kind {
        _ if found != mark => Unmarked::Outdated,
        "s" => Unmarked::Ours(Some(format!("\"{own}\""))),
        "w" => Unmarked::Ours(Some(format!("W/\"{own}\""))),
        "n" => Unmarked::Ours(None),
        _ => Unmarked::Foreign,
    }
}

/// The tags of a list. A comma may be part of a tag.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |char| {
        quoted ^= char == '"';
        char == ',' && !quoted
    })
    .map(str::trim)
    .filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_off_as_it_went_on() {
        for own in ["\"abc\"", "W/\"a,b\"", "\"\"", "\"x~tgs1\""] {
            let marked = marked(Some(own), "0a1b").unwrap();
            assert!(marked.starts_with("W/\""), "{marked}");
            assert_eq!(unmark(&marked, "0a1b"), Unmarked::Ours(Some(own.to_owned())));
            assert_eq!(unmark(&marked, "ffff"), Unmarked::Outdated);
        }
        assert_eq!(unmark(&marked(None, "m").unwrap(), "m"), Unmarked::Ours(None));
        for foreign in ["\"abc\"", "*", "abc", "", "\"~tg\""] {
            assert_eq!(unmark(foreign, "m"), Unmarked::Foreign, "{foreign}");
        }
        assert_eq!(marked(Some("bare"), "m"), None);
        assert_eq!(list("\"a,b\", W/\"c\",,*").collect::<Vec<_>>(), ["\"a,b\"", "W/\"c\"", "*"]);
    }
}
