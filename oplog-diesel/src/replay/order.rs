use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oplog_core::{Aggregate, ChainCheck, Message, TxnId, short_name};

use crate::entries::{OpenedEntry, header_error};
use crate::store::{self, LogRow};
use crate::{EntryError, Error, Frontier};

/// Where a message stands in the log.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    // Shared by the messages of an entry.
    pub aggregate: Arc<Aggregate>,
    pub sequence: u64,
    /// The transaction, if it wrote several entries.
    pub txn_id: Option<TxnId>,
    /// Position in the entry, from 0.
    pub index: usize,
}

impl Place {
    /// Whether one transaction wrote both messages.
    pub fn is_of_the_transaction_of(&self, other: &Place) -> bool {
        match (self.txn_id, other.txn_id) {
            (Some(one), Some(other)) => one == other,
            _ => self.aggregate == other.aggregate && self.sequence == other.sequence,
        }
    }
}

/// Puts the messages of entries, which come in the order of their ids, into the order in which they
/// happened.
///
/// An entry's id is drawn after the last write of its transaction, so whatever depends on a
/// committed row has a larger id than all entries of the transaction that wrote it. Entries of one
/// transaction may be interleaved with those of others, which then do not depend on each other;
/// their messages are put together by their ordinals. A message is passed on as soon as all before
/// it have been, so that a large transaction split into many entries needs no more memory than one
/// of them.
pub(crate) struct Order<'a> {
    log: &'a LogRow,
    frontier: &'a Frontier,
    chain: ChainCheck,
    groups: HashMap<TxnId, Group>,
    entries: u64,
}

struct Group {
    // For the message about a group that is not complete.
    place: Place,
    parts: usize,
    found: usize,
    next_ordinal: u32,
    waiting: BTreeMap<u32, (Place, Message)>,
}

impl<'a> Order<'a> {
    pub fn new(log: &'a LogRow, frontier: &'a Frontier) -> Self {
        Order {
            log,
            frontier,
            chain: ChainCheck::new(log.log_id),
            groups: HashMap::new(),
            entries: 0,
        }
    }

    /// Entries taken so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Takes an entry and gives the messages whose turn it is.
    pub fn take(&mut self, entry: OpenedEntry) -> Result<Vec<(Place, Message)>, Error> {
        let OpenedEntry {
            header,
            entry_hash,
            messages,
        } = entry;
        let error = |source| header_error(&header, source);
        self.chain
            .feed(&header, entry_hash)
            .map_err(|source| error(source.into()))?;
        self.entries += 1;
        let aggregate: Arc<Aggregate> = Arc::new(header.aggregate.clone());
        let place = |index| Place {
            aggregate: Arc::clone(&aggregate),
            sequence: header.sequence,
            txn_id: header.group.map(|group| group.txn_id),
            index,
        };
        let messages = messages
            .into_iter()
            .enumerate()
            .map(|(index, message)| (place(index), message));
        let Some(group) = header.group else {
            let messages: Vec<_> = messages.collect();
            return match messages
                .iter()
                .all(|(_, message)| message.ordinal.is_none())
            {
                true => Ok(messages),
                false => Err(error(EntryError::Ordinals)),
            };
        };
        let parts = usize::from(group.parts);
        let state = self.groups.entry(group.txn_id).or_insert_with(|| Group {
            place: place(0),
            parts,
            found: 0,
            next_ordinal: 0,
            waiting: BTreeMap::new(),
        });
        state.found += 1;
        if state.parts != parts || state.found > parts {
            return Err(error(EntryError::Group {
                found: state.found,
                expected: parts,
            }));
        }
        for (place, message) in messages {
            let ordinal = message
                .ordinal
                .filter(|ordinal| *ordinal >= state.next_ordinal);
            let repeated = match ordinal {
                Some(ordinal) => state.waiting.insert(ordinal, (place, message)).is_some(),
                None => true,
            };
            if repeated {
                return Err(error(EntryError::Ordinals));
            }
        }
        let mut ready = Vec::new();
        while let Some(next) = state.waiting.remove(&state.next_ordinal) {
            ready.push(next);
            state.next_ordinal += 1;
        }
        if state.found == state.parts {
            let gap = !state.waiting.is_empty();
            self.groups.remove(&group.txn_id);
            if gap {
                return Err(error(EntryError::Ordinals));
            }
        }
        Ok(ready)
    }

    /// Checks that nothing below the frontier was missing, and that the chains end where the
    /// tickets say.
    pub fn finish(self) -> Result<(), Error> {
        for (aggregate, last) in self.frontier.iter() {
            let genesis = store::genesis(self.log, aggregate.as_str());
            let end = self
                .chain
                .head(aggregate.as_str())
                .copied()
                .unwrap_or(genesis);
            let error = |sequence, source| Error::Entry {
                aggregate: short_name(aggregate.as_str()),
                sequence,
                source,
            };
            if end.next_sequence != last.saturating_add(1) {
                return Err(error(end.next_sequence, EntryError::Missing));
            }
            if self
                .frontier
                .head(aggregate.as_str())
                .is_some_and(|head| head.hash != end.hash)
            {
                return Err(error(last, EntryError::Ticket));
            }
        }
        if let Some(group) = self.groups.into_values().next() {
            return Err(Error::Entry {
                aggregate: group.place.aggregate.as_str().to_owned(),
                sequence: group.place.sequence,
                source: EntryError::Group {
                    found: group.found,
                    expected: group.parts,
                },
            });
        }
        Ok(())
    }
}
