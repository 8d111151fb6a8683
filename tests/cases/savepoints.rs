//! Writes that are tried and taken back, and a transaction that goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::prelude::*;
use oplog_diesel::Error;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::{Fixture, assert_free};

/// A closure's own error.
#[derive(Debug, PartialEq)]
struct Changed(&'static str);

impl From<Error> for Changed {
    fn from(_: Error) -> Self {
        Changed("by the log")
    }
}

#[test]
fn rows_and_messages_are_taken_back_together() {
    let mut f = Fixture::new();
    f.run(|tx| {
        let alice: Account = tx.logged_insert(NewAccount { owner: "Alice" })?;
        let gone = tx.savepoint(|tx| {
            let bob: Account = tx
                .logged_insert(NewAccount { owner: "Bob" })
                .map_err(|_| Changed("insert"))?;
            tx.logged_update(&alice, accounts::balance.eq(99))
                .map_err(|_| Changed("update"))?;
            tx.logged_delete(&bob).map_err(|_| Changed("delete"))?;
            tx.metadata("tried", "yes")
                .map_err(|_| Changed("metadata"))?;
            Err::<(), _>(Changed("my mind"))
        });
        assert_eq!(gone, Err(Changed("my mind")));
        let kept: Result<Account, Error> =
            tx.savepoint(|tx| tx.logged_update(&alice, accounts::balance.eq(5)));
        assert_eq!(kept?.balance, 5);
        Ok(())
    })
    .unwrap();
    let entries = f.new_entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].metadata, []);
    assert_eq!(
        entries[0].messages,
        [
            r#"create account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
            r#"update account(email=NULL id=1 owner="Alice" balance=5) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

/// An error of a write is final, but not beyond the savepoint it happened in.
#[test]
fn a_failed_write_is_forgiven() {
    let mut f = Fixture::new();
    f.run(|tx| {
        for round in 0..3 {
            let refused: Result<Account, Error> = tx.savepoint(|tx| {
                tx.logged_insert::<Account, _>(NewAccount { owner: "lost" })?;
                tx.logged_insert(NewAccount { owner: "nobody" })
            });
            assert!(
                matches!(refused, Err(Error::Database(_))),
                "{round}: {refused:?}"
            );
        }
        tx.logged_insert::<Account, _>(NewAccount { owner: "kept" })
    })
    .unwrap();
    let owners: Vec<String> = f
        .snapshot()
        .accounts
        .into_iter()
        .map(|account| account.owner)
        .collect();
    assert_eq!(owners, ["kept"]);
    assert_eq!(f.news().len(), 1);
    f.check();
}

#[test]
fn an_ignored_error_inside_poisons_all_of_it() {
    let mut f = Fixture::new();
    f.unchanged(|f| {
        let result = f.run(|tx| {
            tx.savepoint(|tx| {
                let _: Result<Account, Error> = tx.logged_insert(NewAccount { owner: "nobody" });
                Ok::<_, Error>(())
            })
        });
        assert!(result.is_err(), "{result:?}");
    });
    assert_free(&mut f.conn);
    f.check();
}

#[test]
fn savepoints_are_nested() {
    let mut f = Fixture::new();
    f.run(|tx| {
        tx.savepoint(|tx| {
            tx.logged_insert::<Account, _>(NewAccount { owner: "outer" })?;
            let inner: Result<(), Error> = tx.savepoint(|tx| {
                tx.logged_insert::<Account, _>(NewAccount { owner: "inner" })?;
                Err(Error::Database(diesel::result::Error::RollbackTransaction))
            });
            assert!(inner.is_err());
            tx.savepoint(|tx| tx.logged_insert::<Account, _>(NewAccount { owner: "other" }))
        })
    })
    .unwrap();
    let owners: Vec<String> = f
        .snapshot()
        .accounts
        .into_iter()
        .map(|account| account.owner)
        .collect();
    assert_eq!(owners, ["outer", "other"]);
    f.check();
}

/// Also if everything that was written is taken back, and with a savepoint that wrote nothing.
#[test]
fn nothing_left_is_nothing_logged() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.unchanged(|f| {
        f.run(|tx| {
            let gone: Result<(), Changed> = tx.savepoint(|tx| {
                tx.logged_insert::<Account, _>(NewAccount { owner: "gone" })?;
                Err(Changed("my mind"))
            });
            assert_eq!(gone, Err(Changed("my mind")));
            tx.savepoint(|_| Ok::<_, Error>(()))
        })
        .unwrap();
    });
    f.check();
}

#[test]
fn a_panic_inside_rolls_all_of_it_back() {
    let mut f = Fixture::new();
    f.unchanged(|f| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            f.run(|tx| {
                tx.logged_insert::<Account, _>(NewAccount { owner: "outer" })?;
                tx.savepoint(|tx| {
                    tx.logged_insert::<Account, _>(NewAccount { owner: "inner" })?;
                    if tx
                        .read::<_, i64>(accounts::table.select(accounts::id))?
                        .len()
                        == 2
                    {
                        panic!("on purpose");
                    }
                    Ok::<_, Error>(())
                })
            })
        }));
        assert!(panicked.is_err());
    });
    assert_free(&mut f.conn);
    f.check();
}
