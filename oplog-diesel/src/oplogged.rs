use diesel::associations::HasTable;
use diesel::expression::Expression;
use diesel::query_source::{QuerySource, Table};
use oplog_core::{Aggregate, LogRow};

/// A Diesel model whose writes can be logged.
///
/// `#[derive(Oplogged)]` implements it; nothing else should.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be written to the operation log",
    label = "not a logged model",
    note = "add `#[derive(Oplogged)]` and `#[oplog(type_name = \"…\", aggregate = \"…\")]` to `{Self}`"
)]
pub trait Oplogged: LogRow {
    /// The table of the model, as `diesel::table!` declared it.
    type Table: Table + HasTable<Table = Self::Table> + QuerySource + Default + 'static;
    /// The logged columns of the model, in the model's order.
    type Columns: Expression + 'static;

    /// The logged columns of the model, in the model's order.
    fn columns() -> Self::Columns;

    /// What is done about the triggers of the table: `#[oplog(triggers = "…")]`.
    const TRIGGERS: Triggers = Triggers::Undeclared;

    /// What is done about foreign keys by which a statement on a row of this table changes others:
    /// `#[oplog(cascade = "…")]`.
    const CASCADE: Cascade = Cascade::Undeclared;

    /// The aggregate this row belongs to, under whose ticket its changes are ordered.
    ///
    /// The name is the constant of `#[oplog(aggregate = "…")]`, followed by `:` and the value of the
    /// root column if there is one.
    fn aggregate(&self) -> Aggregate {
        Aggregate::of(self)
    }
}

/// What a model does about the triggers and rules of its table, which write what no statement says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Triggers {
    /// Nothing was said: a log is not opened while the table has any.
    #[default]
    Undeclared,
    /// `#[oplog(triggers = "reread")]`: rows are read again after they were written, so that what
    /// triggers made of them is logged.
    Reread,
    /// `#[oplog(triggers = "ignore")]`: the triggers change nothing that is logged.
    Ignore,
}

/// What a model does about the foreign keys that refer to its table with `CASCADE`, `SET NULL` or
/// `SET DEFAULT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cascade {
    /// Nothing was said: a log is not opened while there are any.
    #[default]
    Undeclared,
    /// `#[oplog(cascade = "log")]`: the rows that the database will change or delete are found and
    /// logged, too.
    Log,
}
