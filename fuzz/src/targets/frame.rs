//! The input is what stands inside an envelope that is genuine, as a holder of the key can make it.

use oplog_core::{Envelope, EnvelopeLimits, OpenError};

use crate::bound::bounded;
use crate::canary::check_error;
use crate::forge;

pub(super) fn run(inner: &[u8]) {
    let bytes = forge::seal(forge::header("sample", None), inner);
    let envelope = Envelope::parse(&bytes, &EnvelopeLimits::default()).expect("a genuine header");
    let key = forge::data_key();
    let opened = bounded(bytes.len(), 2, || envelope.open(&key));
    match (opened, expected(inner)) {
        (Ok(opened), Ok(expected)) => assert_eq!(&*opened, expected),
        (Err(error), Err(expected)) => {
            check_error(&error, &["sample"]);
            let same = match (&error, expected) {
                (OpenError::Integrity { .. }, None) => true,
                (OpenError::UnsupportedCodec { codec }, Some(expected)) => *codec == expected,
                _ => false,
            };
            assert!(same, "{error}");
        }
        (opened, expected) => panic!("{:?} instead of {expected:?}", opened.map(drop)),
    }
}

/// The queue, or the codec that is not known, or nothing if the frame is broken. Written from
/// `FORMAT.md`, section "Inner frame".
fn expected(inner: &[u8]) -> Result<&[u8], Option<u8>> {
    if inner.len() < 10 || inner[0] != 1 {
        return Err(None);
    }
    if inner[1] != 0 {
        return Err(Some(inner[1]));
    }
    let number = |at: usize| {
        inner[at..at + 4]
            .iter()
            .rev()
            .fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (queue_len, payload_len, rest) = (number(2), number(6), &inner[10..]);
    if queue_len != payload_len || payload_len > rest.len() as u64 {
        return Err(None);
    }
    let (payload, padding) = rest.split_at(payload_len as usize);
    match padding.iter().any(|byte| *byte != 0) {
        true => Err(None),
        false => Ok(payload),
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let claims = |claimed: u32| {
        let claimed = claimed.to_le_bytes();
        [&[1, 0][..], &claimed, &claimed, &vec![0; len]].concat()
    };
    vec![
        forge::frame(&vec![7; len]),
        claims(0),
        claims(u32::MAX),
        vec![1; len],
    ]
}
