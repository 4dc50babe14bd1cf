//! Conversations as a file of JSON, written as they are read.

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use serde::Serialize;

use super::history::{ChatExport, ChatMessageResponse};
use crate::services::chat::{Part, Takeout};

/// What stands around the conversations: nothing where there is one alone.
#[derive(Default)]
pub struct Frame {
    before: Vec<u8>,
    after: &'static str,
}

impl Frame {
    /// An object whose last field is a list that is empty yet: that is where they
    /// stand.
    pub fn around(object: &impl Serialize) -> Self {
        Self { before: open(object), after: END }
    }
}

/// How an object ends whose last field is a list.
const END: &str = "]}";

fn open(object: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(object).expect("plain values are JSON");
    assert!(text.ends_with(b"[]}"), "a list is the last field");
    text.truncate(text.len() - END.len());
    text
}

struct Writing {
    takeout: Takeout,
    frame: Frame,
    /// A conversation stands before the next one.
    has_begun: bool,
    /// A message stands before the next one.
    has_said: bool,
    over: bool,
}

/// The file. What fails on the way breaks it off.
pub fn file(takeout: Takeout, frame: Frame) -> Response {
    let writing = Writing { takeout, frame, has_begun: false, has_said: false, over: false };
    let body = try_unfold(writing, |mut writing| async move {
        if writing.over {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut writing.frame.before);
        match writing.takeout.next().await {
            Ok(part) => writing.write(part, &mut text),
            Err(error) => {
                let shown = &error as &dyn std::error::Error;
                tracing::warn!(error = shown, "an export of chats was broken off");
                return Err(error);
            }
        }
        Ok(Some((Bytes::from(text), writing)))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

impl Writing {
    fn write(&mut self, part: Option<Part>, text: &mut Vec<u8>) {
        match part {
            None => {
                text.extend_from_slice(self.frame.after.as_bytes());
                self.over = true;
            }
            Some(Part::Begin(session)) => {
                if std::mem::replace(&mut self.has_begun, true) {
                    text.push(b',');
                }
                self.has_said = false;
                text.extend(open(&ChatExport::from(*session)));
            }
            Some(Part::Messages(messages)) => {
                for message in messages.into_iter().map(ChatMessageResponse::from) {
                    if std::mem::replace(&mut self.has_said, true) {
                        text.push(b',');
                    }
                    serde_json::to_writer(&mut *text, &message).expect("plain values are JSON");
                }
            }
            Some(Part::End) => text.extend_from_slice(END.as_bytes()),
        }
    }
}
