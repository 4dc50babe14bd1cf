//! HTML, rewritten as it streams through.
//!
//! The parser is `lol_html`. It is told that every page is in windows-1252, which
//! gives each byte a character of its own and back: nothing that we do not
//! change is ever altered, whatever the charset is, what the page says it is, or
//! how badly it is encoded. All that is put in is ASCII.
//!
//! Our script stands before the first element that could ask for something,
//! which is after the `meta` at the top of `head`: where `<meta charset>` is
//! pushed out of the first 1024 bytes, browsers may no longer find it. Fragments
//! that a script asked for do not get it.

use std::sync::{Arc, Mutex, PoisonError};

use encoding_rs::WINDOWS_1252;
use lol_html::{
    AsciiCompatibleEncoding, MemorySettings, OutputSink, doctype, element,
    html_content::{ContentType, TextChunk},
    send::{Element, HtmlRewriter, Settings},
    text,
};

use super::{csp, csp::Strictness, css::Css, importmap, markup, names::Names, shim::Inline};
use crate::config::rewrite::RewriteConfig;

/// Longest import map that is merged; a longer one is left alone.
const LONGEST_MAP: usize = 256 * 1024;

/// What is known about a page beside its text.
#[derive(Clone, Debug)]
pub struct PageInfo {
    pub names: Names,
    pub part: Part,
    pub strictness: Strictness,
    /// Scripts and style sheets of the upstream are not what their hash says.
    pub changes_scripts: bool,
    pub changes_styles: bool,
}

/// What part of a page a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Possibly a fragment, for a script to put somewhere.
    Unknown,
    /// All of it: a browser is to show it, so it gets our script however short it
    /// is.
    Page,
    /// The same, in an attribute of another page.
    Within,
}

/// Rewrites one page.
pub struct Html {
    /// `None` once it gave up: the rest passes.
    rewriter: Option<Box<HtmlRewriter<'static, Output>>>,
    out: Arc<Mutex<Vec<u8>>>,
}

struct Output(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        lock(&self.0).extend_from_slice(chunk);
    }
}

/// What the handlers share.
struct Page {
    info: PageInfo,
    /// Paths alone point at the upstream, unless `<base>` says otherwise.
    rooted: bool,
    based: bool,
    /// It is a whole page, not a fragment.
    whole: bool,
    script: Option<Arc<Inline>>,
    map: Option<Arc<Inline>>,
    css: Option<Css>,
    /// The page's own import map, while it is read.
    own_map: Option<String>,
}

impl Html {
    pub fn new(info: PageInfo, config: &RewriteConfig) -> Self {
        let site = &info.names.site;
        let (script, map) = (site.script.clone(), site.import_map.clone());
        let page = Page {
            rooted: true,
            based: false,
            whole: info.part != Part::Unknown,
            script,
            map,
            css: None,
            own_map: None,
            info,
        };
        let page = Arc::new(Mutex::new(page));
        let out = Arc::new(Mutex::new(vec![]));
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(config.memory)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let encoding = AsciiCompatibleEncoding::new(WINDOWS_1252)
            .unwrap_or_else(AsciiCompatibleEncoding::utf_8);
        let (doctypes, elements, styles, maps) =
            (Arc::clone(&page), Arc::clone(&page), Arc::clone(&page), page);
        let settings = Settings::new_send()
            .with_encoding(encoding)
            .with_memory_settings(memory)
            .with_strict(false)
            .append_document_content_handler(doctype!(move |_| {
                lock(&doctypes).whole = true;
                Ok(())
            }))
            .append_element_content_handler(element!("*", move |element| {
                lock(&elements).element(element);
                Ok(())
            }))
            .append_element_content_handler(text!("style", move |chunk| {
                lock(&styles).style(chunk);
                Ok(())
            }))
            .append_element_content_handler(text!("script[type=importmap i]", move |chunk| {
                lock(&maps).import_map(chunk);
                Ok(())
            }));
        let rewriter = HtmlRewriter::new(settings, Output(Arc::clone(&out)));
        Self { rewriter: Some(Box::new(rewriter)), out }
    }

    /// A page that is there as a whole. `None`: it is no text any more.
    fn whole(info: PageInfo, text: &str) -> Option<String> {
        let site = Arc::clone(&info.names.site);
        let (mut html, mut out) = (Self::new(info, &site.config), vec![]);
        html.push(text.as_bytes(), &mut out);
        html.end(&mut out);
        String::from_utf8(out).ok()
    }

    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match &mut self.rewriter {
            // It gives up when it needs too much memory; what it held is out.
            Some(rewriter) => {
                if rewriter.write(text).is_err() {
                    tracing::warn!("a page is not rewritten to its end: it needs too much memory");
                    self.rewriter = None;
                }
                out.append(&mut lock(&self.out));
            }
            None => out.extend_from_slice(text),
        }
    }

    pub fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(rewriter) = self.rewriter.take()
            && rewriter.end().is_err()
        {
            tracing::warn!("a page is not rewritten to its end: it needs too much memory");
        }
        out.append(&mut lock(&self.out));
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_policy(element: &Element<'_, '_>) -> bool {
    let kind = element.get_attribute("http-equiv").unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("content-security-policy")
}

impl Page {
    fn element(&mut self, element: &mut Element<'_, '_>) {
        let tag = element.tag_name();
        self.insert(&tag, element);
        let mut changes: Vec<(String, String)> = vec![];
        let mut integrity = false;
        for attribute in element.attributes() {
            let name = attribute.name();
            if name == "integrity" {
                integrity = true;
            } else if let Some(value) = self.attribute(&tag, &name, element, || attribute.value()) {
                changes.push((name, value));
            }
        }
        match tag.as_str() {
            "base" => self.base(element),
            "meta" if is_policy(element) => {
                let policy = element.get_attribute("content").unwrap_or_default();
                self.info.strictness = self.info.strictness.and(&policy);
            }
            _ => {}
        }
        if integrity && self.breaks_integrity(&tag, element) {
            element.remove_attribute("integrity");
        }
        for (name, value) in changes {
            // A name that was read is one that can be written.
            let _ = element.set_attribute(&name, &value);
        }
    }

    /// Puts our script and import map where they belong.
    fn insert(&mut self, tag: &str, element: &mut Element<'_, '_>) {
        match tag {
            "html" | "head" | "body" => self.whole = true,
            "meta" | "title" => return,
            _ => {}
        }
        if !self.whole || matches!(tag, "html" | "head") {
            return;
        }
        if let Some(script) = self.script.take() {
            element.before(&script.element, ContentType::Html);
        }
        if self.map.is_none() {
            return;
        }
        let value =
            |name: &str| element.get_attribute(name).unwrap_or_default().to_ascii_lowercase();
        let needed = match tag {
            "script" => match value("type").trim() {
                "importmap" => {
                    // One that the policy knows by its hash must stay as it is.
                    if !self.info.strictness.scripts || element.has_attribute("nonce") {
                        self.map = None;
                        self.own_map = Some(String::new());
                        return;
                    }
                    true
                }
                kind => kind == "module",
            },
            "link" => value("rel").contains("modulepreload"),
            "base" | "style" | "noscript" | "template" => false,
            _ => true,
        };
        if needed && let Some(map) = self.map.take() {
            element.before(&map.element, ContentType::Html);
        }
    }

    fn attribute(
        &self,
        tag: &str,
        name: &str,
        element: &Element<'_, '_>,
        value: impl FnOnce() -> String,
    ) -> Option<String> {
        let (names, rooted) = (&self.info.names, self.rooted);
        let map = |url: &str| names.map(url, rooted);
        match name {
            "href" | "src" | "action" | "formaction" | "poster" | "cite" | "background"
            | "manifest" | "xlink:href" | "longdesc" | "codebase" => {
                markup::url_value(names, rooted, &value())
            }
            "data" if tag == "object" => markup::url_value(names, rooted, &value()),
            "srcset" | "imagesrcset" => {
                markup::change_value(&value(), |text| markup::srcset(text, &map))
            }
            "ping" => markup::change_value(&value(), |text| {
                let mapped = |url| names.map(url, rooted).unwrap_or_else(|| str::to_owned(url));
                let urls: Vec<_> = text.split_ascii_whitespace().map(mapped).collect();
                Some(urls.join(" ")).filter(|changed| changed != text)
            }),
            // A page of its own; but pages in pages in pages nobody writes.
            "srcdoc" if self.info.part != Part::Within => {
                let info = PageInfo { part: Part::Within, ..self.info.clone() };
                markup::page_value(&value(), |text| Html::whole(info, text))
            }
            "style" if !self.info.strictness.styles => {
                markup::change_value(&value(), |text| Css::whole(names, rooted, text))
            }
            "content" if tag == "meta" => {
                let kind = element.get_attribute("http-equiv")?;
                if kind.trim().eq_ignore_ascii_case("refresh") {
                    return markup::change_value(&value(), |text| markup::refresh(text, &map));
                }
                let hashes = is_policy(element).then(|| names.site.hashes())?;
                markup::change_value(&value(), |text| {
                    Some(csp::amend(names, text, &hashes)).filter(|new| new != text)
                })
            }
            _ => None,
        }
    }

    /// The first `<base href>` decides what paths alone are relative to.
    fn base(&mut self, element: &Element<'_, '_>) {
        let Some(href) = element.get_attribute("href") else { return };
        if std::mem::replace(&mut self.based, true) {
            return;
        }
        let href = href.trim().to_ascii_lowercase();
        let absolute = href.starts_with("//") || href.contains("://");
        let ours = || {
            let names = &self.info.names;
            let origin = |host: &str| {
                href.split_once("//").is_some_and(|(_, rest)| {
                    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                    super::names::is_same(authority.as_bytes(), host.as_bytes())
                })
            };
            let host = names.host.as_ref().and_then(|host| host.to_str().ok());
            names.map(&href, true).is_some() || host.is_some_and(origin)
        };
        self.rooted = !absolute || ours();
    }

    /// Whether what an element loads is no longer what its hash says.
    fn breaks_integrity(&self, tag: &str, element: &Element<'_, '_>) -> bool {
        let value =
            |name: &str| element.get_attribute(name).unwrap_or_default().to_ascii_lowercase();
        let (url, kind) = match tag {
            "script" => (value("src"), "script".to_owned()),
            "link" if value("rel").contains("modulepreload") => {
                (value("href"), "script".to_owned())
            }
            "link" if value("rel").contains("stylesheet") => (value("href"), "style".to_owned()),
            "link" => (value("href"), value("as")),
            _ => return false,
        };
        let changed = match kind.as_str() {
            "script" => self.info.changes_scripts,
            "style" => self.info.changes_styles,
            _ => false,
        };
        let url = url.trim();
        let foreign = url.starts_with("//") || url.contains("://");
        changed && (!foreign || self.info.names.map(url, self.rooted).is_some())
    }

    fn style(&mut self, chunk: &mut TextChunk<'_>) {
        if self.info.strictness.styles {
            return;
        }
        let mut css = self.css.take().unwrap_or_default();
        let mut out = Vec::with_capacity(chunk.as_str().len() + 64);
        css.push(&self.info.names, self.rooted, chunk.as_str().as_bytes(), &mut out);
        if chunk.last_in_text_node() {
            css.end(&self.info.names, self.rooted, &mut out);
        } else {
            self.css = Some(css);
        }
        if out != chunk.as_str().as_bytes() {
            // Never cut within a character: the scanner stops at ASCII only.
            chunk.set_str(String::from_utf8_lossy(&out).into_owned());
        }
    }

    fn import_map(&mut self, chunk: &mut TextChunk<'_>) {
        let Some(mut text) = self.own_map.take() else { return };
        text.push_str(chunk.as_str());
        if text.len() > LONGEST_MAP {
            chunk.set_str(text);
        } else if chunk.last_in_text_node() {
            let integrity = !self.info.changes_scripts;
            let merged = importmap::merged(&self.info.names, &text, integrity);
            chunk.set_str(merged.unwrap_or(text));
        } else {
            chunk.set_str(String::new());
            self.own_map = Some(text);
        }
    }
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
