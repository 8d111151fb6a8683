use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_core::{Aggregate, Closing, Head, Metadata, QueueLimits, Receipt, Recorder, Ticket};

use crate::backend::{Locked, LogBackend, Wait};
use crate::connection::{
    Connect, LogConnection, Nesting, begin_patiently, commit, nesting, pause, rollback,
};
use crate::reread::Rereads;
use crate::store::{self, Redemption, Row};
use crate::tx::{Progress, Tx};
use crate::{Error, Oplog, Retry};

/// A logged transaction that is being described: which aggregates it counts on and what its entries
/// say about it. Made by [`Oplog::on`], [`Oplog::metadata`] and [`Oplog::transaction`].
#[derive(Debug)]
#[must_use = "nothing happens before `transaction`"]
pub struct TransactionBuilder<'o> {
    oplog: &'o Oplog,
    named: Vec<Aggregate>,
    metadata: Metadata,
    // The first mistake, kept until there is somebody to tell.
    mistake: Option<Error>,
}

/// What became of one attempt.
enum Attempt<T, E> {
    Committed(T, Vec<Receipt>),
    Failed(E),
    Again(Retry),
}

/// Why a transaction could not be closed.
enum Failure {
    Retry(Retry),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl<'o> TransactionBuilder<'o> {
    pub(crate) fn new(oplog: &'o Oplog) -> Self {
        TransactionBuilder {
            oplog,
            named: Vec::new(),
            metadata: Metadata::new(),
            mistake: None,
        }
    }

    /// Counts on an aggregate: if anybody else writes it before this transaction is committed,
    /// everything is rolled back and the closure runs again.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// let alice: Account = oplog.on(alice.aggregate()).transaction(&mut conn, |tx| {
    ///     let now: Account = tx.read_one(accounts::table.find(alice.id).select(Account::as_select()))?;
    ///     tx.logged_update(&now, accounts::balance.eq(now.balance - 5))
    /// })?;
    /// assert_eq!(alice.balance, -5);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn on(mut self, aggregate: impl Into<Aggregate>) -> Self {
        let aggregate = aggregate.into();
        if let Err(error) = aggregate.check() {
            self.mistake.get_or_insert(error.into());
        } else if !self.named.contains(&aggregate) {
            self.named.push(aggregate);
        }
        self
    }

    /// Counts on another aggregate, too; see [`on`](Self::on).
    pub fn and(self, aggregate: impl Into<Aggregate>) -> Self {
        self.on(aggregate)
    }

    /// Adds a value to a key of the metadata that every entry of the transaction carries. A key may
    /// get many values; they keep their order.
    ///
    /// Metadata is stored in the clear and authenticated: no secrets, no personal data.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog) = open();
    /// let import = oplog.metadata("actor", "import").metadata("file", "a.csv").metadata("file", "b.csv");
    /// let alice: Account = import.transaction(&mut conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }))?;
    ///
    /// let stored = oplog.entries(&mut conn).next().expect("one entry")?;
    /// let files: Vec<_> = stored.metadata().get("file").collect();
    /// assert_eq!(files, [Some("a.csv"), Some("b.csv")]);
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        if let Err(error) = self.metadata.push(key, value) {
            self.mistake.get_or_insert(error.into());
        }
        self
    }

    /// Adds a key without a value to the metadata.
    pub fn metadata_key(mut self, key: impl Into<String>) -> Self {
        if let Err(error) = self.metadata.push_key(key) {
            self.mistake.get_or_insert(error.into());
        }
        self
    }

    /// Runs a closure in a transaction and logs what it writes, in that same transaction.
    ///
    /// When the closure returns `Ok`, one entry for each aggregate that it wrote is sealed, the
    /// aggregates' tickets are redeemed, and everything is committed together. When it returns
    /// `Err` or panics, everything is rolled back. Nothing is logged if nothing was written.
    ///
    /// **The closure may run more than once**: if a ticket was lost, or the database could not
    /// serialise, broke a deadlock or was busy, it runs again after a short random pause, within the
    /// limits of [`OplogBuilder::attempts`](crate::OplogBuilder::attempts). Whatever it does beside
    /// writing to the transaction must bear that.
    ///
    /// # Errors
    ///
    /// The closure's own error as it came, unless the transaction is to run again;
    /// [`Error::OuterTransaction`], [`Error::Metadata`], [`Error::Aggregate`] before anything is
    /// done; [`Error::Record`] if a write failed and the closure went on; [`Error::Contention`];
    /// [`Error::Database`] if the commit is refused, for example by a deferred constraint;
    /// [`Error::CommitUnknown`] if the connection is lost while committing; [`Error::Store`] if the
    /// log's tables can't be written.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog) = open();
    /// use oplog_diesel::Error;
    ///
    /// let alice: Account = oplog.metadata("actor", "root").transaction(&mut conn, |tx| {
    ///     tx.logged_insert(NewAccount { owner: "Alice" })
    /// })?;
    ///
    /// // What the closure returns as an error comes out as it is, and nothing was written.
    /// #[derive(Debug)]
    /// enum Refused {
    ///     Overdrawn,
    ///     Log(Error),
    /// }
    ///
    /// impl From<Error> for Refused {
    ///     fn from(error: Error) -> Self {
    ///         Refused::Log(error)
    ///     }
    /// }
    ///
    /// let payment = oplog.on(alice.aggregate()).transaction(&mut conn, |tx| {
    ///     let paid = tx.logged_update(&alice, accounts::balance.eq(accounts::balance - 5))?;
    ///     if paid.balance < 0 { Err(Refused::Overdrawn) } else { Ok(paid) }
    /// });
    /// assert!(matches!(payment, Err(Refused::Overdrawn)));
    /// assert_eq!(accounts::table.find(alice.id).first(&mut conn), Ok(alice));
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn transaction<C, T, E, F>(self, conn: &mut C, body: F) -> Result<T, E>
    where
        C: Connect,
        E: From<Error>,
        F: FnMut(&mut Tx<'_, C::Connection>) -> Result<T, E>,
    {
        self.transaction_with_receipts(conn, body)
            .map(|(value, _)| value)
    }

    /// As [`transaction`](Self::transaction), and returns a receipt for each entry, in the order in
    /// which they were appended. None if nothing was written.
    ///
    /// # Errors
    ///
    /// As [`transaction`](Self::transaction).
    pub fn transaction_with_receipts<C, T, E, F>(
        self,
        conn: &mut C,
        mut body: F,
    ) -> Result<(T, Vec<Receipt>), E>
    where
        C: Connect,
        E: From<Error>,
        F: FnMut(&mut Tx<'_, C::Connection>) -> Result<T, E>,
    {
        if let Some(mistake) = self.mistake {
            return Err(mistake.into());
        }
        let conn = conn.connection();
        let started = Instant::now();
        let limits = self.oplog.retries();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.attempt(conn, started + limits.time_max, &mut body) {
                Attempt::Committed(value, receipts) => return Ok((value, receipts)),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(reason) => {
                    let elapsed = started.elapsed();
                    if attempts >= limits.attempts_max || elapsed >= limits.time_max {
                        return Err(Error::Contention {
                            attempts,
                            elapsed,
                            reason,
                        }
                        .into());
                    }
                    thread::sleep(pause(attempts));
                }
            }
        }
    }

    fn attempt<C, T, E, F>(&self, conn: &mut C, deadline: Instant, body: &mut F) -> Attempt<T, E>
    where
        C: LogConnection,
        E: From<Error>,
        F: FnMut(&mut Tx<'_, C>) -> Result<T, E>,
    {
        if let Err(failure) = begin(conn, deadline) {
            return failed(failure);
        }
        let mut progress = Progress {
            recorder: Recorder::new(self.metadata.clone(), QueueLimits::default()),
            retry: None,
            oplog: self.oplog.clone(),
            rereads: Rereads::default(),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for aggregate in &self.named {
                let head = self.oplog.head(conn, aggregate)?;
                progress.recorder.name(aggregate.clone(), head);
            }
            let value = body(&mut Tx::new(conn, &mut progress))?;
            progress.read_again(conn)?;
            Ok(value)
        }));
        let value = match outcome {
            Ok(Ok(value)) => value,
            Ok(Err(error)) => {
                rollback(conn);
                return match progress.retry {
                    Some(retry) => Attempt::Again(retry),
                    None => Attempt::Failed(error),
                };
            }
            Err(panic) => {
                rollback(conn);
                resume_unwind(panic)
            }
        };
        if let Some(retry) = progress.retry {
            // The closure went on after an error that only means "again", of a write or of a read:
            // a database that breaks a deadlock takes back the whole transaction for either.
            rollback(conn);
            return Attempt::Again(retry);
        }
        let receipts = match self.close(conn, progress.recorder) {
            Ok(receipts) => receipts,
            Err(failure) => {
                rollback(conn);
                return failed(failure);
            }
        };
        match close_with(conn, receipts) {
            Ok(receipts) => Attempt::Committed(value, receipts),
            Err(failure) => failed(failure),
        }
    }

    /// Seals and appends the entries.
    fn close<C: LogConnection>(
        &self,
        conn: &mut C,
        recorder: Recorder,
    ) -> Result<Vec<Receipt>, Failure> {
        let Some(closing) = recorder.close().map_err(Error::from)? else {
            return Ok(Vec::new());
        };
        let mut receipts = Vec::new();
        for ticket in closing.tickets() {
            // Runs again only for a ticket that somebody else created in between.
            while !self.redeem(conn, &closing, ticket, &mut receipts)? {}
        }
        Ok(receipts)
    }

    /// Locks a ticket, compares it if it was named, and appends its entries. `false` if the ticket was
    /// created by somebody else meanwhile and must be looked at again.
    fn redeem<C: LogConnection>(
        &self,
        conn: &mut C,
        closing: &Closing,
        ticket: &Ticket,
        receipts: &mut Vec<Receipt>,
    ) -> Result<bool, Failure> {
        let Some((head, exists)) = self.lock(conn, closing, ticket)? else {
            return Ok(false);
        };
        self.oplog.check_epoch(ticket.aggregate(), &head)?;
        if !ticket.holds(&head) {
            return Err(lost());
        }
        if !ticket.is_redeemed() {
            return Ok(true);
        }
        let name = ticket.aggregate().as_str();
        let key = self.oplog.primary_key()?;
        let log_id = self.oplog.log_id();
        let mut entries = closing
            .seal(ticket, &log_id, &key, now_us(), head)
            .peekable();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(Error::from)?;
            let row = Row {
                create_time: entry.created_us,
                version: oplog_core::SCHEMA as i16,
                aggregate_name: name,
                sequence: entry.receipt.sequence as i64,
                key_id: entry.key_id.as_bytes(),
                txn_id: entry.txn_id.as_ref().map(|id| id.as_bytes().as_slice()),
                metadata: closing.metadata(),
                data: &entry.data,
            };
            if entries.peek().is_some() {
                store::insert_entry(conn, &row).map_err(stored("appending an entry"))?;
            } else {
                let after = Head {
                    next_sequence: entry.receipt.sequence + 1,
                    hash: entry.receipt.entry_hash,
                    epoch: head.epoch,
                };
                let redemption = Redemption {
                    name,
                    before: head,
                    after,
                    exists,
                };
                let redeemed = C::Backend::redeem(conn, &redemption, &row)
                    .map_err(stored("redeeming a ticket and appending its entry"))?;
                match (redeemed, exists) {
                    (true, _) => {}
                    (false, false) => return Ok(false),
                    (false, true) => return Err(lost()),
                }
            }
            receipts.push(entry.receipt);
        }
        Ok(true)
    }

    /// Locks a ticket: its head, and whether there is a row of it already. A ticket that is missing
    /// stands for an aggregate without entries; if it needs no lock before its first entry, the
    /// statement that appends that entry creates it. `None` if somebody else created it meanwhile.
    fn lock<C: LogConnection>(
        &self,
        conn: &mut C,
        closing: &Closing,
        ticket: &Ticket,
    ) -> Result<Option<(Head, bool)>, Failure> {
        let name = ticket.aggregate().as_str();
        let wait = if ticket.is_named() {
            Wait::NotAtAll
        } else {
            Wait::ForIt
        };
        let locked =
            C::Backend::lock_ticket(conn, name, wait).map_err(stored("locking a ticket"))?;
        if let Locked::Ours(head) = locked {
            return Ok(Some((head, true)));
        }
        let genesis = self.oplog.genesis(ticket.aggregate());
        if ticket.is_named() && !(ticket.expects_genesis() && genesis.is_ok()) {
            // The ticket was there when its head was read: it is held by somebody, not missing.
            return Err(lost());
        }
        let head = genesis?;
        let in_one_statement =
            ticket.is_redeemed() && closing.parts(ticket) == 1 && !ticket.is_named();
        if in_one_statement || !C::Backend::LOCKS_ROWS {
            return Ok(Some((head, false)));
        }
        let created = C::Backend::create_ticket(conn, name, &head, wait)
            .map_err(stored("creating a ticket"))?;
        match (created, wait) {
            (true, _) => Ok(Some((head, true))),
            (false, Wait::ForIt) => Ok(None),
            (false, Wait::NotAtAll) => Err(lost()),
        }
    }
}

fn begin<C: LogConnection>(conn: &mut C, deadline: Instant) -> Result<(), Failure> {
    let opened = match nesting(conn).map_err(stored("looking at the connection"))? {
        Nesting::None => begin_patiently(conn, C::Backend::BEGIN, deadline),
        Nesting::Test => AnsiTransactionManager::begin_transaction(conn),
        Nesting::Outer => return Err(Error::OuterTransaction.into()),
    };
    opened.map_err(stored("opening a transaction"))
}

/// Commits, and tells what became of the transaction if that fails.
fn close_with<C: LogConnection>(
    conn: &mut C,
    receipts: Vec<Receipt>,
) -> Result<Vec<Receipt>, Failure> {
    match commit(conn) {
        Ok(()) => Ok(receipts),
        Err(error) => Err(match Retry::of(&error) {
            Some(retry) => Failure::Retry(retry),
            None if is_lost(&error) => Error::CommitUnknown { receipts }.into(),
            None => Error::Database(error).into(),
        }),
    }
}

/// Whether an error of a commit leaves open what happened: the database itself did not answer.
fn is_lost(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(kind, information) => {
            matches!(
                kind,
                DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand
            ) || information
                .message()
                .contains("server closed the connection")
                || information.message().contains("terminating connection")
        }
        DieselError::BrokenTransactionManager => true,
        DieselError::RollbackErrorOnCommit { commit_error, .. } => is_lost(commit_error),
        _ => false,
    }
}

fn failed<T, E: From<Error>>(failure: Failure) -> Attempt<T, E> {
    match failure {
        Failure::Retry(retry) => Attempt::Again(retry),
        Failure::Error(error) => Attempt::Failed(error.into()),
    }
}

fn lost() -> Failure {
    Failure::Retry(Retry::TicketLost)
}

fn stored(operation: &'static str) -> impl FnOnce(DieselError) -> Failure {
    move |error| match Retry::of(&error) {
        Some(retry) => Failure::Retry(retry),
        None => Failure::Error(Error::store(operation)(error)),
    }
}

/// The writer's clock, which no rule depends on.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
