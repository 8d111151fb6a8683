//! One variant with its own tables: sets them up, checks that it does what it claims, and runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{Connection as _, InstrumentationEvent, SimpleConnection};
use oplog_diesel::prelude::Oplogged as _;
use oplog_diesel::{Kek, Oplog};

use crate::engine::{CommitMode, Engine};
use crate::feed::Feed;
use crate::machine::Cores;
use crate::model::Member;
use crate::variant::{At, Failure, Inside, METADATA, Operation, Result, Variant, Writes, ids};

/// Rows of a thread of its own begin here, that of the lane itself at 1.
const IDS_OF_A_THREAD: i64 = 1_000_000_000;

pub struct Lane<'e, E: Engine> {
    // The connection ends before its place goes.
    worker: Worker<E::Conn>,
    place: E::Place,
    engine: &'e E,
    mode: &'static CommitMode,
    operation: Operation,
    rows: usize,
    pub subject: Subject<E::Conn>,
    /// Statements sent by a transaction, `BEGIN` and `COMMIT` among them.
    pub statements: u64,
}

/// What threads share: the variant, its log, and how often it was committed.
pub struct Subject<C> {
    pub variant: Variant<C>,
    oplog: Oplog,
    committed: AtomicU64,
}

/// A connection and the rows for it.
pub struct Worker<C> {
    conn: C,
    feed: Feed,
}

/// What is in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    members: i64,
    entries: i64,
    original: i64,
    original_metadata: i64,
    original_versions: i64,
    audit: i64,
}

impl<'e, E: Engine> Lane<'e, E> {
    /// Makes the tables and checks the variant.
    pub fn new(
        engine: &'e E,
        mode: &'static CommitMode,
        operation: Operation,
        rows: usize,
        variant: Variant<E::Conn>,
    ) -> Result<Self> {
        let name = variant.name;
        Self::set_up(engine, mode, operation, rows, variant)
            .and_then(|mut lane| {
                lane.check()?;
                Ok(lane)
            })
            .map_err(|failure| named(name, failure))
    }

    fn set_up(
        engine: &'e E,
        mode: &'static CommitMode,
        operation: Operation,
        rows: usize,
        variant: Variant<E::Conn>,
    ) -> Result<Self> {
        let place = engine.place()?;
        let mut conn = engine.connect(&place)?;
        conn.batch_execute(E::TABLES)?;
        if variant.writes == Writes::Trigger {
            conn.batch_execute(E::TRIGGER)?;
        }
        oplog_diesel::run_migrations(&mut conn)?;
        let oplog = Oplog::builder().kek(Kek::generate()?).open(&mut conn)?;
        original_ticket::<E>(&mut conn, 1)?;
        let feed = Feed::new(operation, rows, variant.teams, 1, 1);
        Ok(Lane {
            worker: Worker { conn, feed },
            place,
            engine,
            mode,
            operation,
            rows,
            subject: Subject {
                variant,
                oplog,
                committed: AtomicU64::new(0),
            },
            statements: 0,
        })
    }

    /// Makes commits as safe as they are to be measured, and places the server's side.
    pub fn begin(&mut self, cores: Cores) -> Result<()> {
        self.worker.begin(self.engine, self.mode, cores)
    }

    /// The same for another thread's connection.
    pub fn begin_worker(&self, worker: &mut Worker<E::Conn>) -> Result<()> {
        worker.begin(self.engine, self.mode, Cores::Any)
    }

    /// The process of the server for the measured connection, if it is one on this machine.
    pub fn server_process(&mut self) -> Result<Option<i32>> {
        self.engine.server_process(&mut self.worker.conn)
    }

    /// Makes the rows that the next transactions change or delete.
    pub fn refill(&mut self, transactions: usize) -> Result<()> {
        let rows = self.worker.feed.refill(transactions);
        if rows.is_empty() {
            return Ok(());
        }
        E::fill(&mut self.worker.conn, &rows)
    }

    /// Runs one transaction and measures it, without what it needed before.
    pub fn run(&mut self) -> Result<Duration> {
        self.subject
            .run(&mut self.worker, &Inside::new(Duration::ZERO))
    }

    /// A connection for another thread, which writes to the aggregate `team`.
    pub fn worker(&mut self, number: usize, team: i64) -> Result<Worker<E::Conn>> {
        let first = IDS_OF_A_THREAD * (1 + number as i64);
        let teams = self.subject.variant.teams;
        original_ticket::<E>(&mut self.worker.conn, team)?;
        Ok(Worker {
            conn: self.engine.connect(&self.place)?,
            feed: Feed::new(self.operation, self.rows, teams, team, first),
        })
    }

    /// Runs the variant once and compares what it did with what it claims, on a connection of its
    /// own that counts statements.
    fn check(&mut self) -> Result<()> {
        let counting = self.engine.connect(&self.place)?;
        let measured = std::mem::replace(&mut self.worker.conn, counting);
        self.refill(3)?;
        // Statements that are prepared on first use, and a ticket that is created, are not typical.
        self.run()?;
        self.run()?;

        let before = self.counts()?;
        let statements = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&statements);
        self.worker
            .conn
            .set_instrumentation(move |event: InstrumentationEvent<'_>| {
                if let InstrumentationEvent::StartQuery { .. } = event {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        self.run_checked(&statements)?;
        let after = self.counts()?;
        let expected = self.expected(before);
        if after != expected {
            return Err(format!("it should have left {expected:?} and left {after:?}").into());
        }
        self.check_log()?;
        self.worker.conn = measured;
        Ok(())
    }

    /// Runs a transaction and looks at the rows themselves.
    fn run_checked(&mut self, statements: &AtomicU64) -> Result<()> {
        self.run()?;
        self.statements = statements.load(Ordering::Relaxed);

        let (rows, age) = self.worker.feed.last();
        let (first, last) = ids(rows);
        let found = format!("SELECT count(*) FROM members WHERE id BETWEEN {first} AND {last}");
        let (sql, expected) = match self.operation {
            Operation::Insert => (found, rows.len()),
            Operation::Update => (format!("{found} AND age = {age}"), rows.len()),
            Operation::Delete => (found, 0),
        };
        let found = E::count(&mut self.worker.conn, &sql)?;
        if found != expected as i64 {
            return Err(format!("{found} rows are as they should be, not {expected}").into());
        }
        Ok(())
    }

    fn expected(&self, before: Counts) -> Counts {
        let rows = self.rows as i64;
        let mut after = before;
        match self.operation {
            Operation::Insert => after.members += rows,
            Operation::Update => {}
            Operation::Delete => after.members -= rows,
        }
        match self.subject.variant.writes {
            Writes::Nothing => {}
            Writes::Entry => after.entries += 1,
            Writes::Original => {
                after.original += 1;
                after.original_metadata += METADATA.len() as i64;
                after.original_versions += 1;
            }
            Writes::Trigger => after.audit += rows,
        }
        after
    }

    fn counts(&mut self) -> Result<Counts> {
        let mut count = |sql| E::count(&mut self.worker.conn, sql);
        Ok(Counts {
            members: count("SELECT count(*) FROM members")?,
            entries: count("SELECT count(*) FROM oplog_entry")?,
            original: count("SELECT count(*) FROM original_entry")?,
            original_metadata: count("SELECT count(*) FROM original_metadata")?,
            original_versions: count("SELECT sum(version) FROM original_ticket")?,
            audit: count("SELECT count(*) FROM audit")?,
        })
    }

    /// The last entry holds the rows, and the chain of all of them is intact.
    fn check_log(&mut self) -> Result<()> {
        if self.subject.variant.writes == Writes::Entry {
            let last = self
                .subject
                .oplog
                .entries(&mut self.worker.conn)
                .last()
                .ok_or("the log is empty")??;
            let entry = self.subject.oplog.open_entry(&last)?;
            if entry.messages.len() != self.rows {
                return Err(format!("the entry has {} messages", entry.messages.len()).into());
            }
            if entry.metadata.iter().count() != METADATA.len() {
                return Err("the entry has other metadata".into());
            }
        }
        self.verify()
    }

    /// Checks once more, when everything was measured, that the log is as it should be.
    pub fn finish(&mut self) -> Result<()> {
        self.verify()
            .map_err(|failure| named(self.subject.variant.name, failure))
    }

    /// There is an entry for each commit of a logged variant and none of any other, and the log is
    /// intact.
    fn verify(&mut self) -> Result<()> {
        let expected = match self.subject.variant.writes {
            Writes::Entry => self.subject.committed(),
            Writes::Nothing | Writes::Original | Writes::Trigger => 0,
        };
        let report = self.subject.oplog.verify_structure(&mut self.worker.conn)?;
        if let Some(finding) = report.findings.first() {
            return Err(finding.to_string().into());
        }
        if report.entries != expected {
            return Err(format!("{} entries of {expected} commits", report.entries).into());
        }
        Ok(())
    }
}

impl<C> Worker<C> {
    fn begin<E: Engine<Conn = C>>(
        &mut self,
        engine: &E,
        mode: &CommitMode,
        cores: Cores,
    ) -> Result<()>
    where
        C: SimpleConnection,
    {
        self.conn.batch_execute(mode.sql)?;
        match engine.server_process(&mut self.conn)? {
            Some(process) => cores.place_server(process),
            None => Ok(()),
        }
    }
}

impl<C> Subject<C> {
    /// Runs one transaction and measures it, without what it needed before.
    pub fn run(&self, worker: &mut Worker<C>, inside: &Inside) -> Result<Duration> {
        let (rows, age) = worker.feed.next()?;
        let at = At {
            conn: &mut worker.conn,
            oplog: &self.oplog,
            rows,
            age,
            inside,
        };
        let start = Instant::now();
        (self.variant.run)(at)?;
        let took = start.elapsed();
        self.committed.fetch_add(1, Ordering::Relaxed);
        worker.feed.wrote();
        Ok(took)
    }

    /// Transactions that were committed, by anybody.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }
}

fn named(variant: &str, failure: Failure) -> Failure {
    format!("variant `{variant}`: {failure}").into()
}

/// The original's tickets are there before the first write.
fn original_ticket<E: Engine>(conn: &mut E::Conn, team: i64) -> Result<()> {
    let aggregate = Member::new(1, team).aggregate();
    Ok(conn.batch_execute(&format!(
        "INSERT INTO original_ticket (name, version) VALUES ('{}', 1) ON CONFLICT (name) DO NOTHING",
        aggregate.as_str()
    ))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sqlite::{Conn, Sqlite};

    fn check(operation: Operation, rows: usize, variant: Variant<Conn>) -> Result<u64> {
        let mode = &Sqlite::COMMIT_MODES[0];
        let mut lane = Lane::new(&Sqlite, mode, operation, rows, variant)?;
        lane.begin(Cores::Any)?;
        lane.refill(2)?;
        lane.run()?;
        lane.run()?;
        lane.finish()?;
        Ok(lane.statements)
    }

    #[test]
    fn every_variant_does_what_it_claims() {
        for operation in Operation::ALL {
            for rows in [1, 10, 100] {
                for variant in Sqlite::alone(operation, rows) {
                    check(operation, rows, variant).unwrap();
                }
            }
        }
        for variant in Sqlite::together() {
            check(Operation::Insert, 1, variant).unwrap();
        }
    }

    #[test]
    fn statements_are_counted_with_begin_and_commit() {
        let plain = Sqlite::alone(Operation::Insert, 1).swap_remove(0);
        assert_eq!(check(Operation::Insert, 1, plain).unwrap(), 3);
    }

    fn refused(operation: Operation, variant: Variant<Conn>) -> String {
        check(operation, 1, variant).unwrap_err().to_string()
    }

    #[test]
    fn a_variant_that_does_not_do_what_it_claims_is_refused() {
        let why = refused(Operation::Insert, Variant::logged("idle", |_| Ok(())));
        assert!(why.contains("0 rows are as they should be, not 1"), "{why}");

        // A plain insert that is said to be logged, and a logged one that is said not to be.
        let all = || Sqlite::alone(Operation::Insert, 1);
        let find = |name: &str| all().into_iter().find(|v| v.name == name).unwrap();
        for (name, writes) in [
            ("plain, cached", Writes::Entry),
            ("plain, cached", Writes::Original),
            ("logged_insert", Writes::Nothing),
            ("the original's protocol", Writes::Nothing),
        ] {
            let variant = Variant {
                writes,
                ..find(name)
            };
            let why = refused(Operation::Insert, variant);
            assert!(why.contains("it should have left"), "{name}: {why}");
        }
    }
}
