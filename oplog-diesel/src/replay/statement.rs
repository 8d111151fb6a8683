//! The statements of a replay: rows of any model, tables of any name. Diesel caches them by their
//! text, of which there are few for each table.

use diesel::QueryResult;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;
use oplog_core::TypeDef;

use super::{AnyRow, TableName};
use crate::backend::LogBackend;

/// One statement on a table of a replay.
pub(super) struct OnTable<'a, DB: LogBackend> {
    pub table: &'a TableName,
    pub def: &'static TypeDef,
    pub verb: Verb<'a, DB>,
}

pub(super) enum Verb<'a, DB: LogBackend> {
    /// Inserts rows, with these columns, and returns them.
    Insert { columns: &'a [usize], rows: &'a [Box<dyn AnyRow<DB>>] },
    /// Reads the row with the key of this one.
    Select { key: &'a dyn AnyRow<DB> },
    /// Sets these columns in the row with the key of this one, and returns it.
    Update { columns: &'a [usize], row: &'a dyn AnyRow<DB> },
    /// Deletes the row with the key of this one, and returns it.
    Delete { key: &'a dyn AnyRow<DB> },
    /// Reads any row.
    Any,
}

impl<DB: LogBackend> OnTable<'_, DB> {
    fn names(&self, columns: impl Iterator<Item = usize>, out: &mut AstPass<'_, '_, DB>) -> QueryResult<()> {
        for (at, column) in columns.enumerate() {
            if at > 0 {
                out.push_sql(", ");
            }
            out.push_identifier(self.def.columns[column].name)?;
        }
        Ok(())
    }

    fn all(&self, out: &mut AstPass<'_, '_, DB>) -> QueryResult<()> {
        self.names(0..self.def.columns.len(), out)
    }

    fn with_key<'b>(&self, row: &'b dyn AnyRow<DB>, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let key = self.def.columns.iter().enumerate().filter(|(_, column)| column.key);
        for (at, (index, column)) in key.enumerate() {
            out.push_sql(if at == 0 { " WHERE " } else { " AND " });
            out.push_identifier(column.name)?;
            out.push_sql(" = ");
            row.bind(index, out.reborrow())?;
        }
        Ok(())
    }
}

impl<DB: LogBackend> QueryFragment<DB> for OnTable<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match &self.verb {
            Verb::Insert { columns, rows } => {
                out.push_sql("INSERT INTO ");
                self.table.push(&mut out)?;
                out.push_sql(" (");
                self.names(columns.iter().copied(), &mut out)?;
                out.push_sql(")");
                out.push_sql(DB::INSERT_IDENTITY);
                out.push_sql(" VALUES ");
                for (at, row) in rows.iter().enumerate() {
                    out.push_sql(if at == 0 { "(" } else { ", (" });
                    for (at, column) in columns.iter().enumerate() {
                        if at > 0 {
                            out.push_sql(", ");
                        }
                        row.bind(*column, out.reborrow())?;
                    }
                    out.push_sql(")");
                }
                out.push_sql(" RETURNING ");
                self.all(&mut out)
            }
            Verb::Select { key } => {
                out.push_sql("SELECT ");
                self.all(&mut out)?;
                out.push_sql(" FROM ");
                self.table.push(&mut out)?;
                self.with_key(*key, &mut out)
            }
            Verb::Update { columns, row } => {
                out.push_sql("UPDATE ");
                self.table.push(&mut out)?;
                for (at, column) in columns.iter().enumerate() {
                    out.push_sql(if at == 0 { " SET " } else { ", " });
                    out.push_identifier(self.def.columns[*column].name)?;
                    out.push_sql(" = ");
                    row.bind(*column, out.reborrow())?;
                }
                self.with_key(*row, &mut out)?;
                out.push_sql(" RETURNING ");
                self.all(&mut out)
            }
            Verb::Delete { key } => {
                out.push_sql("DELETE FROM ");
                self.table.push(&mut out)?;
                self.with_key(*key, &mut out)?;
                out.push_sql(" RETURNING ");
                self.all(&mut out)
            }
            Verb::Any => {
                out.push_sql("SELECT 1 FROM ");
                self.table.push(&mut out)?;
                out.push_sql(" LIMIT 1");
                Ok(())
            }
        }
    }
}

impl<DB: LogBackend> QueryId for OnTable<'_, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: LogBackend> Query for OnTable<'_, DB> {
    type SqlType = Untyped;
}
