//! Commits that the database refuses.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_diesel::Error;
use oplog_diesel::prelude::*;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::Fixture;

/// A log in which postings may precede their account until the commit.
fn deferred() -> Fixture {
    let mut f = Fixture::new();
    f.conn
        .batch_execute(
            "DROP TABLE postings;
             CREATE TABLE postings (
                 id BIGINT NOT NULL PRIMARY KEY,
                 account_id BIGINT NOT NULL REFERENCES accounts (id) DEFERRABLE INITIALLY DEFERRED,
                 amount BIGINT NOT NULL,
                 note TEXT
             )",
        )
        .unwrap();
    f
}

#[test]
fn a_deferred_constraint_that_holds_in_the_end_is_no_obstacle() {
    let mut f = deferred();
    f.run(|tx| {
        let _: Posting = tx.logged_insert((
            postings::id.eq(1),
            postings::account_id.eq(5),
            postings::amount.eq(1),
        ))?;
        tx.logged_insert::<Account, _>((accounts::id.eq(5), accounts::owner.eq("late")))
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:5/1 create posting(id=1 account_id=5 amount=1 note=NULL) nulls[4]"#,
            r#"account:5/1 create account(email=NULL id=5 owner="late" balance=10) nulls[4]"#,
        ]
    );
    f.check();
}

#[test]
fn a_deferred_constraint_that_fails_at_the_commit_takes_everything_back() {
    let mut f = deferred();
    let alice = f.account("Alice");
    f.unchanged(|f| {
        for named in [false, true] {
            let builder = if named {
                f.oplog.on(alice.aggregate())
            } else {
                f.oplog.metadata("k", "v")
            };
            let mut ran = 0;
            let error = builder
                .transaction(&mut f.conn, |tx| {
                    ran += 1;
                    tx.logged_update(&alice, accounts::balance.eq(0))?;
                    let _: Posting = tx.logged_insert((
                        postings::id.eq(1),
                        postings::account_id.eq(77),
                        postings::amount.eq(1),
                    ))?;
                    Ok::<_, Error>(())
                })
                .unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Database(DieselError::DatabaseError(
                        DatabaseErrorKind::ForeignKeyViolation,
                        _
                    ))
                ),
                "{error:?}"
            );
            assert_eq!(ran, 1);
            crate::fixture::assert_free(&mut f.conn);
        }
    });
    // The connection is as good as before.
    f.run(|tx| tx.logged_update(&alice, accounts::balance.eq(3)))
        .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=3) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

/// The commit that fails is the application's own.
#[test]
fn a_deferred_constraint_that_fails_at_the_commit_of_an_outer_transaction_takes_everything_back() {
    let mut f = deferred();
    let alice = f.account("Alice");
    let oplog = f.oplog.clone();
    f.unchanged(|f| {
        for named in [false, true] {
            let committed = f.conn.transaction(|conn| {
                let builder = oplog.nested();
                let builder = if named {
                    builder.on(alice.aggregate())
                } else {
                    builder
                };
                builder.transaction(conn, |tx| {
                    tx.logged_update(&alice, accounts::balance.eq(0))?;
                    tx.logged_insert::<Posting, _>((
                        postings::id.eq(1),
                        postings::account_id.eq(77),
                        postings::amount.eq(1),
                    ))
                })
            });
            assert!(
                matches!(
                    committed,
                    Err(Error::Database(DieselError::DatabaseError(
                        DatabaseErrorKind::ForeignKeyViolation,
                        _
                    )))
                ),
                "{committed:?}"
            );
            crate::fixture::assert_free(&mut f.conn);
        }
    });
    // Nothing of it is remembered.
    let mut ran = 0;
    oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| {
            ran += 1;
            tx.logged_update(&alice, accounts::balance.eq(3))
        })
        .map_err(|error: Error| error)
        .unwrap();
    assert_eq!(ran, 1);
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=3) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

#[test]
fn a_deferred_constraint_fails_at_the_commit_of_a_test_transaction_only() {
    let mut f = deferred();
    f.unchanged(|f| {
        let mut conn = f.db.connect();
        conn.begin_test_transaction().unwrap();
        f.oplog
            .transaction(&mut conn, |tx| {
                tx.logged_insert::<Posting, _>((
                    postings::id.eq(1),
                    postings::account_id.eq(77),
                    postings::amount.eq(1),
                ))
            })
            .map_err(|error: Error| error)
            .unwrap();
    });
}
