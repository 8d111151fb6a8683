//! Our own SQL: fixed statements that Diesel prepares once per connection.

use std::marker::PhantomData;

use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;
use diesel::{QueryResult, RunQueryDsl};

use crate::backend::LogBackend;

/// A value bound to one of our statements.
#[derive(Clone, Copy)]
pub enum Bind<'a> {
    /// A 64-bit integer.
    I64(i64),
    /// A 32-bit integer.
    I32(i32),
    /// A 16-bit integer.
    I16(i16),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bytes or `NULL`.
    MaybeBytes(Option<&'a [u8]>),
}

/// The text of a fixed statement. Each `?` takes the next bind.
pub trait Text: 'static {
    /// The SQL.
    const SQL: &'static str;
}

/// A fixed statement. Its type is its key in Diesel's statement cache, so that not even its text is
/// built on a second run.
pub struct Statement<'a, S> {
    binds: &'a [Bind<'a>],
    text: PhantomData<S>,
}

impl<'a, S: Text> Statement<'a, S> {
    /// The statement with these binds.
    pub fn new(binds: &'a [Bind<'a>]) -> Self {
        Statement {
            binds,
            text: PhantomData,
        }
    }
}

impl<S: Text, DB: LogBackend> QueryFragment<DB> for Statement<'_, S> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        walk_text(S::SQL, self.binds, &mut out)
    }
}

impl<S: Text> QueryId for Statement<'_, S> {
    type QueryId = S;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<S> Query for Statement<'_, S> {
    type SqlType = Untyped;
}

impl<S, C> RunQueryDsl<C> for Statement<'_, S> {}

fn walk_text<'b, DB: LogBackend>(
    sql: &str,
    binds: &'b [Bind<'b>],
    out: &mut AstPass<'_, 'b, DB>,
) -> QueryResult<()> {
    let mut binds = binds.iter();
    let mut parts = sql.split('?');
    if let Some(first) = parts.next() {
        out.push_sql(first);
    }
    for part in parts {
        let bind = binds.next().ok_or_else(|| {
            diesel::result::Error::QueryBuilderError(
                "a bind of the oplog's statement is missing".into(),
            )
        })?;
        DB::push(out, bind)?;
        out.push_sql(part);
    }
    Ok(())
}

/// Declares the texts of fixed statements.
macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $(
            $(#[$doc])*
            pub(crate) enum $name {}
            impl $crate::statement::Text for $name {
                const SQL: &'static str = $sql;
            }
        )*
    };
}
pub(crate) use statements;
