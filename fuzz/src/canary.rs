//! Content that must never show up in an error.

use std::error::Error;
use std::fmt::Debug;

/// Stands in the seeds wherever content stands: values, conditions, keys, metadata. No message of
/// ours holds these letters, so where they appear, content was repeated.
pub const TEXT: &str = "ᚴᛅᚾᛅᚱᛁ";

/// The same for numbers: larger than any offset, length or tag.
pub const NUMBER: i64 = 7_305_194_186_302;

/// Bytes of an error's message at most, with every character of a name escaped.
const LEN_MAX: usize = 4096;

/// Checks everything that an error can print: its message, those of its causes, and `Debug`.
///
/// A message is also one short line without control characters: names are the attacker's to choose,
/// and must not write lines of their own into a log, move the cursor of a terminal or fill either.
///
/// `named` are the names that the error may repeat, such as that of a column: mutations also copy
/// content to where a name stands.
///
/// # Panics
///
/// If content or a control character shows up, or the message is long.
pub fn check_error(error: &(dyn Error + 'static), named: &[&str]) {
    let mut text = format!("{error:?} {error:#?}");
    let mut cause = Some(error);
    while let Some(error) = cause {
        let shown = error.to_string();
        assert!(
            !shown.contains(char::is_control),
            "a control character: {shown:?}"
        );
        assert!(shown.len() < LEN_MAX, "an error of {} bytes", shown.len());
        text.push_str(&format!("\n{shown}"));
        cause = error.source();
    }
    check_text(text, named);
}

/// Checks what `Debug` of a decoded value prints.
///
/// # Panics
///
/// If content shows up.
pub fn check_debug(value: &dyn Debug, named: &[&str]) {
    check_text(format!("{value:?} {value:#?}"), named);
}

fn check_text(mut text: String, named: &[&str]) {
    let hex: String = TEXT.bytes().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{:?}", TEXT.as_bytes());
    let lines = format!("{:#?}", TEXT.as_bytes());
    let forms = [
        TEXT,
        &hex,
        &hex.to_uppercase(),
        list.trim_matches(['[', ']']),
        lines.trim_matches(['[', ']', '\n']),
        &NUMBER.to_string(),
    ];
    // The longest first, because one name may be part of another.
    let mut named: Vec<&str> = named
        .iter()
        .filter(|name| forms.iter().any(|form| name.contains(form)))
        .copied()
        .collect();
    named.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in named {
        let debug = format!("{name:?}");
        // `Debug` leaves single quotes as they are, `escape_debug` does not.
        for shown in [
            debug.trim_matches('"'),
            &name.escape_debug().to_string(),
            name,
        ] {
            text = text.replace(shown, "|");
        }
    }
    for form in forms {
        assert!(!text.contains(form), "content in an error: {text}");
    }
}
