//! One byte counts NULL columns, a byte for each says which, and the rest is the row.

use oplog_core::{LogRow, RowValues, Value, encode_columns, encode_row};

use crate::bound::bounded;
use crate::canary::{check_debug, check_error};
use crate::sample::{SAMPLE, Sample, TAG_MAX};
use crate::wire;

/// Tags that a byte of the input stands for.
pub const NULL_TAGS: [u32; 16] = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    300,
    TAG_MAX,
    0,
    u32::MAX,
];

/// Text and bytes are borrowed, and the number of columns is the model's.
const PER_BYTE: usize = 1;

pub(super) fn run(bytes: &[u8]) {
    let Some((&count, rest)) = bytes.split_first() else {
        return;
    };
    let (nulls, row) = rest.split_at(usize::from(count & 15).min(rest.len()));
    let nulls: Vec<u32> = nulls
        .iter()
        .map(|byte| NULL_TAGS[usize::from(byte & 15)])
        .collect();
    let decoded = bounded(bytes.len(), PER_BYTE, || {
        RowValues::decode(&SAMPLE, row, &nulls)
    });
    match decoded {
        Ok(values) => check(&values, row.len()),
        Err(error) => check_error(&error, &[]),
    }
}

fn check(values: &RowValues<'_>, len: usize) {
    check_debug(values, &[]);
    let encoded = encode_columns(&SAMPLE, columns(values));
    // The shortest form of every column, and reserved ones are left out.
    assert!(encoded.bytes.len() <= len);
    let again = RowValues::decode(&SAMPLE, &encoded.bytes, &encoded.null_tags)
        .expect("what was decoded can be written and read");
    assert_eq!(encode_columns(&SAMPLE, columns(&again)), encoded);
    for index in 0..=SAMPLE.columns.len() {
        assert_eq!(again.get(index), values.get(index));
    }
    let overlaid = values.clone().into_owned().overlaid(again);
    assert_eq!(encode_columns(&SAMPLE, columns(&overlaid)), encoded);

    match Sample::from_row(values) {
        Err(error) => check_error(&error, &[]),
        Ok(sample) => {
            for (index, value) in columns(values) {
                assert_eq!(sample.value(index), value, "column {index}");
            }
            let encoded = encode_row(&sample);
            let again = RowValues::decode(&SAMPLE, &encoded.bytes, &encoded.null_tags)
                .and_then(|values| Sample::from_row(&values))
                .expect("a row can be written and read");
            // Compared as bytes, because a NaN equals nothing.
            assert_eq!(encode_row(&again), encoded);
        }
    }
}

fn columns<'v>(values: &'v RowValues<'_>) -> impl Iterator<Item = (usize, Value<'v>)> {
    (0..SAMPLE.columns.len()).filter_map(|index| Some((index, values.get(index)?.reborrow())))
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    let row = |row: Vec<u8>| [vec![0], row].concat();
    vec![
        row(wire::repeat(&[0x20, 0], len)),
        row(wire::repeat(&wire::bytes(4, &[]), len)),
        row(wire::bytes(2, "x".repeat(len).as_bytes())),
        row(wire::bytes(8, &vec![0; len])),
        row(wire::bytes(300, &wire::repeat(&wire::number(1, 0), len))),
        row(vec![0x80; len]),
        row([&[0x12][..], &wire::varint(u64::MAX), &vec![0; len]].concat()),
    ]
}
