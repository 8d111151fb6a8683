//! Every statement of every form of write fails once, in every way.
//!
//! Nothing here knows how many statements a write takes or which they are: a run without a fault
//! counts them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use oplog_diesel::Error;
use oplog_diesel::core::Receipt;
use oplog_tests::faulty::{Failure, Fault, Faulty, Planned};

use crate::db::{Conn, is_free};
use crate::fixture::{Fixture, assert_free, is_soak};
use crate::forms::{MODES, Mode, Rows, SPLIT, Stage, WRITES, Write, run};

const FAULTS: &[Fault] = &[
    Fault::Instead(Failure::Unknown),
    Fault::Instead(Failure::Constraint),
    Fault::Instead(Failure::Serialization),
    Fault::Instead(Failure::Deadlock),
    Fault::Instead(Failure::Busy),
    Fault::Instead(Failure::Closed),
    Fault::After(Failure::Unknown),
    Fault::After(Failure::Serialization),
    Fault::After(Failure::Closed),
    Fault::InsteadAndNext(Failure::Unknown),
    Fault::PanicInstead,
    Fault::PanicAfter,
];

/// A log in which writes are made to fail.
pub struct Ordeal {
    pub f: Fixture,
    stage: Stage,
    is_set: bool,
    /// What there was before the write.
    before: (Rows, Totals),
}

/// What a write does if nothing fails.
pub struct Expected {
    rows: Rows,
    entries: usize,
}

/// What the caller was told.
#[derive(Debug)]
pub enum Told {
    Done(Vec<Receipt>),
    Failed(Error),
    Unknown(Vec<Receipt>),
    Panicked,
}

/// What a transaction can change beyond the rows of its stage.
#[derive(QueryableByName, Clone, Debug, Default, PartialEq)]
struct Totals {
    #[diesel(sql_type = BigInt)]
    rows: i64,
    #[diesel(sql_type = BigInt)]
    entries: i64,
    /// Without those of aggregates that have no entries, which mean the same as none.
    #[diesel(sql_type = BigInt)]
    tickets: i64,
    #[diesel(sql_type = BigInt)]
    redeemed: i64,
}

fn totals(conn: &mut Conn) -> Totals {
    diesel::sql_query(
        "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM postings) \
              + (SELECT count(*) FROM settings) AS rows, \
         (SELECT count(*) FROM oplog_entry) AS entries, \
         (SELECT count(*) FROM oplog_ticket WHERE version > 1) AS tickets, \
         (SELECT CAST(coalesce(sum(version - 1), 0) AS BIGINT) FROM oplog_ticket) AS redeemed",
    )
    .get_result(conn)
    .unwrap()
}

impl Ordeal {
    pub fn new() -> Self {
        Ordeal {
            f: Fixture::new(),
            stage: Stage { number: 0 },
            is_set: false,
            before: Default::default(),
        }
    }

    /// A stage that is set and was not written yet.
    fn stage(&mut self) -> Stage {
        if !self.is_set {
            self.stage = self.stage.next();
            self.stage.set(&self.f.oplog, &mut self.f.conn);
            self.is_set = true;
        }
        self.stage
    }

    fn connect(&self) -> Faulty<Conn> {
        Faulty::new(self.f.db.connect())
    }

    /// Runs a write in which nothing fails.
    pub fn succeed(&mut self, conn: &mut Faulty<Conn>, mode: &Mode, write: &Write) -> Expected {
        let stage = self.stage();
        let before = totals(&mut self.f.conn);
        conn.heal();
        let receipts = run(&self.f.oplog, conn, mode, write, stage).unwrap();
        self.is_set = false;
        let after = totals(&mut self.f.conn);
        assert_eq!(after.entries, before.entries + receipts.len() as i64);
        Expected {
            rows: stage.rows(&mut self.f.conn),
            entries: receipts.len(),
        }
    }

    /// Lets each statement of a write fail in turn, in the ways that are given for its number of all.
    fn suffer(&mut self, mode: &Mode, write: &Write, faults: impl Fn(usize, usize) -> Vec<Fault>) {
        let mut conn = self.connect();
        let expected = self.succeed(&mut conn, mode, write);
        let statements = conn.sent().to_vec();
        assert!(statements.len() >= 2);
        let mut failed = Vec::new();
        for (index, sql) in statements.iter().enumerate() {
            let at = index + 1;
            for fault in faults(at, statements.len()) {
                if !can_be(fault, sql) {
                    continue;
                }
                conn.plan(at, fault);
                let done = catch_unwind(AssertUnwindSafe(|| {
                    let told = self.run(&mut conn, mode, write);
                    assert_told(&told, fault);
                    let is_after = sql == "COMMIT" && fault == Fault::PanicAfter;
                    self.assert_true(&told, &expected, is_after);
                    assert_usable(&mut conn, at, fault);
                }));
                if done.is_err() {
                    self.is_set = false;
                    let (mode, write, n) = (mode.name, write.name, statements.len());
                    failed.push(format!(
                        "{mode}, {write}: {fault:?} of statement {at} of {n}: {sql}"
                    ));
                }
                if done.is_err() || conn.is_broken() {
                    conn = self.connect();
                }
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
        self.f.check();
    }

    /// Runs a write in which something fails.
    pub fn run(&mut self, conn: &mut Faulty<Conn>, mode: &Mode, write: &Write) -> Told {
        let stage = self.stage();
        self.before = (stage.rows(&mut self.f.conn), totals(&mut self.f.conn));
        match catch_unwind(AssertUnwindSafe(|| {
            run(&self.f.oplog, conn, mode, write, stage)
        })) {
            Ok(Ok(receipts)) => Told::Done(receipts),
            Ok(Err(Error::CommitUnknown { receipts })) => Told::Unknown(receipts),
            Ok(Err(error)) => Told::Failed(error),
            Err(panic) if panic.is::<Planned>() => Told::Panicked,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// What the caller was told is what happened: all of it, or nothing at all. Only of a panic it must
    /// be known whether it came after the commit.
    pub fn assert_true(&mut self, told: &Told, expected: &Expected, is_after: bool) -> bool {
        let observer = &mut self.f.conn;
        let is_committed = match told {
            Told::Done(receipts) => {
                let is_logged = self.f.oplog.resolve(observer, receipts).unwrap();
                assert_eq!(is_logged, expected.entries > 0, "{told:?}");
                true
            }
            Told::Failed(_) => false,
            Told::Unknown(receipts) => {
                assert!(!receipts.is_empty(), "there is nothing to be unsure about");
                self.f.oplog.resolve(observer, receipts).unwrap()
            }
            Told::Panicked => is_after,
        };
        if let Told::Done(receipts) | Told::Unknown(receipts) = told {
            assert_eq!(receipts.len(), expected.entries, "{told:?}");
        }
        let (rows, totals) = (self.stage.rows(observer), totals(observer));
        if is_committed {
            self.is_set = false;
            let entries = expected.entries as i64;
            let before = &self.before.1;
            assert_eq!(rows, expected.rows, "{told:?}");
            assert_eq!(totals.entries, before.entries + entries, "{told:?}");
            assert_eq!(totals.redeemed, before.redeemed + entries, "{told:?}");
        } else {
            assert_eq!((rows, totals), self.before, "{told:?}");
        }
        is_committed
    }
}

/// The connection is free and good for more, or does not pretend to be.
fn assert_usable(conn: &mut Faulty<Conn>, at: usize, fault: Fault) {
    conn.heal();
    if conn.is_broken() {
        let is_expected = match fault {
            Fault::InsteadAndNext(_) => true,
            // Nobody can tell whether there is a transaction to take back.
            Fault::PanicInstead | Fault::PanicAfter => at == 1,
            _ => fault.failure() == Some(Failure::Closed),
        };
        assert!(is_expected, "the connection is broken");
        return;
    }
    let conn = conn.inner();
    assert!(is_free(conn), "the connection is still in a transaction");
    assert_free(conn);
}

/// A database that answers a BEGIN, a COMMIT or the like with an error has not done it. Only one that
/// does not answer at all may have.
fn can_be(fault: Fault, sql: &str) -> bool {
    let controls = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"];
    let is_control = controls.iter().any(|word| sql.starts_with(word));
    match fault {
        Fault::After(failure) => failure == Failure::Closed || !is_control,
        _ => true,
    }
}

/// The kind of the answer fits the fault.
fn assert_told(told: &Told, fault: Fault) {
    let Some(failure) = fault.failure() else {
        assert!(matches!(told, Told::Panicked), "{told:?}");
        return;
    };
    match told {
        Told::Done(_) => assert!(failure.is_retried(), "{told:?}"),
        Told::Failed(Error::Database(_) | Error::Store { .. }) => {
            assert!(!failure.is_retried(), "{told:?}");
        }
        Told::Unknown(_) => assert_eq!(failure, Failure::Closed),
        Told::Failed(_) | Told::Panicked => panic!("{told:?}"),
    }
}

/// Lets every write fail in one mode.
///
/// All faults in all modes take minutes, and are for a long run. Otherwise those who take their
/// tickets late have all of them, and the others a quarter at each statement, another one at the next.
fn every_write(mode: usize) {
    let all = mode == 0 || is_soak();
    let mut ordeal = Ordeal::new();
    for (index, write) in WRITES.iter().enumerate() {
        ordeal.suffer(&MODES[mode], write, |at, _| {
            let (first, step) = if all {
                (0, 1)
            } else {
                ((mode + index + at) % 4, 4)
            };
            FAULTS.iter().skip(first).step_by(step).copied().collect()
        });
    }
}

#[test]
fn each_statement_of_each_write_fails_late() {
    every_write(0);
}

#[test]
fn each_statement_of_each_write_fails_with_a_ticket() {
    every_write(1);
}

#[test]
fn each_statement_of_each_write_fails_without_a_ticket() {
    every_write(2);
}

#[test]
fn each_statement_of_each_write_fails_with_several_tickets() {
    every_write(3);
}

#[test]
fn each_statement_of_each_write_fails_with_a_ticket_that_is_only_read() {
    every_write(4);
}

/// Only those between its parts and after them: what is written before is no other than above. Two
/// parts are 16 MiB at least, which takes long without optimisation.
#[test]
fn each_statement_of_a_split_entry_fails() {
    let parts = if is_soak() { 5 } else { 1 };
    Ordeal::new().suffer(&MODES[0], &SPLIT, |at, n| {
        let is_part = at < n && at + parts >= n;
        is_part
            .then_some(Fault::Instead(Failure::Unknown))
            .into_iter()
            .collect()
    });
}
