//! `.env.example`, which says what can be set.

use super::table::KEYS;

/// The text of `.env.example`: every setting, commented, with its default.
pub fn env_example() -> String {
    let mut lines = vec![HEAD.to_owned()];
    let mut section = "";
    for key in KEYS {
        if key.section() != section {
            section = key.section();
            lines.push(format!("# --- {section} ---\n"));
        }
        lines.push(format!("# {}", key.doc));
        for alias in key.aliases {
            let unit = if alias.scale == 1 { "" } else { ", in hours" };
            lines.push(format!("# Also read: {}{unit}.", alias.env));
        }
        lines.push(format!("#{}={}\n", key.env, key.default));
    }
    lines.join("\n")
}

const HEAD: &str = "\
# Settings of Tollgate. All are optional: remove the # in front of a name to set
# it. An empty value counts as not given. In tollgate.toml, SERVER_PORT is `port`
# in [server]. What may be secret can also come from a file:
# AUTH_SECRET_KEY_FILE=/run/secrets/jwt. `tollgate config check` tells what is
# wrong, `tollgate config show` what is in force.
";
