//! What each service can fail with, as codes. No wildcard arms: a new failure
//! must be given a code on purpose.

use axum::response::{IntoResponse, Response};

use super::{
    error::{ApiError, ErrorCode, FieldProblem},
    pages,
};
use crate::{
    config::Problem,
    domain::{api_key::KeyRefusal, password::PasswordRefusal, policy::PolicyRefusal},
    gateway::{
        GatewayError, UpstreamError, browser::CrossSite, cookies::RepeatedCookie,
        credentials::RepeatedField, tunnel::handshake::BadRequest, upload::UploadFault,
    },
    server::Fault,
    services::{
        StoreError, access::AccessError, accounts::AccountError, api_keys::ApiKeyError,
        key_input::FieldError, limits::LimitError, logins::LoginError, passwords::PasswordError,
        reload::ReloadError, usage::Saturated,
    },
};

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.status().canonical_reason().unwrap_or_default().to_lowercase())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::hidden(ErrorCode::Unavailable, &error),
            // A duplicate that reaches this far was not foreseen by a service.
            StoreError::Duplicate { .. } | StoreError::Database(_) => {
                Self::hidden(ErrorCode::Internal, &error)
            }
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                Self::new(ErrorCode::Overloaded, error.to_string()).retry_after(2)
            }
            PasswordError::Hash(_) => Self::hidden(ErrorCode::Internal, &error),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Invalid => Self::new(ErrorCode::InvalidCredential, error.to_string()),
            AccessError::Store(store) => store.into(),
        }
    }
}

impl From<KeyRefusal> for ApiError {
    fn from(refusal: KeyRefusal) -> Self {
        let (code, detail) = match refusal {
            KeyRefusal::Disabled | KeyRefusal::Expired => {
                return AccessError::Invalid.into();
            }
            KeyRefusal::Address => {
                (ErrorCode::AddressNotAllowed, "the key may not be used from this address")
            }
            KeyRefusal::Origin => {
                (ErrorCode::OriginNotAllowed, "the key may not be used from this origin")
            }
            KeyRefusal::Upstream => {
                (ErrorCode::UpstreamNotAllowed, "the key does not open this upstream")
            }
            KeyRefusal::Scope => (ErrorCode::ScopeMissing, "the key does not hold this scope"),
        };
        Self::new(code, detail)
    }
}

impl From<LimitError> for ApiError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Exceeded(exceeded) => {
                let quota = exceeded.is_quota();
                let code = if quota { ErrorCode::QuotaExceeded } else { ErrorCode::RateLimited };
                let detail = exceeded.to_string();
                Self::limited(code, detail, exceeded.state).among(exceeded.others)
            }
            LimitError::Store(store) => store.into(),
        }
    }
}

impl From<Saturated> for ApiError {
    fn from(error: Saturated) -> Self {
        Self::new(ErrorCode::Overloaded, error.to_string()).retry_after(1)
    }
}

impl ApiError {
    /// A new password that cannot be taken, by the name of its field.
    pub fn password(field: &str, refusal: PasswordRefusal) -> Self {
        Self::invalid_fields(vec![FieldProblem {
            field: field.to_owned(),
            code: "password".to_owned(),
            message: refusal.to_string(),
        }])
    }

    /// Fields that a service refused.
    pub fn refused_fields(fields: Vec<FieldError>) -> Self {
        let problem = |FieldError { field, message }: FieldError| FieldProblem {
            field: field.to_owned(),
            code: "invalid".to_owned(),
            message: message.to_owned(),
        };
        Self::invalid_fields(fields.into_iter().map(problem).collect())
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let code = match error {
            AccountError::Store(store) => return store.into(),
            AccountError::Hashing(hashing) => return hashing.into(),
            AccountError::Password(refusal) => return Self::password("password", refusal),
            AccountError::Throttled(state) => {
                let detail = AccountError::Throttled(state.clone()).to_string();
                return Self::limited(ErrorCode::LoginThrottled, detail, state);
            }
            AccountError::RegistrationClosed => ErrorCode::RegistrationClosed,
            AccountError::UsernameTaken => ErrorCode::UsernameTaken,
            AccountError::EmailTaken => ErrorCode::EmailTaken,
            AccountError::WrongPassword => ErrorCode::WrongPassword,
            AccountError::NotAdmin => ErrorCode::Forbidden,
            AccountError::LastAdmin => ErrorCode::LastAdmin,
            AccountError::OwnAccount => ErrorCode::OwnAccount,
            AccountError::NotFound => ErrorCode::NotFound,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let code = match error {
            LoginError::Store(store) => return store.into(),
            LoginError::Hashing(hashing) => return hashing.into(),
            LoginError::Throttled(state) => {
                let detail = LoginError::Throttled(state.clone()).to_string();
                return Self::limited(ErrorCode::LoginThrottled, detail, state);
            }
            LoginError::Invalid => ErrorCode::InvalidLogin,
            LoginError::InvalidRefresh => ErrorCode::InvalidRefreshToken,
            LoginError::NoSession => ErrorCode::NotFound,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ApiKeyError> for ApiError {
    fn from(error: ApiKeyError) -> Self {
        let code = match error {
            ApiKeyError::Store(store) => return store.into(),
            ApiKeyError::Saturated(full) => return full.into(),
            ApiKeyError::Invalid(fields) => return Self::refused_fields(fields),
            ApiKeyError::NotFound | ApiKeyError::NoSuchUser => ErrorCode::NotFound,
            ApiKeyError::Conflict => ErrorCode::Conflict,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RepeatedField> for ApiError {
    fn from(error: RepeatedField) -> Self {
        Self::new(ErrorCode::DuplicateCredential, error.to_string())
    }
}

impl From<RepeatedCookie> for ApiError {
    fn from(error: RepeatedCookie) -> Self {
        Self::new(ErrorCode::DuplicateCredential, error.to_string())
    }
}

impl From<CrossSite> for ApiError {
    fn from(error: CrossSite) -> Self {
        Self::new(ErrorCode::CrossSite, error.to_string())
    }
}

/// A person is led to the login page; everybody else reads a problem.
impl IntoResponse for GatewayError {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn(page) => pages::see_other(&page),
            error => ApiError::from(error).into_response(),
        }
    }
}

impl From<UploadFault> for ApiError {
    fn from(fault: UploadFault) -> Self {
        let code = match fault {
            UploadFault::TooLarge => ErrorCode::BodyTooLarge,
            UploadFault::Stalled => ErrorCode::RequestTimeout,
            UploadFault::ClientGone => ErrorCode::InvalidRequest,
            UploadFault::Expired | UploadFault::Revoked => ErrorCode::InvalidCredential,
            UploadFault::Cut => ErrorCode::Forbidden,
        };
        Self::new(code, fault.to_string())
    }
}

impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        let detail = error.to_string();
        let code = match &error {
            UpstreamError::Unreachable(_) | UpstreamError::Broken(_) | UpstreamError::BadAnswer => {
                ErrorCode::UpstreamFailed
            }
            UpstreamError::ConnectTimeout | UpstreamError::Timeout => ErrorCode::UpstreamTimeout,
            // Not logged request by request: the breaker said so once.
            UpstreamError::Unavailable(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let error = Self::new(ErrorCode::UpstreamUnavailable, detail);
                return error.retry_after(seconds.max(1));
            }
            UpstreamError::Overloaded => {
                return Self::new(ErrorCode::UpstreamUnavailable, detail).retry_after(1);
            }
        };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            code = code.as_str(),
            "the upstream did not answer"
        );
        Self::new(code, detail)
    }
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        if let ReloadError::Unsupported = error {
            return Self::hidden(ErrorCode::Unavailable, &error);
        }
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the settings cannot be used; those in force stay"
        );
        let problems = error.problems().into_iter();
        let field = |problem: Problem| FieldProblem {
            field: problem.name,
            code: "setting".to_owned(),
            message: problem.expected,
        };
        Self::invalid_configuration(problems.map(field).collect())
    }
}

impl From<GatewayError> for ApiError {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::RepeatedField(error) => error.into(),
            GatewayError::RepeatedCookie(error) => error.into(),
            // Told otherwise where it can be, see below.
            GatewayError::SignIn(_) | GatewayError::CredentialRequired => {
                Self::new(ErrorCode::Unauthenticated, "a credential is needed")
            }
            GatewayError::CrossSite(error) => error.into(),
            GatewayError::Access(error) => error.into(),
            GatewayError::AmbiguousPath => Self::new(ErrorCode::AmbiguousPath, error.to_string()),
            GatewayError::MethodNotAllowed { .. } => {
                Self::new(ErrorCode::MethodNotAllowed, error.to_string())
            }
            GatewayError::Policy(refusal) => {
                let code = match refusal {
                    PolicyRefusal::Kind => ErrorCode::CredentialNotAccepted,
                    PolicyRefusal::Scope => ErrorCode::ScopeMissing,
                    PolicyRefusal::Role => ErrorCode::RoleRequired,
                };
                Self::new(code, refusal.to_string())
            }
            GatewayError::Handshake(BadRequest::Version) => {
                Self::new(ErrorCode::UpgradeRequired, error.to_string())
            }
            GatewayError::Handshake(_) | GatewayError::NoUpgrade => {
                Self::new(ErrorCode::InvalidRequest, error.to_string())
            }
            GatewayError::TooManySockets => {
                Self::new(ErrorCode::TooManySockets, error.to_string()).retry_after(10)
            }
            GatewayError::KeyRefused(refusal) => refusal.into(),
            GatewayError::PassRefused => {
                Self::new(ErrorCode::UpstreamNotAllowed, error.to_string())
            }
            GatewayError::Limited(exceeded) => LimitError::Exceeded(exceeded).into(),
            GatewayError::Crowded(crowded) => {
                let error = Self::new(ErrorCode::ConcurrencyLimited, crowded.to_string());
                error.shown_as(crowded.status()).retry_after(1)
            }
            GatewayError::Store(error) => error.into(),
            GatewayError::Starting => {
                Self::new(ErrorCode::Unavailable, error.to_string()).retry_after(1)
            }
            GatewayError::Saturated => Saturated.into(),
            GatewayError::Rewriting(_) | GatewayError::TooManyStreams(_) => {
                Self::new(ErrorCode::Overloaded, error.to_string()).retry_after(1)
            }
            GatewayError::Upload(fault) => fault.into(),
            GatewayError::Upstream(error) => error.into(),
        }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::Host | Fault::UntrustedHost => ErrorCode::InvalidHost,
            Fault::Framing => ErrorCode::InvalidFraming,
            Fault::HeaderName => ErrorCode::InvalidHeader,
            Fault::Path(_) => ErrorCode::AmbiguousPath,
            Fault::CredentialInUrl => ErrorCode::CredentialInUrl,
            Fault::Method => ErrorCode::MethodNotAllowed,
            Fault::UriTooLong => ErrorCode::UriTooLong,
            Fault::Panicked => ErrorCode::Internal,
            Fault::Overloaded => {
                return Self::new(ErrorCode::Overloaded, fault.to_string()).retry_after(1);
            }
        };
        Self::new(code, fault.to_string())
    }
}
