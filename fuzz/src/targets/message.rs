use oplog_core::{Action, Message, MessageError, NewValue, Target};

use crate::bound::bounded;
use crate::canary::{check_debug, check_error};
use crate::sample::{SAMPLE, Sample};
use crate::wire;

/// Empty names take the most: two bytes of input become 24, in a vector that is being doubled.
const PER_BYTE: usize = 40;

/// Encoding adds nothing to what was decoded but the two masks, which may have been missing.
const MASKS_LEN: usize = 4;

const NAMES_MAX: usize = 100;

pub(super) fn run(bytes: &[u8]) {
    match bounded(bytes.len(), PER_BYTE, || Message::from_bytes(bytes)) {
        Ok(message) => {
            check_fields(bytes);
            check(&message, bytes.len());
        }
        Err(error) => check_message_error(&error),
    }
}

/// A message that was accepted has known fields only, none of them twice.
fn check_fields(bytes: &[u8]) {
    let mut tags = wire::tags(bytes).expect("it was decoded, so it consists of fields");
    assert!(tags.iter().all(|tag| matches!(tag, 1..=6 | 16..=19)));
    let count = tags.len();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), count, "a field is there twice");
}

/// Checks everything that can be done with a message that was decoded from so many bytes.
pub(super) fn check(message: &Message, len: usize) {
    let written = message.to_bytes();
    assert_eq!(written.len(), message.encoded_len());
    assert!(
        written.len() <= len + MASKS_LEN,
        "{} bytes from {len}",
        written.len()
    );
    let again = Message::from_bytes(&written).expect("what was decoded can be written and read");
    // Compared as bytes, because a NaN among the arguments equals nothing.
    assert_eq!(again.to_bytes(), written);
    assert_eq!(again.value, message.value);
    assert_eq!(again.previous, message.previous);

    let names = names(message);
    // Taking them out of the text takes time for each.
    if names.len() <= NAMES_MAX {
        check_debug(message, &names);
    }
    let values = bounded(message.value.len() + 64, 8, || message.values(&SAMPLE));
    if let Err(error) = values {
        check_error(&error, &[]);
    }
    if let Err(error) = message.previous_values(&SAMPLE) {
        check_error(&error, &[]);
    }
    if let Err(error) = message.row::<Sample>() {
        check_message_error(&error);
    }
}

/// What an error about a message may repeat: the name of a column or of a type.
pub(super) fn check_message_error(error: &MessageError) {
    match error {
        MessageError::MasksIntersect { column: name }
        | MessageError::TypeName { found: name, .. } => {
            check_error(error, &[name]);
        }
        error => check_error(error, &[]),
    }
}

/// What `Debug` of a message shows: names.
fn names(message: &Message) -> Vec<&str> {
    let mut names = vec![&*message.type_name];
    names.extend(message.field_mask.iter().map(|name| &**name));
    names.extend(message.null_mask.iter().map(|name| &**name));
    let on_conflict = message
        .options
        .as_ref()
        .and_then(|it| it.on_conflict.as_ref());
    if let Some(on_conflict) = on_conflict {
        match &on_conflict.target {
            Target::Constraint(name) => names.push(name),
            Target::Columns(columns) => names.extend(columns.iter().map(String::as_str)),
            _ => {}
        }
        if let Action::Update(updates) = &on_conflict.action {
            for update in updates {
                names.push(&update.column);
                if let NewValue::Column { name, table } = &update.value {
                    names.extend([name.as_str(), table]);
                }
            }
        }
    }
    names
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let names = |name: &[u8], mask| wire::bytes(mask, &wire::repeat(&wire::bytes(1, name), len));
    let both = |a: &[u8], b: &[u8]| [names(a, 4), names(b, 5)].concat();
    vec![
        wire::message("x", 2, &names(b"", 4)),
        wire::message("x", 2, &names(b"a", 5)),
        wire::message("x", 2, &both(b"a", b"b")),
        wire::message("x", 2, &both(b"Abc", b"d")),
        wire::message("x", 1, &wire::bytes(17, &vec![1; len])),
        wire::message("x", 1, &wire::bytes(18, &vec![0; len])),
        wire::message("x", 1, &wire::bytes(2, &vec![0; len])),
        wire::message(&"x".repeat(len), 1, &[]),
        wire::message(
            "x",
            2,
            &[4, 5]
                .map(|mask| wire::bytes(mask, &wire::bytes(1, &vec![b'a'; len])))
                .concat(),
        ),
        // Reserved columns may repeat.
        wire::message("sample", 1, &wire::bytes(2, &wire::repeat(&[0x20, 0], len))),
        wire::message("sample", 1, &wire::bytes(17, &vec![4; len])),
    ]
}
