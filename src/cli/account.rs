//! Who runs a command, for the audit log.

use std::{env, fs, os::unix::fs::MetadataExt as _};

/// The name of the operating system's user, with who became it by `sudo`: not
/// from the environment alone, which anybody sets as they like.
pub fn name() -> String {
    let uid = fs::metadata("/proc/self").map(|own| own.uid());
    let name = match uid {
        Ok(uid) => {
            let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
            name_of(&known, uid).unwrap_or_else(|| format!("uid {uid}"))
        }
        Err(_) => env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
    };
    match env::var("SUDO_USER") {
        Ok(before) => format!("{name} (sudo by {before})"),
        Err(_) => name,
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let uid = uid.to_string();
    let mut lines = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.get(2) == Some(&uid.as_str())).map(|fields| fields[0].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_that_of_the_first_line_with_the_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nada:x:1000:0::/:\nrooted:x:1000::::\n";
        assert_eq!(name_of(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(name_of(passwd, 100), None);
        assert!(!name().is_empty());
    }
}
