//! A server that is stopped and started while others write, and one whose disk is full. PostgreSQL
//! only, on servers of the tests' own.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::prelude::*;
use oplog_diesel::core::Receipt;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;
use oplog_tests::server::Server;

use crate::db::{Conn, Db, wait_alone};
use crate::fixture::{Fixture, is_soak};

fn account(tx: &mut Tx<'_, Conn>) -> Result<Account, Error> {
    tx.read_one(accounts::table.find(1).select(Account::as_select()))
}

fn count(tx: &mut Tx<'_, Conn>) -> Result<Counter, Error> {
    let now: Counter = tx.read_one(counters::table.find(1).select(Counter::as_select()))?;
    tx.logged_update(&now, counters::n.eq(now.n + 1))
}

/// How a writer takes tickets, and what it writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    /// It increments the account's balance, and posts.
    Late,
    /// It increments the account's balance.
    Optimistic,
    /// It increments the counter.
    LockFirst,
    /// It increments the counter and then the account's balance, in a transaction of its own around the
    /// logged one.
    Nested,
    /// It inserts a setting, in one statement.
    Alone,
}

const MODES: [Mode; 5] = [
    Mode::Late,
    Mode::Optimistic,
    Mode::LockFirst,
    Mode::Nested,
    Mode::Alone,
];

/// Writes once. `number` is another one each time.
fn write(oplog: &Oplog, conn: &mut Conn, mode: Mode, number: usize) -> Result<Vec<Receipt>, Error> {
    let builder = oplog.metadata("mode", format!("{mode:?}"));
    let written = match mode {
        Mode::Late => builder.transaction_with_receipts(conn, |tx| {
            let now = account(tx)?;
            let row = (postings::account_id.eq(1), postings::amount.eq(1));
            tx.logged_insert::<Posting, _>(row)?;
            tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1))
                .map(drop)
        }),
        Mode::Optimistic => builder
            .on("account:1")
            .transaction_with_receipts(conn, |tx| {
                let now = account(tx)?;
                tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
                    .map(drop)
            }),
        Mode::LockFirst => builder
            .on("counter:1")
            .transaction_with_receipts(conn, |tx| count(tx).map(drop)),
        Mode::Nested => {
            let builder = builder.nested().on("counter:1");
            let mut receipts = Vec::new();
            let committed = conn.transaction(|conn| {
                let written = builder.transaction_with_receipts(conn, |tx| {
                    count(tx)?;
                    let now = account(tx)?;
                    tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1))
                })?;
                receipts = written.1;
                Ok(())
            });
            match committed {
                Err(Error::Database(_)) if !receipts.is_empty() => {
                    return Err(Error::CommitUnknown { receipts });
                }
                committed => committed.map(|()| ((), receipts)),
            }
        }
        Mode::Alone => {
            let row = Setting {
                section: String::new(),
                name: number.to_string(),
                value: None,
            };
            return builder.logged_insert_row(conn, &row);
        }
    };
    written.map(|((), receipts)| receipts)
}

/// A connection to a server that may be down.
fn reconnect(url: &str) -> Conn {
    let started = Instant::now();
    loop {
        match Conn::establish(url) {
            Ok(conn) => return conn,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a transaction of which nobody knows was committed, from a server that may be down.
fn resolve(oplog: &Oplog, url: &str, receipts: &[Receipt]) -> bool {
    loop {
        if let Ok(is_committed) = oplog.resolve(&mut reconnect(url), receipts) {
            return is_committed;
        }
    }
}

#[test]
fn a_server_that_is_stopped_and_started_loses_and_doubles_nothing() {
    let mut server = Server::new();
    let mut f = Fixture::on(Db::new_on(server.url()));
    f.account("Alice");
    f.counter(1);
    let (oplog, url) = (&f.oplog, f.db.url());
    let (stop, unknown) = (AtomicBool::new(false), AtomicI64::new(0));
    let committed = MODES.map(|_| AtomicI64::new(0));
    thread::scope(|scope| {
        for (mode, committed) in MODES.into_iter().zip(&committed) {
            let (url, stop, unknown) = (&url, &stop, &unknown);
            scope.spawn(move || {
                let mut conn = reconnect(url);
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let is_committed = match write(oplog, &mut conn, mode, number) {
                        Ok(receipts) => {
                            assert_eq!(receipts.len(), 1 + usize::from(mode == Mode::Nested));
                            true
                        }
                        Err(Error::CommitUnknown { receipts }) => {
                            unknown.fetch_add(1, Ordering::Relaxed);
                            conn = reconnect(url);
                            resolve(oplog, url, &receipts)
                        }
                        Err(Error::Database(_) | Error::Store { .. }) => {
                            conn = reconnect(url);
                            false
                        }
                        Err(error) => panic!("{mode:?}: {error:?}"),
                    };
                    committed.fetch_add(is_committed.into(), Ordering::Relaxed);
                }
            });
        }
        let rounds = if is_soak() { 40 } else { 4 };
        for round in 0..rounds {
            thread::sleep(Duration::from_millis(400));
            if round % 2 == 0 {
                server.stop();
            } else {
                server.kill();
            }
            server.start();
        }
        thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
    });
    f.conn = reconnect(&url);
    wait_alone(&mut f.conn);
    let committed = committed.map(AtomicI64::into_inner);
    println!(
        "{committed:?} committed, of {} nobody knew at first",
        unknown.into_inner()
    );
    assert!(committed.iter().all(|n| *n > 0));
    let [late, optimistic, lock_first, nested, alone] = committed;
    let now = f.snapshot();
    assert_eq!(now.accounts[0].balance, 10 + late + optimistic + nested);
    assert_eq!(now.postings.len() as i64, late);
    assert_eq!(now.settings.len() as i64, alone);
    let counter: Counter = counters::table
        .select(Counter::as_select())
        .first(&mut f.conn)
        .unwrap();
    assert_eq!(counter.n, lock_first + nested);
    assert_eq!(now.entries, 2 + committed.iter().sum::<i64>() + nested);
    f.check();
    // The database goes before its server.
    drop(f);
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Writes until the disk is full: in the user's table, or, with values that compress, in the log.
#[test]
fn a_full_disk_leaves_no_half() {
    let server = Server::with_file_max(4 << 20);
    for compresses in [false, true] {
        let mut f = Fixture::on(Db::new_on(server.url()));
        f.account("Alice");
        f.counter(1);
        let write = |f: &mut Fixture, number: u64, mode: Mode| {
            let value = if compresses {
                vec![7; 300_000]
            } else {
                noise(300_000, number + 1)
            };
            let builder = f.oplog.metadata("number", number.to_string());
            let builder = match mode {
                Mode::Optimistic => builder.on("settings").on("account:1"),
                Mode::LockFirst => builder.on("settings").on("counter:1"),
                _ => builder,
            };
            builder.transaction(&mut f.conn, |tx| {
                if mode == Mode::LockFirst {
                    count(tx)?;
                }
                let now = account(tx)?;
                tx.logged_update(&now, accounts::balance.eq(now.balance + 1))?;
                tx.logged_insert::<Setting, _>(&Setting {
                    section: String::new(),
                    name: number.to_string(),
                    value: Some(value.clone()),
                })
            })
        };
        let modes = [Mode::Late, Mode::Optimistic, Mode::LockFirst];
        let mut number = 0;
        let error = loop {
            match write(&mut f, number, modes[number as usize % 3]) {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
            assert!(number < 100);
        };
        assert!(number > 3);
        match error {
            Error::Database(_) if !compresses => {}
            Error::Store { operation, .. } if compresses => {
                assert_eq!(operation, "redeeming a ticket and appending its entry");
            }
            error => panic!("{error:?}"),
        }
        let before = f.snapshot();
        for mode in modes {
            write(&mut f, number, mode).unwrap_err();
            assert_eq!(f.snapshot(), before);
        }
        // What still has room goes on.
        f.run(|tx| {
            let now = account(tx)?;
            tx.logged_update(&now, accounts::balance.eq(0))
        })
        .unwrap();
        f.check();
    }
}
