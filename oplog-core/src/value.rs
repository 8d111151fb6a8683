use std::borrow::Cow;
use std::fmt;

/// One column value on its way between a Rust field and the bytes of a row.
///
/// The variants follow `FORMAT.md`, section "Values". Floats are held as bits, so two values are
/// equal exactly when their stored bytes are: a NaN equals itself, and `0.0` differs from `-0.0`.
///
/// `Debug` shows the kind and the length, never the content: messages are secret and must not
/// reach a log by accident. `Display` shows the content, for code that wants to print it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// SQL `NULL`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed integer of any width.
    Sint(i64),
    /// An unsigned integer of any width.
    Uint(u64),
    /// The bits of an `f32`.
    F32(u32),
    /// The bits of an `f64`.
    F64(u64),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// Days since 1970-01-01.
    Date(i64),
    /// Nanoseconds since midnight.
    Time(u64),
    /// A moment: whole seconds since 1970-01-01T00:00:00 and nanoseconds of the second.
    Timestamp {
        /// Whole seconds since 1970-01-01T00:00:00, rounded down.
        seconds: i64,
        /// Nanoseconds of that second, 0 to 1,999,999,999 (a leap second counts on).
        nanos: u32,
    },
}

/// What a column holds, which decides its bytes in a row; see `FORMAT.md`, section "Values".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// [`Value::Bool`], a varint.
    Bool,
    /// [`Value::Sint`], a zig-zag varint.
    Sint,
    /// [`Value::Uint`], a varint.
    Uint,
    /// [`Value::F32`], 4 bytes.
    F32,
    /// [`Value::F64`], 8 bytes.
    F64,
    /// [`Value::Text`], length-delimited UTF-8.
    Text,
    /// [`Value::Bytes`], length-delimited.
    Bytes,
    /// [`Value::Date`], a zig-zag varint.
    Date,
    /// [`Value::Time`], a varint.
    Time,
    /// [`Value::Timestamp`], a length-delimited message.
    Timestamp,
}

/// A Rust type that can be a logged column.
///
/// Implemented for `bool`, the integers, `f32`, `f64`, `String`, `Vec<u8>`, `Option` of each and,
/// with the feature `chrono`, for chrono's dates, times and timestamps. Newtypes and fieldless
/// enums get it from `#[derive(OplogValue)]`.
///
/// # Examples
///
/// ```
/// use oplog_core::{Kind, OplogValue, Value, ValueError};
///
/// /// An amount of money in cents.
/// struct Cents(i64);
///
/// impl OplogValue for Cents {
///     const KIND: Kind = Kind::Sint;
///     fn to_value(&self) -> Value<'_> {
///         self.0.to_value()
///     }
///     fn from_value(value: Value<'_>) -> Result<Self, ValueError> {
///         i64::from_value(value).map(Cents)
///     }
/// }
/// assert_eq!(Cents(5).to_value(), Value::Sint(5));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no encoding in the operation log",
    label = "this column type can't be logged",
    note = "for a newtype or a fieldless enum, add `#[derive(OplogValue)]` to `{Self}`",
    note = "for any other type, implement `oplog_diesel::OplogValue` for it"
)]
pub trait OplogValue: Sized {
    /// What the column holds, without regard to `NULL`.
    const KIND: Kind;
    /// Whether [`Value::Null`] is one of its values.
    const NULLABLE: bool = false;
    /// Whether a column of this type can be the root of an aggregate: an integer, a `String`,
    /// a `bool` or a newtype of these.
    const ROOT: bool = false;
    /// The value of a column, of the kind [`KIND`](Self::KIND) or [`Value::Null`].
    fn to_value(&self) -> Value<'_>;
    /// The Rust value of a stored one.
    ///
    /// # Errors
    ///
    /// [`ValueError`] if the value is of another kind or out of the type's range.
    fn from_value(value: Value<'_>) -> Result<Self, ValueError>;
}

/// A stored value that the Rust type of its column can't hold. Carries no content of the row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The stored value is of another kind than the type.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What the type holds.
        expected: &'static str,
        /// What was stored.
        found: &'static str,
    },
    /// The stored value is outside the range of the type.
    #[error("the stored value is out of range for {type_name}")]
    Range {
        /// The Rust type of the column.
        type_name: &'static str,
    },
    /// The stored label belongs to no variant of the enum.
    #[error("the stored label is none of {type_name}'s")]
    Label {
        /// The Rust enum.
        type_name: &'static str,
    },
}
