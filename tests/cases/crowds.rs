//! Crowds of writers on few aggregates, in every way to take tickets and in all at once.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, TransactionBuilder, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};
use crate::fixture::{Fixture, is_soak};
use crate::races::together;
use crate::sabotage::is_postgres;

/// How a writer takes the tickets of what it increments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Not beforehand: the database increments.
    Late,
    /// Names what it writes: reads, adds one and writes.
    Optimistic,
    /// Names the first and writes the rest late.
    Partly,
    /// Increments counters instead, whose tickets are locked before it reads.
    LockFirst,
    /// Counters, and their accounts as well: names all of them.
    Both,
}

impl Mode {
    fn has_accounts(self) -> bool {
        self != Mode::LockFirst
    }

    fn has_counters(self) -> bool {
        matches!(self, Mode::LockFirst | Mode::Both)
    }
}

/// Which mode each writer is in.
const MODES: &[&[Mode]] = &[
    &[Mode::Late],
    &[Mode::Optimistic],
    &[Mode::LockFirst],
    &[
        Mode::Late,
        Mode::Optimistic,
        Mode::Partly,
        Mode::LockFirst,
        Mode::Both,
    ],
];

/// Which of the accounts or counters a writer increments.
#[derive(Debug)]
struct Shape {
    name: &'static str,
    size: usize,
    of: fn(usize) -> Vec<usize>,
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "one",
        size: 1,
        of: |_| vec![0],
    },
    Shape {
        name: "sixteen",
        size: 16,
        of: |writer| vec![writer % 16],
    },
    Shape {
        name: "pairs in opposite orders",
        size: 4,
        of: |writer| {
            let pair = [writer / 2 % 4, (writer / 2 + 1) % 4];
            let [one, other] = pair;
            if writer % 2 == 0 {
                vec![one, other]
            } else {
                vec![other, one]
            }
        },
    },
];

fn increment(tx: &mut Tx<'_, Conn>, id: i64, mode: Mode) -> Result<(), Error> {
    if mode.has_counters() {
        let now: Counter = tx.read_one(counters::table.find(id).select(Counter::as_select()))?;
        tx.logged_update(&now, counters::n.eq(now.n + 1))?;
    }
    if !mode.has_accounts() {
        return Ok(());
    }
    let now: Account = tx.read_one(accounts::table.find(id).select(Account::as_select()))?;
    match mode {
        Mode::Optimistic | Mode::Both => {
            tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
        }
        _ => tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1)),
    }
    .map(drop)
}

fn name<'o>(oplog: &'o Oplog, ids: &[i64], mode: Mode) -> TransactionBuilder<'o> {
    let named = match mode {
        Mode::Late | Mode::LockFirst => &ids[..0],
        Mode::Optimistic | Mode::Both => ids,
        Mode::Partly => &ids[..1],
    };
    let accounts = named.iter().map(|id| format!("account:{id}"));
    let locked = if mode.has_counters() { ids } else { &[] };
    let counters = locked.iter().map(|id| format!("counter:{id}"));
    let builder = oplog.metadata("mode", format!("{mode:?}"));
    accounts
        .chain(counters)
        .fold(builder, TransactionBuilder::and)
}

fn crowd(writers: usize) {
    let rounds = if is_soak() { 20 } else { 32 / writers };
    for shape in SHAPES {
        let mut f = Fixture::new();
        let ids: Vec<i64> = (0..shape.size)
            .map(|n| f.account(&n.to_string()).id)
            .collect();
        for id in &ids {
            f.counter(*id);
        }
        let mut balances = vec![10; shape.size];
        let mut counts = vec![0; shape.size];
        for modes in MODES {
            let oplog = &f.oplog;
            let attempts = AtomicU32::new(0);
            together(&f.db, writers, |writer, conn| {
                if is_postgres() {
                    // Rows that are locked in opposite orders deadlock, with a log or without. A
                    // second for each is what the server takes to look for it otherwise.
                    conn.batch_execute("SET deadlock_timeout = '10ms'").unwrap();
                }
                let mode = modes[writer % modes.len()];
                let mine: Vec<i64> = (shape.of)(writer).iter().map(|n| ids[*n]).collect();
                for _ in 0..rounds {
                    name(oplog, &mine, mode)
                        .transaction(conn, |tx| {
                            attempts.fetch_add(1, Ordering::Relaxed);
                            mine.iter().try_for_each(|id| increment(tx, *id, mode))
                        })
                        .map_err(|error: Error| error)
                        .unwrap();
                }
            });
            for writer in 0..writers {
                let mode = modes[writer % modes.len()];
                for n in (shape.of)(writer) {
                    balances[n] += rounds as i64 * i64::from(mode.has_accounts());
                    counts[n] += rounds as i64 * i64::from(mode.has_counters());
                }
            }
            println!(
                "{writers} on {}, {modes:?}: {} commits in {attempts:?} attempts",
                shape.name,
                writers * rounds
            );
            if *modes == [Mode::LockFirst] {
                // Nobody runs again, for they queue.
                assert_eq!(attempts.into_inner() as usize, writers * rounds);
            }
            let stored: Vec<i64> = f.snapshot().accounts.iter().map(|a| a.balance).collect();
            assert_eq!(stored, balances, "{} {modes:?}", shape.name);
            let stored: Vec<i64> = counters::table
                .order(counters::id)
                .select(counters::n)
                .load(&mut f.conn)
                .unwrap();
            assert_eq!(stored, counts, "{} {modes:?}", shape.name);
        }
        f.check();
    }
}

#[test]
fn sixteen_writers_lose_no_update() {
    crowd(16);
}

#[test]
fn thirty_two_writers_lose_no_update() {
    crowd(32);
}

/// Nobody has written the aggregate before, and all want to be the first.
#[test]
fn a_crowd_creates_a_ticket_once() {
    for modes in MODES {
        let mut f = Fixture::on(Db::new());
        let oplog = &f.oplog;
        together(&f.db, 16, |writer, conn| {
            let builder = oplog.metadata("writer", writer.to_string());
            let builder = match modes[writer % modes.len()] {
                Mode::Optimistic | Mode::Partly => builder.on("settings"),
                Mode::Late => builder,
                Mode::LockFirst | Mode::Both => builder.on("counter:1").on("settings"),
            };
            let locks = modes[writer % modes.len()].has_counters();
            builder
                .transaction(conn, |tx| {
                    if locks {
                        let found = tx.read(counters::table.select(Counter::as_select()))?;
                        let found: Option<Counter> = found.into_iter().next();
                        match found {
                            Some(now) => tx.logged_update(&now, counters::n.eq(now.n + 1))?,
                            None => tx.logged_insert(Counter { id: 1, n: 1 })?,
                        };
                    }
                    tx.logged_insert::<Setting, _>(&Setting {
                        section: String::new(),
                        name: writer.to_string(),
                        value: None,
                    })
                })
                .map_err(|error: Error| error)
                .unwrap();
        });
        let locks = (0..16).filter(|writer| modes[writer % modes.len()].has_counters());
        let locks = locks.count() as i64;
        let now = f.snapshot();
        assert_eq!((now.settings.len(), now.entries), (16, 16 + locks));
        assert_eq!(now.tickets.len(), 1 + usize::from(locks > 0));
        let counts: Vec<i64> = counters::table
            .select(counters::n)
            .load(&mut f.conn)
            .unwrap();
        assert_eq!(counts.iter().sum::<i64>(), locks);
        f.check();
    }
}
