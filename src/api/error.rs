//! The one place where failures become HTTP.
//!
//! [`ErrorCode`] is the registry: a stable code, its status, its title. What
//! the services and the gateway can fail with is mapped in [`super::error_map`].

#[path = "error_answer.rs"]
mod answer;

use axum::{http::StatusCode, response::IntoResponse};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::limit_problem::LimitProblem;
use crate::{domain::limit::TierState, services::limits::Rule};

pub type ApiResult<T> = Result<T, ApiError>;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:ident;)*) => {
        /// Stable machine-readable codes. Adding one is fine, renaming one is a
        /// breaking change: clients match on these, never on `detail`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl ErrorCode {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }
        }
    };
}

error_codes! {
    /// The request breaks a rule that no other code names.
    InvalidRequest = "invalid_request", BAD_REQUEST;
    /// The body is not JSON, or nested deeper than 64 levels.
    InvalidJson = "invalid_json", BAD_REQUEST;
    /// A path with dot segments, encoded separators or broken escapes.
    AmbiguousPath = "ambiguous_path", BAD_REQUEST;
    /// Length or coding of the message is stated in a way that two readers
    /// could understand differently.
    InvalidFraming = "invalid_framing", BAD_REQUEST;
    /// A field name outside letters, digits and `-`.
    InvalidHeader = "invalid_header", BAD_REQUEST;
    /// `Host` is missing, given twice, or not one that is answered here.
    InvalidHost = "invalid_host", BAD_REQUEST;
    /// The same credential field twice.
    DuplicateCredential = "duplicate_credential", BAD_REQUEST;
    /// A key or token in the query, where logs and histories keep it.
    CredentialInUrl = "credential_in_url", BAD_REQUEST;
    /// This length of access token is not sold.
    DurationNotOffered = "duration_not_offered", BAD_REQUEST;
    /// `Idempotency-Key` is missing where it must be, given twice, or not 1 to
    /// 255 visible characters.
    InvalidIdempotencyKey = "invalid_idempotency_key", BAD_REQUEST;
    /// No credential at all.
    Unauthenticated = "unauthenticated", UNAUTHORIZED;
    /// Unknown, expired, revoked or malformed.
    InvalidCredential = "invalid_credential", UNAUTHORIZED;
    /// Wrong name or password, or a disabled account.
    InvalidLogin = "invalid_login", UNAUTHORIZED;
    /// Unknown, expired or already used.
    InvalidRefreshToken = "invalid_refresh_token", UNAUTHORIZED;
    /// `missing_minor` is what the wallet lacks.
    BalanceTooLow = "balance_too_low", PAYMENT_REQUIRED;
    Forbidden = "forbidden", FORBIDDEN;
    /// An API key or access token where a login is needed.
    LoginRequired = "login_required", FORBIDDEN;
    RoleRequired = "role_required", FORBIDDEN;
    /// This upstream takes other kinds of credential.
    CredentialNotAccepted = "credential_not_accepted", FORBIDDEN;
    ScopeMissing = "scope_missing", FORBIDDEN;
    AddressNotAllowed = "address_not_allowed", FORBIDDEN;
    /// A browser sends it with a cookie, but not from a page of this site.
    CrossSite = "cross_site", FORBIDDEN;
    OriginNotAllowed = "origin_not_allowed", FORBIDDEN;
    UpstreamNotAllowed = "upstream_not_allowed", FORBIDDEN;
    RegistrationClosed = "registration_closed", FORBIDDEN;
    /// The password that confirms a change is wrong.
    WrongPassword = "wrong_password", FORBIDDEN;
    /// Unknown, or not yours.
    NotFound = "not_found", NOT_FOUND;
    /// No voucher has this code.
    VoucherUnknown = "voucher_unknown", NOT_FOUND;
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
    UsernameTaken = "username_taken", CONFLICT;
    EmailTaken = "email_taken", CONFLICT;
    /// Somebody else changes the same thing; try again.
    Conflict = "conflict", CONFLICT;
    /// One active admin always stays.
    LastAdmin = "last_admin", CONFLICT;
    /// What is done to others by this is done to oneself elsewhere.
    OwnAccount = "own_account", CONFLICT;
    /// A chat session has as many messages as it may; begin another one.
    ConversationFull = "conversation_full", CONFLICT;
    /// Refunded before, used up, revoked, or by the policy not refundable.
    NotRefundable = "not_refundable", CONFLICT;
    VoucherExpired = "voucher_expired", CONFLICT;
    VoucherRevoked = "voucher_revoked", CONFLICT;
    /// As often as it may be redeemed in all.
    VoucherUsedUp = "voucher_used_up", CONFLICT;
    /// By you, as often as one user may.
    VoucherRedeemed = "voucher_redeemed", CONFLICT;
    /// The wallet would hold more than it can.
    WalletFull = "wallet_full", CONFLICT;
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT;
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
    UriTooLong = "uri_too_long", URI_TOO_LONG;
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE;
    /// `errors` names every field.
    ValidationFailed = "validation_failed", UNPROCESSABLE_ENTITY;
    /// The settings cannot be used; those in force stay. `errors` names them.
    InvalidConfiguration = "invalid_configuration", UNPROCESSABLE_ENTITY;
    /// The same `Idempotency-Key` came before with another request.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY;
    /// A WebSocket of a version other than 13.
    UpgradeRequired = "upgrade_required", UPGRADE_REQUIRED;
    RateLimited = "rate_limited", TOO_MANY_REQUESTS;
    /// As many as one credential may have open.
    TooManySockets = "too_many_sockets", TOO_MANY_REQUESTS;
    QuotaExceeded = "quota_exceeded", TOO_MANY_REQUESTS;
    /// As many requests at once as may be; 503 where it is the upstream's limit.
    ConcurrencyLimited = "concurrency_limited", TOO_MANY_REQUESTS;
    LoginThrottled = "login_throttled", TOO_MANY_REQUESTS;
    /// Too many codes of vouchers were tried.
    RedeemThrottled = "redeem_throttled", TOO_MANY_REQUESTS;
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// As many as one credential may have unused.
    TooManyTickets = "too_many_tickets", TOO_MANY_REQUESTS;
    Internal = "internal", INTERNAL_SERVER_ERROR;
    /// The upstream refused the connection, broke off or answered nonsense.
    UpstreamFailed = "upstream_failed", BAD_GATEWAY;
    /// The answer ended before it was whole; ask again.
    AnswerInterrupted = "answer_interrupted", SERVICE_UNAVAILABLE;
    /// A dependency is down.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE;
    /// The upstream failed so often of late that it is not asked for a while.
    UpstreamUnavailable = "upstream_unavailable", SERVICE_UNAVAILABLE;
    /// Too much at once; try again.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE;
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT;
}

// By hand: the derive does not see the codes that the macro fills in.
impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        let codes = Self::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("Stable; match on it, never on `detail`."))
            .enum_values(Some(codes))
            .into()
    }
}

impl ToSchema for ErrorCode {}

/// The body of every error response (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "https://tollgate.example/problems/validation-failed",
    "title": "Unprocessable Entity",
    "status": 422,
    "code": "validation_failed",
    "detail": "some fields are not valid",
    "instance": "/api/v1/auth/register",
    "request_id": "0198c0ff-ee00-7008-8000-0000000000aa",
    "errors": [{"field": "email", "code": "email", "message": "must be an e-mail address"}]
}))]
pub struct Problem {
    /// Identifies the kind of problem; the code with dashes. Not a page.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: ErrorCode,
    /// Safe to show to a person; may be reworded at any time.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    pub request_id: String,
    /// Every field that is wrong; only with 422.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldProblem>,
    /// The limit that refused; only with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub limit: Option<LimitProblem>,
    /// The other limits that the request was under; only with `limit`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub other_limits: Vec<LimitProblem>,
    /// What the wallet lacks, in minor units; only with `balance_too_low`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, minimum = 1)]
    pub missing_minor: Option<i64>,
    /// What the wallet holds, in minor units; only with `balance_too_low`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, minimum = 0)]
    pub balance_minor: Option<i64>,
}

/// One field that cannot be taken as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    #[schema(example = "email")]
    pub field: String,
    #[schema(example = "email")]
    pub code: String,
    #[schema(example = "must be an e-mail address")]
    pub message: String,
}

/// A failure on its way to becoming a [`Problem`].
///
/// As an axum response it is only a status and itself as an extension: the
/// request's path and id are added by the layer that knows them
/// ([`crate::server`]).
#[derive(Clone, Debug)]
pub struct ApiError(std::sync::Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: ErrorCode,
    /// In place of the code's own.
    status: Option<StatusCode>,
    detail: String,
    errors: Vec<FieldProblem>,
    limit: Option<TierState>,
    other_limits: Vec<Rule>,
    retry_after_seconds: Option<u64>,
    shortfall: Option<Shortfall>,
}

/// How far a balance is from a price, in minor units.
#[derive(Clone, Copy, Debug)]
struct Shortfall {
    balance: i64,
    missing: i64,
}

impl ApiError {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self(std::sync::Arc::new(Inner {
            code,
            status: None,
            detail: detail.into(),
            errors: vec![],
            limit: None,
            other_limits: vec![],
            retry_after_seconds: None,
            shortfall: None,
        }))
    }

    /// A failure whose cause is for the log only. Logged here, once.
    pub fn hidden(code: ErrorCode, source: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = source, code = code.as_str(), "request failed");
        let this = Self::from(code);
        if code.status() == StatusCode::SERVICE_UNAVAILABLE { this.retry_after(1) } else { this }
    }

    pub fn invalid_fields(errors: Vec<FieldProblem>) -> Self {
        Self::new(ErrorCode::ValidationFailed, "some fields are not valid")
            .with(|i| i.errors = errors)
    }

    /// Settings that cannot be used, by name.
    pub fn invalid_configuration(errors: Vec<FieldProblem>) -> Self {
        Self::new(ErrorCode::InvalidConfiguration, "the settings in force stay; some are not valid")
            .with(|i| i.errors = errors)
    }

    /// A refusal by a limit, with the headers that tell when to come back.
    pub fn limited(code: ErrorCode, detail: impl Into<String>, state: TierState) -> Self {
        Self::new(code, detail).with(|inner| inner.limit = Some(state))
    }

    /// With what else the request was under.
    #[must_use]
    pub fn among(self, others: Vec<Rule>) -> Self {
        self.with(|inner| inner.other_limits = others)
    }

    /// A purchase that the wallet cannot pay; both in minor units.
    pub fn balance_too_low(detail: impl Into<String>, balance: i64, missing: i64) -> Self {
        Self::new(ErrorCode::BalanceTooLow, detail)
            .with(|inner| inner.shortfall = Some(Shortfall { balance, missing }))
    }

    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(|inner| inner.retry_after_seconds = Some(seconds))
    }

    /// For readers that understand only some statuses; the code stays.
    #[must_use]
    pub fn shown_as(self, status: StatusCode) -> Self {
        self.with(|inner| inner.status = Some(status))
    }

    pub fn status(&self) -> StatusCode {
        self.0.status.unwrap_or_else(|| self.0.code.status())
    }

    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// Safe to show to a person.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(std::sync::Arc::make_mut(&mut self.0));
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
