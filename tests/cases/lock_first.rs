//! Tickets that are locked before any row.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use diesel::prelude::*;
use oplog_diesel::core::RecordError;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Conn;
use crate::fixture::{Fixture, assert_free};

fn counter(tx: &mut Tx<'_, Conn>, id: i64) -> Result<Counter, Error> {
    tx.read_one(counters::table.find(id).select(Counter::as_select()))
}

fn counted(f: &mut Fixture, ids: &[i64]) -> Vec<Counter> {
    let counters: Vec<Counter> = ids.iter().map(|id| Counter { id: *id, n: 0 }).collect();
    for counter in &counters {
        f.oplog
            .on(counter.aggregate())
            .transaction(&mut f.conn, |tx| tx.logged_insert::<Counter, _>(counter))
            .unwrap();
    }
    f.news();
    counters
}

#[test]
fn an_aggregate_that_was_not_named_is_refused() {
    let mut f = Fixture::new();
    let counters = counted(&mut f, &[1, 2]);
    f.unchanged(|f| {
        let refused = |error: Error, name: &str| {
            assert!(
                matches!(&error, Error::Record(RecordError::NotLockedFirst { aggregate }) if aggregate == name),
                "{error:?}"
            );
        };
        let insert = f.run(|tx| tx.logged_insert::<Counter, _>(&Counter { id: 3, n: 0 }));
        refused(insert.unwrap_err(), "counter:3");
        let update = f.run(|tx| tx.logged_update(&counters[0], counters::n.eq(1)));
        refused(update.unwrap_err(), "counter:1");
        // Another one of the same kind does not help.
        let other = f.oplog.on("counter:1").transaction(&mut f.conn, |tx| {
            tx.logged_update(&counters[0], counters::n.eq(1))?;
            tx.logged_delete(&counters[1])
        });
        refused(other.unwrap_err(), "counter:2");
    });
    f.oplog
        .on("counter:2")
        .and("counter:1")
        .transaction(&mut f.conn, |tx| {
            tx.logged_update(&counters[0], counters::n.eq(1))?;
            tx.logged_delete(&counters[1])
        })
        .unwrap();
    assert_eq!(f.news().len(), 2);
    f.check();
}

#[test]
fn writers_queue_and_nobody_runs_again() {
    const THREADS: usize = 16;
    const ROUNDS: usize = 4;
    let mut f = Fixture::new();
    let counter_row = counted(&mut f, &[1]).remove(0);
    let runs = AtomicU32::new(0);
    let mut conns: Vec<Conn> = (0..THREADS).map(|_| f.db.connect()).collect();
    let oplog = &f.oplog;
    thread::scope(|scope| {
        for conn in &mut conns {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    oplog
                        .on(counter_row.aggregate())
                        .transaction(conn, |tx| {
                            runs.fetch_add(1, Ordering::Relaxed);
                            let now = counter(tx, 1)?;
                            tx.logged_update(&now, counters::n.eq(now.n + 1))
                        })
                        .unwrap();
                }
                assert_free(conn);
            });
        }
    });
    let n = THREADS * ROUNDS;
    let stored: i64 = counters::table
        .select(counters::n)
        .first(&mut f.conn)
        .unwrap();
    assert_eq!(stored, n as i64);
    assert_eq!(runs.load(Ordering::Relaxed) as usize, n);
    assert_eq!(f.entries().len(), 1 + n);
    f.check();
}

/// The tickets are missing, and each thread names them in another order.
#[test]
fn missing_tickets_are_created_in_order() {
    const THREADS: usize = 12;
    let mut f = Fixture::new();
    let mut conns: Vec<Conn> = (0..THREADS).map(|_| f.db.connect()).collect();
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for (thread, conn) in conns.iter_mut().enumerate() {
            let (oplog, barrier) = (&f.oplog, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut names = ["counter:1", "counter:2", "counter:3"];
                names.rotate_left(thread % 3);
                if thread % 2 == 0 {
                    names.reverse();
                }
                oplog
                    .on(names[0])
                    .and(names[1])
                    .and(names[2])
                    .transaction(conn, |tx| {
                        for id in 1..=3 {
                            match counter(tx, id) {
                                Ok(now) => tx.logged_update(&now, counters::n.eq(now.n + 1))?,
                                Err(Error::Database(diesel::NotFound)) => {
                                    tx.logged_insert(&Counter { id, n: 1 })?
                                }
                                Err(error) => return Err(error),
                            };
                        }
                        Ok(())
                    })
                    .unwrap();
            });
        }
    });
    let stored: Vec<i64> = counters::table
        .select(counters::n)
        .load(&mut f.conn)
        .unwrap();
    assert_eq!(stored, [THREADS as i64; 3]);
    f.check();
}

/// The three modes in one transaction, and against each other.
#[test]
fn modes_are_mixed() {
    const THREADS: usize = 12;
    const ROUNDS: usize = 3;
    let mut f = Fixture::new();
    let counter_row = counted(&mut f, &[1]).remove(0);
    let alice = f.account("Alice");
    let bob = f.account("Bob");
    let mut conns: Vec<Conn> = (0..THREADS).map(|_| f.db.connect()).collect();
    thread::scope(|scope| {
        for (thread, conn) in conns.iter_mut().enumerate() {
            let (oplog, alice, bob, counter_row) = (&f.oplog, &alice, &bob, &counter_row);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let late = |tx: &mut Tx<'_, Conn>| {
                        tx.logged_update(bob, accounts::balance.eq(accounts::balance + 1))
                    };
                    let optimistic = |tx: &mut Tx<'_, Conn>| {
                        let now: Account = tx.read_one(
                            accounts::table.find(alice.id).select(Account::as_select()),
                        )?;
                        tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
                    };
                    let first = |tx: &mut Tx<'_, Conn>| {
                        let now = counter(tx, 1)?;
                        tx.logged_update(&now, counters::n.eq(now.n + 1))
                    };
                    match thread % 4 {
                        0 => oplog.transaction(conn, |tx| late(tx).map(drop)),
                        1 => oplog
                            .on(alice.aggregate())
                            .transaction(conn, |tx| optimistic(tx).map(drop)),
                        2 => oplog
                            .on(counter_row.aggregate())
                            .transaction(conn, |tx| first(tx).map(drop)),
                        _ => oplog
                            .on(alice.aggregate())
                            .and(counter_row.aggregate())
                            .transaction(conn, |tx| {
                                optimistic(tx)?;
                                late(tx)?;
                                first(tx).map(drop)
                            }),
                    }
                    .unwrap();
                }
                assert_free(conn);
            });
        }
    });
    let each = (THREADS / 4 * ROUNDS) as i64;
    let after = f.snapshot();
    let balances: Vec<i64> = after
        .accounts
        .iter()
        .map(|account| account.balance)
        .collect();
    assert_eq!(balances, [10 + 2 * each, 10 + 2 * each]);
    let n: i64 = counters::table
        .select(counters::n)
        .first(&mut f.conn)
        .unwrap();
    assert_eq!(n, 2 * each);
    f.check();
}
