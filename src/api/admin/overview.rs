//! `/admin/overview`: everything at a glance.

use axum::{Json as JsonBody, extract::State};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::{
    api::{ApiRouter, AppState, extract::Moderator, health::HealthResponse},
    domain::id::{ApiKeyId, PassId, UserId},
    services::overview::{
        Asker, Busy, Counts, Fares, Overview, PassCounts, Sales, SalesOverview, Traffic,
        UserCounts, Volume, Volumes,
    },
};

pub(super) fn router() -> ApiRouter {
    ApiRouter::new().routes(routes!(get_overview))
}

/// A part is null where it could not be read; `unavailable` names it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OverviewResponse {
    #[schema(required = true)]
    users: Option<UsersOverview>,
    #[schema(required = true)]
    tokens: Option<TokensOverview>,
    #[schema(required = true)]
    revenue: Option<RevenueOverview>,
    /// Of when users, tokens and revenue are; at most ten minutes ago.
    counted_at: DateTime<Utc>,
    #[schema(required = true)]
    requests: Option<RequestsOverview>,
    /// Who had most requests in the last 24 hours, at most ten.
    #[schema(required = true)]
    top_principals: Option<Vec<BusyPrincipal>>,
    /// What had most requests in the last 24 hours, at most ten.
    #[schema(required = true)]
    top_upstreams: Option<Vec<BusyUpstream>>,
    /// Of when requests and the busiest are; at most a minute ago.
    summed_at: DateTime<Utc>,
    health: HealthOverview,
    /// Names of the parts that could not be read.
    #[schema(example = json!([]))]
    unavailable: Vec<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsersOverview {
    #[schema(example = 120)]
    total: i64,
    /// Those that are not disabled.
    #[schema(example = 118)]
    active: i64,
    #[schema(example = 2)]
    disabled: i64,
    /// Active ones with the role admin.
    #[schema(example = 3)]
    admins: i64,
    #[schema(example = 1)]
    new_last_24_hours: i64,
    #[schema(example = 14)]
    new_last_30_days: i64,
}

/// Access tokens; those of deleted accounts are gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokensOverview {
    #[schema(example = 340)]
    total: i64,
    /// Not begun yet.
    #[schema(example = 25)]
    unused: i64,
    /// Their time runs.
    #[schema(example = 17)]
    active: i64,
    /// Expired, revoked or refunded.
    #[schema(example = 298)]
    over: i64,
}

/// What access tokens brought, by the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevenueOverview {
    #[schema(example = "EUR")]
    currency: String,
    ever: SalesFigures,
    last_24_hours: SalesFigures,
    last_30_days: SalesFigures,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SalesFigures {
    /// What was paid less what was given back, in minor units.
    #[schema(example = 125_000)]
    revenue_minor: i64,
    /// Access tokens that were paid.
    #[schema(example = 300)]
    sold: i64,
    #[schema(example = 4)]
    refunded: i64,
}

/// A request counts within seconds of its end.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequestsOverview {
    /// Since midnight, UTC.
    today: RequestFigures,
    /// In this hour and the 23 before.
    last_24_hours: RequestFigures,
    /// Today and on the 29 days before.
    last_30_days: RequestFigures,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RequestFigures {
    /// Let through, however they ended.
    #[schema(example = 48_211)]
    requests: u64,
    /// Answered with 400 to 499.
    #[schema(example = 310)]
    client_errors: u64,
    /// Answered with 500 and above.
    #[schema(example = 12)]
    server_errors: u64,
    /// Refused by a limit; not part of `requests`.
    #[schema(example = 44)]
    rejected: u64,
}

/// By what the request was opened with.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// An access token.
    Token,
    /// An API key.
    Key,
    /// A login.
    User,
    /// No credential.
    Anonymous,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BusyPrincipal {
    #[schema(inline)]
    kind: PrincipalKind,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    user_id: Option<UserId>,
    /// Null where the account is gone.
    #[schema(required = true, example = "ada")]
    username: Option<String>,
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    key_id: Option<ApiKeyId>,
    /// Null where the key is gone.
    #[schema(required = true, example = "ci")]
    key_name: Option<String>,
    /// Of the access token.
    #[schema(value_type = Option<uuid::Uuid>, required = true)]
    token_id: Option<PassId>,
    #[serde(flatten)]
    figures: RequestFigures,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BusyUpstream {
    #[schema(example = "default")]
    name: String,
    #[serde(flatten)]
    figures: RequestFigures,
}

/// As the instance that answers sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthOverview {
    #[serde(flatten)]
    health: HealthResponse,
    /// Instances that are heard of, this one included; 1 without Redis.
    #[schema(example = 2)]
    instances: usize,
    /// For how long usage has waited for the database; 0 where none waits.
    #[schema(example = 0.4)]
    journal_lag_seconds: f64,
    /// Records of usage that wait for it.
    #[schema(example = 12)]
    journal_waiting: u64,
    /// Upstreams without a target that would be asked.
    #[schema(example = json!([]))]
    upstreams_down: Vec<String>,
}

impl From<UserCounts> for UsersOverview {
    fn from(counts: UserCounts) -> Self {
        let UserCounts { total, disabled, admins, new_since_first, new_since_second } = counts;
        Self {
            total,
            active: total - disabled,
            disabled,
            admins,
            new_last_24_hours: new_since_first,
            new_last_30_days: new_since_second,
        }
    }
}

impl From<PassCounts> for TokensOverview {
    fn from(PassCounts { total, unused, active }: PassCounts) -> Self {
        Self { total, unused, active, over: total - unused - active }
    }
}

impl From<Sales> for SalesFigures {
    fn from(Sales { sold, refunded, revenue_minor }: Sales) -> Self {
        Self { revenue_minor, sold, refunded }
    }
}

impl From<Volume> for RequestFigures {
    fn from(volume: Volume) -> Self {
        let Volume { requests, rejected, client_errors, server_errors } = volume;
        Self { requests, client_errors, server_errors, rejected }
    }
}

impl From<Volumes> for RequestsOverview {
    fn from(Volumes { today, last_day, last_30_days }: Volumes) -> Self {
        Self {
            today: today.into(),
            last_24_hours: last_day.into(),
            last_30_days: last_30_days.into(),
        }
    }
}

impl From<Busy> for BusyPrincipal {
    fn from(Busy { asker, username, key_name, volume }: Busy) -> Self {
        let Asker { user_id, key_id, pass_id } = asker;
        let kind = match (pass_id, key_id, user_id) {
            (Some(_), _, _) => PrincipalKind::Token,
            (None, Some(_), _) => PrincipalKind::Key,
            (None, None, Some(_)) => PrincipalKind::User,
            (None, None, None) => PrincipalKind::Anonymous,
        };
        let (token_id, figures) = (pass_id, volume.into());
        Self { kind, user_id, username, key_id, key_name, token_id, figures }
    }
}

impl OverviewResponse {
    fn new(overview: Overview, health: HealthResponse, instances: usize) -> Self {
        let Overview { counts, counted_at, traffic, summed_at, fares, currency } = overview;
        let Counts { users, passes, sales } = counts;
        let Traffic { volumes, askers, upstreams } = traffic;
        let Fares { journal_lag, journal_waiting, upstreams_down } = fares;
        let parts = [
            ("users", users.is_none()),
            ("tokens", passes.is_none()),
            ("revenue", sales.is_none()),
            ("requests", volumes.is_none()),
            ("top_principals", askers.is_none()),
            ("top_upstreams", upstreams.is_none()),
        ];
        let revenue = |sales: SalesOverview| RevenueOverview {
            currency: currency.to_string(),
            ever: sales.all.into(),
            last_24_hours: sales.last_day.into(),
            last_30_days: sales.last_30_days.into(),
        };
        let upstream =
            |(name, volume): (String, Volume)| BusyUpstream { name, figures: volume.into() };
        Self {
            users: users.map(UsersOverview::from),
            tokens: passes.map(TokensOverview::from),
            revenue: sales.map(revenue),
            counted_at,
            requests: volumes.map(RequestsOverview::from),
            top_principals: askers.map(|all| all.into_iter().map(Busy::into).collect()),
            top_upstreams: upstreams.map(|all| all.into_iter().map(upstream).collect()),
            summed_at,
            health: HealthOverview {
                health,
                instances,
                journal_lag_seconds: journal_lag.as_seconds_f64(),
                journal_waiting,
                upstreams_down,
            },
            unavailable: parts.iter().filter(|(_, gone)| *gone).map(|(name, _)| *name).collect(),
        }
    }
}

/// Read everything at a glance: accounts, access tokens, revenue, requests, who asks
/// most, and how it fares. Needs the role admin or moderator.
///
/// Answered from sums and indexes, however much there is. What is down is said so
/// here, with the status 200.
#[utoipa::path(
    get,
    path = "/admin/overview",
    tag = "admin",
    security(("jwt" = [])),
    responses((status = OK, body = OverviewResponse)),
)]
async fn get_overview(State(state): State<AppState>, _: Moderator) -> JsonBody<OverviewResponse> {
    let services = &state.services;
    let (overview, report) = tokio::join!(services.overview.get(), services.health.report());
    let (_, instances) = services.streams.instances();
    JsonBody(OverviewResponse::new(overview, report.into(), instances))
}
