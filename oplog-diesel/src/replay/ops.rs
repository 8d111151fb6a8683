use std::marker::PhantomData;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::query_builder::AstPass;
use oplog_core::{RowError, RowValues, Value};

use super::TableName;
use crate::bind::{Bindable, RawRow};

/// What a replay does with the rows of a model on the database `DB`, without the model's type.
pub trait TableOps<DB: Backend + 'static>: Sync {
    /// The model's own table.
    ///
    /// # Errors
    ///
    /// If the table is no plain table.
    fn table(&self) -> QueryResult<TableName>;
    /// A row from the log.
    ///
    /// # Errors
    ///
    /// If the values are not those of the model.
    fn decode(&self, values: &RowValues<'_>) -> Result<Box<dyn AnyRow<DB>>, RowError>;
    /// A row from the database, with the model's columns in the model's order.
    ///
    /// # Errors
    ///
    /// If a value can't be read.
    fn read(&self, row: &dyn RawRow<DB>) -> QueryResult<Box<dyn AnyRow<DB>>>;
}

/// A row of some model.
pub trait AnyRow<DB: Backend + 'static> {
    /// Binds a column, by its index in the model's definition.
    ///
    /// # Errors
    ///
    /// If the column can't be stored on this database.
    fn bind<'b>(&'b self, column: usize, out: AstPass<'_, 'b, DB>) -> QueryResult<()>;
    /// The value of a column, as the log has it.
    fn value(&self, column: usize) -> Value<'_>;
}

impl<M: Bindable<DB>, DB: Backend + 'static> AnyRow<DB> for M {
    fn bind<'b>(&'b self, column: usize, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        Bindable::bind(self, column, out)
    }
    fn value(&self, column: usize) -> Value<'_> {
        oplog_core::LogRow::value(self, column)
    }
}

/// The [`TableOps`] of the model `M`.
pub struct Ops<M>(PhantomData<fn() -> M>);

impl<M> Ops<M> {
    /// There is nothing in it.
    pub const NEW: Self = Ops(PhantomData);
}

impl<M: Bindable<DB>, DB: Backend + 'static> TableOps<DB> for Ops<M> {
    fn table(&self) -> QueryResult<TableName> {
        M::table()
    }
    fn decode(&self, values: &RowValues<'_>) -> Result<Box<dyn AnyRow<DB>>, RowError> {
        Ok(Box::new(M::from_row(values)?))
    }
    fn read(&self, row: &dyn RawRow<DB>) -> QueryResult<Box<dyn AnyRow<DB>>> {
        Ok(Box::new(<M as Bindable<DB>>::read(row)?))
    }
}
