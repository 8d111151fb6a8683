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
    /// Nanoseconds since midnight, below 86,400,000,000,000. A leap second, which can end any
    /// minute, is told from the second after it by a whole day on top: its nanoseconds are those
    /// of the second before it plus 86,400,000,000,000.
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

impl Value<'_> {
    /// What the value holds; `None` if it is [`Value::Null`].
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(_) => Kind::Bool,
            Self::Sint(_) => Kind::Sint,
            Self::Uint(_) => Kind::Uint,
            Self::F32(_) => Kind::F32,
            Self::F64(_) => Kind::F64,
            Self::Text(_) => Kind::Text,
            Self::Bytes(_) => Kind::Bytes,
            Self::Date(_) => Kind::Date,
            Self::Time(_) => Kind::Time,
            Self::Timestamp { .. } => Kind::Timestamp,
        })
    }

    /// Whether the value is SQL `NULL`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The same value, borrowing from this one. Copies no text and no bytes.
    pub fn reborrow(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(Cow::Borrowed(text)),
            Self::Bytes(bytes) => Value::Bytes(Cow::Borrowed(bytes)),
            other => other.clone().into_owned(),
        }
    }

    /// The same value, borrowing from nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Sint(value) => Value::Sint(value),
            Self::Uint(value) => Value::Uint(value),
            Self::F32(bits) => Value::F32(bits),
            Self::F64(bits) => Value::F64(bits),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(Cow::Owned(bytes.into_owned())),
            Self::Date(days) => Value::Date(days),
            Self::Time(nanos) => Value::Time(nanos),
            Self::Timestamp { seconds, nanos } => Value::Timestamp { seconds, nanos },
        }
    }

    /// For errors: the value is not of the kind that a type expects.
    ///
    /// Implementations of [`OplogValue::from_value`] end with it.
    pub fn mismatch(&self, expected: Kind) -> ValueError {
        ValueError::Kind {
            expected: expected.name(),
            found: self.kind().map_or("NULL", Kind::name),
        }
    }
}

impl Kind {
    /// The name of the kind in lower case, as errors print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Sint => "sint",
            Self::Uint => "uint",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Shows the kind and, of text and bytes, the length; never the content.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Null => f.write_str("Null"),
            Self::Bool(_) => f.write_str("Bool"),
            Self::Sint(_) => f.write_str("Sint"),
            Self::Uint(_) => f.write_str("Uint"),
            Self::F32(_) => f.write_str("F32"),
            Self::F64(_) => f.write_str("F64"),
            Self::Date(_) => f.write_str("Date"),
            Self::Time(_) => f.write_str("Time"),
            Self::Timestamp { .. } => f.write_str("Timestamp"),
        }
    }
}

/// Shows the content: `NULL`, numbers in decimal, bytes in hex, dates and times as in ISO 8601.
///
/// A second is followed by nine digits of nanoseconds unless they are zero; in a leap second the
/// seconds read 60.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Bool(value) => value.fmt(f),
            Self::Sint(value) => value.fmt(f),
            Self::Uint(value) => value.fmt(f),
            Self::F32(bits) => f32::from_bits(*bits).fmt(f),
            Self::F64(bits) => f64::from_bits(*bits).fmt(f),
            Self::Text(text) => f.pad(text),
            Self::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Date(days) => write_date(f, *days),
            Self::Time(nanos) => {
                let (seconds, nanos) = split_time(*nanos);
                write_time(f, seconds, nanos)
            }
            Self::Timestamp { seconds, nanos } => {
                write_date(f, seconds.div_euclid(DAY_SECONDS))?;
                f.write_str("T")?;
                // Below 86,400, so the sign is lost for nothing.
                write_time(f, seconds.rem_euclid(DAY_SECONDS).unsigned_abs(), *nanos)
            }
        }
    }
}

const DAY_SECONDS: i64 = 86_400;
const SECOND_NANOS: u64 = 1_000_000_000;

/// Nanoseconds in a day. A [`Value::Time`] from here to twice as much is inside a leap second.
pub(crate) const DAY_NANOS: u64 = DAY_SECONDS.unsigned_abs() * SECOND_NANOS;

/// Seconds of the day and nanoseconds, which count on to 1,999,999,999 in a leap second.
pub(crate) fn split_time(nanos: u64) -> (u64, u32) {
    let leap = nanos / DAY_NANOS;
    let of_day = nanos % DAY_NANOS;
    // Below 1,000,000,000 and at most doubled, since `leap` is 0 or 1 in every valid time.
    let of_second = (of_day % SECOND_NANOS + leap.min(1) * SECOND_NANOS) as u32;
    (of_day / SECOND_NANOS, of_second)
}

fn write_time(f: &mut fmt::Formatter<'_>, seconds: u64, nanos: u32) -> fmt::Result {
    let leap = u64::from(nanos >= 1_000_000_000);
    let nanos = nanos % 1_000_000_000;
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    write!(f, "{hour:02}:{minute:02}:{:02}", seconds % 60 + leap)?;
    if nanos > 0 {
        write!(f, ".{nanos:09}")?;
    }
    Ok(())
}

/// Writes the proleptic Gregorian date, after Howard Hinnant's `civil_from_days`: years begin in
/// March, so that the leap day is their last. In 128 bits, since any stored number must print.
fn write_date(f: &mut fmt::Formatter<'_>, days: i64) -> fmt::Result {
    let days = i128::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    write!(f, "{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &Value<'_>, expected: &str) {
        assert_eq!(value.to_string(), expected);
        assert_eq!(value.reborrow(), *value);
        assert_eq!(value.clone().into_owned(), *value);
    }

    #[test]
    fn display() {
        check(&Value::Null, "NULL");
        check(&Value::Bool(true), "true");
        check(&Value::Sint(-5), "-5");
        check(&Value::Uint(u64::MAX), "18446744073709551615");
        check(&Value::F32(1.5f32.to_bits()), "1.5");
        check(&Value::F64(0.1f64.to_bits()), "0.1");
        check(&Value::Text("Ada".into()), "Ada");
        check(&Value::Bytes(vec![0, 255].into()), "00ff");
        check(&Value::Date(0), "1970-01-01");
        check(&Value::Date(-1), "1969-12-31");
        check(&Value::Date(11_016), "2000-02-29");
        check(&Value::Date(19_782), "2024-02-29");
        check(&Value::Date(19_783), "2024-03-01");
        check(&Value::Date(-719_528), "0000-01-01");
        check(&Value::Time(0), "00:00:00");
        check(&Value::Time(DAY_NANOS - 1), "23:59:59.999999999");
        check(&Value::Time(2 * DAY_NANOS - 1), "23:59:60.999999999");
        let moment = |seconds, nanos| Value::Timestamp { seconds, nanos };
        check(&moment(0, 0), "1970-01-01T00:00:00");
        check(&moment(-1, 5), "1969-12-31T23:59:59.000000005");
        check(
            &moment(1_483_228_799, 1_500_000_000),
            "2016-12-31T23:59:60.500000000",
        );
    }

    #[test]
    fn any_number_prints() {
        for number in [i64::MIN, i64::MAX] {
            assert!(!Value::Date(number).to_string().is_empty());
            let moment = Value::Timestamp {
                seconds: number,
                nanos: u32::MAX,
            };
            assert!(!moment.to_string().is_empty());
        }
        assert!(!Value::Time(u64::MAX).to_string().is_empty());
    }

    #[test]
    fn debug_hides_content() {
        for (value, shown) in [
            (Value::Sint(4711), "Sint"),
            (Value::Text("4711".into()), "Text(4 bytes)"),
            (Value::Bytes(vec![47, 11].into()), "Bytes(2 bytes)"),
            (Value::Date(4711), "Date"),
        ] {
            assert_eq!(format!("{value:?}"), shown);
        }
    }
}
