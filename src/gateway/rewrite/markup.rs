//! Values of attributes and fields that hold URLs among other things: character
//! references, `srcset`, `refresh`.

use std::borrow::Cow;

use super::names::Names;

/// What is done to a URL within a value. `None`: it stays.
pub type Mapper<'m> = &'m dyn Fn(&str) -> Option<String>;

/// Applies `change` to an attribute's raw value, whose character references are
/// resolved for it and made again. A value with references that are not known
/// here is left alone.
pub fn change_value(raw: &str, change: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    if !raw.contains('&') {
        return change(raw);
    }
    let text = resolve(raw)?;
    Some(change(&text)?.replace('&', "&amp;"))
}

/// As [`change_value`], for text that may hold anything once it is changed.
pub fn page_value(raw: &str, change: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    let text = if raw.contains('&') { resolve(raw)? } else { Cow::Borrowed(raw) };
    Some(change(&text)?.replace('&', "&amp;"))
}

/// Maps an attribute that is one URL. Only the beginning of the raw value
/// changes, unless that is spelled with references.
pub fn url_value(names: &Names, rooted: bool, raw: &str) -> Option<String> {
    let plain = raw.find('&').unwrap_or(usize::MAX);
    // As far as a decision may look: the prefix, or what is ours everywhere.
    let looked = |strip: usize| strip.saturating_add(names.prefix().len().max(16));
    match names.edit(raw.as_bytes(), rooted) {
        None if plain == usize::MAX => None,
        Some(edit) if looked(edit.strip) < plain => names.map(raw, rooted),
        _ if resolve(raw).is_none() => names.map(raw, rooted),
        _ => change_value(raw, |url| names.map(url, rooted)),
    }
}

/// Resolves character references; `None` if one is not known.
pub fn resolve(raw: &str) -> Option<Cow<'_, str>> {
    const NAMED: [(&str, &str); 10] = [
        ("amp", "&"),
        ("AMP", "&"),
        ("quot", "\""),
        ("apos", "'"),
        ("lt", "<"),
        ("gt", ">"),
        ("sol", "/"),
        ("colon", ":"),
        ("Tab", "\t"),
        ("NewLine", "\n"),
    ];
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'#');
        let end = end.count();
        let closed = rest.as_bytes().get(end) == Some(&b';');
        let name = &rest[..end];
        if let Some(digits) = name.strip_prefix('#') {
            let hex = digits.strip_prefix(['x', 'X']);
            let code = match hex {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            let char = code.ok().and_then(char::from_u32)?;
            text.push(char);
        } else if closed {
            text.push_str(NAMED.iter().find(|(known, _)| *known == name)?.1);
        } else {
            // An ampersand that stands for itself, as in `?a=1&b=2`.
            text.push('&');
            continue;
        }
        rest = &rest[end + usize::from(closed)..];
    }
    text.push_str(rest);
    Some(Cow::Owned(text))
}

/// Maps the URLs of a `srcset`.
pub fn srcset(text: &str, map: Mapper<'_>) -> Option<String> {
    let mut out = String::with_capacity(text.len() + 64);
    let mut changed = false;
    let mut rest = text;
    loop {
        let start = rest.find(|char: char| !char.is_ascii_whitespace() && char != ',');
        let Some(start) = start else { break };
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|char: char| char.is_ascii_whitespace()).unwrap_or(rest.len());
        let url = rest[..end].trim_end_matches(',');
        match map(url) {
            Some(mapped) => {
                changed = true;
                out.push_str(&mapped);
            }
            None => out.push_str(url),
        }
        out.push_str(&rest[url.len()..end]);
        let candidate_over = url.len() < end;
        rest = &rest[end..];
        if candidate_over {
            continue;
        }
        // Descriptors, up to a comma that is in no parentheses.
        let mut depth = 0_usize;
        let descriptors = rest.find(|char| {
            match char {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            char == ',' && depth == 0
        });
        let descriptors = descriptors.unwrap_or(rest.len());
        out.push_str(&rest[..descriptors]);
        rest = &rest[descriptors..];
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Maps the URL of a `Refresh` (`5; url=/x`).
pub fn refresh(text: &str, map: Mapper<'_>) -> Option<String> {
    let after = text.find(|char: char| !char.is_ascii_digit() && !matches!(char, '.' | ' '))?;
    let is_gap = |char: char| char.is_ascii_whitespace() || matches!(char, ';' | ',');
    let mut url = text[after..].trim_start_matches(is_gap);
    if url.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("url"))
        && let Some(value) = url[3..].trim_start().strip_prefix('=')
    {
        url = value.trim_start();
    }
    let quote = url.chars().next().filter(|char| matches!(char, '"' | '\''));
    let url = quote.map_or(url, |quote| url[1..].split(quote).next().unwrap_or_default());
    let at = url.as_ptr() as usize - text.as_ptr() as usize;
    let mapped = map(url)?;
    Some(format!("{}{mapped}{}", &text[..at], &text[at + url.len()..]))
}

#[cfg(test)]
mod tests {
    use super::{super::test_support::names, *};

    #[test]
    fn a_url_is_mapped_however_it_is_spelled() {
        let names = names();
        let cases = [
            ("/x?a=1&b=2", "/app/x?a=1&amp;b=2"),
            ("/a/rather/long/path?a=1&b=2", "/app/a/rather/long/path?a=1&b=2"),
            ("/x?a&amp;b&eacute;", "/app/x?a&amp;b&eacute;"),
            ("&#x2F;x&#47;y?a&amp;b", "/app/x/y?a&amp;b"),
            ("http&colon;//up.example:8188/x", "/app/x"),
            ("&sol;x", "/app/x"),
        ];
        for (raw, expected) in cases {
            assert_eq!(url_value(&names, true, raw).as_deref(), Some(expected), "{raw}");
        }
        for kept in ["x&#x2F;y", "&eacute;/x", "javascript:a&amp;/x", "?a&/b", "/app&#x2F;x"] {
            assert_eq!(url_value(&names, true, kept), None, "{kept}");
        }
    }

    #[test]
    fn every_candidate_of_a_srcset_is_mapped() {
        let names = names();
        let map = |url: &str| names.map(url, true);
        let cases = [
            ("/a.png", Some("/app/a.png")),
            ("/a.png 1x, /b.png 2x", Some("/app/a.png 1x, /app/b.png 2x")),
            (" /a.png 100w,b.png,/c,d.png 3x", Some(" /app/a.png 100w,b.png,/c,d.png 3x")),
            ("data:image/png;base64,/x 1x, /b 2x", Some("data:image/png;base64,/x 1x, /app/b 2x")),
            ("/a, /b", Some("/app/a, /app/b")),
            ("a 1x, b 2x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(srcset(text, &map).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_url_of_a_refresh_is_mapped() {
        let names = names();
        let map = |url: &str| names.map(url, true);
        let cases = [
            ("5; url=/x", Some("5; url=/app/x")),
            ("0;URL = '/x?a;b'", Some("0;URL = '/app/x?a;b'")),
            ("1.5, /x", Some("1.5, /app/x")),
            ("0; url=\"http://up.example:8188/\"; x", Some("0; url=\"/app/\"; x")),
            ("5", None),
            ("5; url=x", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(refresh(text, &map).as_deref(), expected, "{text}");
        }
    }
}
