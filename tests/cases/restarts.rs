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

/// Increments the first account's balance, which all writers share.
fn increment(
    oplog: &Oplog,
    conn: &mut Conn,
    optimistic: bool,
) -> Result<(Account, Vec<Receipt>), Error> {
    let builder = oplog.metadata("optimistic", optimistic.to_string());
    if optimistic {
        return builder
            .on("account:1")
            .transaction_with_receipts(conn, |tx| {
                let now = account(tx)?;
                tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
            });
    }
    builder.transaction_with_receipts(conn, |tx| {
        let now = account(tx)?;
        let row = (postings::account_id.eq(1), postings::amount.eq(1));
        tx.logged_insert::<Posting, _>(row)?;
        tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1))
    })
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
    let (oplog, url) = (&f.oplog, f.db.url());
    let (stop, committed, unknown) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    thread::scope(|scope| {
        for writer in 0..4 {
            let (url, stop, committed, unknown) = (&url, &stop, &committed, &unknown);
            scope.spawn(move || {
                let mut conn = reconnect(url);
                while !stop.load(Ordering::Relaxed) {
                    let is_committed = match increment(oplog, &mut conn, writer % 2 == 0) {
                        Ok((_, receipts)) => {
                            assert_eq!(receipts.len(), 1);
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
                        Err(error) => panic!("{error:?}"),
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
    let committed = committed.into_inner();
    assert!(committed > 0);
    println!(
        "{committed} committed, of {} nobody knew at first",
        unknown.into_inner()
    );
    let now = f.snapshot();
    assert_eq!(now.accounts[0].balance, 10 + committed);
    assert_eq!(now.entries, 1 + committed);
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
        let write = |f: &mut Fixture, number: u64, named: bool| {
            let value = if compresses {
                vec![7; 300_000]
            } else {
                noise(300_000, number + 1)
            };
            let builder = f.oplog.metadata("number", number.to_string());
            let builder = if named {
                builder.on("settings").on("account:1")
            } else {
                builder
            };
            builder.transaction(&mut f.conn, |tx| {
                let now = account(tx)?;
                tx.logged_update(&now, accounts::balance.eq(now.balance + 1))?;
                tx.logged_insert::<Setting, _>(&Setting {
                    section: String::new(),
                    name: number.to_string(),
                    value: Some(value.clone()),
                })
            })
        };
        let mut number = 0;
        let error = loop {
            match write(&mut f, number, number % 2 == 0) {
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
        for named in [false, true] {
            write(&mut f, number, named).unwrap_err();
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
