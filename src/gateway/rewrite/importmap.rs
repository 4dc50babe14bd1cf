//! The import map that sends `import "/x"` to the prefix.
//!
//! A module's specifier is resolved to a URL first and looked up after, so the
//! key `/` stands for everything of this origin, in static imports and in those
//! that a script computes; the key of the prefix, which is longer and therefore
//! wins, keeps what is right already. A scanner of JavaScript could do neither:
//! it cannot see computed specifiers, and cannot tell an expression from a
//! comment without parsing all of it. Every current browser knows import maps.
//! Only the newest know several in a page, so a page's own is merged with ours.
//! Workers have none: modules there must import relative to themselves, or by a
//! rule.

use serde_json::{Map, Value, json};

use super::names::Names;

/// Ours alone, for pages that have none.
pub fn ours(prefix: &str) -> String {
    json!({"imports": {"/": format!("{prefix}/"), format!("{prefix}/"): format!("{prefix}/")}})
        .to_string()
}

/// A page's own with ours in it. `None`: it is no import map. `integrity`:
/// whether the hashes in it still hold.
pub fn merged(names: &Names, text: &str, integrity: bool) -> Option<String> {
    let Value::Object(mut map) = serde_json::from_str(text).ok()? else { return None };
    let own = match map.remove("imports") {
        Some(Value::Object(imports)) => imports,
        None => Map::new(),
        Some(_) => return None,
    };
    let mut imports = specifiers(names, own);
    let place = format!("{}/", names.prefix());
    for key in ["/", &place] {
        imports.entry(key).or_insert_with(|| Value::String(place.clone()));
    }
    map.insert("imports".to_owned(), Value::Object(imports));
    if let Some(Value::Object(scopes)) = map.remove("scopes") {
        let scopes = scopes.into_iter().map(|(scope, value)| {
            let scope = names.map(&scope, true).unwrap_or(scope);
            let value = match value {
                Value::Object(imports) => Value::Object(specifiers(names, imports)),
                other => other,
            };
            (scope, value)
        });
        map.insert("scopes".to_owned(), Value::Object(scopes.collect()));
    }
    match map.remove("integrity") {
        Some(Value::Object(hashes)) if integrity => {
            let hashes =
                hashes.into_iter().map(|(url, hash)| (names.map(&url, true).unwrap_or(url), hash));
            map.insert("integrity".to_owned(), Value::Object(hashes.collect()));
        }
        _ => {}
    }
    // It goes into a script element.
    Some(Value::Object(map).to_string().replace('<', "\\u003c"))
}

/// Addresses mapped. A specifier that is a path is known by both its names: a
/// relative one resolves to where the module is, under the prefix.
fn specifiers(names: &Names, imports: Map<String, Value>) -> Map<String, Value> {
    let mut mapped = Map::new();
    for (specifier, address) in imports {
        let address = match address {
            Value::String(url) => Value::String(names.map(&url, true).unwrap_or(url)),
            other => other,
        };
        if let Some(twin) = names.map(&specifier, true) {
            mapped.insert(twin, address.clone());
        }
        mapped.insert(specifier, address);
    }
    mapped
}

#[cfg(test)]
mod tests {
    use super::{super::test_support::names, *};

    #[test]
    fn a_pages_own_map_holds_beside_ours() {
        let own = r#"{"imports": {"vue": "/v/vue.js", "/a.js": "/a.1.js", "x": "./x.js", "n": null},
            "scopes": {"/s/": {"vue": "https://cdn.example/vue.js"}}, "integrity": {"/v/vue.js": "h"}}"#;
        let merged: Value = serde_json::from_str(&merged(&names(), own, true).unwrap()).unwrap();
        let expected = json!({
            "imports": {
                "vue": "/app/v/vue.js", "/a.js": "/app/a.1.js", "/app/a.js": "/app/a.1.js",
                "x": "./x.js", "n": null, "/": "/app/", "/app/": "/app/",
            },
            "scopes": {"/app/s/": {"vue": "https://cdn.example/vue.js"}},
            "integrity": {"/app/v/vue.js": "h"},
        });
        assert_eq!(merged, expected);
        assert!(!super::merged(&names(), own, false).unwrap().contains("integrity"));
        assert_eq!(super::merged(&names(), "{", true), None);
        assert_eq!(super::merged(&names(), "{\"imports\": 1}", true), None);
        let again = super::merged(&names(), &merged.to_string(), true).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), expected);
    }
}
