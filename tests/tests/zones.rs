//! Columns whose SQL type goes by another name on the other database, or does not exist there.

use chrono::{DateTime, Utc};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Divergence, Error};
use oplog_tests::{postgres, sqlite};

diesel::table! {
    visits (id) {
        id -> Integer,
        at -> Timestamptz,
        left -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    calls (id) {
        id -> Integer,
        at -> TimestamptzSqlite,
        ended -> Nullable<TimestamptzSqlite>,
    }
}

diesel::table! {
    flows (id) {
        id -> Integer,
        rate -> diesel::pg::sql_types::Oid,
    }
}

#[derive(Queryable, Selectable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = visits)]
#[oplog(type_name = "visit", aggregate = "visits")]
struct Visit {
    #[oplog(tag = 1)]
    id: i32,
    #[oplog(tag = 2)]
    at: DateTime<Utc>,
    #[oplog(tag = 3)]
    left: Option<DateTime<Utc>>,
}

#[derive(Queryable, Selectable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = calls)]
#[oplog(type_name = "call", aggregate = "calls")]
struct Call {
    #[oplog(tag = 1)]
    id: i32,
    #[oplog(tag = 2)]
    at: DateTime<Utc>,
    #[oplog(tag = 3)]
    ended: Option<DateTime<Utc>>,
}

/// A model that SQLite has no type for. It compiles for both.
#[derive(Queryable, Selectable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = flows)]
#[oplog(type_name = "flow", aggregate = "flows")]
struct Flow {
    #[oplog(tag = 1)]
    id: i32,
    #[oplog(tag = 2)]
    rate: u32,
}

fn key(folder: &std::path::Path) -> KeyFile {
    KeyFile::create_if_missing(folder.join("oplog.key")).unwrap()
}

fn moments() -> Vec<DateTime<Utc>> {
    [
        "1969-12-31T23:59:59.999999Z",
        "2026-02-28T12:00:00Z",
        "2100-01-01T00:00:00.000001Z",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect()
}

const ON_SQLITE: &str = "CREATE TABLE visits (id INTEGER PRIMARY KEY, at TEXT NOT NULL, \"left\" TEXT); \
     CREATE TABLE calls (id INTEGER PRIMARY KEY, at TEXT NOT NULL, ended TEXT); \
     CREATE TABLE flows (id INTEGER PRIMARY KEY, rate INTEGER NOT NULL)";
const ON_POSTGRES: &str = "CREATE TABLE visits (id INTEGER PRIMARY KEY, at TIMESTAMPTZ NOT NULL, \"left\" TIMESTAMPTZ); \
     CREATE TABLE calls (id INTEGER PRIMARY KEY, at TIMESTAMPTZ NOT NULL, ended TIMESTAMPTZ); \
     CREATE TABLE flows (id INTEGER PRIMARY KEY, rate OID NOT NULL)";

#[test]
fn moments_cross_from_postgres_to_sqlite() {
    let (from, to) = (postgres::Db::new(), sqlite::Db::new());
    let (mut source, mut target) = (from.connect(), to.connect());
    source.batch_execute(ON_POSTGRES).unwrap();
    target.batch_execute(ON_SQLITE).unwrap();
    let oplog = Oplog::builder()
        .key(key(from.folder()))
        .open(&mut source)
        .unwrap();
    let rows: Vec<Visit> = (0..)
        .zip(moments())
        .map(|(id, at)| Visit {
            id,
            at,
            left: (id == 1).then_some(at),
        })
        .collect();
    let stored: Vec<Visit> = oplog
        .transaction(&mut source, |tx| tx.logged_insert_many(rows.clone()))
        .map_err(|error: Error| error)
        .unwrap();
    assert_eq!(stored, rows);
    let report = oplog
        .replay(&mut source)
        .into_database(&mut target)
        .unwrap();
    assert_eq!(report.rows, 3);
    // The same rows, read on SQLite as what stands for the type there.
    let crossed: Vec<(i32, DateTime<Utc>, Option<DateTime<Utc>>)> =
        diesel::sql_query("SELECT id, at, \"left\" FROM visits ORDER BY id")
            .load::<Row>(&mut target)
            .unwrap()
            .into_iter()
            .map(|row| (row.id, row.at, row.left))
            .collect();
    let expected: Vec<_> = rows
        .into_iter()
        .map(|row| (row.id, row.at, row.left))
        .collect();
    assert_eq!(crossed, expected);
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    id: i32,
    #[diesel(sql_type = diesel::sql_types::TimestamptzSqlite)]
    at: DateTime<Utc>,
    #[diesel(sql_type = diesel::sql_types::Nullable<diesel::sql_types::TimestamptzSqlite>)]
    left: Option<DateTime<Utc>>,
}

#[test]
fn moments_cross_from_sqlite_to_postgres() {
    let (from, to) = (sqlite::Db::new(), postgres::Db::new());
    let (mut source, mut target) = (from.connect(), to.connect());
    source.batch_execute(ON_SQLITE).unwrap();
    target.batch_execute(ON_POSTGRES).unwrap();
    let oplog = Oplog::builder()
        .key(key(from.folder()))
        .open(&mut source)
        .unwrap();
    let rows: Vec<Call> = (0..)
        .zip(moments())
        .map(|(id, at)| Call {
            id,
            at,
            ended: (id != 1).then_some(at),
        })
        .collect();
    let stored: Vec<Call> = oplog
        .transaction(&mut source, |tx| tx.logged_insert_many(rows.clone()))
        .map_err(|error: Error| error)
        .unwrap();
    assert_eq!(stored, rows);
    oplog
        .replay(&mut source)
        .into_database(&mut target)
        .unwrap();
    target
        .batch_execute("INSERT INTO visits SELECT id, at, ended FROM calls")
        .unwrap();
    let crossed: Vec<Visit> = visits::table
        .order(visits::id)
        .select(Visit::as_select())
        .load(&mut target)
        .unwrap();
    let expected: Vec<Visit> = rows
        .into_iter()
        .map(|row| Visit {
            id: row.id,
            at: row.at,
            left: row.ended,
        })
        .collect();
    assert_eq!(crossed, expected);
}

#[test]
fn a_type_that_is_missing_there_is_named() {
    let (from, to) = (postgres::Db::new(), sqlite::Db::new());
    let (mut source, mut target) = (from.connect(), to.connect());
    source.batch_execute(ON_POSTGRES).unwrap();
    target.batch_execute(ON_SQLITE).unwrap();
    let oplog = Oplog::builder()
        .key(key(from.folder()))
        .open(&mut source)
        .unwrap();
    assert_eq!(
        oplog.catalog().by_name("flow").unwrap().def().columns.len(),
        2
    );
    let flow: Flow = oplog
        .transaction(&mut source, |tx| {
            tx.logged_insert(&Flow {
                id: 7,
                rate: u32::MAX,
            })
        })
        .map_err(|error: Error| error)
        .unwrap();
    assert_eq!(flow.rate, u32::MAX);
    assert_eq!(oplog.replay(&mut source).into_suffix("_x").unwrap().rows, 1);
    let error = oplog
        .replay(&mut source)
        .into_database(&mut target)
        .unwrap_err();
    match &error {
        Error::Diverged {
            aggregate,
            sequence: 1,
            table,
            key,
            what,
        } => {
            assert_eq!(
                (aggregate.as_str(), table.as_str(), key.as_str()),
                ("flows", "flows", "id = 7")
            );
            assert_eq!(what, &Divergence::Unsupported { column: "rate" });
        }
        other => panic!("{other:?}"),
    }
    let left: i64 = flows_left(&mut target);
    assert_eq!(left, 0);
}

fn flows_left(conn: &mut SqliteConnection) -> i64 {
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
    }
    diesel::sql_query("SELECT count(*) AS n FROM flows")
        .get_result::<Count>(conn)
        .unwrap()
        .n
}
