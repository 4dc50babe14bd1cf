//! Settings: what is refused and how it is named, which layer wins, what is
//! shown. Nothing here touches the environment of the process.

mod broken;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use secrecy::ExposeSecret;
use tollgate::{
    config::{
        Algorithm, Config, Effective, HostHeader, Mount, Origin, Registration, Sources,
        TargetConfig, UpstreamConfig, env_example, keys::Kind, table::KEYS,
    },
    domain::{limit::Per, policy::Demand, rates::OnStoreLoss},
};

const STRONG: &str = "qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE";
const OTHER: &str = "Vb6Yt2Zr9Qw4Ex8Cu1Io5Pm3Nk7Lj0Hg";
/// Made for these tests; it opens nothing.
const EDDSA: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIGZHZhaw+E2p1ys9dKmHETWQ/IewyK2dB5vnbAQJUiTS
-----END PRIVATE KEY-----
";
const EDDSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAFzYU5rTUpvDdojglKJtev2rPqZNCCVrmpWjqkbHsxvI=
-----END PUBLIC KEY-----
";

fn env(pairs: &[(&str, &str)]) -> Sources {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Sources { environment: pairs.iter().map(own).collect(), ..Sources::default() }
}

fn file(text: &str) -> Sources {
    Sources { file: Some(text.to_owned()), ..Sources::default() }
}

fn problems(sources: &Sources) -> Vec<(String, String)> {
    match Config::load(sources) {
        Ok(_) => vec![],
        Err(error) => error
            .problems()
            .iter()
            .map(|problem| (problem.name.clone(), problem.expected.clone()))
            .collect(),
    }
}

fn names(sources: &Sources) -> Vec<String> {
    problems(sources).into_iter().map(|(name, _)| name).collect()
}

fn shown(sources: &Sources) -> BTreeMap<&'static str, Effective> {
    let (_, settings) = Config::load_with_origins(sources).expect("a good configuration");
    settings.into_iter().map(|setting| (setting.name, setting)).collect()
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.server.listen().to_string(), "127.0.0.1:8080");
    assert!(config.server.workers >= 1);
    assert_eq!(config.database.url.expose_secret(), "sqlite://data/tollgate.db");
    assert!(config.redis.is_none() && config.upstreams[0].is_echo());
    assert_eq!(config.upstreams[0].mount, Mount::Prefix("/api/v1/proxy".to_owned()));
    assert_eq!(config.upstreams[0].policy.demand, Demand::Required);
    assert_eq!(config.upstreams[0].max_body_bytes, 10 * 1024 * 1024);
    assert_eq!(config.auth.algorithm, Algorithm::Hs256);
    assert_eq!(config.auth.registration, Registration::Open);
    assert_eq!(config.auth.token_life, Duration::from_hours(1));
    assert_eq!(config.limits.address.limits, [0, 60, 1000, 0, 0]);
    assert_eq!(config.limits.address.on_loss, OnStoreLoss::Share);
    assert_eq!(config.log.json, None);
}

#[test]
fn later_layers_win_however_they_spell_it() {
    let mut sources = file("[server]\nport = 1\n[auth]\ntoken_expiry_minutes = 1\n");
    let at = |sources: &Sources| {
        let setting = &shown(sources)["SERVER_PORT"];
        (setting.value.clone(), setting.origin)
    };
    assert_eq!(at(&Sources::default()), ("8080".to_owned(), Origin::Default));
    assert_eq!(at(&sources), ("1".to_owned(), Origin::File));
    sources.dotenv = Some("SERVER_PORT=2\nJWT_EXPIRATION_HOURS=2\n".to_owned());
    assert_eq!(at(&sources), ("2".to_owned(), Origin::Dotenv));
    sources.environment.insert("SERVER_PORT".to_owned(), "3".to_owned());
    assert_eq!(at(&sources), ("3".to_owned(), Origin::Environment));
    sources.overrides.push(("SERVER_PORT", "4".to_owned()));
    assert_eq!(at(&sources), ("4".to_owned(), Origin::Flag));

    let config = Config::load(&sources).unwrap();
    assert_eq!(config.auth.token_life, Duration::from_hours(2));
}

#[test]
fn an_empty_value_is_not_given() {
    let mut sources = env(&[("SERVER_PORT", ""), ("AUTH_SECRET_KEY", " "), ("PRESET", "")]);
    sources.file = Some("[server]\nport = 9\n".to_owned());
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.server.port, 9);
    assert!(config.auth.secret_key.is_none());
}

#[test]
fn aliases_agree_or_are_refused() {
    for pairs in [
        [("AUTH_SECRET_KEY", STRONG), ("JWT_SECRET_KEY", STRONG)],
        [("AUTH_TOKEN_EXPIRY_MINUTES", "120"), ("JWT_EXPIRATION_HOURS", "2")],
        [("UPSTREAM_URL", "http://a"), ("ZENZEFI_TARGET_URL", "http://a")],
    ] {
        assert_eq!(names(&env(&pairs)), Vec::<String>::new());
    }
    let differ = [("AUTH_SECRET_KEY", STRONG), ("SECRET_KEY", OTHER)];
    assert_eq!(names(&env(&differ)), ["AUTH_SECRET_KEY and SECRET_KEY"]);
    let differ = [("ACCESS_TOKEN_EXPIRE_MINUTES", "60"), ("AUTH_TOKEN_EXPIRY_HOURS", "2")];
    assert_eq!(names(&env(&differ)), ["ACCESS_TOKEN_EXPIRE_MINUTES and AUTH_TOKEN_EXPIRY_HOURS"]);

    let aliases = env(&[
        ("JWT_SECRET_KEY", STRONG),
        ("BACKEND_URL", "https://gate.example"),
        ("ZENZEFI_TARGET_URL", "http://backend:3000/"),
        ("ZENZEFI_BASIC_AUTH_USER", "gate"),
        ("ZENZEFI_BASIC_AUTH_PASSWORD", "pass"),
        ("AUTH_TOKEN_EXPIRY_HOURS", "1.5"),
    ]);
    let config = Config::load(&aliases).unwrap();
    assert_eq!(config.auth.secret_key.unwrap().expose_secret(), STRONG);
    assert_eq!(config.server.public_url.as_deref(), Some("https://gate.example"));
    assert_eq!(config.upstreams[0].targets[0].url, "http://backend:3000");
    assert_eq!(config.upstreams[0].basic_auth.as_ref().unwrap().user, "gate");
    assert_eq!(config.auth.token_life, Duration::from_mins(90));
}

#[test]
fn secrets_come_from_files_without_their_last_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let jwt = path("jwt", &format!("{STRONG}\n"));
    let database = path("database", "postgres://gate:pw@db/gate\n");
    let public = path("public", &format!("{EDDSA_PUBLIC}{EDDSA_PUBLIC}"));
    let sources = env(&[
        ("JWT_SECRET_KEY_FILE", &jwt),
        ("DATABASE_URL_FILE", &database),
        ("AUTH_PREVIOUS_PUBLIC_KEYS_FILE", &public),
    ]);
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.auth.secret_key.unwrap().expose_secret(), STRONG);
    assert_eq!(config.database.url.expose_secret(), "postgres://gate:pw@db/gate");
    assert_eq!(config.auth.previous_public_keys, [EDDSA_PUBLIC, EDDSA_PUBLIC]);

    let in_file = file(&format!("[auth]\nsecret_key_file = '{jwt}'\n"));
    assert!(Config::load(&in_file).unwrap().auth.secret_key.is_some());

    let both = env(&[("AUTH_SECRET_KEY", STRONG), ("AUTH_SECRET_KEY_FILE", &jwt)]);
    assert_eq!(names(&both), ["AUTH_SECRET_KEY and AUTH_SECRET_KEY_FILE"]);
    let mut layers = env(&[("AUTH_SECRET_KEY_FILE", &jwt)]);
    layers.file = Some(format!("[auth]\nsecret_key = '{OTHER}'\n"));
    let config = Config::load(&layers).unwrap();
    assert_eq!(config.auth.secret_key.unwrap().expose_secret(), STRONG);

    let empty = path("empty", "\n");
    assert_eq!(names(&env(&[("ADMIN_PASSWORD_FILE", &empty)])), ["ADMIN_PASSWORD_FILE"]);
}

#[test]
fn signing_keys_fit_their_algorithm() {
    let ed = |algorithm| env(&[("AUTH_ALGORITHM", algorithm), ("AUTH_PRIVATE_KEY", EDDSA)]);
    assert!(Config::load(&ed("EdDSA")).unwrap().auth.private_key.is_some());
    assert_eq!(names(&ed("RS256")), ["AUTH_PRIVATE_KEY"]);
    assert_eq!(names(&env(&[("AUTH_ALGORITHM", "RS256")])), ["AUTH_PRIVATE_KEY"]);
    assert!(Config::load(&env(&[("AUTH_ALGORITHM", "eddsa")])).unwrap().auth.private_key.is_none());
    let damaged = EDDSA.replace("MC4C", "MC4D");
    let damaged = env(&[("AUTH_ALGORITHM", "EdDSA"), ("AUTH_PRIVATE_KEY", &damaged)]);
    assert_eq!(names(&damaged), ["AUTH_PRIVATE_KEY"]);
}

#[test]
fn the_two_ways_to_demand_a_credential_agree_or_the_later_layer_holds() {
    let auth = |sources: &Sources| Config::load(sources).unwrap().upstreams[0].policy.demand;
    for (coarse, fine, expected) in [
        ("true", "required", Demand::Required),
        ("false", "optional", Demand::Optional),
        ("false", "public", Demand::Public),
    ] {
        assert_eq!(
            auth(&env(&[("AUTH_REQUIRE_AUTH", coarse)])) == Demand::Required,
            coarse == "true"
        );
        let both = env(&[("AUTH_REQUIRE_AUTH", coarse), ("UPSTREAM_AUTH", fine)]);
        assert_eq!(auth(&both), expected);
    }
    for (coarse, fine) in [("true", "optional"), ("true", "public"), ("false", "required")] {
        let both = env(&[("AUTH_REQUIRE_AUTH", coarse), ("UPSTREAM_AUTH", fine)]);
        assert_eq!(names(&both), ["AUTH_REQUIRE_AUTH"]);
    }
    let mut flag = env(&[("AUTH_REQUIRE_AUTH", "true")]);
    flag.overrides = vec![("UPSTREAM_AUTH", "optional".to_owned())];
    assert_eq!(auth(&flag), Demand::Optional);
    let mut later = env(&[("AUTH_REQUIRE_AUTH", "false")]);
    later.file = Some("[upstream]\nauth = 'required'\n".to_owned());
    assert_eq!(auth(&later), Demand::Optional);
}

#[test]
fn the_file_takes_lists_and_native_types() {
    let config = Config::load(&file(
        "[server]\nport = 0\nhost = 'localhost'\ntrusted_proxies = ['10.0.0.0/8', '::1']\n\
         trusted_hosts = 'Gate.Example, other.example'\nheader_timeout_seconds = 2.5\n\
         [upstream]\nverify_tls = false\nmount = '/'\n\
         [allowed]\norigins = ['https://App.Example:443']\n\
         [data]\ndir = '/var/lib/tollgate'\n[rate_limit]\nper_minute = 7\n",
    ))
    .unwrap();
    assert_eq!((config.server.port, config.server.host), (0, IpAddr::from([127, 0, 0, 1])));
    assert_eq!(config.server.trusted_proxies.len(), 2);
    assert_eq!(config.server.trusted_hosts, ["gate.example", "other.example"]);
    assert_eq!(config.server.header_timeout, Duration::from_millis(2500));
    assert_eq!((config.upstreams[0].tls.verify, &config.upstreams[0].mount), (false, &Mount::Root));
    assert_eq!(config.allowed_origins, ["https://app.example"]);
    assert_eq!(config.database.url.expose_secret(), "sqlite:///var/lib/tollgate/tollgate.db");
    assert_eq!(config.limits.address.per(Per::Minute), 7);
}

#[test]
fn what_a_container_platform_injects_is_not_ours() {
    let sources = env(&[
        ("SERVER_PORT", "tcp://10.0.0.9:80"),
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_SERVICE_PORT", "6379"),
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("DATABASE_NAME", "/gate/database"),
        ("PATH", "/bin"),
        ("SESSION_MANAGER", "local/desk"),
    ]);
    assert_eq!(Config::load(&sources).unwrap().server.port, 8080);
}

/// One value per key that may hold a secret, with something to look for in it.
fn canaries() -> Sources {
    env(&[
        ("AUTH_SECRET_KEY", "canary1-qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE"),
        ("AUTH_PREVIOUS_SECRET_KEYS", "canary2-qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE"),
        ("AUTH_ALGORITHM", "EdDSA"),
        ("AUTH_PRIVATE_KEY", EDDSA),
        ("ADMIN_PASSWORD", "canary3 correct horse"),
        ("UPSTREAM_BASIC_AUTH_USER", "gate"),
        ("UPSTREAM_BASIC_AUTH_PASSWORD", "canary4"),
        ("METRICS_TOKEN", "canary5-Zr9Qw4Ex8Cu1"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary12,x-key=canary13"),
        ("SECRETS_KEY", "canary8-qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE"),
        ("SECRETS_PREVIOUS_KEYS", "canary9-qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE"),
        ("DATABASE_URL", "postgres://gate:canary6@db/gate"),
        ("REDIS_URL", "redis://:canary7@cache"),
        ("CHAT_WEBHOOK_URL", "https://flow.example/webhook/chat"),
        ("CHAT_API_KEY", "canary10-Zr9Qw4Ex8Cu1"),
        ("SESSION_SECRET_KEY", "canary11-qN3v8RkZ1xW7yT5bL0sD2fG4hJ6mP9cE"),
    ])
}

#[test]
fn no_secret_is_ever_printed() {
    let sources = canaries();
    for key in KEYS.iter().filter(|key| matches!(key.kind, Kind::Secret | Kind::Url)) {
        assert!(sources.environment.contains_key(key.env), "{} has no canary", key.env);
    }
    let (config, settings) = Config::load_with_origins(&sources).unwrap();
    let printed = format!(
        "{config:?} {config:#?} {settings:?} {}",
        serde_json::to_string(&settings).unwrap()
    );
    assert!(!printed.contains("canary"), "{printed}");
    assert!(!printed.contains("MC4CAQAwBQYDK2VwBCIE"), "{printed}");
    assert!(printed.contains("postgres://gate:********@db/gate"));
}

#[test]
fn the_example_file_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text == env_example(),
        "stale: run `cargo run -- config example > .env.example` and look at the difference"
    );
    for key in KEYS {
        assert!(text.contains(&format!("# {}\n", key.doc)), "{}", key.env);
        assert!(text.contains(&format!("\n#{}={}\n", key.env, key.default)), "{}", key.env);
    }
    assert_eq!(
        text.lines().filter(|line| !line.starts_with("# ") && !line.is_empty()).count(),
        KEYS.len()
    );
}

#[test]
fn the_example_file_is_a_configuration_once_uncommented() {
    let uncommented: Vec<_> = env_example()
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line).to_owned())
        .collect();
    let settings: Vec<_> =
        uncommented.iter().filter(|line| !line.starts_with(' ')).map(String::as_str).collect();
    let sources = Sources { dotenv: Some(settings.join("\n")), ..Sources::default() };
    assert_eq!(names(&sources), Vec::<String>::new());
    let given = shown(&sources);
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        assert_eq!(given[key.env].origin, Origin::Dotenv, "{}", key.env);
    }
}

/// What each says of time and size: first byte and all of an answer in seconds,
/// bodies, messages and frames in KiB, sockets, and which `Host` is sent.
#[test]
fn presets_are_what_their_backends_need() {
    const MIB: u64 = 1024;
    for (preset, times, sizes, sockets, host) in [
        ("", (30, 60), (10 * MIB, MIB, MIB / 4), 5, HostHeader::Target),
        ("comfyui", (30, 600), (4096 * MIB, 16 * MIB, 16 * MIB), 16, HostHeader::Target),
        ("n8n", (120, 300), (16 * MIB, MIB, MIB / 4), 5, HostHeader::Client),
        ("jupyter", (30, 600), (512 * MIB, 64 * MIB, 64 * MIB), 64, HostHeader::Target),
        ("ollama", (600, 3600), (64 * MIB, MIB, MIB / 4), 5, HostHeader::Target),
    ] {
        let line = if preset.is_empty() { String::new() } else { format!("preset = '{preset}'\n") };
        let file = format!("[[upstreams]]\nname = 'a'\nmount = '/a'\nurl = 'http://a:1'\n{line}");
        let config = Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap();
        let upstream = &config.upstreams[0];
        let found = (upstream.first_byte_timeout.as_secs(), upstream.total_timeout.as_secs());
        assert_eq!(found, times, "{preset}");
        let socket = &upstream.websocket;
        let bytes = [upstream.max_body_bytes, socket.max_message_bytes, socket.max_frame_bytes];
        assert_eq!(bytes.map(|bytes| bytes / 1024), [sizes.0, sizes.1, sizes.2], "{preset}");
        assert_eq!((socket.per_credential, &upstream.host), (sockets, &host), "{preset}");
        let by_variable = [("UPSTREAM_URL", "http://a:1"), ("UPSTREAM_PRESET", preset)];
        let environment = by_variable.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config =
            Config::load(&Sources { environment: environment.into(), ..Sources::default() });
        let upstream = &config.unwrap().upstreams[0];
        let found = (upstream.first_byte_timeout.as_secs(), upstream.total_timeout.as_secs());
        assert_eq!(found, times, "{preset} by variable");
    }
}

#[test]
fn an_upstream_says_what_differs_and_a_preset_changes_defaults() {
    let text = "\
        [upstream]\nurl = 'http://a:1, http://b:2'\nmount = 'app.example.com'\npreset = 'n8n'\n\
        max_body_bytes = 5\n\
        [auth]\npublic_paths = ['/comfy/static/*', '/elsewhere']\n\
        [[upstreams]]\nname = 'comfy'\nmount = '/comfy'\npreset = 'comfyui'\n\
        targets = [{ url = 'http://c:8188', weight = 3 }, { url = 'https://d' }]\n\
        roles = ['moderator', 'admin']\nhost = 'client'\n\
        paths = [{ path = '/upload', roles = ['admin'], methods = ['POST'] }]\n\
        request_headers = { set = { 'X-From' = 'gate' }, remove = ['Referer'] }\n\
        [[upstreams]]\nname = 'told'\nmount = '/told'\nurl = 'http://e'\n\
        strip_prefix = false\n";
    let config = Config::load(&Sources { file: Some(text.to_owned()), ..Sources::default() });
    let upstreams = config.unwrap().upstreams;
    let [first, comfy, told] = &*upstreams else { panic!("{upstreams:?}") };
    let urls = |upstream: &UpstreamConfig| {
        let url = |target: &TargetConfig| (target.url.clone(), target.weight);
        upstream.targets.iter().map(url).collect::<Vec<_>>()
    };
    assert_eq!((first.name, &first.mount), ("default", &Mount::Host("app.example.com".to_owned())));
    assert_eq!(urls(first), [("http://a:1".to_owned(), 1), ("http://b:2".to_owned(), 1)]);
    // The preset's, but for what was said.
    assert_eq!((first.first_byte_timeout.as_secs(), first.max_body_bytes), (120, 5));
    assert!(!first.rewrite.enabled && comfy.rewrite.enabled && !told.rewrite.enabled);

    assert_eq!(urls(comfy), [("http://c:8188".to_owned(), 3), ("https://d".to_owned(), 1)]);
    assert_eq!(comfy.websocket.max_frame_bytes, 16 * 1024 * 1024);
    assert_eq!(comfy.request_headers.remove, ["referer"]);
    assert_eq!((comfy.max_cookie_bytes, first.max_cookie_bytes), (Some(8000), None));
    let upload = comfy.policy_at(comfy.part_of("/upload"));
    assert!(upload.allows_method("POST") && !upload.allows_method("GET"));
    assert_eq!(upload.demand, Demand::Required);
    assert_eq!(comfy.policy_at(comfy.part_of("/static/a.js")).demand, Demand::Public);
    assert_eq!(comfy.policy_at(comfy.part_of("/elsewhere")).demand, Demand::Required);
    assert_eq!(comfy.policy_at(comfy.part_of("/")).roles.len(), 2);
}
