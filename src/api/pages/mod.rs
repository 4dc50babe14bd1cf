//! Our pages for browsers: signing in and out.
//!
//! They exist at `/login` and `/logout`, and below `/.tollgate/`, which is ours
//! on every host, also where all other paths are an upstream's. A failure is a
//! page, too, with the status and fields that the API would answer with.
//!
//! A form counts if the browser says that it was sent from this origin, and if
//! it carries proof that it was given to this browser ([`crate::services::forms`]):
//! nobody signs somebody else in or out.

mod html;
mod login;
mod logout;
mod site;

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::{Next as Rest, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::get,
};
use chrono::TimeDelta;
use maud::Markup;

pub use self::site::Site;
use super::{
    error::{ApiError, ApiResult},
    middleware,
};
use crate::{
    api::AppState,
    gateway::{
        browser::{self, CrossSite},
        cookies::Cookie,
    },
    server::ClientInfo,
    services::forms::{Forms, Purpose, StaleForm},
};

/// How long a browser keeps what its forms are checked by.
const FORM_LIFE: TimeDelta = TimeDelta::hours(12);

pub(super) fn router(state: &AppState) -> Router<AppState> {
    Router::new()
        .route("/login", get(login::show).post(login::sign_in))
        .route("/logout", get(logout::show).post(logout::sign_out))
        .route("/.tollgate/login", get(login::show).post(login::sign_in))
        .route("/.tollgate/logout", get(logout::show).post(logout::sign_out))
        .route_layer(from_fn_with_state(state.clone(), middleware::limited))
        .route_layer(from_fn_with_state(state.clone(), middleware::ready))
        .route_layer(from_fn(middleware::no_store))
        .route_layer(from_fn_with_state(state.clone(), failures_as_pages))
}

/// Which of the two places a page is asked for at; links stay there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    Plain,
    /// Below `/.tollgate/`.
    Reserved,
}

impl Base {
    fn of(path: &str) -> Self {
        if path.starts_with("/.tollgate/") { Self::Reserved } else { Self::Plain }
    }

    pub fn sign_in(self) -> &'static str {
        match self {
            Self::Plain => browser::SIGN_IN,
            Self::Reserved => browser::SIGN_IN_RESERVED,
        }
    }

    pub fn sign_out(self) -> &'static str {
        match self {
            Self::Plain => "/logout",
            Self::Reserved => "/.tollgate/logout",
        }
    }
}

/// The browser that asks for a page or sends a form.
struct Visit {
    base: Base,
    client: ClientInfo,
    headers: HeaderMap,
}

impl FromRequestParts<AppState> for Visit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let client = super::extract::Client::from_request_parts(parts, state).await?.0;
        let base = Base::of(parts.uri.path());
        Ok(Self { base, client, headers: parts.headers.clone() })
    }
}

impl Visit {
    /// The browser's own cookie for forms, a new one if it has none.
    fn form_cookie(&self) -> ApiResult<String> {
        let found = Cookie::Form.read(&self.headers, &self.client)?;
        let kept = found.filter(|text| Forms::is_cookie(text));
        Ok(kept.map_or_else(Forms::cookie, str::to_owned))
    }

    /// Whether a page of this origin sent the form.
    fn check_site(&self) -> Result<(), CrossSite> {
        if browser::is_same_origin(&self.headers, &self.client) { Ok(()) } else { Err(CrossSite) }
    }

    /// Whether a page of ours did, lately, in this browser.
    fn check_form(
        &self,
        state: &AppState,
        purpose: Purpose,
        token: &str,
    ) -> ApiResult<Result<(), StaleForm>> {
        let cookie = Cookie::Form.read(&self.headers, &self.client)?.unwrap_or_default();
        Ok(state.services.browser.forms().check(purpose, cookie, token))
    }

    fn keep_form_cookie(&self, response: &mut Response, value: &str) {
        let field = Cookie::Form.set(value, FORM_LIFE, &self.client);
        response.headers_mut().append(header::SET_COOKIE, field);
    }

    fn forget(&self, response: &mut Response, cookie: Cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie.clear(&self.client));
    }
}

/// Sends a browser elsewhere; never to be stored.
pub(super) fn see_other(to: &str) -> Response {
    let to = HeaderValue::from_str(to).expect("a checked path");
    let fields =
        [(header::LOCATION, to), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SEE_OTHER, fields).into_response()
}

fn page(site: &Site, status: StatusCode, markup: Markup) -> Response {
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, site.policy.clone()),
        // With `no-referrer`, which is what else we say, a browser hides the
        // origin of a form that it sends to its own site.
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    ];
    (status, fields, markup.into_string()).into_response()
}

/// What of an error a person is told.
fn told(error: &ApiError, headers: &HeaderMap) -> String {
    let wait = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    match wait {
        Some("1") => format!("{}. Try again in a second.", sentence(error.detail())),
        Some(wait) => format!("{}. Try again in {wait} seconds.", sentence(error.detail())),
        None => format!("{}.", sentence(error.detail())),
    }
}

/// Details begin with a small letter and have no full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Turns a failure that no page told into a page of its own.
async fn failures_as_pages(
    State(state): State<AppState>,
    request: Request,
    rest: Rest,
) -> Response {
    let base = Base::of(request.uri().path());
    let mut response = rest.run(request).await;
    let Some(error) = response.extensions_mut().remove::<ApiError>() else { return response };
    let status = error.code().status();
    let mut fields = HeaderMap::new();
    error.put_fields(&mut fields, state.services.clock.now());
    let title = status.canonical_reason().unwrap_or("Error");
    let markup = html::failure(&state.site, base, title, &told(&error, &fields));
    let mut answer = page(&state.site, status, markup);
    answer.headers_mut().extend(fields);
    answer
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    answer
}
