use std::borrow::{Borrow, Cow};
use std::fmt;

use crate::{LogRow, TypeDef, Value};

/// The longest name of an aggregate, in bytes of UTF-8.
pub const AGGREGATE_LEN_MAX: usize = 255;

/// Names that begin with it belong to the log itself.
const RESERVED_PREFIX: &str = "_oplog/";

/// The name of the group of rows whose entries stand in one gap-free sequence.
///
/// A row's aggregate follows from the row: the name that its model declares, completed by the
/// value of the root column if there is one. Compared and ordered by bytes, never by a collation.
/// Names are not secret: they are stored in the clear.
///
/// Building one never fails, so it can stand anywhere; [`check`](Self::check) says whether it can
/// be written, and the write path asks before it sends anything. Source: `FORMAT.md`, section
/// "Names of aggregates".
///
/// # Examples
///
/// ```
/// use oplog_core::Aggregate;
///
/// let aggregate = Aggregate::new("account:42");
/// assert!(aggregate.check().is_ok());
/// assert!(Aggregate::new("").check().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Aggregate(Cow<'static, str>);

/// A name that no aggregate can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AggregateError {
    /// The name is empty, or the root column holds a value that names nothing.
    #[error("the name of an aggregate is empty")]
    Empty,
    /// The name is too long.
    #[error("the name of an aggregate takes {len} bytes, {max} are allowed")]
    TooLong {
        /// Bytes of the name.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The name holds U+0000, which databases cut or refuse.
    #[error("the name of an aggregate holds U+0000 at byte {offset}")]
    Nul {
        /// Where it stands.
        offset: usize,
    },
    /// The name begins with `_oplog/`, which is kept for the log itself.
    #[error("names of aggregates that begin with `_oplog/` are reserved")]
    Reserved,
}

impl Aggregate {
    /// Takes the name as it is.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }

    /// The aggregate that a row belongs to: the model's name, or `prefix:root`.
    ///
    /// An integer root is written in decimal, a boolean as `true` or `false`, text as it is. The
    /// derive refuses every other kind; where a hand-written [`LogRow`] has one nevertheless, the
    /// name is empty and [`check`](Self::check) refuses it.
    #[must_use]
    pub fn of<R: LogRow>(row: &R) -> Self {
        Self::of_values(R::DEF, |index| row.value(index))
    }

    /// As [`of`](Self::of), of a row of which only the definition is known: `value` gives the column
    /// with an index in [`TypeDef::columns`].
    #[must_use]
    pub fn of_values<'v>(def: &'static TypeDef, value: impl Fn(usize) -> Value<'v>) -> Self {
        let prefix = def.aggregate;
        let Some(root) = def.root else {
            return Self(Cow::Borrowed(prefix));
        };
        Self(Cow::Owned(match value(root) {
            Value::Bool(root) => format!("{prefix}:{root}"),
            Value::Sint(root) => format!("{prefix}:{root}"),
            Value::Uint(root) => format!("{prefix}:{root}"),
            Value::Text(root) => format!("{prefix}:{root}"),
            _ => String::new(),
        }))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the models of the aggregate declare: the name up to its first `:`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.0.split_once(':') {
            Some((prefix, _)) => prefix,
            None => &self.0,
        }
    }

    /// Says whether a user may write this aggregate.
    ///
    /// # Errors
    ///
    /// [`AggregateError::Empty`], [`AggregateError::TooLong`], [`AggregateError::Nul`] or
    /// [`AggregateError::Reserved`].
    pub fn check(&self) -> Result<(), AggregateError> {
        self.check_stored()?;
        match self.0.starts_with(RESERVED_PREFIX) {
            true => Err(AggregateError::Reserved),
            false => Ok(()),
        }
    }

    /// Says whether the name can stand in a header, also one that is kept for the log itself.
    pub(crate) fn check_stored(&self) -> Result<(), AggregateError> {
        if self.0.is_empty() {
            return Err(AggregateError::Empty);
        }
        if self.0.len() > AGGREGATE_LEN_MAX {
            return Err(AggregateError::TooLong {
                len: self.0.len(),
                max: AGGREGATE_LEN_MAX,
            });
        }
        match self.0.bytes().position(|byte| byte == 0) {
            Some(offset) => Err(AggregateError::Nul { offset }),
            None => Ok(()),
        }
    }
}

impl From<&str> for Aggregate {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Aggregate {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<&Aggregate> for Aggregate {
    fn from(aggregate: &Aggregate) -> Self {
        aggregate.clone()
    }
}

impl AsRef<str> for Aggregate {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Maps keyed by aggregate can be asked with a plain `&str`.
impl Borrow<str> for Aggregate {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Aggregate {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Aggregate {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::any::TypeId;
    use std::collections::BTreeMap;

    use super::*;
    use crate::{ColumnDef, Kind, RowError, RowValues, TypeDef};

    macro_rules! row {
        ($name:ident, $root:expr) => {
            struct $name(Value<'static>);

            impl LogRow for $name {
                const DEF: &'static TypeDef = &TypeDef {
                    type_name: "row",
                    rust_name: "Row",
                    type_id: TypeId::of::<$name>,
                    aggregate: "account",
                    root: $root,
                    columns: &[ColumnDef {
                        tag: 1,
                        name: "id",
                        kind: Kind::Sint,
                        nullable: false,
                        key: true,
                    }],
                    reserved: &[],
                    partial: false,
                    lock_first: false,
                };

                fn value(&self, _column: usize) -> Value<'_> {
                    self.0.clone()
                }

                fn from_row(_row: &RowValues<'_>) -> Result<Self, RowError> {
                    Ok(Self(Value::Null))
                }
            }
        };
    }

    row!(Rooted, Some(0));
    row!(Constant, None);

    #[test]
    fn a_root_completes_the_name() {
        fn check(root: Value<'static>, expected: &str) {
            assert_eq!(Aggregate::of(&Rooted(root)), *expected);
        }
        check(Value::Sint(-42), "account:-42");
        check(Value::Sint(i64::MIN), "account:-9223372036854775808");
        check(Value::Uint(u64::MAX), "account:18446744073709551615");
        check(Value::Bool(true), "account:true");
        check(Value::Text("a:b".into()), "account:a:b");
        check(Value::Text("".into()), "account:");
        check(Value::Null, "");
        check(Value::F64(0), "");
    }

    #[test]
    fn without_a_root_the_name_is_constant() {
        assert_eq!(Aggregate::of(&Constant(Value::Sint(1))), "account");
    }

    #[test]
    fn names_are_checked() {
        fn check(name: &str, expected: Result<(), AggregateError>) {
            assert_eq!(Aggregate::new(name).check(), expected);
        }
        check("a", Ok(()));
        check(&"é".repeat(127), Ok(()));
        check(&"x".repeat(255), Ok(()));
        check(
            &"x".repeat(256),
            Err(AggregateError::TooLong { len: 256, max: 255 }),
        );
        check("", Err(AggregateError::Empty));
        check("a\0b", Err(AggregateError::Nul { offset: 1 }));
        check("_oplog/control", Err(AggregateError::Reserved));
        check("_oplog", Ok(()));
        assert_eq!(Aggregate::new("_oplog/control").check_stored(), Ok(()));
    }

    #[test]
    fn maps_answer_to_text() {
        let map = BTreeMap::from([(Aggregate::new("files"), 1)]);
        assert_eq!(map.get("files"), Some(&1));
        assert_eq!(
            format!("{0} {0:?}", Aggregate::new("files")),
            "files \"files\""
        );
    }
}
