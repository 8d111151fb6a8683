//! Reads rows of any model by their primary keys, and the rows that refer to them.

use diesel::QueryResult;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;
use oplog_core::{TypeDef, Value, encode_columns};

use crate::backend::LogBackend;
use crate::bind::RawRow;
use crate::catalogue::KeyColumn;
use crate::connection::{LogConnection, load};
use crate::replay::{AnyRow, TableName, TableOps};

/// Rows that one statement asks for at most, a power of two.
const ROWS_MAX: usize = 256;

/// The primary key of a row, in the bytes it has in the log.
pub(crate) fn key_of<'v>(def: &'static TypeDef, value: impl Fn(usize) -> Value<'v>) -> Vec<u8> {
    let key = key_columns(def).map(|index| (index, value(index)));
    encode_columns(def, key).bytes
}

/// The columns of the primary key, by their index in the definition.
pub(crate) fn key_columns(def: &'static TypeDef) -> impl Iterator<Item = usize> {
    (0..def.columns.len()).filter(|index| def.columns[*index].key)
}

/// Cuts rows into pieces whose lengths are powers of two, so that the statements for them have few
/// texts: Diesel's statement cache is unbounded.
fn pieces<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let len = 1 << rest.len().checked_ilog2()?;
        let (piece, after) = rest.split_at(ROWS_MAX.min(len));
        rest = after;
        Some(piece)
    })
}

/// Locks the rows with the keys of these, so that nothing can be made to refer to them any more.
pub(crate) fn lock<C: LogConnection>(
    conn: &mut C,
    def: &'static TypeDef,
    table: &TableName,
    rows: &[&dyn AnyRow<C::Backend>],
) -> QueryResult<()> {
    for rows in pieces(rows).filter(|_| C::Backend::LOCKS_ROWS) {
        let (locks, read) = (true, |_: &dyn RawRow<C::Backend>| Ok(()));
        let select = ByKey {
            def,
            table,
            rows,
            locks,
        };
        load(conn, select, read)?;
    }
    Ok(())
}

/// Reads the rows with the keys of these, in any order, as `read` makes them.
pub(crate) fn select<C, T>(
    conn: &mut C,
    def: &'static TypeDef,
    table: &TableName,
    rows: &[&dyn AnyRow<C::Backend>],
    mut read: impl FnMut(&dyn RawRow<C::Backend>) -> QueryResult<T>,
) -> QueryResult<Vec<T>>
where
    C: LogConnection,
{
    let mut found = Vec::new();
    for rows in pieces(rows) {
        let select = ByKey {
            def,
            table,
            rows,
            locks: false,
        };
        found.extend(load(conn, select, &mut read)?);
    }
    Ok(found)
}

/// `SELECT <columns> FROM <table> WHERE <primary key> IN (…) [FOR UPDATE]`.
struct ByKey<'a, DB: LogBackend> {
    def: &'static TypeDef,
    table: &'a TableName,
    rows: &'a [&'a dyn AnyRow<DB>],
    locks: bool,
}

impl<DB: LogBackend> QueryFragment<DB> for ByKey<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("SELECT ");
        push_columns(self.def, "", &mut out)?;
        out.push_sql(" FROM ");
        out.push_sql(&self.table.quote::<DB>()?);
        if let [row] = self.rows {
            push_key(self.def, *row, &mut out)?;
            if self.locks {
                out.push_sql(" FOR UPDATE");
            }
            return Ok(());
        }
        for (at, index) in key_columns(self.def).enumerate() {
            out.push_sql(if at == 0 { " WHERE (" } else { ", " });
            out.push_identifier(self.def.columns[index].name)?;
        }
        out.push_sql(") IN (VALUES ");
        for (at, row) in self.rows.iter().enumerate() {
            out.push_sql(if at == 0 { "(" } else { ", (" });
            for (at, index) in key_columns(self.def).enumerate() {
                if at > 0 {
                    out.push_sql(", ");
                }
                row.bind(index, out.reborrow())?;
            }
            out.push_sql(")");
        }
        out.push_sql(")");
        if self.locks {
            out.push_sql(" FOR UPDATE");
        }
        Ok(())
    }
}

impl<DB: LogBackend> QueryId for ByKey<'_, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: LogBackend> Query for ByKey<'_, DB> {
    type SqlType = Untyped;
}

/// The two ends of a foreign key.
pub(crate) struct Ends<'a> {
    pub parent: &'static TypeDef,
    pub parent_table: &'a TableName,
    pub child: &'static TypeDef,
    pub child_table: &'a TableName,
    pub columns: &'a [KeyColumn],
    /// Whether the children will go, and not only change: the lock that this takes.
    pub deletes: bool,
}

/// A row with a number that tells what it belongs to.
pub(crate) type Numbered<DB> = (usize, Box<dyn AnyRow<DB>>);

/// Reads and locks the rows that refer to these parents, each with the index of its parent.
pub(crate) fn children<C>(
    conn: &mut C,
    ends: &Ends<'_>,
    parents: &[&dyn AnyRow<C::Backend>],
    ops: &dyn TableOps<C::Backend>,
) -> QueryResult<Vec<Numbered<C::Backend>>>
where
    C: LogConnection,
{
    let mut found = Vec::new();
    let mut first = 0;
    for parents in pieces(parents) {
        let select = Children { ends, parents };
        found.extend(load(conn, select, |row| {
            let parent = <C::Backend as LogBackend>::read_i64(row, 0)?;
            let child = ops.read(&After(row, 1))?;
            Ok((first + parent as usize, child))
        })?);
        first += parents.len();
    }
    Ok(found)
}

/// A row without its first columns.
pub(crate) struct After<'a, DB: LogBackend>(pub &'a dyn RawRow<DB>, pub usize);

impl<DB: LogBackend> RawRow<DB> for After<'_, DB> {
    fn with_value(
        &self,
        column: usize,
        f: &mut dyn FnMut(Option<DB::RawValue<'_>>),
    ) -> QueryResult<()> {
        self.0.with_value(column + self.1, f)
    }
}

/// `SELECT v.column1, c.… FROM (VALUES (0, …), (1, …)) AS v JOIN <parent> AS p ON <primary key>
/// JOIN <child> AS c ON <foreign key>`. The parents' own columns stand on the left of each `=`:
/// SQLite compares as the parent's column says, and so does its foreign key.
struct Children<'a, DB: LogBackend> {
    ends: &'a Ends<'a>,
    parents: &'a [&'a dyn AnyRow<DB>],
}

impl<DB: LogBackend> QueryFragment<DB> for Children<'_, DB> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let ends = self.ends;
        out.push_sql("SELECT v.column1, ");
        push_columns(ends.child, "c.", &mut out)?;
        out.push_sql(" FROM (VALUES ");
        for (at, parent) in self.parents.iter().enumerate() {
            out.push_sql(if at == 0 { "(" } else { ", (" });
            out.push_sql(&at.to_string());
            for index in key_columns(ends.parent) {
                out.push_sql(", ");
                parent.bind(index, out.reborrow())?;
            }
            out.push_sql(")");
        }
        out.push_sql(") AS v JOIN ");
        out.push_sql(&ends.parent_table.quote::<DB>()?);
        out.push_sql(" AS p");
        for (at, index) in key_columns(ends.parent).enumerate() {
            out.push_sql(if at == 0 { " ON p." } else { " AND p." });
            out.push_identifier(ends.parent.columns[index].name)?;
            out.push_sql(&format!(" = v.column{}", at + 2));
        }
        out.push_sql(" JOIN ");
        out.push_sql(&ends.child_table.quote::<DB>()?);
        out.push_sql(" AS c");
        for (at, column) in ends.columns.iter().enumerate() {
            out.push_sql(if at == 0 { " ON p." } else { " AND p." });
            out.push_identifier(&column.parent)?;
            out.push_sql(" = c.");
            out.push_identifier(&column.child)?;
        }
        if DB::LOCKS_ROWS {
            // The locks that the database itself will take.
            out.push_sql(match ends.deletes {
                true => " FOR UPDATE OF c",
                false => " FOR NO KEY UPDATE OF c",
            });
        }
        Ok(())
    }
}

impl<DB: LogBackend> QueryId for Children<'_, DB> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: LogBackend> Query for Children<'_, DB> {
    type SqlType = Untyped;
}

/// ` WHERE <primary key> = …`
pub(crate) fn push_key<'b, DB: LogBackend>(
    def: &'static TypeDef,
    row: &'b dyn AnyRow<DB>,
    out: &mut AstPass<'_, 'b, DB>,
) -> QueryResult<()> {
    for (at, index) in key_columns(def).enumerate() {
        out.push_sql(if at == 0 { " WHERE " } else { " AND " });
        out.push_identifier(def.columns[index].name)?;
        out.push_sql(" = ");
        row.bind(index, out.reborrow())?;
    }
    Ok(())
}

/// All columns of the definition, each with the same words before its name.
pub(crate) fn push_columns<DB: LogBackend>(
    def: &'static TypeDef,
    alias: &str,
    out: &mut AstPass<'_, '_, DB>,
) -> QueryResult<()> {
    for (at, column) in def.columns.iter().enumerate() {
        if at > 0 {
            out.push_sql(", ");
        }
        out.push_sql(alias);
        out.push_identifier(column.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_are_powers_of_two() {
        let check = |rows: usize, expected: &[usize]| {
            let rows = vec![0; rows];
            let lengths: Vec<usize> = pieces(&rows).map(<[i32]>::len).collect();
            assert_eq!(lengths, expected);
        };
        check(0, &[]);
        check(1, &[1]);
        check(7, &[4, 2, 1]);
        check(256, &[256]);
        check(1000, &[256, 256, 256, 128, 64, 32, 8]);
    }
}
