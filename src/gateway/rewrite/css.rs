//! URLs in style sheets: `url()`, `@import`, `image-set()`.
//!
//! A scanner, not a parser: it knows strings, comments, escapes and names, so
//! that it never takes for a URL what stands in one of those, and leaves alone
//! whatever it does not understand. Works on bytes, since all that matters is
//! ASCII in every charset that is rewritten. Text is handed on as it comes; only
//! a name or a URL that is not complete is held back, never more than
//! [`LONGEST`] bytes. A longer URL (`data:`) is judged by its beginning.

use super::names::Names;

/// Bytes of a URL that are looked at.
const LONGEST: usize = 8 * 1024;
/// Bytes of a name that are looked at; longer than any that matters.
const LONGEST_NAME: usize = 32;

/// Rewrites one style sheet, or one style attribute.
#[derive(Debug)]
pub struct Css {
    state: State,
    /// Between `@import` and its URL: the next text in quotes is one.
    import: bool,
    /// Within `@namespace`, whose URL is only a name.
    namespace: bool,
    /// Depth of parentheses since `image-set(`; texts at depth 1 are URLs.
    set: usize,
    /// What could not be decided yet.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    Comment,
    /// Within quotes that hold no URL, or the rest of one.
    Quoted(u8),
    /// The rest of a URL without quotes.
    Bare,
    /// The rest of a long name.
    Name,
}

/// What stands at a place.
enum Found {
    /// Nothing can be said before more is seen.
    Unclear,
    /// It goes as it is up to here.
    Pass(usize),
    /// A URL from .. to ..; a `quote` of 0 is none.
    Url { from: usize, to: usize, quote: u8, long: bool },
}

impl Default for Css {
    fn default() -> Self {
        Self { state: State::Plain, import: false, namespace: false, set: 0, held: vec![] }
    }
}

impl Css {
    /// Rewrites a whole text. `None`: nothing to change.
    pub fn whole(names: &Names, rooted: bool, text: &str) -> Option<String> {
        let mut out = Vec::with_capacity(text.len() + 64);
        let mut css = Self::default();
        css.push(names, rooted, text.as_bytes(), &mut out);
        css.end(names, rooted, &mut out);
        (out != text.as_bytes()).then(|| String::from_utf8(out).ok()).flatten()
    }

    pub fn push(&mut self, names: &Names, rooted: bool, text: &[u8], out: &mut Vec<u8>) {
        if self.held.is_empty() {
            let rest = self.scan(names, rooted, text, false, out);
            self.held.extend_from_slice(&text[rest..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(text);
            let rest = self.scan(names, rooted, &held, false, out);
            held.drain(..rest);
            self.held = held;
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self, names: &Names, rooted: bool, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let rest = self.scan(names, rooted, &held, true, out);
        out.extend_from_slice(&held[rest..]);
    }

    /// Returns from where the text must be seen again with more.
    fn scan(
        &mut self,
        names: &Names,
        rooted: bool,
        text: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> usize {
        // From here on it is not yet in `out`.
        let mut kept = 0;
        let mut at = 0;
        while at < text.len() {
            match self.look(text, at, last) {
                Found::Unclear => {
                    out.extend_from_slice(&text[kept..at]);
                    return at;
                }
                Found::Pass(to) => at = to,
                Found::Url { from, to, quote, long } => {
                    out.extend_from_slice(&text[kept..from]);
                    kept = map(names, rooted, &text[from..to], quote, long, out) + from;
                    at = to;
                    if long {
                        self.state = if quote == 0 { State::Bare } else { State::Quoted(quote) };
                    } else if quote != 0 {
                        at += 1;
                    }
                }
            }
        }
        out.extend_from_slice(&text[kept..]);
        text.len()
    }

    fn look(&mut self, text: &[u8], at: usize, last: bool) -> Found {
        let rest = &text[at..];
        match self.state {
            State::Plain => self.look_plain(text, at, last),
            State::Comment => match rest.windows(2).position(|pair| pair == b"*/") {
                Some(end) => self.become_plain(at + end + 2),
                // The star may be the first half of the end.
                None if rest.last() == Some(&b'*') && !last && rest.len() == 1 => Found::Unclear,
                None if rest.last() == Some(&b'*') && !last => Found::Pass(text.len() - 1),
                None => Found::Pass(text.len()),
            },
            State::Quoted(quote) => match end_of_quoted(rest, quote) {
                Some(end) => self.become_plain((at + end + 1).min(text.len())),
                None => pass_but_escape(text, at, last),
            },
            State::Bare => match end_of_bare(rest) {
                Some(end) => self.become_plain(at + end),
                None => pass_but_escape(text, at, last),
            },
            State::Name => match end_of_name(rest) {
                Some(end) => self.become_plain(at + end),
                None => pass_but_escape(text, at, last),
            },
        }
    }

    fn become_plain(&mut self, at: usize) -> Found {
        self.state = State::Plain;
        Found::Pass(at)
    }

    fn look_plain(&mut self, text: &[u8], at: usize, last: bool) -> Found {
        let rest = &text[at..];
        match rest[0] {
            b'/' => match rest.get(1) {
                None if !last => return Found::Unclear,
                Some(b'*') => {
                    self.state = State::Comment;
                    return Found::Pass(at + 2);
                }
                _ => {}
            },
            quote @ (b'"' | b'\'') => {
                if self.import || self.set == 1 {
                    let found = quoted_url(text, at + 1, quote, last);
                    if !matches!(found, Found::Unclear) {
                        self.import = false;
                    }
                    return found;
                }
                self.state = State::Quoted(quote);
            }
            b'(' if self.set > 0 => self.set += 1,
            b')' => self.set = self.set.saturating_sub(1),
            b';' | b'{' | b'}' => {
                self.import = false;
                self.namespace = false;
                self.set = 0;
            }
            b'@' => return self.look_name(text, at, at + 1, last),
            byte if is_name(byte) => return self.look_name(text, at, at, last),
            _ => {}
        }
        Found::Pass(at + 1)
    }

    /// A name begins at `name`, with what belongs to it at `at`.
    fn look_name(&mut self, text: &[u8], at: usize, name: usize, last: bool) -> Found {
        let Some(length) = end_of_name(&text[name..]) else {
            if last {
                return Found::Pass(text.len());
            }
            if text.len() - name <= LONGEST_NAME {
                return Found::Unclear;
            }
            if name > at {
                (self.import, self.namespace) = (false, false);
            }
            self.state = State::Name;
            return Found::Pass(name);
        };
        let end = name + length;
        // However it was cut: a long name is nothing that matters.
        let word = if length > LONGEST_NAME { &b""[..] } else { &text[name..end] };
        if name > at {
            self.import = word.eq_ignore_ascii_case(b"import");
            self.namespace = word.eq_ignore_ascii_case(b"namespace");
            return Found::Pass(end);
        }
        if text.get(end) != Some(&b'(') {
            return Found::Pass(end);
        }
        if word.eq_ignore_ascii_case(b"url") && !self.namespace {
            let found = url(text, end + 1, last);
            if !matches!(found, Found::Unclear) {
                self.import = false;
                self.set += usize::from(self.set > 0);
            }
            return found;
        }
        let set = word.eq_ignore_ascii_case(b"image-set")
            || word.eq_ignore_ascii_case(b"-webkit-image-set");
        if set && self.set == 0 {
            self.set = 1;
            return Found::Pass(end + 1);
        }
        Found::Pass(end)
    }
}

/// What stands after `url(`.
fn url(text: &[u8], at: usize, last: bool) -> Found {
    let skip = text[at..].iter().position(|byte| !byte.is_ascii_whitespace());
    let Some(skip) = skip.filter(|skip| *skip <= LONGEST) else {
        return if last || text.len() - at > LONGEST { Found::Pass(at) } else { Found::Unclear };
    };
    let from = at + skip;
    if let quote @ (b'"' | b'\'') = text[from] {
        return quoted_url(text, from + 1, quote, last);
    }
    match end_of_url(&text[from..]) {
        Some(length) if length <= LONGEST => {
            Found::Url { from, to: from + length, quote: 0, long: false }
        }
        None if last && text.len() - from <= LONGEST => {
            Found::Url { from, to: text.len(), quote: 0, long: false }
        }
        None if text.len() - from <= LONGEST => Found::Unclear,
        _ => Found::Url { from, to: from + head(&text[from..]), quote: 0, long: true },
    }
}

/// How much of a long URL is looked at: no half of an escape.
fn head(url: &[u8]) -> usize {
    let slashes = url[..LONGEST].iter().rev().take_while(|byte| **byte == b'\\').count();
    LONGEST - slashes % 2
}

/// What stands from `from`, right after a quote.
fn quoted_url(text: &[u8], from: usize, quote: u8, last: bool) -> Found {
    match end_of_quoted(&text[from..], quote) {
        Some(length) if length <= LONGEST => {
            Found::Url { from, to: from + length, quote, long: false }
        }
        None if text.len() - from <= LONGEST && !last => Found::Unclear,
        // It ends with the text, which then has no quote to skip either.
        None if text.len() - from <= LONGEST => {
            Found::Url { from, to: text.len(), quote, long: true }
        }
        _ => Found::Url { from, to: from + head(&text[from..]), quote, long: true },
    }
}

/// Puts out what replaces the URL's beginning; returns how much that is.
fn map(names: &Names, rooted: bool, url: &[u8], quote: u8, long: bool, out: &mut Vec<u8>) -> usize {
    if !url.contains(&b'\\') {
        let Some(edit) = names.edit(url, rooted) else { return 0 };
        out.extend_from_slice(edit.insert.as_bytes());
        return edit.strip;
    }
    if long {
        return 0;
    }
    let plain = unescape(url);
    let Some(edit) = names.edit(&plain, rooted) else { return 0 };
    out.extend_from_slice(edit.insert.as_bytes());
    for byte in &plain[edit.strip..] {
        let special = match quote {
            0 => matches!(byte, b'"' | b'\'' | b'(' | b')' | b'\\' | 0x7f | 0..=b' '),
            _ => *byte == quote || matches!(byte, b'\\' | b'\n' | b'\r' | 0x0c),
        };
        if special {
            out.extend_from_slice(format!("\\{byte:x} ").as_bytes());
        } else {
            out.push(*byte);
        }
    }
    url.len()
}

/// What the escapes of a text stand for.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest.iter().take(6).take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > 0 {
            let code = std::str::from_utf8(&rest[..digits]).ok();
            let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
            let char = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
            out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[digits..];
            rest = rest.strip_prefix(b"\r\n").unwrap_or_else(|| match rest {
                [space, after @ ..] if space.is_ascii_whitespace() => after,
                _ => rest,
            });
        } else if let [first, after @ ..] = rest {
            // An escaped line break is none.
            if !matches!(first, b'\n' | b'\r' | 0x0c) {
                out.push(*first);
            }
            rest = after;
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Everything up to the end of the text, except a last backslash whose other
/// half is still to come.
fn pass_but_escape(text: &[u8], at: usize, last: bool) -> Found {
    let slashes = text[at..].iter().rev().take_while(|byte| **byte == b'\\').count();
    match (last || slashes % 2 == 0, text.len() - 1) {
        (true, _) => Found::Pass(text.len()),
        (false, end) if end == at => Found::Unclear,
        (false, end) => Found::Pass(end),
    }
}

/// Where a text in quotes ends: at the quote, or at a line break.
fn end_of_quoted(text: &[u8], quote: u8) -> Option<usize> {
    end_where(text, |byte| byte == quote || byte == b'\n')
}

/// Where a URL without quotes ends. One white space belongs to an escape by
/// number.
fn end_of_url(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += end_of_bare(&text[at..])?;
        let digits = text[..at].iter().rev().take(6).take_while(|byte| byte.is_ascii_hexdigit());
        let digits = digits.count();
        let escaped = digits > 0 && text[..at - digits].ends_with(b"\\");
        if !escaped || text[at] == b')' {
            return Some(at);
        }
        at += 1;
    }
}

fn end_of_bare(text: &[u8]) -> Option<usize> {
    end_where(text, |byte| byte == b')' || byte.is_ascii_whitespace())
}

fn end_of_name(text: &[u8]) -> Option<usize> {
    end_where(text, |byte| !is_name(byte))
}

/// The first byte that `ends` and is not escaped.
fn end_where(text: &[u8], ends: impl Fn(u8) -> bool) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte if ends(byte) => return Some(at),
            _ => at += 1,
        }
    }
    None
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'\\' | b'#') || byte >= 0x80
}

#[cfg(test)]
#[path = "css_tests.rs"]
mod tests;
