//! The work of the victim, on one database.

use std::io::Write as _;
use std::thread;

use diesel::prelude::*;
use oplog_diesel::Error;
use oplog_diesel::core::Receipt;
use oplog_diesel::prelude::*;
use oplog_tests::faulty::Faulty;
use oplog_tests::models::*;
use oplog_tests::schema::*;
use rustix::process::{Signal, getpid, kill_process};

use super::db::{Conn, connect};
use crate::{Death, Orders};

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
            await_death(&mut conn, orders.death);
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

/// Increments the balance of the first account, which all victims share, and inserts two rows.
fn write(
    oplog: &Oplog,
    conn: &mut Faulty<Conn>,
    orders: &Orders,
    number: usize,
) -> Result<Vec<Receipt>, Error> {
    let builder = oplog
        .metadata("writer", &orders.name)
        .metadata("number", number.to_string());
    let builder = if orders.optimistic {
        builder.on("account:1").and("settings")
    } else {
        builder
    };
    let written = builder.transaction_with_receipts(conn, |tx| {
        let account: Account = tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
        if orders.optimistic {
            tx.logged_update(&account, accounts::balance.eq(account.balance + 1))?;
        } else {
            tx.logged_update(&account, accounts::balance.eq(accounts::balance + 1))?;
        }
        let row = (postings::account_id.eq(1), postings::amount.eq(1));
        tx.logged_insert::<Posting, _>(row)?;
        tx.logged_insert::<Setting, _>(&Setting {
            section: orders.name.clone(),
            name: number.to_string(),
            value: None,
        })
    });
    written.map(|(_, receipts)| receipts)
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

fn await_death(conn: &mut Faulty<Conn>, death: Death) {
    conn.before(move |at, sql| match death {
        Death::Statement(number) if number == at => die(),
        Death::Commit(after) if sql == "COMMIT" => {
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
