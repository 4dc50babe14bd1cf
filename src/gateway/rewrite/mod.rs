//! Answers of an upstream that knows nothing of its path prefix, made to work
//! under it.
//!
//! ```text
//! asked (request fields) -> upstream -> fields (every answer) -> answer (what to do)
//!        -> body: coding off -> editor { rules -> html | css } -> coding on
//! ```
//!
//! [`Site`] is made once per place of an upstream, [`Plan`] once per request:
//! [`Plan::for_request`] before the request is sent, [`Plan::apply`] on its
//! answer. A URL is mapped where it is written ([`names`]); what scripts put
//! together is mapped by a script of ours in the page (`shim.js`), and what
//! modules import by an import map ([`importmap`]).
//!
//! What is not touched, byte for byte: parts (206) and answers without a body;
//! what says `no-transform`, is an attachment, or of a type that nothing is
//! known about (event streams among them); unknown codings; charsets that are not
//! ASCII's (UTF-16); and a body whose `Content-Length` is above
//! `max_body_bytes`: what is that large is data rather than a page.
//!
//! A longer body whose length is not said beforehand is rewritten all the same
//! where that streams, which HTML and style sheets do. To pass it untouched one
//! would have to hold back the first 2 MiB of every page; to stop in the middle
//! would make a page of which half the links work; and the user wants the page.
//! It costs flat memory and time in proportion to what the upstream sends. Rules
//! need a body as a whole, so above the limit they are not applied. What decodes
//! to more than the limit *and* to more than `max_ratio` times its size is a bomb
//! and is broken off: at that point its head is on its way, so the client sees
//! broken framing, or no answer at all, never a body that merely looks short.

mod answer;
mod asked;
mod body;
mod budget;
mod coding;
mod cpu;
mod csp;
mod css;
mod editor;
mod etag;
mod fields;
mod html;
mod importmap;
mod json;
mod markup;
pub mod names;
mod page;
mod rules;
mod shim;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, header::ACCEPT, response};
use http_body::Body;
use sha2::{Digest, Sha256};

use self::shim::Inline;
pub use self::{
    body::{RewriteError, Rewritten},
    budget::Overloaded,
    coding::BadCoding,
    names::Names,
};
use crate::config::rewrite::{BodyKind, RewriteConfig};

const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// One place of an upstream: what does not change from request to request.
#[derive(Debug)]
pub struct Site {
    config: RewriteConfig,
    /// Without a slash at its end; empty at the root of a host.
    prefix: String,
    /// The path that it has to itself, also where the upstream knows its prefix
    /// and nothing is mapped; empty where it has a host, or all of one.
    place: String,
    /// Authorities that the upstream is known by to itself.
    upstreams: Vec<Vec<u8>>,
    /// What it is spoken to by.
    scheme: String,
    script: Option<Arc<Inline>>,
    import_map: Option<Arc<Inline>>,
    /// What precedes a worker's script.
    worker: String,
    /// Stands for all of the above in entity tags.
    mark: String,
    budget: &'static budget::Budget,
}

/// What one request means for its answer.
#[derive(Clone, Debug)]
pub struct Plan {
    names: Names,
    /// One bit for each rule whose paths match, whatever its types.
    rules: u64,
    head: bool,
    wanted: Wanted,
    /// The client has a copy with our mark.
    marked: bool,
}

/// What the browser says that it will do with the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Show it as a page.
    page: bool,
    style: bool,
    /// Run it as a worker.
    worker: bool,
}

impl Site {
    /// `upstreams` is what the upstream may call itself: `http://host:port` of
    /// each target, and what else it is told to be.
    pub fn new(config: RewriteConfig, prefix: &str, upstreams: &[&str]) -> Self {
        let authority = |url: &&str| {
            url.split_once("://")
                .map_or(*url, |(_, rest)| rest)
                .trim_end_matches('/')
                .as_bytes()
                .to_vec()
        };
        let upstreams_known: Vec<_> = upstreams.iter().map(authority).collect();
        let with_script = config.enabled && config.script && !prefix.is_empty();
        let script = with_script.then(|| Arc::new(Inline::script(prefix, &upstreams_known)));
        let import_map = with_script.then(|| Arc::new(Inline::import_map(prefix)));
        let worker = if with_script {
            format!("{}\n", shim::text(prefix, &upstreams_known))
        } else {
            String::new()
        };
        let all =
            format!("{}\n{config:?}\n{prefix}\n{upstreams:?}\n{worker}", env!("CARGO_PKG_VERSION"));
        let mark = hex::encode(&Sha256::digest(all.as_bytes())[..4]);
        let scheme = upstreams.first().and_then(|url| Some(url.split_once("://")?.0));
        Self {
            config,
            prefix: prefix.to_owned(),
            place: prefix.to_owned(),
            upstreams: upstreams_known,
            scheme: scheme.unwrap_or("http").to_owned(),
            script,
            import_map,
            worker,
            mark,
            budget: &budget::ALL,
        }
    }

    /// The path of an upstream that knows its own prefix.
    #[must_use]
    pub fn placed_at(self, path: &str) -> Self {
        Self { place: path.to_owned(), ..self }
    }

    /// What a policy must let in.
    fn hashes(&self) -> Vec<String> {
        let inline = [self.script.as_ref(), self.import_map.as_ref()];
        inline.into_iter().flatten().map(|inline| inline.hash.clone()).collect()
    }
}

impl Plan {
    /// Maps the request's fields and remembers what its answer needs. `path` is
    /// the one below the mount. To be called with the fields that go upstream.
    pub fn for_request(names: Names, method: &Method, path: &str, headers: &mut HeaderMap) -> Self {
        asked::map_fields(&names, headers);
        let mut wanted = Wanted::default();
        let mut marked = false;
        if names.site.config.enabled {
            wanted = Wanted::of(headers);
            asked::limit_codings(headers);
            let fresh = wanted.page || wanted.style || wanted.worker;
            marked = asked::unmark_tags(&names.site.mark, fresh, headers);
        }
        let matching = names.site.config.rules.iter().enumerate();
        let rules = matching
            .filter(|(_, rule)| rules::is_for_path(rule, path))
            .fold(0, |bits, (number, _)| bits | 1 << number);
        Self { names, rules, head: method == Method::HEAD, wanted, marked }
    }

    /// Maps the answer's fields, and rewrites its body if it is to be. An error:
    /// no more can be rewritten for now, and no answer must be sent.
    pub fn apply<B: Body>(
        self,
        parts: &mut response::Parts,
        body: B,
    ) -> Result<Rewritten<B>, Overloaded> {
        fields::map_fields(&self.names, &mut parts.headers);
        let Some(job) = answer::decide(&self, parts, &body) else {
            answer::confirm(&self, parts);
            return Ok(Rewritten::Untouched(body));
        };
        let strictness = answer::adjust(&self, &job, &mut parts.headers);
        if self.head || body.is_end_stream() {
            return Ok(Rewritten::Untouched(body));
        }
        let coding = job.coding;
        let share = self.names.site.budget.share(body::least(coding))?;
        let editor = self.editor(job, strictness);
        let config = &self.names.site.config;
        let caps = body::Caps::new(config.max_body_bytes, config.max_ratio);
        let edited = body::Edited::new(body, coding, editor, caps, share);
        Ok(edited.map_or_else(Rewritten::Untouched, |edited| Rewritten::Edited(Box::new(edited))))
    }

    fn editor(&self, job: answer::Job, strictness: csp::Strictness) -> editor::Editor {
        use editor::{Editor, Kind};

        let names = self.names.clone();
        match job.kind {
            BodyKind::Html => {
                let info = html::PageInfo {
                    names,
                    part: if self.wanted.page { html::Part::Page } else { html::Part::Unknown },
                    strictness,
                    changes_scripts: self.has_rules(BodyKind::Javascript),
                    changes_styles: true,
                };
                Editor::html(info, job.rules)
            }
            BodyKind::Css => Editor::new(names, Kind::Css(css::Css::default()), job.rules),
            BodyKind::Javascript if job.worker => Editor::new(names, Kind::Worker, job.rules),
            _ => Editor::new(names, Kind::Plain, job.rules),
        }
    }

    /// Whether there is any rule for this kind, on whatever path.
    fn has_rules(&self, kind: BodyKind) -> bool {
        self.names.site.config.rules.iter().any(|rule| rule.types.contains(&kind))
    }
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Self {
        let Some(wanted) = headers.get(SEC_FETCH_DEST) else {
            // No browser, an old one, or one that does not trust plain HTTP.
            let accept = headers.get(ACCEPT).map_or(&b""[..], |accept| accept.as_bytes());
            return Self { page: accept.starts_with(b"text/html,"), ..Self::default() };
        };
        match wanted.as_bytes() {
            b"document" | b"iframe" | b"frame" | b"object" | b"embed" => {
                Self { page: true, ..Self::default() }
            }
            b"style" => Self { style: true, ..Self::default() },
            b"worker" | b"sharedworker" | b"serviceworker" => {
                Self { worker: true, ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
