//! Who a visitor is: a session that a cookie opens.
//!
//! The cookie holds 256 random bits and a signature over them, so that what
//! somebody made up costs no look-up. The database has only their hash. Whoever
//! runs the workflow knows the secret that signs, and gains nothing by it: the
//! random bits are still to be guessed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use metrics::counter;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::ChatError;
use crate::{
    cache::{Cache, CacheHub, Cached},
    config::VisitorConfig,
    domain::{
        address::network_of,
        chat::{Binding, ChatSession, Fingerprint, Lifetimes, PREVIOUS_FOR},
        clock::SharedClock,
        id::{ChatSessionId, UserId},
        token::{PlainToken, TokenHash},
    },
    repositories::{Database, Repositories as _, StoreError},
};

/// By which name a browser keeps a cookie. All pages of a site share what it keeps
/// for us, while a session is of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jar {
    /// That of the first page.
    Common,
    /// One of the origin's own, where the common one holds a session of another.
    Own,
}

/// A cookie that may open a session.
#[derive(Clone, Debug)]
pub struct Cookie {
    pub jar: Jar,
    pub value: String,
}

/// What a request shows of its sender.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Of names that are ours. Of several, as a browser has them for different paths
    /// or sites, one may count.
    pub cookies: &'a [Cookie],
    /// Of the page; `None` where the browser says none.
    pub origin: Option<&'a str>,
    pub user_agent: &'a [u8],
    pub language: &'a [u8],
    pub address: IpAddr,
}

/// A cookie to be set.
#[derive(Debug)]
pub struct Issued {
    pub jar: Jar,
    pub value: SecretString,
    pub life: TimeDelta,
}

/// A session as a request finds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visit {
    version: i64,
    pub id: ChatSessionId,
    /// What the copy is kept by.
    hash: String,
    pub origin: String,
    pub origin_domain: String,
    browser: [u8; 16],
    network: [u8; 16],
    pub user_id: Option<UserId>,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
    ended: bool,
    /// The cookie was renewed, and this is the one before.
    until: Option<DateTime<Utc>>,
}

impl Cached for Visit {
    type Key = TokenHash;
    const NAMESPACE: &'static str = "chat:1";
    // As of other credentials: changes are heard of.
    const FRESH: Duration = Duration::from_secs(10);
    const SHARED: Duration = Duration::from_secs(10);
    const NEGATIVE: Duration = Duration::from_secs(1);

    fn version(&self) -> i64 {
        self.version
    }
}

impl Visit {
    fn of(session: &ChatSession, hash: &TokenHash) -> Self {
        let before = session.previous.as_ref().filter(|(old, _)| old == hash);
        Self {
            version: session.version,
            id: session.id,
            hash: hash.to_string(),
            origin: session.origin.clone(),
            origin_domain: session.origin_domain.clone(),
            browser: session.print.browser,
            network: session.print.network,
            user_id: session.user_id,
            created_at: session.created_at,
            expires_at: session.expires_at,
            ended: session.ended_at.is_some(),
            until: before.map(|(_, until)| *until),
        }
    }

    fn is_live(&self, now: DateTime<Utc>) -> bool {
        !self.ended && now < self.expires_at
    }
}

/// Cookies of one name that are looked at.
const COOKIES: usize = 8;
/// What became of sessions.
pub(super) const SESSIONS: &str = "tollgate_chat_sessions_total";

pub struct Visitors {
    db: Database,
    clock: SharedClock,
    cache: Cache<Visit>,
    key: hmac::Key,
    lifetimes: Lifetimes,
    binding: Binding,
    allowed_origins: Vec<String>,
}

pub(super) struct Parts<'a> {
    pub db: Database,
    pub clock: SharedClock,
    pub hub: &'a CacheHub,
    pub secret: &'a SecretString,
    pub config: &'a VisitorConfig,
    pub allowed_origins: &'a [String],
}

impl Visitors {
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let Parts { db, clock, hub, secret, config, allowed_origins } = parts;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let key = hmac::sign(&secret, b"tollgate chat cookies 1");
        Self {
            db,
            clock,
            cache: hub.cache(),
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
            lifetimes: config.lifetimes,
            binding: config.binding,
            allowed_origins: allowed_origins.to_vec(),
        }
    }

    /// Begins a session for a page.
    pub async fn create(
        &self,
        seen: Seen<'_>,
        page_url: Option<String>,
        user_id: Option<UserId>,
    ) -> Result<(Visit, Issued), ChatError> {
        let origin = self.origin(seen)?;
        let jar = self.free_jar(seen).await?;
        let now = self.clock.now();
        let token = PlainToken::chat(&mut rand::rng());
        let session = ChatSession {
            id: ChatSessionId::new(now),
            hash: token.hash(),
            previous: None,
            origin: origin.to_owned(),
            origin_domain: domain_of(origin).to_owned(),
            page_url,
            print: self.print(seen),
            user_id,
            created_at: now,
            expires_at: self.lifetimes.end(now, now),
            ended_at: None,
            messages: 0,
            version: 1,
        };
        let mut tx = self.db.begin().await?;
        tx.chat().insert_session(&session).await?;
        tx.commit().await?;
        counter!(SESSIONS, "event" => "created").increment(1);
        let issued = Issued { jar, value: self.cookie(&token), life: session.expires_at - now };
        Ok((Visit::of(&session, &session.hash), issued))
    }

    /// Where a cookie can be kept that ends no other page's session.
    async fn free_jar(&self, seen: Seen<'_>) -> Result<Jar, ChatError> {
        for cookie in seen.cookies.iter().take(COOKIES) {
            let is_others = match self.open_with(seen, &cookie.value).await {
                Err(error @ ChatError::Store(_)) => return Err(error),
                opened => matches!(opened, Err(ChatError::OtherOrigin)),
            };
            if cookie.jar == Jar::Own || is_others {
                return Ok(Jar::Own);
            }
        }
        Ok(Jar::Common)
    }

    /// Where there is nothing that opens a session, of whichever page.
    pub async fn stale_jars(&self, seen: Seen<'_>) -> Vec<Jar> {
        let mut stale = vec![Jar::Common, Jar::Own];
        stale.retain(|jar| seen.cookies.iter().any(|cookie| cookie.jar == *jar));
        for cookie in seen.cookies.iter().take(COOKIES) {
            match self.open_with(seen, &cookie.value).await {
                Err(ChatError::InvalidSession) => {}
                _ => stale.retain(|jar| *jar != cookie.jar),
            }
        }
        stale
    }

    /// The origin of a page that may begin a session.
    pub fn origin<'s>(&self, seen: Seen<'s>) -> Result<&'s str, ChatError> {
        let origin = seen.origin.filter(|origin| self.allows(origin));
        origin.ok_or(ChatError::OriginNotAllowed)
    }

    /// The session that a request belongs to, and where its cookie is kept.
    pub async fn open(&self, seen: Seen<'_>) -> Result<(Arc<Visit>, Jar), ChatError> {
        if !seen.cookies.is_empty() && seen.origin.is_some_and(|origin| !self.allows(origin)) {
            return Err(ChatError::OriginNotAllowed);
        }
        let mut refused = ChatError::NoSession;
        for cookie in seen.cookies.iter().take(COOKIES) {
            match self.open_with(seen, &cookie.value).await {
                Ok(visit) => return Ok((visit, cookie.jar)),
                Err(error @ ChatError::Store(_)) => return Err(error),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    async fn open_with(&self, seen: Seen<'_>, cookie: &str) -> Result<Arc<Visit>, ChatError> {
        let hash = self.hash_of(cookie).ok_or(ChatError::InvalidSession)?;
        let visit = self.find(&hash).await?.ok_or(ChatError::InvalidSession)?;
        let now = self.clock.now();
        if !visit.is_live(now) || visit.until.is_some_and(|until| until <= now) {
            return Err(ChatError::InvalidSession);
        }
        if seen.origin.is_some_and(|origin| origin != visit.origin) {
            return Err(ChatError::OtherOrigin);
        }
        let made = Fingerprint { browser: visit.browser, network: visit.network };
        if !self.binding.holds(&made, &self.print(seen)) {
            return Err(ChatError::InvalidSession);
        }
        Ok(visit)
    }

    /// The same, with a new cookie where the session is past half its life.
    pub async fn validate(
        &self,
        seen: Seen<'_>,
    ) -> Result<(Arc<Visit>, Option<Issued>), ChatError> {
        let (visit, jar) = self.open(seen).await?;
        let now = self.clock.now();
        // What a browser sent before it had the new one renews nothing.
        if visit.until.is_some() || visit.expires_at - now > self.lifetimes.idle / 2 {
            return Ok((visit, None));
        }
        let mut tx = self.db.begin().await?;
        let before = tx.chat().session(visit.id).await?.ok_or(ChatError::InvalidSession)?;
        if !self.lifetimes.is_due(&before, now) {
            return Ok((visit, None));
        }
        let token = PlainToken::chat(&mut rand::rng());
        let after = ChatSession {
            hash: token.hash(),
            previous: Some((before.hash, now + PREVIOUS_FOR)),
            expires_at: self.lifetimes.end(before.created_at, now),
            version: before.version + 1,
            ..before.clone()
        };
        if !tx.chat().renew_session(&before, &after).await? {
            return Ok((visit, None));
        }
        tx.commit().await?;
        counter!(SESSIONS, "event" => "renewed").increment(1);
        self.cache.invalidate(&before.hash, after.version).await;
        let issued = Issued { jar, value: self.cookie(&token), life: after.expires_at - now };
        Ok((Arc::new(Visit::of(&after, &after.hash)), Some(issued)))
    }

    /// Ends a session everywhere; whether there was one to end.
    pub async fn end(&self, id: ChatSessionId) -> Result<bool, StoreError> {
        let mut tx = self.db.begin().await?;
        let Some(session) = tx.chat().session(id).await? else { return Ok(false) };
        let version = tx.chat().end_session(id, self.clock.now()).await?;
        tx.commit().await?;
        let Some(version) = version else { return Ok(false) };
        counter!(SESSIONS, "event" => "ended").increment(1);
        self.forget(&session, version).await;
        Ok(true)
    }

    /// The session has changed, or is gone.
    pub(super) async fn forget(&self, session: &ChatSession, version: i64) {
        let hashes = [Some(session.hash), session.previous.map(|(hash, _)| hash)];
        for hash in hashes.into_iter().flatten() {
            self.cache.invalidate(&hash, version).await;
        }
    }

    /// Whether a session goes on, for what is open for long.
    pub async fn goes_on(&self, visit: &Visit) -> bool {
        let Ok(hash) = visit.hash.parse() else { return false };
        match self.find(&hash).await {
            Ok(found) => found.is_some_and(|now| now.is_live(self.clock.now())),
            // What was true is true until something else is known.
            Err(_) => visit.is_live(self.clock.now()),
        }
    }

    async fn find(&self, hash: &TokenHash) -> Result<Option<Arc<Visit>>, StoreError> {
        let load = async || {
            let session = self.db.session().await?.chat().session_of(hash).await?;
            Ok::<_, StoreError>(session.map(|session| Visit::of(&session, hash)))
        };
        self.cache.get_or_load(hash, load).await
    }

    /// Whether pages of this origin may have sessions.
    pub fn allows(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|allowed| allowed == origin)
    }

    fn cookie(&self, token: &PlainToken) -> SecretString {
        let mac = hmac::sign(&self.key, token.expose().as_bytes());
        format!("{}.{}", token.expose(), URL_SAFE_NO_PAD.encode(mac)).into()
    }

    fn hash_of(&self, cookie: &str) -> Option<TokenHash> {
        let (token, mac) = cookie.split_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.key, token.as_bytes(), &mac).ok()?;
        TokenHash::of_chat(token)
    }

    fn print(&self, seen: Seen<'_>) -> Fingerprint {
        let digest = |parts: &[&[u8]]| {
            let mut context = hmac::Context::with_key(&self.key);
            for part in parts {
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            let tag = context.sign();
            tag.as_ref()[..16].try_into().expect("16 of 32 bytes")
        };
        let network = network_of(seen.address).to_string();
        Fingerprint {
            browser: digest(&[b"browser", seen.user_agent, seen.language]),
            network: digest(&[b"network", network.as_bytes()]),
        }
    }
}

/// The host of an origin, without its port.
pub fn domain_of(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    let port = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
    &authority[..port.unwrap_or(authority.len())]
}
