//! The connection in the hands of the application, inside a logged transaction.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use diesel::QueryResult;

use crate::backend::LogBackend;
use crate::connection::{LogConnection, depth, is_broken, rollback_to};
use crate::{Error, LentError, Tx};

impl<C: LogConnection> Tx<'_, C> {
    /// Lends the connection to a closure that reads, for queries that [`read`](Self::read) does not
    /// take: functions of the application that want a connection, or SQL as text. The database itself
    /// refuses to write meanwhile.
    ///
    /// On PostgreSQL the closure runs in a savepoint that is read-only; locks that it takes with
    /// `FOR UPDATE` are refused, too. On SQLite it runs with `PRAGMA query_only`.
    ///
    /// The connection must come back in the transaction in which it was lent: nothing but reading
    /// keeps a closure from sending `COMMIT` as text, and what it wrote after that would stay.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the closure's error as it came, which leaves the transaction as it
    /// was; [`Error::Lent`] if the connection came back in another transaction, or something was
    /// written nevertheless; [`Error::Store`] if the connection can't be lent or taken back. The
    /// transaction can't be committed after the last two.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// use diesel::sql_query;
    ///
    /// fn owners(conn: &mut SqliteConnection) -> QueryResult<Vec<String>> {
    ///     accounts::table.select(accounts::owner).load(conn)
    /// }
    ///
    /// oplog.transaction(&mut conn, |tx| {
    ///     assert_eq!(tx.read_with(owners)?, ["Alice"]);
    ///     assert!(tx.read_with(|conn| sql_query("DELETE FROM accounts").execute(conn)).is_err());
    ///     tx.logged_update(&alice, accounts::balance.eq(1))
    /// })?;
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn read_with<T>(
        &mut self,
        body: impl FnOnce(&mut C) -> QueryResult<T>,
    ) -> Result<T, Error> {
        self.alive()?;
        self.progress.recorder.lending();
        let reading = C::Backend::begin_reading(self.conn)
            .map_err(|error| self.store_failed("lending the connection for reading", error))?;
        let outcome = catch_unwind(AssertUnwindSafe(|| self.lend(body)));
        let is_clean = C::Backend::end_reading(self.conn, reading)
            .map_err(|error| self.store_failed("taking back the connection", error));
        let outcome = outcome.unwrap_or_else(|panic| resume_unwind(panic));
        if !is_clean? {
            return Err(Error::Lent {
                what: LentError::Wrote,
            });
        }
        if !matches!(outcome, Err(Error::Lent { .. })) {
            self.progress.recorder.settled();
        }
        outcome
    }

    /// Lends the connection to a closure that writes what is not logged: the one way past the log.
    /// Every entry of the transaction tells so, with the reason, under the key `_oplog.unlogged` of
    /// its metadata.
    ///
    /// Tables of models must not be written here, unless on purpose: a replay knows nothing of it,
    /// and the next logged write of such a row will say that it was something else before. A
    /// transaction that logs nothing else appends an entry without messages to the first aggregate
    /// that was named with [`on`](crate::Oplog::on), and fails if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with the closure's error as it came; what it wrote was taken back, and the
    /// transaction goes on as if `unlogged` had not been called. [`Error::Metadata`] if the reason
    /// can't be stored; then the closure was not called. [`Error::Lent`] if the connection came back
    /// in another transaction, or [`Error::Store`] if a savepoint fails; after these two the
    /// transaction can't be committed.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// use diesel::sql_query;
    ///
    /// # sql_query("CREATE TABLE cache (key TEXT, value TEXT)").execute(&mut conn)?;
    /// oplog.transaction(&mut conn, |tx| {
    ///     tx.unlogged("the cache is rebuilt from accounts", |conn| sql_query("DELETE FROM cache").execute(conn))?;
    ///     tx.logged_update(&alice, accounts::balance.eq(1))
    /// })?;
    ///
    /// let last = oplog.entries(&mut conn).last().expect("an entry")?;
    /// let reasons: Vec<_> = last.metadata().get("_oplog.unlogged").flatten().collect();
    /// assert_eq!(reasons, ["the cache is rebuilt from accounts"]);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn unlogged<T>(
        &mut self,
        reason: &str,
        body: impl FnOnce(&mut C) -> QueryResult<T>,
    ) -> Result<T, Error> {
        self.savepoint(|tx| {
            tx.progress.recorder.unlogged(reason)?;
            tx.progress.rereads.expire();
            tx.write(|tx| tx.lend(body))
        })
    }

    /// Hands out the connection, and sees that it comes back in the same transaction.
    fn lend<T>(&mut self, body: impl FnOnce(&mut C) -> QueryResult<T>) -> Result<T, Error> {
        self.alive()?;
        let before = depth(self.conn);
        let outcome = catch_unwind(AssertUnwindSafe(|| body(self.conn)));
        let (is_same, is_lost) = (depth(self.conn) == before, is_broken(self.conn));
        // What the closure opened is closed before anything else is sent.
        rollback_to(self.conn, before);
        let result = match outcome.unwrap_or_else(|panic| resume_unwind(panic)) {
            // A connection that is lost is in no transaction any more.
            Err(error) if is_lost => return Err(self.failed(error)),
            result => result,
        };
        if !is_same {
            return Err(Error::Lent {
                what: LentError::Transaction,
            });
        }
        result.map_err(|error| self.failed(error))
    }
}
