//! From one kind of database to the other.

use chrono::{NaiveDate, NaiveTime};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Divergence, Error};
use oplog_tests::models::*;
use oplog_tests::schema::*;
use oplog_tests::{postgres, sqlite};

const CANARY: &str = "canary-of-the-rows";

fn key(folder: &std::path::Path) -> KeyFile {
    KeyFile::create_if_missing(folder.join("oplog.key")).unwrap()
}

/// Writes the same on either database.
macro_rules! write {
    ($oplog:expr, $conn:expr) => {{
        let (oplog, conn) = (&$oplog, &mut *$conn);
        oplog
            .transaction(conn, |tx| {
                let a: Account = tx.logged_insert(&NewAccount { owner: "a" })?;
                let b: Account = tx.logged_insert((
                    accounts::id.eq(41),
                    accounts::owner.eq("b"),
                    accounts::email.eq("b@"),
                ))?;
                let _: Vec<Posting> = tx.logged_insert_many((1..=300).map(|amount| {
                    (
                        postings::account_id.eq(if amount % 2 == 0 { 1 } else { 41 }),
                        postings::amount.eq(amount),
                    )
                }))?;
                let setting = |name: &str, value| Setting {
                    section: "ä\u{1f600}".into(),
                    name: name.into(),
                    value,
                };
                tx.logged_insert_many::<Setting, _>(vec![
                    setting("1", None),
                    setting("2", Some(vec![])),
                    setting("", Some(vec![0, 255])),
                ])?;
                tx.logged_update(&b, accounts::email.eq(None::<String>))?;
                tx.logged_update(&a, accounts::email.eq(Some("b@")))
            })
            .map_err(|error: Error| error)
            .unwrap();
        oplog
            .transaction(conn, |tx| {
                let of = postings::table.filter(postings::amount.gt(200));
                tx.logged_update_where::<Posting, _, _>(of, postings::note.eq(Some("large")))?;
                tx.logged_delete_where::<Posting, _>(
                    postings::table.filter(postings::amount.lt(100)),
                )?;
                tx.logged_delete_by_key::<Setting, _>(("ä\u{1f600}", "1"))?;
                for row in rows() {
                    tx.logged_insert::<Everything, _>(&row)?;
                }
                Ok::<_, Error>(())
            })
            .unwrap();
    }};
}

macro_rules! tables {
    ($conn:expr) => {{
        let conn = &mut *$conn;
        let accounts = accounts::table
            .order(accounts::id)
            .select(Account::as_select())
            .load(conn)
            .unwrap();
        let postings = postings::table
            .order(postings::id)
            .select(Posting::as_select())
            .load(conn)
            .unwrap();
        let settings = settings::table.select(Setting::as_select()).load(conn);
        let mut settings = settings.unwrap();
        settings.sort_by(|one, other| one.name.cmp(&other.name));
        let everything = everything::table
            .order(everything::id)
            .select(Everything::as_select())
            .load(conn)
            .unwrap();
        (accounts, postings, settings, everything)
    }};
}

fn plain(id: i32) -> Everything {
    let day = NaiveDate::from_ymd_opt(1969, 12, 31).unwrap();
    Everything {
        id,
        a_bool: true,
        a_small: i16::MIN,
        an_int: i32::MIN,
        a_big: i64::MIN,
        a_float: f32::MAX,
        a_double: 0.1 + 0.2,
        a_text: "ä\u{1f600}\r\n'\"\\".to_owned(),
        some_bytes: (0..=255).collect(),
        a_date: day,
        a_time: NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap(),
        a_timestamp: day.and_hms_micro_opt(23, 59, 59, 999_999).unwrap(),
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

/// Rows that both databases can hold.
fn rows() -> Vec<Everything> {
    let far = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap();
    let full = Everything {
        a_big: i64::MAX,
        a_float: f32::INFINITY,
        a_double: f64::NEG_INFINITY,
        a_text: String::new(),
        some_bytes: Vec::new(),
        a_date: NaiveDate::from_ymd_opt(1, 1, 1).unwrap(),
        a_time: NaiveTime::MIN,
        maybe_bool: Some(false),
        maybe_small: Some(0),
        maybe_int: Some(i32::MAX),
        maybe_big: Some(0),
        maybe_float: Some(f32::MIN_POSITIVE),
        maybe_double: Some(f64::MIN_POSITIVE),
        maybe_text: Some(String::new()),
        maybe_bytes: Some(Vec::new()),
        maybe_date: Some(far),
        maybe_time: Some(NaiveTime::from_hms_opt(12, 0, 0).unwrap()),
        maybe_timestamp: Some(far.and_hms_micro_opt(0, 0, 0, 1).unwrap()),
        ..plain(i32::MAX)
    };
    vec![plain(i32::MIN), plain(0), full]
}

#[test]
fn sqlite_to_postgres() {
    let (source, target) = (sqlite::Db::new(), postgres::Db::new());
    let (from, to) = (&mut source.connect(), &mut target.connect());
    let oplog = Oplog::builder()
        .key(key(source.folder()))
        .open(from)
        .unwrap();
    write!(oplog, from);
    let report = oplog.replay(from).into_database(to).unwrap();
    assert_eq!(tables!(from), tables!(to));
    assert_eq!(report.rows, 2 + 201 + 2 + 3);
    // GENERATED ALWAYS has taken the logged ids, and generators go on behind them.
    to.batch_execute("INSERT INTO accounts (owner) VALUES ('new'); INSERT INTO postings (account_id, amount) VALUES (42, 1)")
        .unwrap();
    let last: i64 = postings::table
        .select(diesel::dsl::max(postings::id))
        .first::<Option<i64>>(to)
        .unwrap()
        .unwrap();
    assert_eq!(last, 301);
}

#[test]
fn postgres_to_sqlite() {
    let (source, target) = (postgres::Db::new(), sqlite::Db::new());
    let (from, to) = (&mut source.connect(), &mut target.connect());
    let oplog = Oplog::builder()
        .key(key(source.folder()))
        .open(from)
        .unwrap();
    write!(oplog, from);
    oplog.replay(from).into_database(to).unwrap();
    assert_eq!(tables!(from), tables!(to));
    to.batch_execute("INSERT INTO accounts (owner) VALUES ('new'); INSERT INTO postings (account_id, amount) VALUES (42, 1)")
        .unwrap();
    let last: i64 = postings::table
        .select(diesel::dsl::max(postings::id))
        .first::<Option<i64>>(to)
        .unwrap()
        .unwrap();
    assert_eq!(last, 301);
}

/// There and back again: a log of its own on the other side, replayed into a third database.
#[test]
fn there_and_back_again() {
    let (source, middle, last) = (sqlite::Db::new(), postgres::Db::new(), sqlite::Db::new());
    let (from, over, to) = (
        &mut source.connect(),
        &mut middle.connect(),
        &mut last.connect(),
    );
    let oplog = Oplog::builder()
        .key(key(source.folder()))
        .open(from)
        .unwrap();
    write!(oplog, from);
    let over_oplog = Oplog::builder()
        .key(key(middle.folder()))
        .open(over)
        .unwrap();
    let (accounts, postings, settings, everything) = tables!(from);
    over_oplog
        .transaction(over, |tx| {
            tx.logged_insert_many::<Account, _>(accounts.iter())?;
            for posting in &postings {
                let Posting {
                    account_id,
                    amount,
                    note,
                    ..
                } = posting;
                let _: Posting = tx.logged_insert((
                    postings::account_id.eq(account_id),
                    postings::amount.eq(amount),
                    postings::note.eq(note),
                ))?;
            }
            tx.logged_insert_many::<Setting, _>(settings.iter())?;
            tx.logged_insert_many::<Everything, _>(everything.iter())
        })
        .map_err(|error: Error| error)
        .unwrap();
    over_oplog.replay(over).into_database(to).unwrap();
    assert_eq!(tables!(over), tables!(to));
    assert_eq!((accounts, settings, everything), {
        let (accounts, _, settings, everything) = tables!(to);
        (accounts, settings, everything)
    });
}

/// What a replay of one row says, and what it leaves.
fn diverged(error: Error, column: Option<&str>) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains(CANARY), "{text}");
    let Error::Diverged {
        aggregate,
        sequence,
        table,
        key,
        what,
    } = error
    else {
        panic!("{text}")
    };
    assert_eq!(
        (aggregate.as_str(), sequence, table.as_str(), key.as_str()),
        ("everything:7", 1, "everything", "id = 7")
    );
    match (column, what) {
        (Some(column), Divergence::Changed { columns }) => assert_eq!(columns, [column]),
        (None, Divergence::Refused { .. }) => {}
        (_, what) => panic!("{what:?}"),
    }
}

#[test]
fn sqlite_does_not_hold_everything_that_postgres_does() {
    let row = Everything {
        a_text: CANARY.to_owned(),
        ..plain(7)
    };
    let cases = [
        (
            Everything {
                a_double: f64::NAN,
                ..row.clone()
            },
            None,
        ),
        (
            Everything {
                a_float: f32::NAN,
                ..row.clone()
            },
            None,
        ),
        (
            Everything {
                maybe_double: Some(f64::NAN),
                ..row.clone()
            },
            Some("maybe_double"),
        ),
        (
            Everything {
                maybe_float: Some(-f32::NAN),
                ..row.clone()
            },
            Some("maybe_float"),
        ),
        (
            Everything {
                a_double: -0.0,
                ..row.clone()
            },
            Some("a_double"),
        ),
    ];
    for (row, column) in cases {
        let (source, target) = (postgres::Db::new(), sqlite::Db::new());
        let (from, to) = (&mut source.connect(), &mut target.connect());
        let oplog = Oplog::builder()
            .key(key(source.folder()))
            .open(from)
            .unwrap();
        oplog
            .transaction::<_, Everything, Error, _>(from, |tx| tx.logged_insert(&row))
            .unwrap();
        diverged(oplog.replay(from).into_database(to).unwrap_err(), column);
        assert_eq!(everything::table.count().get_result::<i64>(to).unwrap(), 0);
        // The connection is of use afterwards.
        to.transaction(|to| to.batch_execute("DELETE FROM everything"))
            .unwrap();
    }
}

#[test]
fn postgres_does_not_hold_everything_that_sqlite_does() {
    let row = Everything {
        maybe_text: Some(CANARY.to_owned()),
        ..plain(7)
    };
    let nanos = NaiveTime::from_hms_nano_opt(1, 2, 3, 4_005_006).unwrap();
    let day = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
    let cases = [
        (
            Everything {
                a_time: nanos,
                ..row.clone()
            },
            Some("a_time"),
        ),
        (
            Everything {
                a_timestamp: day.and_time(nanos),
                ..row.clone()
            },
            Some("a_timestamp"),
        ),
        (
            Everything {
                maybe_timestamp: Some(day.and_time(nanos)),
                ..row.clone()
            },
            Some("maybe_timestamp"),
        ),
        (
            Everything {
                a_text: "a\0b".to_owned(),
                ..row.clone()
            },
            None,
        ),
        (
            Everything {
                maybe_text: Some("\0".to_owned()),
                ..row.clone()
            },
            None,
        ),
        (
            Everything {
                a_date: NaiveDate::from_ymd_opt(-5000, 1, 1).unwrap(),
                ..row.clone()
            },
            None,
        ),
    ];
    let target = postgres::Db::new();
    let to = &mut target.connect();
    for (row, column) in cases {
        let source = sqlite::Db::new();
        let from = &mut source.connect();
        let oplog = Oplog::builder()
            .key(key(source.folder()))
            .open(from)
            .unwrap();
        oplog
            .transaction::<_, Everything, Error, _>(from, |tx| tx.logged_insert(&row))
            .unwrap();
        diverged(oplog.replay(from).into_database(to).unwrap_err(), column);
        assert_eq!(everything::table.count().get_result::<i64>(to).unwrap(), 0);
    }
}

/// A log of rows that went along, changed and moved by themselves is replayed where triggers and
/// foreign keys would do all of it again.
macro_rules! side_effects {
    ($from:ident, $to:ident) => {{
        use oplog_tests::behind::*;

        let (from, to) = ($from::Db::with_side_effects(), $to::Db::with_side_effects());
        let (mut from_conn, mut to_conn) = (from.connect(), to.connect());
        let oplog = Oplog::builder().key(key(from.folder())).open(&mut from_conn).unwrap();
        let ann: Customer = oplog
            .transaction(&mut from_conn, |tx| {
                let ann: Customer = tx.logged_insert(customers::name.eq("ann"))?;
                let bob: Customer = tx.logged_insert(customers::name.eq("bob"))?;
                for customer in [&ann, &bob] {
                    let order: Order = tx.logged_insert(orders::customer_id.eq(customer.id))?;
                    for number in 1..4 {
                        let (order_id, customer_id) = (order.id, None);
                        tx.logged_insert::<Line, _>(Line { order_id, number, amount: 7, customer_id })?;
                    }
                }
                for code in ["a", "b"] {
                    let shelf = (shelves::code.eq(code), shelves::room.eq(1));
                    tx.logged_insert::<Shelf, _>(shelf)?;
                    let (shelf_code, number, version) = (code.to_owned(), 1, 1);
                    tx.logged_insert::<Crate, _>(Crate { shelf_code, number, version })?;
                }
                Ok::<_, Error>(ann)
            })
            .unwrap();
        oplog
            .transaction(&mut from_conn, |tx| {
                tx.logged_update_where::<Customer, _, _>(customers::table, customers::name.eq("x"))?;
                tx.logged_update_where::<Shelf, _, _>(
                    shelves::table.filter(shelves::code.eq("a")),
                    shelves::code.eq("c"),
                )?;
                tx.logged_delete(&ann)?;
                Ok::<_, Error>(())
            })
            .unwrap();
        oplog.replay(&mut from_conn).into_database(&mut to_conn).unwrap();
        macro_rules! same {
            ($table:ident: $model:ty, $rows:literal) => {
                let (mut here, mut there) = (Vec::new(), Vec::new());
                same!(@load $table: $model, from_conn, here);
                same!(@load $table: $model, to_conn, there);
                assert_eq!(here.len(), $rows);
                assert_eq!(here, there);
            };
            (@load $table:ident: $model:ty, $conn:ident, $rows:ident) => {
                let order = $table::table.primary_key();
                let select = $table::table.order(order).select(<$model>::as_select());
                $rows.extend(select.load::<$model>(&mut $conn).unwrap());
            };
        }
        same!(customers: Customer, 1);
        same!(orders: Order, 1);
        same!(lines: Line, 3);
        same!(shelves: Shelf, 2);
        same!(crates: Crate, 2);
    }};
}

#[test]
fn side_effects_of_sqlite_on_postgres() {
    side_effects!(sqlite, postgres);
}

#[test]
fn side_effects_of_postgres_on_sqlite() {
    side_effects!(postgres, sqlite);
}
