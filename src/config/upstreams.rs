//! The upstreams: the default one of the settings `UPSTREAM_*`, and the tables
//! of `[[upstreams]]`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;

use super::{
    Algorithm, BasicAuth, HeaderChanges, Mount, PathPolicy, Preset, TargetConfig, TlsConfig,
    UpstreamConfig, UpstreamLimits, Upstreams, WebSocketConfig, addresses, limits,
    preset::Defaults,
    problem::Problem,
    reader::{Parsed, Reader},
    rewrite::RewriteConfig,
    tables::{Table, seconds},
    upstream::{HealthCheck, HostHeader},
    values::{self, list, number, truth},
};
use crate::domain::{
    policy::{CredentialKind, Demand, PathPattern, Policy},
    route::RoutePattern,
};

/// Longest time a request may take, seconds.
const DAY: f64 = 86_400.0;
const MAX_BODY: u64 = 1 << 40;
/// More than a request's whole head may have.
const MAX_COOKIE: usize = 1 << 16;
/// Each is looked at for every request, and is a row of usage per hour.
const MAX_ROUTES: usize = 100;

/// All of them; problems are noted.
pub(super) fn all(reader: &mut Reader, tables: Vec<toml::Table>) -> Upstreams {
    let public =
        reader.optional("AUTH_PUBLIC_PATHS", list(addresses::path_pattern)).unwrap_or_default();
    let algorithm = reader.required("AUTH_ALGORITHM", values::algorithm);
    let mut upstreams = vec![];
    // With others declared, the echo is nobody's wish.
    if tables.is_empty() || reader.given("UPSTREAM_URL").is_some() {
        upstreams.push(default(reader));
    }
    for (at, values) in tables.into_iter().enumerate() {
        let name = values.get("name").and_then(toml::Value::as_str);
        let name = name.map_or_else(|| format!("upstreams[{at}]"), |n| format!("upstreams.{n}"));
        let mut table = Table::new(name, values, reader.problems());
        upstreams.extend(declared(&mut table, algorithm));
        table.finish();
    }
    check_together(&upstreams, reader.problems());
    for upstream in &mut upstreams {
        let prefix = upstream.mount.prefix().to_owned();
        let below = public.iter().filter_map(|path: &String| path.strip_prefix(&*prefix));
        let open = below
            .filter(|path| path.starts_with('/'))
            .map(|path| PathPolicy { path: PathPattern::new(path), policy: Demand::Public.into() });
        upstream.paths.extend(open.collect::<Vec<_>>());
    }
    upstreams.into_iter().map(Arc::new).collect()
}

fn default(reader: &mut Reader) -> UpstreamConfig {
    let user = reader.optional("UPSTREAM_BASIC_AUTH_USER", values::basic_user);
    let password = reader.secret("UPSTREAM_BASIC_AUTH_PASSWORD", |_| Parsed::Ok(()));
    if user.is_some() && password.is_none() {
        reader.refuse("UPSTREAM_BASIC_AUTH_USER", "expected UPSTREAM_BASIC_AUTH_PASSWORD with it");
    }
    if password.is_some() && reader.given("UPSTREAM_BASIC_AUTH_USER").is_none() {
        reader.refuse("UPSTREAM_BASIC_AUTH_PASSWORD", "expected UPSTREAM_BASIC_AUTH_USER with it");
    }
    let preset = reader.optional("UPSTREAM_PRESET", Preset::parse);
    let targets = reader.optional("UPSTREAM_URL", list(addresses::target)).unwrap_or_default();
    let name = intern(if targets.is_empty() { "echo" } else { "default" });
    let targets = targets.into_iter().map(|url| TargetConfig { url, weight: 1 }).collect();
    let mut upstream = with_defaults(name, Mount::Root, targets, preset);
    upstream.mount = reader.required("UPSTREAM_MOUNT", addresses::mount);
    upstream.policy = super::assemble::upstream_auth(reader).into();
    upstream.rewrite.enabled = reader
        .optional("UPSTREAM_REWRITE", truth)
        .unwrap_or(matches!(upstream.mount, Mount::Prefix(_)));
    upstream.routes = routes(reader.optional("UPSTREAM_ROUTES", list(addresses::route_pattern)));
    if upstream.routes.len() > MAX_ROUTES {
        reader.refuse("UPSTREAM_ROUTES", "expected at most 100");
    }
    upstream.tls.verify = reader.required("UPSTREAM_VERIFY_TLS", truth);
    upstream.assertion = super::assemble::assertion(reader);
    upstream.basic_auth = basic_auth(user, password);
    // What a preset says holds until the operator says something else.
    let mut time = |env, at: &mut Duration, least| {
        let given = reader.given(env).is_some() || preset.is_none();
        let read = reader.required(env, values::seconds(least..=DAY));
        *at = if given { read } else { *at };
    };
    time("UPSTREAM_CONNECT_TIMEOUT_SECONDS", &mut upstream.connect_timeout, 0.01);
    time("UPSTREAM_FIRST_BYTE_TIMEOUT_SECONDS", &mut upstream.first_byte_timeout, 0.01);
    time("UPSTREAM_TOTAL_TIMEOUT_SECONDS", &mut upstream.total_timeout, 0.01);
    time("UPSTREAM_IDLE_TIMEOUT_SECONDS", &mut upstream.idle_timeout, 0.01);
    time("UPSTREAM_POOL_IDLE_SECONDS", &mut upstream.pool_idle, 0.0);
    let body = reader.required("UPSTREAM_MAX_BODY_BYTES", number(1..=MAX_BODY));
    if reader.given("UPSTREAM_MAX_BODY_BYTES").is_some() || preset.is_none() {
        upstream.max_body_bytes = body;
    }
    upstream
}

pub(super) fn with_defaults(
    name: &'static str,
    mount: Mount,
    targets: Vec<TargetConfig>,
    preset: Option<Preset>,
) -> UpstreamConfig {
    let defaults = Defaults::of(preset);
    UpstreamConfig {
        name,
        rewrite: RewriteConfig {
            enabled: matches!(mount, Mount::Prefix(_)),
            ..RewriteConfig::default()
        },
        mount,
        targets,
        preset,
        policy: Policy::default(),
        paths: vec![],
        routes: vec![],
        origins: vec![],
        tls: TlsConfig { verify: true, ca: None, http2: true },
        assertion: false,
        strip_prefix: true,
        max_cookie_bytes: defaults.max_cookie_bytes,
        basic_auth: None,
        host: defaults.host,
        request_headers: defaults.request_headers,
        response_headers: HeaderChanges::default(),
        private_addresses: true,
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: defaults.first_byte_timeout,
        total_timeout: defaults.total_timeout,
        idle_timeout: Duration::from_mins(5),
        stream_life: Duration::from_hours(24),
        pool_idle: Duration::from_secs(3),
        max_body_bytes: defaults.max_body_bytes,
        max_connections: 1024,
        max_pending: 1024,
        health: defaults.health,
        websocket: WebSocketConfig {
            enabled: true,
            max_message_bytes: defaults.max_message_bytes,
            max_frame_bytes: defaults.max_frame_bytes,
            per_credential: defaults.sockets_per_credential,
        },
        limits: UpstreamLimits::default(),
    }
}

/// `None` where so much is wrong that nothing can be made of it.
fn declared(table: &mut Table<'_>, algorithm: Algorithm) -> Option<UpstreamConfig> {
    let name = table.need("name", values::upstream_name);
    let mount = table.need("mount", addresses::mount);
    let preset = table.get("preset", Preset::parse);
    let targets = targets(table);
    let mut upstream = with_defaults(
        intern(name.as_deref().unwrap_or_default()),
        mount.clone().unwrap_or(Mount::Root),
        targets,
        preset,
    );
    upstream.policy = policy(table, &Policy::default());
    let whole = upstream.policy.clone();
    upstream.paths = table.tables("paths", |part| {
        let path = part.need("path", addresses::path_pattern).unwrap_or_default();
        PathPolicy { path: PathPattern::new(&path), policy: policy(part, &whole) }
    });
    upstream.routes = routes(table.list("routes", addresses::route_pattern));
    if upstream.routes.len() > MAX_ROUTES {
        table.refuse("routes", format!("expected at most {MAX_ROUTES}"));
    }
    set(&mut upstream.strip_prefix, table.get("strip_prefix", truth));
    upstream.rewrite.enabled &= upstream.strip_prefix;
    set(&mut upstream.rewrite, table.other("rewrite"));
    if upstream.rewrite.enabled && !upstream.strip_prefix {
        table.refuse("rewrite", "expected false with strip_prefix = false");
    }
    let cookies = table.get("max_cookie_bytes", number(1..=MAX_COOKIE));
    upstream.max_cookie_bytes = cookies.or(upstream.max_cookie_bytes);
    set(&mut upstream.origins, table.list("origins", addresses::origin));
    set(&mut upstream.tls.verify, table.get("verify_tls", truth));
    set(&mut upstream.tls.http2, table.get("http2", truth));
    upstream.tls.ca = table.file("ca_file", values::authorities);
    if upstream.tls.ca.is_some() && !upstream.tls.verify {
        table.refuse("ca_file", "expected verify_tls = true with it");
    }
    let user = table.get("basic_auth_user", values::basic_user);
    let password = table.secret("basic_auth_password", "basic_auth_password_file");
    if user.is_some() != password.is_some() {
        table.refuse("basic_auth_user", "expected basic_auth_password with it, or neither");
    }
    upstream.basic_auth = basic_auth(user, password);
    set(&mut upstream.assertion, table.get("assertion", truth));
    if upstream.assertion && algorithm == Algorithm::Hs256 {
        table.refuse("assertion", "expected AUTH_ALGORITHM EdDSA or RS256 with it");
    }
    set(&mut upstream.host, table.get("host", host_header));
    set(&mut upstream.private_addresses, table.get("private_addresses", truth));
    if let Some(changes) = table.table("request_headers", header_changes) {
        upstream.request_headers = changes;
    }
    if let Some(changes) = table.table("response_headers", header_changes) {
        upstream.response_headers = changes;
    }
    let time = |least| seconds(least, DAY);
    set(&mut upstream.connect_timeout, table.get("connect_timeout_seconds", time(0.01)));
    set(&mut upstream.first_byte_timeout, table.get("first_byte_timeout_seconds", time(0.01)));
    set(&mut upstream.total_timeout, table.get("total_timeout_seconds", time(0.01)));
    set(&mut upstream.idle_timeout, table.get("idle_timeout_seconds", time(0.01)));
    set(&mut upstream.stream_life, table.get("stream_life_seconds", seconds(1.0, 30.0 * DAY)));
    set(&mut upstream.pool_idle, table.get("pool_idle_seconds", time(0.0)));
    set(&mut upstream.max_body_bytes, table.get("max_body_bytes", number(1..=MAX_BODY)));
    set(&mut upstream.max_connections, table.get("max_connections", number(1..=1_000_000)));
    set(&mut upstream.max_pending, table.get("max_pending", number(0..=1_000_000)));
    if let Some(check) = table.table("health", health_check) {
        upstream.health = check;
    }
    if let Some(limits) = table.table("limits", limits::of_upstream) {
        upstream.limits = limits;
    }
    table.table("websocket", |table| {
        let socket = &mut upstream.websocket;
        set(&mut socket.enabled, table.get("enabled", truth));
        set(&mut socket.max_message_bytes, table.get("max_message_bytes", number(1..=MAX_BODY)));
        set(&mut socket.max_frame_bytes, table.get("max_frame_bytes", number(1..=MAX_BODY)));
        set(&mut socket.per_credential, table.get("per_credential", number(1..=100_000)));
    });
    (name.is_some() && mount.is_some()).then_some(upstream)
}

fn routes(given: Option<Vec<String>>) -> Vec<RoutePattern> {
    given.unwrap_or_default().iter().map(|text| RoutePattern::new(intern(text))).collect()
}

fn basic_auth(user: Option<String>, password: Option<SecretString>) -> Option<BasicAuth> {
    let (user, password) = user.zip(password)?;
    Some(BasicAuth { user, password })
}

fn set<T>(at: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *at = given;
    }
}

/// `url`, or `targets` of URLs or of tables with `url` and `weight`.
fn targets(table: &mut Table<'_>) -> Vec<TargetConfig> {
    if table.has("url") == table.has("targets") {
        table.refuse("url", "expected url or targets, one of the two");
    }
    let mut targets: Vec<TargetConfig> = if table.is_list_of_tables("targets") {
        let weighed = table.tables("targets", |target| {
            let url = target.need("url", addresses::target);
            let weight = target.get("weight", number(1..=1000)).unwrap_or(1);
            url.map(|url| TargetConfig { url, weight })
        });
        weighed.into_iter().flatten().collect()
    } else {
        let urls = table.list("targets", addresses::target).unwrap_or_default();
        urls.into_iter().map(|url| TargetConfig { url, weight: 1 }).collect()
    };
    let urls = table.get("url", list(addresses::target)).unwrap_or_default();
    targets.extend(urls.into_iter().map(|url| TargetConfig { url, weight: 1 }));
    let mut seen = BTreeSet::new();
    if !targets.iter().all(|target| seen.insert(&target.url)) {
        table.refuse("targets", "expected each once; a weight says how much it gets");
    }
    targets
}

/// What a part does not say is as in the whole.
fn policy(table: &mut Table<'_>, whole: &Policy) -> Policy {
    let mut policy = whole.clone();
    set(&mut policy.demand, table.get("auth", values::demand));
    set(&mut policy.kinds, table.list("credentials", credential_kind));
    set(&mut policy.scopes, table.list("scopes", values::line(64)));
    set(
        &mut policy.roles,
        table.list("roles", |text| {
            text.parse().map_err(|_| "expected user, moderator or admin".to_owned())
        }),
    );
    set(&mut policy.methods, table.list("methods", method));
    if policy.demand != Demand::Required
        && !(policy.kinds.is_empty() && policy.scopes.is_empty() && policy.roles.is_empty())
    {
        table.refuse("auth", "expected required with credentials, scopes or roles");
    }
    policy
}

fn credential_kind(text: &str) -> Parsed<CredentialKind> {
    let known = CredentialKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| "expected login, api_key or access_token".to_owned())
}

fn method(text: &str) -> Parsed<String> {
    let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    fits.then(|| text.to_owned()).ok_or_else(|| "expected a method in capitals".to_owned())
}

fn host_header(text: &str) -> Parsed<HostHeader> {
    match text {
        "target" => Ok(HostHeader::Target),
        "client" => Ok(HostHeader::Client),
        name => {
            let url = addresses::base_url(&format!("http://{name}"));
            let host = url.ok().and_then(|url| Some(url.strip_prefix("http://")?.to_owned()));
            host.map(HostHeader::Fixed)
                .ok_or_else(|| "expected target, client or a host name".to_owned())
        }
    }
}

fn header_changes(table: &mut Table<'_>) -> HeaderChanges {
    let remove = table.list("remove", values::header_name).unwrap_or_default();
    let mut changes = HeaderChanges { remove, set: vec![] };
    for (name, value) in table.pairs("set") {
        match (values::header_name(&name), http::HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => changes.set.push((name, value)),
            (Err(expected), _) => table.refuse("set", format!("{name}: {expected}")),
            (_, Err(_)) => table.refuse("set", format!("{name}: expected a field's value")),
        }
    }
    changes
}

fn health_check(table: &mut Table<'_>) -> Option<HealthCheck> {
    let path = table.need("path", addresses::plain_path)?;
    let interval = table.get("interval_seconds", seconds(0.1, DAY));
    let timeout = table.get("timeout_seconds", seconds(0.01, 60.0));
    Some(HealthCheck {
        path,
        interval: interval.unwrap_or(Duration::from_secs(10)),
        timeout: timeout.unwrap_or(Duration::from_secs(2)),
    })
}

/// Names and places must tell the upstreams apart.
fn check_together(upstreams: &[UpstreamConfig], problems: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    let mut mounts = HashMap::new();
    for upstream in upstreams {
        let name = upstream.name;
        if !names.insert(name) {
            problems.push(Problem::new(format!("upstreams.{name}.name"), "is used twice"));
        }
        if let Some(other) = mounts.insert(upstream.mount.clone(), name) {
            let expected = format!("expected another place than that of {other}");
            problems.push(Problem::new(format!("upstreams.{name}.mount"), expected));
        }
    }
}

/// A name that lives as long as the process: metrics and records hold on to it.
/// There are as many as operators think of.
pub(super) fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(name);
    name
}
