use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;

use oplog_core::{Aggregate, ChainCheck, Keyring, short_name};

use crate::backend::LogBackend;
use crate::connection::{LogConnection, in_transaction};
use crate::entries::{Entries, StoredEntry, entry_error};
use crate::store::{self, LogRow};
use crate::{EntryError, Error};

/// What a check of the log found.
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// # let (mut conn, oplog, alice) = open_with_alice();
/// let report = oplog.verify_structure(&mut conn)?;
/// assert!(report.is_intact());
/// assert_eq!((report.entries, report.aggregates), (1, 1));
///
/// // Somebody renumbers the ticket.
/// diesel::sql_query("UPDATE oplog_ticket SET version = 1").execute(&mut conn).unwrap();
/// for finding in oplog.verify_structure(&mut conn)?.findings {
///     println!("{finding}");
/// #   assert!(matches!(finding, oplog_diesel::Finding::Ticket { ticket: 1, entries: 2, .. }));
/// }
/// # Ok::<(), oplog_diesel::Error>(())
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Entries that were looked at.
    pub entries: u64,
    /// Aggregates with a ticket.
    pub aggregates: u64,
    /// Everything that is not as it must be. Empty for an intact log.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it must be. `Display` tells all of it in one line, causes included;
/// control characters in the names are escaped, since whoever tampers chooses them.
#[derive(Debug)]
#[non_exhaustive]
pub enum Finding {
    /// An entry is not intact.
    Entry {
        /// The aggregate, as the column says.
        aggregate: String,
        /// The sequence, as the column says.
        sequence: u64,
        /// What is wrong.
        source: EntryError,
    },
    /// A ticket is not where the entries of its aggregate end.
    Ticket {
        /// The aggregate.
        aggregate: String,
        /// The next sequence, as the ticket says; 0 if there is no ticket.
        ticket: u64,
        /// The next sequence, as the entries say.
        entries: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Entry {
                aggregate,
                sequence,
                source,
            } => {
                write!(f, "entry {sequence} of `{}`", aggregate.escape_debug())?;
                let mut cause: Option<&dyn StdError> = Some(source);
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
            Finding::Ticket {
                aggregate,
                ticket,
                entries,
            } => write!(
                f,
                "the ticket of `{}` expects entry {ticket}, its entries end before {entries}, \
                 or its hash or epoch differs",
                aggregate.escape_debug()
            ),
        }
    }
}

impl VerifyReport {
    /// Whether everything is as it must be.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Checks every entry, in one snapshot. With keys it opens them, too.
pub(crate) fn verify<C: LogConnection>(
    conn: &mut C,
    log: &LogRow,
    keyring: Option<&Keyring>,
) -> Result<VerifyReport, Error> {
    in_transaction(
        conn,
        C::Backend::BEGIN_SNAPSHOT,
        "opening a snapshot of the log",
        |conn| {
            let tickets: BTreeMap<Aggregate, _> = store::tickets(conn)
                .map_err(Error::store("reading the tickets"))?
                .into_iter()
                .collect();
            let mut report = VerifyReport {
                aggregates: tickets.len() as u64,
                ..VerifyReport::default()
            };
            let mut chain = ChainCheck::new(log.log_id);
            // From 0, which stands for a sequence that is no number of an entry.
            let mut entries = Entries::new(conn).from_sequence(0);
            while let Some(row) = entries.next_row() {
                let row = row?;
                report.entries += 1;
                let place = (row.aggregate_name.clone(), row.sequence);
                if let Err(source) = check(row, &mut chain, keyring) {
                    report.finding(entry_error(place, source));
                }
            }
            for (aggregate, ticket) in &tickets {
                let genesis = store::genesis(log, aggregate.as_str());
                let head = chain.head(aggregate.as_str()).copied().unwrap_or(genesis);
                // No writer gives a ticket an epoch before its last entry's or after the log's.
                let epochs =
                    chain.head(aggregate.as_str()).map_or(0, |head| head.epoch)..=log.epoch;
                let same = (head.next_sequence, head.hash) == (ticket.next_sequence, ticket.hash);
                if !same || !epochs.contains(&ticket.epoch) {
                    report.findings.push(Finding::Ticket {
                        aggregate: short_name(aggregate.as_str()),
                        ticket: ticket.next_sequence,
                        entries: head.next_sequence,
                    });
                }
            }
            for (aggregate, head) in chain.heads() {
                if !tickets.contains_key(aggregate) {
                    report.findings.push(Finding::Ticket {
                        aggregate: short_name(aggregate.as_str()),
                        ticket: 0,
                        entries: head.next_sequence,
                    });
                }
            }
            Ok(report)
        },
    )
}

fn check(
    row: store::StoredRow,
    chain: &mut ChainCheck,
    keyring: Option<&Keyring>,
) -> Result<(), EntryError> {
    let stored = StoredEntry::check(row)?;
    chain.feed(stored.header(), stored.entry_hash())?;
    if let Some(keyring) = keyring {
        stored.messages(keyring)?;
    }
    Ok(())
}

impl VerifyReport {
    fn finding(&mut self, error: Error) {
        if let Error::Entry {
            aggregate,
            sequence,
            source,
        } = error
        {
            self.findings.push(Finding::Entry {
                aggregate,
                sequence,
                source,
            });
        }
    }
}
