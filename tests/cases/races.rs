//! Many writers at once.

use std::sync::Barrier;
use std::thread;

use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};
use crate::fixture::{Fixture, assert_free, builder, check, entries};

const THREADS: usize = 16;
const ROUNDS: usize = 4;

/// Runs `body` in several threads that begin together, each with a connection of its own.
pub fn together(db: &Db, threads: usize, body: impl Fn(usize, &mut Conn) + Sync) {
    let mut conns: Vec<Conn> = (0..threads).map(|_| db.connect()).collect();
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        for (thread, conn) in conns.iter_mut().enumerate() {
            let (body, barrier) = (&body, &barrier);
            scope.spawn(move || {
                barrier.wait();
                body(thread, conn);
                assert_free(conn);
            });
        }
    });
}

fn account(tx: &mut Tx<'_, Conn>, id: i64) -> Result<Account, Error> {
    tx.read_one(accounts::table.find(id).select(Account::as_select()))
}

#[test]
fn a_counter_that_is_read_and_written_optimistically_loses_nothing() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let oplog = &f.oplog;
    together(&f.db, THREADS, |_, conn| {
        for _ in 0..ROUNDS {
            oplog
                .on(alice.aggregate())
                .transaction(conn, |tx| {
                    let now = account(tx, alice.id)?;
                    tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
                })
                .unwrap();
        }
    });
    let n = (THREADS * ROUNDS) as i64;
    assert_eq!(f.snapshot().accounts[0].balance, 10 + n);
    let expected: Vec<_> = (1..=n)
        .map(|i| {
            let (sequence, before, after) = (i + 1, 9 + i, 10 + i);
            format!(
                r#"account:1/{sequence} update account(email=NULL id=1 owner="Alice" balance={after}) nulls[4] was(balance={before}) set[balance]"#
            )
        })
        .collect();
    let mut news = f.news();
    news.sort_by_key(|line| {
        line.split([' ', '/'])
            .nth(1)
            .unwrap()
            .parse::<i64>()
            .unwrap()
    });
    assert_eq!(news, expected);
    f.check();
}

#[test]
fn a_hot_aggregate_that_is_written_late_loses_nothing() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let oplog = &f.oplog;
    together(&f.db, THREADS, |thread, conn| {
        for round in 0..ROUNDS {
            let note = format!("{thread}/{round}");
            oplog
                .transaction(conn, |tx| {
                    let _: Posting = tx.logged_insert((
                        postings::account_id.eq(alice.id),
                        postings::amount.eq(1),
                        postings::note.eq(&note),
                    ))?;
                    tx.logged_update(&alice, accounts::balance.eq(accounts::balance + 1))
                })
                .unwrap();
        }
    });
    let n = THREADS * ROUNDS;
    let after = f.snapshot();
    assert_eq!(after.accounts[0].balance, 10 + n as i64);
    assert_eq!((after.postings.len(), after.entries), (n, 1 + n as i64));
    f.check();
}

/// Nobody has written the aggregates before, and each thread has them in another order.
#[test]
fn overlapping_aggregates_in_opposite_orders_do_not_deadlock() {
    let f = Fixture::new();
    let oplog = &f.oplog;
    together(&f.db, THREADS, |thread, conn| {
        for round in 0..ROUNDS {
            oplog
                .transaction(conn, |tx| {
                    let mut ids = [1, 2, 3];
                    ids.rotate_left(thread % 3);
                    if thread % 2 == 0 {
                        ids.reverse();
                    }
                    for table in &ids[..2] {
                        let _: Setting = tx.logged_insert(&Setting {
                            section: format!("{thread}/{round}"),
                            name: table.to_string(),
                            value: None,
                        })?;
                        let id = table * 1000 + (thread * ROUNDS + round) as i64;
                        let _: Account =
                            tx.logged_insert((accounts::id.eq(id), accounts::owner.eq("o")))?;
                    }
                    Ok::<_, Error>(())
                })
                .unwrap();
        }
    });
    let mut f = f;
    let n = THREADS * ROUNDS;
    assert_eq!(f.snapshot().accounts.len(), 2 * n);
    assert_eq!(f.entries().len(), 3 * n);
    f.check();
}

#[test]
fn pairs_of_hot_aggregates_in_opposite_orders_do_not_deadlock() {
    let mut f = Fixture::new();
    let ids = ["a", "b", "c"].map(|owner| f.account(owner).id);
    let oplog = &f.oplog;
    together(&f.db, THREADS, |thread, conn| {
        for _ in 0..ROUNDS {
            let (one, other) = (ids[thread % 3], ids[(thread + 1 + thread % 2) % 3]);
            oplog
                .transaction(conn, |tx| {
                    for id in [one, other] {
                        let _: Posting = tx
                            .logged_insert((postings::account_id.eq(id), postings::amount.eq(1)))?;
                    }
                    Ok::<_, Error>(())
                })
                .unwrap();
        }
    });
    let n = THREADS * ROUNDS;
    assert_eq!(f.snapshot().postings.len(), 2 * n);
    let entries = f.entries().split_off(3);
    assert_eq!(entries.len(), 2 * n);
    assert!(entries.iter().all(|entry| entry.group.unwrap().parts == 2));
    f.check();
}

#[test]
fn optimistic_and_late_writers_share_an_aggregate() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let oplog = &f.oplog;
    together(&f.db, 8, |thread, conn| {
        for _ in 0..ROUNDS {
            if thread % 2 == 0 {
                oplog
                    .on(alice.aggregate())
                    .transaction(conn, |tx| {
                        let now = account(tx, alice.id)?;
                        tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
                    })
                    .unwrap();
            } else {
                oplog
                    .transaction(conn, |tx| {
                        tx.logged_update(&alice, accounts::balance.eq(accounts::balance + 1))
                    })
                    .unwrap();
            }
        }
    });
    assert_eq!(f.snapshot().accounts[0].balance, 10 + 8 * ROUNDS as i64);
    assert_eq!(f.entries().len(), 1 + 8 * ROUNDS);
    f.check();
}

/// A decision that rests on an aggregate that is only read: of two accounts one must stay.
#[test]
fn what_was_read_of_a_named_aggregate_holds() {
    let mut f = Fixture::new();
    for round in 0..4 {
        let ids = [f.account("a").id, f.account("b").id];
        let oplog = &f.oplog;
        together(&f.db, 2, |thread, conn| {
            let (mine, others) = (ids[thread], ids[1 - thread]);
            oplog
                .on(format!("account:{mine}"))
                .and(format!("account:{others}"))
                .transaction(conn, |tx| {
                    let left: i64 =
                        tx.read_one(accounts::table.filter(accounts::id.eq_any(ids)).count())?;
                    if left == 2 {
                        tx.logged_delete_by_key::<Account, _>(mine)?;
                    }
                    Ok::<_, Error>(())
                })
                .unwrap();
        });
        assert_eq!(f.snapshot().accounts.len(), round + 1);
    }
    f.check();
}

#[test]
fn several_threads_open_a_new_log_at_once() {
    let db = Db::new();
    let logs: Vec<std::sync::Mutex<Option<Oplog>>> =
        (0..8).map(|_| std::sync::Mutex::new(None)).collect();
    together(&db, logs.len(), |thread, conn| {
        let oplog = builder(&db).open(conn).unwrap();
        oplog
            .transaction(conn, |tx| {
                let name = thread.to_string();
                tx.logged_insert::<Setting, _>(&Setting {
                    section: String::new(),
                    name,
                    value: None,
                })
            })
            .map_err(|error: Error| error)
            .unwrap();
        *logs[thread].lock().unwrap() = Some(oplog);
    });
    let conn = &mut db.connect();
    assert_eq!(crate::fixture::count(conn, "oplog_key"), 1);
    assert_eq!(crate::fixture::count(conn, "oplog_key_wrap"), 1);
    for log in logs {
        // Each can read what all wrote.
        let oplog = log.into_inner().unwrap().unwrap();
        assert_eq!(entries(&oplog, conn).len(), 8);
        check(&oplog, conn);
    }
}
