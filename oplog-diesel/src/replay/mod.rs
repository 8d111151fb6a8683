//! The rows of a log, written anew.

mod apply;
mod ops;
mod order;
pub(crate) mod statement;
mod table;

use std::panic::resume_unwind;
use std::thread;

use diesel::QueryResult;
use oplog_core::Message;

use crate::backend::LogBackend;
use crate::connection::{Connect, LogConnection, in_transaction};
use crate::entries::OpenedEntry;
use crate::store::{self, StoredRow};
use crate::{Error, Frontier, Oplog, TargetError};

use apply::Applier;
pub use apply::ReplayReport;
pub use ops::{AnyRow, Ops, TableOps};
use order::{Order, Place};
pub use table::{Column, TableName, table_of};

/// A replay that is being described: the log's messages are applied, in order, to empty tables.
///
/// A replay is strict. An insert must insert, an update or delete must find exactly the row that
/// the log says was there, and the target must hold exactly the values it was given. Whatever
/// differs is an [`Error::Diverged`] that names the entry, the table and the key.
///
/// A replay is one transaction, the tables it creates included: it ends complete, or it leaves the
/// target as it was.
///
/// Every entry's place in the chain is checked on the way, and the last one of each aggregate
/// against its ticket.
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// # let (mut conn, oplog, alice) = open_with_alice();
/// let frontier = oplog.frontier(&mut conn)?;
/// let mut shown = 0;
/// let report = oplog
///     .replay(&mut conn)
///     .up_to(&frontier)
///     .progress(|progress| shown = progress.entries)
///     .into_suffix("_replay")?;
/// assert_eq!((report.entries, report.messages, report.rows), (1, 1, 1));
/// assert_eq!(shown, 1);
/// # Ok::<(), oplog_diesel::Error>(())
/// ```
#[must_use = "nothing happens before `into_suffix` or `into_database`"]
pub struct Replay<'o, 'c, C> {
    oplog: &'o Oplog,
    source: &'c mut C,
    frontier: Option<Frontier>,
    progress: Progress<'o>,
}

type Progress<'o> = Option<Box<dyn FnMut(&ReplayProgress) + 'o>>;

/// How far a replay has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayProgress {
    /// Entries applied.
    pub entries: u64,
    /// Entries below the frontier.
    pub entries_total: u64,
    /// Messages applied.
    pub messages: u64,
}

impl<'o, 'c, C: LogConnection> Replay<'o, 'c, C> {
    pub(crate) fn new(oplog: &'o Oplog, source: &'c mut C) -> Self {
        Replay {
            oplog,
            source,
            frontier: None,
            progress: None,
        }
    }

    /// Applies only what is below a frontier. Without one, everything that is committed when the
    /// replay begins.
    pub fn up_to(mut self, frontier: &Frontier) -> Self {
        self.frontier = Some(frontier.clone());
        self
    }

    /// Calls `progress` after each entry.
    pub fn progress(mut self, progress: impl FnMut(&ReplayProgress) + 'o) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Replays into copies of the tables in the same database, named after the originals with a
    /// suffix. Copies that do not exist are created, with the keys, constraints and defaults of the
    /// originals, generators of their own, and the foreign keys among them. Triggers are not copied,
    /// neither are foreign keys to tables that are not logged.
    ///
    /// On SQLite, foreign keys to tables that are not logged stay and are checked if the connection
    /// checks foreign keys.
    ///
    /// # Errors
    ///
    /// [`Error::Target`] if a copy exists and is not empty, or does not hold as many rows as the log in
    /// the end; [`Error::Diverged`]; [`Error::Entry`] if an entry of the log is not intact;
    /// [`Error::OuterTransaction`], [`Error::Store`].
    pub fn into_suffix(self, suffix: &str) -> Result<ReplayReport, Error> {
        if suffix.is_empty() {
            return Err(Error::Target {
                table: "to create".to_owned(),
                what: TargetError::NoSuffix,
            });
        }
        let Replay {
            oplog,
            source,
            frontier,
            mut progress,
        } = self;
        in_transaction(
            source,
            C::Backend::BEGIN,
            "opening a transaction for the replay",
            |conn| {
                let frontier = frontier.map_or_else(|| Frontier::read_all(conn), Ok)?;
                let applier = Applier::into_suffix(conn, oplog, suffix)?;
                replay(
                    oplog,
                    conn,
                    |conn, after| store::page_by_id(conn, after),
                    &frontier,
                    applier,
                    &mut progress,
                )
            },
        )
    }

    /// Replays into the tables of another database, on which the application's own migrations were
    /// run. It may be another kind of database; see the crate's documentation for what survives the
    /// way.
    ///
    /// Triggers and rules of the target that its models declare are switched off for the length of
    /// the replay, since what they do is in the log; the user of the connection must be allowed to.
    /// Others are refused.
    ///
    /// # Errors
    ///
    /// [`Error::Target`] if a table is missing, is not empty, has triggers that no model declares, or
    /// does not hold as many rows as the log in the end; [`Error::Diverged`], also if the target can't
    /// hold a value as it is; [`Error::Entry`] if an entry of the log is not intact;
    /// [`Error::OuterTransaction`], [`Error::Store`].
    pub fn into_database<T: Connect>(self, target: &mut T) -> Result<ReplayReport, Error> {
        type BackendOf<T> = <<T as Connect>::Connection as diesel::Connection>::Backend;
        let Replay {
            oplog,
            source,
            frontier,
            mut progress,
        } = self;
        let frontier = frontier.map_or_else(|| Frontier::read_all(source), Ok)?;
        let target = target.connection();
        in_transaction(
            target,
            BackendOf::<T>::BEGIN,
            "opening a transaction for the replay",
            |target| {
                let applier = Applier::into_database(target, oplog)?;
                replay(
                    oplog,
                    target,
                    |_, after| store::page_by_id(source, after),
                    &frontier,
                    applier,
                    &mut progress,
                )
            },
        )
    }
}

impl<C> std::fmt::Debug for Replay<'_, '_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay")
            .field("frontier", &self.frontier)
            .finish_non_exhaustive()
    }
}

/// Applies the entries below a frontier. `page` reads the entries after an id, from the target's own
/// connection or another one.
///
/// Opening entries costs about as much as applying them, so the next page is opened and put in order
/// in a second thread while this one is applied.
fn replay<T: LogConnection>(
    oplog: &Oplog,
    target: &mut T,
    mut page: impl FnMut(&mut T, i64) -> QueryResult<Vec<StoredRow>>,
    frontier: &Frontier,
    mut applier: Applier<T::Backend>,
    progress: &mut Progress<'_>,
) -> Result<ReplayReport, Error> {
    // Counted once: there may be as many aggregates as entries.
    let entries_total = frontier.entries();
    // Ids are positive, but whoever owns the database may have changed one.
    let mut after = i64::MIN;
    let mut next_page = |target: &mut T| -> Result<Option<Vec<StoredRow>>, Error> {
        let rows = page(target, after).map_err(Error::store("reading the entries"))?;
        Ok(rows.last().map(|last| last.id).map(|last| {
            after = last;
            rows
        }))
    };
    let mut entries = 0;
    let mut apply = |target: &mut T, page: &mut OrderedPage| -> Result<(), Error> {
        for messages in &page.entries {
            for (place, message) in messages {
                applier.apply(target, place, message)?;
            }
            entries += 1;
            if let Some(progress) = progress {
                progress(&ReplayProgress {
                    entries,
                    entries_total,
                    messages: applier.messages(),
                });
            }
        }
        page.failed.take().map_or(Ok(()), Err)
    };
    let order = thread::scope(|scope| {
        let mut order = Order::new(oplog.log(), frontier);
        let mut page = OrderedPage::default();
        let mut applied = OrderedPage::default();
        let mut unopened = next_page(target)?;
        // The log may grow while it is read: what was asked for ends at the frontier.
        while order.entries() < entries_total
            && let Some(rows) = unopened.take()
        {
            let opening = scope.spawn(move || {
                // Each thread frees what it allocated: freeing what the other one did makes both
                // wait for one lock of the allocator.
                drop(applied);
                let (page, order) = OrderedPage::open(oplog, frontier, order, &rows);
                (page, order, rows)
            });
            apply(target, &mut page)?;
            unopened = next_page(target)?;
            applied = page;
            let opened = opening.join().unwrap_or_else(|panic| resume_unwind(panic));
            (page, order) = (opened.0, opened.1);
        }
        apply(target, &mut page)?;
        Ok::<_, Error>(order)
    })?;
    let entries = order.entries();
    order.finish()?;
    applier.finish(target, entries)
}

/// A page of entries, opened, with their messages in the order in which they are applied.
#[derive(Default)]
struct OrderedPage {
    /// The messages whose turn has come with each entry.
    entries: Vec<Vec<(Place, Message)>>,
    /// What is wrong with the entry after these.
    failed: Option<Error>,
}

impl OrderedPage {
    /// Opens rows up to the first that is not intact.
    fn open<'a>(
        oplog: &Oplog,
        frontier: &Frontier,
        mut order: Order<'a>,
        rows: &[StoredRow],
    ) -> (Self, Order<'a>) {
        let mut page = OrderedPage {
            entries: Vec::with_capacity(rows.len()),
            failed: None,
        };
        for row in rows.iter().filter(|row| frontier.wants(row)) {
            match OpenedEntry::read(row, oplog.keyring()).and_then(|entry| order.take(entry)) {
                Ok(messages) => page.entries.push(messages),
                Err(error) => {
                    page.failed = Some(error);
                    break;
                }
            }
        }
        (page, order)
    }
}
