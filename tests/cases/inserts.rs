//! Inserts, and what the database made of them.

use std::sync::{Arc, Mutex};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use oplog_diesel::Error;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::Fixture;

#[derive(Insertable)]
#[diesel(table_name = accounts)]
struct Maybe<'a> {
    owner: &'a str,
    balance: Option<i64>,
    email: Option<&'a str>,
}

fn setting(section: &str, name: impl ToString, value: Option<&[u8]>) -> Setting {
    Setting {
        section: section.to_owned(),
        name: name.to_string(),
        value: value.map(<[u8]>::to_vec),
    }
}

#[test]
fn what_is_logged_is_the_stored_row_with_its_defaults() {
    let mut f = Fixture::new();
    let alice: Account = f
        .run(|tx| tx.logged_insert(&NewAccount { owner: "Alice" }))
        .unwrap();
    assert_eq!(
        alice,
        Account {
            email: None,
            id: 1,
            owner: "Alice".to_owned(),
            balance: 10
        }
    );
    assert_eq!(
        f.news(),
        [r#"account:1/1 create account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#]
    );
    f.check();
}

#[test]
fn anything_insertable_is_accepted() {
    let mut f = Fixture::new();
    f.run(|tx| {
        let _: Account = tx.logged_insert(NewAccount { owner: "struct" })?;
        let _: Account = tx.logged_insert(&NewAccount { owner: "reference" })?;
        let _: Account =
            tx.logged_insert((accounts::owner.eq("tuple"), accounts::balance.eq(-1)))?;
        let _: Account = tx.logged_insert((
            accounts::owner.eq("reference to a tuple"),
            accounts::email.eq("e"),
        ))?;
        let _: Account = tx.logged_insert(accounts::owner.eq("column"))?;
        Ok(())
    })
    .unwrap();
    let model = Account {
        email: Some(String::new()),
        id: -7,
        owner: String::new(),
        balance: 0,
    };
    let stored: Account = f.run(|tx| tx.logged_insert(&model)).unwrap();
    assert_eq!(stored, model);
    let one: Account = f
        .run(|tx| tx.logged_insert(vec![NewAccount { owner: "unused" }].remove(0)))
        .unwrap();
    assert_eq!(one.owner, "unused");
    assert_eq!(
        f.news(),
        [
            r#"account:1/1 create account(email=NULL id=1 owner="struct" balance=10) nulls[4] #0"#,
            r#"account:2/1 create account(email=NULL id=2 owner="reference" balance=10) nulls[4] #1"#,
            r#"account:3/1 create account(email=NULL id=3 owner="tuple" balance=-1) nulls[4] #2"#,
            r#"account:4/1 create account(email="e" id=4 owner="reference to a tuple" balance=10) #3"#,
            r#"account:5/1 create account(email=NULL id=5 owner="column" balance=10) nulls[4] #4"#,
            r#"account:-7/1 create account(email="" id=-7 owner="" balance=0)"#,
            r#"account:6/1 create account(email=NULL id=6 owner="unused" balance=10) nulls[4]"#,
        ]
    );
    f.check();
}

#[test]
fn none_leaves_the_column_to_its_default() {
    let mut f = Fixture::new();
    f.run(|tx| {
        let _: Account = tx.logged_insert(&Maybe {
            owner: "a",
            balance: None,
            email: None,
        })?;
        let _: Account = tx.logged_insert(&Maybe {
            owner: "b",
            balance: Some(0),
            email: Some("b@b"),
        })?;
        let _: Account = tx.logged_insert((
            accounts::owner.eq("c"),
            None::<i64>.map(|balance| accounts::balance.eq(balance)),
        ))?;
        Ok(())
    })
    .unwrap();
    let many: Vec<Account> = f
        .run(|tx| {
            tx.logged_insert_many([
                Maybe {
                    owner: "d",
                    balance: None,
                    email: Some("d@d"),
                },
                Maybe {
                    owner: "e",
                    balance: Some(5),
                    email: None,
                },
            ])
        })
        .unwrap();
    assert_eq!(
        many.iter()
            .map(|account| account.balance)
            .collect::<Vec<_>>(),
        [10, 5]
    );
    assert_eq!(
        f.news(),
        [
            r#"account:1/1 create account(email=NULL id=1 owner="a" balance=10) nulls[4] #0"#,
            r#"account:2/1 create account(email="b@b" id=2 owner="b" balance=0) #1"#,
            r#"account:3/1 create account(email=NULL id=3 owner="c" balance=10) nulls[4] #2"#,
            r#"account:4/1 create items account(email="d@d" id=4 owner="d" balance=10) #0"#,
            r#"account:5/1 create items account(email=NULL id=5 owner="e" balance=5) nulls[4] #1"#,
        ]
    );
    f.check();
}

#[test]
fn empty_and_absent_values_are_told_apart() {
    let mut f = Fixture::new();
    f.run(|tx| {
        let _: Setting = tx.logged_insert(setting("", "", Some(&[])))?;
        let _: Setting = tx.logged_insert(setting("", "null", None))?;
        let _: Setting = tx.logged_insert(setting("", "zeros", Some(&[0, 0])))?;
        Ok(())
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"settings/1 create setting(section="" name="" value=[])"#,
            r#"settings/1 create setting(section="" name="null" value=NULL) nulls[3]"#,
            r#"settings/1 create setting(section="" name="zeros" value=[0, 0])"#,
        ]
    );
    f.check();
}

#[test]
fn a_column_of_every_type_is_logged() {
    use chrono::{NaiveDate, NaiveTime};
    let date = NaiveDate::from_ymd_opt(1969, 12, 31).unwrap();
    let time = NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap();
    let row = Everything {
        id: i32::MIN,
        a_bool: false,
        a_small: i16::MIN,
        an_int: i32::MAX,
        a_big: i64::MIN,
        a_float: -0.0,
        a_double: f64::MIN_POSITIVE,
        a_text: "\u{10FFFF}'\"\\".to_owned(),
        some_bytes: vec![0, 255],
        a_date: date,
        a_time: time,
        a_timestamp: date.and_time(time),
        maybe_bool: Some(true),
        maybe_small: Some(0),
        maybe_int: None,
        maybe_big: Some(i64::MAX),
        maybe_float: None,
        maybe_double: Some(0.0),
        maybe_text: None,
        maybe_bytes: None,
        maybe_date: None,
        maybe_time: None,
        maybe_timestamp: None,
    };
    let mut f = Fixture::new();
    let stored: Everything = f.run(|tx| tx.logged_insert(&row)).unwrap();
    assert_eq!(stored, row);
    let stored = f.oplog.entries(&mut f.conn).next().unwrap().unwrap();
    assert_eq!(stored.header().aggregate.as_str(), "everything:-2147483648");
    let entry = f.oplog.open_entry(&stored).unwrap();
    assert_eq!(entry.messages.len(), 1);
    assert_eq!(entry.messages[0].row::<Everything>().unwrap(), row);
    assert_eq!(entry.messages[0].null_tags, [15, 17, 19, 20, 21, 22, 23]);
    f.check();
}

#[test]
fn any_number_of_rows_is_inserted_in_one_call() {
    for n in [0_usize, 1, 511, 512, 1500] {
        let mut f = Fixture::new();
        let values = (0..n).map(|i| setting("many", i, (i % 2 == 0).then_some(&b"x"[..])));
        let rows: Vec<Setting> = f.run(|tx| tx.logged_insert_many(values.clone())).unwrap();
        assert_eq!(rows, values.collect::<Vec<_>>());
        let expected: Vec<_> = (0..n)
            .map(|i| {
                let value = if i % 2 == 0 {
                    "[120])"
                } else {
                    "NULL) nulls[3]"
                };
                format!(
                    r#"settings/1 create items setting(section="many" name="{i}" value={value}"#
                )
            })
            .collect();
        assert_eq!(f.news(), expected);
        assert_eq!(f.entries().len(), usize::from(n > 0));
        f.check();
    }
}

/// A row that gives all its values: `None` is `NULL`, and no default.
#[derive(Insertable, Clone)]
#[diesel(table_name = settings, treat_none_as_default_value = false)]
struct Given<'a> {
    section: &'a str,
    name: String,
    value: Option<&'a [u8]>,
}

/// How many inserts into `settings` were sent, and how many were put into Diesel's cache.
#[derive(Clone, Default)]
struct Inserts(Arc<Mutex<(usize, usize)>>);

impl Instrumentation for Inserts {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let is_insert = |sql: &str| {
            let sql = sql.replace(['"', '`'], "");
            usize::from(sql.starts_with("INSERT INTO settings "))
        };
        let (sent, cached) = &mut *self.0.lock().unwrap();
        match event {
            InstrumentationEvent::StartQuery { query, .. } => {
                *sent += is_insert(&query.to_string())
            }
            InstrumentationEvent::CacheQuery { sql, .. } => *cached += is_insert(sql),
            _ => {}
        }
    }
}

/// Few texts, so that Diesel's cache, which is unbounded, stays small.
#[test]
fn rows_whose_values_are_all_given_go_in_few_statements_that_are_cached() {
    let mut f = Fixture::new();
    let inserts = Inserts::default();
    f.conn.set_instrumentation(inserts.clone());
    let counted = |f: &mut Fixture, section: &str, values: &mut dyn FnMut(usize) -> bool| {
        let rows: Vec<Setting> = (0..100)
            .map(|i| setting(section, i, values(i).then_some(&b"x"[..])))
            .collect();
        let stored: Vec<Setting> = f.run(|tx| tx.logged_insert_many(&rows)).unwrap();
        assert_eq!(stored, rows);
        std::mem::take(&mut *inserts.0.lock().unwrap())
    };
    // SQLite leaves out what is not given, and so has no cache for types that may do that.
    let is_sqlite = crate::db::NAME == "sqlite";
    let expected = if is_sqlite { (2, 0) } else { (2, 2) };
    assert_eq!(counted(&mut f, "new", &mut |_| true), expected);
    assert_eq!(counted(&mut f, "again", &mut |_| true), (2, 0));
    let expected = if is_sqlite { (60, 0) } else { (2, 0) };
    let mixed = &mut |i| i >= 58 || i % 2 == 0;
    assert_eq!(counted(&mut f, "mixed", mixed), expected);
    for (section, cached) in [("given", if is_sqlite { 2 } else { 0 }), ("again given", 0)] {
        let rows = (0..100).map(|i| Given {
            section,
            name: i.to_string(),
            value: (i % 2 == 0).then_some(&b"x"[..]),
        });
        let stored: Vec<Setting> = f.run(|tx| tx.logged_insert_many(rows.clone())).unwrap();
        assert_eq!(stored[1].value, None);
        assert_eq!(std::mem::take(&mut *inserts.0.lock().unwrap()), (2, cached));
    }
    // What leaves out a column of one row, SQLite's Diesel caches by itself.
    let of_default = usize::from(is_sqlite);
    for (name, value, cached) in [
        ("one", Some(&b"x"[..]), 1),
        ("two", Some(b"y"), 0),
        ("none", None, of_default),
    ] {
        let one = setting("one", name, value);
        let _: Setting = f.run(|tx| tx.logged_insert(&one)).unwrap();
        let counted = std::mem::take(&mut *inserts.0.lock().unwrap());
        assert_eq!(counted, (1, cached), "{name}");
    }
    let with_expression = |i| {
        let name = sql::<Text>("'#' || ").bind::<Text, _>(format!("{i}?$1"));
        (settings::section.eq("e"), settings::name.eq(name))
    };
    let rows: Vec<Setting> = f
        .run(|tx| tx.logged_insert_many((0..10).map(with_expression)))
        .unwrap();
    assert_eq!(rows[9].name, "#9?$1");
    let sent = if is_sqlite { 10 } else { 1 };
    assert_eq!(*inserts.0.lock().unwrap(), (sent, 0));
    f.check();
}

#[test]
fn a_batch_of_references_and_tuples_is_inserted() {
    let mut f = Fixture::new();
    let values = [NewAccount { owner: "a" }, NewAccount { owner: "b" }];
    let rows: Vec<Account> = f
        .run(|tx| {
            let mut rows: Vec<Account> = tx.logged_insert_many(&values)?;
            rows.extend(tx.logged_insert_many::<Account, _>([(
                accounts::owner.eq("c"),
                accounts::balance.eq(1),
            )])?);
            Ok(rows)
        })
        .unwrap();
    assert_eq!(
        rows.iter()
            .map(|row| (row.id, row.balance))
            .collect::<Vec<_>>(),
        [(1, 10), (2, 10), (3, 1)]
    );
    assert_eq!(f.news().len(), 3);
    f.check();
}

/// `INSERT … SELECT`, which may insert any number of rows.
#[test]
fn an_insert_of_other_than_one_row_is_refused() {
    let mut f = Fixture::new();
    f.account("a");
    f.account("b");
    for (wanted, found) in [("a", 1), ("nobody", 0), ("%", 2)] {
        let insert = |tx: &mut oplog_diesel::Tx<'_, crate::db::Conn>| {
            let select = accounts::table
                .filter(accounts::owner.like(wanted))
                .select((
                    accounts::id + 100,
                    accounts::owner,
                    accounts::balance,
                    None::<String>.into_sql::<Nullable<diesel::sql_types::Text>>(),
                ));
            tx.logged_insert::<Account, _>(select)
        };
        if found == 1 {
            f.run(insert).unwrap();
            assert_eq!(
                f.news(),
                [
                    r#"account:101/1 create account(email=NULL id=101 owner="a" balance=10) nulls[4]"#
                ]
            );
            f.run(|tx| tx.logged_delete_by_key::<Account, _>(101))
                .unwrap();
            f.news();
            continue;
        }
        f.unchanged(|f| {
            let error = f.run(insert).unwrap_err();
            assert!(
                matches!(error, Error::RowCount { expected: 1, found: n } if n == found),
                "{error:?}"
            );
            let error = f
                .run(|tx| {
                    assert!(insert(tx).is_err());
                    Ok(())
                })
                .unwrap_err();
            assert!(matches!(error, Error::Record(_)), "{error:?}");
        });
    }
}
