use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_core::{
    AggregateError, CatalogError, ChainError, EnvelopeError, KekId, KeyError, KeyWrapError, LogId,
    MessageError, MetadataError, OpenError, QueueError, Receipt, RecordError, RngError, RowError,
    SealError,
};

use crate::check::SideEffect;
use crate::key_source::KeySourceError;

/// What can go wrong with a log.
///
/// Errors of the application's own statements are kept as they came, in [`Error::Database`].
/// Everything else carries names, numbers and kinds, but never the content of a row or a key.
/// Unless a variant says otherwise, the transaction was rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A statement of the application's failed: a `logged_*` call, a `read` or the commit, for
    /// example by a constraint. Match on it as in any Diesel program.
    #[error("a statement failed")]
    Database(#[from] DieselError),

    /// A statement on the log's own tables failed.
    #[error("{operation} failed ({kind}{constraint})", kind = kind_text(kind), constraint = constraint_text(constraint))]
    Store {
        /// What the statement was for.
        operation: &'static str,
        /// Diesel's kind of the error, if the database reported it.
        kind: Option<DatabaseErrorKind>,
        /// The constraint that was violated.
        constraint: Option<String>,
    },

    /// The log's tables are missing, or older than this version of the crate.
    /// Call [`run_migrations`](crate::run_migrations) first.
    #[error(
        "the tables of the oplog are missing or out of date: call `oplog_diesel::run_migrations` first"
    )]
    NotMigrated,

    /// A write touched another number of rows than it must: a trigger or a rule was at work, or an
    /// insert of several rows was given to `logged_insert` instead of `logged_insert_many`.
    #[error("the statement wrote {found} rows instead of {expected}")]
    RowCount {
        /// Rows that it had to write.
        expected: usize,
        /// Rows that it returned.
        found: usize,
    },

    /// A closure that got the connection from [`Tx::read_with`](crate::Tx::read_with) or
    /// [`Tx::unlogged`](crate::Tx::unlogged) did with it what it must not. The transaction can't be
    /// committed.
    #[error("the connection was lent, and {what}")]
    Lent {
        /// What was done.
        what: LentError,
    },

    /// The connection is inside a transaction, and a logged transaction can't run its closure again
    /// inside it. Call `transaction` on a connection without one, or allow it with
    /// [`nested`](crate::Oplog::nested). Nothing was done.
    #[error("a logged transaction can't run inside another transaction")]
    OuterTransaction,

    /// Others kept writing the same aggregates, or the database stayed busy, until the attempts or
    /// the time were used up. Nothing was written. Try again later, or write smaller transactions.
    #[error("gave up after {attempts} attempts in {elapsed:?}: {reason}")]
    Contention {
        /// How often the closure ran.
        attempts: u32,
        /// How long that took.
        elapsed: Duration,
        /// Why the last attempt failed.
        reason: Retry,
    },

    /// The transaction can't hold what was written, or a write failed and the closure went on
    /// nevertheless. Nothing was committed.
    #[error("the transaction can't be logged")]
    Record(#[from] RecordError),

    /// The connection was lost while the transaction was being committed, so nobody knows yet
    /// whether it was. [`Oplog::resolve`](crate::Oplog::resolve) tells, on another connection.
    #[error("the connection was lost during the commit, which may have succeeded")]
    CommitUnknown {
        /// One receipt for each entry that the transaction wrote if it was committed.
        receipts: Vec<Receipt>,
    },

    /// The aggregate has no ticket, and creating tickets is switched off.
    #[error("there is no ticket for the aggregate `{}`", aggregate.escape_debug())]
    TicketNotFound {
        /// The aggregate.
        aggregate: String,
    },

    /// A piece of metadata can't be stored.
    #[error("the metadata can't be stored")]
    Metadata(#[from] MetadataError),

    /// The name of an aggregate can't be stored.
    #[error("the aggregate can't be used")]
    Aggregate(#[from] AggregateError),

    /// An entry could not be sealed.
    #[error("an entry could not be sealed")]
    Seal(#[from] SealError),

    /// No key was given to the builder, or it could not be read.
    #[error("the key-encryption key could not be read")]
    KeySource(#[from] KeySourceError),

    /// The log has data keys, but none is wrapped under a key that was given.
    #[error("the data keys of the log are wrapped under {}, and that key was not given", wanted.join(", ").escape_debug())]
    KeyNotGiven {
        /// The ids of the keys that would open the log.
        wanted: Vec<String>,
    },

    /// The log has entries, but no data key at all: the key tables were emptied. No new key is made;
    /// bring back `oplog_key` and `oplog_key_wrap` from a backup.
    #[error("the log has entries but no data keys: restore `oplog_key` and `oplog_key_wrap`")]
    KeysVanished,

    /// A stored data key can't be unwrapped: it was changed, or moved from another key's row.
    #[error("the data key {key_id} could not be unwrapped with {kek_id}")]
    KeyUnwrap {
        /// The data key.
        key_id: String,
        /// The key-encryption key.
        kek_id: KekId,
        /// What went wrong.
        source: KeyWrapError,
    },

    /// A data key is not there.
    #[error("a data key can't be used")]
    Key(#[from] KeyError),

    /// A row of the log's key tables does not hold what it must.
    #[error("the row of the data key {key_id} is malformed: {what}")]
    MalformedKey {
        /// The data key, in hexadecimal.
        key_id: String,
        /// What is wrong.
        what: &'static str,
    },

    /// The operating system gave no random bytes.
    #[error("no random bytes")]
    Rng(#[from] RngError),

    /// `oplog_log` does not hold exactly one row.
    #[error("the oplog has no identity: `oplog_log` must hold exactly one row")]
    NoLog,

    /// The log is not the one that was expected.
    #[error("expected the log {expected}, found {found}")]
    WrongLog {
        /// The log that the builder was told to expect.
        expected: LogId,
        /// The log in the database.
        found: LogId,
    },

    /// A ticket belongs to another incarnation of the log than this handle: the database was
    /// restored, or recovered since `open`. Open the log again.
    #[error(
        "the ticket of `{}` is of epoch {found}, the log was opened in epoch {expected}",
        aggregate.escape_debug()
    )]
    Epoch {
        /// The aggregate.
        aggregate: String,
        /// The epoch this handle was opened in.
        expected: u32,
        /// The epoch of the ticket.
        found: u32,
    },

    /// The database does things to logged tables that no statement says and no model declares, so
    /// that log and rows would differ. Each of them says what to write. The log was not opened.
    #[error(
        "the database does more to logged tables than the statements say:{}",
        lines(side_effects)
    )]
    Undeclared {
        /// All of them; see [`Oplog::check`](crate::Oplog::check).
        side_effects: Vec<SideEffect>,
    },

    /// Rows below a deleted or moved one refer to each other in a circle by keys that act, so that
    /// there is no order in which none takes another with it. Break the circle first, by a logged
    /// update that sets one of the references to `NULL`. Nothing was written.
    #[error("rows below the one of type `{type_name}` refer to each other in a circle")]
    CascadeCircle {
        /// Stored name of the type of the row that was to be deleted or moved.
        type_name: &'static str,
    },

    /// A row moved, since its primary key, its root or a column that foreign keys refer to changed,
    /// and it can't be told what became of the rows below it: one statement moved several rows to
    /// other keys, or a trigger moved the row. Move rows one by one. The transaction can't be
    /// committed.
    #[error("a row of type `{type_name}` moved, and the rows below it can't be told apart")]
    Moved {
        /// Stored name of the row's type.
        type_name: &'static str,
    },

    /// Two models can't be in one catalog.
    #[error("the models can't be registered together")]
    Catalog(#[from] CatalogError),

    /// A stored entry is not what it must be.
    #[error("entry {sequence} of `{}` is not intact", aggregate.escape_debug())]
    Entry {
        /// The aggregate, as the column says.
        aggregate: String,
        /// The sequence, as the column says.
        sequence: u64,
        /// What is wrong.
        source: EntryError,
    },

    /// A message was not read as what it is: its type has another model, or the model can't hold its
    /// values.
    #[error("the message can't be read as this model")]
    Message(#[from] MessageError),

    /// The log and the rows it was applied to differ. Nothing was applied.
    #[error(
        "replay diverged at entry {sequence} of `{}`: {what} (table {table}, key {})",
        aggregate.escape_debug(), key.escape_debug()
    )]
    Diverged {
        /// The aggregate of the entry.
        aggregate: String,
        /// The sequence of the entry.
        sequence: u64,
        /// The table that was written.
        table: String,
        /// The primary key of the row.
        key: String,
        /// What differs.
        what: Divergence,
    },

    /// The target of a replay is not ready. Nothing was changed.
    #[error("the table {table} can't be replayed into: {what}")]
    Target {
        /// The table.
        table: String,
        /// What is in the way, and what to do.
        what: TargetError,
    },
}

/// What is wrong with a stored entry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The bytes are no envelope.
    #[error("its envelope can't be read")]
    Envelope(#[from] EnvelopeError),
    /// A column of the row differs from the authenticated header.
    #[error("the column `{column}` differs from the header")]
    Column {
        /// The SQL name of the column.
        column: &'static str,
    },
    /// The stored metadata can't be read.
    #[error("its metadata can't be read")]
    Metadata(#[from] MetadataError),
    /// The entry does not continue the one before it.
    #[error("it does not continue the chain")]
    Chain(#[source] Box<ChainError>),
    /// The data key of the entry is not there.
    #[error("its data key is not there")]
    Key(#[from] KeyError),
    /// The envelope does not open: the entry was changed, or sealed with another key.
    #[error("it could not be opened")]
    Open(#[from] OpenError),
    /// The queue inside can't be read.
    #[error("its messages can't be read")]
    Queue(#[source] Box<QueueError>),
    /// A message can't be read as a row of its model.
    #[error("message {index} can't be read")]
    Message {
        /// Position in the entry, from 0.
        index: usize,
        /// What is wrong.
        source: MessageError,
    },
    /// A message is of a type that no registered model has.
    #[error("message {index} is of an unknown type")]
    Type {
        /// Position in the entry, from 0.
        index: usize,
        /// The type.
        source: CatalogError,
    },
    /// Entries of one transaction are missing.
    #[error(
        "its transaction is not complete: {found} of {expected} entries are below the frontier"
    )]
    Group {
        /// Entries found.
        found: usize,
        /// Entries the transaction wrote.
        expected: usize,
    },
    /// The messages of one transaction are not numbered as they must be.
    #[error("the messages of its transaction are not numbered without gaps")]
    Ordinals,
    /// The ticket of the aggregate names another hash than that of its last entry.
    #[error("the ticket of its aggregate names another hash")]
    Ticket,
    /// Entries below the frontier are missing.
    #[error("it is missing")]
    Missing,
}

// Boxed where they would make every `Result` of this crate large.
impl From<ChainError> for EntryError {
    fn from(error: ChainError) -> Self {
        EntryError::Chain(Box::new(error))
    }
}

impl From<QueueError> for EntryError {
    fn from(error: QueueError) -> Self {
        EntryError::Queue(Box::new(error))
    }
}

/// How the rows of a replay's target differ from the log.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Divergence {
    /// The row to change or delete is not there.
    #[error("the row is not there")]
    NotFound,
    /// The row to change or delete holds other values than the log says.
    #[error("the row holds other values in {}", columns.join(", "))]
    Differs {
        /// The columns.
        columns: Vec<&'static str>,
    },
    /// The target stored other values than it was given.
    #[error("the target changed the values of {} on the way in", columns.join(", "))]
    Changed {
        /// The columns.
        columns: Vec<&'static str>,
    },
    /// The target refused the row.
    #[error(
        "the target refused the row ({}{})",
        kind_text(kind),
        constraint_text(constraint)
    )]
    Refused {
        /// Diesel's kind of the error; `None` if a value could not be bound or read back.
        kind: Option<DatabaseErrorKind>,
        /// The constraint that was violated.
        constraint: Option<String>,
    },
    /// A column can't be stored on the target's database.
    #[error("the column `{column}` can't be stored on this database")]
    Unsupported {
        /// The column.
        column: &'static str,
    },
}

/// What a closure did with a connection that was lent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LentError {
    /// It opened a transaction and left it open, or ended one that it had not opened.
    #[error("the closure left it in another transaction")]
    Transaction,
    /// It wrote, though it was to read. Write with `logged_*`, or with `unlogged`.
    #[error("the closure wrote, though it was to read")]
    Wrote,
}

/// Why a table can't be replayed into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// There is no such table.
    #[error("it does not exist; run your own migrations on the target first")]
    Missing,
    /// The table has rows.
    #[error("it is not empty")]
    NotEmpty,
    /// Triggers or rules would change what is written.
    #[error("the triggers or rules {} would change what is written; drop or disable them on the target", names.join(", "))]
    Triggers {
        /// Their names.
        names: Vec<String>,
    },
    /// It does not hold as many rows as the log says: a foreign key of the target deleted some that
    /// the log still has.
    #[error(
        "it holds {found} rows in the end and the log {expected}: do foreign keys of the target act \
         where those of the log's own database do not?"
    )]
    Rows {
        /// Rows that it must hold.
        expected: u64,
        /// Rows that it holds.
        found: u64,
    },
    /// A logged column is not there.
    #[error("it has no column `{column}`")]
    NoColumn {
        /// The column.
        column: &'static str,
    },
    /// The suffix can't be used.
    #[error("the suffix is empty")]
    NoSuffix,
}

/// Why an attempt of a logged transaction was taken back to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Retry {
    /// Somebody else wrote a named aggregate meanwhile, or was about to.
    #[error("somebody else wrote the same aggregate")]
    TicketLost,
    /// The database could not serialise the transaction.
    #[error("the database could not serialise the transaction")]
    Serialization,
    /// The database broke a deadlock.
    #[error("the database broke a deadlock")]
    Deadlock,
    /// The database is locked by another connection.
    #[error("the database is busy")]
    Busy,
}

/// What PostgreSQL says to whom it chose to break a deadlock, by the language of its messages: English,
/// German, Spanish, French, Italian, Japanese, Georgian, Korean, Russian, Swedish, Ukrainian, Chinese.
const DEADLOCK_MESSAGES: [&str; 12] = [
    "deadlock detected",
    "Verklemmung (Deadlock) entdeckt",
    "se ha detectado un deadlock",
    "interblocage (deadlock) détecté",
    "rilevato deadlock",
    "デッドロックを検出しました",
    "ნაპოვნია ურთიერთბლოკირება",
    "deadlock 발생했음",
    "обнаружена взаимоблокировка",
    "deadlock upptäckt",
    "виявлено взаємне блокування",
    "检测到死锁",
];

impl Retry {
    /// Whether an error of the database means that the same transaction may succeed if it is made
    /// again.
    ///
    /// Diesel reports neither SQLSTATE nor result codes, so deadlocks and busy databases are known
    /// by their messages, those of PostgreSQL in each language that it has them in.
    pub fn of(error: &DieselError) -> Option<Self> {
        match error {
            DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => {
                Some(Retry::Serialization)
            }
            DieselError::DatabaseError(_, information) => match information.message() {
                message if DEADLOCK_MESSAGES.contains(&message) => Some(Retry::Deadlock),
                "database is locked" | "database table is locked" | "database schema is locked" => {
                    Some(Retry::Busy)
                }
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<RowError> for Error {
    fn from(source: RowError) -> Self {
        Error::Message(MessageError::Row { source })
    }
}

impl Error {
    /// A failure of one of our own statements, reduced to what can't carry a row's values.
    pub(crate) fn store(operation: &'static str) -> impl FnOnce(DieselError) -> Error {
        move |error| {
            let (kind, constraint) = reduce(&error);
            Error::Store {
                operation,
                kind,
                constraint,
            }
        }
    }

    /// Whether the same call may succeed if it is made again later: others were in the way.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Contention { .. } => true,
            Error::Database(error) => Retry::of(error).is_some(),
            Error::Store { kind, .. } => {
                matches!(kind, Some(DatabaseErrorKind::SerializationFailure))
            }
            _ => false,
        }
    }
}

/// Kind and constraint of a database error: all of it that can't carry a row's values.
pub(crate) fn reduce(error: &DieselError) -> (Option<DatabaseErrorKind>, Option<String>) {
    match error {
        DieselError::DatabaseError(kind, information) => (
            Some(*kind),
            information.constraint_name().map(str::to_owned),
        ),
        _ => (None, None),
    }
}

fn lines(side_effects: &[SideEffect]) -> String {
    let lines = side_effects.iter().map(|effect| format!("\n- {effect}"));
    lines.collect()
}

fn kind_text(kind: &Option<DatabaseErrorKind>) -> String {
    match kind {
        Some(kind) => format!("{kind:?}"),
        None => "a value could not be sent or read".to_owned(),
    }
}

fn constraint_text(constraint: &Option<String>) -> String {
    match constraint {
        Some(name) => format!(", constraint `{name}`"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::{DatabaseErrorKind, Error as DieselError};

    use super::{Error, Retry};

    #[test]
    fn what_is_worth_another_run_is_known_by_its_message() {
        let of = |message: &str| {
            let information = Box::new(message.to_owned());
            let error = DieselError::DatabaseError(DatabaseErrorKind::Unknown, information);
            Retry::of(&error)
        };
        assert_eq!(of("deadlock detected"), Some(Retry::Deadlock));
        assert_eq!(of("обнаружена взаимоблокировка"), Some(Retry::Deadlock));
        assert_eq!(of("database is locked"), Some(Retry::Busy));
        assert_eq!(of("no deadlock detected"), None);
        assert_eq!(of("permission denied"), None);
    }

    // Clippy warns the application about every function that returns a larger one.
    const _: () = assert!(size_of::<Error>() < 128);
}
