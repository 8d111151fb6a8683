use std::any::TypeId;

use crate::{Kind, RowError, RowValues, Value};

/// What a model looks like in the log: its stored names, tags and kinds.
///
/// `#[derive(Oplogged)]` writes it. Nothing in it follows from the order of fields or from a Rust
/// identifier, except [`rust_name`](Self::rust_name), which is only for error messages.
#[derive(Debug)]
pub struct TypeDef {
    /// The stable name of the type, stored in every message.
    pub type_name: &'static str,
    /// Path of the Rust type, for error messages only.
    pub rust_name: &'static str,
    /// Identity of the Rust type in this program.
    pub type_id: fn() -> TypeId,
    /// Name of the aggregate, or its prefix if there is a root column.
    pub aggregate: &'static str,
    /// Index in [`columns`](Self::columns) of the column whose value completes the aggregate's name.
    pub root: Option<usize>,
    /// The logged columns, in the model's order.
    pub columns: &'static [ColumnDef],
    /// Tags that belonged to columns of the past. Stored values under them are passed over.
    pub reserved: &'static [u32],
    /// The model does not hold every column of its table.
    pub partial: bool,
    /// Whoever writes the aggregate locks its ticket before any row.
    pub lock_first: bool,
}

/// One logged column of a model.
#[derive(Debug)]
pub struct ColumnDef {
    /// The protobuf tag, 1 to 536,870,911 without 19,000 to 19,999.
    pub tag: u32,
    /// The SQL name of the column.
    pub name: &'static str,
    /// What the column holds.
    pub kind: Kind,
    /// Whether the Rust type of the column can hold `NULL`.
    pub nullable: bool,
    /// Whether the column belongs to the primary key.
    pub key: bool,
}

/// A Rust struct whose values are rows in the log. `#[derive(Oplogged)]` implements it.
pub trait LogRow: Sized + 'static {
    /// What the model looks like in the log.
    const DEF: &'static TypeDef;
    /// The value of the column with this index in [`TypeDef::columns`].
    ///
    /// # Panics
    ///
    /// If there is no such column.
    fn value(&self, column: usize) -> Value<'_>;
    /// Builds the model from the decoded columns of a row.
    ///
    /// # Errors
    ///
    /// [`RowError`] if a column is missing or its type can't hold the stored value.
    fn from_row(row: &RowValues<'_>) -> Result<Self, RowError>;
}
