//! The first byte chooses where the rest stands: as the stored bytes, as what was encrypted, or as
//! the names that the wrap is bound to.

use oplog_core::{DataKey, KeyWrapError, KeyWrapper, WrapContext};

use crate::bound::bounded;
use crate::canary::check_error;
use crate::forge;

const PER_BYTE: usize = 4;

pub(super) fn run(bytes: &[u8]) {
    let Some((&chosen, rest)) = bytes.split_first() else {
        return;
    };
    match chosen % 4 {
        0 => {
            let is_genuine = rest == forge::wrap(&forge::bound());
            check_wrapped(rest, is_genuine.then_some(&forge::SECRET));
        }
        // Encrypted under the right key for the right context, but with any content.
        1 => check_wrapped(
            &forge::wrap(rest),
            bound_key(rest).filter(|_| rest.len() == 64),
        ),
        2 => check_key(forge::context().unbind(rest), bound_key(rest)),
        _ => check_context(rest),
    }
}

fn check_wrapped(wrapped: &[u8], expected: Option<&[u8]>) {
    let (kek, context) = (forge::kek(), forge::context());
    let opened = bounded(wrapped.len(), PER_BYTE, || kek.unwrap(&context, wrapped));
    check_key(opened, expected);
}

/// The key in front of the hash of the context. Who can wrap can wrap any key, but for no other
/// context.
fn bound_key(bound: &[u8]) -> Option<&[u8]> {
    let (key, context_hash) = bound.split_at_checked(32)?;
    (context_hash == &forge::bound()[32..]).then_some(key)
}

fn check_key(opened: Result<DataKey, KeyWrapError>, expected: Option<&[u8]>) {
    match opened {
        Ok(key) => assert_eq!(Some(&key.expose_secret()[..]), expected),
        Err(error) => {
            assert_eq!(expected, None, "{error}");
            check_key_error(&error);
        }
    }
}

/// Two different contexts never have the same bytes, so no wrap opens in another place.
fn check_context(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (scope, purpose) = text.split_once('|').unwrap_or((text, ""));
    let context = WrapContext {
        scope,
        purpose,
        ..forge::context()
    };
    let stored = match context.to_bytes() {
        Ok(stored) => stored,
        Err(error) => {
            assert!(scope.len() > 255 || purpose.len() > 255);
            return check_key_error(&error);
        }
    };
    let moved = WrapContext {
        scope: purpose,
        purpose: scope,
        ..context
    };
    assert_eq!(moved == context, moved.to_bytes().ok() == Some(stored));
    let kek = forge::kek();
    let wrapped = kek
        .wrap(&context, &forge::data_key())
        .expect("the context can be written");
    let opened = kek.unwrap(&forge::context(), &wrapped);
    assert_eq!(opened.is_ok(), context == forge::context());
    assert_eq!(kek.unwrap(&moved, &wrapped).is_ok(), moved == context);
    assert!(kek.unwrap(&context, &wrapped).is_ok());
}

fn check_key_error(error: &KeyWrapError) {
    check_error(error, &[]);
    let shown = format!("{error} {error:?}");
    for secret in [forge::SECRET, forge::KEK] {
        let list = format!("{secret:?}");
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(list.trim_matches(['[', ']'])) && !shown.contains(&hex));
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let long = vec![1; len];
    let names = [&b"|"[..], &vec![b'x'; len]].concat();
    vec![
        [&[0][..], &long].concat(),
        [&[1][..], &long].concat(),
        [&[2][..], &long].concat(),
        [&[3][..], &names].concat(),
    ]
}
