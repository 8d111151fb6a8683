//! The connection lent for reading, and writes past the log that the log tells of.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::sql_query;
use oplog_diesel::core::RecordError;
use oplog_diesel::{Error, LentError};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Conn;
use crate::fixture::{Fixture, assert_free, count};

/// What an application has that knows nothing of the log.
fn owners(conn: &mut Conn) -> QueryResult<Vec<String>> {
    accounts::table
        .select(accounts::owner)
        .order(accounts::id)
        .load(conn)
}

#[test]
fn a_reader_sees_what_the_transaction_wrote() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.run(|tx| {
        let bob: Account = tx.logged_insert(NewAccount { owner: "Bob" })?;
        assert_eq!(tx.read_with(owners)?, ["Alice", "Bob"]);
        // Transactions of the reader's own end within it.
        let n: i64 =
            tx.read_with(|conn| conn.transaction(|conn| accounts::table.count().get_result(conn)))?;
        assert_eq!(n, 2);
        tx.logged_update(&bob, accounts::balance.eq(5))
    })
    .unwrap();
    assert_eq!(f.news().len(), 2);
    f.check();
}

#[test]
fn the_database_refuses_writes_of_a_reader() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let writes = [
        "INSERT INTO accounts (id, owner) VALUES (99, 'Eve')",
        "UPDATE accounts SET balance = 0",
        "DELETE FROM accounts",
        "CREATE TABLE new (id INTEGER)",
        "DROP TABLE settings",
        "WITH gone AS (SELECT 1) DELETE FROM accounts",
    ];
    f.run(|tx| {
        for sql in writes {
            let refused = tx.read_with(|conn| sql_query(sql).execute(conn));
            assert!(
                matches!(refused, Err(Error::Database(_))),
                "{sql}: {refused:?}"
            );
            let batch = tx.read_with(|conn| conn.batch_execute(&format!("SELECT 1; {sql}")));
            assert!(matches!(batch, Err(Error::Database(_))), "{sql}: {batch:?}");
        }
        let typed = tx.read_with(|conn| diesel::delete(accounts::table).execute(conn));
        assert!(matches!(typed, Err(Error::Database(_))), "{typed:?}");
        // A reader that ignores the error changes nothing either.
        tx.read_with(|conn| {
            let _ = sql_query(writes[1]).execute(conn);
            Ok(())
        })?;
        // The transaction goes on, and writes again.
        tx.logged_update(&alice, accounts::balance.eq(5))
    })
    .unwrap();
    assert_eq!(f.snapshot().accounts.len(), 1);
    assert_eq!(f.snapshot().accounts[0].balance, 5);
    f.check();
    // Nothing of it is left on the connection.
    sql_query(writes[0]).execute(&mut f.conn).unwrap();
}

#[test]
fn a_reader_that_leaves_another_transaction_is_found() {
    fn begin(conn: &mut Conn) -> QueryResult<()> {
        AnsiTransactionManager::begin_transaction(conn)
    }
    fn rollback(conn: &mut Conn) -> QueryResult<()> {
        AnsiTransactionManager::rollback_transaction(conn)
    }
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    for change in [begin, rollback] {
        f.unchanged(|f| {
            let error = f
                .run(|tx| {
                    tx.logged_update(&alice, accounts::balance.eq(5))?;
                    let error = tx.read_with(change).unwrap_err();
                    let what = LentError::Transaction;
                    assert!(
                        matches!(error, Error::Store { .. })
                            || matches!(error, Error::Lent { what: found } if found == what),
                        "{error:?}"
                    );
                    Ok(())
                })
                .unwrap_err();
            assert!(
                matches!(error, Error::Record(RecordError::Poisoned)),
                "{error:?}"
            );
        });
        f.unchanged(|f| {
            let error = f.run(|tx| tx.unlogged("why", change)).unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Lent {
                        what: LentError::Transaction
                    }
                ),
                "{error:?}"
            );
        });
    }
}

/// What was committed by a `COMMIT` in text stays; but the caller is told.
#[test]
fn a_reader_that_commits_is_found() {
    let mut f = Fixture::new();
    f.account("Alice");
    for unlogged in [false, true] {
        let error = f
            .run(|tx| {
                let commit = |conn: &mut Conn| conn.batch_execute("COMMIT");
                match unlogged {
                    true => tx.unlogged("why", commit),
                    false => tx.read_with(commit),
                }
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::Store { .. } | Error::Lent { .. }),
            "{error:?}"
        );
        let mut conn = f.db.connect();
        std::mem::swap(&mut f.conn, &mut conn);
        f.check();
    }
}

#[test]
fn a_panic_of_a_reader_leaves_nothing() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    for unlogged in [false, true] {
        f.unchanged(|f| {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                f.run(|tx| {
                    tx.logged_update(&alice, accounts::balance.eq(5))?;
                    let panics = |conn: &mut Conn| -> QueryResult<()> {
                        conn.transaction(|_| panic!("in a transaction of the reader's"))
                    };
                    match unlogged {
                        true => tx.unlogged("why", panics),
                        false => tx.read_with(panics),
                    }
                })
            }));
            assert!(panic.is_err());
            assert_free(&mut f.conn);
        });
    }
    sql_query("DELETE FROM settings")
        .execute(&mut f.conn)
        .unwrap();
}

#[test]
fn unlogged_writes_are_told_of_in_every_entry() {
    let mut f = Fixture::new();
    f.conn
        .batch_execute("CREATE TABLE cache (n INTEGER)")
        .unwrap();
    let cache = |conn: &mut Conn| sql_query("INSERT INTO cache VALUES (1)").execute(conn);
    f.run(|tx| {
        let _: Account = tx.logged_insert(NewAccount { owner: "Alice" })?;
        assert_eq!(tx.unlogged("first", cache)?, 1);
        let _: Account = tx.logged_insert(NewAccount { owner: "Bob" })?;
        tx.unlogged("second", cache)?;
        // Taken back with its savepoint, and with its own error.
        let gone = tx.savepoint(|tx| {
            tx.unlogged("third", cache)?;
            Err::<(), _>(Error::NotMigrated)
        });
        assert!(gone.is_err());
        let failed = tx.unlogged("fourth", |conn| {
            cache(conn)?;
            sql_query("INSERT INTO nowhere VALUES (1)").execute(conn)
        });
        assert!(matches!(failed, Err(Error::Database(_))), "{failed:?}");
        Ok(())
    })
    .unwrap();
    assert_eq!(count(&mut f.conn, "cache"), 2);
    let told = |reasons: &[&str]| -> Vec<_> {
        let key = || "_oplog.unlogged".to_owned();
        reasons
            .iter()
            .map(|reason| (key(), Some((*reason).to_owned())))
            .collect()
    };
    let entries = f.new_entries();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!(entry.metadata, told(&["first", "second"]));
        assert_eq!(entry.messages.len(), 1);
    }

    // Alone, it is told of by the aggregate that was named first.
    let run = |f: &mut Fixture| {
        let oplog = f.oplog.clone();
        let named = oplog.on("zeta").and("account:1").metadata("actor", "root");
        named.transaction(&mut f.conn, |tx| tx.unlogged("alone", cache))
    };
    for sequence in 1..=3 {
        run(&mut f).unwrap();
        let entries = f.new_entries();
        assert_eq!(entries.len(), 1);
        let entry = &entries[0];
        assert_eq!(
            (entry.aggregate.as_str(), entry.sequence),
            ("zeta", sequence)
        );
        assert_eq!(entry.messages.len(), 0);
        assert_eq!(entry.metadata[0], told(&["alone"])[0]);
        assert_eq!(
            entry.metadata[1],
            ("actor".to_owned(), Some("root".to_owned()))
        );
    }
    f.unchanged(|f| {
        let error = f
            .run(|tx| tx.unlogged("nobody is told", cache))
            .unwrap_err();
        assert!(
            matches!(error, Error::Record(RecordError::NoWitness)),
            "{error:?}"
        );
    });
    assert_eq!(count(&mut f.conn, "cache"), 5);
}

#[test]
fn a_reason_that_cannot_be_stored_is_refused_before_anything_is_done() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.unchanged(|f| {
        let error = f
            .run(|tx| tx.unlogged("a\0b", |_| -> QueryResult<()> { panic!("not called") }))
            .unwrap_err();
        assert!(matches!(error, Error::Metadata(_)), "{error:?}");
    });
    // The key is the log's own.
    let mine = f.oplog.metadata("_oplog.unlogged", "not by me");
    let refused = mine.transaction(&mut f.conn, |_| Ok::<_, Error>(()));
    assert!(matches!(refused, Err(Error::Metadata(_))), "{refused:?}");
}
