//! The generated OpenAPI document: its base, and what all operations share.

use utoipa::{
    Modify, OpenApi as _,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
        path::{Operation, PathItem},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::error::Problem;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tollgate",
        description = "Accounts, API keys, limits and metering in front of any HTTP backend.\n\n\
            Every path under `/api/v1` also answers under `/api`. Errors are \
            `application/problem+json` (RFC 9457); match on `code`, never on `detail`.",
    ),
    components(schemas(Problem)),
    modifiers(&Security),
    tags(
        (name = "auth", description = "Accounts and logins"),
        (name = "users", description = "My account"),
        (name = "keys", description = "API keys"),
        (name = "tokens", description = "Access tokens: time that is bought"),
        (name = "wallet", description = "What I may spend"),
        (name = "chat", description = "Conversations of visitors with a workflow"),
        (name = "usage", description = "What was used"),
        (name = "admin", description = "For operators"),
        (name = "proxy", description = "The upstream behind the gateway"),
        (name = "operations", description = "Health, keys for verifying, metrics"),
    ),
)]
struct Base;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let jwt = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("The `access_token` of `POST /auth/login`."))
            .build();
        components.add_security_scheme("jwt", SecurityScheme::Http(jwt));
        let key = ApiKeyValue::with_description(
            "X-API-Key",
            "The text of an API key, `tg_…`. Also as `Authorization: Bearer tg_…`.",
        );
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let visitor = ApiKeyValue::with_description(
            "chat_session_id",
            "Set by `POST /session/create`; `SESSION_COOKIE_NAME` may name it otherwise.",
        );
        let visitor = SecurityScheme::ApiKey(ApiKey::Cookie(visitor));
        components.add_security_scheme("chat_session", visitor);
        let token = ApiKeyValue::with_description(
            "X-Access-Token",
            "The text of an access token (a time pass), `tga_…`. Opens the upstream.",
        );
        let token = SecurityScheme::ApiKey(ApiKey::Header(token));
        components.add_security_scheme("access_token", token);
    }
}

pub(super) fn base() -> OpenApi {
    Base::openapi()
}

/// Adds to every operation the errors that any of its kind can answer with,
/// unless it describes that status itself.
pub(super) fn add_common_errors(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            let mut statuses = vec![("400", "The request is malformed")];
            if is_secured(operation) {
                statuses.push(("401", "No credential, or not a valid one"));
                statuses.push(("403", "The credential may not do this"));
            }
            if path.contains('{') {
                // `/keys/{id}` with the id `verify` is another path.
                statuses.push(("405", "The path with this value has other methods"));
            }
            if operation.request_body.is_some() {
                statuses.push(("413", "The body is too large"));
                statuses.push(("415", "The body has another media type"));
            }
            if operation.request_body.is_some() || operation.parameters.is_some() {
                statuses.push(("422", "Some fields are not valid; `errors` names all of them"));
            }
            if path.starts_with("/api/") {
                statuses.push(("429", "A limit is reached; `Retry-After` says when to come back"));
            }
            statuses.push(("500", "A fault of ours"));
            statuses.push(("503", "A dependency is down, or there is too much at once"));
            let responses = &mut operation.responses.responses;
            for (status, description) in statuses {
                responses.entry(status.to_owned()).or_insert_with(|| problem(description));
            }
            responses.values_mut().for_each(name_media_type);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
        &mut item.head,
        &mut item.options,
    ]
    .into_iter()
    .filter_map(Option::as_mut)
}

/// `security: [{}]` means that none is needed.
fn is_secured(operation: &Operation) -> bool {
    let needs = serde_json::to_value(&operation.security).unwrap_or_default();
    needs.as_array().is_some_and(|all| {
        all.iter().any(|one| one.as_object().is_some_and(|schemes| !schemes.is_empty()))
    })
}

/// A body that is a [`Problem`] is not plain JSON.
fn name_media_type(response: &mut RefOr<utoipa::openapi::Response>) {
    const PROBLEM: &str = "#/components/schemas/Problem";
    let RefOr::T(response) = response else { return };
    let is_problem = response.content.get("application/json").is_some_and(|content| {
        let RefOr::T(content) = content else { return false };
        matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location == PROBLEM)
    });
    if is_problem && let Some(content) = response.content.shift_remove("application/json") {
        response.content.insert("application/problem+json".to_owned(), content);
    }
}

fn problem(description: &str) -> RefOr<utoipa::openapi::Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    RefOr::T(response.build())
}
