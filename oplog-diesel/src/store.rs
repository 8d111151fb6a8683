//! The log's own tables: tickets, entries and the log's identity.

use diesel::QueryResult;
use oplog_core::{
    AGGREGATE_LEN_MAX, Aggregate, Closing, ENVELOPE_LEN_MAX, Envelope, EnvelopeError,
    EnvelopeLimits, Head, LogId, METADATA_LEN_MAX, SCHEMA, SealedEntry,
};

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
    /// How many bytes there are in the database, which may be too many to have been read.
    pub data_len: usize,
}

impl StoredRow {
    /// The envelope, of which nothing is proven yet.
    pub fn envelope(&self) -> Result<Envelope<'_>, EnvelopeError> {
        if self.data_len > ENVELOPE_LEN_MAX {
            return Err(EnvelopeError::TooLong {
                len: self.data_len,
                max: ENVELOPE_LEN_MAX,
            });
        }
        Envelope::parse(&self.data, &EnvelopeLimits::default())
    }
}

statements! {
    SelectLog = "SELECT log_id, epoch FROM oplog_log";
    SelectTicket = "SELECT version, head_hash, epoch FROM oplog_ticket WHERE name = ?";
    SelectTickets = "SELECT version, head_hash, epoch, name FROM oplog_ticket ORDER BY name";
    InsertEntry = "INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    SelectSizesById = "SELECT id, length(aggregate_name) + length(key_id) + coalesce(length(txn_id), 0) + length(metadata) + length(data), id FROM oplog_entry WHERE id > ? ORDER BY id LIMIT ?";
    SelectById = "SELECT id, create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data FROM oplog_entry WHERE id > ? AND id <= ? ORDER BY id";
    SelectSizesBySequence = "SELECT sequence, length(aggregate_name) + length(key_id) + coalesce(length(txn_id), 0) + length(metadata) + length(data), id FROM oplog_entry WHERE aggregate_name = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?";
    SelectBySequence = "SELECT id, create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data FROM oplog_entry WHERE aggregate_name = ? AND sequence > ? AND sequence <= ? ORDER BY sequence";
    // What is too long even for one column is cut behind what it may have, or is NULL. A value that is
    // short is not put through `substr`, which makes NULL of an empty blob.
    SelectCut = "SELECT id, create_time, version, \
        CASE WHEN length(aggregate_name) <= 255 THEN aggregate_name ELSE substr(aggregate_name, 1, 256) END, \
        sequence, \
        CASE WHEN length(key_id) <= 16 THEN key_id ELSE substr(key_id, 1, 17) END, \
        CASE WHEN length(txn_id) <= 16 THEN txn_id ELSE substr(txn_id, 1, 17) END, \
        CASE WHEN length(metadata) <= ? THEN metadata END, \
        CASE WHEN length(data) <= ? THEN data END, length(data) FROM oplog_entry WHERE id = ?";
    SelectHash = "SELECT CASE WHEN length(data) <= ? THEN data END FROM oplog_entry WHERE aggregate_name = ? AND sequence = ?";
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

/// The stored envelope of one entry, to compare its hash. No byte if it is too long for one.
pub(crate) fn envelope<C: LogConnection>(
    conn: &mut C,
    name: &str,
    sequence: i64,
) -> QueryResult<Option<Vec<u8>>> {
    load_one(
        conn,
        Statement::<SelectHash>::new(&[ENVELOPE_MAX, Bind::Text(name), Bind::I64(sequence)]),
        |row| Ok(C::Backend::read_bytes(row, 0)?.unwrap_or_default()),
    )
}

fn read_row<DB: LogBackend>(row: &dyn RawRow<DB>) -> QueryResult<StoredRow> {
    let data = DB::read_bytes(row, 8)?.unwrap_or_default();
    Ok(StoredRow {
        id: DB::read_i64(row, 0)?,
        create_time: DB::read_i64(row, 1)?,
        version: DB::read_i64(row, 2)?,
        aggregate_name: DB::read_text(row, 3)?.ok_or_else(|| malformed("an aggregate name"))?,
        sequence: DB::read_i64(row, 4)?,
        key_id: DB::read_bytes(row, 5)?.ok_or_else(|| malformed("a key id"))?,
        txn_id: DB::read_bytes(row, 6)?,
        // Without its bytes, its hash is not that of the header.
        metadata: DB::read_bytes(row, 7)?.unwrap_or_default(),
        data_len: data.len(),
        data,
    })
}

fn read_cut_row<DB: LogBackend>(row: &dyn RawRow<DB>) -> QueryResult<StoredRow> {
    let data_len = DB::read_i64(row, 9)?;
    Ok(StoredRow {
        data_len: usize::try_from(data_len).unwrap_or(usize::MAX),
        ..read_row(row)?
    })
}

const METADATA_MAX: Bind<'_> = Bind::I64(METADATA_LEN_MAX as i64);
const ENVELOPE_MAX: Bind<'_> = Bind::I64(ENVELOPE_LEN_MAX as i64);

/// Rows of a page at most, and their bytes: one entry may be as large as 16 MiB, so that a page is
/// bounded by both. A single entry above the bytes is a page of its own.
const PAGE_ROWS: i64 = 4096;
const PAGE_BYTES: i64 = 8 << 20;
/// More than a row has. Whoever owns the database may have put a longer one there, and that must not
/// fill the memory of who reads it.
const ROW_BYTES_MAX: i64 =
    (AGGREGATE_LEN_MAX + 2 * ID_LEN + METADATA_LEN_MAX + ENVELOPE_LEN_MAX) as i64;
const ID_LEN: usize = 16;

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
    page(conn, &sizes, |conn, last| {
        load(
            conn,
            Statement::<SelectById>::new(&[Bind::I64(after), Bind::I64(last)]),
            read_row::<C::Backend>,
        )
    })
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
    page(conn, &sizes, |conn, last| {
        let binds = [Bind::Text(name), Bind::I64(after), Bind::I64(last)];
        load(
            conn,
            Statement::<SelectBySequence>::new(&binds),
            read_row::<C::Backend>,
        )
    })
}

/// The size of a row, and where it is.
struct Size {
    position: i64,
    bytes: i64,
    id: i64,
}

fn read_size<DB: LogBackend>(row: &dyn RawRow<DB>) -> QueryResult<Size> {
    Ok(Size {
        position: DB::read_i64(row, 0)?,
        bytes: DB::read_i64(row, 1)?,
        id: DB::read_i64(row, 2)?,
    })
}

/// The page that begins with rows of these sizes. `read` reads the rows up to a position.
fn page<C: LogConnection>(
    conn: &mut C,
    sizes: &[Size],
    read: impl FnOnce(&mut C, i64) -> QueryResult<Vec<StoredRow>>,
) -> QueryResult<Vec<StoredRow>> {
    match sizes.first() {
        // Longer than a page: it is one of its own.
        Some(first) if first.bytes > ROW_BYTES_MAX => load(
            conn,
            Statement::<SelectCut>::new(&[METADATA_MAX, ENVELOPE_MAX, Bind::I64(first.id)]),
            read_cut_row::<C::Backend>,
        ),
        _ => match page_end(sizes) {
            Some(last) => read(conn, last),
            None => Ok(Vec::new()),
        },
    }
}

/// The last position of the page that begins with rows of these sizes.
fn page_end(sizes: &[Size]) -> Option<i64> {
    let mut end = None;
    let mut bytes = 0_i64;
    for size in sizes {
        bytes = bytes.saturating_add(size.bytes);
        if end.is_some() && bytes > PAGE_BYTES {
            break;
        }
        end = Some(size.position);
    }
    end
}

/// The head that a missing ticket stands for.
pub(crate) fn genesis(log: &LogRow, name: &str) -> Head {
    Head::genesis(&log.log_id, name, log.epoch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_page_ends_at_its_bytes_but_holds_at_least_one_entry() {
        let page_end = |sizes: &[(i64, i64)]| {
            let size = |&(position, bytes)| Size {
                position,
                bytes,
                id: 0,
            };
            page_end(&sizes.iter().map(size).collect::<Vec<_>>())
        };
        assert_eq!(page_end(&[]), None);
        assert_eq!(page_end(&[(1, 20 << 20)]), Some(1));
        assert_eq!(page_end(&[(1, 20 << 20), (2, 1)]), Some(1));
        assert_eq!(page_end(&[(1, 5 << 20), (2, 3 << 20), (3, 1)]), Some(2));
        assert_eq!(page_end(&[(1, i64::MAX), (2, i64::MAX)]), Some(1));
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn what_is_longer_than_it_may_be_is_not_read() {
        use diesel::connection::{Connection as _, SimpleConnection as _};

        let mut conn = diesel::SqliteConnection::establish(":memory:").unwrap();
        crate::run_migrations(&mut conn).unwrap();
        let insert = |id, name, blob, metadata, data| {
            format!(
                "INSERT INTO oplog_entry VALUES ({id}, 0, 2, {name}, 1, zeroblob({blob}), \
                 zeroblob({blob}), zeroblob({metadata}), zeroblob({data}));"
            )
        };
        conn.batch_execute("PRAGMA ignore_check_constraints = ON")
            .unwrap();
        let (metadata, data) = (METADATA_LEN_MAX, ENVELOPE_LEN_MAX);
        conn.batch_execute(&insert(1, "'a'", 16, metadata, data))
            .unwrap();
        let long = "hex(zeroblob(10000))";
        conn.batch_execute(&insert(2, long, 10_000, metadata + 1, data + 1))
            .unwrap();
        let mut lengths = Vec::new();
        let mut after = 0;
        while let [row] = &page_by_id(&mut conn, after).unwrap()[..] {
            let again = page_by_sequence(&mut conn, &row.aggregate_name, 0, 1).unwrap();
            assert_eq!(again.len(), usize::from(row.id == 1));
            lengths.push((
                row.aggregate_name.len(),
                row.key_id.len(),
                row.txn_id.as_ref().map(Vec::len),
                row.metadata.len(),
                row.data.len(),
                row.data_len,
            ));
            after = row.id;
        }
        assert_eq!(
            lengths,
            [
                (1, 16, Some(16), metadata, data, data),
                (256, 17, Some(17), 0, 0, data + 1)
            ]
        );
    }
}
