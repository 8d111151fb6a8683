//! What the cases share: a log on a database of its own, its messages as text, and the checks that
//! every test ends with.

use std::fmt::Write as _;

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Text};
use oplog_diesel::core::{Group, Hash, Message, Receipt, RowValues, Value};
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, OplogBuilder, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};

/// A log, and one connection to it.
pub struct Fixture {
    pub db: Db,
    pub oplog: Oplog,
    pub conn: Conn,
    seen: usize,
}

/// An entry, opened.
pub struct Logged {
    pub aggregate: String,
    pub sequence: u64,
    pub hash: Hash,
    pub group: Option<Group>,
    pub metadata: Vec<(String, Option<String>)>,
    /// Each message with all that it holds.
    pub messages: Vec<String>,
}

/// Everything that a transaction can change.
#[derive(Debug, PartialEq)]
pub struct Snapshot {
    pub accounts: Vec<Account>,
    pub postings: Vec<Posting>,
    pub settings: Vec<Setting>,
    /// Name, version and head hash.
    pub tickets: Vec<Ticket>,
    pub entries: i64,
}

#[derive(QueryableByName, Debug, PartialEq)]
pub struct Ticket {
    #[diesel(sql_type = Text)]
    pub name: String,
    #[diesel(sql_type = BigInt)]
    pub version: i64,
    #[diesel(sql_type = Binary)]
    pub head_hash: Vec<u8>,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Whether this is the long run of `cargo xtask soak`, which has time.
pub fn is_soak() -> bool {
    std::env::var_os("OPLOG_SOAK").is_some_and(|value| !value.is_empty())
}

/// The log's description, with the key in the folder of the database.
pub fn builder(db: &Db) -> OplogBuilder {
    Oplog::builder().key(KeyFile::create_if_missing(db.folder().join("oplog.key")).unwrap())
}

impl Fixture {
    pub fn new() -> Self {
        Self::on(Db::new())
    }

    pub fn on(db: Db) -> Self {
        let mut conn = db.connect();
        let oplog = builder(&db).open(&mut conn).unwrap();
        Fixture {
            db,
            oplog,
            conn,
            seen: 0,
        }
    }

    /// A logged transaction without anything around it.
    pub fn run<T>(
        &mut self,
        body: impl FnMut(&mut Tx<'_, Conn>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.oplog.transaction(&mut self.conn, body)
    }

    /// A stored account of this owner.
    pub fn account(&mut self, owner: &str) -> Account {
        let account = self
            .run(|tx| tx.logged_insert(&NewAccount { owner }))
            .unwrap();
        self.news();
        account
    }

    /// A counter at 0, whose ticket is locked first.
    pub fn counter(&mut self, id: i64) {
        self.oplog
            .on(format!("counter:{id}"))
            .transaction(&mut self.conn, |tx| {
                tx.logged_insert::<Counter, _>(Counter { id, n: 0 })
            })
            .map_err(|error: Error| error)
            .unwrap();
        self.news();
    }

    /// Every entry, in the order of ids.
    pub fn entries(&mut self) -> Vec<Logged> {
        entries(&self.oplog, &mut self.conn)
    }

    /// Entries that were not asked for before.
    pub fn new_entries(&mut self) -> Vec<Logged> {
        let entries = self.entries().split_off(self.seen);
        self.seen += entries.len();
        entries
    }

    /// Messages that were not asked for before, each after its aggregate and sequence.
    pub fn news(&mut self) -> Vec<String> {
        let place = |entry: &Logged| format!("{}/{}", entry.aggregate, entry.sequence);
        let lines = |entry: Logged| {
            let place = place(&entry);
            entry
                .messages
                .into_iter()
                .map(move |line| format!("{place} {line}"))
        };
        self.new_entries().into_iter().flat_map(lines).collect()
    }

    /// As [`news`](Self::news), for statements whose order of rows is open: sorted and without the
    /// ordinals, which must number all messages.
    pub fn news_sorted(&mut self) -> Vec<String> {
        let (mut lines, mut ordinals): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
        for line in self.news() {
            match line.rsplit_once(" #") {
                Some((line, ordinal)) => {
                    lines.push(line.to_owned());
                    ordinals.push(ordinal.parse().unwrap());
                }
                None => lines.push(line),
            }
        }
        ordinals.sort_unstable();
        if !ordinals.is_empty() {
            assert_eq!(ordinals, (0..lines.len()).collect::<Vec<_>>());
        }
        lines.sort();
        lines
    }

    pub fn snapshot(&mut self) -> Snapshot {
        snapshot(&mut self.conn)
    }

    /// Runs something that must leave rows, tickets and entries as they are.
    pub fn unchanged<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.snapshot();
        let value = body(self);
        assert_eq!(self.snapshot(), before);
        self.check();
        value
    }

    /// The log is intact and gives exactly the rows; the connection is free.
    pub fn check(&mut self) {
        check(&self.oplog, &mut self.conn);
    }
}

/// Messages of all entries, each after its aggregate and sequence.
pub fn messages(oplog: &Oplog, conn: &mut Conn) -> Vec<String> {
    let entries = entries(oplog, conn).into_iter();
    let lines = entries.flat_map(|entry| {
        let place = format!("{}/{}", entry.aggregate, entry.sequence);
        let lines = entry.messages.into_iter();
        lines.map(move |line| format!("{place} {line}"))
    });
    lines.collect()
}

pub fn entries(oplog: &Oplog, conn: &mut Conn) -> Vec<Logged> {
    let stored: Vec<_> = oplog.entries(conn).collect::<Result<_, _>>().unwrap();
    stored
        .iter()
        .map(|stored| {
            let entry = oplog.open_entry(stored).unwrap();
            let metadata = entry
                .metadata
                .iter()
                .map(|(key, _, value)| (key.to_owned(), value.map(str::to_owned)));
            Logged {
                aggregate: entry.header.aggregate.as_str().to_owned(),
                sequence: entry.header.sequence,
                hash: stored.entry_hash(),
                group: entry.header.group,
                metadata: metadata.collect(),
                messages: entry
                    .messages
                    .iter()
                    .map(|message| line(oplog, message))
                    .collect(),
            }
        })
        .collect()
}

/// Receipts are those of the entries, in their order.
pub fn assert_receipts(receipts: &[Receipt], entries: &[Logged]) {
    let receipts: Vec<_> = receipts
        .iter()
        .map(|receipt| {
            (
                receipt.aggregate.as_str(),
                receipt.sequence,
                receipt.entry_hash,
            )
        })
        .collect();
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| (entry.aggregate.as_str(), entry.sequence, entry.hash))
        .collect();
    assert_eq!(receipts, entries);
}

pub fn snapshot(conn: &mut Conn) -> Snapshot {
    Snapshot {
        accounts: accounts::table
            .select(Account::as_select())
            .order(accounts::id)
            .load(conn)
            .unwrap(),
        postings: postings::table
            .select(Posting::as_select())
            .order(postings::id)
            .load(conn)
            .unwrap(),
        settings: settings::table
            .select(Setting::as_select())
            .order((settings::section, settings::name))
            .load(conn)
            .unwrap(),
        tickets: diesel::sql_query(
            "SELECT name, version, head_hash FROM oplog_ticket ORDER BY name",
        )
        .load(conn)
        .unwrap(),
        entries: count(conn, "oplog_entry"),
    }
}

pub fn check(oplog: &Oplog, conn: &mut Conn) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static REPLAYS: AtomicU32 = AtomicU32::new(0);

    assert_free(conn);
    let report = oplog.verify_contents(conn).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    let suffix = format!("_again_{}", REPLAYS.fetch_add(1, Ordering::Relaxed));
    let replayed = oplog.replay(conn).into_suffix(&suffix).unwrap();
    assert_eq!(replayed.entries, report.entries);
    for table in ["accounts", "postings", "settings", "counters", "everything"] {
        let copy = format!("{table}{suffix}");
        let live = count(conn, table);
        assert_eq!(count(conn, &copy), live, "rows of {table}");
        let both = format!("(SELECT * FROM {table} INTERSECT SELECT * FROM {copy}) AS both_tables");
        assert_eq!(
            count(conn, &both),
            live,
            "rows of {table} that are the same"
        );
    }
    assert_free(conn);
}

/// The connection is not in a transaction, neither for Diesel nor for the database.
pub fn assert_free(conn: &mut Conn) {
    let status =
        <AnsiTransactionManager as TransactionManager<Conn>>::transaction_manager_status_mut(conn);
    assert_eq!(status.transaction_depth().unwrap(), None);
    conn.transaction(|_| QueryResult::Ok(())).unwrap();
}

pub fn count(conn: &mut Conn, table: &str) -> i64 {
    diesel::sql_query(format!("SELECT count(*) AS n FROM {table}"))
        .get_result::<Count>(conn)
        .unwrap()
        .n
}

/// A message with all that it holds: `<op> <type>(<row>)`, the tags that are NULL, the row as it
/// `was` with its own, the columns `set` to a value and `unset` to NULL, `#` and the ordinal. What
/// is empty is left out.
fn line(oplog: &Oplog, message: &Message) -> String {
    let def = oplog.catalog().by_name(&message.type_name).unwrap().def();
    let mut line = format!(
        "{} {}({})",
        message.op,
        def.type_name,
        columns(&message.values(def).unwrap())
    );
    if !message.null_tags.is_empty() {
        write!(line, " nulls{:?}", message.null_tags).unwrap();
    }
    if let Some(previous) = message.previous_values(def).unwrap() {
        write!(line, " was({})", columns(&previous)).unwrap();
    }
    if !message.previous_null_tags.is_empty() {
        write!(line, " was_nulls{:?}", message.previous_null_tags).unwrap();
    }
    if !message.field_mask.is_empty() {
        write!(line, " set[{}]", message.field_mask.join(",")).unwrap();
    }
    if !message.null_mask.is_empty() {
        write!(line, " unset[{}]", message.null_mask.join(",")).unwrap();
    }
    if message.options.is_some() {
        line.push_str(" options");
    }
    if let Some(ordinal) = message.ordinal {
        write!(line, " #{ordinal}").unwrap();
    }
    line
}

fn columns(row: &RowValues<'_>) -> String {
    let text = |value: &Value<'_>| match value {
        Value::Null => "NULL".to_owned(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) if bytes.len() > 64 => format!("{} bytes", bytes.len()),
        Value::Bytes(bytes) => format!("{bytes:?}"),
        other => other.to_string(),
    };
    let columns: Vec<_> = row
        .iter()
        .map(|(column, value)| format!("{}={}", column.name, text(value)))
        .collect();
    columns.join(" ")
}
