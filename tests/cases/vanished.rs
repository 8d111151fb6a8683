//! Transactions that SQLite takes back by itself. Some errors end the whole transaction there: those
//! of a constraint with `ON CONFLICT ROLLBACK` and of `RAISE(ROLLBACK)`, a full disk, an error of a
//! file, too little memory. What a closure writes after it has ignored such an error would be outside
//! of any transaction, and so committed at once and never logged.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use oplog_diesel::core::RecordError;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::faulty::{Fault, Faulty};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Conn;
use crate::fixture::{Fixture, assert_free};

/// A log in which a setting of the name "taken" ends the transaction.
fn fixture() -> Fixture {
    let mut f = Fixture::new();
    f.conn
        .batch_execute(
            "DROP TABLE settings;
             CREATE TABLE settings (
                 section TEXT NOT NULL,
                 name TEXT NOT NULL,
                 value BLOB,
                 PRIMARY KEY (section, name) ON CONFLICT ROLLBACK
             );",
        )
        .unwrap();
    f.run(|tx| insert(tx, "taken").map(drop)).unwrap();
    f
}

fn insert(tx: &mut Tx<'_, Conn>, name: &str) -> Result<Setting, Error> {
    tx.logged_insert(&Setting {
        section: String::new(),
        name: name.to_owned(),
        value: None,
    })
}

fn account(tx: &mut Tx<'_, Conn>, owner: &str) -> Result<Account, Error> {
    tx.logged_insert(&NewAccount { owner })
}

fn assert_refused(f: &mut Fixture, mut body: impl FnMut(&mut Tx<'_, Conn>) -> Result<(), Error>) {
    f.unchanged(|f| {
        let error = f.run(|tx| body(tx)).unwrap_err();
        assert!(
            matches!(error, Error::Record(RecordError::Poisoned)),
            "{error:?}"
        );
    });
    // The connection is as good as before.
    f.unchanged(|f| {
        f.run(|tx| {
            account(tx, "after")?;
            Err::<(), _>(Error::from(diesel::result::Error::RollbackTransaction))
        })
        .unwrap_err();
    });
}

#[test]
fn nothing_is_written_after_it() {
    let mut f = fixture();
    assert_refused(&mut f, |tx| {
        account(tx, "before")?;
        insert(tx, "taken").unwrap_err();
        account(tx, "after")?;
        Ok(())
    });
}

#[test]
fn nothing_is_written_after_a_savepoint_with_it() {
    let mut f = fixture();
    assert_refused(&mut f, |tx| {
        account(tx, "before")?;
        tx.savepoint(|tx| insert(tx, "taken")).unwrap_err();
        account(tx, "after")?;
        Ok(())
    });
}

#[test]
fn nothing_is_written_after_savepoints_with_it() {
    let mut f = fixture();
    assert_refused(&mut f, |tx| {
        account(tx, "before")?;
        let inner = tx.savepoint(|tx| {
            account(tx, "inside")?;
            tx.savepoint(|tx| insert(tx, "taken")).unwrap_err();
            account(tx, "inside, too")?;
            Err::<(), _>(Error::from(diesel::result::Error::RollbackTransaction))
        });
        inner.unwrap_err();
        account(tx, "after")?;
        Ok(())
    });
}

#[test]
fn nothing_is_written_after_it_in_a_savepoint_that_is_kept() {
    let mut f = fixture();
    assert_refused(&mut f, |tx| {
        account(tx, "before")?;
        let inner = tx.savepoint(|tx| {
            insert(tx, "taken").unwrap_err();
            account(tx, "inside")
        });
        inner.unwrap_err();
        account(tx, "after")?;
        Ok(())
    });
}

#[test]
fn nothing_is_written_after_several_rows_with_it() {
    let mut f = fixture();
    assert_refused(&mut f, |tx| {
        account(tx, "before")?;
        let rows = ["free", "taken"].map(|name| Setting {
            section: String::new(),
            name: name.to_owned(),
            value: None,
        });
        tx.logged_insert_many::<Setting, _>(rows).unwrap_err();
        account(tx, "after")?;
        Ok(())
    });
}

/// Whichever statement it is, the user's or one of ours, and whatever the closure makes of it.
#[test]
fn nothing_is_written_after_any_statement_with_it() {
    let mut f = fixture();
    let mut conn = Faulty::new(f.db.connect());
    let write = |oplog: &Oplog, conn: &mut Faulty<Conn>| {
        let owner = |owner: &'static str| NewAccount { owner };
        oplog.on("settings").transaction(conn, |tx| {
            let _ = tx.logged_insert::<Account, _>(owner("before"));
            let _ = tx.read::<_, i64>(accounts::table.select(accounts::id));
            let _ = tx.savepoint(|tx| {
                let _ = tx.logged_insert::<Account, _>(owner("inside"));
                let _ = tx.savepoint(|tx| tx.logged_insert::<Account, _>(owner("inside, too")));
                Err::<(), Error>(diesel::result::Error::RollbackTransaction.into())
            });
            let _ = tx.savepoint(|tx| tx.logged_insert::<Account, _>(owner("kept")));
            let all = accounts::table.filter(accounts::balance.gt(0));
            let _ = tx.logged_update_where::<Account, _, _>(all, accounts::balance.eq(11));
            let _ = tx.logged_insert::<Account, _>(owner("after"));
            Ok::<_, Error>(())
        })
    };
    conn.heal();
    write(&f.oplog, &mut conn).unwrap();
    let statements = conn.sent().to_vec();
    assert!(statements.len() > 20);
    // Before the second of them there is no transaction to take back.
    for at in 2..=statements.len() {
        f.unchanged(|f| {
            conn.plan(at, Fault::Vanish);
            let told = write(&f.oplog, &mut conn);
            assert!(told.is_err(), "{at}: {}", statements[at - 1]);
            assert_free(conn.inner());
        });
    }
    conn.heal();
    write(&f.oplog, &mut conn).unwrap();
    f.check();
}

/// With the error handed on, it comes out as it came.
#[test]
fn the_error_itself_is_kept() {
    let mut f = fixture();
    f.unchanged(|f| {
        let error = f
            .run(|tx| {
                account(tx, "before")?;
                insert(tx, "taken")
            })
            .unwrap_err();
        let Error::Database(diesel::result::Error::DatabaseError(kind, _)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(kind, diesel::result::DatabaseErrorKind::UniqueViolation);
    });
}
