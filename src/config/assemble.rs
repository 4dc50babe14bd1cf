//! Builds the [`Config`] section by section and checks what several settings
//! mean together. It goes on after a problem, so that all are found at once.

use std::path::Path;

use super::{
    AdminConfig, Algorithm, AuditConfig, AuthConfig, Config, DatabaseConfig, JournalConfig,
    PassesConfig, RedisConfig, SecretsConfig, UsageConfig, WalletConfig, addresses, chat, limits,
    output,
    reader::Reader,
    server, strength, traces, upstreams, values,
    values::{list, number, seconds, truth},
};
use crate::domain::{
    money::{Amount, MAX_AMOUNT},
    pass::MAX_HOURS,
    policy::Demand,
};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
use secrecy::SecretString;

pub(super) fn config(reader: &mut Reader, tables: Vec<toml::Table>) -> Config {
    let server = server::server(reader);
    let data_dir = reader.required("DATA_DIR", values::folder);
    Config {
        database: database(reader, &data_dir),
        redis: reader.secret("REDIS_URL", addresses::redis_url).map(|url| RedisConfig { url }),
        auth: auth(reader),
        admin: admin(reader),
        upstreams: upstreams::all(reader, tables),
        limits: limits::limits(reader),
        passes: passes(reader),
        wallet: WalletConfig {
            currency: reader.required("WALLET_CURRENCY", values::currency),
            starting_balance: Amount::new(
                reader.required("WALLET_STARTING_BALANCE", number(0..=MAX_AMOUNT)),
            ),
        },
        secrets: SecretsConfig {
            key: reader.secret("SECRETS_KEY", strength::signing_secret),
            previous: previous_secrets(reader, "SECRETS_PREVIOUS_KEYS"),
        },
        audit: AuditConfig {
            retention_days: reader.required("AUDIT_RETENTION_DAYS", number(0..=36_500)),
        },
        chat: chat::chat(reader),
        usage: UsageConfig {
            retention_days: reader.required("USAGE_RETENTION_DAYS", number(1..=3650)),
            request_log_max: reader.required("USAGE_REQUEST_LOG_MAX", number(0..=10_000_000)),
            journal: JournalConfig {
                folder: data_dir.join("journal"),
                max_bytes: reader.required("USAGE_JOURNAL_MAX_BYTES", number(MIB..=1024 * GIB)),
                on_full: reader.required("USAGE_JOURNAL_ON_FULL", values::on_full),
            },
        },
        log: output::log(reader),
        metrics: output::metrics(reader, &server),
        traces: traces::traces(reader, &server.trusted_proxies),
        allowed_origins: reader
            .optional("ALLOWED_ORIGINS", list(addresses::origin))
            .unwrap_or_default(),
        server,
        data_dir,
    }
}

fn database(reader: &mut Reader, data_dir: &Path) -> DatabaseConfig {
    let file = format!("sqlite://{}", data_dir.join("tollgate.db").display());
    DatabaseConfig {
        url: reader.or("DATABASE_URL", (file.as_str().into(), file.clone()), |text| {
            addresses::database_url(text).map(|()| text.into())
        }),
        max_connections: reader.required("DATABASE_MAX_CONNECTIONS", number(1..=1000)),
    }
}

fn auth(reader: &mut Reader) -> AuthConfig {
    let algorithm = reader.required("AUTH_ALGORITHM", values::algorithm);
    let private_key = match algorithm {
        Algorithm::Hs256 => {
            if reader.given("AUTH_PRIVATE_KEY").is_some() {
                reader.refuse("AUTH_PRIVATE_KEY", "expected AUTH_ALGORITHM RS256 or EdDSA with it");
            }
            None
        }
        _ => reader.secret("AUTH_PRIVATE_KEY", |pem| strength::private_key(pem, algorithm)),
    };
    if algorithm == Algorithm::Rs256 && reader.given("AUTH_PRIVATE_KEY").is_none() {
        reader.refuse("AUTH_PRIVATE_KEY", "expected an RSA private key, since it is RS256");
    }
    let (argon2_memory_kib, argon2_passes, argon2_lanes) = argon2(reader);
    AuthConfig {
        algorithm,
        secret_key: reader.secret("AUTH_SECRET_KEY", strength::signing_secret),
        private_key,
        previous_secret_keys: previous_secrets(reader, "AUTH_PREVIOUS_SECRET_KEYS"),
        previous_public_keys: reader
            .optional("AUTH_PREVIOUS_PUBLIC_KEYS", strength::public_keys)
            .unwrap_or_default(),
        issuer: reader.required("AUTH_ISSUER", values::line(255)),
        audience: reader.required("AUTH_AUDIENCE", values::line(255)),
        token_life: reader.required("AUTH_TOKEN_EXPIRY_MINUTES", values::token_life),
        registration: reader.required("AUTH_REGISTRATION", values::registration),
        password_min_length: reader.required("AUTH_PASSWORD_MIN_LENGTH", number(8..=64)),
        argon2_memory_kib,
        argon2_passes,
        argon2_lanes,
        staleness: reader.required("AUTH_STALENESS_SECONDS", seconds(10.0..=86_400.0)),
    }
}

/// Secrets that were in force before.
fn previous_secrets(reader: &mut Reader, env: &str) -> Vec<SecretString> {
    let one = |text: &str| strength::signing_secret(text).map(|()| text.into());
    reader.optional(env, list(one)).unwrap_or_default()
}

/// The equally strong pairs of OWASP's Password Storage Cheat Sheet are the
/// floor: fewer passes need more memory.
fn argon2(reader: &mut Reader) -> (u32, u32, u32) {
    let memory = reader.required("AUTH_ARGON2_MEMORY_KIB", number(7168..=4_194_304));
    let passes = reader.required("AUTH_ARGON2_PASSES", number(1..=100));
    let least = match passes {
        1 => 47_104,
        2 => 19_456,
        3 => 12_288,
        4 => 9_216,
        _ => 7_168,
    };
    if memory < least {
        reader.refuse(
            "AUTH_ARGON2_MEMORY_KIB",
            format!("expected at least {least} with the passes of AUTH_ARGON2_PASSES"),
        );
    }
    (memory, passes, reader.required("AUTH_ARGON2_LANES", number(1..=16)))
}

fn admin(reader: &mut Reader) -> AdminConfig {
    let least = reader.required("AUTH_PASSWORD_MIN_LENGTH", number(8..=64));
    AdminConfig {
        username: reader.required("ADMIN_USERNAME", values::username),
        email: reader.required("ADMIN_EMAIL", values::email),
        password: reader.secret("ADMIN_PASSWORD", strength::admin_password(least)),
    }
}

/// A shared secret has no key set, so nobody could check what it signs.
pub(super) fn assertion(reader: &mut Reader) -> bool {
    let assertion = reader.required("UPSTREAM_ASSERTION", truth);
    if assertion && reader.required("AUTH_ALGORITHM", values::algorithm) == Algorithm::Hs256 {
        reader.refuse("UPSTREAM_ASSERTION", "expected AUTH_ALGORITHM EdDSA or RS256 with it");
    }
    assertion
}

/// `AUTH_REQUIRE_AUTH` says the same more coarsely. Of different layers the
/// later one holds; within one layer they must not contradict each other.
pub(super) fn upstream_auth(reader: &mut Reader) -> Demand {
    let policy = reader.required("UPSTREAM_AUTH", values::demand);
    let Some(required) = reader.optional("AUTH_REQUIRE_AUTH", truth) else { return policy };
    let coarse = if required { Demand::Required } else { Demand::Optional };
    let origin_of = |reader: &Reader, env| reader.given(env).map(|setting| setting.origin);
    let (fine_from, coarse_from) =
        (origin_of(reader, "UPSTREAM_AUTH"), origin_of(reader, "AUTH_REQUIRE_AUTH"));
    if fine_from < coarse_from {
        return coarse;
    }
    if fine_from == coarse_from && required != (policy == Demand::Required) {
        reader.refuse("AUTH_REQUIRE_AUTH", "contradicts UPSTREAM_AUTH; remove one of the two");
    }
    policy
}

fn passes(reader: &mut Reader) -> PassesConfig {
    const SOLD: [(u32, &str); 5] = [
        (1, "TOKEN_PRICE_1H"),
        (12, "TOKEN_PRICE_12H"),
        (24, "TOKEN_PRICE_24H"),
        (168, "TOKEN_PRICE_168H"),
        (720, "TOKEN_PRICE_720H"),
    ];
    let price = |(hours, env)| reader.required(env, values::price).map(|price| (hours, price));
    let prices = SOLD.into_iter().filter_map(price).collect();
    PassesConfig {
        prices,
        refund: reader.required("TOKEN_REFUND", values::refund_policy),
        trial_hours: reader.required("TOKEN_TRIAL_HOURS", number(0..=MAX_HOURS)),
    }
}
