use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::query_builder::{AsChangeset, AsQuery, IntoUpdateTarget, QueryFragment, SelectQuery};
use diesel::query_dsl::methods::{FindDsl, LoadQuery};
use diesel::query_source::QuerySource;
use diesel::result::Error as DieselError;
use diesel::{Insertable, QueryResult};
use oplog_core::{LogRow, Message, RecordError, Recorder};

use crate::backend::{InsertMany, LogBackend};
use crate::bind::Bindable;
use crate::by_key::After;
use crate::connection::{LogConnection, commit, depth, load};
use crate::dml::{
    Before, BeforeDelete, ByKeys, Delete, Deleted, Exchange, FilterOf, Inserted, Locking, Many,
    One, Returning, Update, Updated,
};
use crate::record::only_row_or_none;
use crate::replay::statement::{OnTable, Texts, Verb};
use crate::reread::Rereads;
use crate::{Error, Oplog, Oplogged, Retry};

/// A logged transaction from the inside: every write goes through it and is logged.
///
/// Each `logged_*` call runs the write at once and keeps what it did, as the database stored it,
/// until the transaction is closed; then one entry for each aggregate is sealed and appended.
///
/// **An error is final.** Once a write statement failed, the transaction can't be committed, even if
/// the closure ignores the error: rows and log could differ. A write that may fail is tried in a
/// [`savepoint`](Self::savepoint). A call that says [`NotFound`] wrote nothing and leaves the
/// transaction as it was. SQLite takes back the whole transaction at some errors (a constraint with
/// `ON CONFLICT ROLLBACK`, a full disk); then every further call is refused, in a savepoint or not.
///
/// There is no raw connection inside. [`read_with`](Self::read_with) lends it while the database
/// refuses writes, and [`unlogged`](Self::unlogged) is the one way past the log, of which every entry
/// tells.
///
/// [`NotFound`]: diesel::result::Error::NotFound
#[derive(Debug)]
pub struct Tx<'t, C> {
    pub(crate) conn: &'t mut C,
    pub(crate) progress: &'t mut Progress,
}

/// What a transaction has done so far.
#[derive(Debug)]
pub(crate) struct Progress {
    pub recorder: Recorder,
    /// Why the transaction should be made again, whatever error the closure makes of it.
    pub retry: Option<Retry>,
    /// The log, for its catalog and for what the database does by itself.
    pub oplog: Oplog,
    pub rereads: Rereads,
}

impl<'t, C: LogConnection> Tx<'t, C> {
    pub(crate) fn new(conn: &'t mut C, progress: &'t mut Progress) -> Self {
        Tx { conn, progress }
    }

    /// Inserts one row and logs it as it was stored, with its defaults.
    ///
    /// `values` is anything Diesel can insert into the model's table: a struct, a tuple, or a
    /// reference to one.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if the statement fails; [`Error::RowCount`] if it inserts other than one
    /// row; [`Error::Record`] if the row is too large for an entry. The transaction can't be
    /// committed after any of them.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog) = open();
    /// let alice: Account = oplog.transaction(&mut conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }))?;
    /// assert_eq!((alice.id, alice.balance), (1, 0)); // by the database
    ///
    /// let bob: Account = oplog.transaction(&mut conn, |tx| {
    ///     tx.logged_insert((accounts::owner.eq("Bob"), accounts::balance.eq(7)))
    /// })?;
    /// assert_eq!(bob.balance, 7);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_insert<'q, M, V>(&mut self, values: V) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        V: Insertable<M::Table>,
        Inserted<M, V>: LoadQuery<'q, C, M>,
    {
        let query: Inserted<M, V> = Returning {
            statement: diesel::insert_into(M::Table::default()).values(values),
            columns: M::columns(),
        };
        self.writing::<M>();
        self.write(|tx| {
            let rows = tx.load(query)?;
            tx.record_insert(rows)
        })
    }

    /// Inserts any number of rows, in as few statements as the database allows, and logs each as it
    /// was stored.
    ///
    /// Rows that give all their values cost least, since their statements are prepared once. With
    /// `#[derive(Insertable)]`, a field that is `None` gives no value unless the struct says
    /// `#[diesel(treat_none_as_default_value = false)]`.
    ///
    /// # Errors
    ///
    /// As [`logged_insert`](Self::logged_insert).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog) = open();
    /// let owners = ["Alice", "Bob", "Carol"];
    /// let all: Vec<Account> = oplog.transaction(&mut conn, |tx| {
    ///     tx.logged_insert_many(owners.iter().map(|owner| NewAccount { owner }))
    /// })?;
    /// assert_eq!(all.len(), 3);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_insert_many<'q, M, V>(
        &mut self,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Vec<M>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        C::Backend: InsertMany<'q, C, M, V>,
    {
        let mut values = values.into_iter().peekable();
        let mut inserted = Vec::new();
        while values.peek().is_some() {
            let chunk: Vec<V> = values.by_ref().take(INSERT_ROWS_MAX).collect();
            let expected = chunk.len();
            self.alive()?;
            self.writing::<M>();
            self.write_many(|tx| {
                let mut rows =
                    C::Backend::insert_many(tx.conn, chunk).map_err(|error| tx.failed(error))?;
                if rows.len() != expected {
                    return Err(Error::RowCount {
                        expected,
                        found: rows.len(),
                    });
                }
                let gone = tx.read_again(&mut rows)?;
                tx.record_items(&rows, &gone, Message::create_items)?;
                inserted.extend(rows);
                Ok(())
            })?;
        }
        Ok(inserted)
    }

    /// Changes the row of a model and logs what it was and what it became.
    ///
    /// `changes` is anything Diesel can set on the model's table, expressions over its columns
    /// included. The row is found by the model's primary key alone; what is returned is the row as
    /// it is stored then. A change that changes nothing is not logged. A change of the primary key
    /// or of the aggregate's root is logged as a delete and a create.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`NotFound`](diesel::result::Error::NotFound) if there is no such
    /// row, with [`QueryBuilderError`](diesel::result::Error::QueryBuilderError) if there is nothing
    /// to set; both leave the transaction as it was. Otherwise as
    /// [`logged_insert`](Self::logged_insert).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let alice = oplog.transaction(&mut conn, |tx| {
    ///     let alice = tx.logged_update(&alice, accounts::balance.eq(accounts::balance + 5))?;
    ///     tx.logged_update(&alice, AccountChange { owner: None, email: Some(Some("alice@example.com")) })
    /// })?;
    /// assert_eq!((alice.balance, alice.email.as_deref()), (5, Some("alice@example.com")));
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_update<'q, 'm, M, V>(&mut self, model: &'m M, changes: V) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        V: AsChangeset<Target = M::Table, Changeset: QueryFragment<C::Backend>>,
        Before<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C, M>,
        Updated<M, One<'m, M>, V>: LoadQuery<'q, C, M>,
    {
        let key = std::slice::from_ref(model);
        let changes = Rc::new(changes.as_changeset());
        if C::Backend::RETURNS_BEFORE
            && !self.may_move::<M, _>(&*changes)?
            && let Some(after) = self.exchange(model, &changes)?
        {
            return Ok(after);
        }
        // If that found nothing, these tell whether there is no such row or a trigger keeps it as it is.
        let before: Before<M, ByKeys<One<'m, M>>> = Locking {
            from: M::Table::default().from_clause(),
            filter: ByKeys(key),
            columns: M::columns(),
        };
        let before = self
            .load(before)?
            .pop()
            .ok_or(Error::Database(DieselError::NotFound))?;
        let below = self.below_moving(std::slice::from_ref(&before), &*changes)?;
        let update: Updated<M, One<'m, M>, V> = Returning {
            statement: Update {
                from: M::Table::default().from_clause(),
                filter: ByKeys(key),
                changes,
            },
            columns: M::columns(),
        };
        self.writing::<M>();
        self.write(|tx| {
            let rows = tx.load(update)?;
            tx.record_update(below, &before, rows)
        })
    }

    /// Changes every row that a filter finds and logs each.
    ///
    /// `source` is a table or a filter over it. The rows are read and locked first and then
    /// addressed by their keys, so what is changed is exactly what was found, also while others
    /// write.
    ///
    /// # Errors
    ///
    /// As [`logged_update`](Self::logged_update), except that no row is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let charged: Vec<Account> = oplog.transaction(&mut conn, |tx| {
    ///     tx.logged_update_where(accounts::table.filter(accounts::balance.lt(10)), accounts::balance.eq(accounts::balance - 1))
    /// })?;
    /// assert_eq!((charged.len(), charged[0].balance), (1, -1));
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_update_where<'q, M, S, V>(
        &mut self,
        source: S,
        changes: V,
    ) -> Result<Vec<M>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        S: IntoUpdateTarget<Table = M::Table>,
        V: AsChangeset<Target = M::Table, Changeset: QueryFragment<C::Backend>>,
        Before<M, FilterOf<S>>: LoadQuery<'q, C, M>,
        Updated<M, Many<M>, V>: LoadQuery<'q, C, M>,
    {
        let before: Before<M, FilterOf<S>> = Locking {
            from: M::Table::default().from_clause(),
            filter: source.into_update_target().where_clause,
            columns: M::columns(),
        };
        let mut before = self.load(before)?;
        let changes = Rc::new(changes.as_changeset());
        let mut updated = Vec::new();
        while !before.is_empty() {
            let rest = before.split_off(before.len().min(keys_max::<M>()));
            let chunk: Many<M> = Rc::new(std::mem::replace(&mut before, rest));
            let below = self.below_moving(&chunk, &*changes)?;
            let update: Updated<M, Many<M>, V> = Returning {
                statement: Update {
                    from: M::Table::default().from_clause(),
                    filter: ByKeys(Rc::clone(&chunk)),
                    changes: Rc::clone(&changes),
                },
                columns: M::columns(),
            };
            self.writing::<M>();
            self.write(|tx| {
                let mut after = tx.load(update)?;
                if after.len() != chunk.len() {
                    return Err(Error::RowCount {
                        expected: chunk.len(),
                        found: after.len(),
                    });
                }
                let gone = tx.read_again(&mut after)?;
                tx.record_changes_with(below, &chunk, &after, &gone)?;
                updated.extend(after);
                Ok(())
            })?;
        }
        Ok(updated)
    }

    /// Deletes the row of a model, found by its primary key alone, and logs it as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`NotFound`](diesel::result::Error::NotFound) if there is no such
    /// row, which leaves the transaction as it was. Otherwise as
    /// [`logged_insert`](Self::logged_insert).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let deleted = oplog.transaction(&mut conn, |tx| tx.logged_delete(&alice))?;
    /// assert_eq!(deleted, alice);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_delete<'q, 'm, M>(&mut self, model: &'m M) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        BeforeDelete<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C, M>,
        Deleted<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C, M>,
        Deleted<M, ByKeys<Many<M>>>: LoadQuery<'q, C, M>,
    {
        if self.cascades::<M>() {
            let rows =
                self.delete_cascading(ByKeys(std::slice::from_ref(model)), Message::delete)?;
            return only_row_or_none(rows);
        }
        let delete: Deleted<M, ByKeys<One<'m, M>>> = Returning {
            statement: Delete {
                from: M::Table::default().from_clause(),
                filter: ByKeys(std::slice::from_ref(model)),
            },
            columns: M::columns(),
        };
        self.delete_one(delete)
    }

    /// Deletes the row with this primary key and logs it as it was.
    ///
    /// # Errors
    ///
    /// As [`logged_delete`](Self::logged_delete).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let deleted = oplog.transaction(&mut conn, |tx| tx.logged_delete_by_key::<Account, _>(1))?;
    /// assert_eq!(deleted, alice);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_delete_by_key<'q, M, K>(&mut self, key: K) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        M::Table: FindDsl<K, Output: IntoUpdateTarget<Table = M::Table>>,
        BeforeDelete<M, FilterOf<diesel::dsl::Find<M::Table, K>>>: LoadQuery<'q, C, M>,
        Deleted<M, FilterOf<diesel::dsl::Find<M::Table, K>>>: LoadQuery<'q, C, M>,
        Deleted<M, ByKeys<Many<M>>>: LoadQuery<'q, C, M>,
    {
        let filter = FindDsl::find(M::Table::default(), key)
            .into_update_target()
            .where_clause;
        if self.cascades::<M>() {
            let rows = self.delete_cascading(filter, Message::delete)?;
            return only_row_or_none(rows);
        }
        let delete: Deleted<M, FilterOf<diesel::dsl::Find<M::Table, K>>> = Returning {
            statement: Delete {
                from: M::Table::default().from_clause(),
                filter,
            },
            columns: M::columns(),
        };
        self.delete_one(delete)
    }

    /// Deletes every row that a filter finds and logs each as it was.
    ///
    /// # Errors
    ///
    /// As [`logged_delete`](Self::logged_delete), except that no row is no error.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let deleted: Vec<Account> = oplog.transaction(&mut conn, |tx| {
    ///     tx.logged_delete_where(accounts::table.filter(accounts::balance.eq(0)))
    /// })?;
    /// assert_eq!(deleted, [alice]);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_delete_where<'q, M, S>(&mut self, source: S) -> Result<Vec<M>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        S: IntoUpdateTarget<Table = M::Table>,
        BeforeDelete<M, FilterOf<S>>: LoadQuery<'q, C, M>,
        Deleted<M, FilterOf<S>>: LoadQuery<'q, C, M>,
        Deleted<M, ByKeys<Many<M>>>: LoadQuery<'q, C, M>,
    {
        let filter = source.into_update_target().where_clause;
        if self.cascades::<M>() {
            return self.delete_cascading(filter, Message::delete_items);
        }
        let delete: Deleted<M, FilterOf<S>> = Returning {
            statement: Delete {
                from: M::Table::default().from_clause(),
                filter,
            },
            columns: M::columns(),
        };
        self.deleting::<M>();
        self.write(|tx| {
            let rows = tx.load(delete)?;
            tx.record_items(&rows, &HashSet::new(), Message::delete_items)?;
            Ok(rows)
        })
    }

    /// Runs a `SELECT` and returns its rows. Anything else does not compile.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if the statement fails.
    pub fn read<'q, Q, U>(&mut self, query: Q) -> Result<Vec<U>, Error>
    where
        Q: AsQuery<Query: SelectQuery> + LoadQuery<'q, C, U>,
    {
        self.load(query)
    }

    /// Runs a `SELECT` and returns its first row. Anything else does not compile.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`NotFound`](diesel::result::Error::NotFound) if there is no row, or
    /// if the statement fails.
    pub fn read_one<'q, Q, U>(&mut self, query: Q) -> Result<U, Error>
    where
        Q: AsQuery<Query: SelectQuery> + LoadQuery<'q, C, U>,
    {
        self.alive()?;
        let row = query
            .internal_load(self.conn)
            .and_then(|mut rows| rows.next().transpose());
        row.map_err(|error| self.failed(error))?
            .ok_or(Error::Database(DieselError::NotFound))
    }

    /// Adds metadata that is known only now. Every entry of the transaction carries it.
    ///
    /// # Errors
    ///
    /// [`Error::Metadata`] if the key or value can't be stored; the transaction goes on without it.
    pub fn metadata(
        &mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), Error> {
        Ok(self.progress.recorder.metadata().push(key, value)?)
    }

    /// Runs a closure in a savepoint. If it fails, what it wrote is taken back, rows and messages
    /// alike, and the transaction goes on as if it had not been called: this is the way to try a
    /// write that may fail.
    ///
    /// # Errors
    ///
    /// The closure's own error as it came, after its writes were taken back. [`Error::Store`] if the
    /// savepoint can't be set, released or gone back to; then the transaction can't be committed.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let owners: Vec<String> = oplog.transaction(&mut conn, |tx| {
    ///     let taken = (accounts::id.eq(alice.id), accounts::owner.eq("Mallory"));
    ///     let refused = tx.savepoint(|tx| tx.logged_insert::<Account, _>(taken));
    ///     assert!(refused.is_err());
    ///     tx.logged_insert::<Account, _>(NewAccount { owner: "Bob" })?;
    ///     tx.read(accounts::table.select(accounts::owner).order(accounts::id))
    /// })?;
    /// assert_eq!(owners, ["Alice", "Bob"]);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn savepoint<T, E, F>(&mut self, body: F) -> Result<T, E>
    where
        E: From<Error>,
        F: FnOnce(&mut Tx<'_, C>) -> Result<T, E>,
    {
        self.alive()?;
        let mark = self.progress.recorder.mark();
        let watched = self.progress.rereads.mark();
        // Poisoned until the database has confirmed which way the savepoint ended.
        self.progress.recorder.sending();
        AnsiTransactionManager::begin_transaction(self.conn)
            .map_err(|error| self.store_failed("setting a savepoint", error))?;
        let inside = depth(self.conn);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            body(&mut Tx::new(self.conn, self.progress))
        }));
        let error = match outcome {
            Ok(Ok(value)) => {
                self.alive()?;
                commit(self.conn)
                    .map_err(|error| self.store_failed("releasing a savepoint", error))?;
                self.progress.recorder.settled();
                return Ok(value);
            }
            Ok(Err(error)) if self.alive().is_err() => return Err(error),
            Ok(Err(error)) => error,
            // Whoever opened the transaction rolls all of it back.
            Err(panic) => resume_unwind(panic),
        };
        if depth(self.conn) != inside {
            // A closure that the connection was lent to left it in another transaction: nobody knows
            // what a roll-back would take back, and the transaction stays poisoned.
            return Err(error);
        }
        AnsiTransactionManager::rollback_transaction(self.conn)
            .map_err(|error| self.store_failed("going back to a savepoint", error))?;
        self.progress.recorder.rollback_to(mark);
        self.progress.rereads.rollback_to(watched);
        Err(error)
    }

    fn delete_one<'q, M, Q>(&mut self, query: Q) -> Result<M, Error>
    where
        M: Oplogged,
        Q: LoadQuery<'q, C, M>,
    {
        self.deleting::<M>();
        self.write(|tx| {
            let rows = tx.load(query)?;
            tx.record_delete(rows)
        })?
        .ok_or(Error::Database(DieselError::NotFound))
    }

    /// Updates a row and reads what it was in one statement, and logs it. `None` if no row was updated.
    fn exchange<M, V>(&mut self, model: &M, changes: &Rc<V>) -> Result<Option<M>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        V: QueryFragment<C::Backend>,
    {
        self.alive()?;
        self.writing::<M>();
        self.write(|tx| {
            let rows = M::table().and_then(|table| {
                let exchange = Exchange {
                    table,
                    row: model,
                    changes: Rc::clone(changes),
                };
                load(tx.conn, exchange, |row| {
                    let after = After(row, M::DEF.columns.len());
                    Ok((
                        <M as Bindable<_>>::read(row)?,
                        <M as Bindable<_>>::read(&after)?,
                    ))
                })
            });
            let (before, after): (Vec<M>, Vec<M>) =
                rows.map_err(|error| tx.failed(error))?.into_iter().unzip();
            match before.first() {
                Some(before) => tx.record_update(None, before, after).map(Some),
                None => Ok(None),
            }
        })
    }

    /// Inserts a whole row, every column as it is given, and logs it as it was stored.
    pub(crate) fn insert_row<M>(&mut self, row: &M) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        self.alive()?;
        self.writing::<M>();
        self.write(|tx| {
            let all = (0..M::DEF.columns.len()).collect();
            let stored = M::table()
                .and_then(|table| Texts::new::<C::Backend>(&table, M::DEF, all))
                .and_then(|texts| {
                    let statement = OnTable {
                        texts: &texts,
                        def: M::DEF,
                        verb: Verb::InsertOne { row },
                    };
                    load(tx.conn, statement, |row| <M as Bindable<_>>::read(row))
                });
            let rows = stored.map_err(|error| tx.failed(error))?;
            tx.record_insert(rows)
        })
    }

    /// Runs a write of one statement. If it fails, the transaction is poisoned, unless the statement
    /// could not even be built and so was not sent.
    pub(crate) fn write<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.progress.recorder.sending();
        let result = write(self);
        let sent = !matches!(
            result,
            Err(Error::Database(
                DieselError::QueryBuilderError(_) | DieselError::SerializationError(_)
            ))
        );
        if result.is_ok() || !sent {
            self.progress.recorder.settled();
        }
        result
    }

    /// Runs a write that may take several statements. If it fails, the transaction is poisoned, since
    /// some of them may have been sent before the one that could not be.
    pub(crate) fn write_many<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.progress.recorder.sending();
        let value = write(self)?;
        self.progress.recorder.settled();
        Ok(value)
    }

    pub(crate) fn load<'q, Q, U>(&mut self, query: Q) -> Result<Vec<U>, Error>
    where
        Q: LoadQuery<'q, C, U>,
    {
        self.alive()?;
        let rows = query
            .internal_load(self.conn)
            .and_then(Iterator::collect::<QueryResult<Vec<U>>>);
        rows.map_err(|error| self.failed(error))
    }

    /// Keeps in mind why a statement failed, whatever the closure makes of the error.
    pub(crate) fn failed(&mut self, error: DieselError) -> Error {
        self.progress.remember(self.conn, &error);
        Error::Database(error)
    }

    /// As [`failed`](Self::failed), for a statement of our own.
    pub(crate) fn store_failed(&mut self, operation: &'static str, error: DieselError) -> Error {
        self.progress.failed(self.conn, operation, error)
    }

    /// Refuses to send anything once the database has taken back the transaction by itself.
    pub(crate) fn alive(&self) -> Result<(), Error> {
        if self.progress.recorder.has_vanished() {
            return Err(RecordError::Poisoned.into());
        }
        Ok(())
    }
}

/// Rows of one insert statement at most: with Diesel's widest tables, 128 columns, still within the
/// 65,535 values that PostgreSQL binds.
const INSERT_ROWS_MAX: usize = 511;

/// Values that the keys of one update bind at most, which leaves room for the changes.
const KEY_BINDS_MAX: usize = 16_384;

/// Rows of one update statement, a power of two since the list of keys is padded to one.
pub(crate) fn keys_max<M: LogRow>() -> usize {
    let columns = M::DEF
        .columns
        .iter()
        .filter(|column| column.key)
        .count()
        .max(1);
    let rows = (KEY_BINDS_MAX / columns).max(1);
    1 << rows.ilog2()
}
