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
}

/// Which mode each writer is in.
const MODES: &[&[Mode]] = &[
    &[Mode::Late],
    &[Mode::Optimistic],
    &[Mode::Late, Mode::Optimistic, Mode::Partly],
];

/// Which of the accounts a writer increments.
#[derive(Debug)]
struct Shape {
    name: &'static str,
    accounts: usize,
    of: fn(usize) -> Vec<usize>,
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "one",
        accounts: 1,
        of: |_| vec![0],
    },
    Shape {
        name: "sixteen",
        accounts: 16,
        of: |writer| vec![writer % 16],
    },
    Shape {
        name: "pairs in opposite orders",
        accounts: 4,
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
    let now: Account = tx.read_one(accounts::table.find(id).select(Account::as_select()))?;
    match mode {
        Mode::Optimistic => tx.logged_update(&now, accounts::balance.eq(now.balance + 1)),
        _ => tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1)),
    }
    .map(drop)
}

fn name<'o>(oplog: &'o Oplog, ids: &[i64], mode: Mode) -> TransactionBuilder<'o> {
    let named = match mode {
        Mode::Late => &ids[..0],
        Mode::Optimistic => ids,
        Mode::Partly => &ids[..1],
    };
    let builder = oplog.metadata("mode", format!("{mode:?}"));
    named
        .iter()
        .fold(builder, |builder, id| builder.and(format!("account:{id}")))
}

fn crowd(writers: usize) {
    let rounds = if is_soak() { 20 } else { 2 };
    for shape in SHAPES {
        let mut f = Fixture::new();
        let ids: Vec<i64> = (0..shape.accounts)
            .map(|n| f.account(&n.to_string()).id)
            .collect();
        let mut expected = vec![10; shape.accounts];
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
                for account in (shape.of)(writer) {
                    expected[account] += rounds as i64;
                }
            }
            println!(
                "{writers} on {}, {modes:?}: {} commits in {attempts:?} attempts",
                shape.name,
                writers * rounds
            );
            let balances: Vec<i64> = f.snapshot().accounts.iter().map(|a| a.balance).collect();
            assert_eq!(balances, expected, "{} {modes:?}", shape.name);
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
                Mode::Late => builder,
                Mode::Optimistic | Mode::Partly => builder.on("settings"),
            };
            builder
                .transaction(conn, |tx| {
                    tx.logged_insert::<Setting, _>(&Setting {
                        section: String::new(),
                        name: writer.to_string(),
                        value: None,
                    })
                })
                .map_err(|error: Error| error)
                .unwrap();
        });
        let now = f.snapshot();
        assert_eq!((now.settings.len(), now.entries), (16, 16));
        assert_eq!(now.tickets.len(), 1);
        f.check();
    }
}
