//! Options are read through prost, which is lax where the rest of a message is strict.

use oplog_core::{Message, MessageError};

use crate::bound::bounded;
use crate::canary::check_error;
use crate::targets::message;
use crate::wire;

/// As in a message without options. An object in an object takes the most: six bytes of input become
/// a vector of four fields, which is the smallest that grows.
const PER_BYTE: usize = 40;

pub(super) fn run(bytes: &[u8]) {
    let bytes = wire::message("x", 1, &wire::bytes(6, bytes));
    match bounded(bytes.len(), PER_BYTE, || Message::from_bytes(&bytes)) {
        Ok(message) => message::check(&message, bytes.len()),
        Err(error @ MessageError::Options { .. }) => check_error(&error, &[]),
        Err(error) => panic!("the rest of the message is fine: {error}"),
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let null = wire::number(1, 0);
    let arguments = |argument: &[u8]| wire::repeat(&wire::bytes(4, argument), len);
    let list = |content: &[u8]| wire::bytes(6, content);
    let object = |content: &[u8]| wire::bytes(5, content);
    let field = [wire::bytes(1, b"k"), wire::bytes(2, &null)].concat();
    let unnamed = wire::bytes(2, &null);
    let nested = (0..11).fold(null.clone(), |inner, _| {
        object(&wire::bytes(1, &wire::bytes(2, &inner)))
    });
    let mut deep = null.clone();
    while deep.len() < len.min(4096) {
        deep = list(&wire::bytes(1, &deep));
    }
    let fields: Vec<u8> = (0..len / 16)
        .flat_map(|number| {
            let name = format!("{number:06x}");
            wire::bytes(
                1,
                &[wire::bytes(1, name.as_bytes()), unnamed.clone()].concat(),
            )
        })
        .collect();
    vec![
        arguments(&null),
        arguments(&[]),
        arguments(&list(&[])),
        arguments(&object(&wire::bytes(1, &field))),
        arguments(&object(&wire::bytes(1, &unnamed))),
        arguments(&nested),
        wire::bytes(4, &object(&fields)),
        wire::bytes(4, &list(&wire::repeat(&wire::bytes(1, &null), len))),
        wire::bytes(4, &deep),
        // Unknown fields and the same field again and again.
        wire::repeat(&wire::number(99, 1), len),
        wire::repeat(&wire::bytes(5, &wire::bytes(10, b"c")), len),
        wire::bytes(
            5,
            &wire::bytes(11, &wire::repeat(&wire::bytes(1, b""), len)),
        ),
    ]
}
