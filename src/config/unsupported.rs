//! Names that are not ours to refuse as unknown: settings of other versions,
//! and variables that a container platform injects.

/// Settings that the product has but this version does not offer. Whole names,
/// not prefixes: desktops set variables that begin alike.
const LATER: [&str; 1] = ["TIERS"];

/// Whether this environment name is a setting of another version, including
/// the `_FILE` form of its secrets.
pub fn is_later(name: &str) -> bool {
    let name = name.strip_suffix("_FILE").filter(|name| LATER.contains(name)).unwrap_or(name);
    LATER.contains(&name)
}

/// Whether a platform puts this variable there for a service that happens to
/// be called like one of our sections: Kubernetes' service variables and
/// Docker's links. `SERVER_PORT=tcp://10.0.0.1:80` is one, `SERVER_PORT=80` is
/// ours.
pub fn is_injected(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || name.contains("_ENV_") {
        return true;
    }
    if name.ends_with("_NAME") && value.starts_with('/') {
        return true;
    }
    name.match_indices("_PORT").any(|(at, port)| {
        let rest = &name[at + port.len()..];
        let number = rest.strip_prefix('_').unwrap_or_default();
        (rest.is_empty() && ["tcp://", "udp://", "sctp://"].iter().any(|s| value.starts_with(s)))
            || (number.starts_with(|c: char| c.is_ascii_digit()) && number.contains('_'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_versions_are_whole_names() {
        for name in ["TIERS", "TIERS_FILE"] {
            assert!(is_later(name), "{name}");
        }
        for name in [
            "SESSION_MANAGER",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "TOKEN_PRICE_24H",
            "LOG_LEVEL",
            "LOG_FILE",
        ] {
            assert!(!is_later(name), "{name}");
        }
    }

    #[test]
    fn what_platforms_inject_is_told_from_what_operators_write() {
        for (name, value) in [
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_SERVICE_PORT", "6379"),
            ("REDIS_SERVICE_PORT_CLIENT", "6379"),
            ("REDIS_MASTER_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
            ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
            ("SERVER_PORT", "tcp://10.0.0.1:80"),
            ("DATABASE_NAME", "/gate/database"),
            ("DATABASE_ENV_POSTGRES_VERSION", "17"),
        ] {
            assert!(is_injected(name, value), "{name}");
        }
        for (name, value) in
            [("SERVER_PORT", "80"), ("REDIS_PORT", "6379"), ("DATABASE_NAME", "gate")]
        {
            assert!(!is_injected(name, value), "{name}");
        }
    }
}
