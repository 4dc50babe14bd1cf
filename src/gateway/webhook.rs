//! The way to a workflow: one URL, one method, one media type, like an upstream
//! that only we ask. Redirects are not followed.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};
use http_body_util::BodyDataStream;
use secrecy::ExposeSecret as _;

use super::{
    AnswerBody, SendError, Upstream, UpstreamError, calls, headers::X_REQUEST_ID,
    upload::RequestBody,
};
use crate::{
    config::WebhookConfig,
    domain::clock::SharedClock,
    services::{
        chat::{Answer, Call, Webhook, WebhookError},
        upstreams::{UpstreamService, resolver::SharedResolver},
    },
    telemetry::trace::{self, Asking},
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
        let trace = trace::current();
        let mut asking = trace.as_ref().and_then(|trace| trace.ask("POST"));
        if let Some(asking) = &mut asking {
            asking.say("http.request.method", "POST");
            calls::say_host(asking, &parts.headers[HOST]);
            asking.say("tollgate.upstream", "chat");
        }
        if let Some(trace) = &trace {
            trace.onward(asking.as_deref()).set(&mut parts.headers);
        }
        let body = RequestBody::Whole(Box::new(Some(body)));
        let sent = self.upstream.send(picked, &mut parts, body, None).await;
        let answer = sent.map_err(|error| {
            if let Some(asking) = &mut asking {
                asking.fail(error.name());
            }
            match error {
                SendError::Upstream(error) => failed(error),
                SendError::Upload(_) => WebhookError::Failed,
            }
        })?;
        if let Some(asking) = &mut asking {
            asking.say("http.response.status_code", answer.status().as_u16());
            if !answer.status().is_success() {
                asking.fail(answer.status().as_u16().to_string());
            }
        }
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            tracing::warn!(chat.message = %message_id, status, "the workflow refused a message");
            return Err(WebhookError::Failed);
        }
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Told { body: BodyDataStream::new(answer.into_body()), asking };
        let body = body.map(move |part| {
            part.map_err(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(chat.message = %message_id, error, "the workflow broke off");
                WebhookError::Failed
            })
        });
        Ok(Answer { content_type, body: body.map(|part: Result<Bytes, _>| part).boxed() })
    }
}

/// An answer, and what the trace is told at its end.
struct Told {
    body: BodyDataStream<AnswerBody>,
    asking: Option<Box<Asking>>,
}

impl Stream for Told {
    type Item = <BodyDataStream<AnswerBody> as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.body.poll_next_unpin(cx);
        match (&next, &mut self.asking) {
            (Poll::Ready(None), asking) => {
                if let Some(asking) = asking.take() {
                    asking.finish();
                }
            }
            (Poll::Ready(Some(Err(_))), Some(asking)) => asking.fail("broken"),
            _ => {}
        }
        next
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
