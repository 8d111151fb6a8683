//! Every statement fails once of writes with which the database does more by itself: those that look
//! for what will go along, and those that read again what triggers made of a row.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::BigInt;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::faulty::{Failure, Fault, Faulty, Planned};

use crate::behind::*;
use crate::db::{Conn, is_free};
use crate::fixture::{assert_free, is_soak};

type FaultyTx<'t> = Tx<'t, Faulty<Conn>>;

/// Is told of the customer who has orders.
type Write = fn(&mut FaultyTx<'_>, &Customer) -> Result<(), Error>;

const DELETES: &[(&str, Write)] = &[
    ("delete of a row with others below", |tx, ann| {
        tx.logged_delete(ann).map(drop)
    }),
    ("delete_by_key of a row that others refer to", |tx, _| {
        tx.logged_delete_by_key::<Clerk, _>(2).map(drop)
    }),
    ("delete_where of rows with others below", |tx, _| {
        let some = orders::table.filter(orders::clerk_id.eq(2));
        tx.logged_delete_where::<Order, _>(some).map(drop)
    }),
];

const UPDATES: &[(&str, Write)] = &[
    ("update that a trigger adds to", |tx, ann| {
        tx.logged_update(ann, customers::name.eq("new")).map(drop)
    }),
    ("update that rows below follow", |tx, _| {
        let shelf: Shelf = tx.read_one(shelves::table.find(1).select(Shelf::as_select()))?;
        tx.logged_update(&shelf, shelves::code.eq("new")).map(drop)
    }),
    (
        "update_where that moves rows to another aggregate",
        |tx, _| {
            tx.logged_update_where::<Shelf, _, _>(shelves::table, shelves::room.eq(2))
                .map(drop)
        },
    ),
];

const INSERTS: &[(&str, Write)] = &[
    ("insert that changes a row of the transaction", |tx, ann| {
        let order = order(tx, ann)?;
        line(tx, &order).map(drop)
    }),
    ("insert of a row that a trigger moves", |tx, _| {
        let row = (
            memos::id.eq(FAR),
            memos::owner_id.eq(1),
            memos::body.eq("move"),
        );
        tx.logged_insert::<Memo, _>(row).map(drop)
    }),
    ("savepoint that is taken back", |tx, ann| {
        let order = order(tx, ann)?;
        let back: Result<(), Error> = tx.savepoint(|tx| {
            line(tx, &order)?;
            Err(DieselError::RollbackTransaction.into())
        });
        match back {
            Err(Error::Database(DieselError::RollbackTransaction)) => Ok(()),
            other => other,
        }
    }),
];

const FAULTS: [Fault; 7] = [
    Fault::Instead(Failure::Unknown),
    Fault::After(Failure::Unknown),
    Fault::PanicInstead,
    Fault::Instead(Failure::Closed),
    Fault::PanicAfter,
    Fault::After(Failure::Closed),
    Fault::Instead(Failure::Deadlock),
];

/// A number that no sequence comes to.
const FAR: i64 = 1 << 40;

fn order(tx: &mut FaultyTx<'_>, customer: &Customer) -> Result<Order, Error> {
    tx.logged_insert((orders::id.eq(FAR), orders::customer_id.eq(customer.id)))
}

fn line(tx: &mut FaultyTx<'_>, order: &Order) -> Result<Line, Error> {
    tx.logged_insert(Line {
        order_id: order.id,
        number: 1,
        amount: 7,
        customer_id: Some(order.customer_id),
    })
}

/// What a transaction can change.
#[derive(QueryableByName, Debug, PartialEq)]
struct Totals {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    changes: i64,
    #[diesel(sql_type = BigInt)]
    entries: i64,
}

fn totals(conn: &mut Conn) -> Totals {
    let rows = TABLES.map(|table| format!("(SELECT count(*) FROM {table})"));
    let changes = [
        ("customers", "version"),
        ("orders", "version + total"),
        ("crates", "version"),
        ("shelves", "room"),
        ("memos", "owner_id"),
    ];
    let changes = changes.map(|(table, column)| {
        format!("(SELECT CAST(coalesce(sum({column}), 0) AS BIGINT) FROM {table})")
    });
    let sql = format!(
        "SELECT {} AS rows, {} AS changes, (SELECT count(*) FROM oplog_entry) AS entries",
        rows.join(" + "),
        changes.join(" + ")
    );
    diesel::sql_query(sql).get_result(conn).unwrap()
}

/// Puts the rows there that all writes expect, and no others.
fn restock(shop: &mut Shop) -> Customer {
    shop.run(|tx| {
        tx.logged_delete_where::<Thing, _>(things::table)?;
        tx.logged_delete_where::<Shelf, _>(shelves::table)?;
        tx.logged_delete_where::<Customer, _>(customers::table)?;
        tx.logged_delete_where::<Clerk, _>(clerks::table)?;
        tx.logged_delete_where::<Remark, _>(remarks::table)?;
        tx.logged_delete_where::<Memo, _>(memos::table)?;
        place(tx)?;
        stock(tx)
    })
    .unwrap()
}

/// How a transaction runs, beyond what it writes.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    /// Whether it names aggregates.
    names: bool,
    /// Whether it goes on to its commit whatever its writes said.
    ignores: bool,
}

/// The number of entries.
fn run(
    oplog: &Oplog,
    conn: &mut Faulty<Conn>,
    write: Write,
    ann: &Customer,
    manner: Manner,
) -> Result<i64, Error> {
    let builder = oplog.metadata("k", "v");
    let builder = match manner.names {
        true => builder.on(ann.aggregate()).and("clerks"),
        false => builder,
    };
    let written = builder.transaction_with_receipts(conn, |tx| match write(tx, ann) {
        Err(_) if manner.ignores => Ok(()),
        other => other,
    });
    written.map(|((), receipts)| receipts.len() as i64)
}

/// Lets each statement of some writes fail; with one fault, another one at the next statement, unless
/// there is time for all.
fn suffer(writes: &[(&str, Write)]) {
    let step = if is_soak() { 1 } else { FAULTS.len() };
    let mut shop = Shop::new();
    let mut conn = Faulty::new(shop.db.connect());
    let mut manner = Manner::default();
    for (index, (name, write)) in writes.iter().enumerate() {
        let mut ann = restock(&mut shop);
        conn.heal();
        let expected = run(&shop.oplog, &mut conn, *write, &ann, Manner::default()).unwrap();
        assert!(expected > 0);
        let statements = conn.sent().len();
        ann = restock(&mut shop);
        for at in 1..=statements {
            for fault in FAULTS.iter().skip((index + at) % step).step_by(step) {
                manner.ignores = !manner.ignores;
                manner.names ^= manner.ignores;
                let before = totals(&mut shop.conn);
                conn.plan(at, *fault);
                let told = catch_unwind(AssertUnwindSafe(|| {
                    run(&shop.oplog, &mut conn, *write, &ann, manner)
                }));
                let struck = conn.struck().cloned();
                conn.heal();
                let after = totals(&mut shop.conn);
                let what = format!("{name}, {manner:?}, {fault:?} of {at}, {struck:?}: {told:?}");
                let is_commit = struck.as_ref().is_some_and(|struck| struck.sql == "COMMIT");
                match told {
                    Ok(Ok(entries)) => {
                        assert_eq!(after.entries, before.entries + entries, "{what}");
                        let may_be_less = manner.ignores && struck.is_some();
                        assert!(entries == expected || may_be_less, "{what}");
                    }
                    Ok(Err(Error::CommitUnknown { .. })) => assert!(is_commit, "{what}"),
                    Ok(Err(_)) => {
                        assert!(struck.is_some(), "{what}");
                        assert_eq!(after, before, "{what}");
                    }
                    Err(panic) => {
                        assert!(panic.is::<Planned>(), "{what}");
                        assert!(is_commit || after == before, "{what}");
                    }
                }
                if conn.is_broken() {
                    conn = Faulty::new(shop.db.connect());
                } else {
                    assert!(is_free(conn.inner()), "{what}");
                    assert_free(conn.inner());
                }
                if after != before {
                    ann = restock(&mut shop);
                }
            }
        }
        shop.check();
    }
}

#[test]
fn each_statement_of_a_delete_fails() {
    suffer(DELETES);
}

#[test]
fn each_statement_of_an_update_fails() {
    suffer(UPDATES);
}

#[test]
fn each_statement_of_an_insert_fails() {
    suffer(INSERTS);
}
