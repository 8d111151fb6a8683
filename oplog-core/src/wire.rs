//! Protobuf by hand for what is written often, through prost for what is rare.
//!
//! Rows and messages are encoded from borrowed data and decoded strictly (no unknown field, no
//! field twice), which prost does not offer; the tests hold them equal to prost's encoding of
//! `oplog.proto`. Options go through prost. Beside the structs for it, no other module names prost.

use prost::Message as _;

use crate::options::{
    Action, Argument, ColumnUpdate, NewValue, OnConflict, Options, OptionsError, Target,
};
use crate::proto;
use crate::proto_value::{self, Kind as ProtoKind};

/// Bytes that are not the protobuf that `FORMAT.md` asks for. Carries no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end inside a field, or a length exceeds what is left.
    #[error("the bytes end inside a field")]
    Truncated,
    /// A varint is longer than 10 bytes or exceeds 64 bits, or 32 where the field holds 32.
    #[error("a varint is too large")]
    Varint,
    /// A field's number is 0 or too large, or its wire type does not exist or is a group.
    #[error("a field key is invalid")]
    Key,
    /// A field has another wire type than its definition.
    #[error("field {tag} has the wrong wire type")]
    WireType {
        /// Number of the field.
        tag: u32,
    },
    /// A field is not defined.
    #[error("field {tag} is not defined")]
    UnknownField {
        /// Number of the field.
        tag: u32,
    },
    /// A field that occurs at most once occurs again.
    #[error("field {tag} occurs twice")]
    DuplicateField {
        /// Number of the field.
        tag: u32,
    },
    /// Text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A number is outside what its field can hold, such as a boolean of 2.
    #[error("a number is outside the range of its field")]
    Range,
}

/// How a field's content is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Len = 2,
    Fixed32 = 5,
}

/// The largest field number that protobuf has.
pub(crate) const TAG_MAX: u32 = (1 << 29) - 1;

/// Reads fields from the front of a slice. Nothing is copied.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offset == self.bytes.len()
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(WireError::Truncated)?;
        self.offset += len;
        Ok(taken)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let mut value = 0u64;
        for (index, byte) in rest.iter().take(10).enumerate() {
            // The tenth byte holds the last of 64 bits.
            if index == 9 && *byte > 1 {
                return Err(WireError::Varint);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.offset += index + 1;
                return Ok(value);
            }
        }
        Err(WireError::Truncated)
    }

    pub(crate) fn varint32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.varint()?).map_err(|_| WireError::Varint)
    }

    /// The number and the wire type of the next field.
    pub(crate) fn key(&mut self) -> Result<(u32, WireType), WireError> {
        let key = self.varint()?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Len,
            5 => WireType::Fixed32,
            _ => return Err(WireError::Key),
        };
        match u32::try_from(key >> 3) {
            Ok(tag @ 1..=TAG_MAX) => Ok((tag, wire_type)),
            _ => Err(WireError::Key),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Utf8)
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, WireError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(bytes))
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, WireError> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn skip(&mut self, wire_type: WireType) -> Result<(), WireError> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed64().map(drop),
            WireType::Len => self.bytes().map(drop),
            WireType::Fixed32 => self.fixed32().map(drop),
        }
    }
}

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

pub(crate) fn varint_len(value: u64) -> usize {
    // One byte for each started group of 7 bits; zero takes one too.
    ((value | 1).ilog2() / 7 + 1) as usize
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn key_len(tag: u32) -> usize {
    varint_len(u64::from(tag) << 3)
}

pub(crate) fn put_key(out: &mut Vec<u8>, tag: u32, wire_type: WireType) {
    put_varint(out, u64::from(tag) << 3 | wire_type as u64);
}

pub(crate) fn varint_field_len(tag: u32, value: u64) -> usize {
    key_len(tag) + varint_len(value)
}

pub(crate) fn put_varint_field(out: &mut Vec<u8>, tag: u32, value: u64) {
    put_key(out, tag, WireType::Varint);
    put_varint(out, value);
}

pub(crate) fn bytes_field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + varint_len(len as u64) + len
}

pub(crate) fn put_bytes_field(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_key(out, tag, WireType::Len);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Field 1 of every element, which is how a `FieldMask` looks.
pub(crate) fn paths_len<P: AsRef<str>>(paths: &[P]) -> usize {
    paths
        .iter()
        .map(|path| bytes_field_len(1, path.as_ref().len()))
        .sum()
}

pub(crate) fn put_paths_field<P: AsRef<str>>(out: &mut Vec<u8>, tag: u32, paths: &[P], len: usize) {
    put_key(out, tag, WireType::Len);
    put_varint(out, len as u64);
    for path in paths {
        put_bytes_field(out, 1, path.as_ref().as_bytes());
    }
}

pub(crate) fn packed_len(numbers: &[u32]) -> usize {
    numbers
        .iter()
        .map(|number| varint_len(u64::from(*number)))
        .sum()
}

pub(crate) fn put_packed_field(out: &mut Vec<u8>, tag: u32, numbers: &[u32], len: usize) {
    put_key(out, tag, WireType::Len);
    put_varint(out, len as u64);
    for number in numbers {
        put_varint(out, u64::from(*number));
    }
}

/// The bytes of options, of an `OperationOptions`.
pub(crate) fn encode_options(options: &Options) -> Vec<u8> {
    proto::OperationOptions {
        with_version: options.version,
        with_skip_vet_for_write: options.skip_vet,
        with_where_clause: options.where_clause.clone(),
        with_where_clause_args: options.where_args.iter().map(argument_to_proto).collect(),
        with_on_conflict: options.on_conflict.as_ref().map(on_conflict_to_proto),
    }
    .encode_to_vec()
}

fn on_conflict_to_proto(on_conflict: &OnConflict) -> proto::WithOnConflict {
    use proto::with_on_conflict::{Action as ProtoAction, Target as ProtoTarget};

    let target = match &on_conflict.target {
        Target::Constraint(name) => ProtoTarget::Constraint(name.clone()),
        Target::Columns(names) => ProtoTarget::Columns(proto::Columns {
            names: names.clone(),
        }),
    };
    let action = match &on_conflict.action {
        Action::Nothing => ProtoAction::DoNothing(true),
        Action::UpdateAll => ProtoAction::UpdateAll(true),
        Action::Update(columns) => ProtoAction::ColumnValues(proto::ColumnValues {
            values: columns.iter().map(column_update_to_proto).collect(),
        }),
    };
    proto::WithOnConflict {
        target: Some(target),
        action: Some(action),
    }
}

fn column_update_to_proto(update: &ColumnUpdate) -> proto::ColumnValue {
    use proto::column_value::Value as ProtoValue;

    let value = match &update.value {
        NewValue::Raw(argument) => ProtoValue::Raw(argument_to_proto(argument)),
        NewValue::Expression { sql, args } => ProtoValue::ExprValue(proto::ExprValue {
            sql: sql.clone(),
            args: args.iter().map(argument_to_proto).collect(),
        }),
        NewValue::Column { name, table } => ProtoValue::Column(proto::Column {
            name: name.clone(),
            table: table.clone(),
        }),
    };
    proto::ColumnValue {
        name: update.column.clone(),
        value: Some(value),
    }
}

fn argument_to_proto(argument: &Argument) -> proto_value::Value {
    let kind = match argument {
        Argument::Null => ProtoKind::Null(0),
        Argument::Number(number) => ProtoKind::Number(*number),
        Argument::Text(text) => ProtoKind::Text(text.clone()),
        Argument::Bool(value) => ProtoKind::Bool(*value),
        Argument::Struct(fields) => ProtoKind::Struct(proto_value::Struct {
            fields: fields
                .iter()
                .map(|(name, value)| proto_value::Field {
                    name: name.clone(),
                    value: Some(argument_to_proto(value)),
                })
                .collect(),
        }),
        Argument::List(values) => ProtoKind::List(proto_value::List {
            values: values.iter().map(argument_to_proto).collect(),
        }),
    };
    proto_value::Value { kind: Some(kind) }
}

/// Reads options. Unlike everything else, fields that `oplog.proto` does not define are passed
/// over: options describe the statement, and nothing that is stored or replayed follows from them.
/// How deep arguments nest is left to [`Options::check`].
pub(crate) fn decode_options(bytes: &[u8]) -> Result<Options, OptionsError> {
    // prost's own error is dropped: it can't be compared and says little more than this.
    let options = proto::OperationOptions::decode(bytes).map_err(|_| OptionsError::Malformed)?;
    Ok(Options {
        version: options.with_version,
        skip_vet: options.with_skip_vet_for_write,
        where_clause: options.with_where_clause,
        where_args: arguments_from_proto(options.with_where_clause_args)?,
        on_conflict: options
            .with_on_conflict
            .map(on_conflict_from_proto)
            .transpose()?,
    })
}

fn on_conflict_from_proto(on_conflict: proto::WithOnConflict) -> Result<OnConflict, OptionsError> {
    use proto::with_on_conflict::{Action as ProtoAction, Target as ProtoTarget};

    let target = match on_conflict.target {
        Some(ProtoTarget::Constraint(name)) => Target::Constraint(name),
        Some(ProtoTarget::Columns(columns)) => Target::Columns(columns.names),
        None => return Err(OptionsError::NoTarget),
    };
    let action = match on_conflict.action {
        Some(ProtoAction::DoNothing(true)) => Action::Nothing,
        Some(ProtoAction::UpdateAll(true)) => Action::UpdateAll,
        Some(ProtoAction::ColumnValues(columns)) => Action::Update(
            columns
                .values
                .into_iter()
                .map(column_update_from_proto)
                .collect::<Result<_, _>>()?,
        ),
        Some(ProtoAction::DoNothing(false) | ProtoAction::UpdateAll(false)) | None => {
            return Err(OptionsError::NoAction);
        }
    };
    Ok(OnConflict { target, action })
}

fn column_update_from_proto(update: proto::ColumnValue) -> Result<ColumnUpdate, OptionsError> {
    use proto::column_value::Value as ProtoValue;

    let value = match update.value {
        Some(ProtoValue::Raw(value)) => NewValue::Raw(argument_from_proto(value)?),
        Some(ProtoValue::ExprValue(expression)) => NewValue::Expression {
            sql: expression.sql,
            args: arguments_from_proto(expression.args)?,
        },
        Some(ProtoValue::Column(column)) => NewValue::Column {
            name: column.name,
            table: column.table,
        },
        None => return Err(OptionsError::NoValue),
    };
    Ok(ColumnUpdate {
        column: update.name,
        value,
    })
}

fn arguments_from_proto(values: Vec<proto_value::Value>) -> Result<Vec<Argument>, OptionsError> {
    values.into_iter().map(argument_from_proto).collect()
}

// The recursion is bounded: prost refuses to decode deeper than its own limit.
fn argument_from_proto(value: proto_value::Value) -> Result<Argument, OptionsError> {
    Ok(match value.kind {
        Some(ProtoKind::Null(0)) => Argument::Null,
        Some(ProtoKind::Number(number)) => Argument::Number(number),
        Some(ProtoKind::Text(text)) => Argument::Text(text),
        Some(ProtoKind::Bool(value)) => Argument::Bool(value),
        Some(ProtoKind::Struct(fields)) => Argument::Struct(
            fields
                .fields
                .into_iter()
                .map(|field| {
                    let value = field.value.ok_or(OptionsError::NoValue)?;
                    Ok((field.name, argument_from_proto(value)?))
                })
                .collect::<Result<_, OptionsError>>()?,
        ),
        Some(ProtoKind::List(values)) => Argument::List(arguments_from_proto(values.values)?),
        Some(ProtoKind::Null(_)) | None => return Err(OptionsError::NoValue),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn check_varint(bytes: &[u8], expected: Result<u64, WireError>) {
        let mut reader = Reader::new(bytes);
        assert_eq!(reader.varint(), expected, "{bytes:02x?}");
        assert_eq!(reader.is_empty(), expected.is_ok() || bytes.is_empty());
    }

    #[test]
    fn varints() {
        check_varint(&[0], Ok(0));
        check_varint(&[0x80, 0], Ok(0));
        check_varint(&[0xac, 2], Ok(300));
        check_varint(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            Ok(u64::MAX),
        );
        check_varint(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            Err(WireError::Varint),
        );
        check_varint(&[0x80; 10], Err(WireError::Varint));
        check_varint(&[0x80; 9], Err(WireError::Truncated));
        check_varint(&[], Err(WireError::Truncated));
    }

    #[test]
    fn keys() {
        for (bytes, expected) in [
            (&[0x08][..], Ok((1, WireType::Varint))),
            (&[0x02], Err(WireError::Key)),
            (&[0x0b], Err(WireError::Key)),
            (&[0x0c], Err(WireError::Key)),
            (&[0x0e], Err(WireError::Key)),
            (
                &[0xfa, 0xff, 0xff, 0xff, 0x0f],
                Ok((TAG_MAX, WireType::Len)),
            ),
            (&[0x82, 0x80, 0x80, 0x80, 0x10], Err(WireError::Key)),
        ] {
            assert_eq!(Reader::new(bytes).key(), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        for bytes in [
            &[2, b'x'][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert_eq!(Reader::new(bytes).bytes(), Err(WireError::Truncated));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn varints_round_trip(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            prop_assert_eq!(zigzag(unzigzag(value)), value);
        }

        #[test]
        fn random_options_do_not_panic(bytes: Vec<u8>) {
            let _ = decode_options(&bytes);
        }
    }
}
