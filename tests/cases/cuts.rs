//! Connections that are cut, by whoever is between client and server and by the server itself.
//! PostgreSQL only: SQLite has no connection to lose.

use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer};
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::faulty::Faulty;
use oplog_tests::models::*;
use oplog_tests::proxy::{Cut, Proxy};

use crate::db::{Conn, is_free};
use crate::faults::{Ordeal, Told};
use crate::fixture::{Fixture, assert_free, is_soak};
use crate::forms::{LOCKED_FIRST, MODES, Mode, Run, WRITES, Write};

/// What is written and how: writes that between them send every kind of statement, in every form. All
/// of them in a long run.
fn writes() -> impl Iterator<Item = (&'static Mode, &'static Write)> {
    const FEW: [(usize, &[&str]); 4] = [
        (
            0,
            &[
                "insert into a new aggregate",
                "several aggregates",
                "insert_row",
                "update_row",
                "delete_row",
                "read_with",
                "unlogged",
            ],
        ),
        (
            3,
            &[
                "savepoints, one in the other",
                "several aggregates",
                "update that changes nothing",
            ],
        ),
        (5, &["insert under a lock, and others"]),
        (6, &["several aggregates"]),
    ];
    FEW.iter().flat_map(|(mode, few)| {
        let locked = LOCKED_FIRST.iter().filter(|_| *mode >= 5);
        let writes = WRITES.iter().chain(locked);
        let chosen = writes.filter(|write| is_soak() || few.contains(&write.name));
        chosen.map(|write| (&MODES[*mode], write))
    })
}

/// Whether there is no time for this one. A long run has time for all; otherwise each statement has its
/// turn at every second write.
fn is_left_out(turn: usize) -> bool {
    !is_soak() && turn % 2 == 1
}

fn pid(conn: &mut Conn) -> i32 {
    diesel::select(sql::<Integer>("pg_backend_pid()"))
        .get_result(conn)
        .unwrap()
}

/// Ends a connection from another one, and waits until it is gone.
fn terminate(other: &mut Conn, pid: i32) {
    let is_gone = format!("pg_terminate_backend({pid}, 60000)");
    let is_gone: bool = diesel::select(sql::<Bool>(&is_gone))
        .get_result(other)
        .unwrap();
    assert!(is_gone);
}

fn assert_lost(told: &Told) {
    let fits = matches!(
        told,
        Told::Unknown(_) | Told::Failed(Error::Database(_) | Error::Store { .. })
    );
    assert!(fits, "{told:?}");
}

/// The connection is of no use any more. Outside of a transaction Diesel only sees so at the next
/// statement.
fn assert_gone(conn: &mut Faulty<Conn>, write: &Write) {
    assert!(conn.is_broken() || matches!(write.run, Run::Alone(_)));
    conn.inner().batch_execute("SELECT 1").unwrap_err();
}

#[test]
fn the_server_ends_the_connection_before_each_statement() {
    let mut ordeal = Ordeal::new();
    for (index, (mode, write)) in writes().enumerate() {
        let mut conn = Faulty::new(ordeal.f.db.connect());
        let expected = ordeal.succeed(&mut conn, mode, write);
        // Until it takes fewer statements, of which some are left out once heads are known.
        for at in (1..).filter(|at| !is_left_out(index + at)) {
            let mut inner = ordeal.f.db.connect();
            let (pid, mut other) = (pid(&mut inner), ordeal.f.db.connect());
            let mut conn = Faulty::new(inner);
            conn.before(move |number, _| {
                if number == at {
                    terminate(&mut other, pid);
                }
            });
            let told = ordeal.run(&mut conn, mode, write);
            let is_committed = ordeal.assert_true(&told, &expected, Some(false));
            if conn.sent().len() < at {
                assert!(is_committed);
                break;
            }
            assert_lost(&told);
            assert!(!is_committed, "{at}: {told:?}");
            assert_gone(&mut conn, write);
        }
    }
    ordeal.f.check();
}

#[test]
fn the_connection_is_cut_at_each_request_and_answer() {
    let mut ordeal = Ordeal::new();
    let proxy = Proxy::new(&ordeal.f.db);
    let mut were_committed = 0;
    for (index, (mode, write)) in writes().enumerate() {
        proxy.plan(None);
        let mut conn = Faulty::new(proxy.connect(&ordeal.f.db));
        proxy.plan(None);
        let expected = ordeal.succeed(&mut conn, mode, write);
        assert!(proxy.requests() >= conn.sent().len());
        for cut in [Cut::Request, Cut::Answer] {
            let turn = index + usize::from(cut == Cut::Answer);
            for at in (1..).filter(|at| !is_left_out(turn + at)) {
                proxy.plan(None);
                let mut conn = Faulty::new(proxy.connect(&ordeal.f.db));
                proxy.plan(Some((at, cut)));
                let told = ordeal.run(&mut conn, mode, write);
                let is_committed = ordeal.assert_true(&told, &expected, Some(false));
                if proxy.requests() < at {
                    assert!(is_committed);
                    break;
                }
                assert_lost(&told);
                assert_gone(&mut conn, write);
                // Only if it was the commit that was answered.
                assert!(!is_committed || cut == Cut::Answer);
                were_committed += usize::from(is_committed);
            }
        }
    }
    ordeal.f.check();
    assert!(were_committed > 0);
}

/// A log whose commits take long, because of a constraint that is checked at their end.
fn slow() -> Fixture {
    let mut f = Fixture::new();
    f.conn
        .batch_execute(
            "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON settings DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION sleep()",
        )
        .unwrap();
    f
}

/// What commits.
#[derive(Clone, Copy, Debug)]
enum Committed {
    /// A logged transaction.
    Logged,
    /// The application's own transaction, after a logged one in it.
    Outer,
    /// A statement that is a logged transaction of its own.
    Statement,
}

/// Writes the slow row. With the error of an outer transaction come no receipts.
fn write(oplog: &Oplog, conn: &mut Conn, committed: Committed) -> Error {
    let row = Setting {
        section: String::new(),
        name: String::new(),
        value: None,
    };
    let insert = |tx: &mut Tx<'_, Conn>| tx.logged_insert::<Setting, _>(&row).map(drop);
    match committed {
        Committed::Logged => oplog.transaction(conn, insert).unwrap_err(),
        Committed::Outer => {
            let mut is_done = false;
            let outer = conn.transaction(|conn| {
                oplog.nested().transaction(conn, insert)?;
                is_done = true;
                Ok(())
            });
            assert!(is_done);
            outer.unwrap_err()
        }
        Committed::Statement => oplog.logged_insert_row(conn, &row).unwrap_err(),
    }
}

/// Runs a transaction and disturbs its commit by a function of the server.
fn disturbed(f: &Fixture, conn: &mut Conn, committed: Committed, disturb: &str) -> Error {
    let pid = pid(conn);
    let (oplog, mut other) = (&f.oplog, f.db.connect());
    thread::scope(|scope| {
        let writer = scope.spawn(move || write(oplog, conn, committed));
        let sleeps = format!(
            "EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep')"
        );
        let is = |what: &str, conn: &mut Conn| -> bool {
            diesel::select(sql::<Bool>(what)).get_result(conn).unwrap()
        };
        while !is(&sleeps, &mut other) {
            assert!(!writer.is_finished());
            thread::sleep(Duration::from_millis(1));
        }
        assert!(is(&format!("{disturb}({pid})"), &mut other));
        writer.join().unwrap()
    })
}

#[test]
fn the_server_ends_the_connection_during_the_commit() {
    let mut f = slow();
    for committed in [Committed::Logged, Committed::Outer, Committed::Statement] {
        f.unchanged(|f| {
            let mut conn = f.db.connect();
            match disturbed(f, &mut conn, committed, "pg_terminate_backend") {
                Error::CommitUnknown { receipts } => {
                    assert_eq!(receipts.len(), 1);
                    assert!(!f.oplog.resolve(&mut f.conn, &receipts).unwrap());
                }
                Error::Database(_) if matches!(committed, Committed::Outer) => {}
                error => panic!("{committed:?}: {error:?}"),
            }
        });
    }
}

/// The server answers that it has not committed, so that everybody knows.
#[test]
fn the_commit_is_cancelled() {
    let mut f = slow();
    for committed in [Committed::Logged, Committed::Outer, Committed::Statement] {
        f.unchanged(|f| {
            let mut conn = f.db.connect();
            let error = disturbed(f, &mut conn, committed, "pg_cancel_backend");
            assert!(matches!(error, Error::Database(_)), "{error:?}");
            assert!(is_free(&mut conn));
            assert_free(&mut conn);
        });
    }
}
