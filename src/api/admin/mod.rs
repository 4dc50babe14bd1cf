//! `/admin`: for operators. Moderators read, admins change.

mod users;

use super::ApiRouter;

pub(super) fn router() -> ApiRouter {
    users::router()
}
