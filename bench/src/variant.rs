//! What a variant is: one way to write some rows in one transaction.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use oplog_diesel::{Oplog, TransactionBuilder};

use crate::model::Member;

/// Why a run ends.
pub type Failure = Box<dyn Error + Send + Sync>;
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The baseline of all ratios: Diesel with every statement in its cache, in a transaction.
pub const PLAIN_CACHED: &str = "plain, cached";
/// The same as most people write it, with Diesel's defaults: nothing is cached.
pub const PLAIN_AS_WRITTEN: &str = "plain, as written";
/// The same with one statement for each row.
pub const PLAIN_ONE_BY_ONE: &str = "plain, cached, one by one";
/// The same without `BEGIN` and `COMMIT`.
pub const PLAIN_AUTOCOMMIT: &str = "plain, cached, autocommit";
/// The original's protection, and the baseline for what late tickets gain.
pub const OPTIMISTIC: &str = "on (optimistic)";

/// The metadata of every entry, as an application would have it.
pub const METADATA: [(&str, &str); 3] = [
    ("actor", "u_1234567890"),
    ("request", "4f1c9b0e-7d52-4c38"),
    ("resource", "member"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Insert,
    Update,
    Delete,
}

impl Operation {
    pub const ALL: [Self; 3] = [Self::Insert, Self::Update, Self::Delete];

    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// Which log a variant claims to write. It is checked before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    Nothing,
    /// One entry in the log of this project.
    Entry,
    /// One entry in the tables of the original, with its metadata, and a redeemed ticket.
    Original,
    /// A row for each row, by a trigger.
    Trigger,
}

/// Which aggregates the rows of a variant are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teams {
    /// All in one that exists.
    One,
    /// Each transaction in a new one.
    New,
}

pub struct Variant<C> {
    pub name: &'static str,
    pub writes: Writes,
    pub teams: Teams,
    /// What its ratios divide by, in a record each.
    pub baselines: &'static [&'static str],
    /// Runs one transaction.
    pub run: Run<C>,
}

pub type Run<C> = fn(At<'_, C>) -> Result<()>;

impl<C> Variant<C> {
    fn new(name: &'static str, writes: Writes, run: Run<C>) -> Self {
        Variant {
            name,
            writes,
            teams: Teams::One,
            baselines: &[PLAIN_CACHED],
            run,
        }
    }

    pub fn unlogged(name: &'static str, run: Run<C>) -> Self {
        Self::new(name, Writes::Nothing, run)
    }

    pub fn logged(name: &'static str, run: Run<C>) -> Self {
        Self::new(name, Writes::Entry, run)
    }

    pub fn original(run: Run<C>) -> Self {
        Self::new("the original's protocol", Writes::Original, run)
    }

    pub fn trigger(name: &'static str, run: Run<C>) -> Self {
        Self::new(name, Writes::Trigger, run)
    }

    pub fn in_new_teams(mut self) -> Self {
        self.teams = Teams::New;
        self
    }

    pub fn against(mut self, baselines: &'static [&'static str]) -> Self {
        self.baselines = baselines;
        self
    }
}

/// Everything one transaction of a variant has.
pub struct At<'a, C> {
    pub conn: &'a mut C,
    pub oplog: &'a Oplog,
    /// The rows to insert, or those to change or delete as they are stored. Their ids follow each
    /// other.
    pub rows: &'a [Member],
    /// The age to set: another one each time, so that every update changes something.
    pub age: i32,
    pub inside: &'a Inside,
}

impl<'a, C> At<'a, C> {
    /// A logged transaction with metadata and late tickets.
    pub fn late(&self) -> TransactionBuilder<'a> {
        let [(key, value), rest @ ..] = METADATA;
        rest.iter()
            .fold(self.oplog.metadata(key, value), |builder, (key, value)| {
                builder.metadata(*key, *value)
            })
    }

    /// The same, which counts on the aggregate of the rows.
    pub fn named(&self) -> TransactionBuilder<'a> {
        use oplog_diesel::prelude::Oplogged;
        self.rows
            .first()
            .map_or_else(|| self.late(), |row| self.late().on(row.aggregate()))
    }

    /// The first and the last id of the rows.
    pub fn ids(&self) -> (i64, i64) {
        ids(self.rows)
    }
}

/// The first and the last id of rows that follow each other.
pub fn ids(rows: &[Member]) -> (i64, i64) {
    match rows {
        [first, .., last] => (first.id, last.id),
        [only] => (only.id, only.id),
        [] => (0, 0),
    }
}

/// What an application does within its transaction, and how often it had to.
pub struct Inside {
    work: Duration,
    runs: AtomicU64,
    stop: AtomicBool,
}

impl Inside {
    pub fn new(work: Duration) -> Self {
        Inside {
            work,
            runs: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// The application's work. Refused when the time is over, so that a transaction that has been
    /// tried in vain for long ends.
    pub fn work(&self) -> Result<()> {
        if self.is_over() {
            return Err(Over.into());
        }
        self.runs.fetch_add(1, Ordering::Relaxed);
        thread::sleep(self.work);
        Ok(())
    }

    /// How often a transaction came as far as this.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The time of a block is over.
#[derive(Debug)]
pub struct Over;

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the time of the block is over")
    }
}

impl Error for Over {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_ends_with_the_block() {
        let inside = Inside::new(Duration::ZERO);
        assert!(inside.work().is_ok());
        inside.end();
        assert!(inside.work().is_err_and(|failure| failure.is::<Over>()));
        assert_eq!(inside.runs(), 1);
    }
}
