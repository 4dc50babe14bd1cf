//! The document changes only on purpose, and says what it must.

use std::collections::BTreeSet;

use serde_json::Value;

fn document() -> Value {
    serde_json::to_value(tollgate::api::document()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "put", "post", "delete", "patch"].contains(&method.as_str()) {
                all.push((path.clone(), method.clone(), operation.clone()));
            }
        }
    }
    all
}

/// Accept a change with `make openapi`.
#[test]
fn the_document_changes_only_on_purpose() {
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_json_snapshot!("openapi", document());
    });
}

#[test]
fn it_is_openapi_3_1_with_both_security_schemes() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["jwt"]["scheme"], "bearer");
    assert_eq!(schemes["api_key"]["name"], "X-API-Key");
}

#[test]
fn operation_ids_are_the_names_of_functions_and_unique() {
    let document = document();
    let mut seen = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
        let snake = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(!id.is_empty() && snake, "{method} {path}: `{id}`");
        assert!(seen.insert(id.clone()), "{id} stands twice");
    }
    assert!(seen.len() > 25, "{seen:?}");
}

#[test]
fn every_operation_says_how_it_fails_and_who_may_call_it() {
    let document = document();
    for (path, method, operation) in operations(&document) {
        let at = format!("{method} {path}");
        assert!(operation["security"].is_array(), "{at} says nothing about credentials");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|s| s.starts_with('2') || s == "default"), "{at} never works");
        for (status, response) in responses {
            if status.starts_with('4') {
                let content = &response["content"];
                let problem = &content["application/problem+json"]["schema"]["$ref"];
                assert_eq!(problem, "#/components/schemas/Problem", "{at} {status}: {content}");
            }
        }
        let open =
            operation["security"].as_array().unwrap().iter().any(|s| s == &serde_json::json!({}));
        assert_eq!(
            responses.contains_key("401"),
            !open || path.contains("login") || path.contains("refresh") || path == "/metrics",
            "{at}"
        );
    }
}

/// A description beside a type that stands inline makes it two types at once, one
/// of them an object, so that nothing fits.
#[test]
fn no_schema_is_of_two_types() {
    fn look(at: &str, schema: &Value) {
        if let Some(parts) = schema["allOf"].as_array() {
            let types: BTreeSet<_> =
                parts.iter().filter_map(|part| part["type"].as_str()).collect();
            assert!(types.len() < 2, "{at}: {schema}");
        }
        match schema {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| look(name, value)),
            Value::Array(items) => items.iter().for_each(|item| look(at, item)),
            _ => {}
        }
    }
    look("document", &document());
}

/// Fields that a client must fill in or read carry an example, so that the
/// document can be tried out as it stands.
#[test]
fn request_bodies_have_examples() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if !name.ends_with("Request") {
            continue;
        }
        for (field, property) in schema["properties"].as_object().unwrap() {
            let plain = property.get("example").is_some() || property.get("examples").is_some();
            let obvious =
                property["type"].to_string().contains("boolean") || property["format"] == "uuid";
            assert!(plain || obvious, "{name}.{field}: {property}");
        }
    }
}

/// What can grow is read in pages, each list in the same way.
#[test]
fn every_list_is_read_in_pages() {
    let document = document();
    let mut lists = 0;
    for (path, method, operation) in operations(&document) {
        let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) else {
            continue;
        };
        if document["components"]["schemas"][name]["properties"].get("next_cursor").is_none() {
            continue;
        }
        let parameters = operation["parameters"].to_string();
        for parameter in ["limit", "cursor"] {
            let given = format!(r#""name":"{parameter}""#);
            assert!(parameters.contains(&given), "{method} {path} has no {parameter}");
        }
        lists += 1;
    }
    assert!(lists >= 12, "{lists}");
}
