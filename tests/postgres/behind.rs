//! What only PostgreSQL does by itself.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use diesel::prelude::*;
use oplog_diesel::Error;
use oplog_diesel::prelude::*;

use crate::behind::{
    Customer, Order, Shelf, Shop, customer, customers, furnish, order, orders, refused, shelves,
};
use crate::fixture::count;

diesel::table! { extra.labels (id) { id -> BigInt, shelf_id -> BigInt, } }

/// A row in another schema than its parent.
#[derive(Queryable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = labels)]
#[oplog(type_name = "label", aggregate = "labels")]
struct Label {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 2)]
    shelf_id: i64,
}

#[test]
fn rows_of_another_schema_go_along() {
    let mut shop = Shop::with(
        "CREATE SCHEMA extra;
         CREATE TABLE extra.labels (
             id BIGINT PRIMARY KEY,
             shelf_id BIGINT NOT NULL REFERENCES shelves (id) ON DELETE CASCADE
         )",
    );
    furnish(&mut shop);
    shop.run(|tx| {
        tx.logged_insert_many::<Label, _>([
            Label { id: 1, shelf_id: 2 },
            Label { id: 2, shelf_id: 3 },
        ])
    })
    .unwrap();
    shop.news();
    shop.run(|tx| tx.logged_delete_by_key::<Shelf, _>(2))
        .unwrap();
    let news = shop.news();
    assert!(
        news.iter()
            .any(|line| line.contains("delete items label(id=1 shelf_id=2)")),
        "{news:#?}"
    );
    shop.oplog
        .replay(&mut shop.conn)
        .into_suffix("_again")
        .unwrap();
    let same = "(SELECT * FROM extra.labels INTERSECT SELECT * FROM extra.labels_again) AS same";
    assert_eq!(count(&mut shop.conn, same), 1);
    assert_eq!(count(&mut shop.conn, "extra.labels_again"), 1);
}

#[test]
fn a_trigger_that_fires_at_the_commit_is_heard() {
    let mut shop = Shop::with(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN UPDATE customers SET name = ''late'' WHERE id = NEW.id; RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON customers DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION late()",
    );
    let ann = shop.run(|tx| customer(tx, "ann")).unwrap();
    assert_eq!(ann.name, "ann");
    let news = shop.news();
    assert_eq!(news.len(), 2, "{news:#?}");
    assert!(
        news[1].contains("set[name,loud,version,updated_at]"),
        "{news:#?}"
    );
    shop.check();
}

/// What constraints refuse when deferred triggers are fired is the application's own error, as it
/// would be at the commit.
#[test]
fn a_deferred_constraint_still_refuses() {
    let mut shop = Shop::with(
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN RAISE unique_violation; END';
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON customers DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION late()",
    );
    let refused = shop.run(|tx| customer(tx, "ann")).unwrap_err();
    assert!(matches!(refused, Error::Database(_)), "{refused:?}");
    assert_eq!(count(&mut shop.conn, "customers"), 0);
    shop.check();
}

#[test]
fn rules_and_triggers_of_partitions_are_refused() {
    let lines = refused(
        "CREATE RULE quiet AS ON DELETE TO postings DO ALSO NOTHING;
         CREATE RULE off AS ON DELETE TO postings DO ALSO NOTHING;
         ALTER TABLE postings DISABLE RULE off;
         DROP TABLE settings;
         CREATE TABLE settings (section TEXT NOT NULL, name TEXT NOT NULL, value BYTEA, PRIMARY KEY (section, name))
             PARTITION BY LIST (section);
         CREATE TABLE settings_a PARTITION OF settings FOR VALUES IN ('a');
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER everywhere AFTER INSERT ON settings FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TRIGGER here AFTER INSERT ON settings_a FOR EACH ROW EXECUTE FUNCTION f()",
    );
    let starts: Vec<&str> = lines
        .iter()
        .map(|line| line.split(" may ").next().unwrap())
        .collect();
    assert_eq!(
        starts,
        [
            "table `postings`: the rule `quiet` (ALSO DELETE)",
            "table `settings`: the trigger `everywhere` (AFTER INSERT)",
            "table `settings`: the trigger `here` (AFTER INSERT)",
        ]
    );
}

/// Who is making a row refer to one that is being deleted comes first or is refused: it never goes
/// along unlogged.
#[test]
fn no_row_slips_in_below_a_row_that_is_being_deleted() {
    let mut shop = Shop::new();
    let ann = shop.run(|tx| customer(tx, "ann")).unwrap();
    let (inserted, go_on) = (channel(), channel());
    let (oplog, mut other, of_ann) = (shop.oplog.clone(), shop.db.connect(), ann.clone());
    let inserter = thread::spawn(move || {
        oplog.transaction::<_, _, Error, _>(&mut other, |tx| {
            let order: Order = order(tx, &of_ann, None)?;
            inserted.0.send(()).unwrap();
            // Until the other one waits.
            go_on.1.recv_timeout(Duration::from_secs(10)).unwrap();
            Ok(order)
        })
    });
    inserted.1.recv_timeout(Duration::from_secs(10)).unwrap();
    let (oplog, mut other, of_ann) = (shop.oplog.clone(), shop.db.connect(), ann.clone());
    let deleter = thread::spawn(move || {
        oplog.transaction::<_, _, Error, _>(&mut other, |tx| tx.logged_delete(&of_ann))
    });
    while count(&mut shop.conn, "pg_locks WHERE NOT granted") == 0 {
        assert!(!deleter.is_finished(), "it must wait");
        thread::sleep(Duration::from_millis(10));
    }
    go_on.0.send(()).unwrap();
    inserter.join().unwrap().unwrap();
    let gone: Customer = deleter.join().unwrap().unwrap();
    assert_eq!(gone, ann);
    assert_eq!(orders::table.count().get_result(&mut shop.conn), Ok(0_i64));
    assert_eq!(
        customers::table.count().get_result(&mut shop.conn),
        Ok(0_i64)
    );
    assert_eq!(shop.news().len(), 4);
    shop.check();
}

/// Many at once: no order is lost or goes along unlogged, and nobody waits for ever.
#[test]
fn orders_and_deletes_race() {
    let mut shop = Shop::new();
    let all: Vec<Customer> = shop
        .run(|tx| (0..8).map(|_| customer(tx, "c")).collect())
        .unwrap();
    thread::scope(|scope| {
        for worker in 0..8 {
            let (oplog, mut conn, all) = (shop.oplog.clone(), shop.db.connect(), all.clone());
            scope.spawn(move || {
                for turn in 0..20 {
                    let customer = &all[(worker + turn) % 8];
                    if (worker + turn) % 9 == 8 {
                        let gone = oplog.transaction::<_, _, Error, _>(&mut conn, |tx| {
                            tx.logged_delete(customer)
                        });
                        let is_fine = matches!(
                            &gone,
                            Ok(_) | Err(Error::Database(diesel::result::Error::NotFound))
                        );
                        assert!(is_fine, "{gone:?}");
                    } else {
                        let made = oplog.transaction::<_, _, Error, _>(&mut conn, |tx| {
                            let order = order(tx, customer, None)?;
                            tx.logged_update(&order, orders::total.eq(5))
                        });
                        let is_fine = matches!(&made, Ok(_) | Err(Error::Database(_)));
                        assert!(is_fine, "{made:?}");
                    }
                }
            });
        }
    });
    shop.check();
    let left: i64 = shelves::table.count().get_result(&mut shop.conn).unwrap();
    assert_eq!(left, 0);
}
