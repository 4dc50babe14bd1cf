//! Every setting there is: its name, default and one line of explanation.
//!
//! Data only. A default that depends on the machine or on another setting is
//! empty here, said in the explanation and worked out in
//! `assemble`.

use super::keys::{Alias, Key, Kind};

pub static KEYS: &[Key] = &[
    key("SERVER_HOST", "127.0.0.1", "Address to listen on; 0.0.0.0 for every interface."),
    key("SERVER_PORT", "8080", "Port to listen on; 0 takes any free one."),
    key(
        "SERVER_TLS_CERT",
        "",
        "PEM file of the certificate chain; both or neither. Read again on change.",
    ),
    key("SERVER_TLS_KEY", "", "PEM file of its key. With both, the port speaks TLS and HTTP/2."),
    key("SERVER_WORKERS", "", "Threads that serve connections. Default: one per core."),
    key("SERVER_TRUSTED_PROXIES", "", "Addresses or CIDRs whose X-Forwarded-* fields count."),
    key("SERVER_TRUSTED_HOSTS", "", "Host names that are answered, without port. Default: any."),
    key(
        "SERVER_PUBLIC_URL",
        "",
        "What users type, https://gate.example.com; links and redirects name its host.",
    )
    .also(&[alias("BACKEND_URL")]),
    key("SERVER_SITE_NAME", "Tollgate", "What the login page is headed with."),
    key("SERVER_SITE_COLOR", "1f5fa8", "Its colour, rrggbb; with a # in front, in quotes."),
    key("SERVER_HSTS_SECONDS", "31536000", "Strict-Transport-Security over https; 0: none."),
    key("SERVER_MAX_CONNECTIONS", "10000", "Most client connections at once."),
    key(
        "SERVER_MAX_CONNECTIONS_PER_ADDRESS",
        "100",
        "Of these, most of one address but proxies and this machine; IPv6: of a /64. 0: all.",
    ),
    key(
        "SERVER_MAX_IN_FLIGHT",
        "",
        "Most proxied requests at once; 503 beyond. Default: 80 % of SERVER_MAX_CONNECTIONS.",
    ),
    key("SERVER_MAX_STREAMS", "", "Most streams at once. Default: as SERVER_MAX_IN_FLIGHT."),
    key(
        "SERVER_MAX_LAG_SECONDS",
        "0.05",
        "A worker that is late by this, and stays so, refuses some requests. 0: never.",
    ),
    key("SERVER_MAX_MEMORY_BYTES", "", "Near it, requests are refused. Default: cgroup's. 0: any."),
    key("SERVER_HEADER_TIMEOUT_SECONDS", "10", "A request's head must arrive within this time."),
    key("SERVER_IO_TIMEOUT_SECONDS", "30", "A client that moves no byte for this long is cut off."),
    key(
        "SERVER_SHUTDOWN_DELAY_SECONDS",
        "0",
        "At a stop, not ready for this long before the port closes. Behind a balancer: 5.",
    ),
    key(
        "SERVER_SHUTDOWN_GRACE_SECONDS",
        "30",
        "At a stop, what requests under way may still take.",
    ),
    key("DATA_DIR", "data", "Folder of the SQLite file and of generated secrets."),
    key("DATABASE_URL", "", "sqlite://FILE or postgres://… Default: sqlite://DATA_DIR/tollgate.db")
        .of(Kind::Url),
    key("DATABASE_MAX_CONNECTIONS", "10", "Connections that one instance opens."),
    key("REDIS_URL", "", "redis://… or rediss://… Default: cache and limits in the process.")
        .of(Kind::Url),
    key("AUTH_ALGORITHM", "HS256", "How login tokens are signed: HS256, RS256 or EdDSA."),
    key("AUTH_SECRET_KEY", "", "HS256: 32 random bytes or more. Default: made once, in DATA_DIR.")
        .of(Kind::Secret)
        .also(&[alias("SECRET_KEY"), alias("JWT_SECRET_KEY")]),
    key("AUTH_PREVIOUS_SECRET_KEYS", "", "Comma-separated; they no longer sign but still verify.")
        .of(Kind::Secret),
    key("AUTH_PRIVATE_KEY", "", "RS256, EdDSA: PEM (PKCS#8). Default for EdDSA: made once.")
        .of(Kind::Secret),
    key("AUTH_PREVIOUS_PUBLIC_KEYS", "", "PEM, one after the other; they still verify.")
        .of(Kind::Pem),
    key("AUTH_ISSUER", "tollgate", "The `iss` of login tokens."),
    key("AUTH_AUDIENCE", "tollgate", "The `aud` of login tokens."),
    key("AUTH_TOKEN_EXPIRY_MINUTES", "60", "Life of a login token, at most 43200 (30 days).").also(
        &[
            alias("ACCESS_TOKEN_EXPIRE_MINUTES"),
            hours("AUTH_TOKEN_EXPIRY_HOURS"),
            hours("JWT_EXPIRATION_HOURS"),
        ],
    ),
    key("AUTH_REGISTRATION", "open", "open: anybody may make an account; closed: only admins."),
    key(
        "AUTH_PASSWORD_MIN_LENGTH",
        "8",
        "Fewest characters of a password, 8 to 64; 15 is advised.",
    ),
    key(
        "AUTH_ARGON2_MEMORY_KIB",
        "19456",
        "argon2id; with 1, 2, 3, 4, 5 passes at least 47104, 19456, 12288, 9216, 7168 (OWASP).",
    ),
    key("AUTH_ARGON2_PASSES", "2", "argon2id: passes over the memory."),
    key("AUTH_ARGON2_LANES", "1", "argon2id: lanes."),
    key(
        "AUTH_STALENESS_SECONDS",
        "60",
        "Without the database: how long known credentials are good, 10 to 86400. Then 503.",
    ),
    key("AUTH_REQUIRE_AUTH", "", "true: UPSTREAM_AUTH=required; false: UPSTREAM_AUTH=optional."),
    key(
        "AUTH_PUBLIC_PATHS",
        "",
        "Paths of upstreams that need no credential, comma-separated; /x/* is all below /x.",
    ),
    key("ADMIN_USERNAME", "admin", "The first admin, made at the first start only."),
    key("ADMIN_EMAIL", "admin@localhost", "The first admin's e-mail address."),
    key("ADMIN_PASSWORD", "", "The first admin's password. Default: generated and printed once.")
        .of(Kind::Secret),
    key("UPSTREAM_PRESET", "", "What a known backend needs: comfyui, n8n, jupyter or ollama.")
        .also(&[alias("PRESET")]),
    key(
        "UPSTREAM_URL",
        "",
        "The backend, http://host:port, or several, comma-separated. Default: an echo.",
    )
    .also(&[alias("ZENZEFI_TARGET_URL")]),
    key(
        "UPSTREAM_MOUNT",
        "/api/v1/proxy",
        "Its path prefix; / for all that is not ours; or a host name.",
    ),
    key(
        "UPSTREAM_ROUTES",
        "",
        "What its usage is told apart by: /v1/chat/*, /v1/**; * is one segment, ** all below.",
    ),
    key(
        "UPSTREAM_REWRITE",
        "",
        "Whether its pages are rewritten for the prefix. Default: under one.",
    ),
    key("UPSTREAM_AUTH", "required", "A caller's credential: required, optional or public."),
    key("UPSTREAM_VERIFY_TLS", "true", "Whether an https backend's certificate is checked."),
    key(
        "UPSTREAM_ASSERTION",
        "false",
        "Send X-Tollgate-Assertion, a signed identity. Needs AUTH_ALGORITHM=EdDSA or RS256.",
    ),
    key("UPSTREAM_BASIC_AUTH_USER", "", "Basic authentication towards the backend.")
        .also(&[alias("ZENZEFI_BASIC_AUTH_USER")]),
    key("UPSTREAM_BASIC_AUTH_PASSWORD", "", "Its password; both or neither.")
        .of(Kind::Secret)
        .also(&[alias("ZENZEFI_BASIC_AUTH_PASSWORD")]),
    key("UPSTREAM_CONNECT_TIMEOUT_SECONDS", "2", "To open a connection to the backend."),
    key("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", "30", "Until the backend begins to answer."),
    key("UPSTREAM_TOTAL_TIMEOUT_SECONDS", "60", "A whole exchange, unless the answer is a stream."),
    key("UPSTREAM_IDLE_TIMEOUT_SECONDS", "300", "A stream on which nothing moves is cut."),
    key("UPSTREAM_POOL_IDLE_SECONDS", "3", "Idle connections are closed; less than the backend's."),
    key("UPSTREAM_MAX_BODY_BYTES", "10485760", "Largest request body that is passed on."),
    key("RATE_LIMIT_PER_SECOND", "0", "Requests per address without a credential. 0: no limit."),
    key("RATE_LIMIT_PER_MINUTE", "60", "Requests per address without a credential. 0: no limit."),
    key("RATE_LIMIT_PER_HOUR", "1000", "Requests per address without a credential. 0: no limit."),
    key("RATE_LIMIT_PER_DAY", "0", "Requests per address without a credential. 0: no limit."),
    key("RATE_LIMIT_PER_MONTH", "0", "Requests per address without a credential. 0: no limit."),
    key("RATE_LIMIT_USER_PER_SECOND", "0", "Requests per user. 0: no limit."),
    key("RATE_LIMIT_USER_PER_MINUTE", "0", "Requests per user. 0: no limit."),
    key("RATE_LIMIT_USER_PER_HOUR", "0", "Requests per user. 0: no limit."),
    key("RATE_LIMIT_USER_PER_DAY", "0", "Requests per user. 0: no limit."),
    key("RATE_LIMIT_USER_PER_MONTH", "0", "Requests per user. 0: no limit."),
    key("RATE_LIMIT_KEY_PER_SECOND", "0", "Requests per key that sets no limit. 0: no limit."),
    key("RATE_LIMIT_KEY_PER_MINUTE", "0", "Requests per key that sets no limit. 0: no limit."),
    key("RATE_LIMIT_KEY_PER_HOUR", "0", "Requests per key that sets no limit. 0: no limit."),
    key("RATE_LIMIT_KEY_PER_DAY", "0", "Requests per key that sets no limit. 0: no limit."),
    key("RATE_LIMIT_KEY_PER_MONTH", "0", "Requests per key that sets no limit. 0: no limit."),
    key("RATE_LIMIT_TOKEN_PER_SECOND", "0", "Requests per access token. 0: no limit."),
    key("RATE_LIMIT_TOKEN_PER_MINUTE", "0", "Requests per access token. 0: no limit."),
    key("RATE_LIMIT_TOKEN_PER_HOUR", "0", "Requests per access token. 0: no limit."),
    key("RATE_LIMIT_TOKEN_PER_DAY", "0", "Requests per access token. 0: no limit."),
    key("RATE_LIMIT_TOKEN_PER_MONTH", "0", "Requests per access token. 0: no limit."),
    key(
        "RATE_LIMIT_TOKEN_PER_OWN_DAY",
        "0",
        "Requests per access token in each 24 hours from its first use. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_TOKEN_TOTAL",
        "",
        "Requests over an access token's whole time, hours:requests, as 24:1000,168:5000.",
    ),
    key(
        "RATE_LIMIT_ORIGIN_PER_SECOND",
        "0",
        "Requests per host of the page that sends them. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_ORIGIN_PER_MINUTE",
        "0",
        "Requests per host of the page that sends them. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_ORIGIN_PER_HOUR",
        "0",
        "Requests per host of the page that sends them. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_ORIGIN_PER_DAY",
        "0",
        "Requests per host of the page that sends them. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_ORIGIN_PER_MONTH",
        "0",
        "Requests per host of the page that sends them. 0: no limit.",
    ),
    key("RATE_LIMIT_SESSION_PER_SECOND", "0", "Chat messages of a session per second. 0: none."),
    key("RATE_LIMIT_SESSION_PER_MINUTE", "20", "Chat messages of a session per minute. 0: none."),
    key("RATE_LIMIT_SESSION_PER_HOUR", "200", "Chat messages of a session per hour. 0: none."),
    key("RATE_LIMIT_SESSION_PER_DAY", "0", "Chat messages of a session per day. 0: none."),
    key("RATE_LIMIT_SESSION_PER_MONTH", "0", "Chat messages of a session per month. 0: none."),
    key(
        "RATE_LIMIT_UPSTREAM_PER_SECOND",
        "0",
        "Requests to one upstream that sets no limit. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_UPSTREAM_PER_MINUTE",
        "0",
        "Requests to one upstream that sets no limit. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_UPSTREAM_PER_HOUR",
        "0",
        "Requests to one upstream that sets no limit. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_UPSTREAM_PER_DAY",
        "0",
        "Requests to one upstream that sets no limit. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_UPSTREAM_PER_MONTH",
        "0",
        "Requests to one upstream that sets no limit. 0: no limit.",
    ),
    key(
        "RATE_LIMIT_USER_MAX_CONCURRENT",
        "0",
        "Requests at once per user, on one instance. 0: any number.",
    ),
    key(
        "RATE_LIMIT_KEY_MAX_CONCURRENT",
        "0",
        "Requests at once per key that sets no limit, on one instance. 0: any number.",
    ),
    key(
        "RATE_LIMIT_TOKEN_MAX_CONCURRENT",
        "0",
        "Requests at once per access token, on one instance. 0: any number.",
    ),
    key(
        "RATE_LIMIT_UPSTREAM_MAX_CONCURRENT",
        "0",
        "Requests at once per upstream that sets no limit, on one instance. 0: any number.",
    ),
    key(
        "RATE_LIMIT_ON_STORE_LOSS",
        "share",
        "Without Redis: share (limit / instances last seen), deny or allow.",
    ),
    key("RATE_LIMIT_ADDRESS_ON_STORE_LOSS", "", "The same for limits by address alone."),
    key("RATE_LIMIT_USER_ON_STORE_LOSS", "", "The same for limits by user alone."),
    key("RATE_LIMIT_KEY_ON_STORE_LOSS", "", "The same for limits by key alone."),
    key("RATE_LIMIT_TOKEN_ON_STORE_LOSS", "", "The same for limits by access token alone."),
    key("RATE_LIMIT_ORIGIN_ON_STORE_LOSS", "", "The same for limits by origin alone."),
    key("RATE_LIMIT_SESSION_ON_STORE_LOSS", "", "The same for limits by chat session alone."),
    key("RATE_LIMIT_UPSTREAM_ON_STORE_LOSS", "", "The same for limits by upstream alone."),
    key(
        "TOKEN_PRICE_1H",
        "0",
        "An access token for an hour, in minor units (cents); off: not sold.",
    ),
    key("TOKEN_PRICE_12H", "0", "For 12 hours."),
    key("TOKEN_PRICE_24H", "0", "For a day."),
    key("TOKEN_PRICE_168H", "0", "For a week."),
    key("TOKEN_PRICE_720H", "0", "For 30 days."),
    key(
        "TOKEN_REFUND",
        "unused",
        "never; unused: in full until first used; pro_rata: also whole unused hours.",
    ),
    key("TOKEN_TRIAL_HOURS", "0", "A free access token for who registers, hours. 0: none."),
    key("WALLET_CURRENCY", "EUR", "Three letters. Fixed once there is money in the ledger."),
    key("WALLET_STARTING_BALANCE", "0", "For who registers, in minor units. 0: none."),
    key(
        "SECRETS_KEY",
        "",
        "Seals access tokens for their owners; 32 random bytes or more. Default: made once.",
    )
    .of(Kind::Secret),
    key(
        "SECRETS_PREVIOUS_KEYS",
        "",
        "Comma-separated; still open what they sealed. See tollgate secrets rotate.",
    )
    .of(Kind::Secret),
    key("CHAT_WEBHOOK_URL", "", "The workflow that chat messages go to. Default: no chat.")
        .of(Kind::Url)
        .also(&[alias("N8N_WEBHOOK_URL")]),
    key("CHAT_DEMO", "false", "true: /chat/demo; without a workflow, a built-in one answers."),
    key("CHAT_API_KEY", "", "Sent to the workflow as X-API-Key.")
        .of(Kind::Secret)
        .also(&[alias("N8N_API_KEY")]),
    key("CHAT_WEBHOOK_AUDIENCE", "chat-webhook", "The `aud` of the token that it is sent."),
    key("CHAT_WEBHOOK_TIMEOUT_SECONDS", "120", "What the workflow may take for one answer."),
    key("CHAT_MESSAGE_MAX_CHARS", "4000", "Longest message of a visitor."),
    key("CHAT_ANSWER_MAX_BYTES", "1048576", "Longest answer of the workflow."),
    key("CHAT_SESSION_MAX_MESSAGES", "2000", "Messages of one session, of both sides."),
    key("CHAT_MAX_ANSWERS", "1000", "Answers under way at once, on one instance."),
    key("CHAT_RETENTION_DAYS", "30", "How long a conversation is kept after its end."),
    key(
        "SESSION_SECRET_KEY",
        "",
        "Signs chat cookies and tokens. Default: made once, in DATA_DIR.",
    )
    .of(Kind::Secret),
    key("SESSION_COOKIE_NAME", "chat_session_id", "The cookie of a chat session."),
    key("SESSION_COOKIE_MAX_AGE", "86400", "Life of a chat session that is not used, seconds."),
    key("SESSION_MAX_AGE", "2592000", "Life of a chat session however much it is used, seconds."),
    key("SESSION_COOKIE_SAME_SITE", "lax", "lax, strict, or none for widgets on other sites."),
    key("SESSION_COOKIE_SECURE", "", "Default: as the page comes; true with SAME_SITE none."),
    key("SESSION_BINDING", "browser", "What must not change: origin; browser also; network too."),
    key("USAGE_RETENTION_DAYS", "400", "How long usage is kept; sums by whole months."),
    key("USAGE_REQUEST_LOG_MAX", "10000", "How many of the latest requests are kept one by one."),
    key(
        "USAGE_JOURNAL_MAX_BYTES",
        "1073741824",
        "What may wait in DATA_DIR/journal for the database, about 200 bytes a request.",
    ),
    key(
        "USAGE_JOURNAL_ON_FULL",
        "block",
        "Without room there: block (503 before the upstream is asked) or unmetered.",
    ),
    key("AUDIT_RETENTION_DAYS", "400", "How long rows of the audit log are kept. 0: for ever."),
    key("LOG_LEVEL", "INFO", "ERROR, WARN, INFO, DEBUG, TRACE, or directives: info,tollgate=debug"),
    key("LOG_JSON_OUTPUT", "", "Default: false on a terminal, else true."),
    key("LOG_FILE", "", "Written besides standard output, and begun anew when it is full."),
    key("LOG_MAX_SIZE_MB", "10", "How large that file grows."),
    key("LOG_MAX_FILES", "5", "How many are kept, that one among them; the others are packed."),
    key("METRICS_PORT", "", "A listener of its own for /metrics. Default: the main port."),
    key("METRICS_TOKEN", "", "Bearer token that /metrics asks for, 16 characters or more.")
        .of(Kind::Secret),
    key(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "The collector of traces, http://HOST:4318. Default: none.",
    ),
    key("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "There is no other."),
    key("OTEL_EXPORTER_OTLP_HEADERS", "", "Sent along: name=value, …; the value percent-encoded.")
        .of(Kind::Secret),
    key("OTEL_EXPORTER_OTLP_TIMEOUT", "10000", "What one export may take, milliseconds."),
    key("OTEL_SERVICE_NAME", "tollgate", "What this is called in traces."),
    key("OTEL_RESOURCE_ATTRIBUTES", "", "What else is said of it: name=value, …"),
    key(
        "OTEL_TRACES_SAMPLER",
        "parentbased_always_on",
        "always_on, always_off, traceidratio; behind parentbased_: as who asks says.",
    ),
    key("OTEL_TRACES_SAMPLER_ARG", "1", "The part of traces that traceidratio keeps, 0 to 1."),
    key(
        "OTEL_TRACES_TRUSTED_PARENTS",
        "",
        "CIDRs that may say what is kept. Default: SERVER_TRUSTED_PROXIES.",
    ),
    key("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "Spans that may wait; others are dropped."),
    key("OTEL_BSP_SCHEDULE_DELAY", "5000", "How long spans are gathered, milliseconds."),
    key("OTEL_SDK_DISABLED", "false", "true: no traces, whatever the others say."),
    key("ALLOWED_ORIGINS", "", "Origins that browsers may call from (CORS), comma-separated."),
];

const fn key(env: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { env, aliases: &[], kind: Kind::Plain, default, doc }
}

const fn alias(env: &'static str) -> Alias {
    Alias { env, scale: 1 }
}

const fn hours(env: &'static str) -> Alias {
    Alias { env, scale: 60 }
}

impl Key {
    const fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    const fn also(mut self, aliases: &'static [Alias]) -> Self {
        self.aliases = aliases;
        self
    }
}
