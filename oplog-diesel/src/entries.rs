use std::collections::VecDeque;

use oplog_core::{
    Aggregate, Envelope, EnvelopeLimits, Hash, Header, Keyring, Message, Metadata, QueueLimits,
    Receipt, queue, short_name,
};

use crate::connection::LogConnection;
use crate::store::{self, StoredRow};
use crate::{EntryError, Error, Frontier};

/// An entry as it is stored: columns, header and sealed bytes. Its messages are still encrypted.
///
/// Its columns were compared with the authenticated header when it was read, and its metadata with
/// the header's hash.
#[derive(Clone)]
pub struct StoredEntry {
    header: Header,
    metadata: Metadata,
    envelope: Vec<u8>,
    entry_hash: Hash,
}

/// An entry that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The authenticated header.
    pub header: Header,
    /// The metadata.
    pub metadata: Metadata,
    /// What the transaction did to the aggregate, in order.
    pub messages: Vec<Message>,
}

/// The stored entries of a log, or of one aggregate, as an iterator that holds at most one page of
/// 8 MiB, or one entry if that is larger.
///
/// Within an aggregate the order is that of the sequence. Over all aggregates it is that of the
/// entries' ids, in which whatever depends on a committed row comes after it. Ids alone are not a
/// position to continue from later: a transaction that is still open may have drawn a smaller one.
/// Take a [`Frontier`] and read [`below`](Self::below) it.
///
/// A stored entry that can't be read is an item with an error, and the iterator goes on after it.
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// # let (mut conn, oplog, alice) = open_with_alice();
/// # for balance in 1..=3 {
/// #     oplog.transaction(&mut conn, |tx| tx.logged_update(&alice, accounts::balance.eq(balance)))?;
/// # }
/// let frontier = oplog.frontier(&mut conn)?;
/// assert_eq!(oplog.entries(&mut conn).below(&frontier).count(), 4);
///
/// let mut sequences = Vec::new();
/// for stored in oplog.entries(&mut conn).aggregate("account:1").from_sequence(2).to_sequence(3) {
///     sequences.push(stored?.sequence());
/// }
/// assert_eq!(sequences, [2, 3]);
/// # Ok::<(), oplog_diesel::Error>(())
/// ```
#[must_use = "an iterator does nothing until it is used"]
pub struct Entries<'c, C> {
    conn: &'c mut C,
    aggregate: Option<Aggregate>,
    from: u64,
    to: u64,
    frontier: Option<Frontier>,
    page: VecDeque<StoredRow>,
    after: i64,
    ended: bool,
}

impl<'c, C: LogConnection> Entries<'c, C> {
    pub(crate) fn new(conn: &'c mut C) -> Self {
        Entries {
            conn,
            aggregate: None,
            from: 1,
            to: u64::MAX,
            frontier: None,
            page: VecDeque::new(),
            // Ids are positive, but whoever owns the database may have changed one.
            after: i64::MIN,
            ended: false,
        }
    }

    /// Only the entries of one aggregate.
    pub fn aggregate(mut self, aggregate: impl Into<Aggregate>) -> Self {
        self.aggregate = Some(aggregate.into());
        self
    }

    /// Only entries with this sequence or a later one.
    pub fn from_sequence(mut self, sequence: u64) -> Self {
        self.from = sequence;
        self
    }

    /// Only entries with this sequence or an earlier one.
    pub fn to_sequence(mut self, sequence: u64) -> Self {
        self.to = sequence;
        self
    }

    /// Only entries below a frontier.
    pub fn below(mut self, frontier: &Frontier) -> Self {
        self.frontier = Some(frontier.clone());
        self
    }

    fn wants(&self, row: &StoredRow) -> bool {
        let sequence = u64::try_from(row.sequence).unwrap_or(0);
        (self.from..=self.to).contains(&sequence)
            && self
                .frontier
                .as_ref()
                .is_none_or(|frontier| frontier.wants(row))
    }

    fn next_page(&mut self) -> Result<(), Error> {
        let page = match &self.aggregate {
            None => store::page_by_id(self.conn, self.after),
            Some(aggregate) => {
                let from = i64::try_from(self.from.saturating_sub(1)).unwrap_or(i64::MAX);
                let to = i64::try_from(self.to).unwrap_or(i64::MAX);
                store::page_by_sequence(self.conn, aggregate.as_str(), self.after.max(from), to)
            }
        };
        let page = page.map_err(Error::store("reading the entries"))?;
        match page.last() {
            None => self.ended = true,
            Some(last) => {
                self.after = if self.aggregate.is_none() {
                    last.id
                } else {
                    last.sequence
                }
            }
        }
        self.page = page.into();
        Ok(())
    }

    /// The next row of the log, checked for nothing yet.
    pub(crate) fn next_row(&mut self) -> Option<Result<StoredRow, Error>> {
        loop {
            if let Some(row) = self.page.pop_front() {
                if self.wants(&row) {
                    return Some(Ok(row));
                }
                continue;
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.next_page() {
                self.ended = true;
                return Some(Err(error));
            }
        }
    }
}

impl<C: LogConnection> Iterator for Entries<'_, C> {
    type Item = Result<StoredEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_row()?.and_then(StoredEntry::read))
    }
}

impl<C> std::fmt::Debug for Entries<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries")
            .field("aggregate", &self.aggregate)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl StoredEntry {
    /// Checks a row's columns against the header of its envelope.
    pub(crate) fn read(row: StoredRow) -> Result<Self, Error> {
        let place = (row.aggregate_name.clone(), row.sequence);
        Self::check(row).map_err(|source| entry_error(place, source))
    }

    pub(crate) fn check(row: StoredRow) -> Result<Self, EntryError> {
        let header = row.envelope()?.into_header();
        check_columns(&row, &header)?;
        let metadata = Metadata::from_bytes(&row.metadata)?;
        Ok(StoredEntry {
            header,
            metadata,
            entry_hash: oplog_core::entry_hash(&row.data),
            envelope: row.data,
        })
    }

    /// The header, which is authenticated once the entry is opened.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The aggregate.
    pub fn aggregate(&self) -> &Aggregate {
        &self.header.aggregate
    }

    /// The entry's number within its aggregate, from 1.
    pub fn sequence(&self) -> u64 {
        self.header.sequence
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The sealed bytes, header included.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// The hash of the sealed bytes, to which the next entry of the aggregate is chained.
    pub fn entry_hash(&self) -> Hash {
        self.entry_hash
    }

    /// What the writer could have kept as proof of the entry.
    pub fn receipt(&self) -> Receipt {
        Receipt {
            aggregate: self.header.aggregate.clone(),
            sequence: self.header.sequence,
            entry_hash: self.entry_hash(),
        }
    }

    pub(crate) fn open(&self, keyring: &Keyring) -> Result<Entry, Error> {
        let messages = self
            .messages(keyring)
            .map_err(|source| header_error(&self.header, source))?;
        Ok(Entry {
            header: self.header.clone(),
            metadata: self.metadata.clone(),
            messages,
        })
    }

    pub(crate) fn messages(&self, keyring: &Keyring) -> Result<Vec<Message>, EntryError> {
        let envelope = Envelope::parse(&self.envelope, &EnvelopeLimits::default())?;
        messages(&envelope, keyring)
    }
}

impl std::fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredEntry")
            .field("header", &self.header)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// An error about the row at this place, as its columns say.
pub(crate) fn entry_error((aggregate, sequence): (String, i64), source: EntryError) -> Error {
    Error::Entry {
        aggregate: short_name(&aggregate),
        sequence: u64::try_from(sequence).unwrap_or(0),
        source,
    }
}

/// Compares a row's columns with the header of its envelope, and its metadata with the header's
/// hash.
fn check_columns(row: &StoredRow, header: &Header) -> Result<(), EntryError> {
    let group = header.group.map(|group| *group.txn_id.as_bytes());
    let columns = [
        (
            "aggregate_name",
            row.aggregate_name == header.aggregate.as_str(),
        ),
        (
            "sequence",
            u64::try_from(row.sequence) == Ok(header.sequence),
        ),
        ("create_time", row.create_time == header.created_us),
        ("version", row.version == i64::from(header.schema)),
        ("key_id", row.key_id == header.key_id.as_bytes()),
        (
            "txn_id",
            row.txn_id.as_deref() == group.as_ref().map(<[u8; 16]>::as_slice),
        ),
        (
            "metadata",
            Metadata::hash_bytes(&row.metadata) == header.metadata_hash,
        ),
    ];
    if let Some((column, _)) = columns.iter().find(|(_, same)| !same) {
        return Err(EntryError::Column { column });
    }
    Ok(())
}

fn messages(envelope: &Envelope<'_>, keyring: &Keyring) -> Result<Vec<Message>, EntryError> {
    let key = keyring.get(&envelope.header().key_id)?;
    let bytes = envelope.open(&key)?;
    // Most entries hold one message, and a vector begins with room for four.
    let mut messages = Vec::with_capacity(1);
    for message in queue::read(&bytes, &QueueLimits::default()) {
        messages.push(message?);
    }
    Ok(messages)
}

/// What a replay needs of an entry: its place and its messages.
pub(crate) struct OpenedEntry {
    pub header: Header,
    pub entry_hash: Hash,
    pub messages: Vec<Message>,
}

impl OpenedEntry {
    /// Checks a row as [`StoredEntry::read`] does and opens it. The metadata is compared with its
    /// authenticated hash, but not read.
    pub(crate) fn read(row: &StoredRow, keyring: &Keyring) -> Result<Self, Error> {
        let open = || {
            let envelope = row.envelope()?;
            check_columns(row, envelope.header())?;
            let messages = messages(&envelope, keyring)?;
            Ok(OpenedEntry {
                header: envelope.into_header(),
                entry_hash: oplog_core::entry_hash(&row.data),
                messages,
            })
        };
        open().map_err(|source| entry_error((row.aggregate_name.clone(), row.sequence), source))
    }
}

/// An error about the entry with this header.
pub(crate) fn header_error(header: &Header, source: EntryError) -> Error {
    Error::Entry {
        aggregate: header.aggregate.as_str().to_owned(),
        sequence: header.sequence,
        source,
    }
}
