//! The rows of a log, written anew: into copies beside the originals and into another database.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Divergence, Error, Frontier, TargetError};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};
use crate::evidence::*;
use crate::sabotage::*;

diesel::table! {
    tree (id) { id -> Integer, parent_id -> Nullable<Integer>, }
}
diesel::table! {
    places (id) { id -> Integer, place -> Integer, }
}
diesel::table! {
    boxes (id) { id -> Integer, width -> Integer, area -> Integer, }
}

/// A row that refers to rows of its own table.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = tree)]
#[oplog(type_name = "tree", aggregate = "tree")]
struct Node {
    #[oplog(tag = 1)]
    id: i32,
    #[oplog(tag = 2)]
    parent_id: Option<i32>,
}

/// A row with a unique column beside its key.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = places)]
#[oplog(type_name = "place", aggregate = "places")]
struct Place {
    #[oplog(tag = 1)]
    id: i32,
    #[oplog(tag = 2)]
    place: i32,
}

/// A row with a column that the database computes.
#[derive(Queryable, Selectable, Identifiable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = boxes)]
#[oplog(type_name = "box", aggregate = "boxes")]
struct Crate {
    #[oplog(tag = 1)]
    id: i32,
    #[oplog(tag = 2)]
    width: i32,
    #[oplog(tag = 3)]
    area: i32,
}

/// A database with a table of its own beside the usual ones.
fn with_table(sql: &str) -> (Db, Oplog, Conn) {
    let db = Db::new();
    let mut conn = db.connect();
    run(&mut conn, sql);
    let oplog = open(&db);
    (db, oplog, conn)
}

fn new() -> (Db, Oplog, Conn) {
    with_table("")
}

fn insert(conn: &mut Conn, oplog: &Oplog, owner: &str) -> Account {
    oplog
        .transaction::<_, _, Error, _>(conn, |tx| tx.logged_insert(&NewAccount { owner }))
        .unwrap()
}

/// The rows of a table in some order that depends on nothing but them.
fn all<T: FromTable>(conn: &mut Conn, table: &str) -> Vec<T> {
    let mut rows = T::load(conn, table);
    rows.sort_by_key(|row| format!("{row:?}"));
    rows
}

/// Rows of a model from its own table or from a copy of it.
trait FromTable: Sized + std::fmt::Debug {
    fn load(conn: &mut Conn, table: &str) -> Vec<Self>;
}

macro_rules! rows_of {
    ($($model:ty: $table:ident;)*) => {
        $(
            impl FromTable for $model {
                fn load(conn: &mut Conn, table: &str) -> Vec<Self> {
                    let name = stringify!($table);
                    let rename = |conn: &mut Conn, from: &str, to: &str| {
                        run(conn, &format!("ALTER TABLE \"{from}\" RENAME TO \"{to}\""));
                    };
                    if table != name {
                        // The copy under the name of the original, for a moment.
                        rename(conn, name, "away");
                        rename(conn, table, name);
                    }
                    let rows = $table::table.select(<$model>::as_select()).load(conn).unwrap();
                    if table != name {
                        rename(conn, name, table);
                        rename(conn, "away", name);
                    }
                    rows
                }
            }
        )*
    };
}

rows_of! {
    Account: accounts;
    Posting: postings;
    Setting: settings;
    Everything: everything;
    Node: tree;
    Place: places;
    Crate: boxes;
}

/// Replays into copies and expects the same rows there.
fn same<T: FromTable>(oplog: &Oplog, conn: &mut Conn, table: &str) -> u64 {
    let report = oplog
        .replay(conn)
        .into_suffix("_x")
        .unwrap_or_else(|error| panic!("{}", brief(&error)));
    let (originals, copies) = (all::<T>(conn, table), all::<T>(conn, &format!("{table}_x")));
    assert_eq!(format!("{originals:?}"), format!("{copies:?}"));
    report.rows
}

fn date(year: i32, month: u32, day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(year, month, day).unwrap()
}

pub fn plain(id: i32) -> Everything {
    let midnight = NaiveTime::from_hms_opt(0, 0, 0).unwrap();
    Everything {
        id,
        a_bool: false,
        a_small: 0,
        an_int: 0,
        a_big: 0,
        a_float: 0.0,
        a_double: 0.0,
        a_text: String::new(),
        some_bytes: Vec::new(),
        a_date: date(1970, 1, 1),
        a_time: midnight,
        a_timestamp: date(1970, 1, 1).and_time(midnight),
        maybe_bool: None,
        maybe_small: None,
        maybe_int: None,
        maybe_big: None,
        maybe_float: None,
        maybe_double: None,
        maybe_text: None,
        maybe_bytes: None,
        maybe_date: None,
        maybe_time: None,
        maybe_timestamp: None,
    }
}

/// Rows that every database can hold.
pub fn everywhere() -> Vec<Everything> {
    let time = |h, m, s, us| NaiveTime::from_hms_micro_opt(h, m, s, us).unwrap();
    let long_ago: NaiveDateTime = date(1, 1, 1).and_time(time(0, 0, 0, 1));
    let far = date(9999, 12, 31).and_time(time(23, 59, 59, 999_999));
    let largest = Everything {
        a_bool: true,
        a_small: i16::MAX,
        an_int: i32::MAX,
        a_big: i64::MAX,
        a_float: f32::MAX,
        a_double: f64::MAX,
        a_text: "ä\u{1f600}\r\n'\"\\%_; DROP TABLE accounts;--".to_owned(),
        some_bytes: (0..=255).collect(),
        a_date: date(9999, 12, 31),
        a_time: time(23, 59, 59, 999_999),
        a_timestamp: far,
        maybe_bool: Some(true),
        maybe_small: Some(i16::MAX),
        maybe_int: Some(i32::MAX),
        maybe_big: Some(i64::MAX),
        maybe_float: Some(f32::MIN_POSITIVE),
        maybe_double: Some(f64::MIN_POSITIVE),
        maybe_text: Some(String::new()),
        maybe_bytes: Some(Vec::new()),
        maybe_date: Some(date(9999, 12, 31)),
        maybe_time: Some(time(12, 0, 0, 1)),
        maybe_timestamp: Some(far),
        ..plain(i32::MAX)
    };
    let smallest = Everything {
        a_small: i16::MIN,
        an_int: i32::MIN,
        a_big: i64::MIN,
        a_float: f32::MIN,
        a_double: f64::MIN,
        a_date: date(1, 1, 1),
        a_timestamp: long_ago,
        maybe_bool: Some(false),
        maybe_small: Some(0),
        maybe_int: Some(i32::MIN),
        maybe_big: Some(i64::MIN),
        maybe_float: Some(-f32::MIN_POSITIVE),
        maybe_double: Some(0.1 + 0.2),
        maybe_text: Some("NULL".to_owned()),
        maybe_bytes: Some(vec![0]),
        maybe_date: Some(date(1969, 12, 31)),
        maybe_time: Some(time(0, 0, 0, 0)),
        maybe_timestamp: Some(date(1969, 12, 31).and_time(time(23, 59, 59, 500_000))),
        ..plain(i32::MIN)
    };
    vec![plain(0), largest, smallest]
}

/// Rows that only this database can hold.
fn only_here() -> Vec<Everything> {
    let nanos = |nanos| NaiveTime::from_hms_nano_opt(12, 34, 56, nanos).unwrap();
    if is_postgres() {
        vec![
            Everything {
                a_float: f32::NAN,
                a_double: f64::NAN,
                maybe_double: Some(f64::INFINITY),
                ..plain(1)
            },
            Everything {
                a_float: f32::NEG_INFINITY,
                a_double: -0.0,
                maybe_float: Some(-0.0),
                ..plain(2)
            },
            Everything {
                a_date: date(-4712, 1, 1),
                a_timestamp: date(-4700, 1, 1).and_time(NaiveTime::MIN),
                maybe_date: Some(date(200_000, 1, 1)),
                maybe_timestamp: Some(date(262_000, 1, 1).and_time(NaiveTime::MIN)),
                ..plain(3)
            },
        ]
    } else {
        vec![
            Everything {
                a_double: f64::INFINITY,
                maybe_float: Some(f32::NEG_INFINITY),
                ..plain(1)
            },
            Everything {
                a_text: "a\0b\0".to_owned(),
                maybe_text: Some("\0".to_owned()),
                ..plain(2)
            },
            Everything {
                a_time: nanos(123_456_789),
                a_timestamp: date(2026, 1, 1).and_time(nanos(1)),
                maybe_time: Some(nanos(999_999_999)),
                ..plain(3)
            },
            Everything {
                a_date: date(0, 1, 1),
                a_timestamp: date(-1, 1, 1).and_time(nanos(0)),
                ..plain(4)
            },
            Everything {
                a_date: date(10_000, 1, 1),
                a_timestamp: date(12_345, 1, 1).and_time(nanos(0)),
                maybe_date: Some(date(-12_345, 1, 1)),
                ..plain(5)
            },
        ]
    }
}

#[test]
fn every_type_comes_back() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    let rows = [everywhere(), only_here()].concat();
    for row in &rows {
        let stored: Everything = oplog
            .transaction(conn, |tx| tx.logged_insert(row))
            .unwrap_or_else(|error: Error| panic!("{row:?}: {}", shown(&error)));
        assert_eq!(format!("{stored:?}"), format!("{row:?}"));
    }
    assert_eq!(
        same::<Everything>(&oplog, conn, "everything"),
        rows.len() as u64
    );
    // All at once, and each changed into another and back.
    run(
        conn,
        "DROP TABLE everything_x; DROP TABLE postings_x; DROP TABLE accounts_x; DROP TABLE settings_x",
    );
    for row in &rows {
        oplog
            .transaction(conn, |tx| {
                let other = Everything {
                    id: row.id,
                    ..everywhere().remove(usize::from(row.a_small != i16::MAX))
                };
                let (key, was) = (row.id, row.clone());
                let deleted: Everything = tx.logged_delete_by_key(key)?;
                assert_eq!(format!("{deleted:?}"), format!("{was:?}"));
                let changed: Everything = tx.logged_insert(&other)?;
                let changed = tx.logged_update(&changed, everything::a_bool.eq(!changed.a_bool))?;
                tx.logged_delete(&changed)?;
                Ok::<_, Error>(())
            })
            .unwrap();
    }
    oplog
        .transaction(conn, |tx| {
            let again: Vec<Everything> = tx.logged_insert_many(rows.iter())?;
            assert_eq!(format!("{again:?}"), format!("{rows:?}"));
            tx.logged_update_where::<Everything, _, _>(
                everything::table,
                everything::maybe_int.eq(Some(5)),
            )?;
            tx.logged_update_where::<Everything, _, _>(
                everything::table,
                everything::maybe_int.eq(None::<i32>),
            )
        })
        .map_err(|error: Error| shown(&error))
        .unwrap();
    assert_eq!(
        same::<Everything>(&oplog, conn, "everything"),
        rows.len() as u64
    );
}

/// Creates, updates and deletes in all mixes, over composite keys, parents and children.
fn mix(oplog: &Oplog, conn: &mut Conn) -> Result<(), Error> {
    let setting = |name: &str, value| Setting {
        section: "s".into(),
        name: name.into(),
        value,
    };
    oplog.transaction(conn, |tx| {
        let a: Account = tx.logged_insert(&NewAccount { owner: "a" })?;
        let b: Account = tx.logged_insert((accounts::owner.eq("b"), accounts::email.eq("b@")))?;
        for (account, amount) in [(&a, 1), (&b, 2), (&a, 3)] {
            let _: Posting = tx.logged_insert((
                postings::account_id.eq(account.id),
                postings::amount.eq(amount),
            ))?;
        }
        tx.logged_insert_many::<Setting, _>(vec![
            setting("1", None),
            setting("2", Some(vec![])),
            setting("3", None),
        ])?;
        tx.logged_update(&setting("1", None), settings::value.eq(Some(vec![1_u8])))?;
        // A key that changes, and one that takes its place.
        tx.logged_update(&setting("1", None), settings::name.eq("4"))?;
        tx.logged_insert::<Setting, _>(setting("1", Some(vec![9])))?;
        // The email moves on.
        tx.logged_update(&b, accounts::email.eq(None::<String>))?;
        tx.logged_update(&a, accounts::email.eq(Some("b@")))
    })?;
    oplog.transaction(conn, |tx| {
        // The posting changes its aggregate.
        tx.logged_update_where::<Posting, _, _>(
            postings::table.filter(postings::amount.eq(3)),
            postings::account_id.eq(2),
        )?;
        tx.logged_delete_where::<Posting, _>(postings::table.filter(postings::amount.eq(1)))?;
        tx.logged_delete_by_key::<Account, _>(1_i64)?;
        tx.logged_delete_by_key::<Setting, _>(("s", "2"))?;
        tx.logged_update_where::<Account, _, _>(
            accounts::table.find(2),
            accounts::id.eq(accounts::id + 0),
        )?;
        tx.logged_update_where::<Account, _, _>(accounts::table, accounts::email.eq(Some("b@")))
    })?;
    oplog.transaction(conn, |tx| {
        let c: Account = tx.logged_insert(&NewAccount { owner: "c" })?;
        tx.logged_update_where::<Posting, _, _>(postings::table, postings::account_id.eq(c.id))?;
        tx.logged_delete_by_key::<Account, _>(2_i64)
    })?;
    Ok(())
}

#[test]
fn all_mixes_of_changes_come_back() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    mix(&oplog, conn).unwrap();
    same::<Account>(&oplog, conn, "accounts");
    assert_eq!(
        format!("{:?}", all::<Posting>(conn, "postings")),
        format!("{:?}", all::<Posting>(conn, "postings_x"))
    );
    assert_eq!(
        all::<Setting>(conn, "settings"),
        all::<Setting>(conn, "settings_x")
    );
    assert_eq!(contents(&oplog, conn), [""; 0]);
}

#[test]
fn another_database_of_the_same_kind_gets_the_rows() {
    let (_db, oplog, mut conn) = new();
    mix(&oplog, &mut conn).unwrap();
    for row in everywhere().into_iter().chain(only_here()) {
        oplog
            .transaction::<_, _, Error, _>(&mut conn, |tx| tx.logged_insert::<Everything, _>(&row))
            .unwrap();
    }
    let other = Db::new();
    let target = &mut other.connect();
    let mut seen = Vec::new();
    oplog
        .replay(&mut conn)
        .progress(|progress| seen.push(*progress))
        .into_database(target)
        .unwrap();
    assert_eq!(
        seen.last().unwrap().entries,
        seen.last().unwrap().entries_total
    );
    let conn = &mut conn;
    assert_eq!(
        all::<Account>(conn, "accounts"),
        all::<Account>(target, "accounts")
    );
    assert_eq!(
        all::<Posting>(conn, "postings"),
        all::<Posting>(target, "postings")
    );
    assert_eq!(
        all::<Setting>(conn, "settings"),
        all::<Setting>(target, "settings")
    );
    let everything = [
        all::<Everything>(conn, "everything"),
        all::<Everything>(target, "everything"),
    ];
    assert_eq!(
        format!("{:?}", everything[0]),
        format!("{:?}", everything[1])
    );
    // Its generators go on where the rows end. GENERATED ALWAYS has taken the logged ids.
    let account = number(target, "SELECT max(id) AS value FROM accounts");
    let posting = number(target, "SELECT max(id) AS value FROM postings");
    run(
        target,
        &format!(
            "INSERT INTO accounts (owner) VALUES ('new'); INSERT INTO postings (account_id, amount) VALUES ({account}, 1)"
        ),
    );
    assert_eq!(
        number(target, "SELECT max(id) AS value FROM accounts"),
        account + 1
    );
    assert_eq!(
        number(target, "SELECT max(id) AS value FROM postings"),
        posting + 1
    );
    // Not again.
    let error = oplog.replay(conn).into_database(target).unwrap_err();
    assert!(brief(&error).ends_with(": it is not empty"), "{error:?}");
    // Not into itself.
    let error = oplog
        .replay(&mut other.connect())
        .into_database(target)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Target {
                what: TargetError::NotEmpty,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn copies_have_keys_constraints_defaults_and_generators_of_their_own() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    for owner in ["a", "b", "c"] {
        insert(conn, &oplog, owner);
    }
    oplog
        .transaction(conn, |tx| {
            tx.logged_update_where::<Account, _, _>(
                accounts::table.find(1),
                accounts::email.eq(Some("a@")),
            )?;
            tx.logged_insert::<Posting, _>((postings::account_id.eq(1), postings::amount.eq(1)))
        })
        .map_err(|error: Error| error)
        .unwrap();
    oplog.replay(conn).into_suffix("_x").unwrap();
    // The default of the original, and a generator of the copy's own that goes on behind its rows.
    run(conn, "INSERT INTO accounts_x (owner) VALUES ('d')");
    assert_eq!(
        number(
            conn,
            "SELECT id AS value FROM accounts_x WHERE owner = 'd' AND balance = 10"
        ),
        4
    );
    run(
        conn,
        "INSERT INTO postings_x (account_id, amount) VALUES (4, 2)",
    );
    assert_eq!(
        number(conn, "SELECT id AS value FROM postings_x WHERE amount = 2"),
        2
    );
    // The original's did not move.
    run(conn, "INSERT INTO accounts (owner) VALUES ('e'), ('f')");
    assert_eq!(
        number(conn, "SELECT id AS value FROM accounts WHERE owner = 'f'"),
        5
    );
    run(
        conn,
        "INSERT INTO postings (account_id, amount) VALUES (5, 3)",
    );
    assert_eq!(
        number(conn, "SELECT id AS value FROM postings WHERE amount = 3"),
        2
    );
    let refused = [
        // A foreign key that points at the copy: account 5 is in the original only.
        "INSERT INTO postings_x (account_id, amount) VALUES (5, 1)",
        "INSERT INTO postings_x (account_id, amount) VALUES (99, 1)",
        "DELETE FROM accounts_x WHERE id = 1",
        // Unique, check and key.
        "INSERT INTO accounts_x (owner, email) VALUES ('z', 'a@')",
        "INSERT INTO accounts_x (owner) VALUES ('nobody')",
        "INSERT INTO accounts_x (id, owner) VALUES (1, 'z')",
        "INSERT INTO accounts_x (owner) VALUES (NULL)",
    ];
    for statement in refused {
        assert!(
            undone(conn, |conn| conn.batch_execute(statement).is_err()),
            "{statement}"
        );
    }
    // Nothing of the original depends on the copies and the other way round.
    run(
        conn,
        "DELETE FROM postings_x; DELETE FROM accounts_x WHERE id = 1",
    );
    run(
        conn,
        "DELETE FROM postings; DELETE FROM accounts WHERE id = 2",
    );
}

#[test]
fn a_second_replay_needs_empty_copies() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    insert(conn, &oplog, "a");
    oplog.replay(conn).into_suffix("_x").unwrap();
    let error = oplog.replay(conn).into_suffix("_x").unwrap_err();
    assert_eq!(brief(&error), "accounts_x: it is not empty");
    // Empty ones are used as they are.
    run(
        conn,
        "DELETE FROM accounts_x; ALTER TABLE accounts_x ADD COLUMN more TEXT DEFAULT 'x'",
    );
    insert(conn, &oplog, "b");
    assert_eq!(oplog.replay(conn).into_suffix("_x").unwrap().rows, 2);
    assert_eq!(
        number(
            conn,
            "SELECT count(*) AS value FROM accounts_x WHERE more = 'x'"
        ),
        2
    );
    // One of them, while the others are made anew.
    run(
        conn,
        "DELETE FROM accounts_x; DROP TABLE postings_x; DROP TABLE settings_x; DROP TABLE everything_x",
    );
    assert_eq!(oplog.replay(conn).into_suffix("_x").unwrap().rows, 2);
    assert!(undone(conn, |conn| conn
        .batch_execute("INSERT INTO postings_x (account_id, amount) VALUES (9, 1)")
        .is_err()));
    // Other suffixes are other copies.
    for suffix in [
        "_y",
        "\"Odd' name\"",
        "ä",
        "_a_suffix_of_some_length_but_not_too_long",
    ] {
        assert_eq!(
            oplog.replay(conn).into_suffix(suffix).unwrap().rows,
            2,
            "{suffix}"
        );
    }
    let error = oplog.replay(conn).into_suffix("").unwrap_err();
    assert!(matches!(
        error,
        Error::Target {
            what: TargetError::NoSuffix,
            ..
        }
    ));
    assert_eq!(number(conn, "SELECT count(*) AS value FROM accounts"), 2);
}

#[test]
fn a_replay_ends_at_a_frontier() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    let a = insert(conn, &oplog, "a");
    insert(conn, &oplog, "b");
    let early = oplog.frontier(conn).unwrap();
    let group = |tx: &mut oplog_diesel::Tx<'_, Conn>| {
        tx.logged_update_where::<Account, _, _>(
            accounts::table,
            accounts::balance.eq(accounts::balance + 1),
        )
    };
    oplog.transaction(conn, group).unwrap();
    oplog.transaction(conn, |tx| tx.logged_delete(&a)).unwrap();
    let late = oplog.frontier(conn).unwrap();
    insert(conn, &oplog, "c");
    let rows = |conn: &mut Conn, frontier: &Frontier| {
        undone(conn, |conn| {
            oplog
                .replay(conn)
                .up_to(frontier)
                .into_suffix("_x")
                .map_err(|error| brief(&error))?;
            let rows: Vec<String> = all::<Account>(conn, "accounts_x")
                .into_iter()
                .map(|row| format!("{}{}", row.owner, row.balance))
                .collect();
            Ok::<_, String>(rows.join(" "))
        })
    };
    assert_eq!(rows(conn, &early).unwrap(), "a10 b10");
    assert_eq!(rows(conn, &late).unwrap(), "b11");
    assert_eq!(rows(conn, &Frontier::default()).unwrap(), "");
    assert_eq!(
        rows(conn, &Frontier::at([("account:2", 1)])).unwrap(),
        "b10"
    );
    assert_eq!(
        rows(conn, &Frontier::at([("account:1", 2), ("account:2", 2)])).unwrap(),
        "a11 b11"
    );
    assert_eq!(
        rows(conn, &Frontier::at([("account:3", 1), ("account:1", 0)])).unwrap(),
        "c10"
    );
    // Through a transaction.
    assert_eq!(
        rows(conn, &Frontier::at([("account:1", 2), ("account:2", 1)])).unwrap_err(),
        "account:1/2 group 1/2"
    );
    assert_eq!(
        rows(conn, &Frontier::at([("account:2", 2)])).unwrap_err(),
        "account:2/2 group 1/2"
    );
    // Beyond the end.
    assert_eq!(
        rows(conn, &Frontier::at([("account:2", 3)])).unwrap_err(),
        "account:2/3 missing"
    );
    assert_eq!(
        rows(conn, &Frontier::at([("account:3", 2)])).unwrap_err(),
        "account:3/2 missing"
    );
    assert_eq!(
        rows(conn, &Frontier::at([("nobody", u64::MAX)])).unwrap_err(),
        "nobody/1 missing"
    );
    // Outside a test transaction, too, nothing is left.
    let error = oplog
        .replay(conn)
        .up_to(&Frontier::at([("account:2", 2)]))
        .into_suffix("_x")
        .unwrap_err();
    assert_eq!(brief(&error), "account:2/2 group 1/2");
    assert!(!has_table(conn, "accounts_x"));
    let other = Db::new();
    let target = &mut other.connect();
    let error = oplog
        .replay(conn)
        .up_to(&Frontier::at([("account:2", 2)]))
        .into_database(target)
        .unwrap_err();
    assert_eq!(brief(&error), "account:2/2 group 1/2");
    assert_eq!(number(target, "SELECT count(*) AS value FROM accounts"), 0);
    oplog
        .replay(conn)
        .up_to(&early)
        .into_database(target)
        .unwrap();
    assert_eq!(number(target, "SELECT count(*) AS value FROM accounts"), 2);
}

/// What was written behind the log's back shows when the log is applied.
#[test]
fn a_forged_history_diverges() {
    type Write = fn(&Oplog, &mut Conn);
    let behind: &[(&str, Write, &str)] = &[
        (
            "a row of which the log never saw the creation is updated",
            |oplog, conn| {
                run(
                    conn,
                    &format!("INSERT INTO accounts (id, owner) VALUES (7, '{CANARY}')"),
                );
                let all = accounts::table.find(7);
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_update_where::<Account, _, _>(all, accounts::balance.eq(1))
                    })
                    .unwrap();
            },
            "account:7/1 accounts_x (id = 7): the row is not there",
        ),
        (
            "such a row is deleted",
            |oplog, conn| {
                run(
                    conn,
                    &format!("INSERT INTO accounts (id, owner) VALUES (7, '{CANARY}')"),
                );
                oplog
                    .transaction(conn, |tx| tx.logged_delete_by_key::<Account, _>(7_i64))
                    .unwrap();
            },
            "account:7/1 accounts_x (id = 7): the row is not there",
        ),
        (
            "a row was changed before it was updated",
            |oplog, conn| {
                run(
                    conn,
                    &format!(
                        "UPDATE accounts SET owner = '{CANARY}', email = '{CANARY}' WHERE id = 1"
                    ),
                );
                let all = accounts::table.find(1);
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_update_where::<Account, _, _>(all, accounts::balance.eq(1))
                    })
                    .unwrap();
            },
            "account:1/2 accounts_x (id = 1): the row holds other values in email, owner",
        ),
        (
            "the changed column itself",
            |oplog, conn| {
                run(conn, "UPDATE accounts SET balance = 77 WHERE id = 1");
                let all = accounts::table.find(1);
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_update_where::<Account, _, _>(all, accounts::balance.eq(1))
                    })
                    .unwrap();
            },
            "account:1/2 accounts_x (id = 1): the row holds other values in balance",
        ),
        (
            "a row was changed before it was deleted",
            |oplog, conn| {
                run(
                    conn,
                    &format!("UPDATE accounts SET email = '{CANARY}' WHERE id = 1"),
                );
                oplog
                    .transaction(conn, |tx| tx.logged_delete_by_key::<Account, _>(1_i64))
                    .unwrap();
            },
            "account:1/2 accounts_x (id = 1): the row holds other values in email",
        ),
        (
            "a row was deleted and created again",
            |oplog, conn| {
                run(conn, "DELETE FROM accounts WHERE id = 1");
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_insert::<Account, _>((
                            accounts::id.eq(1),
                            accounts::owner.eq(CANARY),
                        ))
                    })
                    .unwrap();
            },
            "account:1/2 accounts_x (id = 1): the target refused the row (UniqueViolation",
        ),
        (
            "one of many",
            |oplog, conn| {
                run(conn, "DELETE FROM accounts WHERE id = 1");
                oplog
                    .transaction(conn, |tx| {
                        let rows = (1..300)
                            .filter(|id| *id != 2)
                            .map(|id| (accounts::id.eq(id), accounts::owner.eq(CANARY)));
                        // In an order in which the row that is there stands in the middle.
                        let mut rows: Vec<_> = rows.collect();
                        rows.rotate_left(100);
                        tx.logged_insert_many::<Account, _>(rows)
                    })
                    .unwrap();
            },
            "account:1/2 accounts_x (id = 1): the target refused the row (UniqueViolation",
        ),
        (
            "a unique column was freed",
            |oplog, conn| {
                let email = accounts::email.eq(CANARY);
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_insert::<Account, _>((accounts::owner.eq("b"), email))
                    })
                    .unwrap();
                run(conn, "UPDATE accounts SET email = NULL");
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_insert::<Account, _>((accounts::owner.eq("c"), email))
                    })
                    .unwrap();
            },
            "account:3/1 accounts_x (id = 3): the target refused the row (UniqueViolation",
        ),
        (
            "a parent is not in the log",
            |oplog, conn| {
                run(
                    conn,
                    &format!("INSERT INTO accounts (id, owner) VALUES (7, '{CANARY}')"),
                );
                let posting = (
                    postings::account_id.eq(7),
                    postings::amount.eq(1),
                    postings::note.eq(CANARY),
                );
                oplog
                    .transaction(conn, |tx| tx.logged_insert::<Posting, _>(posting))
                    .unwrap();
            },
            "account:7/1 postings_x (id = 1): the target refused the row (ForeignKeyViolation",
        ),
        (
            "children were deleted",
            |oplog, conn| {
                let posting = (postings::account_id.eq(1), postings::amount.eq(1));
                oplog
                    .transaction(conn, |tx| tx.logged_insert::<Posting, _>(posting))
                    .unwrap();
                run(conn, "DELETE FROM postings");
                oplog
                    .transaction(conn, |tx| tx.logged_delete_by_key::<Account, _>(1_i64))
                    .unwrap();
            },
            "account:1/3 accounts_x (id = 1): the target refused the row (ForeignKeyViolation",
        ),
    ];
    let other = Db::new();
    let target = &mut other.connect();
    for (name, write, expected) in behind {
        let (_db, oplog, mut conn) = new();
        let conn = &mut conn;
        insert(conn, &oplog, "a");
        write(&oplog, conn);
        assert_eq!(contents(&oplog, conn), [""; 0], "{name}");
        let before = all::<Account>(conn, "accounts");
        let found = replaying(&oplog, conn);
        assert!(found.starts_with(expected), "{name}: {found}");
        assert_eq!(before, all::<Account>(conn, "accounts"));
        // An existing copy is left empty.
        oplog
            .replay(conn)
            .up_to(&Frontier::default())
            .into_suffix("_x")
            .unwrap();
        let error = oplog.replay(conn).into_suffix("_x").unwrap_err();
        assert!(brief(&error).starts_with(expected), "{name}: {error:?}");
        assert_eq!(
            number(conn, "SELECT count(*) AS value FROM accounts_x"),
            0,
            "{name}"
        );
        // So is another database.
        let error = oplog.replay(conn).into_database(target).unwrap_err();
        assert!(
            brief(&error).starts_with(&expected.replace("_x", "")),
            "{name}: {error:?}"
        );
        for table in ["accounts", "postings"] {
            assert_eq!(
                number(target, &format!("SELECT count(*) AS value FROM {table}")),
                0,
                "{name}"
            );
        }
    }
}

#[test]
fn a_target_that_is_not_ready_is_refused() {
    let (_db, oplog, mut conn) = new();
    insert(&mut conn, &oplog, "a");
    let trigger = if is_postgres() {
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; \
         CREATE TRIGGER \"my trigger\" AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION f()"
    } else {
        "CREATE TRIGGER \"my trigger\" AFTER INSERT ON accounts BEGIN SELECT 1; END"
    };
    let cases = [
        (
            "INSERT INTO accounts (owner) VALUES ('there')",
            "accounts: it is not empty",
        ),
        (
            "INSERT INTO settings (section, name) VALUES ('a', 'b')",
            "settings: it is not empty",
        ),
        (
            "DROP TABLE postings; DROP TABLE accounts",
            "accounts: it does not exist",
        ),
        (
            "ALTER TABLE accounts RENAME COLUMN owner TO owned_by",
            "accounts: it has no column `owner`",
        ),
        (trigger, "accounts: the triggers or rules my trigger would"),
        (
            "ALTER TABLE accounts ADD COLUMN more TEXT NOT NULL DEFAULT ''; DROP INDEX \"accounts by email\"",
            "ok",
        ),
        (
            "ALTER TABLE accounts ADD COLUMN more INTEGER CHECK (balance > 10)",
            "account:1/1 accounts (id = 1): the target refused the row (CheckViolation",
        ),
    ];
    for (change, expected) in cases {
        let other = Db::new();
        let target = &mut other.connect();
        run(target, change);
        let accounts = has_table(target, "accounts")
            .then(|| number(target, "SELECT count(*) AS value FROM accounts"));
        let found = match oplog.replay(&mut conn).into_database(target) {
            Ok(_) => "ok".to_owned(),
            Err(error) => brief(&error),
        };
        assert!(found.starts_with(expected), "{change}: {found}");
        if let Some(before) = accounts {
            let after = number(target, "SELECT count(*) AS value FROM accounts");
            assert_eq!(after, before + i64::from(expected == "ok"), "{change}");
        }
    }
    // Inside a transaction of the application's.
    let other = Db::new();
    let target = &mut other.connect();
    target
        .transaction(|target| {
            let error = oplog.replay(&mut conn).into_database(target).unwrap_err();
            assert!(matches!(error, Error::OuterTransaction), "{error:?}");
            Ok::<_, diesel::result::Error>(())
        })
        .unwrap();
}

/// A deferred key is checked when the replay commits. The connection must be of use afterwards.
#[test]
fn a_commit_that_fails_leaves_nothing() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    run(
        conn,
        "INSERT INTO accounts (id, owner) VALUES (7, 'not in the log')",
    );
    let posting = (postings::account_id.eq(7), postings::amount.eq(1));
    oplog
        .transaction(conn, |tx| tx.logged_insert::<Posting, _>(posting))
        .map_err(|error: Error| error)
        .unwrap();
    let other = Db::new();
    let target = &mut other.connect();
    let id = if is_postgres() {
        "BIGSERIAL"
    } else {
        "INTEGER"
    };
    run(
        target,
        &format!(
            "DROP TABLE postings; CREATE TABLE postings (id {id} PRIMARY KEY, \
             account_id BIGINT NOT NULL REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED, \
             amount BIGINT NOT NULL, note TEXT)"
        ),
    );
    let error = oplog.replay(conn).into_database(target).unwrap_err();
    shown(&error);
    assert_eq!(
        number(
            &mut other.connect(),
            "SELECT count(*) AS value FROM postings"
        ),
        0
    );
    assert_eq!(
        number(target, "SELECT count(*) AS value FROM postings"),
        0,
        "{error:?}"
    );
    let oplog = open(&other);
    insert(target, &oplog, "a");
}

/// Two transactions that are closed at the same time draw their entries' ids in turns.
#[test]
fn interleaved_transactions_come_back() {
    if !is_postgres() {
        return;
    }
    let (db, oplog, mut conn) = new();
    let conn = &mut conn;
    for owner in ["a", "b", "c", "d"] {
        insert(conn, &oplog, owner);
    }
    let touch = |conn: &mut Conn, one: i64, two: i64| {
        oplog
            .transaction(conn, |tx| {
                for (id, balance) in [(one, 1), (two, 2), (one, 3), (two, 4)] {
                    let row = accounts::table.find(id);
                    tx.logged_update_where::<Account, _, _>(row, accounts::balance.eq(balance))?;
                }
                Ok::<_, Error>(())
            })
            .unwrap();
    };
    let blocker = &mut db.connect();
    run(
        blocker,
        "BEGIN; SELECT 1 FROM oplog_ticket WHERE name = 'account:4' FOR UPDATE",
    );
    std::thread::scope(|scope| {
        scope.spawn(|| touch(&mut db.connect(), 1, 4));
        let waiting = "SELECT count(*) AS value FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while number(conn, waiting) == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        touch(conn, 2, 3);
        run(blocker, "COMMIT");
    });
    let order: Vec<_> = oplog
        .entries(conn)
        .map(|entry| entry.unwrap().aggregate().to_string())
        .collect();
    assert_eq!(
        order[4..],
        ["account:1", "account:2", "account:3", "account:4"]
    );
    assert_eq!(same::<Account>(&oplog, conn, "accounts"), 4);
    let cut = Frontier::at([
        ("account:1", 2),
        ("account:2", 1),
        ("account:3", 1),
        ("account:4", 1),
    ]);
    let error = oplog
        .replay(conn)
        .up_to(&cut)
        .into_suffix("_y")
        .unwrap_err();
    assert_eq!(brief(&error), "account:1/2 group 1/2");
}

#[test]
fn a_panic_in_the_progress_leaves_nothing() {
    let (_db, oplog, mut conn) = new();
    insert(&mut conn, &oplog, "a");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        oplog
            .replay(&mut conn)
            .progress(|_| panic!("on purpose"))
            .into_suffix("_x")
    }));
    assert!(panicked.is_err());
    assert!(!has_table(&mut conn, "accounts_x"));
    insert(&mut conn, &oplog, "b");
}

const TREE: &str =
    "CREATE TABLE tree (id INTEGER PRIMARY KEY, parent_id INTEGER REFERENCES tree (id))";

/// One statement may delete parents and children in any order; its messages are applied one by one.
#[test]
fn a_tree_that_was_deleted_in_one_statement_comes_back() {
    let (_db, oplog, mut conn) = with_table(TREE);
    let conn = &mut conn;
    oplog
        .transaction(conn, |tx| {
            for id in 1..=5 {
                tx.logged_insert::<Node, _>(Node {
                    id,
                    parent_id: (id > 1).then_some(id / 2),
                })?;
            }
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(same::<Node>(&oplog, conn, "tree"), 5);
    // The copy refers to itself.
    assert!(undone(conn, |conn| conn
        .batch_execute(
            "DELETE FROM tree; INSERT INTO tree VALUES (9, 9); INSERT INTO tree_x VALUES (7, 9)"
        )
        .is_err()));
    run(
        conn,
        "DROP TABLE tree_x; DROP TABLE postings_x; DROP TABLE accounts_x; DROP TABLE settings_x; DROP TABLE everything_x",
    );
    oplog
        .transaction(conn, |tx| tx.logged_delete_where::<Node, _>(tree::table))
        .map_err(|error: Error| error)
        .unwrap();
    assert_eq!(same::<Node>(&oplog, conn, "tree"), 0);
}

/// So may one statement insert children before their parents, where the database allows it.
#[test]
fn a_tree_that_was_inserted_in_one_statement_comes_back() {
    let (_db, oplog, mut conn) = with_table(TREE);
    let conn = &mut conn;
    let rows: Vec<_> = (1..=300)
        .rev()
        .map(|id| Node {
            id,
            parent_id: (id > 1).then_some(id - 1),
        })
        .collect();
    if oplog
        .transaction(conn, |tx| tx.logged_insert_many::<Node, _>(rows.clone()))
        .map_err(|error: Error| error)
        .is_ok()
    {
        assert_eq!(same::<Node>(&oplog, conn, "tree"), 300);
    }
}

/// PostgreSQL checks a deferrable key at the end of the statement, SQLite goes by the key.
fn places() -> &'static str {
    if is_postgres() {
        "CREATE TABLE places (id INTEGER PRIMARY KEY DEFERRABLE, place INTEGER NOT NULL UNIQUE DEFERRABLE)"
    } else {
        "CREATE TABLE places (id INTEGER PRIMARY KEY, place INTEGER NOT NULL UNIQUE)"
    }
}

/// One statement that moves all keys by one.
#[test]
fn keys_that_moved_in_one_statement_come_back() {
    for by in [1, -1] {
        let (_db, oplog, mut conn) = with_table(places());
        let conn = &mut conn;
        let rows: Vec<_> = (1..=5).map(|id| Place { id, place: id * 10 }).collect();
        oplog
            .transaction(conn, |tx| tx.logged_insert_many::<Place, _>(rows.clone()))
            .map_err(|error: Error| error)
            .unwrap();
        let moved = oplog.transaction(conn, |tx| {
            tx.logged_update_where::<Place, _, _>(places::table, places::id.eq(places::id + by))
        });
        let moved: Result<Vec<Place>, Error> = moved;
        if moved.is_ok() {
            assert_eq!(same::<Place>(&oplog, conn, "places"), 5, "by {by}");
        } else {
            assert!(by == 1 && !is_postgres(), "{moved:?}");
        }
    }
}

#[test]
fn generated_columns_come_back() {
    let (_db, oplog, mut conn) = with_table(
        "CREATE TABLE boxes (id INTEGER PRIMARY KEY, width INTEGER NOT NULL, \
         area INTEGER NOT NULL GENERATED ALWAYS AS (width * width) STORED)",
    );
    let conn = &mut conn;
    oplog
        .transaction(conn, |tx| {
            let row: Crate = tx.logged_insert((boxes::id.eq(1), boxes::width.eq(3)))?;
            assert_eq!(row.area, 9);
            let row = tx.logged_update(&row, boxes::width.eq(4))?;
            assert_eq!(row.area, 16);
            let _: Vec<Crate> =
                tx.logged_insert_many((2..200).map(|id| (boxes::id.eq(id), boxes::width.eq(id))))?;
            tx.logged_delete_by_key::<Crate, _>(2)
        })
        .map_err(|error: Error| shown(&error))
        .unwrap();
    assert_eq!(same::<Crate>(&oplog, conn, "boxes"), 198);
    run(conn, "UPDATE boxes_x SET width = 5 WHERE id = 1");
    assert_eq!(
        number(conn, "SELECT area AS value FROM boxes_x WHERE id = 1"),
        25
    );
}

/// A target that computes something else.
#[test]
fn a_generated_column_that_differs_diverges() {
    let table = |by: &str| {
        format!(
            "CREATE TABLE boxes (id INTEGER PRIMARY KEY, width INTEGER NOT NULL, \
             area INTEGER NOT NULL GENERATED ALWAYS AS ({by}) STORED)"
        )
    };
    let (_db, oplog, mut conn) = with_table(&table("width * width"));
    oplog
        .transaction(&mut conn, |tx| {
            tx.logged_insert::<Crate, _>((boxes::id.eq(1), boxes::width.eq(3)))
        })
        .map_err(|error: Error| error)
        .unwrap();
    let other = Db::new();
    let target = &mut other.connect();
    run(target, &table("width + width"));
    let error = oplog.replay(&mut conn).into_database(target).unwrap_err();
    let Error::Diverged { what, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(
        *what,
        Divergence::Changed {
            columns: vec!["area"]
        }
    );
    assert_eq!(number(target, "SELECT count(*) AS value FROM boxes"), 0);
}

#[test]
fn the_catalogues_own_names_are_quoted() {
    let (_db, oplog, mut conn) = new();
    let conn = &mut conn;
    insert(conn, &oplog, "a");
    let suffix = "\"; DROP TABLE accounts; --";
    oplog.replay(conn).into_suffix(suffix).unwrap();
    assert_eq!(all::<Account>(conn, "accounts").len(), 1);
}
