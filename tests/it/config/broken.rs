//! What is refused, and by what name it is reported.

use tollgate::config::{Config, table::KEYS};

use super::{EDDSA, env, file, names, problems};

/// Every one is the only thing wrong. The name, a bad value, and a word of what
/// was expected instead.
const BROKEN: &[(&str, &str, &str)] = &[
    ("SERVER_HOST", "gate.example", "IP address"),
    ("SERVER_PORT", "65536", "0 to 65535"),
    ("SERVER_PORT", "http", "0 to 65535"),
    ("SERVER_WORKERS", "0", "1 to 1024"),
    ("SERVER_TRUSTED_PROXIES", "10.0.0.0/33", "CIDR"),
    ("SERVER_TRUSTED_PROXIES", "10.0.0.1,proxy", "item 2"),
    ("SERVER_TRUSTED_HOSTS", "https://gate.example", "host name"),
    ("SERVER_TRUSTED_HOSTS", "*", "host name"),
    ("SERVER_PUBLIC_URL", "gate.example", "https://HOST"),
    ("SERVER_PUBLIC_URL", "https://gate.example/app", "path"),
    ("BACKEND_URL", "ftp://gate.example", "https://HOST"),
    ("SERVER_SITE_NAME", "a\nb", "one line"),
    ("SERVER_SITE_COLOR", "red", "rrggbb"),
    ("SERVER_SITE_COLOR", "#12345", "rrggbb"),
    ("SERVER_MAX_CONNECTIONS", "-1", "whole number"),
    ("SERVER_MAX_IN_FLIGHT", "0", "whole number"),
    ("SERVER_MAX_STREAMS", "many", "whole number"),
    ("SERVER_MAX_CONNECTIONS_PER_ADDRESS", "-1", "whole number"),
    ("SERVER_MAX_LAG_SECONDS", "50ms", "number of seconds"),
    ("SERVER_MAX_MEMORY_BYTES", "512M", "whole number"),
    ("SERVER_HEADER_TIMEOUT_SECONDS", "0", "seconds"),
    ("SERVER_IO_TIMEOUT_SECONDS", "10s", "seconds"),
    ("SERVER_SHUTDOWN_GRACE_SECONDS", "NaN", "seconds"),
    ("DATA_DIR", "/var/lib/gate?mode=memory", "a folder"),
    ("DATABASE_URL", "mysql://db/gate", "sqlite://"),
    ("DATABASE_MAX_CONNECTIONS", "0", "1 to 1000"),
    ("REDIS_URL", "http://cache", "redis://"),
    ("REDIS_URL", "redis+sentinel://cache/main", "not supported by this version"),
    ("REDIS_URL", "redis://a:6379,redis://b:6379", "not supported by this version"),
    ("AUTH_SECRET_KEY", "too short", "32 bytes"),
    ("AUTH_SECRET_KEY", "changeme-changeme-changeme-changeme", "sample"),
    ("SECRET_KEY", "your-secret-key-here-your-secret-key", "sample"),
    ("JWT_SECRET_KEY", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "pattern"),
    ("AUTH_SECRET_KEY_FILE", "/nonexistent/jwt", "cannot be read"),
    ("AUTH_PREVIOUS_SECRET_KEYS", "qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE,short", "item 2"),
    ("AUTH_PREVIOUS_PUBLIC_KEYS", "-----BEGIN PUBLIC KEY-----", "PEM"),
    ("AUTH_ALGORITHM", "none", "HS256"),
    ("AUTH_PRIVATE_KEY", EDDSA, "AUTH_ALGORITHM"),
    ("AUTH_ISSUER", "a\nb", "one line"),
    ("AUTH_TOKEN_EXPIRY_MINUTES", "0", "1 second"),
    ("ACCESS_TOKEN_EXPIRE_MINUTES", "43201", "30 days"),
    ("JWT_EXPIRATION_HOURS", "721", "30 days"),
    ("AUTH_TOKEN_EXPIRY_HOURS", "soon", "30 days"),
    ("AUTH_REGISTRATION", "invite", "not supported by this version"),
    ("AUTH_REGISTRATION", "no", "open or closed"),
    ("AUTH_PASSWORD_MIN_LENGTH", "7", "8 to 64"),
    ("AUTH_ARGON2_MEMORY_KIB", "12288", "19456"),
    ("AUTH_STALENESS_SECONDS", "9", "seconds"),
    ("AUTH_ARGON2_PASSES", "0", "1 to 100"),
    ("AUTH_REQUIRE_AUTH", "maybe", "true or false"),
    ("ADMIN_USERNAME", "the admin", "without spaces"),
    ("ADMIN_EMAIL", "nobody", "e-mail"),
    ("ADMIN_PASSWORD", "Admin123", "first guesses"),
    ("ADMIN_PASSWORD", "kT9#x", "8 characters"),
    ("UPSTREAM_URL", "backend:3000", "http://HOST"),
    ("UPSTREAM_URL", "http://user:pass@backend", "without user name"),
    ("ZENZEFI_TARGET_URL", "http://backend/path", "without path"),
    ("UPSTREAM_URL", "http://a,b", "http://HOST"),
    ("UPSTREAM_MOUNT", "/api", "hides no route"),
    ("UPSTREAM_MOUNT", "/logout", "hides no route"),
    ("UPSTREAM_MOUNT", "/.tollgate/app", "hides no route"),
    ("UPSTREAM_MOUNT", "/app/", "slash at the end"),
    ("UPSTREAM_MOUNT", "app", "host name"),
    ("UPSTREAM_MOUNT", "/.tollgate", "hides no route"),
    ("UPSTREAM_AUTH", "yes", "public, optional or required"),
    ("UPSTREAM_VERIFY_TLS", "maybe", "true or false"),
    ("UPSTREAM_ASSERTION", "maybe", "true or false"),
    ("UPSTREAM_ASSERTION", "true", "EdDSA or RS256"),
    ("UPSTREAM_BASIC_AUTH_USER", "gate", "UPSTREAM_BASIC_AUTH_PASSWORD"),
    ("ZENZEFI_BASIC_AUTH_PASSWORD", "x", "UPSTREAM_BASIC_AUTH_USER"),
    ("UPSTREAM_CONNECT_TIMEOUT_SECONDS", "0", "seconds"),
    ("UPSTREAM_MAX_BODY_BYTES", "10MB", "whole number"),
    ("RATE_LIMIT_PER_MINUTE", "-5", "whole number"),
    ("RATE_LIMIT_ON_STORE_LOSS", "open", "share, deny or allow"),
    ("RATE_LIMIT_KEY_ON_STORE_LOSS", "Deny", "share, deny or allow"),
    ("RATE_LIMIT_ORIGIN_PER_SECOND", "many", "whole number"),
    ("RATE_LIMIT_UPSTREAM_PER_MONTH", "4294967296", "whole number"),
    ("RATE_LIMIT_TOKEN_PER_OWN_DAY", "-1", "whole number"),
    ("RATE_LIMIT_TOKEN_TOTAL", "24", "24:1000"),
    ("RATE_LIMIT_TOKEN_TOTAL", "24:5,168:0", "item 2"),
    ("RATE_LIMIT_TOKEN_TOTAL", "24:5,24:6", "each length once"),
    ("RATE_LIMIT_USER_MAX_CONCURRENT", "1000001", "whole number"),
    ("TOKEN_PRICE_1H", "-1", "whole minor units"),
    ("TOKEN_PRICE_12H", "free", "or off"),
    ("TOKEN_PRICE_24H", "12.50", "12.50 is 1250"),
    ("TOKEN_PRICE_168H", "1e3", "whole minor units"),
    ("TOKEN_PRICE_720H", "9223372036854775807", "whole minor units"),
    ("TOKEN_REFUND", "half", "never, unused or pro_rata"),
    ("TOKEN_TRIAL_HOURS", "87601", "0 to 87600"),
    ("WALLET_CURRENCY", "EURO", "three letters"),
    ("WALLET_STARTING_BALANCE", "-1", "whole"),
    ("SECRETS_KEY", "too short", "32 bytes"),
    ("SECRETS_PREVIOUS_KEYS", "qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE,short", "item 2"),
    ("USAGE_RETENTION_DAYS", "0", "1 to 3650"),
    ("AUDIT_RETENTION_DAYS", "-1", "0 to 36500"),
    ("LOG_LEVEL", "verbose", "level"),
    ("LOG_JSON_OUTPUT", "pretty", "true or false"),
    ("METRICS_PORT", "8080", "SERVER_PORT"),
    ("METRICS_PORT", "0", "1 to 65535"),
    ("METRICS_TOKEN", "short", "16"),
    ("ALLOWED_ORIGINS", "*", "wildcard"),
    ("ALLOWED_ORIGINS", "https://a.example,b.example", "item 2"),
    ("ALLOWED_ORIGINS", "https://a.example/app", "path"),
    ("SERVER_PROT", "80", "did you mean SERVER_PORT?"),
    ("SERVER_PORT_FILE", "/run/port", "not a known setting"),
    ("DATABASE_HOST", "db", "not a known setting"),
    ("SERVER_TLS_CERT", "/etc/cert.pem", "SERVER_TLS_KEY with it"),
    ("UPSTREAM_PRESET", "excel", "comfyui, n8n, jupyter or ollama"),
    ("AUTH_PUBLIC_PATHS", "/a,b", "begins with /"),
    ("AUTH_PUBLIC_PATHS", "/a*", "/* at its end"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4317", "http://HOST"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:secret@otel", "without user name"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,bearer", "item 2"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "host=a", "frames a message"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "whole number"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a", "percent-encoded"),
    ("OTEL_TRACES_SAMPLER", "jaeger_remote", "parentbased_"),
    ("OTEL_TRACES_SAMPLER_ARG", "10%", "0 to 1"),
    ("OTEL_TRACES_TRUSTED_PARENTS", "mesh", "CIDR"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "1 to 100000"),
    ("OTEL_BSP_SCHEDULE_DELAY", "-1", "whole number"),
    ("OTEL_SDK_DISABLED", "maybe", "true or false"),
];

#[test]
fn a_broken_setting_is_named_as_it_was_written_with_what_was_expected() {
    for (name, value, expected) in BROKEN {
        let found = problems(&env(&[(name, value)]));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert_eq!(found[0].0, *name);
        assert!(found[0].1.contains(expected), "{found:?}");
    }
}

#[test]
fn everything_is_reported_at_once() {
    // Each of the two is what the other lacks.
    let broken = BROKEN.iter().filter(|(name, ..)| !name.contains("BASIC_AUTH"));
    let pairs: Vec<_> = broken.map(|(name, value, _)| (*name, *value)).collect();
    let reported = names(&env(&pairs));
    for (name, _) in pairs {
        // Two names for one setting are reported as a pair.
        assert!(reported.iter().any(|reported| reported.contains(name)), "{name} in {reported:?}");
    }
}

#[test]
fn no_value_is_repeated_in_a_problem() {
    let bad = "hunter2 \u{1b} hunter2";
    let mut texts = vec![];
    for key in KEYS {
        for name in [key.env.to_owned(), format!("{}_FILE", key.env), format!("{}X", key.env)] {
            let error = Config::load(&env(&[(&name, bad)])).err();
            texts.extend(error.map(|error| error.to_string()));
        }
        let (section, name) = (key.section(), key.path());
        let name = name.split_once('.').unwrap().1;
        let error = Config::load(&file(&format!("[{section}]\n{name} = hunter2"))).unwrap_err();
        texts.push(error.to_string());
    }
    assert!(texts.len() > 2 * KEYS.len());
    assert!(!texts.iter().any(|text| text.contains("hunter2")), "{texts:#?}");
}

#[test]
fn the_same_table_holds_for_the_file() {
    for (name, value, expected) in BROKEN {
        let Some(key) = KEYS.iter().find(|key| key.env == *name) else { continue };
        let path = key.path();
        let (section, key) = path.split_once('.').unwrap();
        let text = format!("[{section}]\n{key} = {}\n", toml::Value::from(*value));
        let found = problems(&file(&text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, path);
        assert!(found[0].1.contains(expected), "{found:?}");
    }
}

#[test]
fn names_in_the_file_that_mean_nothing_are_refused() {
    for (text, name, expected) in [
        ("[server]\nprot = 1", "server.prot", "did you mean server.port?"),
        ("[servers]\nport = 1", "servers.port", "did you mean server.port?"),
        ("port = 1", "port", "not a known setting"),
        ("SERVER_PORT = 1", "SERVER_PORT", "not a known setting"),
        ("[secret]\nkey = 'x'", "secret.key", "not a known setting"),
        ("[server]\ntls_cert = 'x'", "server.tls_cert", "SERVER_TLS_KEY with it"),
        ("[server.tls]\ncert = 'x'", "server.tls.cert", "did you mean server.tls_cert?"),
        ("upstreams = 1", "upstreams", "[[upstreams]]"),
        ("[server]\nport = 2030-01-01", "server.port", "expected text"),
        ("[server]\ntrusted_hosts = [['a']]", "server.trusted_hosts", "expected a list"),
        ("[server\nport = 1", "configuration file, line 1", "not valid TOML"),
    ] {
        let found = problems(&file(text));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, name);
        assert!(found[0].1.contains(expected), "{found:?}");
    }
}

/// A table that is good, and what one change makes wrong with it.
#[test]
fn every_fault_of_an_upstream_is_named() {
    const GOOD: &str = "[[upstreams]]\nname = 'comfy'\nmount = '/comfy'\nurl = 'http://c:1'\n";
    assert_eq!(problems(&file(GOOD)), vec![]);
    for (text, name, expected) in [
        ("colour = 'red'", "upstreams.comfy.colour", "not a known setting"),
        ("verfiy_tls = true", "upstreams.comfy.verfiy_tls", "did you mean verify_tls?"),
        ("targets = ['http://d']", "upstreams.comfy.url", "one of the two"),
        ("strip_prefix = false\nrewrite = true", "upstreams.comfy.rewrite", "strip_prefix"),
        ("max_cookie_bytes = 0", "upstreams.comfy.max_cookie_bytes", "1 to 65536"),
        ("preset = 'excel'", "upstreams.comfy.preset", "comfyui"),
        ("auth = 'maybe'", "upstreams.comfy.auth", "public, optional or required"),
        ("credentials = ['cookie']", "upstreams.comfy.credentials", "login, api_key"),
        ("roles = ['king']", "upstreams.comfy.roles", "moderator"),
        ("methods = ['get']", "upstreams.comfy.methods", "in capitals"),
        ("auth = 'public'\nscopes = ['a']", "upstreams.comfy.auth", "expected required"),
        ("ca_file = '/nowhere'", "upstreams.comfy.ca_file", "cannot be read"),
        ("basic_auth_user = 'u'", "upstreams.comfy.basic_auth_user", "basic_auth_password"),
        ("host = 'a/b'", "upstreams.comfy.host", "target, client or a host name"),
        ("total_timeout_seconds = -1", "upstreams.comfy.total_timeout_seconds", "seconds"),
        ("max_body_bytes = 0", "upstreams.comfy.max_body_bytes", "whole number"),
        (
            "request_headers.set.'Content-Length' = '1'",
            "upstreams.comfy.request_headers.set",
            "frames",
        ),
        ("request_headers.add = {}", "upstreams.comfy.request_headers.add", "not a known"),
        ("health = {}", "upstreams.comfy.health.path", "is needed"),
        ("health = true", "upstreams.comfy.health", "expected a table"),
        ("paths = [{ path = 'a' }]", "upstreams.comfy.paths[0].path", "begins with /"),
        ("websocket.max_frame_bytes = 'x'", "upstreams.comfy.websocket.max_frame_bytes", "whole"),
    ] {
        let found = problems(&file(&format!("{GOOD}{text}\n")));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, name);
        assert!(found[0].1.contains(expected), "{found:?}");
    }
    let twice = format!("{GOOD}{GOOD}");
    let names: Vec<String> = problems(&file(&twice)).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["upstreams.comfy.name", "upstreams.comfy.mount"]);
    let bare = problems(&file("[[upstreams]]\n"));
    let names: Vec<&str> = bare.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["upstreams[0].name", "upstreams[0].mount", "upstreams[0].url"]);
}

#[test]
fn what_other_programs_are_told_of_traces_is_judged_only_where_there_are_some() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    for others in [
        &[grpc, ("OTEL_PROPAGATORS", "b3")][..],
        &[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317"), ("OTEL_SDK_DISABLED", "true")],
    ] {
        assert!(Config::load(&env(others)).unwrap().traces.is_none(), "{others:?}");
    }
    let error = Config::load(&env(&[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317")]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("expected http/protobuf"), "{error}");
    let traces = |url| Config::load(&env(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)])).unwrap().traces;
    for (url, path) in [
        ("http://otel:4318", "/v1/traces"),
        ("http://otel:4318/", "/v1/traces"),
        ("https://otel.example/of/us/", "/of/us/v1/traces"),
    ] {
        assert_eq!(traces(url).unwrap().path, path, "{url}");
    }
}
