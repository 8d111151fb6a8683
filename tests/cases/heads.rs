//! What the log remembers of tickets, and that it never matters for what is right.

use std::sync::{Arc, Mutex};

use diesel::connection::{
    AnsiTransactionManager, Instrumentation, InstrumentationEvent, SimpleConnection,
    TransactionManager,
};
use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, REMEMBERS_HEADS};
use crate::fixture::{Fixture, Snapshot, builder, check};
use crate::races::together;
use crate::sabotage::{blob, disarm};

/// The first words of every statement that a connection sends.
#[derive(Clone, Default)]
pub struct Statements(Arc<Mutex<Vec<String>>>);

impl Instrumentation for Statements {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::StartQuery { query, .. } = event {
            let text = query.to_string();
            let plain = text.replace(['"', '`'], "").replace('.', " ");
            let words: Vec<&str> = plain.split_whitespace().take(2).collect();
            self.0.lock().unwrap().push(words.join(" "));
        }
    }
}

impl Statements {
    pub fn of(conn: &mut Conn) -> Self {
        let statements = Statements::default();
        conn.set_instrumentation(statements.clone());
        statements
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn deposit(tx: &mut Tx<'_, Conn>, id: i64) -> Result<Account, Error> {
    let now: Account = tx.read_one(accounts::table.find(id).select(Account::as_select()))?;
    tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
}

/// As few statements as the database allows, counted.
#[test]
fn a_known_ticket_is_not_read() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let statements = Statements::of(&mut f.conn);
    let (begin, late, optimistic) = match REMEMBERS_HEADS {
        true => (
            "BEGIN ISOLATION",
            &["WITH redeemed"][..],
            &["WITH held"][..],
        ),
        false => (
            "BEGIN IMMEDIATE",
            &["SELECT version,", "UPDATE oplog_ticket", "INSERT INTO"][..],
            &["UPDATE oplog_ticket", "INSERT INTO"][..],
        ),
    };
    f.run(|tx| {
        tx.logged_insert::<Posting, _>((postings::account_id.eq(alice.id), postings::amount.eq(1)))
    })
    .unwrap();
    let expected = [&[begin, "INSERT INTO"], late, &["COMMIT"]].concat();
    assert_eq!(statements.take(), expected);

    let oplog = f.oplog.clone();
    oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| deposit(tx, alice.id))
        .unwrap();
    // The first read of the account is the test's own.
    let (read_first, body): (&[&str], &[&str]) = match REMEMBERS_HEADS {
        true => (&[], &["SELECT accounts", "UPDATE accounts"]),
        false => (
            &["SELECT version,"],
            &["SELECT accounts", "SELECT accounts", "UPDATE accounts"],
        ),
    };
    let expected = [&[begin], read_first, body, optimistic, &["COMMIT"]].concat();
    assert_eq!(statements.take(), expected);
    f.news();
    f.check();
}

/// They wait for each other before they ask the database, so that each knows what the one before has left.
#[test]
fn writers_of_a_hot_ticket_do_not_read_it() {
    if !REMEMBERS_HEADS {
        // SQLite has one writer at a time, and reading is cheap there.
        return;
    }
    const WRITERS: usize = 8;
    const ROUNDS: usize = 25;
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let statements = Statements::default();
    let oplog = &f.oplog;
    together(&f.db, WRITERS, |_, conn| {
        conn.set_instrumentation(statements.clone());
        for _ in 0..ROUNDS {
            let posting = (postings::account_id.eq(alice.id), postings::amount.eq(1));
            let write = |tx: &mut Tx<'_, Conn>| tx.logged_insert::<Posting, _>(posting);
            oplog
                .transaction(conn, write)
                .map_err(|error: Error| error)
                .unwrap();
        }
    });
    let sent = statements.take();
    let count = |words| sent.iter().filter(|sent| *sent == words).count();
    assert!(count("WITH redeemed") >= WRITERS * ROUNDS);
    // Whoever is made to wait too long by a busy machine asks the database after all.
    let read = count("SELECT version,");
    assert!(
        read * 4 < WRITERS * ROUNDS,
        "{read} of {}",
        WRITERS * ROUNDS
    );
    assert_eq!(f.snapshot().postings.len(), WRITERS * ROUNDS);
    f.check();
}

/// A second handle stands for another process: it has a memory of its own.
#[test]
fn writers_who_do_not_know_of_each_other_lose_nothing() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other_conn = f.db.connect();
    let other = builder(&f.db).open(&mut other_conn).unwrap();
    let mut expected = alice.balance;
    // In turns, in runs, late and counting on it, with the other's writes in between.
    for round in 0..40 {
        let (oplog, conn) = match round % 2 == 0 || round / 10 % 2 == 0 {
            true => (&f.oplog, &mut f.conn),
            false => (&other, &mut other_conn),
        };
        let transaction = match round % 3 {
            0 => oplog.metadata("round", round.to_string()),
            _ => oplog.on(alice.aggregate()),
        };
        transaction
            .transaction(conn, |tx| deposit(tx, alice.id))
            .unwrap();
        expected += 1;
        if round % 7 == 0 {
            other
                .transaction(&mut other_conn, |tx| {
                    tx.logged_insert::<Posting, _>((
                        postings::account_id.eq(alice.id),
                        postings::amount.eq(1),
                    ))
                })
                .unwrap();
        }
    }
    let after: Account = accounts::table
        .select(Account::as_select())
        .first(&mut f.conn)
        .unwrap();
    assert_eq!(after.balance, expected);
    f.check();
    check(&other, &mut other_conn);
}

/// Nothing is remembered of a transaction that was not committed.
#[test]
fn what_was_rolled_back_is_not_remembered() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    for _ in 0..3 {
        let failed = f.run(|tx| {
            deposit(tx, alice.id)?;
            Err::<(), _>(Error::NotMigrated)
        });
        assert!(failed.is_err());
        f.conn.begin_test_transaction().unwrap();
        f.run(|tx| deposit(tx, alice.id)).unwrap();
        AnsiTransactionManager::rollback_transaction(&mut f.conn).unwrap();
        f.run(|tx| deposit(tx, alice.id)).unwrap();
    }
    assert_eq!(f.snapshot().accounts[0].balance, alice.balance + 3);
    f.check();
}

/// The database is set back to an older state while the log remembers a newer one.
#[test]
fn a_restored_database_is_believed() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| deposit(tx, alice.id)).unwrap();
    let before = f.snapshot();
    for round in 0..2 {
        for _ in 0..5 {
            f.run(|tx| deposit(tx, alice.id)).unwrap();
        }
        restore(&mut f.conn, &before);
        assert_eq!(f.snapshot(), before);
        let oplog = f.oplog.clone();
        match round {
            0 => oplog.transaction(&mut f.conn, |tx| deposit(tx, alice.id)),
            _ => oplog
                .on(alice.aggregate())
                .transaction(&mut f.conn, |tx| deposit(tx, alice.id)),
        }
        .unwrap();
        assert_eq!(f.snapshot().entries, before.entries + 1);
        f.check();
        restore(&mut f.conn, &before);
    }
}

/// What a backup of the one account and its ticket brings back.
fn restore(conn: &mut Conn, state: &Snapshot) {
    let ticket = &state.tickets[0];
    disarm(conn);
    conn.batch_execute(&format!(
        "DELETE FROM oplog_entry WHERE sequence >= {version}; \
         UPDATE oplog_ticket SET version = {version}, head_hash = {hash}; \
         UPDATE accounts SET balance = {balance}",
        version = ticket.version,
        hash = blob(&ticket.head_hash),
        balance = state.accounts[0].balance,
    ))
    .unwrap();
}
