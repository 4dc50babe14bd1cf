//! Tables for spreadsheets: what every CSV answer carries, and who wants one.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

const TEXT_CSV: &str = "text/csv";
/// Of a table whose first line names its columns.
pub(super) const MEDIA_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// A CSV file of this name, which must be plain ASCII without quotes.
pub(super) fn attachment(status: StatusCode, name: &str, body: Body) -> Response {
    file(status, MEDIA_TYPE, name, body)
}

/// A file of this kind and name, which must be plain ASCII without quotes.
pub(super) fn file(
    status: StatusCode,
    media_type: &'static str,
    name: &str,
    body: Body,
) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    let disposition = HeaderValue::try_from(disposition).expect("names are ours and plain");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_DISPOSITION, disposition),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (status, headers, body).into_response()
}

/// Whether the client prefers CSV to JSON. `*/*` does not ask for it.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let (mut csv, mut json) = (0.0, 0.0);
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let quality = quality.map_or(1.0, |text| text.parse().unwrap_or(0.0));
            if essence.eq_ignore_ascii_case(TEXT_CSV) {
                csv = quality;
            } else if essence.eq_ignore_ascii_case("application/json") {
                json = quality;
            }
        }
    }
    csv > json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_for_those_who_prefer_it() {
        for (accept, wanted) in [
            ("text/csv", true),
            ("Text/CSV; header=present", true),
            ("text/csv, application/json;q=0.5", true),
            ("text/csv;q=0.5, */*", true),
            ("", false),
            ("*/*", false),
            ("text/*", false),
            ("application/json", false),
            ("application/json, text/csv", false),
            ("text/csv;q=0", false),
            ("text/csv;q=x", false),
        ] {
            let value = HeaderValue::from_str(accept).unwrap();
            let headers = HeaderMap::from_iter([(header::ACCEPT, value)]);
            assert_eq!(is_wanted(&headers), wanted, "{accept}");
        }
        assert!(!is_wanted(&HeaderMap::new()));
    }
}
