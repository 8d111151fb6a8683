use std::collections::BTreeMap;

use oplog_core::{Aggregate, Head};

use crate::backend::LogBackend;
use crate::connection::{LogConnection, load_one};
use crate::entries::entry_error;
use crate::statement::{Statement, statements};
use crate::store::StoredRow;
use crate::{EntryError, Error, store};

statements! {
    SelectStray = "SELECT e.aggregate_name, e.sequence FROM oplog_entry AS e LEFT JOIN oplog_ticket AS t ON t.name = e.aggregate_name WHERE t.name IS NULL OR e.sequence >= t.version ORDER BY e.aggregate_name, e.sequence LIMIT 1";
}

/// A cut through the log: for each aggregate, the entries below it.
///
/// Read from the tickets in one snapshot, it never cuts through a transaction. Made by hand with
/// [`at`](Self::at), it may, and a replay up to it says so.
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// # let (mut conn, oplog, alice) = open_with_alice();
/// let before = oplog.frontier(&mut conn)?;
/// oplog.transaction(&mut conn, |tx| tx.logged_update(&alice, accounts::balance.eq(7)))?;
/// let after = oplog.frontier(&mut conn)?;
///
/// assert_eq!((before.entries(), after.entries()), (1, 2));
/// assert!(!before.contains("account:1", 2));
/// let heads: Vec<_> = after.iter().map(|(name, last)| (name.as_str(), last)).collect();
/// assert_eq!(heads, [("account:1", 2)]);
/// # Ok::<(), oplog_diesel::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    // The sequence that is the first not below the cut, and the head if it is known.
    cuts: BTreeMap<Aggregate, Cut>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    next_sequence: u64,
    head: Option<Head>,
}

impl Frontier {
    /// The cut right after these entries: aggregates with the last sequence below the cut.
    /// Aggregates that are not named have no entries below it.
    ///
    /// # Examples
    ///
    /// ```
    /// use oplog_diesel::Frontier;
    ///
    /// let frontier = Frontier::at([("account:42", 7)]);
    /// assert!(frontier.contains("account:42", 7));
    /// assert!(!frontier.contains("account:42", 8));
    /// assert!(!frontier.contains("account:43", 1));
    /// assert_eq!(frontier.entries(), 7);
    /// ```
    pub fn at<A: Into<Aggregate>>(last: impl IntoIterator<Item = (A, u64)>) -> Self {
        let cut = |sequence: u64| Cut {
            next_sequence: sequence.saturating_add(1),
            head: None,
        };
        Frontier {
            cuts: last
                .into_iter()
                .map(|(name, sequence)| (name.into(), cut(sequence)))
                .collect(),
        }
    }

    pub(crate) fn read<C: LogConnection>(conn: &mut C) -> Result<Self, Error> {
        // One statement is one snapshot.
        let tickets = store::tickets(conn).map_err(Error::store("reading the tickets"))?;
        let cut = |head: Head| Cut {
            next_sequence: head.next_sequence,
            head: Some(head),
        };
        Ok(Frontier {
            cuts: tickets
                .into_iter()
                .map(|(name, head)| (name, cut(head)))
                .collect(),
        })
    }

    /// The cut after everything that is committed. An entry beyond the ticket of its aggregate, or
    /// without one, is an error: what relies on the tickets would pass it over.
    pub(crate) fn read_all<C: LogConnection>(conn: &mut C) -> Result<Self, Error> {
        // A ticket and its entry are committed together, so one statement sees both or none.
        let stray = load_one(conn, Statement::<SelectStray>::new(&[]), |row| {
            Ok((
                C::Backend::read_text(row, 0)?.unwrap_or_default(),
                C::Backend::read_i64(row, 1)?,
            ))
        });
        match stray.map_err(Error::store("comparing the entries with the tickets"))? {
            None => Self::read(conn),
            Some(place) => Err(entry_error(place, EntryError::Ticket)),
        }
    }

    /// The head of an aggregate at the cut, if the frontier was read from a log.
    pub fn head(&self, aggregate: &str) -> Option<&Head> {
        self.cuts.get(aggregate)?.head.as_ref()
    }

    /// Whether an entry is below the cut.
    pub fn contains(&self, aggregate: &str, sequence: u64) -> bool {
        self.cuts
            .get(aggregate)
            .is_some_and(|cut| sequence < cut.next_sequence)
    }

    /// Whether the entry of a stored row is below the cut, as its columns say.
    pub(crate) fn wants(&self, row: &StoredRow) -> bool {
        u64::try_from(row.sequence)
            .is_ok_and(|sequence| self.contains(&row.aggregate_name, sequence))
    }

    /// How many entries are below the cut.
    pub fn entries(&self) -> u64 {
        self.cuts
            .values()
            .map(|cut| cut.next_sequence.saturating_sub(1))
            .fold(0, u64::saturating_add)
    }

    /// The aggregates with their last sequence below the cut, 0 for none, in byte order.
    pub fn iter(&self) -> impl Iterator<Item = (&Aggregate, u64)> {
        self.cuts
            .iter()
            .map(|(name, cut)| (name, cut.next_sequence.saturating_sub(1)))
    }
}
