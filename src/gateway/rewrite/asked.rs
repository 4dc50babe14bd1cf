//! What a request's fields say of where we are, told in the upstream's words.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT_ENCODING, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, ORIGIN, RANGE,
        REFERER,
    },
};

use super::{coding::Coding, etag, names::Names};

const DESTINATION: HeaderName = HeaderName::from_static("destination");
/// Dictionaries that only we and not the upstream could have agreed on.
const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");

/// Maps `Referer`, `Origin` and `Destination`. For every request of a mount,
/// also where bodies are not rewritten. They follow `Host`, because servers
/// compare them with it: where the upstream is told the client's, they stay.
pub fn map_fields(names: &Names, headers: &mut HeaderMap) {
    // A program's request has none of them.
    let told = |name: &HeaderName| matches!(name.as_str(), "referer" | "destination" | "origin");
    if !headers.keys().any(told) {
        return;
    }
    for name in [REFERER, DESTINATION] {
        let mapped = headers.get(&name).and_then(|value| {
            let url = value.to_str().ok()?;
            // Who compares it with `Host` takes it for an `Origin`.
            if name == REFERER && !url.starts_with('/') && !names.is_our_url(url) {
                return None;
            }
            names.unmap(url, &names.told_origin(headers.get(HOST))?)
        });
        if let Some(value) = mapped.and_then(|url| HeaderValue::try_from(url).ok()) {
            headers.insert(name, value);
        }
    }
    let ours = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    if ours.is_some_and(|origin| names.is_our_origin(origin))
        && let Some(origin) = names.told_origin(headers.get(HOST))
        && let Ok(value) = HeaderValue::try_from(origin)
    {
        headers.insert(ORIGIN, value);
    }
}

/// Leaves only codings that can be undone at little cost. Nothing is copied where that is so
/// already.
pub fn limit_codings(headers: &mut HeaderMap) {
    headers.remove(AVAILABLE_DICTIONARY);
    let known = |item: &&str| {
        let name = item.split(';').next().unwrap_or_default().trim();
        !name.is_empty() && Coding::named(name.as_bytes()).is_some_and(Coding::is_asked_for)
    };
    let listed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').all(|item| known(&item)))
    };
    if headers.get_all(ACCEPT_ENCODING).iter().all(listed) {
        return;
    }
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let kept: Vec<_> =
        values.flat_map(|text| text.split(',')).filter(known).map(str::trim).collect();
    let kept = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    let value = HeaderValue::try_from(kept);
    let value = value.unwrap_or_else(|_| HeaderValue::from_static("identity"));
    headers.insert(ACCEPT_ENCODING, value);
}

/// Takes our mark off the entity tags that a client sends back; whether one of
/// them had it. `fresh`: what is asked for would be rewritten, so a copy that
/// has no mark was made before there was rewriting and must not be confirmed.
pub fn unmark_tags(mark: &str, fresh: bool, headers: &mut HeaderMap) -> bool {
    let mut marked = false;
    let mut stale = fresh && headers.get(IF_NONE_MATCH).is_none();
    if let Some(text) = joined(headers, &IF_NONE_MATCH) {
        let mut kept: Vec<String> = vec![];
        let mut made_up = false;
        for tag in etag::list(&text) {
            match etag::unmark(tag, mark) {
                etag::Unmarked::Ours(Some(own)) => {
                    marked = true;
                    kept.push(own);
                }
                // The upstream gave none: `If-Modified-Since` decides.
                etag::Unmarked::Ours(None) => {
                    marked = true;
                    made_up = true;
                }
                etag::Unmarked::Outdated => stale = true,
                etag::Unmarked::Foreign if fresh && tag != "*" => stale = true,
                etag::Unmarked::Foreign => kept.push(tag.to_owned()),
            }
        }
        stale &= kept.is_empty() && !made_up;
        set_or_remove(headers, IF_NONE_MATCH, &kept);
    }
    if stale {
        headers.remove(IF_MODIFIED_SINCE);
    }
    if let Some(text) = joined(headers, &IF_MATCH)
        && text.contains(etag::MARK)
    {
        let own = etag::list(&text).map(|tag| match etag::unmark(tag, mark) {
            etag::Unmarked::Ours(Some(own)) => own,
            _ => tag.to_owned(),
        });
        let own: Vec<_> = own.collect();
        set_or_remove(headers, IF_MATCH, &own);
    }
    // A part of the upstream's body belongs to no body of ours.
    if joined(headers, &IF_RANGE).is_some_and(|text| text.contains(etag::MARK)) {
        headers.remove(IF_RANGE);
        headers.remove(RANGE);
    }
    marked
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> =
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn set_or_remove(headers: &mut HeaderMap, name: HeaderName, tags: &[String]) {
    match HeaderValue::try_from(tags.join(", ")) {
        Ok(value) if !tags.is_empty() => {
            headers.insert(name, value);
        }
        _ => {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::test_support::names, *};

    #[test]
    fn origin_and_referer_are_of_the_host_that_the_upstream_is_told() {
        let cases = [
            ("up.example:8188", "http://up.example:8188", "http://up.example:8188/a"),
            // Another target, or a name that the operator chose.
            ("other:1", "http://other:1", "http://other:1/a"),
            ("gate.example", "https://gate.example", "https://gate.example/a"),
        ];
        for (host, origin, referer) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            headers.insert(ORIGIN, HeaderValue::from_static("https://gate.example"));
            headers.insert(REFERER, HeaderValue::from_static("https://gate.example/app/a"));
            map_fields(&names(), &mut headers);
            assert_eq!([&headers[ORIGIN], &headers[REFERER]], [origin, referer], "{host}");
        }
    }

    #[test]
    fn a_foreign_origin_stays_for_the_upstream_to_judge() {
        let origins = [
            "https://evil.example",
            "null",
            "http://gate.example",
            "https://gate.example:80",
            "http://gate.example:443",
        ];
        for origin in origins {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("up.example:8188"));
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            let referer = format!("{origin}/app/a");
            headers.insert(REFERER, HeaderValue::from_str(&referer).unwrap());
            map_fields(&names(), &mut headers);
            assert_eq!(headers[ORIGIN], origin);
            assert_eq!(headers[REFERER], referer);
        }
    }
}
