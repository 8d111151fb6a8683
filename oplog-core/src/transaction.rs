//! What a logged transaction does, as a state machine without I/O.
//!
//! A driver opens a transaction, tells the [`Recorder`] what it writes, and at the close asks it
//! which tickets to lock and which entries to append. The synchronous and any other driver share
//! these rules:
//!
//! 1. Heads of the aggregates named beforehand are read before the first statement
//!    ([`Recorder::name`]).
//! 2. Around every write statement stand [`Recorder::sending`] and [`Recorder::settled`]. Whatever
//!    leaves between them, an error or a panic, leaves the transaction poisoned.
//! 3. [`Recorder::close`] gives the tickets in byte order of their names. The driver locks them one
//!    by one, compares the named ones ([`Ticket::holds`]), seals ([`Closing::seal`]) and redeems.

use std::collections::BTreeMap;

use crate::{
    Aggregate, AggregateError, DataKey, Group, Hash, Head, KeyId, LogId, Message, Metadata,
    NewHeader, Queue, QueueError, QueueLimits, RngError, SealError, TxnId, entry_hash, seal,
};

/// Schema of the payload that we write: the original's messages with their options, and our own
/// fields. Stored in the header and in the column `version`.
pub const SCHEMA: u16 = 2;

/// The messages of one transaction, sorted by aggregate, until it is closed.
#[derive(Debug)]
pub struct Recorder {
    limits: QueueLimits,
    metadata: Metadata,
    named: BTreeMap<Aggregate, Head>,
    queues: BTreeMap<Aggregate, Queue>,
    next_ordinal: u32,
    unsettled: u32,
    // Whether a write statement was sent, also one that changed nothing and so is not logged.
    wrote: bool,
}

/// A point in a transaction to which its queue can be taken back.
#[derive(Debug)]
pub struct Mark {
    lengths: BTreeMap<Aggregate, usize>,
    metadata: Metadata,
    next_ordinal: u32,
    unsettled: u32,
}

/// A transaction that can't take or write what it was given. It must be rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A message is too long, or there are too many.
    #[error("the change can't be put into an entry")]
    Queue(#[from] QueueError),
    /// The aggregate of a row can't be named.
    #[error("the aggregate of the row can't be named")]
    Aggregate(#[from] AggregateError),
    /// More messages than one transaction can count.
    #[error("a transaction holds at most {max} messages")]
    TooManyMessages {
        /// The limit.
        max: u32,
    },
    /// More entries than one transaction can name.
    #[error("the transaction would need {parts} entries, more than {max}")]
    TooManyEntries {
        /// Entries needed.
        parts: usize,
        /// The limit.
        max: u16,
    },
    /// A write statement failed, so that rows and messages may differ.
    #[error("a write failed, so that the transaction can't be committed")]
    Poisoned,
    /// The operating system gave no random bytes.
    #[error("no transaction id could be drawn")]
    Rng(#[from] RngError),
}

impl Recorder {
    /// A recorder of an empty transaction.
    pub fn new(metadata: Metadata, limits: QueueLimits) -> Self {
        Recorder {
            limits,
            metadata,
            named: BTreeMap::new(),
            queues: BTreeMap::new(),
            next_ordinal: 0,
            unsettled: 0,
            wrote: false,
        }
    }

    /// Notes the head of an aggregate that was named beforehand, as it was read before the first
    /// statement. At the close it must be the same.
    pub fn name(&mut self, aggregate: Aggregate, head: Head) {
        self.named.insert(aggregate, head);
    }

    /// The metadata that every entry of the transaction will carry.
    pub fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// A write statement is about to be sent. Until [`settled`](Self::settled) the transaction is
    /// poisoned.
    pub fn sending(&mut self) {
        self.unsettled += 1;
        self.wrote = true;
    }

    /// What the last write statement did is recorded.
    pub fn settled(&mut self) {
        self.unsettled = self.unsettled.saturating_sub(1);
    }

    /// Whether a write failed, so that the transaction can't be committed.
    pub fn is_poisoned(&self) -> bool {
        self.unsettled > 0
    }

    /// Whether there is nothing to log.
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(Queue::is_empty)
    }

    /// Appends what a statement did to one row of an aggregate.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the message is too long for an entry, the aggregate has no valid name or
    /// there are too many messages.
    pub fn record(&mut self, aggregate: Aggregate, message: &Message) -> Result<(), RecordError> {
        let ordinal = self.next_ordinal;
        let next = ordinal
            .checked_add(1)
            .ok_or(RecordError::TooManyMessages { max: u32::MAX })?;
        if let Some(queue) = self.queues.get_mut(&aggregate) {
            queue.push_with_ordinal(message, ordinal)?;
        } else {
            aggregate.check()?;
            let mut queue = Queue::new();
            queue.push_with_ordinal(message, ordinal)?;
            self.queues.insert(aggregate, queue);
        }
        self.next_ordinal = next;
        Ok(())
    }

    /// How many messages of an aggregate were recorded: the index of the next one.
    pub fn message_count(&self, aggregate: &Aggregate) -> usize {
        self.queues.get(aggregate).map_or(0, Queue::len)
    }

    /// A message that was recorded, by its index among those of its aggregate.
    ///
    /// # Errors
    ///
    /// [`RecordError::Queue`] if it does not decode, which can't happen.
    pub fn message(
        &self,
        aggregate: &Aggregate,
        index: usize,
    ) -> Result<Option<Message>, RecordError> {
        match self.queues.get(aggregate) {
            Some(queue) => Ok(queue.get(index)?),
            None => Ok(None),
        }
    }

    /// The places of all messages that were recorded, in the order in which they were.
    pub fn places(&self) -> Vec<(Aggregate, usize)> {
        let mut places: Vec<(u32, &Aggregate, usize)> = self
            .queues
            .iter()
            .flat_map(|(aggregate, queue)| {
                (0..queue.len())
                    .map(move |index| (queue.ordinal(index).unwrap_or(0), aggregate, index))
            })
            .collect();
        places.sort_unstable();
        let places = places.into_iter();
        places
            .map(|(_, aggregate, index)| (aggregate.clone(), index))
            .collect()
    }

    /// The point to which [`rollback_to`](Self::rollback_to) goes back.
    pub fn mark(&self) -> Mark {
        Mark {
            lengths: self
                .queues
                .iter()
                .map(|(name, queue)| (name.clone(), queue.len()))
                .collect(),
            metadata: self.metadata.clone(),
            next_ordinal: self.next_ordinal,
            unsettled: self.unsettled,
        }
    }

    /// Takes back all that was recorded since the mark, and the poison of writes that failed since:
    /// the database has taken back what they did.
    pub fn rollback_to(&mut self, mark: Mark) {
        self.queues
            .retain(|name, queue| match mark.lengths.get(name) {
                Some(length) => {
                    queue.truncate(*length);
                    true
                }
                None => false,
            });
        self.metadata = mark.metadata;
        self.next_ordinal = mark.next_ordinal;
        self.unsettled = mark.unsettled;
    }

    /// Ends the recording. `None` if there is nothing to log and no named ticket to compare.
    ///
    /// # Errors
    ///
    /// [`RecordError::Poisoned`] if a write failed, [`RecordError::TooManyEntries`], or
    /// [`RecordError::Rng`] if a transaction of several entries got no id.
    pub fn close(mut self) -> Result<Option<Closing>, RecordError> {
        if self.is_poisoned() {
            return Err(RecordError::Poisoned);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        // A write may have changed nothing because somebody else was faster: what it rested on is
        // compared all the same.
        if self.queues.is_empty() && (self.named.is_empty() || !self.wrote) {
            return Ok(None);
        }
        let limits = self.limits;
        let parts = |queues: &BTreeMap<Aggregate, Queue>, ordinals| {
            queues
                .values()
                .map(|queue| queue.part_count(&limits, ordinals))
                .sum::<usize>()
        };
        let group = if parts(&self.queues, false) <= 1 {
            None
        } else {
            let parts = parts(&self.queues, true);
            let max = u16::MAX;
            let parts =
                u16::try_from(parts).map_err(|_| RecordError::TooManyEntries { parts, max })?;
            Some(Group {
                txn_id: TxnId::random()?,
                parts,
            })
        };
        let mut tickets: BTreeMap<Aggregate, Ticket> = self
            .named
            .into_iter()
            .map(|(aggregate, head)| {
                (
                    aggregate.clone(),
                    Ticket {
                        aggregate,
                        expected: Some(head),
                        queue: Queue::new(),
                    },
                )
            })
            .collect();
        for (aggregate, queue) in self.queues {
            tickets
                .entry(aggregate.clone())
                .or_insert_with(|| Ticket {
                    aggregate,
                    expected: None,
                    queue: Queue::new(),
                })
                .queue = queue;
        }
        let metadata = self.metadata.to_bytes();
        Ok(Some(Closing {
            limits,
            metadata_hash: Metadata::hash_bytes(&metadata),
            metadata,
            group,
            tickets: tickets.into_values().collect(),
        }))
    }
}

/// A transaction whose tickets are to be locked, compared and redeemed.
#[derive(Debug)]
pub struct Closing {
    limits: QueueLimits,
    metadata: Vec<u8>,
    metadata_hash: Hash,
    group: Option<Group>,
    tickets: Vec<Ticket>,
}

/// One aggregate of a transaction that is being closed.
#[derive(Debug)]
pub struct Ticket {
    aggregate: Aggregate,
    expected: Option<Head>,
    queue: Queue,
}

/// One entry as it will be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEntry {
    /// Its place in the log.
    pub receipt: Receipt,
    /// Microseconds since 1970, from the writer's clock.
    pub created_us: i64,
    /// The data key it is sealed with.
    pub key_id: KeyId,
    /// The transaction it belongs to, if that wrote several entries.
    pub txn_id: Option<TxnId>,
    /// The envelope.
    pub data: Vec<u8>,
}

/// Proof of one entry: whoever keeps it can show later that the entry existed and what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The aggregate.
    pub aggregate: Aggregate,
    /// The entry's number within the aggregate, from 1.
    pub sequence: u64,
    /// The hash of the stored envelope.
    pub entry_hash: Hash,
}

impl Closing {
    /// The tickets to lock, in byte order of their names.
    pub fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }

    /// The metadata of every entry, in the bytes that the header's hash covers.
    pub fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    /// Seals the entries of one ticket on the head that was locked, one after the other, so that
    /// only one of them needs to be in memory.
    ///
    /// # Errors
    ///
    /// Each item is a [`SealError`] if the entry could not be sealed.
    pub fn seal<'c>(
        &'c self,
        ticket: &'c Ticket,
        log_id: &'c LogId,
        key: &'c DataKey,
        created_us: i64,
        head: Head,
    ) -> impl Iterator<Item = Result<SealedEntry, SealError>> + 'c {
        let mut head = head;
        ticket
            .queue
            .parts(&self.limits, self.group.is_some())
            .map(move |part| {
                let header = NewHeader {
                    log_id: *log_id,
                    epoch: head.epoch,
                    schema: SCHEMA,
                    sequence: head.next_sequence,
                    created_us,
                    previous: head.hash,
                    metadata_hash: self.metadata_hash,
                    aggregate: &ticket.aggregate,
                    group: self.group,
                };
                let data = seal(&header, &part, key)?;
                let receipt = Receipt {
                    aggregate: ticket.aggregate.clone(),
                    sequence: head.next_sequence,
                    entry_hash: entry_hash(&data),
                };
                head = head.advance(receipt.entry_hash);
                Ok(SealedEntry {
                    receipt,
                    created_us,
                    key_id: *key.id(),
                    txn_id: self.group.map(|group| group.txn_id),
                    data,
                })
            })
    }

    /// How many entries a ticket will need.
    pub fn parts(&self, ticket: &Ticket) -> usize {
        ticket.queue.part_count(&self.limits, self.group.is_some())
    }
}

impl Ticket {
    /// The aggregate.
    pub fn aggregate(&self) -> &Aggregate {
        &self.aggregate
    }

    /// Whether the aggregate was named beforehand, so that its head must not have moved.
    pub fn is_named(&self) -> bool {
        self.expected.is_some()
    }

    /// Whether entries were written under it. A ticket that was only named is locked and compared,
    /// so that a decision which rests on the aggregate holds, but it is not redeemed.
    pub fn is_redeemed(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a head that was read under the lock is the one this transaction counted on.
    pub fn holds(&self, current: &Head) -> bool {
        self.expected
            .as_ref()
            .is_none_or(|expected| expected == current)
    }

    /// Whether the named head was that of an aggregate without entries.
    pub fn expects_genesis(&self) -> bool {
        self.expected
            .as_ref()
            .is_some_and(|head| head.next_sequence == 1)
    }
}
