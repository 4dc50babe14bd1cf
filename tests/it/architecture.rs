//! Layer rules that the compiler cannot check inside one crate.

use std::{fs, path::Path};

/// For each folder of `src/`, the text that must not occur in it, and why.
const RULES: &[(&str, &[&str], &str)] = &[
    (
        "domain",
        &[
            "axum::",
            "tokio::",
            "redis::",
            "async fn",
            "crate::repositories",
            "crate::cache",
            "crate::services",
            "crate::api",
            "crate::gateway",
            "crate::server",
            "crate::config",
        ],
        "the domain is pure",
    ),
    (
        "repositories",
        &[
            "axum::",
            "redis::",
            "SharedClock",
            "crate::cache",
            "crate::services",
            "crate::api",
            "crate::gateway",
        ],
        "repositories are SQL and nothing else",
    ),
    (
        "cache",
        &["axum::", "sqlx::", "crate::repositories", "crate::services", "crate::api"],
        "the cache knows only the domain and Redis",
    ),
    (
        "services",
        &[
            "axum::",
            "hyper::",
            "sqlx::",
            "redis::",
            "StatusCode",
            "crate::api",
            "crate::gateway",
            "crate::server",
        ],
        "services know neither HTTP nor SQL",
    ),
    (
        "api",
        &[
            "sqlx::",
            "redis::",
            "crate::repositories",
            "crate::cache",
            "crate::app",
            ".begin()",
            ".session()",
        ],
        "handlers go through services",
    ),
    (
        "gateway",
        &["sqlx::", "redis::", "crate::repositories", "crate::cache", "crate::api", ".begin()"],
        "the gateway goes through services",
    ),
    (
        "server",
        &["sqlx::", "redis::", "crate::repositories", "crate::cache", ".begin()"],
        "the server moves bytes and decides nothing",
    ),
];

#[test]
fn layers_depend_downwards_only() {
    let mut broken = vec![];
    for (layer, forbidden, why) in RULES {
        visit(&Path::new("src").join(layer), &mut |file, source| {
            for (number, line) in source.lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for word in forbidden.iter().filter(|word| code.contains(**word)) {
                    let at = format!("{}:{}", file.display(), number + 1);
                    broken.push(format!("{at}: `{word}` ({why})"));
                }
            }
        });
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn no_file_outgrows_one_sitting() {
    const LIMIT: usize = 400;
    let mut long = vec![];
    for folder in ["src", "tests"] {
        visit(Path::new(folder), &mut |file, source| {
            let lines = source.lines().count();
            if lines > LIMIT {
                long.push(format!("{} has {lines} lines", file.display()));
            }
        });
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn every_module_says_what_it_promises() {
    let mut silent = vec![];
    visit(Path::new("src"), &mut |file, source| {
        let binary = file.ends_with("main.rs");
        if !source.starts_with("//!") && !binary && !file.to_string_lossy().contains("tests.rs") {
            silent.push(file.display().to_string());
        }
    });
    assert!(silent.is_empty(), "{silent:#?}");
}

/// The wall clock is asked in one place; a lint guards the usual ways, this the
/// unusual ones.
#[test]
fn time_comes_from_the_clock() {
    let mut asked = vec![];
    visit(Path::new("src"), &mut |file, source| {
        let clock = file.ends_with("domain/clock.rs");
        for word in ["Utc::now(", "SystemTime::now(", "Local::now("] {
            if !clock && source.contains(word) {
                asked.push(format!("{}: {word}", file.display()));
            }
        }
    });
    assert!(asked.is_empty(), "{asked:#?}");
}

fn visit(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    let mut found = false;
    for entry in fs::read_dir(folder).unwrap() {
        found = true;
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, check);
        } else if path.extension().is_some_and(|e| e == "rs") {
            check(&path, &fs::read_to_string(&path).unwrap());
        }
    }
    assert!(found, "{} is empty: the rule would hold for nothing", folder.display());
}
