//! The log's own tables: tickets, entries and the log's identity.

use diesel::QueryResult;
use oplog_core::{Aggregate, Closing, Head, LogId, SCHEMA, SealedEntry};

use crate::backend::{LogBackend, Wait, malformed, read_head};
use crate::bind::RawRow;
use crate::connection::{LogConnection, execute, load, load_one};
use crate::statement::{Bind, Statement, statements};

/// The row of `oplog_log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogRow {
    pub log_id: LogId,
    pub epoch: u32,
}

/// A ticket on its way from one head to the next.
#[derive(Debug)]
pub struct Redemption<'a> {
    /// The aggregate.
    pub name: &'a str,
    /// The head the entries were sealed on.
    pub before: Head,
    /// The head after them.
    pub after: Head,
    /// Whether the ticket exists, or is created by this redemption.
    pub exists: bool,
    /// Whether to wait for a ticket that somebody else holds.
    pub wait: Wait,
}

/// One row of `oplog_entry`, before it has an id.
#[derive(Debug)]
pub struct Row<'a> {
    /// Microseconds since 1970, from the writer's clock.
    pub create_time: i64,
    /// Schema of the payload.
    pub version: i16,
    /// The aggregate.
    pub aggregate_name: &'a str,
    /// The ticket version this entry redeems.
    pub sequence: i64,
    /// The data key.
    pub key_id: &'a [u8],
    /// The transaction, if it wrote several entries.
    pub txn_id: Option<&'a [u8]>,
    /// The metadata, in the bytes that the header's hash covers.
    pub metadata: &'a [u8],
    /// The envelope.
    pub data: &'a [u8],
}

impl<'a> Row<'a> {
    /// The row of a sealed entry.
    pub(crate) fn of(entry: &'a SealedEntry, closing: &'a Closing) -> Self {
        Row {
            create_time: entry.created_us,
            version: SCHEMA as i16,
            aggregate_name: entry.receipt.aggregate.as_str(),
            sequence: entry.receipt.sequence as i64,
            key_id: entry.key_id.as_bytes(),
            txn_id: entry.txn_id.as_ref().map(|id| id.as_bytes().as_slice()),
            metadata: closing.metadata(),
            data: &entry.data,
        }
    }

    /// The columns in the order of the table.
    pub fn binds(&self) -> [Bind<'a>; 8] {
        [
            Bind::I64(self.create_time),
            Bind::I16(self.version),
            Bind::Text(self.aggregate_name),
            Bind::I64(self.sequence),
            Bind::Bytes(self.key_id),
            Bind::MaybeBytes(self.txn_id),
            Bind::Bytes(self.metadata),
            Bind::Bytes(self.data),
        ]
    }
}

/// A stored entry as the database returned it, checked for nothing yet.
#[derive(Clone, Debug)]
pub(crate) struct StoredRow {
    pub id: i64,
    pub create_time: i64,
    pub version: i64,
    pub aggregate_name: String,
    pub sequence: i64,
    pub key_id: Vec<u8>,
    pub txn_id: Option<Vec<u8>>,
    pub metadata: Vec<u8>,
    pub data: Vec<u8>,
}

statements! {
    SelectLog = "SELECT log_id, epoch FROM oplog_log";
    SelectTicket = "SELECT version, head_hash, epoch FROM oplog_ticket WHERE name = ?";
    SelectTickets = "SELECT version, head_hash, epoch, name FROM oplog_ticket ORDER BY name";
    InsertEntry = "INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    SelectSizesById = "SELECT id, length(data) + length(metadata) FROM oplog_entry WHERE id > ? ORDER BY id LIMIT ?";
    SelectById = "SELECT id, create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data FROM oplog_entry WHERE id > ? AND id <= ? ORDER BY id";
    SelectSizesBySequence = "SELECT sequence, length(data) + length(metadata) FROM oplog_entry WHERE aggregate_name = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?";
    SelectBySequence = "SELECT id, create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data FROM oplog_entry WHERE aggregate_name = ? AND sequence > ? AND sequence <= ? ORDER BY sequence";
    SelectHash = "SELECT data FROM oplog_entry WHERE aggregate_name = ? AND sequence = ?";
}

/// Reads the log's identity. `None` if there is not exactly one.
pub(crate) fn log_row<C: LogConnection>(conn: &mut C) -> QueryResult<Option<LogRow>> {
    let mut rows = load(conn, Statement::<SelectLog>::new(&[]), |row| {
        let log_id = C::Backend::read_bytes(row, 0)?.ok_or_else(|| malformed("the log id"))?;
        let epoch = C::Backend::read_i64(row, 1)?;
        Ok(LogRow {
            log_id: log_id
                .as_slice()
                .try_into()
                .map_err(|_| malformed("the log id"))?,
            epoch: u32::try_from(epoch).map_err(|_| malformed("the epoch"))?,
        })
    })?;
    Ok(if rows.len() == 1 { rows.pop() } else { None })
}

/// Reads a ticket without locking it.
pub(crate) fn ticket<C: LogConnection>(conn: &mut C, name: &str) -> QueryResult<Option<Head>> {
    load_one(
        conn,
        Statement::<SelectTicket>::new(&[Bind::Text(name)]),
        read_head::<C::Backend>,
    )
}

/// Reads all tickets, in byte order of their names.
pub(crate) fn tickets<C: LogConnection>(conn: &mut C) -> QueryResult<Vec<(Aggregate, Head)>> {
    load(conn, Statement::<SelectTickets>::new(&[]), |row| {
        let name = C::Backend::read_text(row, 3)?.ok_or_else(|| malformed("a ticket name"))?;
        Ok((Aggregate::new(name), read_head::<C::Backend>(row)?))
    })
}

/// Appends an entry that is not the last one of its redemption.
pub(crate) fn insert_entry<C: LogConnection>(conn: &mut C, row: &Row<'_>) -> QueryResult<()> {
    execute(conn, &Statement::<InsertEntry>::new(&row.binds())).map(|_| ())
}

/// The stored envelope of one entry, to compare its hash.
pub(crate) fn envelope<C: LogConnection>(
    conn: &mut C,
    name: &str,
    sequence: i64,
) -> QueryResult<Option<Vec<u8>>> {
    load_one(
        conn,
        Statement::<SelectHash>::new(&[Bind::Text(name), Bind::I64(sequence)]),
        |row| C::Backend::read_bytes(row, 0)?.ok_or_else(|| malformed("an envelope")),
    )
}

fn read_row<DB: LogBackend>(row: &dyn RawRow<DB>) -> QueryResult<StoredRow> {
    Ok(StoredRow {
        id: DB::read_i64(row, 0)?,
        create_time: DB::read_i64(row, 1)?,
        version: DB::read_i64(row, 2)?,
        aggregate_name: DB::read_text(row, 3)?.ok_or_else(|| malformed("an aggregate name"))?,
        sequence: DB::read_i64(row, 4)?,
        key_id: DB::read_bytes(row, 5)?.ok_or_else(|| malformed("a key id"))?,
        txn_id: DB::read_bytes(row, 6)?,
        metadata: DB::read_bytes(row, 7)?.ok_or_else(|| malformed("metadata"))?,
        data: DB::read_bytes(row, 8)?.ok_or_else(|| malformed("an envelope"))?,
    })
}

/// Rows of a page at most, and their bytes: one entry may be as large as 16 MiB, so that a page is
/// bounded by both. A single entry above the bytes is a page of its own.
const PAGE_ROWS: i64 = 4096;
const PAGE_BYTES: i64 = 8 << 20;

/// The entries after `id`, in the order of their ids: a page of bounded size, empty at the end.
pub(crate) fn page_by_id<C: LogConnection>(
    conn: &mut C,
    after: i64,
) -> QueryResult<Vec<StoredRow>> {
    let sizes = load(
        conn,
        Statement::<SelectSizesById>::new(&[Bind::I64(after), Bind::I64(PAGE_ROWS)]),
        read_size::<C::Backend>,
    )?;
    let Some(last) = page_end(&sizes) else {
        return Ok(Vec::new());
    };
    load(
        conn,
        Statement::<SelectById>::new(&[Bind::I64(after), Bind::I64(last)]),
        read_row::<C::Backend>,
    )
}

/// The entries of an aggregate after one sequence and up to another: a page of bounded size, empty
/// at the end.
pub(crate) fn page_by_sequence<C: LogConnection>(
    conn: &mut C,
    name: &str,
    after: i64,
    to: i64,
) -> QueryResult<Vec<StoredRow>> {
    let sizes = load(
        conn,
        Statement::<SelectSizesBySequence>::new(&[
            Bind::Text(name),
            Bind::I64(after),
            Bind::I64(to),
            Bind::I64(PAGE_ROWS),
        ]),
        read_size::<C::Backend>,
    )?;
    let Some(last) = page_end(&sizes) else {
        return Ok(Vec::new());
    };
    load(
        conn,
        Statement::<SelectBySequence>::new(&[Bind::Text(name), Bind::I64(after), Bind::I64(last)]),
        read_row::<C::Backend>,
    )
}

fn read_size<DB: LogBackend>(row: &dyn RawRow<DB>) -> QueryResult<(i64, i64)> {
    Ok((DB::read_i64(row, 0)?, DB::read_i64(row, 1)?))
}

/// The last position of the page that these (position, bytes) make.
fn page_end(sizes: &[(i64, i64)]) -> Option<i64> {
    let mut end = None;
    let mut bytes = 0_i64;
    for &(position, size) in sizes {
        bytes = bytes.saturating_add(size);
        if end.is_some() && bytes > PAGE_BYTES {
            break;
        }
        end = Some(position);
    }
    end
}

/// The head that a missing ticket stands for.
pub(crate) fn genesis(log: &LogRow, name: &str) -> Head {
    Head::genesis(&log.log_id, name, log.epoch)
}

#[cfg(test)]
mod tests {
    use super::page_end;

    #[test]
    fn a_page_ends_at_its_bytes_but_holds_at_least_one_entry() {
        assert_eq!(page_end(&[]), None);
        assert_eq!(page_end(&[(1, 20 << 20)]), Some(1));
        assert_eq!(page_end(&[(1, 20 << 20), (2, 1)]), Some(1));
        assert_eq!(page_end(&[(1, 5 << 20), (2, 3 << 20), (3, 1)]), Some(2));
        assert_eq!(page_end(&[(1, i64::MAX), (2, i64::MAX)]), Some(1));
    }
}
