use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel::connection::{AnsiTransactionManager, Connection, LoadConnection, TransactionManager};
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::sql_types::Untyped;

use crate::backend::LogBackend;
use crate::bind::{DieselRow, RawRow};
use crate::{Error, Retry};

/// A connection on which a logged transaction runs its statements.
///
/// Implemented for Diesel's own connections. Pooled ones reach theirs through
/// [`Connect`].
pub trait LogConnection:
    Connection<Backend: LogBackend, TransactionManager = AnsiTransactionManager>
    + LoadConnection
    + 'static
{
}

impl<C> LogConnection for C where
    C: Connection<Backend: LogBackend, TransactionManager = AnsiTransactionManager>
        + LoadConnection
        + 'static
{
}

/// Something with a connection for logged transactions: a connection itself or one from a pool.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no connection that a logged transaction can run on",
    note = "use a `SqliteConnection` or `PgConnection`, plain or from an r2d2 pool",
    note = "and switch on the feature of `oplog-diesel` that carries the backend's name (`sqlite`, `postgres`) or `r2d2`"
)]
pub trait Connect {
    /// The connection inside.
    type Connection: LogConnection;
    /// The connection inside.
    fn connection(&mut self) -> &mut Self::Connection;
}

#[cfg(feature = "sqlite")]
impl Connect for diesel::SqliteConnection {
    type Connection = Self;
    fn connection(&mut self) -> &mut Self {
        self
    }
}

#[cfg(feature = "postgres")]
impl Connect for diesel::PgConnection {
    type Connection = Self;
    fn connection(&mut self) -> &mut Self {
        self
    }
}

// A pooled connection has a transaction manager of its own, which only forwards.
#[cfg(feature = "r2d2")]
impl<C> Connect for diesel::r2d2::PooledConnection<diesel::r2d2::ConnectionManager<C>>
where
    C: LogConnection + diesel::r2d2::R2D2Connection,
{
    type Connection = C;
    fn connection(&mut self) -> &mut C {
        self
    }
}

/// Where a connection stands with regard to transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// No transaction is open.
    None,
    /// Diesel's test transaction is open, and nothing inside it.
    Test,
    /// A transaction of the application's is open, or the connection is broken.
    Outer,
}

pub(crate) fn nesting<C: LogConnection>(conn: &mut C) -> QueryResult<Nesting> {
    let depth = AnsiTransactionManager::transaction_manager_status_mut(conn).transaction_depth()?;
    // Diesel keeps its test flag to itself, but a pool may reuse a connection with a test
    // transaction open and not one with any other.
    let reusable =
        !<AnsiTransactionManager as TransactionManager<C>>::is_broken_transaction_manager(conn);
    Ok(match depth.map(NonZeroU32::get) {
        None => Nesting::None,
        Some(1) if reusable => Nesting::Test,
        Some(_) => Nesting::Outer,
    })
}

/// Runs a statement and counts the rows it changed.
pub(crate) fn execute<C, Q>(conn: &mut C, query: &Q) -> QueryResult<usize>
where
    C: LogConnection,
    Q: QueryFragment<C::Backend> + QueryId,
{
    conn.execute_returning_count(query)
}

/// Runs a statement and hands each row to `each`.
pub(crate) fn load<C, Q, T>(
    conn: &mut C,
    query: Q,
    mut each: impl FnMut(&dyn RawRow<C::Backend>) -> QueryResult<T>,
) -> QueryResult<Vec<T>>
where
    C: LogConnection,
    Q: Query<SqlType = Untyped> + QueryFragment<C::Backend> + QueryId,
{
    let mut rows = Vec::new();
    for row in LoadConnection::load(conn, query)? {
        rows.push(each(&DieselRow(row?, PhantomData))?);
    }
    Ok(rows)
}

/// Runs a statement that gives at most one row.
pub(crate) fn load_one<C, Q, T>(
    conn: &mut C,
    query: Q,
    each: impl FnMut(&dyn RawRow<C::Backend>) -> QueryResult<T>,
) -> QueryResult<Option<T>>
where
    C: LogConnection,
    Q: Query<SqlType = Untyped> + QueryFragment<C::Backend> + QueryId,
{
    Ok(load(conn, query, each)?.pop())
}

/// Runs `body` in a transaction of our own, opened by `begin`; inside Diesel's test transaction as a
/// savepoint. An error or panic rolls back.
pub(crate) fn in_transaction<C: LogConnection, T>(
    conn: &mut C,
    begin: &str,
    what: &'static str,
    body: impl FnOnce(&mut C) -> Result<T, Error>,
) -> Result<T, Error> {
    let outer = depth(conn);
    let opened = match nesting(conn).map_err(Error::store("looking at the connection"))? {
        Nesting::None => {
            let deadline = Instant::now() + Duration::from_secs(10);
            opening(conn, |conn| begin_patiently(conn, begin, deadline))
        }
        Nesting::Test => opening(conn, AnsiTransactionManager::begin_transaction),
        Nesting::Outer => return Err(Error::OuterTransaction),
    };
    opened.map_err(Error::store(what))?;
    guarded(conn, outer, |conn| match body(conn) {
        Ok(value) => {
            commit(conn).map_err(Error::store("committing"))?;
            Ok(value)
        }
        Err(error) => {
            rollback_to(conn, outer);
            Err(error)
        }
    })
}

/// Rolls back. An error of the rollback is not reported, the cause of the rollback is: a connection
/// that can't roll back is marked as broken by Diesel, and no pool hands it out again.
pub(crate) fn rollback<C: LogConnection>(conn: &mut C) {
    let _ = AnsiTransactionManager::rollback_transaction(conn);
}

/// Rolls back everything that is open above a depth, also savepoints that a panic left open.
pub(crate) fn rollback_to<C: LogConnection>(conn: &mut C, outer: u32) {
    let mut before = depth(conn);
    while before > outer {
        rollback(conn);
        let after = depth(conn);
        if after >= before {
            return;
        }
        before = after;
    }
}

/// Runs a part of a transaction. A panic in it takes back everything above a depth, and goes on.
pub(crate) fn guarded<C: LogConnection, T>(
    conn: &mut C,
    outer: u32,
    part: impl FnOnce(&mut C) -> T,
) -> T {
    match catch_unwind(AssertUnwindSafe(|| part(conn))) {
        Ok(value) => value,
        Err(panic) => {
            rollback_to(conn, outer);
            resume_unwind(panic)
        }
    }
}

/// Runs what opens a transaction. After a panic in it nobody knows whether one is open, so that the
/// connection is given up: Diesel refuses transactions on it, and no pool hands it out again.
pub(crate) fn opening<C: LogConnection, T>(conn: &mut C, open: impl FnOnce(&mut C) -> T) -> T {
    match catch_unwind(AssertUnwindSafe(|| open(conn))) {
        Ok(value) => value,
        Err(panic) => {
            AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
            resume_unwind(panic)
        }
    }
}

/// Gives up a connection that can't be used any more: Diesel refuses transactions on it, and no pool
/// hands it out again. What is open is rolled back if that is still possible.
#[cfg(feature = "sqlite")]
pub(crate) fn give_up<C: LogConnection>(conn: &mut C) {
    let _ = catch_unwind(AssertUnwindSafe(|| conn.batch_execute("ROLLBACK")));
    AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
}

/// Commits. If that fails, the transaction is rolled back.
pub(crate) fn commit<C: LogConnection>(conn: &mut C) -> QueryResult<()> {
    let before = depth(conn);
    let result = AnsiTransactionManager::commit_transaction(conn);
    if result.is_err() && before > 0 && before == depth(conn) {
        // Diesel rolls back what it knows to be aborted, and leaves the rest to us.
        rollback(conn);
    }
    result
}

/// Whether Diesel has given up the connection, because it was lost or could not roll back.
pub(crate) fn is_broken<C: LogConnection>(conn: &mut C) -> bool {
    let status = AnsiTransactionManager::transaction_manager_status_mut(conn);
    status.transaction_depth().is_err()
}

/// How many transactions are open in one another; none if the connection is broken.
pub(crate) fn depth<C: LogConnection>(conn: &mut C) -> u32 {
    let status = AnsiTransactionManager::transaction_manager_status_mut(conn);
    let depth = status.transaction_depth().ok().flatten();
    depth.map_or(0, NonZeroU32::get)
}

/// Opens a top-level transaction, and waits for a database that is busy.
///
/// SQLite would wait by itself if the connection had a `busy_timeout`. Ours works whatever the
/// application has set there, and changes nothing about the connection.
pub(crate) fn begin_patiently<C: LogConnection>(
    conn: &mut C,
    begin: &str,
    deadline: Instant,
) -> QueryResult<()> {
    let mut round = 0;
    loop {
        match AnsiTransactionManager::begin_transaction_sql(conn, begin) {
            Err(error) if Retry::of(&error).is_some() && Instant::now() < deadline => {
                round += 1;
                thread::sleep(pause(round));
            }
            result => return result,
        }
    }
}

/// The pause after a failed attempt: doubling from half a millisecond to 64, and spread by chance
/// over half to one and a half times that, so that the losers of one round do not meet again.
pub(crate) fn pause(attempts: u32) -> Duration {
    let micros = 500_u64 << attempts.saturating_sub(1).min(7);
    // Without random numbers the pause is only less well spread.
    let chance = u64::from(getrandom::u32().unwrap_or(u32::MAX / 2));
    Duration::from_micros(micros / 2 + micros * chance / u64::from(u32::MAX))
}
