use std::sync::Arc;
use std::time::Duration;

use oplog_core::{Aggregate, DataKey, Head, Kek, Keyring, LogId, Receipt, TransactionLimits};

use crate::cascade::Cascades;
use crate::check::{Catalogue, CheckReport};
use crate::connection::{Connect, Nesting, nesting};
use crate::entries::{Entries, Entry, StoredEntry};
use crate::frontier::Frontier;
use crate::gates::Gates;
use crate::heads::Heads;
use crate::key_source::{KeySource, KeySourceError};
use crate::model::{Model, Replayable};
use crate::replay::Replay;
use crate::store::{self, LogRow};
use crate::transaction::TransactionBuilder;
use crate::tx::Tx;
use crate::verify::{self, VerifyReport};
use crate::{Error, TypeCatalog, keys, model};

/// A log: the way to write it and to read it.
///
/// It holds the log's identity, its keys and the models it knows, but no connection: every call
/// takes one. Clones are cheap and share everything.
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// # let (mut conn, oplog) = open();
/// let writer = oplog.clone();
/// let alice: Account = writer.transaction(&mut conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }))?;
///
/// let stored = oplog.entries(&mut conn).next().expect("one entry")?;
/// let entry = oplog.open_entry(&stored)?;
/// assert_eq!(entry.messages[0].row::<Account>(), Ok(alice));
/// # Ok::<(), oplog_diesel::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Oplog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: LogRow,
    keyring: Keyring,
    catalog: TypeCatalog,
    retries: Retries,
    limits: TransactionLimits,
    creates_tickets: bool,
    heads: Heads,
    gates: Gates,
    unlogged_tables: Vec<String>,
    cascades: Cascades,
    has_deferrable_triggers: bool,
    has_rules: bool,
}

/// How often and how long a transaction is made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retries {
    pub attempts_max: u32,
    pub time_max: Duration,
}

/// What is needed to open a log. Made by [`Oplog::builder`].
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// use std::time::Duration;
/// use oplog_diesel::Error;
///
/// # let mut conn = connect();
/// # let key = oplog_diesel::Kek::generate()?;
/// # struct Given(String);
/// # impl oplog_diesel::KeySource for Given {
/// #     fn keys(&self) -> Result<Vec<oplog_diesel::Kek>, oplog_diesel::KeySourceError> {
/// #         Ok(oplog_diesel::Kek::parse_text(&self.0).unwrap())
/// #     }
/// # }
/// # let source = || Given(key.to_text().to_string());
/// oplog_diesel::run_migrations(&mut conn)?;
/// let oplog = Oplog::builder()
///     .key(source())
///     .only_named_models()
///     .model::<Account>()
///     .attempts(20, Duration::from_secs(5))
///     .open(&mut conn)?;
///
/// // A reader, which knows from its configuration which log it must be.
/// let reader = Oplog::builder().key(source()).only_named_models().expect_log(oplog.log_id());
/// assert_eq!(reader.open(&mut conn)?.log_id(), oplog.log_id());
///
/// // Another key does not open it.
/// let stranger = Oplog::builder().key(NewKey).only_named_models().open(&mut conn);
/// assert!(matches!(stranger, Err(Error::KeyNotGiven { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before `open`"]
pub struct OplogBuilder {
    keks: Result<Vec<Kek>, KeySourceError>,
    models: Vec<Model>,
    linked: bool,
    expected: Option<LogId>,
    retries: Retries,
    limits: TransactionLimits,
    creates_tickets: bool,
    unlogged_tables: Vec<String>,
    allows_undeclared: bool,
}

impl Oplog {
    /// The description of a log to open. It needs at least a key.
    pub fn builder() -> OplogBuilder {
        OplogBuilder {
            keks: Err(KeySourceError::Missing),
            models: Vec::new(),
            linked: true,
            expected: None,
            retries: Retries {
                attempts_max: 1000,
                time_max: Duration::from_secs(30),
            },
            limits: TransactionLimits::default(),
            creates_tickets: true,
            unlogged_tables: Vec::new(),
            allows_undeclared: false,
        }
    }

    /// A transaction that counts on an aggregate; see [`TransactionBuilder::on`].
    pub fn on(&self, aggregate: impl Into<Aggregate>) -> TransactionBuilder<'_> {
        TransactionBuilder::new(self).on(aggregate)
    }

    /// A transaction whose entries carry metadata; see [`TransactionBuilder::metadata`].
    pub fn metadata(
        &self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> TransactionBuilder<'_> {
        TransactionBuilder::new(self).metadata(key, value)
    }

    /// A transaction whose entries carry a key without a value; see
    /// [`TransactionBuilder::metadata_key`].
    pub fn metadata_key(&self, key: impl Into<String>) -> TransactionBuilder<'_> {
        TransactionBuilder::new(self).metadata_key(key)
    }

    /// A transaction that may be inside one of the application's; see
    /// [`TransactionBuilder::nested`].
    pub fn nested(&self) -> TransactionBuilder<'_> {
        TransactionBuilder::new(self).nested()
    }

    /// Runs a closure in a logged transaction; see [`TransactionBuilder::transaction`].
    ///
    /// # Errors
    ///
    /// As [`TransactionBuilder::transaction`].
    pub fn transaction<C, T, E, F>(&self, conn: &mut C, body: F) -> Result<T, E>
    where
        C: Connect,
        E: From<Error>,
        F: FnMut(&mut Tx<'_, C::Connection>) -> Result<T, E>,
    {
        TransactionBuilder::new(self).transaction(conn, body)
    }

    /// Runs a closure in a logged transaction and returns the receipts of its entries; see
    /// [`TransactionBuilder::transaction_with_receipts`].
    ///
    /// # Errors
    ///
    /// As [`TransactionBuilder::transaction`].
    pub fn transaction_with_receipts<C, T, E, F>(
        &self,
        conn: &mut C,
        body: F,
    ) -> Result<(T, Vec<Receipt>), E>
    where
        C: Connect,
        E: From<Error>,
        F: FnMut(&mut Tx<'_, C::Connection>) -> Result<T, E>,
    {
        TransactionBuilder::new(self).transaction_with_receipts(conn, body)
    }

    /// Whether the transaction of an [`Error::CommitUnknown`] was committed: all of its entries are
    /// in the log with their hashes, or none is.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the log can't be read.
    pub fn resolve<C: Connect>(&self, conn: &mut C, receipts: &[Receipt]) -> Result<bool, Error> {
        let conn = conn.connection();
        for receipt in receipts {
            let stored = store::envelope(conn, receipt.aggregate.as_str(), receipt.sequence as i64)
                .map_err(Error::store("reading an entry"))?;
            // A transaction is committed as a whole, so one entry would tell. All are compared
            // because it costs little and the question is asked on a bad day.
            if stored.is_none_or(|data| oplog_core::entry_hash(&data) != receipt.entry_hash) {
                return Ok(false);
            }
        }
        Ok(!receipts.is_empty())
    }

    /// The identity of the log. Readers pin it in their own configuration, with
    /// [`OplogBuilder::expect_log`].
    pub fn log_id(&self) -> LogId {
        self.inner.log.log_id
    }

    /// The incarnation of the log in which it was opened.
    pub fn epoch(&self) -> u32 {
        self.inner.log.epoch
    }

    /// The models that this log knows.
    pub fn catalog(&self) -> &TypeCatalog {
        &self.inner.catalog
    }

    /// Lists what the database does to the tables of the known models that no statement says:
    /// triggers and rules, foreign keys that act on other rows, and generated columns. Each says
    /// whether it is declared and, if not, what to write.
    ///
    /// [`OplogBuilder::open`] asks this, too, and refuses what is not declared. Triggers and foreign
    /// keys that are made later are taken note of when the log is opened the next time.
    ///
    /// Tables that do not exist in this database are passed over. What triggers of other tables do
    /// to logged ones can't be known.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the catalogue of the database can't be read.
    pub fn check<C: Connect>(&self, conn: &mut C) -> Result<CheckReport, Error> {
        let catalogue = Catalogue::read(conn.connection(), self.catalog())?;
        Ok(catalogue.report(&self.inner.unlogged_tables))
    }

    /// One head per aggregate, all read in one snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the tickets can't be read.
    pub fn frontier<C: Connect>(&self, conn: &mut C) -> Result<Frontier, Error> {
        Frontier::read(conn.connection())
    }

    /// The stored entries, in pages of bounded memory; see [`Entries`].
    pub fn entries<'c, C: Connect>(&self, conn: &'c mut C) -> Entries<'c, C::Connection> {
        Entries::new(conn.connection())
    }

    /// Opens a stored entry: checks its columns against its header, decrypts it and reads its
    /// messages.
    ///
    /// # Errors
    ///
    /// [`Error::Entry`], which says what is wrong with the entry.
    pub fn open_entry(&self, stored: &StoredEntry) -> Result<Entry, Error> {
        stored.open(&self.inner.keyring)
    }

    /// Checks the structure of the whole log: every envelope, its columns, its place in the chain,
    /// and the tickets. Needs no key.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the log can't be read. What is wrong *in* the log is in the report.
    pub fn verify_structure<C: Connect>(&self, conn: &mut C) -> Result<VerifyReport, Error> {
        verify::verify(conn.connection(), &self.inner.log, None)
    }

    /// Checks the structure of the whole log and opens every entry.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if the log can't be read. What is wrong *in* the log is in the report.
    pub fn verify_contents<C: Connect>(&self, conn: &mut C) -> Result<VerifyReport, Error> {
        verify::verify(
            conn.connection(),
            &self.inner.log,
            Some(&self.inner.keyring),
        )
    }

    /// Writes the rows of the log anew; see [`Replay`].
    pub fn replay<'c, C: Connect>(&self, source: &'c mut C) -> Replay<'_, 'c, C::Connection> {
        Replay::new(self, source.connection())
    }

    pub(crate) fn log(&self) -> &LogRow {
        &self.inner.log
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    pub(crate) fn retries(&self) -> Retries {
        self.inner.retries
    }

    pub(crate) fn transaction_limits(&self) -> TransactionLimits {
        self.inner.limits
    }

    pub(crate) fn gates(&self) -> &Gates {
        &self.inner.gates
    }

    pub(crate) fn heads(&self) -> &Heads {
        &self.inner.heads
    }

    pub(crate) fn primary_key(&self) -> Result<Arc<DataKey>, Error> {
        Ok(self.inner.keyring.primary()?)
    }

    /// The head that a missing ticket stands for.
    pub(crate) fn genesis(&self, aggregate: &Aggregate) -> Result<Head, Error> {
        if !self.inner.creates_tickets {
            return Err(Error::TicketNotFound {
                aggregate: aggregate.as_str().to_owned(),
            });
        }
        Ok(Head::genesis(
            &self.inner.log.log_id,
            aggregate.as_str(),
            self.inner.log.epoch,
        ))
    }

    /// The foreign keys that act on rows of logged tables, as they were when the log was opened.
    pub(crate) fn cascades(&self) -> &Cascades {
        &self.inner.cascades
    }

    /// Whether a trigger may fire as late as at the commit.
    pub(crate) fn has_deferrable_triggers(&self) -> bool {
        self.inner.has_deferrable_triggers
    }

    /// Whether a rule rewrites the statements on a logged table.
    pub(crate) fn has_rules(&self) -> bool {
        self.inner.has_rules
    }

    pub(crate) fn check_epoch(&self, aggregate: &Aggregate, head: &Head) -> Result<(), Error> {
        let expected = self.inner.log.epoch;
        if head.epoch == expected {
            return Ok(());
        }
        Err(Error::Epoch {
            aggregate: aggregate.as_str().to_owned(),
            expected,
            found: head.epoch,
        })
    }
}

impl OplogBuilder {
    /// The key-encryption keys that protect the log's data keys, from a
    /// [`KeyFile`](crate::KeyFile), a [`KeyEnv`](crate::KeyEnv) or a source of your own.
    pub fn key(mut self, source: impl KeySource) -> Self {
        self.keks = source.keys();
        self
    }

    /// A key-encryption key that the program holds itself, for tests and for keys from elsewhere. A
    /// second one only unwraps.
    pub fn kek(mut self, kek: Kek) -> Self {
        match &mut self.keks {
            Ok(keks) => keks.push(kek),
            Err(KeySourceError::Missing) => self.keks = Ok(vec![kek]),
            // `open` tells what was wrong with the source that was named first.
            Err(_) => {}
        }
        self
    }

    /// Registers a model. Models of crates that are linked into the program are found without it;
    /// name those that no code of the program mentions otherwise, which a linker may drop.
    pub fn model<M: Replayable>(mut self) -> Self {
        self.models.push(Model::of::<M>());
        self
    }

    /// Knows only the models that are registered with [`model`](Self::model).
    pub fn only_named_models(mut self) -> Self {
        self.linked = false;
        self
    }

    /// Refuses to open any other log than this one. The id belongs into the application's
    /// configuration: whoever owns the database could exchange it there.
    pub fn expect_log(mut self, log_id: LogId) -> Self {
        self.expected = Some(log_id);
        self
    }

    /// How often a transaction is made again, at most, and for how long. 1,000 times and 30 seconds
    /// unless set.
    pub fn attempts(mut self, attempts_max: u32, time_max: Duration) -> Self {
        self.retries = Retries {
            attempts_max: attempts_max.max(1),
            time_max,
        };
        self
    }

    /// How much one transaction may write: rows that it creates, changes or deletes, and bytes of
    /// the messages about them, which are in memory until it is closed. What exceeds a limit is
    /// [`Error::Record`] and rolled back. 10,000,000 rows and 1 GiB unless set.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
    /// use oplog_diesel::Error;
    /// use oplog_diesel::core::RecordError;
    ///
    /// # let mut conn = connect();
    /// # oplog_diesel::run_migrations(&mut conn)?;
    /// let oplog = Oplog::builder().key(NewKey).transaction_limits(2, 1 << 20)
    /// #     .only_named_models().model::<Account>()
    ///     .open(&mut conn)?;
    /// let owners = ["Alice", "Bob", "Carol"];
    /// let result: Result<Vec<Account>, _> = oplog.transaction(&mut conn, |tx| {
    ///     tx.logged_insert_many(owners.iter().map(|owner| NewAccount { owner }))
    /// });
    /// assert!(matches!(result, Err(Error::Record(RecordError::TooManyMessages { max: 2 }))));
    /// assert_eq!(accounts::table.count().get_result(&mut conn), Ok(0_i64));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn transaction_limits(mut self, rows_max: u32, bytes_max: usize) -> Self {
        self.limits = TransactionLimits {
            messages_max: rows_max,
            bytes_max,
        };
        self
    }

    /// Whether the first entry of an aggregate creates its ticket. If not, tickets must be inserted
    /// beforehand, and a write to an aggregate without one is [`Error::TicketNotFound`].
    pub fn create_tickets(mut self, create: bool) -> Self {
        self.creates_tickets = create;
        self
    }

    /// Names a table that is not logged on purpose, although a foreign key with `CASCADE`, `SET
    /// NULL` or `SET DEFAULT` ties it to a logged one: `sessions` or, with its schema,
    /// `web.sessions`. Without it, [`open`](Self::open) takes such a table for forgotten.
    pub fn unlogged_table(mut self, table: impl Into<String>) -> Self {
        self.unlogged_tables.push(table.into());
        self
    }

    /// Opens the log even if the database does things to logged tables that no model declares.
    ///
    /// For tools and readers, which write nothing, and for the time in which such things are being
    /// repaired. What a trigger or a foreign key does in a logged transaction and no model declares
    /// is not in the log, and a later replay stops there. [`Oplog::check`] tells what it is.
    pub fn allow_undeclared(mut self) -> Self {
        self.allows_undeclared = true;
        self
    }

    /// Opens the log. The first `open` of a log creates its first data key; several processes may
    /// open it at once.
    ///
    /// # Errors
    ///
    /// [`Error::KeySource`], [`Error::NotMigrated`], [`Error::NoLog`], [`Error::WrongLog`],
    /// [`Error::Undeclared`] if the database does things to logged tables that no model declares,
    /// [`Error::KeyNotGiven`], [`Error::KeysVanished`], [`Error::KeyUnwrap`], [`Error::MalformedKey`], [`Error::Catalog`],
    /// [`Error::OuterTransaction`] or [`Error::Store`].
    pub fn open<C: Connect>(self, conn: &mut C) -> Result<Oplog, Error> {
        let keks = self.keks?;
        let mut catalog = TypeCatalog::new();
        if self.linked {
            for model in model::linked() {
                catalog.register(model)?;
            }
        }
        for model in self.models {
            catalog.register(model)?;
        }
        let conn = conn.connection();
        if nesting(conn).map_err(Error::store("looking at the connection"))? == Nesting::Outer {
            return Err(Error::OuterTransaction);
        }
        crate::migrations::check(conn)?;
        let log = store::log_row(conn)
            .map_err(Error::store("reading the log's identity"))?
            .ok_or(Error::NoLog)?;
        if let Some(expected) = self.expected.filter(|expected| *expected != log.log_id) {
            return Err(Error::WrongLog {
                expected,
                found: log.log_id,
            });
        }
        let catalogue = Catalogue::read(conn, &catalog)?;
        if !self.allows_undeclared {
            let report = catalogue.report(&self.unlogged_tables);
            if !report.is_declared() {
                return Err(Error::Undeclared {
                    side_effects: report.undeclared().cloned().collect(),
                });
            }
        }
        let keyring = keys::load_or_create(conn, &log, &keks)?;
        Ok(Oplog {
            inner: Arc::new(Inner {
                log,
                keyring,
                catalog,
                retries: self.retries,
                limits: self.limits,
                creates_tickets: self.creates_tickets,
                heads: Heads::default(),
                gates: Gates::default(),
                unlogged_tables: self.unlogged_tables,
                cascades: Cascades::new(&catalogue),
                has_deferrable_triggers: catalogue.has_deferrable_triggers(),
                has_rules: catalogue.has_rules(),
            }),
        })
    }
}
