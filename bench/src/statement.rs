//! Statements written by hand, for what Diesel does not cache and for the original's tables.

use std::marker::PhantomData;

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error as DieselError;
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Binary, Integer, Text};
use diesel::{QueryResult, RunQueryDsl};

/// A value of a statement.
#[derive(Clone, Copy)]
pub enum Bind<'a> {
    Big(i64),
    Int(i32),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// The text of a statement, in which each `?` takes the next value, and what it returns.
pub trait Sql: 'static {
    const SQL: &'static str;
    type Returns;
}

/// A statement of a fixed text: its type is its key in Diesel's cache.
pub struct Fixed<'a, S> {
    binds: &'a [Bind<'a>],
    sql: PhantomData<S>,
}

impl<'a, S: Sql> Fixed<'a, S> {
    pub fn new(binds: &'a [Bind<'a>]) -> Self {
        Fixed {
            binds,
            sql: PhantomData,
        }
    }
}

impl<S: Sql, DB> QueryFragment<DB> for Fixed<'_, S>
where
    DB: Backend,
    i64: ToSql<BigInt, DB>,
    i32: ToSql<Integer, DB>,
    str: ToSql<Text, DB>,
    [u8]: ToSql<Binary, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let mut binds = self.binds.iter();
        for (at, part) in S::SQL.split('?').enumerate() {
            if at > 0 {
                match binds.next() {
                    Some(Bind::Big(value)) => out.push_bind_param::<BigInt, i64>(value)?,
                    Some(Bind::Int(value)) => out.push_bind_param::<Integer, i32>(value)?,
                    Some(Bind::Text(value)) => out.push_bind_param::<Text, str>(value)?,
                    Some(Bind::Bytes(value)) => out.push_bind_param::<Binary, [u8]>(value)?,
                    None => {
                        return Err(DieselError::QueryBuilderError("a value is missing".into()));
                    }
                }
            }
            out.push_sql(part);
        }
        Ok(())
    }
}

impl<S: Sql> QueryId for Fixed<'_, S> {
    type QueryId = S;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<S: Sql> Query for Fixed<'_, S> {
    type SqlType = S::Returns;
}

impl<S, C> RunQueryDsl<C> for Fixed<'_, S> {}

macro_rules! statements {
    ($($name:ident -> $returns:ty = $sql:literal;)*) => {
        $(
            pub enum $name {}
            impl Sql for $name {
                const SQL: &'static str = $sql;
                type Returns = $returns;
            }
        )*
    };
}

statements! {
    SetAge -> () = "UPDATE members SET age = ? WHERE id = ?";
    SetAges -> () = "UPDATE members SET age = ? WHERE id BETWEEN ? AND ?";

    OriginalTicket -> BigInt = "SELECT version FROM original_ticket WHERE name = ?";
    OriginalEntry -> BigInt = "INSERT INTO original_entry (version, aggregate_name, data) VALUES (?, ?, ?) RETURNING id";
    OriginalMetadata -> () = "INSERT INTO original_metadata (entry_id, key, value) VALUES (?, ?, ?), (?, ?, ?), (?, ?, ?)";
    OriginalRedeem -> () = "UPDATE original_ticket SET version = ? WHERE name = ? AND version = ?";
}
