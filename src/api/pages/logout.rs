//! `/logout`: a question, since a link must not end a login, and its answer.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;

use super::{Visit, html, page, see_other};
use crate::{
    api::{
        AppState,
        error::{ApiError, ApiResult, ErrorCode},
        extract::Form,
        idempotency::to_the_end,
    },
    gateway::cookies::{self, Cookie},
    services::{forms::Purpose, logins::Device},
};

#[derive(Deserialize)]
pub(super) struct SignOutForm {
    #[serde(default)]
    form: String,
}

pub(super) async fn show(State(state): State<AppState>, visit: Visit) -> ApiResult<Response> {
    let browser = &state.services.browser;
    let cookie = visit.form_cookie()?;
    let token = browser.forms().token(Purpose::SignOut, &cookie);
    let visitor = browser.prove(cookies::read(&visit.headers, &visit.client)?).await?;
    let who = visitor.as_ref().map(|visitor| visitor.principal.account.username.as_str());
    let markup = html::sign_out(&state.site, visit.base, &token, who);
    let mut response = page(&state.site, StatusCode::OK, markup);
    visit.keep_form_cookie(&mut response, &cookie);
    Ok(response)
}

/// Ends the login session on every instance and has the browser forget it.
pub(super) async fn sign_out(
    State(state): State<AppState>,
    visit: Visit,
    device: Device,
    Form(sent): Form<SignOutForm>,
) -> ApiResult<Response> {
    visit.check_site()?;
    visit
        .check_form(&state, Purpose::SignOut, &sent.form)?
        .map_err(|error| ApiError::new(ErrorCode::Forbidden, error.to_string()))?;
    let mut response = see_other(visit.base.sign_in());
    for cookie in Cookie::ALL {
        visit.forget(&mut response, cookie);
    }
    let browser = state.services.browser;
    to_the_end(async move {
        let found = cookies::read(&visit.headers, &visit.client).map_err(ApiError::from)?;
        browser.sign_out(&device, found).await.map_err(ApiError::from)
    })
    .await?;
    Ok(response)
}
