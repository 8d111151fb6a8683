//! Every statement of every form of write fails once, in every way.
//!
//! Nothing here knows how many statements a write takes or which they are: a run without a fault
//! counts them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use oplog_diesel::Error;
use oplog_diesel::core::Receipt;
use oplog_tests::faulty::{Failure, Fault, Faulty, Planned, Struck};

use crate::db::{Conn, is_free};
use crate::fixture::{Fixture, assert_free, is_soak};
use crate::forms::{
    LOCKED_FIRST, MODES, Mode, Rows, Run, SCRATCH, SPLIT, Stage, WRITES, Write, follow, run,
};

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

/// With this SQLite is asked whether there is a transaction, after something failed already. That it is
/// refused is the good answer.
const PROBE: &str = "BEGIN; ROLLBACK";

/// A log in which writes are made to fail.
pub struct Ordeal {
    pub f: Fixture,
    stage: Stage,
    is_set: bool,
    /// What there was before the write.
    before: (Rows, Totals),
    /// Statements that failed as planned.
    strikes: usize,
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
              + (SELECT count(*) FROM settings) + (SELECT count(*) FROM counters) \
              + (SELECT count(*) FROM scratch) AS rows, \
         (SELECT count(*) FROM oplog_entry) AS entries, \
         (SELECT count(*) FROM oplog_ticket WHERE version > 1) AS tickets, \
         (SELECT CAST(coalesce(sum(version - 1), 0) AS BIGINT) FROM oplog_ticket) AS redeemed",
    )
    .get_result(conn)
    .unwrap()
}

impl Ordeal {
    pub fn new() -> Self {
        let mut f = Fixture::new();
        f.conn.batch_execute(SCRATCH).unwrap();
        Ordeal {
            f,
            stage: Stage { number: 0 },
            is_set: false,
            before: Default::default(),
            strikes: 0,
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
        assert!(!statements.is_empty());
        let mut failed = Vec::new();
        for (index, sql) in statements.iter().enumerate() {
            let at = index + 1;
            // The commit of the application's transaction is among them, its beginning is not.
            if mode.is_nested && at == 1 || sql == PROBE {
                continue;
            }
            for fault in faults(at, statements.len()) {
                conn.plan(at, fault);
                let done = catch_unwind(AssertUnwindSafe(|| {
                    let told = self.run(&mut conn, mode, write);
                    let struck = conn.struck().cloned();
                    self.strikes += usize::from(struck.is_some());
                    assert_told(&told, struck.as_ref(), fault, mode, write);
                    // The statement of this number may be another one than when they were counted.
                    let is_opening = struck
                        .as_ref()
                        .is_some_and(|struck| struck.sql.starts_with("BEGIN"));
                    let is_after = match struck {
                        Some(struck) if fault == Fault::PanicAfter => {
                            // One that is alone may have refused to do anything.
                            (!struck.is_alone).then_some(struck.sql == "COMMIT")
                        }
                        _ => Some(false),
                    };
                    self.assert_true(&told, &expected, is_after);
                    assert_usable(&mut conn, is_opening, fault, mode);
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

    /// What the caller was told is what happened: all of it, or nothing at all. Of a panic it must be
    /// known whether it came after the commit; without, either will do. Returns whether all of it did.
    pub fn assert_true(
        &mut self,
        told: &Told,
        expected: &Expected,
        is_after: Option<bool>,
    ) -> bool {
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
            Told::Panicked => {
                is_after.unwrap_or_else(|| self.stage.rows(observer) != self.before.0)
            }
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
fn assert_usable(conn: &mut Faulty<Conn>, is_opening: bool, fault: Fault, mode: &Mode) {
    conn.heal();
    if conn.is_broken() {
        let is_expected = match fault {
            Fault::InsteadAndNext(_) => true,
            // Nobody can tell whether there is a transaction to take back, or it is not ours.
            Fault::PanicInstead | Fault::PanicAfter => is_opening || mode.is_nested,
            _ => fault.failure() == Some(Failure::Closed),
        };
        assert!(is_expected, "the connection is broken");
        return;
    }
    let conn = conn.inner();
    assert!(is_free(conn), "the connection is still in a transaction");
    assert_free(conn);
}

/// The kind of the answer fits the fault. There is none where the write took fewer statements than
/// before, or the statement can't fail in that way.
fn assert_told(told: &Told, struck: Option<&Struck>, fault: Fault, mode: &Mode, write: &Write) {
    let Some(struck) = struck else {
        assert!(matches!(told, Told::Done(_)), "{told:?}");
        return;
    };
    let is_outer_commit = mode.is_nested && struck.sql == "COMMIT";
    let Some(failure) = fault.failure() else {
        assert!(matches!(told, Told::Panicked), "{told:?}");
        return;
    };
    // What cannot be done in one statement is done in a transaction.
    let is_tried_again = failure.is_retried() || matches!(write.run, Run::Alone(_));
    match told {
        Told::Done(_) => assert!(is_tried_again, "{told:?}"),
        // Of the application's own commit nobody but the application makes anything.
        Told::Failed(Error::Database(_)) if is_outer_commit => {}
        Told::Failed(Error::Database(_) | Error::Store { .. }) => {
            assert!(!failure.is_retried(), "{told:?}");
        }
        Told::Failed(Error::Contention { attempts: 1, .. }) => {
            assert!(failure.is_retried() && mode.is_nested, "{told:?}");
        }
        Told::Unknown(_) => assert_eq!(failure, Failure::Closed),
        Told::Failed(_) | Told::Panicked => panic!("{told:?}"),
    }
}

/// Lets every write fail in one mode.
///
/// All faults in all modes take many minutes, and are for a long run. Otherwise each statement has a few
/// of them, other ones in the next statement, the next write and the next mode; those that take their
/// tickets late have twice as many.
fn every_write(mode: usize) {
    let step = match mode {
        _ if is_soak() => 1,
        0 => 3,
        _ => 6,
    };
    let mut ordeal = Ordeal::new();
    let locked = LOCKED_FIRST.iter().filter(|_| mode >= 5);
    for (index, write) in WRITES.iter().chain(locked).enumerate() {
        ordeal.suffer(&MODES[mode], write, |at, _| {
            let first = (mode + index + at) % step;
            FAULTS.iter().skip(first).step_by(step).copied().collect()
        });
    }
    assert!(ordeal.strikes > 200, "{}", ordeal.strikes);
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

#[test]
fn each_statement_of_each_write_fails_with_tickets_that_are_locked_first() {
    every_write(5);
}

#[test]
fn each_statement_of_each_write_fails_in_an_outer_transaction() {
    every_write(6);
}

/// How the application's own transaction ends, after what was logged in it was done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    TakenBack,
    /// The database refuses the commit.
    Refused,
    /// It commits, and does not answer.
    Unanswered,
    Committed,
}

/// Rows and entries go with the outer transaction, and so does what is remembered of tickets: whoever
/// comes next finds those at once that were taken back, and others at the second attempt.
#[test]
fn the_next_writer_knows_how_an_outer_transaction_ended() {
    const ENDS: [End; 4] = [
        End::TakenBack,
        End::Refused,
        End::Unanswered,
        End::Committed,
    ];
    let step = if is_soak() { 1 } else { 3 };
    let mut ordeal = Ordeal::new();
    let oplog = ordeal.f.oplog.clone();
    let mut next = ordeal.connect();
    for (index, write) in WRITES.iter().chain(LOCKED_FIRST).enumerate() {
        for end in ENDS.iter().skip(index % step).step_by(step) {
            let stage = ordeal.stage();
            let mut conn = ordeal.connect();
            let before = (stage.rows(&mut ordeal.f.conn), totals(&mut ordeal.f.conn));
            let told = conn.transaction(|conn| {
                let receipts = run(&oplog, conn, &MODES[6], write, stage)?;
                // The next statement is the commit.
                match end {
                    End::TakenBack => {
                        return Err(Error::from(diesel::result::Error::RollbackTransaction));
                    }
                    End::Refused => conn.plan(1, Fault::Instead(Failure::Constraint)),
                    End::Unanswered => conn.plan(1, Fault::After(Failure::Closed)),
                    End::Committed => {}
                }
                Ok(receipts)
            });
            let what = format!("{}, {end:?}: {told:?}", write.name);
            assert_eq!(told.is_ok(), *end == End::Committed, "{what}");
            assert_eq!(conn.is_broken(), *end == End::Unanswered, "{what}");
            let is_kept = matches!(end, End::Unanswered | End::Committed);
            if !is_kept {
                assert!(is_free(conn.inner()), "{what}");
                let after = (stage.rows(&mut ordeal.f.conn), totals(&mut ordeal.f.conn));
                assert_eq!(after, before, "{what}");
            }
            let runs = follow(&oplog, &mut next, stage);
            assert!(runs == 1 || runs == 2 && is_kept, "{runs}: {what}");
            ordeal.is_set = false;
        }
    }
    ordeal.f.check();
}

/// Only those between its parts and after them: what is written before is no other than above. Two
/// parts are 16 MiB at least, which takes long without optimisation, so that only a long run does it in
/// every mode.
#[test]
fn each_statement_of_a_split_entry_fails() {
    let (parts, modes) = if is_soak() { (5, MODES.len()) } else { (1, 1) };
    for mode in &MODES[..modes] {
        Ordeal::new().suffer(mode, &SPLIT, |at, n| {
            let is_part = at < n && at + parts >= n;
            is_part
                .then_some(Fault::Instead(Failure::Unknown))
                .into_iter()
                .collect()
        });
    }
}
