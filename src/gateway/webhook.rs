//! The way to a workflow: one URL, one method, one media type, like an upstream
//! that only we ask. Redirects are not followed.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};
use http_body_util::BodyDataStream;
use secrecy::ExposeSecret as _;

use super::{SendError, Upstream, UpstreamError, headers::X_REQUEST_ID, upload::RequestBody};
use crate::{
    config::WebhookConfig,
    domain::clock::SharedClock,
    services::{
        chat::{Answer, Call, Webhook, WebhookError},
        upstreams::{UpstreamService, resolver::SharedResolver},
    },
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Asks a workflow.
pub struct WebhookClient {
    upstream: Upstream,
    path: Uri,
    api_key: Option<HeaderValue>,
}

impl WebhookClient {
    /// Must be called within the runtime that will ask (see [`Upstream::new`]).
    pub fn new(config: &WebhookConfig, clock: SharedClock, resolver: SharedResolver) -> Self {
        let upstreams = vec![Arc::clone(&config.upstream)];
        let directory = UpstreamService::new(&upstreams, clock, resolver).current();
        let api_key = config.api_key.as_ref().map(|key| {
            let mut value =
                HeaderValue::from_str(key.expose_secret()).expect("the configuration checked it");
            value.set_sensitive(true);
            value
        });
        Self {
            upstream: Upstream::new(&directory.upstreams[0]),
            path: config.path.parse().expect("the configuration checked it"),
            api_key,
        }
    }

    async fn ask(&self, call: Call) -> Result<Answer, WebhookError> {
        let Call { body, token, message_id } = call;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .expect("a token is ASCII");
        bearer.set_sensitive(true);
        let picked = self.upstream.pick().map_err(failed)?;
        let mut parts = Request::new(()).into_parts().0;
        parts.method = Method::POST;
        parts.uri = self.path.clone();
        let id = HeaderValue::from_str(&message_id.to_string()).expect("an id is ASCII");
        let accepted = "application/json, text/event-stream, text/plain";
        parts.headers.insert(HOST, self.upstream.host(picked.as_ref(), None).clone());
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        parts.headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        parts.headers.insert(AUTHORIZATION, bearer);
        parts.headers.insert(X_REQUEST_ID, id);
        parts.headers.extend(self.api_key.clone().map(|key| (X_API_KEY, key)));
        let body = RequestBody::Whole(Box::new(Some(body)));
        let sent = self.upstream.send(picked, &mut parts, body, None).await;
        let answer = sent.map_err(|error| match error {
            SendError::Upstream(error) => failed(error),
            SendError::Upload(_) => WebhookError::Failed,
        })?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            tracing::warn!(chat.message = %message_id, status, "the workflow refused a message");
            return Err(WebhookError::Failed);
        }
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = BodyDataStream::new(answer.into_body()).map(move |part| {
            part.map_err(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(chat.message = %message_id, error, "the workflow broke off");
                WebhookError::Failed
            })
        });
        Ok(Answer { content_type, body: body.map(|part: Result<Bytes, _>| part).boxed() })
    }
}

impl Webhook for WebhookClient {
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, WebhookError>> + Send + '_>> {
        Box::pin(self.ask(call))
    }
}

fn failed(error: UpstreamError) -> WebhookError {
    match error {
        UpstreamError::Unavailable(wait) => WebhookError::Unavailable(wait),
        UpstreamError::Overloaded => WebhookError::Unavailable(std::time::Duration::from_secs(1)),
        UpstreamError::ConnectTimeout | UpstreamError::Timeout => WebhookError::TimedOut,
        error => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the workflow cannot be asked");
            WebhookError::Failed
        }
    }
}
