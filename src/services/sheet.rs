//! CSV (RFC 4180) that is safe to open in a spreadsheet.

use std::borrow::Cow;

/// Lines that end with CRLF, quoted where needed.
pub struct Sheet(csv::Writer<Vec<u8>>);

impl Default for Sheet {
    fn default() -> Self {
        let mut builder = csv::WriterBuilder::new();
        Self(builder.terminator(csv::Terminator::CRLF).flexible(true).from_writer(vec![]))
    }
}

impl Sheet {
    /// Free text among the cells goes through [`text`] first.
    pub fn row<T: AsRef<[u8]>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.write_record(cells).expect("memory takes everything");
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("memory takes everything")
    }
}

/// Text that somebody typed, as a cell that no spreadsheet takes for a formula:
/// one that begins like a formula gets an apostrophe in front.
pub fn text(typed: &str) -> Cow<'_, str> {
    if typed.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{typed}"))
    } else {
        Cow::Borrowed(typed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_formula_is_text() {
        for (typed, cell) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("a=1", "a=1"),
            (" =1", " =1"),
            ("", ""),
        ] {
            assert_eq!(text(typed), cell);
        }
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let mut sheet = Sheet::default();
        sheet.row(["a", "b,c", "d\"e", "f\ng", ""]);
        sheet.row(["ä"]);
        let bytes = sheet.into_bytes();
        assert_eq!(std::str::from_utf8(&bytes).unwrap(), "a,\"b,c\",\"d\"\"e\",\"f\ng\",\r\nä\r\n");
    }
}
