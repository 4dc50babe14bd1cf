//! Query parameters and the response of lists.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use validator::Validate;

use super::error::{ApiError, FieldProblem};
use crate::domain::page::{Cursor, Page, PageRequest};

/// Where in a list to read.
#[derive(Debug, Default, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items per page.
    #[param(minimum = 1, maximum = 200, default = 50, example = 50)]
    #[validate(range(min = 1, max = 200, message = "must be 1 to 200"))]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    pub fn request(&self) -> Result<PageRequest, ApiError> {
        let after = match self.cursor.as_deref().filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(Cursor::decode(text).ok_or_else(|| {
                ApiError::invalid_fields(vec![FieldProblem {
                    field: "cursor".to_owned(),
                    code: "cursor".to_owned(),
                    message: "must be the next_cursor of an earlier page".to_owned(),
                }])
            })?),
        };
        Ok(PageRequest { limit: self.limit.unwrap_or(PageRequest::DEFAULT_LIMIT), after })
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageResponse<T> {
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; null on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

impl<T> PageResponse<T> {
    pub fn of<D>(page: Page<D>, item: impl FnMut(D) -> T) -> Self {
        let Page { items, next } = page.map(item);
        Self { items, next_cursor: next.map(Cursor::encode) }
    }
}
