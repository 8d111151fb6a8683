//! What a logged transaction does, as a state machine without I/O.
//!
//! A driver opens a transaction, tells the [`Recorder`] what it writes, and at the close asks it
//! which tickets to lock and which entries to append. The synchronous and any other driver share
//! these rules:
//!
//! 1. Tickets that are locked first are locked before anything else, in byte order of their names
//!    ([`Recorder::hold`]). Then the heads of the other aggregates named beforehand are read
//!    ([`Recorder::name`]), and only then the first statement is sent.
//! 2. Around every write statement stand [`Recorder::sending`] and [`Recorder::settled`]. Whatever
//!    leaves between them, an error or a panic, leaves the transaction poisoned.
//! 3. [`Recorder::close`] gives the tickets in byte order of their names. The driver locks those that
//!    it does not hold yet one by one, compares the optimistic ones ([`Ticket::holds`]), seals
//!    ([`Closing::seal`]) and redeems.
//!
//! Nobody waits for a ticket that is locked first while holding one that is locked late, since the
//! models of an aggregate agree on when it is locked ([`CatalogError::TicketModes`]). So no circle
//! of waiting transactions is made of tickets.
//!
//! [`CatalogError::TicketModes`]: crate::CatalogError::TicketModes

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::{
    Aggregate, AggregateError, DataKey, Group, Hash, Head, KeyId, LogId, Message, Metadata,
    MetadataError, NewHeader, Queue, QueueError, QueueLimits, RngError, SealError, TxnId, TypeDef,
    entry_hash, seal,
};

/// Schema of the payload that we write: the original's messages with their options, and our own
/// fields. Stored in the header and in the column `version`.
pub const SCHEMA: u16 = 2;

/// Key of the metadata that tells why something was written past the log.
pub const UNLOGGED_KEY: &str = "_oplog.unlogged";

/// How much one transaction may write, before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionLimits {
    /// The most messages: rows that were created, changed or deleted.
    pub messages_max: u32,
    /// The most bytes of messages, all of which are in memory until the close.
    pub bytes_max: usize,
}

/// 10,000,000 messages and 1 GiB.
impl Default for TransactionLimits {
    fn default() -> Self {
        TransactionLimits {
            messages_max: 10_000_000,
            bytes_max: 1 << 30,
        }
    }
}

/// How a transaction protects an aggregate that it writes or rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketMode {
    /// The ticket is locked at the close, when the rows have told which aggregates they belong to.
    Late,
    /// The head was known before the first statement and is compared at the close.
    Optimistic {
        /// The head that the transaction counts on.
        head: Head,
    },
    /// The ticket was locked before the first statement.
    LockFirst {
        /// The head, which nobody can change meanwhile.
        head: Head,
        /// Whether there is a row of the ticket, or its first redemption creates it.
        exists: bool,
    },
}

/// The messages of one transaction, sorted by aggregate, until it is closed.
#[derive(Debug)]
pub struct Recorder {
    limits: TransactionLimits,
    queue_limits: QueueLimits,
    // Shared with whoever began the transaction, until it is added to.
    metadata: Arc<Metadata>,
    named: BTreeMap<Aggregate, TicketMode>,
    // Which entry tells of writes past the log if there is no other.
    witness: Option<Aggregate>,
    queues: BTreeMap<Aggregate, Queue>,
    // Of all queues.
    bytes: usize,
    next_ordinal: u32,
    unsettled: u32,
    // Whether the database has taken back the transaction by itself.
    vanished: bool,
    // Whether a write statement was sent, also one that changed nothing and so is not logged.
    wrote: bool,
}

/// A point in a transaction to which its queue can be taken back.
#[derive(Debug)]
pub struct Mark {
    lengths: BTreeMap<Aggregate, usize>,
    metadata: Arc<Metadata>,
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
    /// The transaction wrote more rows than its limit allows. Write in several transactions, or
    /// raise the limit.
    #[error("the transaction writes more than {max} rows, which is its limit")]
    TooManyMessages {
        /// The limit.
        max: u32,
    },
    /// The messages of the transaction take more memory than its limit allows. Write in several
    /// transactions, or raise the limit.
    #[error("the messages of the transaction take more than {max} bytes, which is its limit")]
    TooManyBytes {
        /// The limit.
        max: usize,
    },
    /// The ticket of the aggregate must be locked before any row: name the aggregate beforehand.
    #[error(
        "the ticket of `{aggregate}` is locked first: name the aggregate with `on` before the transaction"
    )]
    NotLockedFirst {
        /// The aggregate.
        aggregate: String,
    },
    /// Something was written past the log and nothing was logged, so there is no entry that could
    /// tell of it: name an aggregate beforehand.
    #[error(
        "nothing but unlogged writes were made: name an aggregate with `on` whose entry tells of them"
    )]
    NoWitness,
    /// More entries than one transaction can name.
    #[error("the transaction would need {parts} entries, more than {max}")]
    TooManyEntries {
        /// Entries needed.
        parts: usize,
        /// The limit.
        max: u16,
    },
    /// A write statement failed, so that rows and messages may differ, or the database took back the
    /// transaction by itself.
    #[error("a write failed, so that the transaction can't be committed")]
    Poisoned,
    /// The operating system gave no random bytes.
    #[error("no transaction id could be drawn")]
    Rng(#[from] RngError),
}

impl Recorder {
    /// A recorder of an empty transaction.
    pub fn new(
        metadata: Arc<Metadata>,
        limits: TransactionLimits,
        queue_limits: QueueLimits,
    ) -> Self {
        Recorder {
            limits,
            queue_limits,
            metadata,
            named: BTreeMap::new(),
            witness: None,
            queues: BTreeMap::new(),
            bytes: 0,
            next_ordinal: 0,
            unsettled: 0,
            vanished: false,
            wrote: false,
        }
    }

    /// Notes the head of an aggregate that was named beforehand, as it was read before the first
    /// statement. At the close it must be the same.
    pub fn name(&mut self, aggregate: Aggregate, head: Head) {
        self.named
            .insert(aggregate, TicketMode::Optimistic { head });
    }

    /// Notes that the ticket of an aggregate was locked before the first statement, its head, and
    /// whether there is a row of it.
    pub fn hold(&mut self, aggregate: Aggregate, head: Head, exists: bool) {
        self.named
            .insert(aggregate, TicketMode::LockFirst { head, exists });
    }

    /// Chooses the aggregate whose entry tells of unlogged writes if nothing else was written.
    pub fn witness(&mut self, aggregate: Aggregate) {
        self.witness = Some(aggregate);
    }

    /// Notes that something is about to be written past the log. Every entry of the transaction
    /// will tell so.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the reason can't be stored.
    pub fn unlogged(&mut self, reason: &str) -> Result<(), MetadataError> {
        Arc::make_mut(&mut self.metadata).push_reserved(UNLOGGED_KEY, reason)
    }

    /// The metadata that every entry of the transaction will carry.
    pub fn metadata(&mut self) -> &mut Metadata {
        Arc::make_mut(&mut self.metadata)
    }

    /// A write statement is about to be sent. Until [`settled`](Self::settled) the transaction is
    /// poisoned.
    pub fn sending(&mut self) {
        self.unsettled += 1;
        self.wrote = true;
    }

    /// The connection is about to be lent for reading. Until [`settled`](Self::settled) the
    /// transaction is poisoned.
    pub fn lending(&mut self) {
        self.unsettled += 1;
    }

    /// What the last write statement did is recorded.
    pub fn settled(&mut self) {
        self.unsettled = self.unsettled.saturating_sub(1);
    }

    /// The database has taken back the whole transaction by itself. Nothing makes that good again,
    /// not even going back to a mark: what was recorded before the mark is lost, too.
    pub fn vanished(&mut self) {
        self.vanished = true;
    }

    /// Whether the database has taken back the transaction by itself. Nothing more may be sent.
    pub fn has_vanished(&self) -> bool {
        self.vanished
    }

    /// Whether a write failed, or the database took back the transaction, so that it can't be
    /// committed.
    pub fn is_poisoned(&self) -> bool {
        self.unsettled > 0 || self.vanished
    }

    /// Whether there is nothing to log.
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(Queue::is_empty)
    }

    /// Appends what a statement did to one row of a model in an aggregate.
    ///
    /// # Errors
    ///
    /// [`RecordError`] if the message is too long for an entry, the aggregate has no valid name or
    /// should have been locked first, or the transaction exceeds its limits.
    pub fn record(
        &mut self,
        def: &TypeDef,
        aggregate: Aggregate,
        message: &Message,
    ) -> Result<(), RecordError> {
        let max = self.limits.messages_max;
        let ordinal = self.next_ordinal;
        if ordinal >= max {
            return Err(RecordError::TooManyMessages { max });
        }
        if def.lock_first
            && !matches!(
                self.named.get(&aggregate),
                Some(TicketMode::LockFirst { .. })
            )
        {
            return Err(RecordError::NotLockedFirst {
                aggregate: aggregate.as_str().to_owned(),
            });
        }
        let added = if let Some(queue) = self.queues.get_mut(&aggregate) {
            let before = queue.byte_len();
            queue.push_with_ordinal(message, ordinal)?;
            queue.byte_len() - before
        } else {
            aggregate.check()?;
            let mut queue = Queue::new();
            queue.push_with_ordinal(message, ordinal)?;
            let added = queue.byte_len();
            self.queues.insert(aggregate, queue);
            added
        };
        self.next_ordinal = ordinal + 1;
        self.bytes += added;
        let max = self.limits.bytes_max;
        if self.bytes > max {
            return Err(RecordError::TooManyBytes { max });
        }
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
            metadata: Arc::clone(&self.metadata),
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
        self.bytes = self.queues.values().map(Queue::byte_len).sum();
        self.metadata = mark.metadata;
        self.next_ordinal = mark.next_ordinal;
        self.unsettled = mark.unsettled;
    }

    /// Ends the recording. `None` if there is nothing to log and no optimistic ticket to compare.
    ///
    /// # Errors
    ///
    /// [`RecordError::Poisoned`] if a write failed, [`RecordError::TooManyEntries`],
    /// [`RecordError::NoWitness`], or [`RecordError::Rng`] if a transaction of several entries got
    /// no id.
    pub fn close(mut self) -> Result<Option<Closing>, RecordError> {
        if self.is_poisoned() {
            return Err(RecordError::Poisoned);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        if self.queues.is_empty() && self.metadata.get(UNLOGGED_KEY).next().is_some() {
            let witness = self.witness.take().ok_or(RecordError::NoWitness)?;
            self.queues.insert(witness, Queue::new());
        }
        let compares = |mode: &TicketMode| matches!(mode, TicketMode::Optimistic { .. });
        // A write may have changed nothing because somebody else was faster: what it rested on is
        // compared all the same.
        if self.queues.is_empty() && !(self.wrote && self.named.values().any(compares)) {
            return Ok(None);
        }
        let parts = |numbered| {
            let queues = self.queues.values();
            queues
                .map(|queue| part_count(queue, &self.queue_limits, numbered))
                .sum::<usize>()
        };
        let group = if parts(false) <= 1 {
            None
        } else {
            let parts = parts(true);
            let max = u16::MAX;
            let parts =
                u16::try_from(parts).map_err(|_| RecordError::TooManyEntries { parts, max })?;
            Some(Group {
                txn_id: TxnId::random()?,
                parts,
            })
        };
        let mut tickets: BTreeMap<Aggregate, (TicketMode, Option<Queue>)> = self
            .named
            .into_iter()
            .map(|(aggregate, mode)| (aggregate, (mode, None)))
            .collect();
        for (aggregate, queue) in self.queues {
            let late = || (TicketMode::Late, None);
            tickets.entry(aggregate).or_insert_with(late).1 = Some(queue);
        }
        let metadata = self.metadata.to_bytes();
        Ok(Some(Closing {
            limits: self.queue_limits,
            metadata_hash: Metadata::hash_bytes(&metadata),
            metadata,
            group,
            tickets: tickets
                .into_iter()
                .map(|(aggregate, (mode, queue))| Ticket {
                    aggregate,
                    mode,
                    queue,
                })
                .collect(),
        }))
    }
}

/// Entries that a queue takes. Without messages it is one entry, which only tells of unlogged writes.
fn part_count(queue: &Queue, limits: &QueueLimits, numbered: bool) -> usize {
    queue.part_count(limits, numbered).max(1)
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
    mode: TicketMode,
    queue: Option<Queue>,
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
        let numbered = self.group.is_some();
        let queue = ticket.queue.as_ref();
        let parts = queue.map(|queue| queue.parts(&self.limits, numbered));
        let without_messages = queue.filter(|queue| queue.is_empty());
        parts
            .into_iter()
            .flatten()
            .chain(without_messages.map(|_| Zeroizing::default()))
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
        let numbered = self.group.is_some();
        let queue = ticket.queue.as_ref();
        queue.map_or(0, |queue| part_count(queue, &self.limits, numbered))
    }
}

impl Ticket {
    /// The aggregate.
    pub fn aggregate(&self) -> &Aggregate {
        &self.aggregate
    }

    /// How the aggregate is protected.
    pub fn mode(&self) -> &TicketMode {
        &self.mode
    }

    /// Whether entries are written under it. A ticket that was only named is locked and compared,
    /// so that a decision which rests on the aggregate holds, but it is not redeemed.
    pub fn is_redeemed(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether a head that was read under the lock is the one this transaction counted on.
    pub fn holds(&self, current: &Head) -> bool {
        match &self.mode {
            TicketMode::Late => true,
            TicketMode::Optimistic { head } | TicketMode::LockFirst { head, .. } => head == current,
        }
    }
}
