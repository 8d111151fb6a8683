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

    /// The aggregate this row belongs to, under whose ticket its changes are ordered.
    ///
    /// The name is the constant of `#[oplog(aggregate = "…")]`, followed by `:` and the value of the
    /// root column if there is one.
    fn aggregate(&self) -> Aggregate {
        Aggregate::of(self)
    }
}
