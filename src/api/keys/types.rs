//! What is said and answered about keys.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Object, ObjectBuilder, Type, schema::SchemaType},
};
use validator::Validate;

use super::{
    limits::{KeyLimit, inputs},
    usage::KeyUsageResponse,
};
use crate::{
    api::{
        double_option::{self, DoubleOption},
        validate,
    },
    domain::{
        api_key::ApiKey,
        id::{ApiKeyId, UserId},
    },
    services::{
        api_keys::{IssuedKey, KeyFilter},
        key_input::KeyChange,
        usage::KeyUsage,
    },
};

fn notes() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Your own notes, at most 8 KiB."))
        .examples([json!({"team": "search"})])
        .build()
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct CreateKeyRequest {
    #[schema(example = "ci", min_length = 1, max_length = 100)]
    name: String,
    /// For whom; only admins may name somebody else. Default: me.
    #[schema(value_type = Option<uuid::Uuid>)]
    user_id: Option<UserId>,
    /// Requests per rolling hour. Default: the configured limit for keys.
    #[schema(example = 1000, minimum = 1)]
    rate_limit: Option<u32>,
    /// Requests per rolling minute. Default: the configured limit for keys.
    #[schema(example = 60, minimum = 1)]
    rate_limit_per_minute: Option<u32>,
    /// Default: every scope.
    #[schema(example = json!(["images:write"]))]
    scopes: Option<Vec<String>>,
    /// Names of the upstreams it opens. Default: all.
    #[schema(example = json!([]))]
    upstreams: Option<Vec<String>>,
    /// Addresses or networks it may be used from. Default: anywhere.
    #[schema(example = json!(["192.0.2.0/24", "2001:db8::/48"]))]
    allowed_ips: Option<Vec<String>>,
    /// Origins a browser may use it from. Default: any.
    #[schema(example = json!([]))]
    allowed_origins: Option<Vec<String>>,
    #[schema(example = "2099-01-01T00:00:00Z")]
    expires_at: Option<DateTime<Utc>>,
    /// Requests per calendar month, UTC. Default: no quota.
    #[schema(example = 100_000, minimum = 1)]
    monthly_quota: Option<u64>,
    /// Further limits, each by a name of its own. Of several over one window the
    /// smallest counts.
    #[schema(max_items = 8, example = json!([{"name": "burst", "limit": 5, "window": "second"}]))]
    limits: Option<Vec<KeyLimit>>,
    /// Requests at once, on one instance; 0: any number. Default: as configured
    /// for keys.
    #[schema(example = 4, minimum = 0)]
    max_concurrent: Option<u32>,
    /// Your own notes, at most 8 KiB.
    #[schema(schema_with = notes)]
    metadata: Option<Map<String, Value>>,
}

impl CreateKeyRequest {
    pub(super) fn split(self) -> (Option<UserId>, KeyChange) {
        let fields = KeyChange {
            name: Some(self.name),
            scopes: self.scopes,
            upstreams: self.upstreams,
            allowed_ips: self.allowed_ips,
            allowed_origins: self.allowed_origins,
            rate_limit: self.rate_limit.map(Some),
            rate_limit_per_minute: self.rate_limit_per_minute.map(Some),
            monthly_quota: self.monthly_quota.map(Some),
            limits: self.limits.map(inputs),
            max_concurrent: self.max_concurrent.map(Some),
            expires_at: self.expires_at.map(Some),
            metadata: self.metadata,
            is_active: None,
        };
        (self.user_id, fields)
    }
}

#[derive(Debug, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct UpdateKeyRequest {
    #[schema(example = "ci", min_length = 1, max_length = 100)]
    name: Option<String>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<u32>, example = 1000, minimum = 1)]
    rate_limit: DoubleOption<u32>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<u32>, example = 60, minimum = 1)]
    rate_limit_per_minute: DoubleOption<u32>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["images:write"]))]
    scopes: DoubleOption<Vec<String>>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<Vec<String>>, example = json!([]))]
    upstreams: DoubleOption<Vec<String>>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<Vec<String>>, example = json!(["192.0.2.0/24"]))]
    allowed_ips: DoubleOption<Vec<String>>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<Vec<String>>, example = json!([]))]
    allowed_origins: DoubleOption<Vec<String>>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<DateTime<Utc>>, example = "2099-01-01T00:00:00Z")]
    expires_at: DoubleOption<DateTime<Utc>>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<u64>, example = 100_000, minimum = 1)]
    monthly_quota: DoubleOption<u64>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(
        value_type = Option<Vec<KeyLimit>>,
        max_items = 8,
        example = json!([{"name": "burst", "limit": 5, "window": "second"}]),
    )]
    limits: DoubleOption<Vec<KeyLimit>>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(value_type = Option<u32>, example = 4, minimum = 0)]
    max_concurrent: DoubleOption<u32>,
    #[serde(default, deserialize_with = "double_option::some")]
    #[schema(schema_with = notes)]
    metadata: DoubleOption<Map<String, Value>>,
    /// False stops the key until it is set to true again.
    is_active: Option<bool>,
}

impl From<UpdateKeyRequest> for KeyChange {
    fn from(request: UpdateKeyRequest) -> Self {
        Self {
            name: request.name,
            // Null empties a list: no restriction.
            scopes: request.scopes.map(Option::unwrap_or_default),
            upstreams: request.upstreams.map(Option::unwrap_or_default),
            allowed_ips: request.allowed_ips.map(Option::unwrap_or_default),
            allowed_origins: request.allowed_origins.map(Option::unwrap_or_default),
            rate_limit: request.rate_limit,
            rate_limit_per_minute: request.rate_limit_per_minute,
            monthly_quota: request.monthly_quota,
            limits: request.limits.map(|limits| inputs(limits.unwrap_or_default())),
            max_concurrent: request.max_concurrent,
            expires_at: request.expires_at,
            metadata: request.metadata.map(Option::unwrap_or_default),
            is_active: request.is_active,
        }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct RotateKeyRequest {
    /// How long the old text still works; at most 30 days. Default: not at all.
    #[schema(example = 3600, minimum = 0, maximum = 2_592_000)]
    #[validate(range(max = 2_592_000, message = "must be at most 2592000 (30 days)"))]
    pub(super) grace_period_seconds: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams, Validate)]
#[into_params(parameter_in = Query)]
pub struct ListKeysQuery {
    /// Keys of this user.
    #[param(value_type = Option<uuid::Uuid>)]
    user_id: Option<UserId>,
    is_active: Option<bool>,
    /// Part of the name or the prefix, without regard to case.
    #[param(example = "ci")]
    #[validate(
        length(max = 100, message = "must have at most 100 characters"),
        custom(function = validate::no_nul)
    )]
    q: Option<String>,
}

impl From<ListKeysQuery> for KeyFilter {
    fn from(query: ListKeysQuery) -> Self {
        let ListKeysQuery { user_id, is_active, q } = query;
        Self { user_id, is_active, q }
    }
}

/// A key, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyResponse {
    #[schema(value_type = uuid::Uuid)]
    id: ApiKeyId,
    #[schema(example = "ci")]
    name: String,
    /// The first characters of the text, for recognition.
    #[schema(example = "tg_0dPtW")]
    prefix: String,
    #[schema(value_type = uuid::Uuid)]
    user_id: UserId,
    scopes: Vec<String>,
    upstreams: Vec<String>,
    #[schema(required = true, example = 1000)]
    rate_limit: Option<u32>,
    #[schema(required = true, example = 60)]
    rate_limit_per_minute: Option<u32>,
    #[schema(required = true)]
    monthly_quota: Option<u64>,
    limits: Vec<KeyLimit>,
    #[schema(required = true, example = 4)]
    max_concurrent: Option<u32>,
    allowed_ips: Vec<String>,
    allowed_origins: Vec<String>,
    is_active: bool,
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    /// Up to a second late.
    #[schema(required = true)]
    last_used_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    #[schema(required = true)]
    rotated_at: Option<DateTime<Utc>>,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl From<ApiKey> for KeyResponse {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            prefix: key.prefix,
            user_id: key.user_id,
            scopes: key.scopes,
            upstreams: key.upstreams,
            rate_limit: key.rate_limit,
            rate_limit_per_minute: key.rate_limit_per_minute,
            monthly_quota: key.monthly_quota,
            limits: key.limits.into_iter().map(KeyLimit::from).collect(),
            max_concurrent: key.max_concurrent,
            allowed_ips: key.allowed_ips.iter().map(ToString::to_string).collect(),
            allowed_origins: key.allowed_origins,
            is_active: key.is_active,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
            rotated_at: key.rotated_at,
            metadata: key.metadata,
        }
    }
}

/// A key with its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct IssuedKeyResponse {
    #[serde(flatten)]
    details: KeyResponse,
    /// Shown only in this answer.
    #[schema(example = "tg_0dPtW1NSqjrWsKUhJRrKSYLqAmUqFHSbzVDf5yhtUnY1Qtl2Ca")]
    key: String,
}

impl From<IssuedKey> for IssuedKeyResponse {
    fn from(issued: IssuedKey) -> Self {
        Self { key: issued.token.expose().to_owned(), details: issued.key.into() }
    }
}

/// A key with its usage.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyDetailResponse {
    #[serde(flatten)]
    details: KeyResponse,
    usage: KeyUsageResponse,
}

impl KeyDetailResponse {
    pub(super) fn new(key: ApiKey, usage: KeyUsage) -> Self {
        Self { details: key.into(), usage: usage.into() }
    }
}
