//! `/admin`: for operators. Moderators read, admins change.

mod audit;
mod chat;
mod connections;
mod log_level;
mod metrics;
mod overview;
mod tokens;
mod upstreams;
mod users;
mod vouchers;
mod wallets;

use super::ApiRouter;

pub(super) fn router() -> ApiRouter {
    overview::router()
        .merge(users::router())
        .merge(tokens::router())
        .merge(wallets::router())
        .merge(vouchers::router())
        .merge(connections::router())
        .merge(upstreams::router())
        .merge(log_level::router())
        .merge(audit::router())
        .merge(chat::router())
        .merge(metrics::router())
}
