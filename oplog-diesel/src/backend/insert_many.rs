//! Inserts of several rows in one statement.
//!
//! Diesel has such a statement parsed anew each time, since there may be as many texts as numbers of rows
//! and patterns of defaults. Here, rows whose values are all bound go in pieces of few sizes, whose
//! statements are cached if their patterns are few as well.

use std::collections::VecDeque;

use diesel::backend::Backend;
use diesel::connection::Connection;
use diesel::query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::query_dsl::methods::LoadQuery;
use diesel::query_source::QuerySource;
use diesel::{Insertable, QueryResult, RunQueryDsl};

use super::LogBackend;
use crate::Oplogged;
use crate::connection::LogConnection;
use crate::dml::{FromOf, Inserted, Returning};

/// How a database inserts many values of type `V` as rows of the model `M`.
pub trait InsertMany<'q, C, M, V>: LogBackend {
    /// Inserts the values and returns the stored rows.
    ///
    /// # Errors
    ///
    /// Those of the statements.
    fn insert_many(conn: &mut C, values: Vec<V>) -> QueryResult<Vec<M>>;
}

#[cfg(feature = "postgres_backend")]
impl<'q, C, M, V> InsertMany<'q, C, M, V> for diesel::pg::Pg
where
    C: LogConnection<Backend = Self>,
    M: Oplogged,
    Vec<V>: Insertable<M::Table>,
    Inserted<M, Vec<V>>: QueryFragment<Self> + LoadQuery<'q, C, M>,
    Rewritten<Inserted<M, Vec<V>>>: LoadQuery<'q, C, M>,
{
    fn insert_many(conn: &mut C, values: Vec<V>) -> QueryResult<Vec<M>> {
        let mut inserted = Vec::with_capacity(values.len());
        let mut values = values.into_iter();
        while values.len() > 0 {
            let rows = piece(values.len(), M::DEF.columns.len());
            let piece: Vec<V> = values.by_ref().take(rows).collect();
            let insert: Inserted<M, Vec<V>> = Returning {
                statement: diesel::insert_into(M::Table::default()).values(piece),
                columns: M::columns(),
            };
            let sql = Self::text_of(&insert)?;
            let columns = |(insert, _)| bound_columns::<Self>(insert, rows);
            if sql.rsplit_once(" RETURNING ").and_then(columns).is_some() {
                let insert = Rewritten {
                    statement: insert,
                    sql,
                    is_one_of_few: true,
                };
                collect(&mut inserted, insert.internal_load(conn)?)?;
            } else {
                collect(&mut inserted, insert.internal_load(conn)?)?;
            }
        }
        Ok(inserted)
    }
}

/// SQLite has no word for a column's default. What is not given is left out, so that rows with other columns
/// than the one before them need a statement of their own, and of a type that may leave out columns there are
/// too many texts.
#[cfg(feature = "sqlite")]
impl<'q, C, M, V> InsertMany<'q, C, M, V> for diesel::sqlite::Sqlite
where
    C: LogConnection<Backend = Self>,
    M: Oplogged,
    M::Columns: QueryFragment<Self>,
    V: Insertable<M::Table, Values: QueryFragment<Self> + QueryId>,
    Rows<FromOf<M>, V::Values>: QueryFragment<Self>,
    Returning<Rows<FromOf<M>, V::Values>, M::Columns>: LoadQuery<'q, C, M>,
    Rewritten<Returning<Rows<FromOf<M>, V::Values>, M::Columns>>: LoadQuery<'q, C, M>,
{
    fn insert_many(conn: &mut C, values: Vec<V>) -> QueryResult<Vec<M>> {
        let mut inserted = Vec::with_capacity(values.len());
        let mut values: VecDeque<V::Values> = values.into_iter().map(V::values).collect();
        while let Some(first) = values.pop_front() {
            let mut insert = Rows {
                from: M::Table::default().from_clause(),
                values: vec![first],
            };
            let mut sql = Self::text_of(&insert)?;
            let columns = bound_columns::<Self>(&sql, 1);
            let mut rows = 1;
            if let Some(columns) = columns {
                let alike = match V::Values::HAS_STATIC_QUERY_ID {
                    true => values.len(),
                    false => alike::<Self, _>(&insert.values[0], &values)?,
                };
                rows = piece(1 + alike, columns);
            }
            insert.values.extend(values.drain(..rows - 1));
            let statement = Returning {
                statement: insert,
                columns: M::columns(),
            };
            if let Some(columns) = columns.filter(|_| rows > 1) {
                sql.truncate(sql.len() - bound_values::<Self>(1, columns).len());
                sql.push_str(&bound_values::<Self>(rows, columns));
                sql.push_str(" RETURNING ");
                sql.push_str(&Self::text_of(&statement.columns)?);
                let insert = Rewritten {
                    statement,
                    sql,
                    is_one_of_few: V::Values::HAS_STATIC_QUERY_ID,
                };
                collect(&mut inserted, insert.internal_load(conn)?)?;
            } else {
                collect(&mut inserted, statement.internal_load(conn)?)?;
            }
        }
        Ok(inserted)
    }
}

/// How many of these rows, from the first, are written as this one is; no more than one statement takes.
#[cfg(feature = "sqlite")]
fn alike<DB: LogBackend, R: QueryFragment<DB>>(row: &R, rows: &VecDeque<R>) -> QueryResult<usize> {
    let text = DB::text_of(row)?;
    for (at, row) in rows.iter().take(ROWS_MAX).enumerate() {
        if DB::text_of(row)? != text {
            return Ok(at);
        }
    }
    Ok(rows.len().min(ROWS_MAX))
}

/// `INSERT INTO <table> (…) VALUES (…)` of one row. Of several, it gives the text of the first and the
/// values of all, for a [`Rewritten`] one.
#[derive(Debug)]
pub struct Rows<From, R> {
    from: From,
    values: Vec<R>,
}

impl<From, R, DB> QueryFragment<DB> for Rows<From, R>
where
    DB: Backend,
    From: QueryFragment<DB>,
    R: QueryFragment<DB> + QueryId,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        if !R::HAS_STATIC_QUERY_ID {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql("INSERT INTO ");
        self.from.walk_ast(out.reborrow())?;
        out.push_sql(" ");
        self.values
            .iter()
            .try_for_each(|row| row.walk_ast(out.reborrow()))
    }
}

impl<From, R> QueryId for Rows<From, R> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// A statement with another text, which takes the same values. It answers by itself what Diesel otherwise
/// asks [`walk_ast`](QueryFragment::walk_ast).
#[derive(Debug)]
pub struct Rewritten<S> {
    statement: S,
    sql: String,
    /// Whether it may be cached.
    is_one_of_few: bool,
}

impl<S, DB> QueryFragment<DB> for Rewritten<S>
where
    DB: Backend,
    S: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.statement.walk_ast(out)
    }

    fn to_sql(&self, out: &mut DB::QueryBuilder, _backend: &DB) -> QueryResult<()> {
        out.push_sql(&self.sql);
        Ok(())
    }

    fn is_safe_to_cache_prepared(&self, _backend: &DB) -> QueryResult<bool> {
        Ok(self.is_one_of_few)
    }
}

impl<S> QueryId for Rewritten<S> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<S: Query> Query for Rewritten<S> {
    type SqlType = S::SqlType;
}

impl<S, C: Connection> RunQueryDsl<C> for Rewritten<S> {}

/// Rows of one statement at most.
const ROWS_MAX: usize = 256;

/// How many of these rows the next statement takes: a number of three bits and zeros, since Diesel's
/// cache is unbounded, and no more than the database should keep the plan of.
fn piece(rows: usize, columns: usize) -> usize {
    const BINDS_MAX: usize = 4096;
    let rows = rows.min(ROWS_MAX).min(BINDS_MAX / columns.max(1)).max(1);
    let zeros = rows.ilog2().saturating_sub(2);
    rows >> zeros << zeros
}

/// How many values each row of this insert of so many rows has, if every one of them is bound.
pub(crate) fn bound_columns<DB>(insert: &str, rows: usize) -> Option<usize>
where
    DB: Backend<QueryBuilder: Default>,
{
    let mut sign = DB::QueryBuilder::default();
    sign.push_bind_param();
    // `?`, or `$` and a number.
    let sign = sign.finish().chars().next()?;
    let columns = insert.matches(sign).count() / rows;
    (columns > 0 && insert.ends_with(&bound_values::<DB>(rows, columns))).then_some(columns)
}

/// ` VALUES (…), (…)`: so many rows of so many values, every one of them bound.
fn bound_values<DB: Backend<QueryBuilder: Default>>(rows: usize, columns: usize) -> String {
    let mut out = DB::QueryBuilder::default();
    for row in 0..rows {
        for column in 0..columns {
            out.push_sql(match (row, column) {
                (0, 0) => " VALUES (",
                (_, 0) => "), (",
                _ => ", ",
            });
            out.push_bind_param();
        }
    }
    out.push_sql(")");
    out.finish()
}

fn collect<M>(into: &mut Vec<M>, rows: impl Iterator<Item = QueryResult<M>>) -> QueryResult<()> {
    for row in rows {
        into.push(row?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{bound_columns, piece};

    #[cfg(feature = "postgres_backend")]
    #[test]
    fn only_bound_values_are_taken_for_bound() {
        for (sql, rows, columns) in [
            ("INSERT INTO \"t\" (\"a\") VALUES ($1)", 1, Some(1)),
            ("INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)", 2, Some(2)),
            ("INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4)", 1, None),
            (
                "INSERT INTO t (a, b) VALUES ($1, $2), ($3, DEFAULT)",
                2,
                None,
            ),
            ("INSERT INTO t (a) VALUES (DEFAULT)", 1, None),
            ("INSERT INTO t DEFAULT VALUES", 1, None),
            ("INSERT INTO t (a) VALUES (lower($1))", 1, None),
            ("INSERT INTO t (a) VALUES ((VALUES ($1)))", 1, None),
            ("INSERT INTO t (a, b) VALUES ('$1', $1)", 1, None),
            (
                "INSERT INTO t (a) SELECT a FROM u WHERE a IN (VALUES ($1))",
                1,
                None,
            ),
            (
                "INSERT INTO t (a) VALUES ($1) ON CONFLICT DO NOTHING",
                1,
                None,
            ),
        ] {
            assert_eq!(bound_columns::<diesel::pg::Pg>(sql, rows), columns, "{sql}");
        }
    }

    #[test]
    fn pieces_are_of_few_sizes_and_take_all_rows() {
        let mut sizes = std::collections::BTreeSet::new();
        for columns in [0, 1, 7, 128] {
            for all in 1..600 {
                let mut rows = all;
                while rows > 0 {
                    let piece = piece(rows, columns);
                    assert!((1..=rows).contains(&piece));
                    sizes.insert(piece);
                    rows -= piece;
                }
            }
        }
        assert_eq!(sizes.len(), 28, "{sizes:?}");
        assert_eq!(sizes.last(), Some(&256));
        assert_eq!(
            [piece(100, 7), piece(511, 7), piece(1000, 128)],
            [96, 256, 32]
        );
    }
}
