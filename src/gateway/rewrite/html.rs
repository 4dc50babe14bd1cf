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

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use encoding_rs::WINDOWS_1252;
use lol_html::{
    AsciiCompatibleEncoding, MemorySettings, OutputSink, doctype, element,
    send::{HtmlRewriter, Settings},
    text,
};

use super::{cpu::used_by_thread, csp::Strictness, names::Names, page::Page};
use crate::config::rewrite::RewriteConfig;

/// What the parser may need at least for a byte that ends an attribute.
const OUTLINE: usize = 64;
/// The processor time of a page, and what each byte of it adds; its worker serves nobody
/// else meanwhile. Many times what is needed.
const TIME: Duration = Duration::from_secs(1);
const TIME_OF_BYTE: Duration = Duration::from_micros(1);

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
    memory: usize,
    /// What the text that is not out yet may need.
    held: usize,
    spent: Duration,
    allowed: Duration,
}

struct Output(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        lock(&self.0).extend_from_slice(chunk);
    }
}

impl Html {
    pub fn new(info: PageInfo, config: &RewriteConfig) -> Self {
        let page = Arc::new(Mutex::new(Page::new(info)));
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
                lock(&doctypes).is_whole();
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
        Self {
            rewriter: Some(Box::new(rewriter)),
            out,
            memory: config.memory,
            held: 0,
            spent: Duration::ZERO,
            allowed: TIME,
        }
    }

    /// A page that is there as a whole. `None`: it is no text any more.
    pub fn whole(info: PageInfo, text: &str) -> Option<String> {
        let site = Arc::clone(&info.names.site);
        let (mut html, mut out) = (Self::new(info, &site.config), vec![]);
        html.push(text.as_bytes(), &mut out);
        html.end(&mut out);
        String::from_utf8(out).ok()
    }

    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let Some(rewriter) = &mut self.rewriter else { return out.extend_from_slice(text) };
        let before = used_by_thread();
        // It gives up when it needs too much memory; what it held is out.
        if rewriter.write(text).is_err() {
            tracing::warn!("a page is not rewritten to its end: it needs too much memory");
            self.rewriter = None;
        }
        self.spent += used_by_thread().saturating_sub(before);
        self.allowed += TIME_OF_BYTE.saturating_mul(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.keep_count(text);
        if self.spent > self.allowed && self.rewriter.is_some() {
            tracing::warn!("a page is not rewritten to its end: it takes too long");
            return self.end(out);
        }
        out.append(&mut lock(&self.out));
    }

    /// Guards from above what the parser holds of the text that it was given:
    /// nothing that was there before, once anything came out.
    fn keep_count(&mut self, text: &[u8]) {
        if self.rewriter.is_none() || !lock(&self.out).is_empty() {
            self.held = 0;
        }
        if self.rewriter.is_some() {
            let parts = |byte: &&u8| matches!(byte, b' '..=b'/' | b'\t'..=b'\r');
            let parts = text.iter().filter(parts).count();
            self.held = (self.held + text.len() + OUTLINE * parts).min(self.memory);
        }
    }

    /// Bytes of memory that an unfinished element may need.
    pub fn held(&self) -> usize {
        self.held
    }

    pub fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(rewriter) = self.rewriter.take()
            && rewriter.end().is_err()
        {
            tracing::warn!("a page is not rewritten to its end: it needs too much memory");
        }
        self.held = 0;
        out.append(&mut lock(&self.out));
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
