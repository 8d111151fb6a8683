use std::borrow::Cow;

use crate::value::DAY_NANOS;
use crate::wire::{self, Reader, WireError, WireType};
use crate::{ColumnDef, Kind, LogRow, OplogValue, TypeDef, Value, ValueError};

/// The largest number of nanoseconds in a [`Value::Timestamp`].
const TIMESTAMP_NANOS_MAX: u32 = 1_999_999_999;

/// The decoded columns of one stored row.
///
/// A column is present with a value, present and `NULL`, or absent: it did not exist when the row
/// was logged, or the row is the previous part of an update and the column did not change.
///
/// `Debug` shows which columns are there and of what kind, never their content.
#[derive(Clone, Debug)]
pub struct RowValues<'a> {
    def: &'static TypeDef,
    /// By column index; `None` means absent.
    values: Vec<Option<Value<'a>>>,
}

/// The bytes of a row and the tags of its `NULL` columns.
///
/// Source: `FORMAT.md`, section "Rows".
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncodedRow {
    /// The columns that are not `NULL`, each as one field, in ascending order of tags.
    pub bytes: Vec<u8>,
    /// Tags of the columns that are `NULL`, ascending.
    pub null_tags: Vec<u32>,
}

/// Why the bytes of a row do not give its columns, or its columns not the model.
///
/// Names the type, the column and the place in the bytes, never any content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// The bytes between columns are not protobuf.
    #[error("row of {type_name}: malformed at byte {offset}")]
    Malformed {
        /// Stored name of the type.
        type_name: &'static str,
        /// Where the field begins.
        offset: usize,
        /// What is wrong there.
        source: WireError,
    },
    /// The bytes of a column are not what its kind asks for.
    #[error("row of {type_name}: column {column} is malformed at byte {offset}")]
    Column {
        /// Stored name of the type.
        type_name: &'static str,
        /// SQL name of the column.
        column: &'static str,
        /// Where the field begins.
        offset: usize,
        /// What is wrong there.
        source: WireError,
    },
    /// A column is stored twice, or both with a value and as `NULL`.
    #[error("row of {type_name}: column {column} is stored twice")]
    Duplicate {
        /// Stored name of the type.
        type_name: &'static str,
        /// SQL name of the column.
        column: &'static str,
    },
    /// A value is stored under a tag that the model neither defines nor reserves.
    #[error("row of {type_name}: no column has the tag {tag} stored at byte {offset}")]
    UnknownTag {
        /// Stored name of the type.
        type_name: &'static str,
        /// The stored tag.
        tag: u32,
        /// Where the field begins.
        offset: usize,
    },
    /// `NULL` is stored for a tag that the model neither defines nor reserves.
    #[error("row of {type_name}: no column has the tag {tag} stored as NULL")]
    UnknownNullTag {
        /// Stored name of the type.
        type_name: &'static str,
        /// The stored tag.
        tag: u32,
    },
    /// The row has no value for a column that the model needs.
    #[error("row of {type_name}: column {column} is missing")]
    Missing {
        /// Stored name of the type.
        type_name: &'static str,
        /// SQL name of the column.
        column: &'static str,
    },
    /// The Rust type of a column can't hold the stored value.
    #[error("row of {type_name}: column {column} can't hold the stored value")]
    Value {
        /// Stored name of the type.
        type_name: &'static str,
        /// SQL name of the column.
        column: &'static str,
        /// What is wrong with it.
        source: ValueError,
    },
}

impl<'a> RowValues<'a> {
    /// Decodes the bytes of a row and the tags of its `NULL` columns.
    ///
    /// Text and bytes are borrowed. Tags may come in any order; those in [`TypeDef::reserved`]
    /// are passed over.
    ///
    /// # Errors
    ///
    /// [`RowError`], all variants but `Missing` and `Value`, if the bytes are not a row of this
    /// type.
    pub fn decode(
        def: &'static TypeDef,
        bytes: &'a [u8],
        null_tags: &[u32],
    ) -> Result<Self, RowError> {
        let type_name = def.type_name;
        let mut values = vec![None; def.columns.len()];
        let mut columns = ColumnFinder { def, next: 0 };

        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let offset = reader.offset();
            let malformed = |source| RowError::Malformed {
                type_name,
                offset,
                source,
            };
            let (tag, wire_type) = reader.key().map_err(malformed)?;
            let Some(index) = columns.find(tag) else {
                if !def.reserved.contains(&tag) {
                    return Err(RowError::UnknownTag {
                        type_name,
                        tag,
                        offset,
                    });
                }
                reader.skip(wire_type).map_err(malformed)?;
                continue;
            };
            let column = &def.columns[index];
            let value =
                read_value(&mut reader, column, wire_type).map_err(|source| RowError::Column {
                    type_name,
                    column: column.name,
                    offset,
                    source,
                })?;
            store(&mut values[index], value, def, column)?;
        }

        for &tag in null_tags {
            match columns.find(tag) {
                Some(index) => {
                    store(&mut values[index], Value::Null, def, &def.columns[index])?;
                }
                None if def.reserved.contains(&tag) => {}
                None => return Err(RowError::UnknownNullTag { type_name, tag }),
            }
        }
        Ok(Self { def, values })
    }

    /// What the model looks like in the log.
    pub fn def(&self) -> &'static TypeDef {
        self.def
    }

    /// The value of the column with this index in [`TypeDef::columns`], [`Value::Null`] if it is
    /// `NULL`, `None` if it is absent or there is no such column.
    pub fn get(&self, column: usize) -> Option<&Value<'a>> {
        self.values.get(column)?.as_ref()
    }

    /// The value of the column with this index, as the model's type.
    ///
    /// An absent column is `NULL` for a type that can hold that: the column was added later.
    ///
    /// # Errors
    ///
    /// [`RowError::Missing`] if the column is absent and its type can't be `NULL`,
    /// [`RowError::Value`] if its type can't hold the value.
    pub fn take<T: OplogValue>(&self, column: usize) -> Result<T, RowError> {
        match self.get(column) {
            Some(value) => self.convert(column, value),
            None if T::NULLABLE => self.convert(column, &Value::Null),
            None => Err(RowError::Missing {
                type_name: self.def.type_name,
                column: self.column_name(column),
            }),
        }
    }

    /// The value of the column with this index, as the model's type, or the default if the column
    /// is absent. A column that is `NULL` is not absent.
    ///
    /// # Errors
    ///
    /// [`RowError::Value`] if the column's type can't hold the value.
    pub fn take_or<T: OplogValue>(
        &self,
        column: usize,
        default: impl FnOnce() -> T,
    ) -> Result<T, RowError> {
        match self.get(column) {
            Some(value) => self.convert(column, value),
            None => Ok(default()),
        }
    }

    fn convert<T: OplogValue>(&self, column: usize, value: &Value<'_>) -> Result<T, RowError> {
        T::from_value(value.reborrow()).map_err(|source| RowError::Value {
            type_name: self.def.type_name,
            column: self.column_name(column),
            source,
        })
    }

    fn column_name(&self, column: usize) -> &'static str {
        self.def.columns.get(column).map_or("?", |def| def.name)
    }

    /// The columns that are present with their values, [`Value::Null`] among them, in the model's
    /// order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static ColumnDef, &Value<'a>)> {
        let columns = self.def.columns.iter().zip(&self.values);
        columns.filter_map(|(column, value)| Some((column, value.as_ref()?)))
    }

    /// The same row with the present columns of another one in place of its own: the row before an
    /// update, from the row after it and the previous values.
    #[must_use]
    pub fn overlaid(mut self, with: RowValues<'a>) -> Self {
        for (value, other) in self.values.iter_mut().zip(with.values) {
            if other.is_some() {
                *value = other;
            }
        }
        self
    }

    /// The same columns, borrowing from nothing.
    pub fn into_owned(self) -> RowValues<'static> {
        RowValues {
            def: self.def,
            values: self
                .values
                .into_iter()
                .map(|value| value.map(Value::into_owned))
                .collect(),
        }
    }
}

/// Finds columns by tag, fast if the tags come in the order of the columns.
struct ColumnFinder {
    def: &'static TypeDef,
    next: usize,
}

impl ColumnFinder {
    fn find(&mut self, tag: u32) -> Option<usize> {
        let columns = self.def.columns;
        let is_next = columns
            .get(self.next)
            .is_some_and(|column| column.tag == tag);
        let index = if is_next {
            self.next
        } else {
            columns.iter().position(|column| column.tag == tag)?
        };
        self.next = index + 1;
        Some(index)
    }
}

fn store<'a>(
    slot: &mut Option<Value<'a>>,
    value: Value<'a>,
    def: &'static TypeDef,
    column: &'static ColumnDef,
) -> Result<(), RowError> {
    if slot.is_some() {
        return Err(RowError::Duplicate {
            type_name: def.type_name,
            column: column.name,
        });
    }
    *slot = Some(value);
    Ok(())
}

fn wire_type_of(kind: Kind) -> WireType {
    match kind {
        Kind::Bool | Kind::Sint | Kind::Uint | Kind::Date | Kind::Time => WireType::Varint,
        Kind::F32 => WireType::Fixed32,
        Kind::F64 => WireType::Fixed64,
        Kind::Text | Kind::Bytes | Kind::Timestamp => WireType::Len,
    }
}

fn read_value<'a>(
    reader: &mut Reader<'a>,
    column: &ColumnDef,
    wire_type: WireType,
) -> Result<Value<'a>, WireError> {
    if wire_type != wire_type_of(column.kind) {
        return Err(WireError::WireType { tag: column.tag });
    }
    Ok(match column.kind {
        Kind::Bool => match reader.varint()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return Err(WireError::Range),
        },
        Kind::Sint => Value::Sint(wire::unzigzag(reader.varint()?)),
        Kind::Uint => Value::Uint(reader.varint()?),
        Kind::F32 => Value::F32(reader.fixed32()?),
        Kind::F64 => Value::F64(reader.fixed64()?),
        Kind::Text => Value::Text(Cow::Borrowed(reader.text()?)),
        Kind::Bytes => Value::Bytes(Cow::Borrowed(reader.bytes()?)),
        Kind::Date => Value::Date(wire::unzigzag(reader.varint()?)),
        Kind::Time => match reader.varint()? {
            nanos if nanos < 2 * DAY_NANOS => Value::Time(nanos),
            _ => return Err(WireError::Range),
        },
        Kind::Timestamp => read_timestamp(reader.bytes()?)?,
    })
}

fn read_timestamp(bytes: &[u8]) -> Result<Value<'static>, WireError> {
    let (mut seconds, mut nanos) = (None, None);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let (tag, wire_type) = reader.key()?;
        let known = matches!(tag, 1 | 2);
        let is_set = (tag == 1 && seconds.is_some()) || (tag == 2 && nanos.is_some());
        match tag {
            _ if !known => return Err(WireError::UnknownField { tag }),
            _ if is_set => return Err(WireError::DuplicateField { tag }),
            _ if wire_type != WireType::Varint => return Err(WireError::WireType { tag }),
            1 => seconds = Some(wire::unzigzag(reader.varint()?)),
            _ => nanos = Some(reader.varint32()?),
        }
    }
    let (seconds, nanos) = (seconds.unwrap_or(0), nanos.unwrap_or(0));
    if nanos > TIMESTAMP_NANOS_MAX {
        return Err(WireError::Range);
    }
    Ok(Value::Timestamp { seconds, nanos })
}

/// Encodes every column of a row: those that are not `NULL` as fields in ascending order of tags,
/// also when they are 0 or empty, and the tags of those that are.
///
/// The bytes of a row are therefore a function of its values alone, not of the order of fields.
///
/// Source: `FORMAT.md`, sections "Rows" and "Values".
///
/// # Panics
///
/// If a column's value is not of the kind that the model declares, or a time or timestamp exceeds
/// the limits of [`Value`]. A hand-written [`OplogValue`] that does so would write a row that
/// nothing can read.
pub fn encode_row<R: LogRow>(row: &R) -> EncodedRow {
    encode_values(R::DEF, |index| row.value(index))
}

/// As [`encode_row`], of a row of which only the definition is known: `value` gives the column with
/// an index in [`TypeDef::columns`].
pub(crate) fn encode_values<'v>(
    def: &'static TypeDef,
    value: impl Fn(usize) -> Value<'v>,
) -> EncodedRow {
    let columns = def.columns;
    let by_tag = columns.is_sorted_by_key(|column| column.tag);
    if by_tag {
        return encode_sorted(def, || {
            (0..columns.len()).map(|index| (index, value(index)))
        });
    }
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_unstable_by_key(|&index| columns[index].tag);
    encode_sorted(def, || order.iter().map(|&index| (index, value(index))))
}

/// Encodes some columns of a row, given by their index in [`TypeDef::columns`], in any order.
///
/// # Panics
///
/// As [`encode_row`], and if there is no column with a given index or one is given twice.
pub fn encode_columns<'v>(
    def: &'static TypeDef,
    columns: impl IntoIterator<Item = (usize, Value<'v>)>,
) -> EncodedRow {
    let mut columns: Vec<_> = columns.into_iter().collect();
    columns.sort_unstable_by_key(|(index, _)| def.columns[*index].tag);
    assert!(
        columns.is_sorted_by(|(a, _), (b, _)| a != b),
        "a column of {} is encoded twice",
        def.rust_name
    );
    encode_sorted(def, || {
        columns
            .iter()
            .map(|(index, value)| (*index, value.reborrow()))
    })
}

/// Walks the columns twice, so that the bytes are allocated once and in their final size. Growing
/// would leave parts of the row behind in freed memory.
fn encode_sorted<'v, I>(def: &'static TypeDef, columns: impl Fn() -> I) -> EncodedRow
where
    I: Iterator<Item = (usize, Value<'v>)>,
{
    let (mut len, mut nulls) = (0, 0);
    for (index, value) in columns() {
        let column = &def.columns[index];
        check_value(def, column, &value);
        match value {
            Value::Null => nulls += 1,
            value => len += value_field_len(column.tag, &value),
        }
    }
    let mut bytes = Vec::with_capacity(len);
    let mut null_tags = Vec::with_capacity(nulls);
    for (index, value) in columns() {
        let tag = def.columns[index].tag;
        match value {
            Value::Null => null_tags.push(tag),
            value => put_value_field(&mut bytes, tag, &value),
        }
    }
    EncodedRow { bytes, null_tags }
}

fn check_value(def: &TypeDef, column: &ColumnDef, value: &Value<'_>) {
    let of_kind = value.kind().is_none_or(|kind| kind == column.kind);
    let in_range = match value {
        Value::Time(nanos) => *nanos < 2 * DAY_NANOS,
        Value::Timestamp { nanos, .. } => *nanos <= TIMESTAMP_NANOS_MAX,
        _ => true,
    };
    assert!(
        of_kind && in_range,
        "{}: the OplogValue of column {} gave a value outside its kind, {}",
        def.rust_name,
        column.name,
        column.kind
    );
}

fn value_field_len(tag: u32, value: &Value<'_>) -> usize {
    wire::key_len(tag)
        + match value {
            Value::Null => 0,
            Value::Bool(_) => 1,
            Value::Sint(number) | Value::Date(number) => wire::varint_len(wire::zigzag(*number)),
            Value::Uint(number) | Value::Time(number) => wire::varint_len(*number),
            Value::F32(_) => 4,
            Value::F64(_) => 8,
            Value::Text(text) => wire::varint_len(text.len() as u64) + text.len(),
            Value::Bytes(bytes) => wire::varint_len(bytes.len() as u64) + bytes.len(),
            // At most 16 bytes, so its length takes one.
            Value::Timestamp { seconds, nanos } => 1 + timestamp_len(*seconds, *nanos),
        }
}

fn put_value_field(out: &mut Vec<u8>, tag: u32, value: &Value<'_>) {
    let Some(kind) = value.kind() else {
        return;
    };
    wire::put_key(out, tag, wire_type_of(kind));
    match value {
        Value::Null => {}
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Sint(number) | Value::Date(number) => wire::put_varint(out, wire::zigzag(*number)),
        Value::Uint(number) | Value::Time(number) => wire::put_varint(out, *number),
        Value::F32(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::F64(bits) => out.extend_from_slice(&bits.to_le_bytes()),
        Value::Text(text) => put_len_and(out, text.as_bytes()),
        Value::Bytes(bytes) => put_len_and(out, bytes),
        Value::Timestamp { seconds, nanos } => {
            wire::put_varint(out, timestamp_len(*seconds, *nanos) as u64);
            if *seconds != 0 {
                wire::put_varint_field(out, 1, wire::zigzag(*seconds));
            }
            if *nanos != 0 {
                wire::put_varint_field(out, 2, u64::from(*nanos));
            }
        }
    }
}

fn put_len_and(out: &mut Vec<u8>, bytes: &[u8]) {
    wire::put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

// A zero is left out, as proto3 does.
fn timestamp_len(seconds: i64, nanos: u32) -> usize {
    let seconds_len = match seconds {
        0 => 0,
        seconds => wire::varint_field_len(1, wire::zigzag(seconds)),
    };
    let nanos_len = match nanos {
        0 => 0,
        nanos => wire::varint_field_len(2, u64::from(nanos)),
    };
    seconds_len + nanos_len
}

impl std::fmt::Debug for EncodedRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedRow")
            .field("len", &self.bytes.len())
            .field("null_tags", &self.null_tags)
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use std::any::TypeId;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// One column of every kind, in another order than that of the tags.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Sample {
        pub(crate) text: String,
        pub(crate) id: i64,
        pub(crate) flag: bool,
        pub(crate) count: u64,
        pub(crate) single: Bits32,
        pub(crate) double: Option<Bits64>,
        pub(crate) blob: Option<Vec<u8>>,
        pub(crate) day: Option<Day>,
        pub(crate) time: Option<Time>,
        pub(crate) moment: Moment,
        pub(crate) note: Option<String>,
    }

    // Floats by their bits, so that a NaN equals itself.
    macro_rules! newtype {
        ($name:ident($($field:ty),+), $kind:ident, $value:pat => $make:expr, |$self:ident| $to:expr) => {
            #[derive(Clone, Copy, Debug, PartialEq)]
            pub(crate) struct $name($(pub(crate) $field),+);
            impl OplogValue for $name {
                const KIND: Kind = Kind::$kind;
                fn to_value(&self) -> Value<'_> {
                    let $self = self;
                    $to
                }
                fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
                    match value {
                        $value => Ok($make),
                        other => Err(other.mismatch(Self::KIND)),
                    }
                }
            }
        };
    }
    newtype!(Bits32(u32), F32, Value::F32(bits) => Bits32(bits), |it| Value::F32(it.0));
    newtype!(Bits64(u64), F64, Value::F64(bits) => Bits64(bits), |it| Value::F64(it.0));
    newtype!(Day(i64), Date, Value::Date(days) => Day(days), |it| Value::Date(it.0));
    newtype!(Time(u64), Time, Value::Time(nanos) => Time(nanos), |it| Value::Time(it.0));
    newtype!(
        Moment(i64, u32), Timestamp,
        Value::Timestamp { seconds, nanos } => Moment(seconds, nanos),
        |it| Value::Timestamp { seconds: it.0, nanos: it.1 }
    );

    const fn column(tag: u32, name: &'static str, kind: Kind, nullable: bool) -> ColumnDef {
        ColumnDef {
            tag,
            name,
            kind,
            nullable,
            key: tag == 1,
        }
    }

    pub(crate) static SAMPLE: TypeDef = TypeDef {
        type_name: "sample",
        rust_name: "tests::Sample",
        type_id: TypeId::of::<Sample>,
        aggregate: "sample",
        root: None,
        columns: &[
            column(2, "text", Kind::Text, false),
            column(1, "id", Kind::Sint, false),
            column(3, "flag", Kind::Bool, false),
            column(5, "count", Kind::Uint, false),
            column(6, "single", Kind::F32, false),
            column(7, "double", Kind::F64, true),
            column(8, "blob", Kind::Bytes, true),
            column(9, "day", Kind::Date, true),
            column(10, "time", Kind::Time, true),
            column(300, "moment", Kind::Timestamp, false),
            column(wire::TAG_MAX, "note", Kind::Text, true),
        ],
        reserved: &[4, 11],
        partial: false,
        lock_first: false,
    };

    impl LogRow for Sample {
        const DEF: &'static TypeDef = &SAMPLE;

        fn value(&self, column: usize) -> Value<'_> {
            match column {
                0 => self.text.to_value(),
                1 => self.id.to_value(),
                2 => self.flag.to_value(),
                3 => self.count.to_value(),
                4 => self.single.to_value(),
                5 => self.double.to_value(),
                6 => self.blob.to_value(),
                7 => self.day.to_value(),
                8 => self.time.to_value(),
                9 => self.moment.to_value(),
                10 => self.note.to_value(),
                _ => panic!("no column {column}"),
            }
        }

        fn from_row(row: &RowValues<'_>) -> Result<Self, RowError> {
            Ok(Self {
                text: row.take(0)?,
                id: row.take(1)?,
                flag: row.take_or(2, || true)?,
                count: row.take(3)?,
                single: row.take(4)?,
                double: row.take(5)?,
                blob: row.take(6)?,
                day: row.take(7)?,
                time: row.take(8)?,
                moment: row.take(9)?,
                note: row.take(10)?,
            })
        }
    }

    pub(crate) fn sample() -> Sample {
        Sample {
            text: String::new(),
            id: 0,
            flag: false,
            count: 0,
            single: Bits32(0),
            double: None,
            blob: None,
            day: None,
            time: None,
            moment: Moment(0, 0),
            note: None,
        }
    }

    pub(crate) fn samples() -> impl Strategy<Value = Sample> {
        let fixed = (
            ".{0,6}",
            any::<i64>(),
            any::<bool>(),
            any::<u64>(),
            any::<u32>().prop_map(Bits32),
            (any::<i64>(), 0..=TIMESTAMP_NANOS_MAX),
        );
        let nullable = (
            any::<Option<u64>>(),
            any::<Option<Vec<u8>>>(),
            any::<Option<i64>>(),
            proptest::option::of(0..2 * DAY_NANOS),
            proptest::option::of(".{0,6}"),
        );
        (fixed, nullable).prop_map(|(fixed, nullable)| {
            let (text, id, flag, count, single, (seconds, nanos)) = fixed;
            let (double, blob, day, time, note) = nullable;
            Sample {
                text,
                id,
                flag,
                count,
                single,
                double: double.map(Bits64),
                blob,
                day: day.map(Day),
                time: time.map(Time),
                moment: Moment(seconds, nanos),
                note,
            }
        })
    }

    fn decode(bytes: &[u8], null_tags: &[u32]) -> Result<RowValues<'static>, RowError> {
        RowValues::decode(&SAMPLE, bytes, null_tags).map(RowValues::into_owned)
    }

    fn check_refused(bytes: &[u8], null_tags: &[u32], expected: RowError) {
        assert_eq!(
            decode(bytes, null_tags).unwrap_err(),
            expected,
            "{bytes:02x?}"
        );
    }

    fn check_column(bytes: &[u8], column: &'static str, source: WireError) {
        let expected = RowError::Column {
            type_name: "sample",
            column,
            offset: 0,
            source,
        };
        check_refused(bytes, &[], expected);
    }

    #[test]
    fn zero_and_empty_are_written_and_null_is_a_tag() {
        let encoded = encode_row(&sample());
        let expected = [
            0x08, 0, // id
            0x12, 0, // text
            0x18, 0, // flag
            0x28, 0, // count
            0x35, 0, 0, 0, 0, // single
            0xe2, 0x12, 0, // moment
        ];
        assert_eq!(encoded.bytes, expected);
        assert_eq!(encoded.null_tags, [7, 8, 9, 10, wire::TAG_MAX]);

        let row = decode(&encoded.bytes, &encoded.null_tags).unwrap();
        assert_eq!(row.get(1), Some(&Value::Sint(0)));
        assert_eq!(row.get(5), Some(&Value::Null));
        assert_eq!(row.iter().count(), 11);
        assert_eq!(Sample::from_row(&row), Ok(sample()));
    }

    #[test]
    fn every_kind_has_its_bytes() {
        for (index, value, expected) in [
            (1, Value::Sint(-1), &[0x08, 1][..]),
            (0, Value::Text("é".into()), &[0x12, 2, 0xc3, 0xa9]),
            (2, Value::Bool(true), &[0x18, 1]),
            (3, Value::Uint(300), &[0x28, 0xac, 2]),
            (4, Value::F32(0x0403_0201), &[0x35, 1, 2, 3, 4]),
            (5, Value::F64(2), &[0x39, 2, 0, 0, 0, 0, 0, 0, 0]),
            (6, Value::Bytes(vec![0xff].into()), &[0x42, 1, 0xff]),
            (7, Value::Date(-2), &[0x48, 3]),
            (8, Value::Time(1), &[0x50, 1]),
            (
                9,
                Value::Timestamp {
                    seconds: -1,
                    nanos: 5,
                },
                &[0xe2, 0x12, 4, 0x08, 1, 0x10, 5],
            ),
        ] {
            let encoded = encode_columns(&SAMPLE, [(index, value.clone())]);
            assert_eq!(encoded.bytes, expected, "column {index}");
            assert_eq!(decode(expected, &[]).unwrap().get(index), Some(&value));
        }
    }

    #[test]
    fn null_absent_and_default_differ() {
        let row = decode(
            &[0x08, 2, 0x12, 0, 0x28, 0, 0x35, 0, 0, 0, 0, 0xe2, 0x12, 0],
            &[8],
        )
        .unwrap();
        assert_eq!(row.get(5), None, "absent");
        assert_eq!(row.get(6), Some(&Value::Null), "NULL");
        assert_eq!(row.get(3), Some(&Value::Uint(0)), "default");
        let sample = Sample::from_row(&row).unwrap();
        assert!(sample.flag, "the default of an absent column");
        assert_eq!((sample.double, sample.blob), (None, None));

        let missing = RowError::Missing {
            type_name: "sample",
            column: "text",
        };
        assert_eq!(
            decode(&[0x08, 2], &[]).unwrap().take::<String>(0),
            Err(missing.clone())
        );
        assert_eq!(Sample::from_row(&decode(&[], &[]).unwrap()), Err(missing));

        let null_flag = decode(&[], &[3]).unwrap().take_or(2, || true).unwrap_err();
        assert_eq!(
            null_flag.to_string(),
            "row of sample: column flag can't hold the stored value"
        );
    }

    #[test]
    fn what_is_no_row_is_refused() {
        let type_name = "sample";
        let malformed = |offset, source| RowError::Malformed {
            type_name,
            offset,
            source,
        };
        check_refused(&[0x08, 0, 0x00], &[], malformed(2, WireError::Key));
        check_refused(&[0x08, 0, 0x13], &[], malformed(2, WireError::Key));
        check_refused(&[0x80], &[], malformed(0, WireError::Truncated));
        check_refused(&[0x22, 5, 0], &[], malformed(0, WireError::Truncated));

        check_refused(
            &[0x08, 0, 0x60, 0],
            &[],
            RowError::UnknownTag {
                type_name,
                tag: 12,
                offset: 2,
            },
        );
        check_refused(&[], &[12], RowError::UnknownNullTag { type_name, tag: 12 });
        let duplicate = RowError::Duplicate {
            type_name,
            column: "id",
        };
        check_refused(&[0x08, 0, 0x08, 0], &[], duplicate.clone());
        check_refused(&[0x08, 0], &[1], duplicate.clone());
        check_refused(&[], &[1, 1], duplicate);

        check_column(&[0x0a, 0], "id", WireError::WireType { tag: 1 });
        check_column(&[0x30, 0], "single", WireError::WireType { tag: 6 });
        check_column(&[0x12, 1, 0xff], "text", WireError::Utf8);
        check_column(&[0x12, 2, b'x'], "text", WireError::Truncated);
        check_column(&[0x18, 2], "flag", WireError::Range);
        check_column(&[0x35, 0, 0, 0], "single", WireError::Truncated);
        let too_late = encode_columns(&SAMPLE, [(8, Value::Time(2 * DAY_NANOS - 1))]).bytes;
        assert!(decode(&too_late, &[]).is_ok());
        let mut too_late = vec![0x50];
        wire::put_varint(&mut too_late, 2 * DAY_NANOS);
        check_column(&too_late, "time", WireError::Range);

        let moment = |content: &[u8]| {
            let mut bytes = Vec::new();
            wire::put_bytes_field(&mut bytes, 300, content);
            bytes
        };
        let check = |content: &[u8], source| check_column(&moment(content), "moment", source);
        check(&[0x18, 0], WireError::UnknownField { tag: 3 });
        check(&[0x08, 0, 0x08, 0], WireError::DuplicateField { tag: 1 });
        check(&[0x10, 0, 0x10, 0], WireError::DuplicateField { tag: 2 });
        check(&[0x0d, 0, 0, 0, 0], WireError::WireType { tag: 1 });
        check(&[0x10, 0x80, 0xa8, 0xd6, 0xb9, 0x07], WireError::Range);
        check(&[0x10, 0xff, 0xff, 0xff, 0xff, 0x1f], WireError::Varint);
        check(&[0x10], WireError::Truncated);
    }

    #[test]
    fn reserved_tags_are_passed_over() {
        let stored = [
            0x20, 0x05, // varint
            0x21, 0, 0, 0, 0, 0, 0, 0, 0, // fixed64
            0x22, 0x01, 0xff, // bytes
            0x25, 0, 0, 0, 0, // fixed32
            0x08, 0x02,
        ];
        let row = decode(&stored, &[4, 11]).unwrap();
        assert_eq!(row.iter().count(), 1);
        assert_eq!(row.take::<i64>(1), Ok(1));
    }

    #[test]
    fn the_order_of_columns_does_not_matter() {
        let columns =
            || (0..11).map(|index| (index, SAMPLE_ROW.with(|row| row.value(index).into_owned())));
        thread_local!(static SAMPLE_ROW: Sample = sample());
        let forwards = encode_columns(&SAMPLE, columns());
        let backwards = encode_columns(&SAMPLE, columns().collect::<Vec<_>>().into_iter().rev());
        assert_eq!(forwards, backwards);
        assert_eq!(forwards, encode_row(&sample()));
    }

    #[test]
    #[should_panic(expected = "column id gave a value outside its kind, sint")]
    fn a_value_of_another_kind_is_not_written() {
        encode_columns(&SAMPLE, [(1, Value::Uint(1))]);
    }

    #[test]
    fn debug_and_errors_hide_content() {
        let encoded = encode_row(&Sample {
            text: "secret".to_owned(),
            ..sample()
        });
        let row = decode(&encoded.bytes, &encoded.null_tags).unwrap();
        assert!(!format!("{row:?} {encoded:?}").contains("secret"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn rows_round_trip(sample in samples()) {
            let encoded = encode_row(&sample);
            prop_assert_eq!(encoded.bytes.len(), encoded.bytes.capacity());
            let row = RowValues::decode(&SAMPLE, &encoded.bytes, &encoded.null_tags).unwrap();
            prop_assert_eq!(Sample::from_row(&row), Ok(sample.clone()));
            let values = (0..11).filter_map(|index| Some((index, row.get(index)?.reborrow())));
            prop_assert_eq!(encode_columns(&SAMPLE, values), encoded);
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>, nulls in vec(0u32..14, 0..3)) {
            let _ = RowValues::decode(&SAMPLE, &bytes, &nulls);
        }

        #[test]
        fn changed_bytes_give_an_error_or_another_row(sample in samples(), at: usize, bit in 0..8) {
            let mut encoded = encode_row(&sample);
            let at = at % encoded.bytes.len();
            encoded.bytes[at] ^= 1u8 << bit;
            if let Ok(row) = RowValues::decode(&SAMPLE, &encoded.bytes, &encoded.null_tags) {
                let same = (0..11).all(|index| row.get(index) == Some(&sample.value(index)));
                prop_assert!(!same);
            }
        }

        #[test]
        fn a_shorter_row_gives_an_error_or_fewer_columns(sample in samples(), len: usize) {
            let encoded = encode_row(&sample);
            let shorter = &encoded.bytes[..len % encoded.bytes.len()];
            if let Ok(row) = RowValues::decode(&SAMPLE, shorter, &encoded.null_tags) {
                prop_assert!(row.iter().count() < 11);
            }
        }
    }
}
