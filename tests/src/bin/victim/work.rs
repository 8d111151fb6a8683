//! The work of the victim, on one database.

use std::io::Write as _;
use std::thread;

use diesel::prelude::*;
use oplog_diesel::core::Receipt;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, TransactionBuilder};
use oplog_tests::faulty::Faulty;
use oplog_tests::models::*;
use oplog_tests::schema::*;
use rustix::process::{Signal, getpid, kill_process};

use super::db::{Conn, connect};
use crate::{Death, Mode, Orders};

/// The transaction in which it dies by itself.
const LAST: usize = 3;

pub fn work(orders: &Orders) {
    let mut conn = connect(&orders.url);
    let key = KeyFile::new(&orders.key);
    let oplog = Oplog::builder().key(key).open(&mut conn).expect("the log");
    let mut conn = Faulty::new(conn);
    for number in 1.. {
        conn.heal();
        if number == LAST {
            await_death(&mut conn, orders);
        }
        let receipts = write(&oplog, &mut conn, orders, number).expect("a commit");
        if matches!(orders.death, Death::Untold) && number == LAST {
            die();
        }
        tell(number, &receipts);
        if number == LAST && !matches!(orders.death, Death::Other) {
            return;
        }
    }
}

/// Increments what all victims share, the balance of the first account and the first counter or one of
/// them, and inserts other rows.
fn write(
    oplog: &Oplog,
    conn: &mut Faulty<Conn>,
    orders: &Orders,
    number: usize,
) -> Result<Vec<Receipt>, Error> {
    let described = || {
        oplog
            .metadata("writer", &orders.name)
            .metadata("number", number.to_string())
    };
    if orders.mode == Mode::Alone {
        return described().logged_insert_row(conn, &setting(orders, number));
    }
    if orders.mode != Mode::Nested {
        return write_in(described(), conn, orders, number);
    }
    // What would run again is the outer transaction, and so our own business.
    loop {
        match conn.transaction(|conn| write_in(described().nested(), conn, orders, number)) {
            Err(Error::Contention { .. }) => {}
            Err(Error::Database(error)) if error.to_string() == "database is locked" => {}
            written => return written,
        }
    }
}

fn write_in(
    builder: TransactionBuilder<'_>,
    conn: &mut Faulty<Conn>,
    orders: &Orders,
    number: usize,
) -> Result<Vec<Receipt>, Error> {
    let process = i64::from(getpid().as_raw_nonzero().get());
    let fresh = Counter {
        id: (process << 20) + number as i64,
        n: 0,
    };
    let builder = match orders.mode {
        Mode::Late | Mode::Alone => builder,
        Mode::Optimistic => builder.on("account:1").and("settings"),
        Mode::LockFirst => builder.on("counter:1").and(fresh.aggregate()),
        Mode::Mixed => builder.on("account:1").and("counter:1"),
        Mode::Nested => builder.on("counter:1"),
    };
    let written = builder.transaction_with_receipts(conn, |tx| {
        if matches!(orders.mode, Mode::LockFirst | Mode::Mixed | Mode::Nested) {
            let now: Counter = tx.read_one(counters::table.find(1).select(Counter::as_select()))?;
            tx.logged_update(&now, counters::n.eq(now.n + 1))?;
        }
        if orders.mode == Mode::LockFirst {
            tx.logged_insert::<Counter, _>(&fresh)?;
        } else {
            let now: Account = tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
            if matches!(orders.mode, Mode::Late | Mode::Nested) {
                tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1))?;
            } else {
                tx.logged_update(&now, accounts::balance.eq(now.balance + 1))?;
            }
            let row = (postings::account_id.eq(1), postings::amount.eq(1));
            tx.logged_insert::<Posting, _>(row)?;
        }
        tx.logged_insert::<Setting, _>(&setting(orders, number))
    });
    written.map(|(_, receipts)| receipts)
}

fn setting(orders: &Orders, number: usize) -> Setting {
    Setting {
        section: orders.name.clone(),
        name: number.to_string(),
        value: None,
    }
}

fn tell(number: usize, receipts: &[Receipt]) {
    let mut line = number.to_string();
    for receipt in receipts {
        let Receipt {
            aggregate,
            sequence,
            entry_hash,
        } = receipt;
        line += &format!(" {aggregate} {sequence} {entry_hash}");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .expect("somebody who listens");
}

fn await_death(conn: &mut Faulty<Conn>, orders: &Orders) {
    let (death, is_alone) = (orders.death, orders.mode == Mode::Alone);
    conn.before(move |at, sql| match death {
        Death::Statement(number) if number == at => die(),
        Death::Commit(after) if sql == "COMMIT" || is_alone && sql.contains("oplog_entry") => {
            thread::spawn(move || {
                thread::sleep(after);
                die();
            });
        }
        _ => {}
    });
}

fn die() {
    kill_process(getpid(), Signal::KILL).expect("a signal to ourselves");
    // It may take a moment to arrive.
    loop {
        thread::park();
    }
}
