use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_core::{
    Aggregate, Closing, Head, Metadata, QueueLimits, Receipt, Recorder, Ticket, TicketMode,
};

use crate::backend::{Locked, LogBackend, Wait};
use crate::connection::{
    Connect, LogConnection, Nesting, begin_patiently, commit, depth, guarded, nesting, opening,
    pause, rollback_to,
};
use crate::gates::Pass;
use crate::heads::Heads;
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
    metadata: Arc<Metadata>,
    nested: bool,
    // The first mistake, kept until there is somebody to tell.
    mistake: Option<Error>,
}

/// What became of one attempt.
enum Attempt<T, E> {
    Committed(T, Vec<Receipt>),
    Failed(E),
    Again(Retry, Place),
}

/// Why a transaction could not be opened or closed.
pub(crate) enum Failure {
    Retry(Retry),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl<'o> TransactionBuilder<'o> {
    pub(crate) fn oplog(&self) -> &'o Oplog {
        self.oplog
    }

    pub(crate) fn named(&self) -> &[Aggregate] {
        &self.named
    }

    pub(crate) fn given_metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// Whether `transaction` will refuse to begin.
    pub(crate) fn has_mistake(&self) -> bool {
        self.mistake.is_some()
    }

    pub(crate) fn new(oplog: &'o Oplog) -> Self {
        TransactionBuilder {
            oplog,
            named: Vec::new(),
            metadata: Arc::default(),
            nested: false,
            mistake: None,
        }
    }

    /// Counts on an aggregate: if anybody else writes it before this transaction is committed,
    /// everything is rolled back and the closure runs again.
    ///
    /// The models of an aggregate may say `#[oplog(ticket = "lock_first")]`. Then its ticket is locked
    /// here, before the closure runs: others who write the aggregate wait, and nobody runs again.
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
        if let Err(error) = Arc::make_mut(&mut self.metadata).push(key, value) {
            self.mistake.get_or_insert(error.into());
        }
        self
    }

    /// Adds a key without a value to the metadata.
    pub fn metadata_key(mut self, key: impl Into<String>) -> Self {
        if let Err(error) = Arc::make_mut(&mut self.metadata).push_key(key) {
            self.mistake.get_or_insert(error.into());
        }
        self
    }

    /// Allows the connection to be inside a transaction of the application's, which is refused
    /// otherwise. This transaction is a savepoint in it then: its rows and entries are committed or
    /// rolled back with the outer one, and its tickets stay locked until then.
    ///
    /// **Its closure runs once.** What would make it run again is [`Error::Contention`] after one
    /// attempt; run the outer transaction again. In PostgreSQL's isolation levels above READ COMMITTED
    /// that may happen with every writer of the same aggregate.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// # let (mut conn, oplog) = open();
    /// use oplog_diesel::Error;
    ///
    /// let alice = conn.transaction(|conn| {
    ///     let refused: Result<Account, _> = oplog.transaction(conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }));
    ///     assert!(matches!(refused, Err(Error::OuterTransaction)));
    ///     oplog.nested().transaction(conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }))
    /// })?;
    /// assert_eq!(accounts::table.first(&mut conn), Ok::<Account, _>(alice));
    /// # Ok::<(), oplog_diesel::Error>(())
    /// ```
    pub fn nested(mut self) -> Self {
        self.nested = true;
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
                Attempt::Again(reason, place) => {
                    let elapsed = started.elapsed();
                    if place == Place::Nested
                        || attempts >= limits.attempts_max
                        || elapsed >= limits.time_max
                    {
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
        let outer = depth(conn);
        let place = match self.begin(conn, deadline) {
            Ok(place) => place,
            Err(failure) => return failed(failure, Place::Top),
        };
        let limits = self.oplog.transaction_limits();
        let mut progress = Progress {
            recorder: Recorder::new(Arc::clone(&self.metadata), limits, QueueLimits::default()),
            retry: None,
            oplog: self.oplog.clone(),
            rereads: Rereads::default(),
        };
        // What an outer transaction wrote is not committed, and so not known to the cache.
        let heads = (C::Backend::CACHES_HEADS && place == Place::Top).then(|| self.oplog.heads());
        let prepared = guarded(conn, outer, |conn| {
            self.prepare(conn, &mut progress.recorder, heads)
        });
        if let Err(failure) = prepared {
            rollback_to(conn, outer);
            return failed(failure, place);
        }
        let outcome = guarded(conn, outer, |conn| {
            let value = body(&mut Tx::new(conn, &mut progress))?;
            progress.read_again(conn)?;
            Ok(value)
        });
        let value = match (outcome, progress.retry) {
            (Ok(value), None) => value,
            (Err(error), None) => {
                rollback_to(conn, outer);
                return Attempt::Failed(error);
            }
            // Also if the closure went on after an error that only means "again", of a write or of a
            // read: a database that breaks a deadlock takes back the whole transaction for either.
            (_, Some(retry)) => {
                rollback_to(conn, outer);
                return Attempt::Again(retry, place);
            }
        };
        // Until the next one may know what this one has committed.
        let mut passes = Vec::new();
        let closed = guarded(conn, outer, |conn| {
            let receipts = self.close(conn, progress.recorder, heads, &mut passes)?;
            commit_as(conn, place, receipts)
        });
        match closed {
            Ok(receipts) => {
                if let Some(heads) = heads {
                    heads.committed(&receipts, self.oplog.epoch());
                }
                Attempt::Committed(value, receipts)
            }
            Err(failure) => {
                rollback_to(conn, outer);
                failed(failure, place)
            }
        }
    }

    fn begin<C: LogConnection>(&self, conn: &mut C, deadline: Instant) -> Result<Place, Failure> {
        let nesting = nesting(conn).map_err(stored("looking at the connection"))?;
        let place = match nesting {
            Nesting::None => Place::Top,
            Nesting::Test => Place::Test,
            Nesting::Outer if self.nested => Place::Nested,
            Nesting::Outer => return Err(Error::OuterTransaction.into()),
        };
        let opened = opening(conn, |conn| match place {
            Place::Top => begin_patiently(conn, C::Backend::BEGIN, deadline),
            Place::Test | Place::Nested => AnsiTransactionManager::begin_transaction(conn),
        });
        opened.map_err(stored("opening a transaction"))?;
        Ok(place)
    }

    /// Locks the tickets that are locked first, and then learns the heads of the other named ones:
    /// after a wait for a lock they would be old.
    fn prepare<C: LogConnection>(
        &self,
        conn: &mut C,
        recorder: &mut Recorder,
        heads: Option<&Heads>,
    ) -> Result<(), Failure> {
        if let Some(witness) = self.named.first() {
            recorder.witness(witness.clone());
        }
        let (mut first, optimistic): (Vec<_>, Vec<_>) = self
            .named
            .iter()
            .partition(|aggregate| self.oplog.catalog().locks_first(aggregate));
        first.sort_unstable();
        for aggregate in first {
            let (head, exists) = self.hold(conn, aggregate)?;
            recorder.hold(aggregate.clone(), head, exists);
        }
        for aggregate in optimistic {
            let head = match heads.and_then(|heads| heads.trusted(aggregate)) {
                Some(head) => head,
                None => self.read_head(conn, aggregate, heads)?,
            };
            recorder.name(aggregate.clone(), head);
        }
        Ok(())
    }

    /// Locks a ticket, waiting for it, and creates it if it is missing: its head, and whether there is
    /// a row of it.
    fn hold<C: LogConnection>(
        &self,
        conn: &mut C,
        aggregate: &Aggregate,
    ) -> Result<(Head, bool), Failure> {
        let name = aggregate.as_str();
        loop {
            let locked = C::Backend::lock_ticket(conn, name, Wait::ForIt)
                .map_err(stored("locking a ticket"))?;
            if let Locked::Ours(head) = locked {
                self.oplog.check_epoch(aggregate, &head)?;
                return Ok((head, true));
            }
            let head = self.oplog.genesis(aggregate)?;
            if !C::Backend::LOCKS_ROWS {
                return Ok((head, false));
            }
            if C::Backend::create_ticket(conn, name, &head, Wait::ForIt)
                .map_err(stored("creating a ticket"))?
            {
                return Ok((head, true));
            }
        }
    }

    /// The head of an aggregate as it is now, without a lock.
    fn read_head<C: LogConnection>(
        &self,
        conn: &mut C,
        aggregate: &Aggregate,
        heads: Option<&Heads>,
    ) -> Result<Head, Failure> {
        let head = store::ticket(conn, aggregate.as_str()).map_err(stored("reading a ticket"))?;
        let Some(head) = head else {
            return Ok(self.oplog.genesis(aggregate)?);
        };
        if let Some(heads) = heads {
            heads.read(aggregate, head);
        }
        Ok(head)
    }

    /// Seals and appends the entries.
    fn close<C: LogConnection>(
        &self,
        conn: &mut C,
        recorder: Recorder,
        heads: Option<&Heads>,
        passes: &mut Vec<Pass<'o>>,
    ) -> Result<Vec<Receipt>, Failure> {
        let Some(closing) = recorder.close().map_err(Error::from)? else {
            return Ok(Vec::new());
        };
        let mut receipts = Vec::new();
        for ticket in closing.tickets() {
            if heads.is_some() && *ticket.mode() == TicketMode::Late {
                passes.push(self.oplog.gates().enter(ticket.aggregate()));
            }
            // Runs again only for a ticket that somebody else created in between.
            while !self.redeem(conn, &closing, ticket, heads, &mut receipts)? {}
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
        heads: Option<&Heads>,
        receipts: &mut Vec<Receipt>,
    ) -> Result<bool, Failure> {
        let aggregate = ticket.aggregate();
        if let Some(presumed) = self.presumed::<C::Backend>(closing, ticket, heads) {
            self.oplog.check_epoch(aggregate, &presumed.head)?;
            if self.append(conn, closing, ticket, &presumed, receipts)? {
                return Ok(true);
            }
            if let Some(heads) = heads {
                heads.missed(aggregate);
            }
            if !matches!(ticket.mode(), TicketMode::Late) {
                return Err(lost());
            }
        }
        let Some(locked) = self.lock(conn, closing, ticket)? else {
            return Ok(false);
        };
        self.oplog.check_epoch(aggregate, &locked.head)?;
        if let Some(heads) = heads.filter(|_| locked.exists) {
            heads.read(aggregate, locked.head);
        }
        if !ticket.holds(&locked.head) {
            return Err(lost());
        }
        if !ticket.is_redeemed() {
            return Ok(true);
        }
        let appended = self.append(conn, closing, ticket, &locked, receipts)?;
        if !appended && locked.exists {
            return Err(lost());
        }
        Ok(appended)
    }

    /// The head that a ticket is redeemed with before it was locked: the statement that appends the
    /// entry compares it. Only for one entry, since the first of several would be appended before the
    /// comparison.
    fn presumed<DB: LogBackend>(
        &self,
        closing: &Closing,
        ticket: &Ticket,
        heads: Option<&Heads>,
    ) -> Option<Target> {
        if let TicketMode::LockFirst { head, exists } = *ticket.mode() {
            return ticket.is_redeemed().then_some(Target {
                head,
                exists,
                wait: Wait::ForIt,
            });
        }
        if closing.parts(ticket) != 1 {
            return None;
        }
        let (head, wait) = match *ticket.mode() {
            TicketMode::Optimistic { head } => (head, Wait::NotAtAll),
            _ => (heads?.trusted(ticket.aggregate())?, Wait::ForIt),
        };
        // At its first entry a ticket may be missing.
        (head.next_sequence > 1).then_some(Target {
            head,
            exists: true,
            wait,
        })
    }

    /// Seals the entries of a ticket on a head, appends them and redeems the ticket. `false` if it has
    /// another head, or is held and must not be waited for; then nothing was written, if there is one
    /// entry only or the ticket is locked.
    fn append<C: LogConnection>(
        &self,
        conn: &mut C,
        closing: &Closing,
        ticket: &Ticket,
        target: &Target,
        receipts: &mut Vec<Receipt>,
    ) -> Result<bool, Failure> {
        let name = ticket.aggregate().as_str();
        let key = self.oplog.primary_key()?;
        let log_id = self.oplog.log_id();
        let mut entries = closing
            .seal(ticket, &log_id, &key, now_us(), target.head)
            .peekable();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(Error::from)?;
            let row = Row::of(&entry, closing);
            if entries.peek().is_some() {
                store::insert_entry(conn, &row).map_err(stored("appending an entry"))?;
            } else {
                let redemption = Redemption {
                    name,
                    before: target.head,
                    // Not `advance`: these may be several entries.
                    after: Head {
                        next_sequence: entry.receipt.sequence + 1,
                        hash: entry.receipt.entry_hash,
                        epoch: target.head.epoch,
                    },
                    exists: target.exists,
                    wait: target.wait,
                };
                if !C::Backend::redeem(conn, &redemption, &row)
                    .map_err(stored("redeeming a ticket and appending its entry"))?
                {
                    return Ok(false);
                }
            }
            receipts.push(entry.receipt);
        }
        Ok(true)
    }

    /// Locks a ticket. One that is missing stands for an aggregate without entries; if it needs no
    /// lock before its first entry, the statement that appends that entry creates it. `None` if
    /// somebody else created it meanwhile.
    fn lock<C: LogConnection>(
        &self,
        conn: &mut C,
        closing: &Closing,
        ticket: &Ticket,
    ) -> Result<Option<Target>, Failure> {
        let name = ticket.aggregate().as_str();
        let (wait, expected) = match ticket.mode() {
            TicketMode::Late => (Wait::ForIt, None),
            TicketMode::Optimistic { head } | TicketMode::LockFirst { head, .. } => {
                (Wait::NotAtAll, Some(head))
            }
        };
        let target = |head, exists| Target {
            head,
            exists,
            wait: Wait::ForIt,
        };
        let locked =
            C::Backend::lock_ticket(conn, name, wait).map_err(stored("locking a ticket"))?;
        if let Locked::Ours(head) = locked {
            return Ok(Some(target(head, true)));
        }
        let genesis = self.oplog.genesis(ticket.aggregate());
        if expected.is_some_and(|head| head.next_sequence > 1 || genesis.is_err()) {
            // The ticket was there when its head was read: it is held by somebody, not missing.
            return Err(lost());
        }
        let head = genesis?;
        let in_one_statement =
            ticket.is_redeemed() && closing.parts(ticket) == 1 && expected.is_none();
        if in_one_statement || !C::Backend::LOCKS_ROWS {
            return Ok(Some(target(head, false)));
        }
        let created = C::Backend::create_ticket(conn, name, &head, wait)
            .map_err(stored("creating a ticket"))?;
        match (created, wait) {
            (true, _) => Ok(Some(target(head, true))),
            (false, Wait::ForIt) => Ok(None),
            (false, Wait::NotAtAll) => Err(lost()),
        }
    }
}

/// Where a logged transaction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It is a transaction of its own.
    Top,
    /// It is a savepoint in Diesel's test transaction.
    Test,
    /// It is a savepoint in a transaction of the application's.
    Nested,
}

/// A ticket about to be redeemed.
#[derive(Clone, Copy, Debug)]
struct Target {
    head: Head,
    /// Whether there is a row of the ticket.
    exists: bool,
    /// Whether to wait if somebody else holds it.
    wait: Wait,
}

/// Commits, and tells what became of the transaction if that fails.
fn commit_as<C: LogConnection>(
    conn: &mut C,
    place: Place,
    receipts: Vec<Receipt>,
) -> Result<Vec<Receipt>, Failure> {
    match commit(conn) {
        Ok(()) => Ok(receipts),
        Err(error) => Err(match Retry::of(&error) {
            Some(retry) => Failure::Retry(retry),
            // A savepoint is not committed without the transaction around it.
            None if is_lost(&error) && place == Place::Top && !receipts.is_empty() => {
                Error::CommitUnknown { receipts }.into()
            }
            None => Error::Database(error).into(),
        }),
    }
}

/// Whether an error of a commit leaves open what happened: the database itself did not answer.
pub(crate) fn is_lost(error: &DieselError) -> bool {
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

fn failed<T, E: From<Error>>(failure: Failure, place: Place) -> Attempt<T, E> {
    match failure {
        Failure::Retry(retry) => Attempt::Again(retry, place),
        Failure::Error(error) => Attempt::Failed(error.into()),
    }
}

fn lost() -> Failure {
    Failure::Retry(Retry::TicketLost)
}

pub(crate) fn stored(operation: &'static str) -> impl FnOnce(DieselError) -> Failure {
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
