//! A row, its ticket and its entry in one statement.
//!
//! The entry is sealed before the row is written, so the statement must fail if anything is not as
//! it was sealed. A condition would not do: a statement that finds nothing to append still commits
//! the row. So the sequence of the entry comes from the ticket's update, that update happens only
//! if the stored row is the sealed one, and without it the sequence is NULL, which the column
//! refuses; the error takes back everything.
//!
//! The row is written first, the ticket locked second and the id of the entry drawn third, as in
//! every other logged transaction: each part asks for the result of the one before.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use oplog_core::TypeDef;

use super::{LogBackend, RowWrite};
use crate::replay::{AnyRow, TableName};
use crate::statement::Bind;

/// The statement. Rows are compared as PostgreSQL writes them out, since some types know no equality,
/// and for others things are equal that are not the same: padded text, NULLs, 0.0 and -0.0.
///
/// A value that occurs twice is bound once and then named by its number.
pub(super) struct RowStatement<'a> {
    pub table: &'a TableName,
    pub def: &'static TypeDef,
    pub write: &'a RowWrite<'a, Pg>,
    /// Whether the ticket exists.
    pub exists: bool,
    /// `version, head_hash, epoch` of the ticket afterwards.
    pub after: [Bind<'a>; 3],
    /// `name, version, head_hash, epoch` of the ticket before.
    pub before: [Bind<'a>; 4],
    /// The columns of the entry, in the order of the table.
    pub entry: [Bind<'a>; 8],
}

impl RowStatement<'_> {
    /// Binds all columns of a row, with commas between them.
    fn row<'b>(
        &'b self,
        row: &'b dyn AnyRow<Pg>,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        for column in 0..self.def.columns.len() {
            if column > 0 {
                out.push_sql(", ");
            }
            row.bind(column, out.reborrow())?;
        }
        Ok(())
    }

    /// `ROW(stored.id, …)::text = `
    fn stored_is(&self, out: &mut AstPass<'_, '_, Pg>) -> QueryResult<()> {
        for (index, column) in self.def.columns.iter().enumerate() {
            out.push_sql(if index == 0 {
                "ROW(stored."
            } else {
                ", stored."
            });
            out.push_identifier(column.name)?;
        }
        out.push_sql(")::text = ");
        Ok(())
    }

    /// `ROW($1, …)::text` of values that are bound elsewhere, by the number of each column's.
    fn bound_row(&self, number: impl Fn(usize) -> usize, out: &mut AstPass<'_, '_, Pg>) {
        for index in 0..self.def.columns.len() {
            out.push_sql(if index == 0 { "ROW($" } else { ", $" });
            out.push_sql(&number(index).to_string());
        }
        out.push_sql(")::text");
    }

    /// ` WHERE <the row is the old one>`, whose values are bound after so many others.
    fn where_old<'b>(
        &'b self,
        old: &'b dyn AnyRow<Pg>,
        bound: usize,
        out: &mut AstPass<'_, 'b, Pg>,
    ) -> QueryResult<()> {
        out.push_sql(" WHERE ");
        let columns = self.def.columns.iter().enumerate();
        for (index, column) in columns.filter(|(_, column)| column.key) {
            out.push_sql("stored.");
            out.push_identifier(column.name)?;
            out.push_sql(" = $");
            out.push_sql(&(bound + 1 + index).to_string());
            out.push_sql(" AND ");
        }
        self.stored_is(out)?;
        out.push_sql("ROW(");
        self.row(old, out)?;
        out.push_sql(")::text RETURNING ");
        Ok(())
    }

    fn written<'b>(&'b self, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match self.write {
            RowWrite::Insert { new } => {
                out.push_sql("WITH written (same) AS (INSERT INTO ");
                out.push_sql(&self.table.quoted());
                out.push_sql(" AS stored");
                for (index, column) in self.def.columns.iter().enumerate() {
                    out.push_sql(if index == 0 { " (" } else { ", " });
                    out.push_identifier(column.name)?;
                }
                out.push_sql(") VALUES (");
                self.row(*new, out)?;
                out.push_sql(") RETURNING ");
                self.stored_is(out)?;
                self.bound_row(|index| 1 + index, out);
            }
            RowWrite::Update { old, new, columns } => {
                out.push_sql("WITH written (same) AS (UPDATE ");
                out.push_sql(&self.table.quoted());
                out.push_sql(" AS stored");
                for (at, index) in columns.iter().enumerate() {
                    out.push_sql(if at == 0 { " SET " } else { ", " });
                    out.push_identifier(self.def.columns[*index].name)?;
                    out.push_sql(" = ");
                    new.bind(*index, out.reborrow())?;
                }
                self.where_old(*old, columns.len(), out)?;
                self.stored_is(out)?;
                let changed = |index| columns.iter().position(|column| *column == index);
                self.bound_row(
                    |index| 1 + changed(index).unwrap_or(columns.len() + index),
                    out,
                );
            }
            RowWrite::Delete { old } => {
                out.push_sql("WITH written (same) AS (DELETE FROM ");
                out.push_sql(&self.table.quoted());
                out.push_sql(" AS stored");
                self.where_old(*old, 0, out)?;
                out.push_sql("true");
            }
        }
        Ok(())
    }
}

impl QueryFragment<Pg> for RowStatement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.written(&mut out)?;
        let [name, version_before, hash_before, epoch_before] = &self.before;
        let [version, hash, epoch] = &self.after;
        let mut part = |sql, bind| {
            out.push_sql(sql);
            Pg::push(&mut out, bind)
        };
        if self.exists {
            part(
                "), redeemed AS (UPDATE oplog_ticket SET version = ",
                version,
            )?;
            part(", head_hash = ", hash)?;
            part(", epoch = ", epoch)?;
            part(" WHERE name = ", name)?;
            part(" AND version = ", version_before)?;
            part(" AND head_hash = ", hash_before)?;
            part(" AND epoch = ", epoch_before)?;
            out.push_sql(" AND (SELECT same FROM written) RETURNING version - 1 AS sequence)");
        } else {
            part(
                "), redeemed AS (INSERT INTO oplog_ticket (name, version, head_hash, epoch) SELECT ",
                name,
            )?;
            part(", ", version)?;
            part(", ", hash)?;
            part(", ", epoch)?;
            out.push_sql(
                " WHERE (SELECT same FROM written) ON CONFLICT (name) DO NOTHING \
                 RETURNING version - 1 AS sequence)",
            );
        }
        out.push_sql(
            " INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, txn_id, \
             metadata, data) SELECT ",
        );
        for (index, bind) in self.entry.iter().enumerate() {
            if index > 0 {
                out.push_sql(", ");
            }
            // The sequence is the ticket's, not ours.
            if index == 3 {
                out.push_sql("redeemed.sequence");
            } else {
                Pg::push(&mut out, bind)?;
            }
        }
        out.push_sql(" FROM (SELECT) AS always LEFT JOIN redeemed ON true");
        Ok(())
    }
}

impl QueryId for RowStatement<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<C> diesel::RunQueryDsl<C> for RowStatement<'_> {}
