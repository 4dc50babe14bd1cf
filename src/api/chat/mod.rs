//! `/session` and `/chat`: what the page of a visitor talks to.
//!
//! A visitor is known by a cookie. A browser adds it to requests of any page
//! that may, so what changes something asks for the `Origin` too, which only
//! browsers set and pages cannot.

mod history;
mod messages;
mod pages;
mod sessions;
mod stream;
mod takeout;
mod visitor;

pub(super) use self::pages::router as pages;
pub use self::{
    history::ChatExport,
    pages::ChatPages,
    takeout::{Frame, file},
};
use super::{
    ApiRouter,
    error::{ApiError, ErrorCode, FieldProblem},
};
use crate::{domain::chat::AnswerFailure, services::chat::ChatError};

pub(super) fn router() -> ApiRouter {
    sessions::router().merge(messages::router()).merge(history::router())
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        let detail = error.to_string();
        let code = match error {
            ChatError::Store(store) => return store.into(),
            ChatError::Limit(limit) => return limit.into(),
            ChatError::Saturated(full) => return full.into(),
            ChatError::Text(refusal) => {
                return Self::invalid_fields(vec![FieldProblem {
                    field: "message".to_owned(),
                    code: "text".to_owned(),
                    message: refusal.to_string(),
                }]);
            }
            ChatError::Overloaded | ChatError::Stopping => {
                return Self::new(ErrorCode::Overloaded, detail).retry_after(1);
            }
            ChatError::Off | ChatError::NotFound => ErrorCode::NotFound,
            ChatError::NoSession => ErrorCode::Unauthenticated,
            ChatError::InvalidSession => ErrorCode::InvalidCredential,
            ChatError::OriginNotAllowed | ChatError::OtherOrigin => ErrorCode::OriginNotAllowed,
            ChatError::OtherText => ErrorCode::Conflict,
            ChatError::Full => ErrorCode::ConversationFull,
        };
        Self::new(code, detail)
    }
}

impl From<AnswerFailure> for ApiError {
    fn from(failure: AnswerFailure) -> Self {
        let (code, detail) = match failure {
            AnswerFailure::Failed => (ErrorCode::UpstreamFailed, "the workflow could not answer"),
            AnswerFailure::TimedOut => {
                (ErrorCode::UpstreamTimeout, "the workflow did not answer in time")
            }
            AnswerFailure::Unavailable => {
                (ErrorCode::UpstreamUnavailable, "the workflow is not available; try again later")
            }
            AnswerFailure::Interrupted => {
                (ErrorCode::AnswerInterrupted, "the answer was interrupted; ask again")
            }
        };
        let error = Self::new(code, detail);
        if failure == AnswerFailure::Unavailable { error.retry_after(5) } else { error }
    }
}
