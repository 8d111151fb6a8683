//! Writes of one row that is known beforehand, for which one statement is enough.

use std::sync::Arc;

use diesel::Connection;
use diesel::query_dsl::methods::LoadQuery;
use oplog_core::{Aggregate, Message, QueueLimits, Receipt, Recorder, TypeDef};

use crate::backend::{LogBackend, RowWrite, Wait};
use crate::bind::Bindable;
use crate::connection::{Connect, LogConnection, Nesting, nesting};
use crate::dml::{Before, BeforeDelete, ByKeys, Deleted, Many, One, RowChanges, Updated};
use crate::record::is_same_row;
use crate::replay::TableName;
use crate::store::{self, Redemption, Row};
use crate::transaction::{TransactionBuilder, is_lost, now_us};
use crate::{Cascade, Error, Oplog, Oplogged, Retry, Triggers};

type BackendOf<C> = <<C as Connect>::Connection as Connection>::Backend;

/// A row that is written, and what is logged of it.
struct Change<'a, DB: LogBackend> {
    table: TableName,
    def: &'static TypeDef,
    aggregate: Aggregate,
    message: Message,
    write: RowWrite<'a, DB>,
    /// Whether nothing but the row changes with it.
    is_alone: bool,
}

impl TransactionBuilder<'_> {
    /// Inserts a whole row and logs it, as a logged transaction of its own.
    ///
    /// On PostgreSQL, the row, the ticket and the entry are one statement without a transaction around
    /// it, and so one round trip. If the database stores anything else than
    /// the row that was given (a trigger changed it, or a type rounds), or somebody else wrote the
    /// aggregate meanwhile, that statement takes itself back and the same is done in a transaction
    /// instead, which logs what is stored. So is everything on SQLite, inside test transactions and
    /// [`nested`](Self::nested), with aggregates that were named with [`on`](Self::on), with models
    /// whose ticket is locked first or that declare triggers or cascading keys, and if a table has rules.
    ///
    /// Every column of the model is written, also those that have a default or are generated. Where
    /// the database should fill them in, use [`Tx::logged_insert`](crate::Tx::logged_insert).
    ///
    /// Returns the receipt of the entry.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] if the row is refused, for example by a constraint, or the statement was
    /// cancelled, also while it waited for the ticket; [`Error::Record`] if the row
    /// is too large for an entry, before anything is sent; [`Error::CommitUnknown`] if the connection
    /// is lost; otherwise as [`transaction`](Self::transaction).
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog) = open();
    /// let mut alice = Account { id: 1, owner: "Alice".into(), balance: 0, email: None };
    /// let receipts = oplog.metadata("actor", "root").logged_insert_row(&mut conn, &alice)?;
    /// assert_eq!((receipts[0].aggregate.as_str(), receipts[0].sequence), ("account:1", 1));
    ///
    /// let old = alice.clone();
    /// alice.balance = 5;
    /// oplog.logged_update_row(&mut conn, &old, &alice)?;
    /// assert_eq!(accounts::table.first(&mut conn), Ok(alice.clone()));
    ///
    /// oplog.logged_delete_row(&mut conn, &alice)?;
    /// # assert_eq!(accounts::table.count().get_result(&mut conn), Ok(0_i64));
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn logged_insert_row<C, M>(self, conn: &mut C, row: &M) -> Result<Vec<Receipt>, Error>
    where
        C: Connect,
        M: Oplogged + Bindable<BackendOf<C>>,
    {
        let change = Change {
            table: M::table()?,
            def: M::DEF,
            aggregate: row.aggregate(),
            message: Message::create(row),
            write: RowWrite::Insert { new: row },
            is_alone: is_alone::<M>(),
        };
        if let Some(receipt) = self.single(conn.connection(), change)? {
            return Ok(vec![receipt]);
        }
        let result = self.transaction_with_receipts(conn, |tx| tx.insert_row(row).map(drop));
        result.map(|((), receipts)| receipts)
    }

    /// Sets the columns in which two whole rows differ and logs it, as a logged transaction of its
    /// own.
    ///
    /// `old` is the row as the caller knows it. As with
    /// [`Tx::logged_update`](crate::Tx::logged_update), the row is found by its primary key: if
    /// somebody else changed other columns meanwhile, they stay changed, and what was really there
    /// before is logged.
    ///
    /// Returns the receipt of the entry; none if nothing changed, two if the row moved to another
    /// aggregate. How it is done is said at [`logged_insert_row`](Self::logged_insert_row).
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`NotFound`](diesel::result::Error::NotFound) if there is no such row;
    /// otherwise as [`logged_insert_row`](Self::logged_insert_row).
    pub fn logged_update_row<'q, 'm, C, M>(
        self,
        conn: &mut C,
        old: &'m M,
        new: &'m M,
    ) -> Result<Vec<Receipt>, Error>
    where
        C: Connect,
        M: Oplogged + Bindable<BackendOf<C>>,
        Before<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C::Connection, M>,
        Updated<M, One<'m, M>, RowChanges<'m, M>>: LoadQuery<'q, C::Connection, M>,
    {
        let columns = differing(old, new);
        let stays = is_same_row(old, new) && old.aggregate() == new.aggregate();
        if let Some(message) = Message::update(old, new).filter(|_| stays) {
            let change = Change {
                table: M::table()?,
                def: M::DEF,
                aggregate: new.aggregate(),
                message,
                write: RowWrite::Update {
                    old,
                    new,
                    columns: &columns,
                },
                is_alone: is_alone::<M>(),
            };
            if let Some(receipt) = self.single(conn.connection(), change)? {
                return Ok(vec![receipt]);
            }
        }
        if columns.is_empty() {
            return Ok(Vec::new());
        }
        let result = self.transaction_with_receipts(conn, |tx| {
            let changes = RowChanges {
                row: new,
                columns: columns.clone(),
            };
            tx.logged_update(old, changes).map(drop)
        });
        result.map(|((), receipts)| receipts)
    }

    /// Deletes a row and logs it as it was, as a logged transaction of its own.
    ///
    /// `old` is the row as the caller knows it; it is found by its primary key alone. Returns the
    /// receipt of the entry. How it is done is said at
    /// [`logged_insert_row`](Self::logged_insert_row).
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`NotFound`](diesel::result::Error::NotFound) if there is no such row;
    /// otherwise as [`logged_insert_row`](Self::logged_insert_row).
    pub fn logged_delete_row<'q, 'm, C, M>(
        self,
        conn: &mut C,
        old: &'m M,
    ) -> Result<Vec<Receipt>, Error>
    where
        C: Connect,
        M: Oplogged + Bindable<BackendOf<C>>,
        BeforeDelete<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C::Connection, M>,
        Deleted<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C::Connection, M>,
        Deleted<M, ByKeys<Many<M>>>: LoadQuery<'q, C::Connection, M>,
    {
        let change = Change {
            table: M::table()?,
            def: M::DEF,
            aggregate: old.aggregate(),
            message: Message::delete(old),
            write: RowWrite::Delete { old },
            is_alone: is_alone::<M>(),
        };
        if let Some(receipt) = self.single(conn.connection(), change)? {
            return Ok(vec![receipt]);
        }
        let result = self.transaction_with_receipts(conn, |tx| tx.logged_delete(old).map(drop));
        result.map(|((), receipts)| receipts)
    }

    /// Makes a change in one statement. `None` if that can't be done, or was not as expected; then
    /// nothing was written.
    fn single<C: LogConnection>(
        &self,
        conn: &mut C,
        change: Change<'_, C::Backend>,
    ) -> Result<Option<Receipt>, Error> {
        let outer = nesting(conn).map_err(Error::store("looking at the connection"))?;
        let oplog = self.oplog();
        if !C::Backend::WRITES_ROWS_ALONE
            // PostgreSQL has no rules within such a statement.
            || oplog.has_rules()
            || outer != Nesting::None
            || !change.is_alone
            || self.has_mistake()
            || !self.named().is_empty()
            || change.def.lock_first
        {
            return Ok(None);
        }
        let mut recorder = Recorder::new(
            Arc::clone(self.given_metadata()),
            oplog.transaction_limits(),
            QueueLimits::default(),
        );
        recorder.record(change.def, change.aggregate, &change.message)?;
        let Some(closing) = recorder.close()? else {
            return Ok(None);
        };
        let [ticket] = closing.tickets() else {
            return Ok(None);
        };
        let aggregate = ticket.aggregate();
        let heads = oplog.heads();
        let (head, exists) = match heads.trusted(aggregate) {
            Some(head) => (head, true),
            None => match store::ticket(conn, aggregate.as_str()) {
                Ok(Some(head)) => {
                    heads.read(aggregate, head);
                    (head, true)
                }
                Ok(None) => (oplog.genesis(aggregate)?, false),
                Err(error) if Retry::of(&error).is_some() => return Ok(None),
                Err(error) => return Err(Error::store("reading a ticket")(error)),
            },
        };
        oplog.check_epoch(aggregate, &head)?;
        let (log_id, key) = (oplog.log_id(), oplog.primary_key()?);
        let mut entries = closing.seal(ticket, &log_id, &key, now_us(), head);
        let Some(entry) = entries.next().transpose()? else {
            return Ok(None);
        };
        let redemption = Redemption {
            name: aggregate.as_str(),
            before: head,
            after: head.advance(entry.receipt.entry_hash),
            exists,
            wait: Wait::ForIt,
        };
        let row = Row::of(&entry, &closing);
        match C::Backend::write_row(
            conn,
            &change.table,
            change.def,
            &change.write,
            &redemption,
            &row,
        ) {
            Ok(true) => {
                let receipt = entry.receipt;
                heads.committed(std::slice::from_ref(&receipt), head.epoch);
                Ok(Some(receipt))
            }
            Ok(false) => {
                heads.missed(aggregate);
                Ok(None)
            }
            Err(error) if is_lost(&error) => Err(Error::CommitUnknown {
                receipts: vec![entry.receipt],
            }),
            Err(error) if Retry::of(&error).is_some() => Ok(None),
            // Also one that was cancelled, which nobody wants to see made again.
            Err(error) => Err(Error::Database(error)),
        }
    }
}

impl Oplog {
    /// Inserts a whole row and logs it; see [`TransactionBuilder::logged_insert_row`].
    ///
    /// # Errors
    ///
    /// As [`TransactionBuilder::logged_insert_row`].
    pub fn logged_insert_row<C, M>(&self, conn: &mut C, row: &M) -> Result<Vec<Receipt>, Error>
    where
        C: Connect,
        M: Oplogged + Bindable<BackendOf<C>>,
    {
        TransactionBuilder::new(self).logged_insert_row(conn, row)
    }

    /// Changes a whole row and logs it; see [`TransactionBuilder::logged_update_row`].
    ///
    /// # Errors
    ///
    /// As [`TransactionBuilder::logged_update_row`].
    pub fn logged_update_row<'q, 'm, C, M>(
        &self,
        conn: &mut C,
        old: &'m M,
        new: &'m M,
    ) -> Result<Vec<Receipt>, Error>
    where
        C: Connect,
        M: Oplogged + Bindable<BackendOf<C>>,
        Before<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C::Connection, M>,
        Updated<M, One<'m, M>, RowChanges<'m, M>>: LoadQuery<'q, C::Connection, M>,
    {
        TransactionBuilder::new(self).logged_update_row(conn, old, new)
    }

    /// Deletes a row and logs it; see [`TransactionBuilder::logged_delete_row`].
    ///
    /// # Errors
    ///
    /// As [`TransactionBuilder::logged_delete_row`].
    pub fn logged_delete_row<'q, 'm, C, M>(
        &self,
        conn: &mut C,
        old: &'m M,
    ) -> Result<Vec<Receipt>, Error>
    where
        C: Connect,
        M: Oplogged + Bindable<BackendOf<C>>,
        BeforeDelete<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C::Connection, M>,
        Deleted<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C::Connection, M>,
        Deleted<M, ByKeys<Many<M>>>: LoadQuery<'q, C::Connection, M>,
    {
        TransactionBuilder::new(self).logged_delete_row(conn, old)
    }
}

/// Whether a write of a row changes nothing else, and the row nothing after it.
fn is_alone<M: Oplogged>() -> bool {
    M::TRIGGERS != Triggers::Reread && M::CASCADE != Cascade::Log
}

/// The columns in which two rows differ, by their index in the model's definition.
pub(crate) fn differing<M: Oplogged>(old: &M, new: &M) -> Vec<usize> {
    (0..M::DEF.columns.len())
        .filter(|column| old.value(*column) != new.value(*column))
        .collect()
}
