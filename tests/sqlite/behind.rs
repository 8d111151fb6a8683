//! What only SQLite does by itself.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::{Error, TargetError};

use crate::behind::{Crate, Customer, Shelf, Shop, customers, fill, furnish, refused, shelves};
use crate::db::Db;
use crate::fixture::count;

/// Keys act only on connections that were told to check them.
#[test]
fn where_keys_do_not_act_nothing_is_said_to_go_along() {
    let mut shop = Shop::new();
    let ann = fill(&mut shop);
    let mut conn = shop.db.connect();
    conn.batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    let delete = |conn| {
        let transaction = shop.oplog.metadata("keys", "off");
        transaction.transaction::<_, _, Error, _>(conn, |tx| tx.logged_delete(&ann))
    };
    delete(&mut conn).unwrap();
    assert_eq!(shop.news().len(), 1);
    assert_eq!(count(&mut shop.conn, "orders"), 3);
    shop.oplog.replay(&mut conn).into_suffix("_off").unwrap();
    assert_eq!(count(&mut conn, "orders_off"), 3);
    // Where they do, rows that the log has would go.
    let error = shop
        .oplog
        .replay(&mut shop.conn)
        .into_suffix("_on")
        .unwrap_err();
    let Error::Target {
        table,
        what: TargetError::Rows { expected, found },
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((table.as_str(), expected, found), ("lines_on", 6, 2));
}

/// A row that moves where keys do not act must be able to do so where they do.
#[test]
fn rows_move_where_keys_do_not_act() {
    let mut shop = Shop::new();
    furnish(&mut shop);
    let mut conn = shop.db.connect();
    conn.batch_execute("PRAGMA foreign_keys = OFF").unwrap();
    let shelf: Shelf = shelves::table
        .find(2)
        .select(Shelf::as_select())
        .first(&mut conn)
        .unwrap();
    let transaction = shop.oplog.metadata("keys", "off");
    transaction
        .transaction::<_, _, Error, _>(&mut conn, |tx| {
            tx.logged_update(&shelf, shelves::room.eq(9))
        })
        .unwrap();
    assert_eq!(shop.news().len(), 2 * 3);
    shop.check();
}

/// A foreign key compares as the column that it refers to does.
#[test]
fn rows_that_refer_in_other_letters_go_along() {
    let mut shop = Shop::with(
        "DROP TABLE shelves;
         CREATE TABLE shelves (
             id INTEGER PRIMARY KEY,
             code TEXT NOT NULL UNIQUE COLLATE NOCASE,
             room BIGINT NOT NULL
         )",
    );
    furnish(&mut shop);
    shop.run(|tx| {
        let shelf_code = "C1".to_owned();
        tx.logged_insert::<Crate, _>(Crate {
            shelf_code,
            number: 2,
            version: 1,
        })
    })
    .unwrap();
    shop.news();
    shop.run(|tx| tx.logged_delete_by_key::<Shelf, _>(2))
        .unwrap();
    shop.run(|tx| {
        let shelf: Shelf = tx.read_one(shelves::table.find(1).select(Shelf::as_select()))?;
        tx.logged_update(&shelf, shelves::code.eq("new"))
    })
    .unwrap();
    let news = shop.news();
    assert!(
        news.iter()
            .any(|line| line.contains(r#"delete items crate(shelf_code="C1""#)),
        "{news:#?}"
    );
    assert!(
        news.iter()
            .any(|line| line.contains(r#"create items crate(shelf_code="new" number=2"#)),
        "{news:#?}"
    );
    shop.check();
}

#[test]
fn constraints_that_replace_rows_are_refused() {
    let lines = refused(
        "DROP TABLE everything;
         DROP TABLE settings;
         CREATE TABLE settings (
             section TEXT NOT NULL,
             name TEXT NOT NULL,
             value BLOB UNIQUE ON CONFLICT REPLACE,
             PRIMARY KEY (section, name)
         )",
    );
    assert_eq!(
        lines,
        [
            "table `settings`: a constraint with ON CONFLICT REPLACE deletes rows that are in the way of \
          others, and that can't be logged; make the table anew without it"
        ]
    );
}

/// A trigger of the connection alone, which no declaration is about, can't be switched off without a
/// trace.
#[test]
fn temporary_triggers_of_a_target_are_refused() {
    let mut shop = Shop::new();
    let ann = fill(&mut shop);
    shop.run(|tx| tx.logged_update(&ann, customers::name.eq("x")))
        .unwrap();
    let target = Db::with_side_effects();
    let mut target = target.connect();
    target
        .batch_execute(
            "CREATE TEMP TRIGGER mine AFTER UPDATE ON main.customers BEGIN SELECT 1; END",
        )
        .unwrap();
    let error = shop
        .oplog
        .replay(&mut shop.conn)
        .into_database(&mut target)
        .unwrap_err();
    let expected = TargetError::Triggers {
        names: vec!["mine".to_owned()],
    };
    assert!(
        matches!(&error, Error::Target { table, what } if table == "customers" && *what == expected),
        "{error:?}"
    );
    // The others are still there.
    let triggers = "sqlite_master WHERE type = 'trigger' AND tbl_name = 'customers'";
    assert_eq!(count(&mut target, triggers), 1);
    assert_eq!(
        customers::table
            .select(Customer::as_select())
            .load(&mut target)
            .unwrap(),
        []
    );
}
