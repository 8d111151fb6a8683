use std::collections::BTreeMap;

use crate::{Aggregate, Hash, Header, LogId, genesis};

/// Where an aggregate's chain ends: what the next entry must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The sequence that the next entry gets, from 1.
    pub next_sequence: u64,
    /// Hash of the last entry, or the genesis hash if there is none.
    pub hash: Hash,
    /// Incarnation of the log that the last entry was written in.
    pub epoch: u32,
}

/// Checks that entries continue each other: nothing missing, moved, repeated or replaced.
///
/// Works without keys. Feed it the entries of each aggregate in the order of their sequence;
/// aggregates may be mixed. After a finding it goes on from the entry as it is, so that one break
/// is reported once and later ones are still found. What it can't know is whether entries are
/// missing at the *end*: compare [`head`](Self::head) with the ticket for that.
///
/// Source: `FORMAT.md`, section "Chain".
#[derive(Clone, Debug)]
pub struct ChainCheck {
    log_id: LogId,
    heads: BTreeMap<Aggregate, Head>,
}

/// An entry that does not continue its aggregate's chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The entry belongs to another log. The chain goes on without it.
    #[error(
        "entry {sequence} of `{}` belongs to log {found}, not to {expected}",
        aggregate.as_str().escape_debug()
    )]
    WrongLog {
        /// The aggregate.
        aggregate: Aggregate,
        /// The sequence of the entry.
        sequence: u64,
        /// The log that is being read.
        expected: LogId,
        /// The log that the entry names.
        found: LogId,
    },
    /// Entries are missing in front of this one.
    #[error(
        "`{}` jumps to entry {found}, expected was {expected}",
        aggregate.as_str().escape_debug()
    )]
    SequenceGap {
        /// The aggregate.
        aggregate: Aggregate,
        /// The first missing sequence.
        expected: u64,
        /// The sequence that came instead.
        found: u64,
    },
    /// A sequence that was there already. The chain goes on without the entry.
    #[error(
        "`{}` has entry {found} again, expected was {expected}",
        aggregate.as_str().escape_debug()
    )]
    Duplicate {
        /// The aggregate.
        aggregate: Aggregate,
        /// The sequence that should have come.
        expected: u64,
        /// The sequence that came again.
        found: u64,
    },
    /// The entry names another predecessor than the one that stands before it.
    #[error(
        "entry {sequence} of `{}` follows {found}, the entry before is {expected}",
        aggregate.as_str().escape_debug()
    )]
    ChainBroken {
        /// The aggregate.
        aggregate: Aggregate,
        /// The sequence of the entry.
        sequence: u64,
        /// Hash of the entry that stands before it.
        expected: Hash,
        /// Hash that it names.
        found: Hash,
    },
    /// The entry was written in an older incarnation of the log than the one before it.
    #[error(
        "entry {sequence} of `{}` is of epoch {found}, after one of {expected}",
        aggregate.as_str().escape_debug()
    )]
    EpochRegress {
        /// The aggregate.
        aggregate: Aggregate,
        /// The sequence of the entry.
        sequence: u64,
        /// Epoch of the entry before.
        expected: u32,
        /// Epoch of the entry.
        found: u32,
    },
}

impl Head {
    /// The head of an aggregate that has no entries.
    #[must_use]
    pub fn genesis(log_id: &LogId, aggregate: &str, epoch: u32) -> Self {
        Self {
            next_sequence: 1,
            hash: genesis(log_id, aggregate),
            epoch,
        }
    }

    /// The head after an entry with this hash was appended in the same epoch.
    #[must_use]
    pub fn advance(self, entry_hash: Hash) -> Self {
        Self {
            // One entry per nanosecond would take 584 years to get there.
            next_sequence: self.next_sequence.saturating_add(1),
            hash: entry_hash,
            epoch: self.epoch,
        }
    }
}

impl ChainCheck {
    /// Begins in front of the first entry of every aggregate.
    ///
    /// The log id must come from the reader's own configuration.
    #[must_use]
    pub fn new(log_id: LogId) -> Self {
        Self {
            log_id,
            heads: BTreeMap::new(),
        }
    }

    /// Begins an aggregate at a head that was checked before, instead of at its first entry.
    pub fn resume(&mut self, aggregate: Aggregate, head: Head) {
        self.heads.insert(aggregate, head);
    }

    /// Checks one entry and gives back the first thing that is wrong with it.
    ///
    /// # Errors
    ///
    /// [`ChainError::WrongLog`], [`ChainError::SequenceGap`], [`ChainError::Duplicate`],
    /// [`ChainError::ChainBroken`] or [`ChainError::EpochRegress`], in this order.
    pub fn feed(&mut self, header: &Header, entry_hash: Hash) -> Result<(), ChainError> {
        match self.findings(header, entry_hash).into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Checks one entry and gives back everything that is wrong with it.
    pub fn findings(&mut self, header: &Header, entry_hash: Hash) -> Vec<ChainError> {
        let aggregate = &header.aggregate;
        let (sequence, log_id) = (header.sequence, self.log_id);
        if header.log_id != log_id {
            return vec![ChainError::WrongLog {
                aggregate: aggregate.clone(),
                sequence,
                expected: log_id,
                found: header.log_id,
            }];
        }
        let head = match self.heads.get(aggregate.as_str()) {
            Some(head) => *head,
            None => Head::genesis(&log_id, aggregate.as_str(), 0),
        };
        let expected = head.next_sequence;
        if sequence < expected {
            let aggregate = aggregate.clone();
            return vec![ChainError::Duplicate {
                aggregate,
                expected,
                found: sequence,
            }];
        }
        let mut findings = Vec::new();
        if sequence > expected {
            let aggregate = aggregate.clone();
            findings.push(ChainError::SequenceGap {
                aggregate,
                expected,
                found: sequence,
            });
        }
        if header.previous != head.hash {
            findings.push(ChainError::ChainBroken {
                aggregate: aggregate.clone(),
                sequence,
                expected: head.hash,
                found: header.previous,
            });
        }
        if header.epoch < head.epoch {
            findings.push(ChainError::EpochRegress {
                aggregate: aggregate.clone(),
                sequence,
                expected: head.epoch,
                found: header.epoch,
            });
        }
        let next = Head {
            next_sequence: sequence.saturating_add(1),
            hash: entry_hash,
            epoch: head.epoch.max(header.epoch),
        };
        match self.heads.get_mut(aggregate.as_str()) {
            Some(head) => *head = next,
            None => _ = self.heads.insert(aggregate.clone(), next),
        }
        findings
    }

    /// Where the aggregate's chain stands, if it had an entry or was resumed.
    #[must_use]
    pub fn head(&self, aggregate: &str) -> Option<&Head> {
        self.heads.get(aggregate)
    }

    /// Where every chain stands, in byte order of the aggregates.
    pub fn heads(&self) -> impl Iterator<Item = (&Aggregate, &Head)> {
        self.heads.iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        DataKey, Envelope, EnvelopeLimits, Metadata, NewHeader, SCHEMA, SEQUENCE_MAX, seal,
    };

    const LOG: LogId = LogId::from_bytes([1; 16]);

    fn entry(log_id: LogId, aggregate: &str, head: Head) -> (Header, Hash) {
        let aggregate = Aggregate::new(aggregate);
        let header = NewHeader {
            log_id,
            epoch: head.epoch,
            schema: SCHEMA,
            sequence: head.next_sequence,
            created_us: 0,
            previous: head.hash,
            metadata_hash: Metadata::new().hash(),
            aggregate: &aggregate,
            group: None,
        };
        let bytes = seal(&header, b"", &DataKey::generate().unwrap()).unwrap();
        let envelope = Envelope::parse(&bytes, &EnvelopeLimits::default()).unwrap();
        (envelope.header().clone(), envelope.entry_hash())
    }

    /// The entries of one aggregate, and the head behind them.
    fn chain(aggregate: &str, len: usize) -> (Vec<(Header, Hash)>, Head) {
        let mut head = Head::genesis(&LOG, aggregate, 1);
        let mut entries = Vec::new();
        for _ in 0..len {
            let (header, hash) = entry(LOG, aggregate, head);
            head = head.advance(hash);
            entries.push((header, hash));
        }
        (entries, head)
    }

    fn check(entries: &[&(Header, Hash)], expected: &[&str]) {
        let mut check = ChainCheck::new(LOG);
        let found: Vec<_> = entries
            .iter()
            .flat_map(|(header, hash)| check.findings(header, *hash))
            .map(|error| match error {
                ChainError::WrongLog { sequence, .. } => format!("wrong log {sequence}"),
                ChainError::SequenceGap {
                    expected, found, ..
                } => format!("gap {expected} {found}"),
                ChainError::Duplicate {
                    expected, found, ..
                } => {
                    format!("duplicate {expected} {found}")
                }
                ChainError::ChainBroken { sequence, .. } => format!("broken {sequence}"),
                ChainError::EpochRegress { sequence, .. } => format!("epoch {sequence}"),
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_honest_chain_has_no_findings() {
        let (a, head) = chain("a", 3);
        let (b, _) = chain("b", 2);
        check(&[&a[0], &b[0], &a[1], &b[1], &a[2]], &[]);
        let mut check = ChainCheck::new(LOG);
        for (header, hash) in &a {
            check.feed(header, *hash).unwrap();
        }
        assert_eq!(check.head("a"), Some(&head));
        assert_eq!(check.head("b"), None);
        assert_eq!(check.heads().count(), 1);
    }

    #[test]
    fn a_check_resumes_at_a_head() {
        let (a, _) = chain("a", 3);
        let (_, head) = (&a[0], Head::genesis(&LOG, "a", 1).advance(a[0].1));
        let mut check = ChainCheck::new(LOG);
        check.resume(Aggregate::new("a"), head);
        assert_eq!(check.feed(&a[1].0, a[1].1), Ok(()));
    }

    #[test]
    fn a_missing_entry_is_found_once() {
        let (a, _) = chain("a", 5);
        check(&[&a[0], &a[2], &a[3]], &["gap 2 3", "broken 3"]);
        check(&[&a[1], &a[2]], &["gap 1 2", "broken 2"]);
    }

    #[test]
    fn repeated_and_swapped_entries_are_found() {
        let (a, _) = chain("a", 3);
        check(&[&a[0], &a[0], &a[1]], &["duplicate 2 1"]);
        check(
            &[&a[0], &a[2], &a[1]],
            &["gap 2 3", "broken 3", "duplicate 4 2"],
        );
    }

    #[test]
    fn nothing_repeats_after_the_largest_sequence() {
        let last = Head {
            next_sequence: SEQUENCE_MAX,
            ..Head::genesis(&LOG, "a", 1)
        };
        let (header, hash) = entry(LOG, "a", last);
        let mut check = ChainCheck::new(LOG);
        check.resume(Aggregate::new("a"), last);
        assert_eq!(check.feed(&header, hash), Ok(()));
        assert_eq!(check.head("a"), Some(&last.advance(hash)));
        let again = ChainError::Duplicate {
            aggregate: Aggregate::new("a"),
            expected: SEQUENCE_MAX + 1,
            found: SEQUENCE_MAX,
        };
        assert_eq!(check.feed(&header, hash), Err(again));
    }

    #[test]
    fn a_replaced_entry_is_found() {
        let (a, _) = chain("a", 3);
        let (other, _) = chain("a", 3);
        // The replacement itself fits only as the first one, its successor never does.
        check(&[&other[0], &a[1], &a[2]], &["broken 2"]);
        check(&[&a[0], &other[1], &a[2]], &["broken 2", "broken 3"]);
        // A changed body changes the hash and thereby the link behind it.
        let changed = (a[0].0.clone(), Hash::from_bytes([0; 32]));
        check(&[&changed, &a[1], &a[2]], &["broken 2"]);
    }

    #[test]
    fn an_entry_of_another_log_or_aggregate_is_found() {
        let (a, _) = chain("a", 2);
        let foreign = entry(LogId::from_bytes([2; 16]), "a", Head::genesis(&LOG, "a", 1));
        check(&[&foreign, &a[0], &a[1]], &["wrong log 1"]);
        let moved = entry(LOG, "b", Head::genesis(&LOG, "a", 1));
        check(&[&moved], &["broken 1"]);
    }

    #[test]
    fn an_epoch_never_goes_back() {
        let head = Head {
            epoch: 2,
            ..Head::genesis(&LOG, "a", 1)
        };
        let first = entry(LOG, "a", head);
        let head = head.advance(first.1);
        let second = entry(LOG, "a", Head { epoch: 1, ..head });
        let third = entry(
            LOG,
            "a",
            Head {
                epoch: 3,
                ..head.advance(second.1)
            },
        );
        check(&[&first, &second, &third], &["epoch 2"]);
    }

    #[test]
    fn feed_gives_the_first_finding() {
        let (a, _) = chain("a", 2);
        let mut check = ChainCheck::new(LOG);
        assert_eq!(
            check.feed(&a[1].0, a[1].1),
            Err(ChainError::SequenceGap {
                aggregate: Aggregate::new("a"),
                expected: 1,
                found: 2
            })
        );
    }
}
