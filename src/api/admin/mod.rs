//! `/admin`: for operators. Moderators read, admins change.

mod tokens;
mod users;

use super::ApiRouter;

pub(super) fn router() -> ApiRouter {
    users::router().merge(tokens::router())
}
