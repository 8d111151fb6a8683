use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use oplog_core::{Aggregate, Head, Receipt};

/// Heads of aggregates as this process last saw them, so that a ticket need not be read to be
/// redeemed.
///
/// A head from here is never believed: the database compares version, hash and epoch when the ticket
/// is redeemed. One that is wrong, because another process wrote or the database was restored, costs
/// a statement or, if the transaction counted on it, another run. Only what a committed top-level
/// transaction wrote comes in.
///
/// After a wrong head, an aggregate's ticket is read again until what was read has been what was
/// known several times in a row: where several processes write, guessing would only be in the way.
#[derive(Debug, Default)]
pub(crate) struct Heads {
    generations: Mutex<Generations>,
}

/// What was used last is in the younger generation; the older one is dropped when that is full.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Aggregate, Known>,
    old: HashMap<Aggregate, Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    head: Head,
    /// Times in a row that the head was right, up to [`TRUSTED`].
    right: u8,
}

/// Right so many times in a row, a head is used without reading the ticket.
const TRUSTED: u8 = 4;

/// Aggregates of one generation, of about 150 bytes each.
const GENERATION_MAX: usize = 8192;

impl Heads {
    /// The head to redeem a ticket with, unless it was wrong lately.
    pub fn trusted(&self, aggregate: &Aggregate) -> Option<Head> {
        let known = self.lock().get(aggregate)?;
        (known.right >= TRUSTED).then_some(known.head)
    }

    /// Notes a head that was read from the database.
    pub fn read(&self, aggregate: &Aggregate, head: Head) {
        let mut generations = self.lock();
        let right = match generations.get(aggregate) {
            Some(known) if known.head == head => (known.right + 1).min(TRUSTED),
            Some(_) => 0,
            None => TRUSTED,
        };
        generations.insert(aggregate.clone(), Known { head, right });
    }

    /// Notes that a head from here was wrong.
    pub fn missed(&self, aggregate: &Aggregate) {
        let mut generations = self.lock();
        if let Some(known) = generations.get(aggregate) {
            generations.insert(aggregate.clone(), Known { right: 0, ..known });
        }
    }

    /// Notes what a committed transaction wrote, in the epoch of its log.
    pub fn committed(&self, receipts: &[Receipt], epoch: u32) {
        let mut generations = self.lock();
        for receipt in receipts {
            let head = Head {
                next_sequence: receipt.sequence.saturating_add(1),
                hash: receipt.entry_hash,
                epoch,
            };
            let known = generations.get(&receipt.aggregate);
            // Commits of several threads may be noted in another order than they were made.
            if known.is_some_and(|known| {
                known.head.epoch == epoch && known.head.next_sequence > head.next_sequence
            }) {
                continue;
            }
            let right = known.map_or(TRUSTED, |known| known.right);
            generations.insert(receipt.aggregate.clone(), Known { head, right });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        // Every change of the maps is complete before anything can panic.
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, aggregate: &Aggregate) -> Option<Known> {
        if let Some(known) = self.young.get(aggregate) {
            return Some(*known);
        }
        let (aggregate, known) = self.old.remove_entry(aggregate)?;
        self.insert(aggregate, known);
        Some(known)
    }

    fn insert(&mut self, aggregate: Aggregate, known: Known) {
        if self.young.len() >= GENERATION_MAX && !self.young.contains_key(&aggregate) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(aggregate, known);
    }
}

#[cfg(test)]
mod tests {
    use super::{GENERATION_MAX, Heads, TRUSTED};
    use oplog_core::{Aggregate, Hash, Head, Receipt};

    fn hash(byte: u8) -> Hash {
        Hash::try_from([byte; 32].as_slice()).expect("32 bytes")
    }

    fn receipt(name: &str, sequence: u64) -> Receipt {
        Receipt {
            aggregate: Aggregate::new(name),
            sequence,
            entry_hash: hash(sequence as u8),
        }
    }

    fn head(sequence: u64) -> Head {
        Head {
            next_sequence: sequence + 1,
            hash: hash(sequence as u8),
            epoch: 1,
        }
    }

    #[test]
    fn what_was_committed_is_trusted_until_it_was_wrong() {
        let heads = Heads::default();
        let a = Aggregate::new("a");
        assert_eq!(heads.trusted(&a), None);
        heads.missed(&a);
        assert_eq!(heads.trusted(&a), None);

        heads.committed(&[receipt("a", 1), receipt("a", 2), receipt("b", 1)], 1);
        assert_eq!(heads.trusted(&a), Some(head(2)));
        heads.committed(&[receipt("a", 1)], 1);
        assert_eq!(heads.trusted(&a), Some(head(2)), "noted late");

        heads.missed(&a);
        assert_eq!(heads.trusted(&a), None);
        heads.committed(&[receipt("a", 3)], 1);
        assert_eq!(heads.trusted(&a), None, "one commit is no proof");
        for sequence in 3.. {
            let before = heads.trusted(&a);
            assert_eq!(before.is_some(), sequence >= 3 + u64::from(TRUSTED));
            if before.is_some() {
                break;
            }
            heads.read(&a, head(sequence));
            heads.committed(&[receipt("a", sequence + 1)], 1);
        }
        heads.read(&a, head(100));
        assert_eq!(heads.trusted(&a), None, "somebody else wrote");
    }

    #[test]
    fn another_epoch_goes_back() {
        let heads = Heads::default();
        let a = Aggregate::new("a");
        heads.committed(&[receipt("a", 9)], 1);
        heads.committed(&[receipt("a", 4)], 2);
        let expected = Head {
            epoch: 2,
            ..head(4)
        };
        assert_eq!(heads.trusted(&a), Some(expected));
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let heads = Heads::default();
        let hot = Aggregate::new("hot");
        heads.committed(&[receipt("hot", 1)], 1);
        for n in 0..3 * GENERATION_MAX {
            heads.committed(&[receipt(&format!("cold:{n}"), 1)], 1);
            assert_eq!(heads.trusted(&hot), Some(head(1)));
        }
        let generations = heads.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
    }
}
