//! What is done to the elements of a page, one after the other.

use std::sync::Arc;

use lol_html::{
    html_content::{ContentType, TextChunk},
    send::Element,
};

use super::{
    csp,
    css::Css,
    html::{Html, PageInfo, Part},
    importmap, markup,
    shim::Inline,
};

/// Longest import map that is merged; a longer one is left alone.
const LONGEST_MAP: usize = 256 * 1024;
/// An element with more attributes is nothing that anybody wrote, and each costs
/// some hundred times its text.
const MOST_ATTRIBUTES: usize = 256;
/// The attributes that are read, in no order.
const READ: [&str; 19] = [
    "href",
    "src",
    "srcset",
    "style",
    "content",
    "action",
    "integrity",
    "srcdoc",
    "data",
    "poster",
    "imagesrcset",
    "formaction",
    "ping",
    "xlink:href",
    "cite",
    "background",
    "manifest",
    "longdesc",
    "codebase",
];
/// What the handlers share.
pub struct Page {
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

/// What a `meta` says instead of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meta {
    Refresh,
    Policy,
    Other,
}

impl Meta {
    /// Looks through all attributes: once for an element.
    fn of(tag: &str, element: &Element<'_, '_>) -> Self {
        if tag != "meta" {
            return Self::Other;
        }
        let kind = element.get_attribute("http-equiv").unwrap_or_default();
        match kind.trim() {
            kind if kind.eq_ignore_ascii_case("refresh") => Self::Refresh,
            kind if kind.eq_ignore_ascii_case("content-security-policy") => Self::Policy,
            _ => Self::Other,
        }
    }
}

impl Page {
    pub fn new(info: PageInfo) -> Self {
        let site = &info.names.site;
        Self {
            rooted: true,
            based: false,
            whole: info.part != Part::Unknown,
            script: site.script.clone(),
            map: site.import_map.clone(),
            css: None,
            own_map: None,
            info,
        }
    }

    /// It says itself that it is no fragment.
    pub fn is_whole(&mut self) {
        self.whole = true;
    }

    pub fn element(&mut self, element: &mut Element<'_, '_>) {
        let tag = element.tag_name();
        self.insert(&tag, element);
        let meta = Meta::of(&tag, element);
        let mut changes: Vec<(&str, String)> = vec![];
        let mut integrity = false;
        let mut seen = [false; READ.len()];
        let attributes = element.attributes();
        let known = if attributes.len() <= MOST_ATTRIBUTES { attributes } else { &[] };
        for attribute in known {
            let name = attribute.name();
            let Some(at) = READ.iter().position(|read| *read == name) else { continue };
            // Browsers take the first of a name; and the first is what is set.
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            if name == "integrity" {
                integrity = true;
            } else if let Some(value) = self.attribute(&tag, &name, meta, || attribute.value()) {
                changes.push((READ[at], value));
            }
        }
        if tag == "base" {
            self.base(element);
        }
        if meta == Meta::Policy {
            let policy = element.get_attribute("content").unwrap_or_default();
            self.info.strictness = self.info.strictness.and(&policy);
        }
        if integrity && self.breaks_integrity(&tag, element) {
            element.remove_attribute("integrity");
        }
        for (name, value) in changes {
            // A name that was read is one that can be written.
            let _ = element.set_attribute(name, &value);
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
        meta: Meta,
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
            "content" if meta == Meta::Refresh => {
                markup::change_value(&value(), |text| markup::refresh(text, &map))
            }
            "content" if meta == Meta::Policy => {
                let hashes = names.site.hashes();
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
        let href = markup::resolve(&href);
        let here = href.and_then(|href| self.info.names.leads_here(&href, true));
        // Browsers do not take what is no URL, nor one without a host.
        self.rooted = here.unwrap_or(true);
    }

    /// Whether what an element loads is no longer what its hash says. Where that
    /// is not clear the hash stays: what others host it must guard.
    fn breaks_integrity(&self, tag: &str, element: &Element<'_, '_>) -> bool {
        let value =
            |name: &str| element.get_attribute(name).unwrap_or_default().to_ascii_lowercase();
        let (url, kind) = match tag {
            "script" => ("src", "script".to_owned()),
            "link" if value("rel").contains("modulepreload") => ("href", "script".to_owned()),
            "link" if value("rel").contains("stylesheet") => ("href", "style".to_owned()),
            "link" => ("href", value("as")),
            _ => return false,
        };
        let changed = match kind.as_str() {
            "script" => self.info.changes_scripts,
            "style" => self.info.changes_styles,
            _ => false,
        };
        let here = || {
            let url = element.get_attribute(url)?;
            self.info.names.leads_here(&markup::resolve(&url)?, self.rooted)
        };
        changed && here() == Some(true)
    }

    pub fn style(&mut self, chunk: &mut TextChunk<'_>) {
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

    pub fn import_map(&mut self, chunk: &mut TextChunk<'_>) {
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
