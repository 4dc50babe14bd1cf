//! The built-in workflow: says what it was told, word by word.
//!
//! With it a chat can be tried before there is a workflow, as the echo lets
//! one try the gateway before there is a backend.

use std::{convert::Infallible, future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::services::chat::{Answer, Call, Webhook, WebhookError};

/// Between two words, so that a person sees them come.
const PACE: Duration = Duration::from_millis(30);
/// Characters of the message that are repeated.
const REPEATED: usize = 400;

/// Answers without asking anybody.
pub struct DemoWorkflow;

impl Webhook for DemoWorkflow {
    fn call(
        &self,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, WebhookError>> + Send + '_>> {
        let parts = stream::iter(parts(&call.body)).then(async |part| {
            sleep(PACE).await;
            Ok::<_, Infallible>(part)
        });
        let body = parts.map(|part| part.map_err(|never| match never {})).boxed();
        let answer = Answer { content_type: Some("application/json".to_owned()), body };
        Box::pin(async move { Ok(answer) })
    }
}

/// The answer as n8n would write it.
fn parts(question: &[u8]) -> Vec<Bytes> {
    let asked: Value = serde_json::from_slice(question).unwrap_or_default();
    let text = text(asked["chatInput"].as_str().unwrap_or_default());
    let items = text.split_inclusive(' ').map(|word| json!({ "type": "item", "content": word }));
    let all = [json!({ "type": "begin" })].into_iter().chain(items);
    all.chain([json!({ "type": "end" })]).map(|part| Bytes::from(format!("{part}\n"))).collect()
}

fn text(said: &str) -> String {
    let mut repeated: String = said.chars().take(REPEATED).collect();
    if repeated.len() < said.len() {
        repeated.push('…');
    }
    format!(
        "You said: {repeated}\n\n\
         I am the workflow that comes with Tollgate: I repeat what I am told, word by word, so \
         that you see how an answer comes. Load the page again, and what was said is still here.\n\n\
         To have answers of your own, set\n\n\
         ```\n\
         CHAT_WEBHOOK_URL=https://n8n.internal/webhook/…/chat\n\
         ALLOWED_ORIGINS=https://shop.example.com\n\
         ```\n\n\
         and put the widget into your pages."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_repeated_up_to_a_length() {
        let said = |text: &str| {
            let question = json!({ "chatInput": text }).to_string();
            let parts = parts(question.as_bytes());
            let content = |part: &Bytes| {
                let part: Value = serde_json::from_slice(part).unwrap();
                part["content"].as_str().unwrap_or_default().to_owned()
            };
            parts.iter().map(content).collect::<String>()
        };
        assert!(said("Hello,  \"you\"\nthere").starts_with("You said: Hello,  \"you\"\nthere\n\n"));
        let long = said(&"ä".repeat(4000));
        assert_eq!(long.matches('ä').count(), REPEATED);
        assert!(long.contains("ä…\n"));
    }
}
