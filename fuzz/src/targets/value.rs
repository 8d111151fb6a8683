//! The first byte chooses a kind, and the rest stands where the content of such a column does.

use std::any::TypeId;
use std::fmt::Debug;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use oplog_core::{ColumnDef, Kind, OplogValue, RowValues, TypeDef, Value, encode_columns};

use crate::bound::bounded;
use crate::canary::{check_debug, check_error};
use crate::wire;

const fn column(kind: Kind) -> ColumnDef {
    ColumnDef {
        tag: 1,
        name: "c",
        kind,
        nullable: true,
        key: false,
    }
}

macro_rules! kinds {
    ($($kind:ident $wire_type:literal,)*) => {
        /// Every kind with the wire type that it is stored as.
        pub const KINDS: &[(Kind, u8)] = &[$((Kind::$kind, $wire_type),)*];

        /// A model with one column for each kind.
        static DEFS: &[TypeDef] = &[$(TypeDef {
            type_name: "one",
            rust_name: "oplog_fuzz::One",
            type_id: TypeId::of::<()>,
            aggregate: "one",
            root: None,
            columns: &[column(Kind::$kind)],
            reserved: &[],
            partial: false,
            lock_first: false,
        },)*];
    };
}

kinds! {
    Bool 0,
    Sint 0,
    Uint 0,
    F32 5,
    F64 1,
    Text 2,
    Bytes 2,
    Date 0,
    Time 0,
    Timestamp 2,
}

pub(super) fn run(bytes: &[u8]) {
    let Some((&chosen, content)) = bytes.split_first() else {
        return;
    };
    let chosen = usize::from(chosen) % KINDS.len();
    let (def, (kind, wire_type)) = (&DEFS[chosen], KINDS[chosen]);
    let field = [&wire::key(1, wire_type)[..], content].concat();
    match bounded(field.len(), 1, || RowValues::decode(def, &field, &[])) {
        Err(error) => check_error(&error, &[]),
        Ok(row) => {
            let value = row.get(0).expect("the only column is there");
            assert_eq!(value.kind(), Some(kind));
            if let Some(expected) = expected(kind, content) {
                assert_eq!(*value, expected, "read differently");
            }
            let encoded = encode_columns(def, [(0, value.reborrow())]);
            assert!(encoded.bytes.len() <= field.len());
            let again = RowValues::decode(def, &encoded.bytes, &[]).expect("it can be read again");
            assert_eq!(again.get(0), Some(value));
            check(value);
        }
    }
}

/// What content that was accepted must mean, of the kinds that a line can read. Written from
/// `FORMAT.md`, section "Values".
fn expected(kind: Kind, content: &[u8]) -> Option<Value<'_>> {
    let behind_length = || {
        let len = content.iter().take_while(|byte| **byte >= 0x80).count();
        &content[len + 1..]
    };
    Some(match kind {
        Kind::Bool => Value::Bool(wire::read_varint(content) == 1),
        Kind::Sint => Value::Sint(wire::read_zigzag(content)),
        Kind::Uint => Value::Uint(wire::read_varint(content)),
        Kind::F32 => Value::F32(u32::from_le_bytes(content.try_into().ok()?)),
        Kind::F64 => Value::F64(u64::from_le_bytes(content.try_into().ok()?)),
        Kind::Text => Value::Text(std::str::from_utf8(behind_length()).ok()?.into()),
        Kind::Bytes => Value::Bytes(behind_length().into()),
        Kind::Date => Value::Date(wire::read_zigzag(content)),
        Kind::Time => Value::Time(wire::read_varint(content)),
        _ => return None,
    })
}

fn check(value: &Value<'_>) {
    check_debug(value, &[]);
    // Any stored number prints.
    assert!(
        !value.to_string().is_empty() || matches!(value.kind(), Some(Kind::Text | Kind::Bytes))
    );
    let held = [
        holds::<bool>(value),
        holds::<i8>(value),
        holds::<i16>(value),
        holds::<i32>(value),
        holds::<i64>(value),
        holds::<u8>(value),
        holds::<u16>(value),
        holds::<u32>(value),
        holds::<u64>(value),
        holds::<f32>(value),
        holds::<f64>(value),
        holds::<String>(value),
        holds::<Vec<u8>>(value),
        holds::<NaiveDate>(value),
        holds::<NaiveTime>(value),
        holds::<NaiveDateTime>(value),
        holds::<DateTime<Utc>>(value),
        holds::<Option<i64>>(value),
    ];
    // chrono's types end somewhere, the widest of all others hold whatever is stored.
    let of_chrono = matches!(
        value.kind(),
        Some(Kind::Date | Kind::Time | Kind::Timestamp)
    );
    assert!(of_chrono || held.contains(&true));
}

/// Whether a Rust type takes the value. What it takes, it gives back.
fn holds<T: OplogValue + Debug>(value: &Value<'_>) -> bool {
    match T::from_value(value.reborrow()) {
        Ok(rust) => {
            assert_eq!(Some(T::KIND), value.kind());
            assert_eq!(rust.to_value(), *value, "another value came back");
            true
        }
        Err(error) => {
            check_error(&error, &[]);
            false
        }
    }
}

pub(super) fn hostile(len: usize) -> Vec<Vec<u8>> {
    (0..KINDS.len() as u8)
        .flat_map(|kind| {
            let content = [
                vec![0x80; len],
                [wire::varint(len as u64), vec![b'x'; len]].concat(),
                [wire::varint(len as u64), wire::repeat(&[0x08, 0], len)].concat(),
                wire::varint(u64::MAX),
            ];
            content.map(|content| [vec![kind], content].concat())
        })
        .collect()
}
