use std::borrow::Cow;
use std::fmt;

use crate::row::encode_values;
use crate::wire::{self, Reader, WireError, WireType};
use crate::{
    LogRow, Options, OptionsError, RowError, RowValues, TypeDef, Value, encode_columns, short_name,
};

/// Field numbers of an `AnyOperation`.
mod tag {
    pub(super) const TYPE_NAME: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const OP: u32 = 3;
    pub(super) const FIELD_MASK: u32 = 4;
    pub(super) const NULL_MASK: u32 = 5;
    pub(super) const OPTIONS: u32 = 6;
    pub(super) const PREVIOUS: u32 = 16;
    pub(super) const NULL_TAGS: u32 = 17;
    pub(super) const PREVIOUS_NULL_TAGS: u32 = 18;
    /// Invariant: the highest, so that it can be appended to an encoded message.
    pub(super) const ORDINAL: u32 = 19;
}

/// What a message does to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The row was inserted.
    Create,
    /// The row was changed.
    Update,
    /// The row was deleted.
    Delete,
    /// The row was inserted by a statement for several rows.
    CreateItems,
    /// The row was deleted by a statement for several rows.
    DeleteItems,
}

/// One create, update or delete of one row, as it stands in an entry.
///
/// On the wire it is an `AnyOperation` of `oplog.proto`.
///
/// `Debug` shows names, the operation and lengths, never the content of the row.
///
/// # Examples
///
/// ```
/// # use oplog_core::*;
/// # use std::any::TypeId;
/// # #[derive(Debug, PartialEq)] struct Car { id: i64, model: Option<String> }
/// # impl LogRow for Car {
/// #     const DEF: &'static TypeDef = &TypeDef {
/// #         type_name: "car", rust_name: "Car", type_id: TypeId::of::<Car>, aggregate: "car", root: Some(0),
/// #         columns: &[
/// #             ColumnDef { tag: 1, name: "id", kind: Kind::Sint, nullable: false, key: true },
/// #             ColumnDef { tag: 4, name: "model", kind: Kind::Text, nullable: true, key: false },
/// #         ],
/// #         reserved: &[], partial: false, lock_first: false,
/// #     };
/// #     fn value(&self, column: usize) -> Value<'_> {
/// #         match column { 0 => self.id.to_value(), 1 => self.model.to_value(), _ => panic!() }
/// #     }
/// #     fn from_row(row: &RowValues<'_>) -> Result<Self, RowError> {
/// #         Ok(Self { id: row.take(0)?, model: row.take(1)? })
/// #     }
/// # }
/// let before = Car { id: 2, model: Some("Jeep".to_owned()) };
/// let after = Car { id: 2, model: None };
/// let message = Message::update(&before, &after).expect("the model changed");
/// assert_eq!(message.null_mask, ["model"]);
///
/// let stored = Message::from_bytes(&message.to_bytes())?;
/// assert_eq!(stored.row::<Car>()?, after);
/// # Ok::<(), MessageError>(())
/// ```
///
/// Source: `FORMAT.md`, section "Messages".
#[derive(Clone, PartialEq)]
pub struct Message {
    /// The stable name of the row's type.
    pub type_name: Cow<'static, str>,
    /// What happened to the row.
    pub op: Op,
    /// The row in bytes, see [`encode_row`](crate::encode_row): after a create or update, before a delete.
    pub value: Vec<u8>,
    /// SQL names of the columns that an update set to another value.
    pub field_mask: Vec<Cow<'static, str>>,
    /// SQL names of the columns that an update set to `NULL`.
    pub null_mask: Vec<Cow<'static, str>>,
    /// What changed the effect of the statement.
    pub options: Option<Options>,
    /// The changed columns before an update, in the form of [`value`](Self::value).
    pub previous: Option<Vec<u8>>,
    /// Tags of the columns that are `NULL` in [`value`](Self::value).
    pub null_tags: Vec<u32>,
    /// Tags of the columns that are `NULL` in [`previous`](Self::previous).
    pub previous_null_tags: Vec<u32>,
    /// Place of the message in its transaction, from 0, if that wrote several entries.
    pub ordinal: Option<u32>,
}

/// Why bytes are no message, or a message not a row of a type. Carries no content of the row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes are not the protobuf of a message.
    #[error("the message is malformed at byte {offset}")]
    Malformed {
        /// Where the field begins.
        offset: usize,
        /// What is wrong there.
        source: WireError,
    },
    /// The message has no type name.
    #[error("the message has no type name")]
    NoTypeName,
    /// The operation does not exist.
    #[error("operation {op} does not exist")]
    UnknownOp {
        /// The stored number.
        op: u64,
    },
    /// An update names no changed column.
    #[error("the update names no changed column")]
    NoMask,
    /// An update names a column both as set to a value and as set to `NULL`, compared without
    /// regard to ASCII case.
    #[error("the update sets column {} to a value and to NULL", column.escape_debug())]
    MasksIntersect {
        /// Name of the column.
        column: String,
    },
    /// The options can't be read or written.
    #[error("the options of the message are malformed")]
    Options {
        /// What is wrong with them.
        source: OptionsError,
    },
    /// The message is about another type than was asked for.
    #[error("expected a row of {expected}, found one of {}", found.escape_debug())]
    TypeName {
        /// Stored name of the type asked for.
        expected: &'static str,
        /// Stored name in the message.
        found: String,
    },
    /// The row does not decode.
    #[error("the row of the message does not decode")]
    Row {
        /// What is wrong with it.
        source: RowError,
    },
}

impl Op {
    /// The number that stands for the operation on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Create => 1,
            Self::Update => 2,
            Self::Delete => 3,
            Self::CreateItems => 4,
            Self::DeleteItems => 5,
        }
    }

    /// The operation with this number on the wire.
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Create,
            2 => Self::Update,
            3 => Self::Delete,
            4 => Self::CreateItems,
            5 => Self::DeleteItems,
            _ => return None,
        })
    }
}

/// Shows `create`, `update`, `delete`, `create items` or `delete items`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::CreateItems => "create items",
            Self::DeleteItems => "delete items",
        })
    }
}

impl Message {
    /// The message that the row was inserted.
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn create<R: LogRow>(row: &R) -> Self {
        Self::of_row(Op::Create, row)
    }

    /// The message that the row was deleted.
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn delete<R: LogRow>(row: &R) -> Self {
        Self::of_row(Op::Delete, row)
    }

    /// The message that the row was inserted by a statement for several rows.
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn create_items<R: LogRow>(row: &R) -> Self {
        Self::of_row(Op::CreateItems, row)
    }

    /// The message that the row was deleted by a statement for several rows.
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn delete_items<R: LogRow>(row: &R) -> Self {
        Self::of_row(Op::DeleteItems, row)
    }

    /// The message that a row was changed; `None` if no column's stored value changed.
    ///
    /// It holds the row after the change and the changed columns before it. Masks and previous
    /// columns are in ascending order of tags. A change of the primary key or the root column is
    /// not an update: log it as a delete and a create.
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn update<R: LogRow>(before: &R, after: &R) -> Option<Self> {
        Self::update_of_values(
            R::DEF,
            |index| before.value(index),
            |index| after.value(index),
        )
    }

    /// As [`update`](Self::update), of a row of which only the definition is known: `before` and
    /// `after` give the column with an index in [`TypeDef::columns`].
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn update_of_values<'b, 'a>(
        def: &'static TypeDef,
        before: impl Fn(usize) -> Value<'b>,
        after: impl Fn(usize) -> Value<'a>,
    ) -> Option<Self> {
        let columns = def.columns;
        let mut changed: Vec<usize> = (0..columns.len())
            .filter(|&index| before(index) != after(index))
            .collect();
        if changed.is_empty() {
            return None;
        }
        changed.sort_unstable_by_key(|&index| columns[index].tag);

        let mut message = Self::of_values(Op::Update, def, &after);
        for &index in &changed {
            let name = Cow::Borrowed(columns[index].name);
            match after(index).is_null() {
                true => message.null_mask.push(name),
                false => message.field_mask.push(name),
            }
        }
        let previous = changed.iter().map(|&index| (index, before(index)));
        let previous = encode_columns(def, previous);
        message.previous = Some(previous.bytes);
        message.previous_null_tags = previous.null_tags;
        Some(message)
    }

    fn of_row<R: LogRow>(op: Op, row: &R) -> Self {
        Self::of_values(op, R::DEF, |index| row.value(index))
    }

    /// The message that a row was inserted or deleted, of which only the definition is known:
    /// `value` gives the column with an index in [`TypeDef::columns`].
    ///
    /// # Panics
    ///
    /// As [`encode_row`](crate::encode_row).
    pub fn of_values<'v>(
        op: Op,
        def: &'static TypeDef,
        value: impl Fn(usize) -> Value<'v>,
    ) -> Self {
        let encoded = encode_values(def, value);
        Self {
            type_name: Cow::Borrowed(def.type_name),
            op,
            value: encoded.bytes,
            field_mask: Vec::new(),
            null_mask: Vec::new(),
            options: None,
            previous: None,
            null_tags: encoded.null_tags,
            previous_null_tags: Vec::new(),
            ordinal: None,
        }
    }

    /// The row as the model's type.
    ///
    /// # Errors
    ///
    /// [`MessageError::TypeName`] if the message is about another type, [`MessageError::Row`] if
    /// the row does not decode.
    pub fn row<R: LogRow>(&self) -> Result<R, MessageError> {
        if self.type_name != R::DEF.type_name {
            return Err(MessageError::TypeName {
                expected: R::DEF.type_name,
                found: short_name(&self.type_name),
            });
        }
        self.values(R::DEF)
            .and_then(|row| R::from_row(&row))
            .map_err(|source| MessageError::Row { source })
    }

    /// The columns of the row, for readers that find the type in a
    /// [`TypeCatalog`](crate::TypeCatalog). The type name is not compared.
    ///
    /// # Errors
    ///
    /// [`RowError`] if the row does not decode.
    pub fn values<'a>(&'a self, def: &'static TypeDef) -> Result<RowValues<'a>, RowError> {
        RowValues::decode(def, &self.value, &self.null_tags)
    }

    /// The changed columns before an update; `None` if the message has none.
    ///
    /// # Errors
    ///
    /// [`RowError`] if they do not decode.
    pub fn previous_values<'a>(
        &'a self,
        def: &'static TypeDef,
    ) -> Result<Option<RowValues<'a>>, RowError> {
        self.previous
            .as_ref()
            .map(|previous| RowValues::decode(def, previous, &self.previous_null_tags))
            .transpose()
    }

    /// Whether [`from_bytes`](Self::from_bytes) would read the message again.
    pub(crate) fn check(&self) -> Result<(), MessageError> {
        if self.type_name.is_empty() {
            return Err(MessageError::NoTypeName);
        }
        if self.op == Op::Update {
            check_masks(&self.field_mask, &self.null_mask)?;
        }
        match &self.options {
            Some(options) => options
                .check()
                .map_err(|source| MessageError::Options { source }),
            None => Ok(()),
        }
    }

    /// Length in bytes of [`to_bytes`](Self::to_bytes).
    pub fn encoded_len(&self) -> usize {
        Encoding::new(self, self.ordinal).len
    }

    /// The message as protobuf, without a length prefix.
    ///
    /// What an original encoder wrote comes back byte for byte: both masks are written also when
    /// they are empty, an empty row is left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let encoding = Encoding::new(self, self.ordinal);
        let mut out = Vec::with_capacity(encoding.len);
        encoding.write(&mut out);
        out
    }

    /// Decodes the protobuf of one message.
    ///
    /// Strict: no unknown field, no field twice, except that fields of [`Options`] that this
    /// version does not know are passed over. Masks of anything but an update are kept as they
    /// are. The row is not looked at.
    ///
    /// # Errors
    ///
    /// [`MessageError`], all variants but `TypeName` and `Row`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut fields = Fields::default();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let offset = reader.offset();
            let malformed = |source| MessageError::Malformed { offset, source };
            let (tag, wire_type) = reader.key().map_err(malformed)?;
            fields
                .read(&mut reader, tag, wire_type)
                .map_err(malformed)?;
        }
        fields.into_message()
    }
}

/// The fields of a message while it is decoded, borrowed from its bytes.
#[derive(Default)]
struct Fields<'a> {
    /// A bit for each field number that was read.
    seen: u32,
    type_name: &'a str,
    value: &'a [u8],
    op: u64,
    field_mask: Vec<Cow<'static, str>>,
    null_mask: Vec<Cow<'static, str>>,
    options: Option<&'a [u8]>,
    previous: Option<&'a [u8]>,
    null_tags: Vec<u32>,
    previous_null_tags: Vec<u32>,
    ordinal: Option<u32>,
}

impl<'a> Fields<'a> {
    fn read(
        &mut self,
        reader: &mut Reader<'a>,
        tag: u32,
        wire_type: WireType,
    ) -> Result<(), WireError> {
        let expected = match tag {
            tag::OP | tag::ORDINAL => WireType::Varint,
            tag::TYPE_NAME..=tag::OPTIONS | tag::PREVIOUS..=tag::PREVIOUS_NULL_TAGS => {
                WireType::Len
            }
            _ => return Err(WireError::UnknownField { tag }),
        };
        if wire_type != expected {
            return Err(WireError::WireType { tag });
        }
        if self.seen & (1 << tag) != 0 {
            return Err(WireError::DuplicateField { tag });
        }
        self.seen |= 1 << tag;

        match tag {
            tag::TYPE_NAME => self.type_name = reader.text()?,
            tag::VALUE => self.value = reader.bytes()?,
            tag::OP => self.op = reader.varint()?,
            tag::FIELD_MASK => self.field_mask = read_mask(reader.bytes()?)?,
            tag::NULL_MASK => self.null_mask = read_mask(reader.bytes()?)?,
            tag::OPTIONS => self.options = Some(reader.bytes()?),
            tag::PREVIOUS => self.previous = Some(reader.bytes()?),
            tag::NULL_TAGS => self.null_tags = read_packed(reader.bytes()?)?,
            tag::PREVIOUS_NULL_TAGS => self.previous_null_tags = read_packed(reader.bytes()?)?,
            _ => self.ordinal = Some(reader.varint32()?),
        }
        Ok(())
    }

    fn into_message(self) -> Result<Message, MessageError> {
        // First, so that bytes without any field are not reported as without operation.
        if self.type_name.is_empty() {
            return Err(MessageError::NoTypeName);
        }
        let Some(op) = Op::from_number(self.op) else {
            return Err(MessageError::UnknownOp { op: self.op });
        };
        let options = self
            .options
            .map(wire::decode_options)
            .transpose()
            .map_err(|source| MessageError::Options { source })?;
        let message = Message {
            type_name: Cow::Owned(self.type_name.to_owned()),
            op,
            value: self.value.to_vec(),
            field_mask: self.field_mask,
            null_mask: self.null_mask,
            options,
            previous: self.previous.map(<[u8]>::to_vec),
            null_tags: self.null_tags,
            previous_null_tags: self.previous_null_tags,
            ordinal: self.ordinal,
        };
        message.check()?;
        Ok(message)
    }
}

fn read_mask(bytes: &[u8]) -> Result<Vec<Cow<'static, str>>, WireError> {
    let mut paths = Vec::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        match reader.key()? {
            (1, WireType::Len) => paths.push(Cow::Owned(reader.text()?.to_owned())),
            (tag @ 1, _) => return Err(WireError::WireType { tag }),
            (tag, _) => return Err(WireError::UnknownField { tag }),
        }
    }
    Ok(paths)
}

fn read_packed(bytes: &[u8]) -> Result<Vec<u32>, WireError> {
    let mut numbers = Vec::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        numbers.push(reader.varint32()?);
    }
    Ok(numbers)
}

fn check_masks(
    field_mask: &[Cow<'static, str>],
    null_mask: &[Cow<'static, str>],
) -> Result<(), MessageError> {
    match (field_mask.is_empty(), null_mask.is_empty()) {
        (true, true) => return Err(MessageError::NoMask),
        (false, false) => {}
        _ => return Ok(()),
    }
    // Sorted rather than compared pair by pair: a hostile mask can hold millions of names.
    let mut nulls: Vec<String> = null_mask
        .iter()
        .map(|path| path.to_ascii_lowercase())
        .collect();
    nulls.sort_unstable();
    let in_both = field_mask
        .iter()
        .find(|path| nulls.binary_search(&path.to_ascii_lowercase()).is_ok());
    match in_both {
        Some(path) => Err(MessageError::MasksIntersect {
            column: short_name(path),
        }),
        None => Ok(()),
    }
}

/// A message with the lengths of its parts, so that they are computed once.
pub(crate) struct Encoding<'m> {
    message: &'m Message,
    ordinal: Option<u32>,
    options: Option<Vec<u8>>,
    field_mask_len: usize,
    null_mask_len: usize,
    null_tags_len: usize,
    previous_null_tags_len: usize,
    /// Length in bytes of the whole message.
    pub(crate) len: usize,
}

impl<'m> Encoding<'m> {
    pub(crate) fn new(message: &'m Message, ordinal: Option<u32>) -> Self {
        let options = message.options.as_ref().map(wire::encode_options);
        let field_mask_len = wire::paths_len(&message.field_mask);
        let null_mask_len = wire::paths_len(&message.null_mask);
        let null_tags_len = wire::packed_len(&message.null_tags);
        let previous_null_tags_len = wire::packed_len(&message.previous_null_tags);

        let or_absent = |tag, len| match len {
            0 => 0,
            len => wire::bytes_field_len(tag, len),
        };
        let len = or_absent(tag::TYPE_NAME, message.type_name.len())
            + or_absent(tag::VALUE, message.value.len())
            + wire::varint_field_len(tag::OP, message.op.number().into())
            + wire::bytes_field_len(tag::FIELD_MASK, field_mask_len)
            + wire::bytes_field_len(tag::NULL_MASK, null_mask_len)
            + options
                .as_ref()
                .map_or(0, |bytes| wire::bytes_field_len(tag::OPTIONS, bytes.len()))
            + message
                .previous
                .as_ref()
                .map_or(0, |bytes| wire::bytes_field_len(tag::PREVIOUS, bytes.len()))
            + or_absent(tag::NULL_TAGS, null_tags_len)
            + or_absent(tag::PREVIOUS_NULL_TAGS, previous_null_tags_len)
            + ordinal.map_or(0, ordinal_len);
        Self {
            message,
            ordinal,
            options,
            field_mask_len,
            null_mask_len,
            null_tags_len,
            previous_null_tags_len,
            len,
        }
    }

    /// Appends the message.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let message = self.message;
        if !message.type_name.is_empty() {
            wire::put_bytes_field(out, tag::TYPE_NAME, message.type_name.as_bytes());
        }
        if !message.value.is_empty() {
            wire::put_bytes_field(out, tag::VALUE, &message.value);
        }
        wire::put_varint_field(out, tag::OP, message.op.number().into());
        wire::put_paths_field(
            out,
            tag::FIELD_MASK,
            &message.field_mask,
            self.field_mask_len,
        );
        wire::put_paths_field(out, tag::NULL_MASK, &message.null_mask, self.null_mask_len);
        if let Some(options) = &self.options {
            wire::put_bytes_field(out, tag::OPTIONS, options);
        }
        if let Some(previous) = &message.previous {
            wire::put_bytes_field(out, tag::PREVIOUS, previous);
        }
        if self.null_tags_len > 0 {
            wire::put_packed_field(out, tag::NULL_TAGS, &message.null_tags, self.null_tags_len);
        }
        if self.previous_null_tags_len > 0 {
            wire::put_packed_field(
                out,
                tag::PREVIOUS_NULL_TAGS,
                &message.previous_null_tags,
                self.previous_null_tags_len,
            );
        }
        if let Some(ordinal) = self.ordinal {
            put_ordinal(out, ordinal);
        }
    }
}

/// What [`put_ordinal`] appends.
pub(crate) fn ordinal_len(ordinal: u32) -> usize {
    wire::varint_field_len(tag::ORDINAL, ordinal.into())
}

/// Appends the ordinal to an encoded message that has none.
pub(crate) fn put_ordinal(out: &mut Vec<u8>, ordinal: u32) {
    wire::put_varint_field(out, tag::ORDINAL, ordinal.into());
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("type_name", &self.type_name)
            .field("op", &self.op)
            .field("value_len", &self.value.len())
            .field("field_mask", &self.field_mask)
            .field("null_mask", &self.null_mask)
            .field("options", &self.options)
            .field("previous_len", &self.previous.as_ref().map(Vec::len))
            .field("null_tags", &self.null_tags)
            .field("previous_null_tags", &self.previous_null_tags)
            .field("ordinal", &self.ordinal)
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::options::tests::options;
    use crate::proto::AnyOperation;
    use crate::row::tests::{SAMPLE, Sample, sample, samples};
    use crate::{Argument, Value};

    fn op() -> impl Strategy<Value = Op> {
        (1u64..=5).prop_map(|number| Op::from_number(number).unwrap())
    }

    /// Any message that decodes: an update has disjoint masks that name something.
    pub(crate) fn messages() -> impl Strategy<Value = Message> {
        let row = (any::<Vec<u8>>(), vec(any::<u32>(), 0..3));
        let previous = (any::<Option<Vec<u8>>>(), vec(any::<u32>(), 0..3));
        let masks = (vec("[a-z]{0,3}", 1..3), vec("[0-9]{1,3}", 0..3));
        (
            "[a-z]{1,6}",
            op(),
            row,
            previous,
            masks,
            option::of(options()),
            any::<Option<u32>>(),
        )
            .prop_map(
                |(type_name, op, row, previous, masks, options, ordinal)| Message {
                    type_name: type_name.into(),
                    op,
                    value: row.0,
                    field_mask: masks.0.into_iter().map(Cow::Owned).collect(),
                    null_mask: masks.1.into_iter().map(Cow::Owned).collect(),
                    options,
                    previous: previous.0,
                    null_tags: row.1,
                    previous_null_tags: previous.1,
                    ordinal,
                },
            )
    }

    fn to_prost(message: &Message) -> AnyOperation {
        let mask = |paths: &[Cow<'static, str>]| {
            Some(prost_types::FieldMask {
                paths: paths.iter().map(|path| path.clone().into_owned()).collect(),
            })
        };
        AnyOperation {
            type_name: message.type_name.clone().into_owned(),
            value: message.value.clone(),
            operation_type: message.op.number().cast_signed(),
            field_mask: mask(&message.field_mask),
            null_mask: mask(&message.null_mask),
            options: message.options.as_ref().map(|options| {
                crate::proto::OperationOptions::decode(&*wire::encode_options(options)).unwrap()
            }),
            previous: message.previous.clone(),
            null_tags: message.null_tags.clone(),
            previous_null_tags: message.previous_null_tags.clone(),
            ordinal: message.ordinal,
        }
    }

    fn check_refused(bytes: &[u8], expected: MessageError) {
        assert_eq!(Message::from_bytes(bytes), Err(expected), "{bytes:02x?}");
    }

    #[test]
    fn create_holds_the_whole_row() {
        for (message, op) in [
            (Message::create(&sample()), Op::Create),
            (Message::delete(&sample()), Op::Delete),
            (Message::create_items(&sample()), Op::CreateItems),
            (Message::delete_items(&sample()), Op::DeleteItems),
        ] {
            assert_eq!(message.op, op);
            assert_eq!(message.row::<Sample>(), Ok(sample()));
            assert_eq!(message.previous_values(&SAMPLE).unwrap().map(drop), None);
            assert!(message.field_mask.is_empty() && message.null_mask.is_empty());
        }
    }

    #[test]
    fn update_holds_what_changed() {
        let before = Sample {
            id: 1,
            text: "before".to_owned(),
            blob: Some(vec![1]),
            ..sample()
        };
        let after = Sample {
            text: "after".to_owned(),
            blob: None,
            note: Some(String::new()),
            ..before.clone()
        };
        assert_eq!(Message::update(&before, &before), None);

        let message = Message::update(&before, &after).unwrap();
        assert_eq!(message.op, Op::Update);
        assert_eq!(message.row::<Sample>(), Ok(after));
        assert_eq!(message.field_mask, ["text", "note"]);
        assert_eq!(message.null_mask, ["blob"]);
        let previous = message.previous_values(&SAMPLE).unwrap().unwrap();
        let previous: Vec<_> = previous
            .iter()
            .map(|(column, value)| (column.name, value.reborrow().into_owned()))
            .collect();
        let expected = [
            ("text", Value::Text("before".into())),
            ("blob", Value::Bytes(vec![1].into())),
            ("note", Value::Null),
        ];
        assert_eq!(previous, expected);
    }

    #[test]
    fn a_message_about_another_type_is_no_row() {
        let mut message = Message::create(&sample());
        message.type_name = "other".into();
        let error = message.row::<Sample>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected a row of sample, found one of other"
        );
    }

    #[test]
    fn the_absent_and_the_empty_differ() {
        let mut message = Message::create(&sample());
        assert_eq!(
            Message::from_bytes(&message.to_bytes()).as_ref(),
            Ok(&message)
        );
        message.previous = Some(Vec::new());
        message.options = Some(Options::default());
        message.ordinal = Some(0);
        assert_eq!(
            Message::from_bytes(&message.to_bytes()).as_ref(),
            Ok(&message)
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let malformed = |offset, source| MessageError::Malformed { offset, source };
        check_refused(&[], MessageError::NoTypeName);
        check_refused(&[0x0a, 0, 0x18, 1], MessageError::NoTypeName);
        check_refused(&[0x0a, 1, b'x'], MessageError::UnknownOp { op: 0 });
        check_refused(&[0x0a, 1, b'x', 0x18, 6], MessageError::UnknownOp { op: 6 });
        check_refused(
            &[0x0a, 1, b'x', 0x18, 2, 0x22, 0, 0x2a, 0],
            MessageError::NoMask,
        );
        check_refused(
            &[
                0x0a, 1, b'x', 0x18, 2, 0x22, 3, 0x0a, 1, b'a', 0x2a, 3, 0x0a, 1, b'A',
            ],
            MessageError::MasksIntersect {
                column: "a".to_owned(),
            },
        );
        let long = Cow::Owned("a".repeat(100_000));
        let mut update = Message::create(&sample());
        update.op = Op::Update;
        update.field_mask = vec![long];
        update.null_mask = update.field_mask.clone();
        let column = short_name(&update.field_mask[0]);
        check_refused(&update.to_bytes(), MessageError::MasksIntersect { column });
        check_refused(
            &[0x0a, 1, b'x', 0x18, 1, 0x32, 1, 0xff],
            MessageError::Options {
                source: OptionsError::Malformed,
            },
        );
        let nested = (0..24).fold(Argument::Null, |inner, _| Argument::List(vec![inner]));
        let mut deep = Message::create(&sample());
        deep.options = Some(Options {
            where_args: vec![nested],
            ..Options::default()
        });
        check_refused(
            &deep.to_bytes(),
            MessageError::Options {
                source: OptionsError::TooDeep { max: 24 },
            },
        );
        check_refused(&[0x0a, 2, b'x'], malformed(0, WireError::Truncated));
        check_refused(&[0x0a, 1, 0xff], malformed(0, WireError::Utf8));
        check_refused(&[0x08, 1], malformed(0, WireError::WireType { tag: 1 }));
        check_refused(&[0x1a, 0], malformed(0, WireError::WireType { tag: 3 }));
        check_refused(&[0x88, 1, 1], malformed(0, WireError::WireType { tag: 17 }));
        for (bytes, tag) in [(&[0x38, 1][..], 7), (&[0x7a, 0], 15), (&[0xa0, 1, 1], 20)] {
            check_refused(bytes, malformed(0, WireError::UnknownField { tag }));
        }
        check_refused(
            &[0x18, 1, 0x18, 1],
            malformed(2, WireError::DuplicateField { tag: 3 }),
        );
        check_refused(
            &[0x22, 2, 0x10, 1],
            malformed(0, WireError::UnknownField { tag: 2 }),
        );
        check_refused(
            &[0x22, 2, 0x08, 1],
            malformed(0, WireError::WireType { tag: 1 }),
        );
        check_refused(
            &[0x98, 1, 0xff, 0xff, 0xff, 0xff, 0x1f],
            malformed(0, WireError::Varint),
        );
    }

    #[test]
    fn masks_of_a_create_are_kept() {
        let bytes = [
            0x0a, 1, b'x', 0x18, 1, 0x22, 3, 0x0a, 1, b'a', 0x2a, 3, 0x0a, 1, b'a',
        ];
        let message = Message::from_bytes(&bytes).unwrap();
        assert_eq!(message.to_bytes(), bytes);
    }

    #[test]
    fn debug_hides_content() {
        let before = Sample {
            text: "secret".to_owned(),
            ..sample()
        };
        let message = Message::update(&before, &sample()).unwrap();
        let shown = format!("{message:?}");
        assert!(
            !shown.contains("secret") && shown.contains("text"),
            "{shown}"
        );
        let secret = format!("{:?}", b"secret");
        assert!(!shown.contains(secret.trim_matches(['[', ']'])), "{shown}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn encoding_equals_prosts(message in messages()) {
            let bytes = message.to_bytes();
            prop_assert_eq!(bytes.len(), message.encoded_len());
            prop_assert_eq!(&bytes, &to_prost(&message).encode_to_vec());
            prop_assert_eq!(AnyOperation::decode(&*bytes).unwrap(), to_prost(&message));
        }

        #[test]
        fn messages_round_trip(message in messages()) {
            prop_assert_eq!(Message::from_bytes(&message.to_bytes()), Ok(message));
        }

        #[test]
        fn rows_round_trip(before in samples(), after in samples()) {
            if let Some(message) = Message::update(&before, &after) {
                let stored = Message::from_bytes(&message.to_bytes()).unwrap();
                prop_assert_eq!(&stored, &message);
                prop_assert_eq!(stored.row::<Sample>(), Ok(after));
            } else {
                prop_assert_eq!(before, after);
            }
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = Message::from_bytes(&bytes);
        }

        #[test]
        fn changed_bytes_do_not_panic(message in messages(), at: usize, bit in 0..8) {
            let mut bytes = message.to_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1u8 << bit;
            if let Ok(changed) = Message::from_bytes(&bytes) {
                let _ = changed.row::<Sample>();
                let _ = changed.to_bytes();
            }
        }
    }
}
