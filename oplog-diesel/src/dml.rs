//! The statements of a logged write, around what the user's own query builder made.

use std::rc::Rc;

use diesel::backend::Backend;
use diesel::connection::Connection;
use diesel::dsl::SqlTypeOf;
use diesel::expression::Expression;
use diesel::query_builder::{
    AsChangeset, AstPass, InsertStatement, IntoUpdateTarget, Query, QueryBuilder, QueryFragment,
    QueryId,
};
use diesel::query_source::QuerySource;
use diesel::result::Error as DieselError;
use diesel::sql_types::Untyped;
use diesel::{Insertable, QueryResult, RunQueryDsl};
use oplog_core::LogRow;

use crate::Oplogged;
use crate::backend::{LogBackend, bound_columns};
use crate::bind::Bindable;
use crate::by_key::{key_columns, push_columns, push_key};
use crate::replay::TableName;

/// The `FROM` clause of a model's table.
pub type FromOf<M> = <<M as Oplogged>::Table as QuerySource>::FromClause;
/// The `WHERE` clause of a filter.
pub type FilterOf<S> = <S as IntoUpdateTarget>::WhereClause;
/// An insert of `V` that returns the model.
pub type Inserted<M, V> = Returning<
    InsertStatement<<M as Oplogged>::Table, <V as Insertable<<M as Oplogged>::Table>>::Values>,
    <M as Oplogged>::Columns,
>;
/// The rows of a filter, locked.
pub type Before<M, W> = Locking<FromOf<M>, W, <M as Oplogged>::Columns>;
/// The rows of a filter, locked so that nothing can be made to refer to them any more.
pub type BeforeDelete<M, W> = Locking<FromOf<M>, W, <M as Oplogged>::Columns, true>;
/// An update of rows by their keys that returns them.
pub type Updated<M, K, V> = Returning<
    Update<FromOf<M>, ByKeys<K>, <V as AsChangeset>::Changeset>,
    <M as Oplogged>::Columns,
>;
/// A delete of the rows of a filter that returns them.
pub type Deleted<M, W> = Returning<Delete<FromOf<M>, W>, <M as Oplogged>::Columns>;
/// The key of a model that the caller holds.
pub type One<'m, M> = &'m [M];
/// The keys of models that were read.
pub type Many<M> = Rc<Vec<M>>;

/// `<statement> RETURNING <columns>`: any statement, and the model's own columns in the model's own
/// order, whatever the order of the table is.
#[derive(Debug)]
pub struct Returning<S, Cols> {
    pub(crate) statement: S,
    pub(crate) columns: Cols,
}

impl<S, Cols, DB> QueryFragment<DB> for Returning<S, Cols>
where
    DB: LogBackend,
    S: QueryFragment<DB>,
    Cols: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.statement.walk_ast(out.reborrow())?;
        out.push_sql(" RETURNING ");
        self.columns.walk_ast(out.reborrow())
    }

    /// Diesel has no insert of a derived struct cached, since any `None` may change its text. But a text
    /// in which every value is bound is always the same.
    fn is_safe_to_cache_prepared(&self, backend: &DB) -> QueryResult<bool> {
        if self.statement.is_safe_to_cache_prepared(backend)? {
            return self.columns.is_safe_to_cache_prepared(backend);
        }
        if !DB::SAYS_DEFAULT {
            return Ok(false);
        }
        let mut text = DB::QueryBuilder::default();
        self.statement.to_sql(&mut text, backend)?;
        Ok(bound_columns::<DB>(&text.finish(), 1).is_some())
    }
}

impl<S: QueryId, Cols: QueryId> QueryId for Returning<S, Cols> {
    type QueryId = Returning<S::QueryId, Cols::QueryId>;
    const HAS_STATIC_QUERY_ID: bool = S::HAS_STATIC_QUERY_ID && Cols::HAS_STATIC_QUERY_ID;
}

impl<S, Cols: Expression> Query for Returning<S, Cols> {
    type SqlType = SqlTypeOf<Cols>;
}

impl<S, Cols, C: Connection> RunQueryDsl<C> for Returning<S, Cols> {}

/// `UPDATE <table> SET <changes> <where>`, cached by its text, which Diesel's own never is.
#[derive(Debug)]
pub struct Update<From, W, V> {
    pub(crate) from: From,
    pub(crate) filter: W,
    // Shared by the statements of one call, which differ in their keys only.
    pub(crate) changes: Rc<V>,
}

impl<From, W, V, DB> QueryFragment<DB> for Update<From, W, V>
where
    DB: Backend,
    From: QueryFragment<DB>,
    W: QueryFragment<DB>,
    V: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("UPDATE ");
        self.from.walk_ast(out.reborrow())?;
        push_set(&*self.changes, &mut out)?;
        self.filter.walk_ast(out.reborrow())
    }
}

impl<From, W, V> QueryId for Update<From, W, V> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// `UPDATE <table> SET <changes> FROM (SELECT <columns> FROM <table> <where> FOR NO KEY UPDATE) AS
/// oplog_before (oplog_0, …) WHERE <table>.<key> = oplog_… RETURNING oplog_0, …, <columns>`: a row
/// before and after its update, in one statement.
///
/// The inner statement waits for whoever is changing the row, and reads what they made of it. That is
/// also what the changes are applied to: the outer one looks at the row again if it has a newer version.
/// Not for rows that were found by anything but their key: one whose key is being changed by somebody
/// else would be locked by the inner statement, and missed by the outer.
#[derive(Debug)]
pub struct Exchange<'m, M, V> {
    pub(crate) table: TableName,
    /// The row, found by its primary key.
    pub(crate) row: &'m M,
    pub(crate) changes: Rc<V>,
}

impl<M, V, DB> QueryFragment<DB> for Exchange<'_, M, V>
where
    DB: LogBackend,
    M: Bindable<DB>,
    V: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let table = self.table.quote::<DB>()?;
        let of_table = format!("{table}.");
        // Names that no column of the table has, since the changes may name theirs without the table.
        let push_before = |out: &mut AstPass<'_, 'b, DB>| {
            for index in 0..M::DEF.columns.len() {
                out.push_sql(if index == 0 { "oplog_" } else { ", oplog_" });
                out.push_sql(&index.to_string());
            }
        };
        out.push_sql("UPDATE ");
        out.push_sql(&table);
        push_set(&*self.changes, &mut out)?;
        out.push_sql(" FROM (SELECT ");
        push_columns(M::DEF, &of_table, &mut out)?;
        out.push_sql(" FROM ");
        out.push_sql(&table);
        push_key(M::DEF, self.row, &mut out)?;
        out.push_sql(" FOR NO KEY UPDATE) AS oplog_before (");
        push_before(&mut out);
        for (at, index) in key_columns(M::DEF).enumerate() {
            out.push_sql(if at == 0 { ") WHERE " } else { " AND " });
            out.push_sql(&of_table);
            out.push_identifier(M::DEF.columns[index].name)?;
            out.push_sql(" = oplog_");
            out.push_sql(&index.to_string());
        }
        out.push_sql(" RETURNING ");
        push_before(&mut out);
        out.push_sql(", ");
        push_columns(M::DEF, &of_table, &mut out)
    }
}

impl<M, V> QueryId for Exchange<'_, M, V> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<M, V> Query for Exchange<'_, M, V> {
    type SqlType = Untyped;
}

/// ` SET <changes>`
fn push_set<'b, DB, V>(changes: &'b V, out: &mut AstPass<'_, 'b, DB>) -> QueryResult<()>
where
    DB: Backend,
    V: QueryFragment<DB>,
{
    if changes.is_noop(out.backend())? {
        return Err(DieselError::QueryBuilderError(
            "there is nothing to set".into(),
        ));
    }
    out.push_sql(" SET ");
    changes.walk_ast(out.reborrow())
}

/// `DELETE FROM <table> <where>`.
#[derive(Debug)]
pub struct Delete<From, W> {
    pub(crate) from: From,
    pub(crate) filter: W,
}

impl<From, W, DB> QueryFragment<DB> for Delete<From, W>
where
    DB: Backend,
    From: QueryFragment<DB>,
    W: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("DELETE FROM ");
        self.from.walk_ast(out.reborrow())?;
        self.filter.walk_ast(out.reborrow())
    }
}

impl<From, W> QueryId for Delete<From, W> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// `SELECT <columns> FROM <table> <where> [FOR NO KEY UPDATE]`: rows as they are before an update,
/// or with `FOR UPDATE` before a delete.
#[derive(Debug)]
pub struct Locking<From, W, Cols, const DELETE: bool = false> {
    pub(crate) from: From,
    pub(crate) filter: W,
    pub(crate) columns: Cols,
}

impl<From, W, Cols, const DELETE: bool, DB> QueryFragment<DB> for Locking<From, W, Cols, DELETE>
where
    DB: LogBackend,
    From: QueryFragment<DB>,
    W: QueryFragment<DB>,
    Cols: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT ");
        self.columns.walk_ast(out.reborrow())?;
        out.push_sql(" FROM ");
        self.from.walk_ast(out.reborrow())?;
        self.filter.walk_ast(out.reborrow())?;
        if DB::LOCKS_ROWS {
            // The lock that an UPDATE itself takes. A plain FOR UPDATE would wait for everybody who
            // only refers to the row by a foreign key, and two who do both would deadlock.
            out.push_sql(match DELETE {
                true => " FOR UPDATE",
                false => " FOR NO KEY UPDATE",
            });
        }
        Ok(())
    }
}

impl<From, W, Cols, const DELETE: bool> QueryId for Locking<From, W, Cols, DELETE> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<From, W, Cols: Expression, const DELETE: bool> Query for Locking<From, W, Cols, DELETE> {
    type SqlType = SqlTypeOf<Cols>;
}

impl<From, W, Cols, const DELETE: bool, C: Connection> RunQueryDsl<C>
    for Locking<From, W, Cols, DELETE>
{
}

/// ` WHERE <primary key> IN (…)`.
#[derive(Debug)]
pub struct ByKeys<K>(pub(crate) K);

/// The rows whose keys a statement addresses.
pub trait Keys {
    /// The model of the rows.
    type Model;
    /// The rows.
    fn rows(&self) -> &[Self::Model];
}

impl<M> Keys for &[M] {
    type Model = M;
    fn rows(&self) -> &[M] {
        self
    }
}

impl<M> Keys for Rc<Vec<M>> {
    type Model = M;
    fn rows(&self) -> &[M] {
        self
    }
}

impl<K, DB> QueryFragment<DB> for ByKeys<K>
where
    DB: LogBackend,
    K: Keys<Model: Bindable<DB>>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let rows = self.0.rows();
        let columns = <K::Model as LogRow>::DEF.columns;
        let key = || columns.iter().enumerate().filter(|(_, column)| column.key);
        match rows {
            [] => Err(DieselError::QueryBuilderError("no row to address".into())),
            [row] => push_key(K::Model::DEF, row, &mut out),
            rows => {
                out.push_sql(" WHERE (");
                for (at, (_, column)) in key().enumerate() {
                    if at > 0 {
                        out.push_sql(", ");
                    }
                    out.push_identifier(column.name)?;
                }
                out.push_sql(") IN (VALUES ");
                // Padded to a power of two by repeating the last key, so that a few texts serve
                // any number of rows: Diesel's statement cache is unbounded.
                for at in 0..rows.len().next_power_of_two() {
                    let row = &rows[at.min(rows.len() - 1)];
                    out.push_sql(if at == 0 { "(" } else { ", (" });
                    for (at, (index, _)) in key().enumerate() {
                        if at > 0 {
                            out.push_sql(", ");
                        }
                        row.bind(index, out.reborrow())?;
                    }
                    out.push_sql(")");
                }
                out.push_sql(")");
                Ok(())
            }
        }
    }
}

impl<K> QueryId for ByKeys<K> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// Sets columns of a model to those of a whole row.
#[derive(Debug)]
pub struct RowChanges<'m, M> {
    pub(crate) row: &'m M,
    /// The columns, by their index in the model's definition.
    pub(crate) columns: Vec<usize>,
}

impl<M: Oplogged> AsChangeset for RowChanges<'_, M> {
    type Target = M::Table;
    type Changeset = Self;

    fn as_changeset(self) -> Self {
        self
    }
}

impl<M, DB> QueryFragment<DB> for RowChanges<'_, M>
where
    DB: Backend + 'static,
    M: Bindable<DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        for (at, index) in self.columns.iter().enumerate() {
            if at > 0 {
                out.push_sql(", ");
            }
            out.push_identifier(M::DEF.columns[*index].name)?;
            out.push_sql(" = ");
            self.row.bind(*index, out.reborrow())?;
        }
        Ok(())
    }
}
