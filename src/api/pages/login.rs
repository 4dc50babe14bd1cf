//! `/login`: the page, and what its two forms do.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Visit, html, page, see_other, told};
use crate::{
    api::{
        AppState,
        error::{ApiError, ApiResult, ErrorCode},
        extract::Form,
        secret::Secret,
    },
    domain::id::UserId,
    gateway::{
        cookies::{self, Cookie},
        next::Next,
    },
    server::Caller,
    services::{
        browser::{Cookies, Issued},
        forms::Purpose,
        logins::{Device, LoginError},
    },
};

/// Longest name and password that are looked at; longer ones are wrong.
const MAX_NAME: usize = 254;
const MAX_PASSWORD: usize = 1024;

/// What either form sends.
#[derive(Deserialize)]
pub(super) struct SignInForm {
    #[serde(default)]
    form: String,
    #[serde(default)]
    next: String,
    #[serde(default)]
    username: String,
    password: Option<Secret>,
    access_token: Option<Secret>,
}

/// How somebody tries to get in.
enum Attempt {
    Password(String, SecretString),
    Token(SecretString),
}

/// What the page is shown with.
#[derive(Default)]
struct Shown<'a> {
    next: Option<&'a Next>,
    name: &'a str,
    problem: Option<ApiError>,
}

pub(super) async fn show(
    State(state): State<AppState>,
    visit: Visit,
    RawQuery(query): RawQuery,
) -> ApiResult<Response> {
    let next = query.as_deref().and_then(next_in);
    answer(&state, &visit, Shown { next: next.as_ref(), ..Shown::default() }).await
}

pub(super) async fn sign_in(
    State(state): State<AppState>,
    visit: Visit,
    device: Device,
    Form(sent): Form<SignInForm>,
) -> ApiResult<Response> {
    visit.check_site()?;
    let next = Next::parse(&sent.next).filter(|next| !is_page(next));
    let name = sent.username.clone();
    let fresh = visit.check_form(&state, Purpose::SignIn, &sent.form)?;
    let attempted = match (fresh, attempt(sent)) {
        (Err(error), _) => Err(ApiError::new(ErrorCode::Forbidden, error.to_string())),
        (Ok(()), None) => Err(ApiError::new(ErrorCode::ValidationFailed, "a field is empty")),
        (Ok(()), Some(attempt)) => try_it(&state, &visit, &device, &attempt).await,
    };
    match attempted {
        Ok((user, cookie, issued)) => {
            let to = next.as_ref().map_or(state.site.home.as_str(), Next::as_str);
            Ok(signed_in(&visit, to, user, cookie, &issued))
        }
        Err(error) => {
            // Nothing that cannot be a name is shown again.
            let name = if name.len() <= MAX_NAME { name.as_str() } else { "" };
            answer(&state, &visit, Shown { next: next.as_ref(), name, problem: Some(error) }).await
        }
    }
}

/// `None` when something was left empty.
fn attempt(sent: SignInForm) -> Option<Attempt> {
    if let Some(Secret(token)) = sent.access_token {
        return (!token.expose_secret().trim().is_empty()).then_some(Attempt::Token(token));
    }
    let Secret(password) = sent.password?;
    (!sent.username.is_empty() && !password.expose_secret().is_empty())
        .then_some(Attempt::Password(sent.username, password))
}

async fn try_it(
    state: &AppState,
    visit: &Visit,
    device: &Device,
    attempt: &Attempt,
) -> ApiResult<(UserId, Cookie, Issued)> {
    let before = cookies::read(&visit.headers, &visit.client)?;
    let browser = &state.services.browser;
    Ok(match attempt {
        Attempt::Password(name, password) => {
            let too_long = name.len() > MAX_NAME || password.expose_secret().len() > MAX_PASSWORD;
            if too_long || name.contains('\0') {
                return Err(LoginError::Invalid.into());
            }
            let (user, issued) = browser.sign_in(name, password, device, before).await?;
            (user, Cookie::Login, issued)
        }
        Attempt::Token(text) => {
            let (user, issued) = browser.sign_in_with_token(text, device, before).await?;
            (user, Cookie::Pass, issued)
        }
    })
}

/// A browser is one thing at a time: the cookies of before are forgotten.
fn signed_in(visit: &Visit, to: &str, user: UserId, cookie: Cookie, issued: &Issued) -> Response {
    let mut response = see_other(to);
    cookies::add(response.headers_mut(), cookie, issued, &visit.client);
    for other in Cookie::ALL.into_iter().filter(|other| *other != cookie) {
        visit.forget(&mut response, other);
    }
    // For the access log.
    response.extensions_mut().insert(Caller { user_id: Some(user), key_id: None });
    response
}

/// The page, with what the last attempt came to.
async fn answer(state: &AppState, visit: &Visit, shown: Shown<'_>) -> ApiResult<Response> {
    let Shown { next, name, problem } = shown;
    let forms = state.services.browser.forms();
    let cookie = visit.form_cookie()?;
    let token = forms.token(Purpose::SignIn, &cookie);

    let found = cookies::read(&visit.headers, &visit.client)?;
    let (mut who, mut bad) = (None, vec![]);
    for (name, cookies) in [
        (Cookie::Pass, Cookies { login: None, ..found }),
        (Cookie::Login, Cookies { pass: None, ..found }),
    ] {
        if cookies == Cookies::default() {
            continue;
        }
        match state.services.browser.prove(cookies).await? {
            Some(visitor) => who = who.or(Some(visitor.principal.account)),
            None => bad.push(name),
        }
    }

    let status = problem.as_ref().map_or(StatusCode::OK, |error| error.code().status());
    let mut fields = HeaderMap::new();
    if let Some(error) = &problem {
        error.put_fields(&mut fields, state.services.clock.now());
    }
    let problem = problem.map(|error| words(&error, &fields));
    let sign_in = html::SignIn {
        base: visit.base,
        token: &token,
        next: next.map(Next::as_str),
        name,
        problem: problem.as_deref(),
        who: who.as_ref().map(|account| account.username.as_str()),
    };
    let mut response = page(&state.site, status, sign_in.page(&state.site));
    response.headers_mut().extend(fields);
    visit.keep_form_cookie(&mut response, &cookie);
    for name in bad {
        visit.forget(&mut response, name);
    }
    Ok(response)
}

/// One text for every wrong credential: which part of it was wrong is nobody's
/// to know.
fn words(error: &ApiError, fields: &HeaderMap) -> String {
    match error.code() {
        ErrorCode::InvalidLogin => {
            "That did not work: the name, the password or the access token is wrong.".to_owned()
        }
        ErrorCode::Forbidden => {
            "This page was open for too long. Please send the form again.".to_owned()
        }
        ErrorCode::ValidationFailed => "Please fill in the form.".to_owned(),
        _ => told(error, fields),
    }
}

/// The place that the query asks to go to afterwards; of several none.
fn next_in(query: &str) -> Option<Next> {
    let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "next");
    let (_, text) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    Next::parse(&text).filter(|next| !is_page(next))
}

/// Whether it would lead back here, or out at once.
fn is_page(next: &Next) -> bool {
    let path = next.path();
    ["/login", "/logout"].contains(&path) || path.starts_with("/.tollgate/")
}
