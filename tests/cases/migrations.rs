//! The log's own tables: made once, by whomever.

use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::{Error, run_migrations};

use crate::db::{Conn, Db};
use crate::evidence::*;
use crate::sabotage::*;

fn up() -> &'static str {
    if is_postgres() {
        include_str!("../../migrations/postgres/2026-11-24-000000_create_oplog/up.sql")
    } else {
        include_str!("../../migrations/sqlite/2026-11-24-000000_create_oplog/up.sql")
    }
}

fn down() -> &'static str {
    if is_postgres() {
        include_str!("../../migrations/postgres/2026-11-24-000000_create_oplog/down.sql")
    } else {
        include_str!("../../migrations/sqlite/2026-11-24-000000_create_oplog/down.sql")
    }
}

fn versions(conn: &mut Conn) -> Vec<String> {
    names(
        conn,
        "SELECT version AS value FROM oplog_migration ORDER BY version",
    )
}

#[test]
fn migrations_run_once() {
    let db = Db::empty();
    let conn = &mut db.connect();
    run_migrations(conn).unwrap();
    let (log, run) = (log_id(conn), versions(conn));
    assert!(!run.is_empty());
    run_migrations(conn).unwrap();
    assert_eq!((log_id(conn), versions(conn)), (log, run));
    assert!(!has_table(conn, "__diesel_schema_migrations"));
    open(&db);
    // Each log has an identity of its own.
    let other = Db::empty();
    run_migrations(&mut other.connect()).unwrap();
    assert_ne!(log_id(&mut other.connect()), log);
}

#[test]
fn migrations_run_once_from_many_connections() {
    for _ in 0..3 {
        let db = Db::empty();
        let conns: Vec<Conn> = (0..8).map(|_| db.connect()).collect();
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for mut conn in conns {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    run_migrations(&mut conn).unwrap();
                    run_migrations(&mut conn).unwrap();
                });
            }
        });
        let conn = &mut db.connect();
        assert_eq!(number(conn, "SELECT count(*) AS value FROM oplog_log"), 1);
        open(&db);
    }
}

/// The same on SQLite without a write-ahead log, where readers and writers exclude each other.
#[test]
fn migrations_run_from_connections_that_nobody_prepared() {
    for _ in 0..3 {
        let db = Db::empty();
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut conn = Conn::establish(&db.url()).unwrap();
                    barrier.wait();
                    run_migrations(&mut conn).unwrap_or_else(|error| panic!("{}", shown(&error)));
                });
            }
        });
        assert_eq!(
            number(&mut db.connect(), "SELECT count(*) AS value FROM oplog_log"),
            1
        );
    }
}

#[test]
fn exported_migrations_and_ours_know_of_each_other() {
    let db = Db::empty();
    let conn = &mut db.connect();
    run(conn, up());
    let (log, run_before) = (log_id(conn), versions(conn));
    run_migrations(conn).unwrap();
    assert_eq!((log_id(conn), versions(conn)), (log, run_before.clone()));
    open(&db);
    // Down, and up again by us.
    run(conn, down());
    assert!(!has_table(conn, "oplog_entry"));
    assert_eq!(versions(conn), [""; 0]);
    let error = oplog_diesel::Oplog::builder()
        .key(key_file(&db))
        .open(conn)
        .unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error:?}");
    run_migrations(conn).unwrap();
    assert_eq!(versions(conn), run_before);
    assert_ne!(log_id(conn), log);
    // Ours and then the exported ones: refused by the database, not run twice.
    assert!(undone(conn, |conn| conn.batch_execute(up()).is_err()));
}

#[test]
fn a_migration_that_fails_leaves_nothing() {
    let db = Db::empty();
    let conn = &mut db.connect();
    run(conn, "CREATE TABLE oplog_key (other INTEGER)");
    let error = run_migrations(conn).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Store {
                operation: "running the oplog's migrations",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(!has_table(conn, "oplog_entry"));
    run(conn, "DROP TABLE oplog_key");
    run_migrations(conn).unwrap();
    open(&db);
}

#[test]
fn migrations_do_not_run_inside_a_transaction() {
    let db = Db::empty();
    let conn = &mut db.connect();
    conn.transaction(|conn| {
        let error = run_migrations(conn).unwrap_err();
        assert!(matches!(error, Error::OuterTransaction), "{error:?}");
        Ok::<_, diesel::result::Error>(())
    })
    .unwrap();
    assert!(!has_table(conn, "oplog_entry"));
    undone(conn, |conn| run_migrations(conn).unwrap());
    assert!(!has_table(conn, "oplog_entry"));
}
