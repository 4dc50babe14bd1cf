//! What an upstream, or a part of one, demands of who asks.

use super::{
    principal::{Credential, Principal},
    user::Role,
};

/// Whether a credential is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// None is looked at; nobody is identified.
    Public,
    /// One that is presented must be good.
    Optional,
    #[default]
    Required,
}

/// A kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    Login,
    ApiKey,
    Pass,
}

impl CredentialKind {
    pub const ALL: [Self; 3] = [Self::Login, Self::ApiKey, Self::Pass];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::ApiKey => "api_key",
            Self::Pass => "access_token",
        }
    }

    pub fn of(credential: &Credential) -> Self {
        match credential {
            Credential::Login(_) => Self::Login,
            Credential::ApiKey(_) => Self::ApiKey,
            Credential::Pass(_) => Self::Pass,
        }
    }
}

/// Why a good credential does not open this door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    #[error("this kind of credential is not taken here")]
    Kind,
    #[error("the key does not hold the scope that is needed here")]
    Scope,
    #[error("a role is needed here that the account does not have")]
    Role,
}

/// The demands of one upstream or path. Empty lists demand nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub demand: Demand,
    /// Kinds that are taken; empty: all.
    pub kinds: Vec<CredentialKind>,
    /// A key must hold all of them.
    pub scopes: Vec<String>,
    /// An account must have one of them.
    pub roles: Vec<Role>,
    /// Methods that are let through, upper case; empty: all.
    pub methods: Vec<String>,
}

impl Policy {
    /// Whether the caller's kind, scopes and roles will do.
    pub fn check(&self, principal: &Principal) -> Result<(), PolicyRefusal> {
        let kind = CredentialKind::of(&principal.credential);
        if !self.kinds.is_empty() && !self.kinds.contains(&kind) {
            return Err(PolicyRefusal::Kind);
        }
        if let Some(key) = principal.key()
            && !self.scopes.iter().all(|scope| key.check_scope(scope).is_ok())
        {
            return Err(PolicyRefusal::Scope);
        }
        if !self.roles.is_empty() && !self.roles.iter().any(|role| principal.has(*role)) {
            return Err(PolicyRefusal::Role);
        }
        Ok(())
    }

    pub fn allows_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|allowed| allowed == method)
    }
}

/// Paths of an upstream, in their canonical form: one path, or with `/*` at
/// the end everything below it and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    path: String,
    below: bool,
}

impl PathPattern {
    /// `text` must be canonical but for the `/*`; the configuration checks that.
    pub fn new(text: &str) -> Self {
        match text.strip_suffix("/*") {
            Some(path) => Self { path: path.to_owned(), below: true },
            None => Self { path: text.to_owned(), below: false },
        }
    }

    pub fn matches(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.path) {
            Some("") => true,
            Some(rest) => self.below && rest.starts_with('/'),
            None => false,
        }
    }
}

/// A canonical path as a server may read it that undoes the escapes of reserved
/// characters (`%3A`) and cuts parameters off its segments (`;v=1`), as many do;
/// `None` where it reads it as it stands.
pub fn read_leniently(path: &str) -> Option<String> {
    if !path.contains(['%', ';']) {
        return None;
    }
    let mut text = String::with_capacity(path.len());
    for segment in path.split_inclusive('/') {
        let (segment, slash) = match segment.strip_suffix('/') {
            Some(segment) => (segment, "/"),
            None => (segment, ""),
        };
        let mut rest = segment.split(';').next().unwrap_or_default();
        while let Some((before, after)) = rest.split_once('%') {
            text.push_str(before);
            let reserved = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let reserved = reserved.filter(|byte| b"!$&'()*+,=:@".contains(byte));
            rest = if let Some(byte) = reserved {
                text.push(char::from(byte));
                &after[2..]
            } else {
                text.push('%');
                after
            };
        }
        text.push_str(rest);
        text.push_str(slash);
    }
    (text != path).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lenient_server_reads_another_path() {
        for (path, read) in [
            ("/a/b", None),
            ("/caf%C3%A9", None),
            ("/100%25", None),
            ("/a:b@c", None),
            ("/v1/models%3Adelete", Some("/v1/models:delete")),
            ("/%40fs/etc", Some("/@fs/etc")),
            ("/admin;a/x", Some("/admin/x")),
            ("/admin;a=1;b/x;c", Some("/admin/x")),
            ("/%21%24%26%27%28%29%2A%2B%2C%3D", Some("/!$&'()*+,=")),
            ("/a%20b%3A%20", Some("/a%20b:%20")),
        ] {
            assert_eq!(read_leniently(path).as_deref(), read, "{path}");
        }
    }

    #[test]
    fn a_pattern_is_one_path_or_everything_below() {
        for (pattern, path, matches) in [
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a", "/a/b", false),
            ("/a", "/ab", false),
            ("/a/*", "/a", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/ab", false),
            ("/a/*", "/b/a", false),
            ("/*", "/", true),
            ("/*", "/x", true),
            ("/", "/", true),
            ("/", "/x", false),
        ] {
            assert_eq!(PathPattern::new(pattern).matches(path), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn methods_are_exact() {
        let policy = Policy { methods: vec!["GET".to_owned()], ..Policy::default() };
        assert!(policy.allows_method("GET") && !policy.allows_method("get"));
        assert!(Policy::default().allows_method("BREW"));
    }
}
