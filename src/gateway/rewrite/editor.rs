//! What happens to the decoded text of one body, whatever its kind.
//!
//! HTML and style sheets stream. A body that a rule applies to is collected
//! first; one that grows beyond the limit is let go as it is, without the rules,
//! since holding on would cost memory without bound.

use super::{
    css::Css,
    html::{Html, PageInfo},
    names::Names,
    rules,
};

/// How a kind of body is rewritten beside the rules.
pub enum Kind {
    Html(Box<Html>),
    Css(Css),
    /// A worker's script gets ours before it.
    Worker,
    /// By rules only.
    Plain,
}

pub struct Editor {
    names: Names,
    kind: Kind,
    /// The rules that apply; none once they are done with.
    rules: Vec<u8>,
    /// The body so far, where there are rules.
    collected: Vec<u8>,
    limit: usize,
    start: Start,
}

/// What the first two bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Unseen(Option<u8>),
    Usual,
    /// A byte order mark of UTF-16: nothing in it is ASCII.
    Wide,
}

impl Editor {
    pub fn new(names: Names, kind: Kind, rules: Vec<u8>) -> Self {
        let limit = usize::try_from(names.site.config.max_body_bytes).unwrap_or(usize::MAX);
        Self { names, kind, rules, collected: vec![], limit, start: Start::Unseen(None) }
    }

    pub fn html(info: PageInfo, rules: Vec<u8>) -> Self {
        let html = Html::new(info.clone(), &info.names.site.config);
        Self::new(info.names, Kind::Html(Box::new(html)), rules)
    }

    pub fn push(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match (self.start, text) {
            (_, []) => {}
            (Start::Wide, _) => out.extend_from_slice(text),
            (Start::Usual, _) => self.push_usual(text, out),
            (Start::Unseen(None), [first @ (0xfe | 0xff)]) => {
                self.start = Start::Unseen(Some(*first));
            }
            (Start::Unseen(held), _) => {
                let mut whole: Vec<u8> = held.into_iter().collect();
                whole.extend_from_slice(text);
                let wide = whole.starts_with(&[0xfe, 0xff]) || whole.starts_with(&[0xff, 0xfe]);
                self.start = if wide { Start::Wide } else { Start::Usual };
                if !wide {
                    self.begin(out);
                }
                self.push(&whole, out);
            }
        }
    }

    /// Bytes that are held until more comes.
    pub fn held(&self) -> usize {
        let page = if let Kind::Html(html) = &self.kind { html.held() } else { 0 };
        self.collected.len() + page
    }

    fn begin(&self, out: &mut Vec<u8>) {
        if matches!(self.kind, Kind::Worker) {
            out.extend_from_slice(self.names.site.worker.as_bytes());
        }
    }

    fn push_usual(&mut self, text: &[u8], out: &mut Vec<u8>) {
        if self.rules.is_empty() {
            self.stream(text, out);
        } else if self.collected.len() + text.len() > self.limit {
            tracing::warn!("rules are not applied to a body that is longer than max_body_bytes");
            self.rules.clear();
            let collected = std::mem::take(&mut self.collected);
            self.stream(&collected, out);
            self.stream(text, out);
        } else {
            self.collected.extend_from_slice(text);
        }
    }

    fn stream(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match &mut self.kind {
            Kind::Html(html) => html.push(text, out),
            Kind::Css(css) => css.push(&self.names, true, text, out),
            Kind::Worker | Kind::Plain => out.extend_from_slice(text),
        }
    }

    /// Nothing more comes.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if let Start::Unseen(Some(first)) = self.start {
            self.start = Start::Usual;
            self.begin(out);
            self.push_usual(&[first], out);
        }
        if !self.rules.is_empty() {
            let numbers = std::mem::take(&mut self.rules);
            let collected = std::mem::take(&mut self.collected);
            let changed = rules::apply(&self.names, &numbers, collected);
            self.stream(&changed, out);
        }
        match &mut self.kind {
            Kind::Html(html) => html.end(out),
            Kind::Css(css) => css.end(&self.names, true, out),
            Kind::Worker | Kind::Plain => {}
        }
    }
}
