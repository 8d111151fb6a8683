use oplog_core::{Metadata, MetadataError};

use crate::bound::bounded;
use crate::canary::check_error;

/// Keys and values are copied into a tree, a key once more for the comparison with the next.
const PER_BYTE: usize = 4;

pub(super) fn run(bytes: &[u8]) {
    match bounded(bytes.len(), PER_BYTE, || Metadata::from_bytes(bytes)) {
        Err(error) => check_metadata_error(&error, bytes.len()),
        Ok(metadata) => {
            assert_eq!(metadata.to_bytes(), bytes);
            assert_eq!(metadata.hash(), Metadata::hash_bytes(bytes));
            assert_eq!(metadata.iter().count(), metadata.len());
            for (key, ordinal, value) in metadata.iter() {
                assert_eq!(metadata.get(key).nth(ordinal as usize), Some(value));
            }
        }
    }
}

fn check_metadata_error(error: &MetadataError, len: usize) {
    match error {
        MetadataError::ValueTooLong { key, .. }
        | MetadataError::Nul { key }
        | MetadataError::Reserved { key } => check_error(error, &[key]),
        MetadataError::Malformed { offset, .. } => {
            assert!(*offset <= len);
            check_error(error, &[]);
        }
        error => check_error(error, &[]),
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let number = |number: usize| (number as u32).to_le_bytes();
    let pair = |key: &str, ordinal: usize, value: &str| {
        [
            &number(key.len())[..],
            key.as_bytes(),
            &number(ordinal),
            &[1],
            &number(value.len()),
            value.as_bytes(),
        ]
        .concat()
    };
    let many = |pairs: Vec<Vec<u8>>| [&number(pairs.len())[..], &pairs.concat()].concat();
    let value = "v".repeat(len / 64);
    vec![
        many((0..64).map(|ordinal| pair("k", ordinal, &value)).collect()),
        many(
            (0..64)
                .map(|key| pair(&format!("{key:02}"), 0, &value))
                .collect(),
        ),
        many(vec![pair(&"k".repeat(len), 0, "")]),
        many(vec![pair("k", 0, &"v".repeat(len))]),
        many(vec![pair("\n\u{1b}[2J", 0, &"v".repeat(len))]),
        [&u32::MAX.to_le_bytes()[..], &vec![0; len]].concat(),
        [&number(1)[..], &u32::MAX.to_le_bytes(), &vec![0; len]].concat(),
    ]
}
