/// Characters of a name that an error keeps, as many as the longest name of an aggregate may have.
pub const NAME_SHOWN_MAX: usize = 255;

/// A name as an error keeps it: what was read from bytes of others may be as long as an entry, and
/// is cut behind [`NAME_SHOWN_MAX`] characters, with `…` for the rest.
///
/// # Examples
///
/// ```
/// use oplog_core::{NAME_SHOWN_MAX, short_name};
///
/// assert_eq!(short_name("account:42"), "account:42");
/// assert_eq!(short_name(&"x".repeat(1000)).chars().count(), NAME_SHOWN_MAX + 1);
/// ```
#[must_use]
pub fn short_name(name: &str) -> String {
    match name.char_indices().nth(NAME_SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{NAME_SHOWN_MAX, short_name};

    #[test]
    fn a_name_is_cut_between_characters() {
        let longest = "ᛅ".repeat(NAME_SHOWN_MAX);
        assert_eq!(short_name(&longest), longest);
        assert_eq!(short_name(&format!("{longest}a")), format!("{longest}…"));
        assert_eq!(short_name(""), "");
    }
}
