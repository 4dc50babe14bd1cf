//! What the workflow is told, and what becomes of its answer.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use crate::domain::{
    chat::AnswerFailure,
    id::{ChatMessageId, ChatSessionId},
};
use chrono::{DateTime, Utc};

/// How long the token is good that a workflow is sent.
const TOKEN_LIFE: i64 = 30;

/// One question, ready to be sent.
#[derive(Clone, Debug)]
pub struct Call {
    /// JSON.
    pub body: Bytes,
    pub token: SecretString,
    /// Names the message in logs of both sides.
    pub message_id: ChatMessageId,
}

/// An answer that has begun well.
pub struct Answer {
    pub content_type: Option<String>,
    pub body: BoxStream<'static, Result<Bytes, WebhookError>>,
}

/// Why there is no answer, or no more of it. Causes are in the log alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("the workflow could not be reached, or refused")]
    Failed,
    #[error("the workflow did not answer in time")]
    TimedOut,
    #[error("the workflow is not asked for a while")]
    Unavailable(Duration),
}

impl From<WebhookError> for AnswerFailure {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Failed => Self::Failed,
            WebhookError::TimedOut => Self::TimedOut,
            WebhookError::Unavailable(_) => Self::Unavailable,
        }
    }
}

/// The way to the workflow. A call is sent at most once: tried again only while
/// no byte of it was sent.
pub trait Webhook: Send + Sync {
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, WebhookError>> + Send + '_>>;
}

/// Signs what proves to a workflow who asks.
pub(super) struct Signer {
    key: EncodingKey,
    issuer: String,
    audience: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: ChatSessionId,
    session_id: ChatSessionId,
    jti: ChatMessageId,
    iat: i64,
    nbf: i64,
    exp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    action: &'static str,
    session_id: ChatSessionId,
    chat_input: &'a str,
    metadata: Metadata<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    page_url: Option<&'a str>,
    origin_domain: &'a str,
    message_id: ChatMessageId,
}

/// What a question is about.
pub(super) struct Asked<'a> {
    pub session: ChatSessionId,
    pub message: ChatMessageId,
    pub text: &'a str,
    pub page_url: Option<&'a str>,
    pub origin_domain: &'a str,
}

impl Signer {
    pub fn new(secret: &SecretString, issuer: &str, audience: &str) -> Self {
        Self {
            key: EncodingKey::from_secret(secret.expose_secret().as_bytes()),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        }
    }

    pub fn call(&self, asked: &Asked<'_>, now: DateTime<Utc>) -> Call {
        let at = now.timestamp();
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: asked.session,
            session_id: asked.session,
            jti: asked.message,
            iat: at,
            nbf: at,
            exp: at + TOKEN_LIFE,
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .expect("a secret signs any claims");
        let question = Question {
            action: "sendMessage",
            session_id: asked.session,
            chat_input: asked.text,
            metadata: Metadata {
                page_url: asked.page_url,
                origin_domain: asked.origin_domain,
                message_id: asked.message,
            },
        };
        let body = serde_json::to_vec(&question).expect("texts and ids are JSON");
        Call { body: body.into(), token: token.into(), message_id: asked.message }
    }
}
