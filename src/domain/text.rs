//! Text that people type: names and addresses that must be unique.

/// The form in which usernames and e-mail addresses are compared. Unicode
/// lower case, so `Ä` and `ä` are one; nothing else is folded.
pub fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// Cuts to at most `max` characters, never inside one, and removes control
/// characters, so that text from a client stays on one line of a log.
pub fn clean(text: &str, max: usize) -> String {
    // Nearly every text: nothing to remove, and bytes are characters.
    if text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}
