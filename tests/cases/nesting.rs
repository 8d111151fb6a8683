//! Connections that are in a transaction already, and those of a pool.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Retry};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};
use crate::fixture::{Fixture, assert_free, builder, check, entries};

fn insert(oplog: &Oplog, conn: &mut Conn, owner: &str) -> Result<Account, Error> {
    oplog.transaction(conn, |tx| tx.logged_insert(&NewAccount { owner }))
}

#[test]
fn an_outer_transaction_is_refused() {
    let mut f = Fixture::new();
    f.unchanged(|f| {
        let mut ran = false;
        let error = f
            .conn
            .transaction(|conn| {
                f.oplog.transaction(conn, |_| {
                    ran = true;
                    Ok::<_, Error>(())
                })
            })
            .unwrap_err();
        assert!(matches!(error, Error::OuterTransaction), "{error:?}");
        assert!(!ran);
    });
}

/// What the outer transaction wrote is its own business.
#[test]
fn an_outer_transaction_goes_on_after_the_refusal() {
    let mut f = Fixture::new();
    f.conn
        .transaction(|conn| {
            conn.transaction(|conn| {
                assert!(matches!(
                    insert(&f.oplog, conn, "a"),
                    Err(Error::OuterTransaction)
                ));
                QueryResult::Ok(())
            })?;
            assert!(matches!(
                insert(&f.oplog, conn, "a"),
                Err(Error::OuterTransaction)
            ));
            diesel::insert_into(accounts::table)
                .values(accounts::owner.eq("unlogged"))
                .execute(conn)
        })
        .unwrap();
    assert_free(&mut f.conn);
    assert_eq!(f.snapshot().accounts.len(), 1);
    assert_eq!(f.entries().len(), 0);
}

#[test]
fn a_test_transaction_holds_several_logged_ones() {
    let f = Fixture::new();
    let mut conn = f.db.connect();
    conn.begin_test_transaction().unwrap();
    let alice = insert(&f.oplog, &mut conn, "Alice").unwrap();
    let error = insert(&f.oplog, &mut conn, "nobody").unwrap_err();
    assert!(matches!(error, Error::Database(_)), "{error:?}");
    let ignored = f.oplog.transaction(&mut conn, |tx| {
        assert!(
            tx.logged_insert::<Account, _>(&NewAccount { owner: "nobody" })
                .is_err()
        );
        Ok::<_, Error>(())
    });
    assert!(matches!(ignored, Err(Error::Record(_))), "{ignored:?}");
    let panic = catch_unwind(AssertUnwindSafe(|| {
        f.oplog.transaction(&mut conn, |tx| -> Result<(), Error> {
            tx.logged_delete(&alice)?;
            panic!("on purpose")
        })
    }));
    assert!(panic.is_err());
    f.oplog
        .on(alice.aggregate())
        .transaction(&mut conn, |tx| {
            let _: Setting = tx.logged_insert(&Setting {
                section: String::new(),
                name: String::new(),
                value: None,
            })?;
            tx.logged_update(&alice, accounts::balance.eq(1))
        })
        .unwrap();
    let lines: Vec<_> = entries(&f.oplog, &mut conn)
        .into_iter()
        .flat_map(|entry| entry.messages)
        .collect();
    assert_eq!(lines, [
        r#"create account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
        r#"update account(email=NULL id=1 owner="Alice" balance=1) nulls[4] was(balance=10) set[balance] #1"#,
        r#"create setting(section="" name="" value=NULL) nulls[3] #0"#,
    ].map(str::to_owned));
    assert!(f.oplog.verify_contents(&mut conn).unwrap().is_intact());
    f.oplog.replay(&mut conn).into_suffix("_replay").unwrap();
    // A transaction inside the test transaction is an outer one again.
    let error = conn
        .transaction(|conn| insert(&f.oplog, conn, "a"))
        .unwrap_err();
    assert!(matches!(error, Error::OuterTransaction), "{error:?}");
    let status =
        <AnsiTransactionManager as TransactionManager<Conn>>::transaction_manager_status_mut(
            &mut conn,
        );
    assert_eq!(status.transaction_depth().unwrap().map(u32::from), Some(1));
    drop(conn);
    let mut f = f;
    assert_eq!(f.snapshot().entries, 0);
    f.check();
}

#[test]
fn a_log_is_opened_in_a_test_transaction_and_not_in_another() {
    let db = Db::new();
    let mut conn = db.connect();
    let error = conn
        .transaction(|conn| builder(&db).open(conn))
        .unwrap_err();
    assert!(matches!(error, Error::OuterTransaction), "{error:?}");
    conn.begin_test_transaction().unwrap();
    let oplog = builder(&db).open(&mut conn).unwrap();
    insert(&oplog, &mut conn, "a").unwrap();
    assert_eq!(entries(&oplog, &mut conn).len(), 1);
    drop(conn);
    // The key was rolled back with everything else, and another one is made.
    let oplog = builder(&db).open(&mut db.connect()).unwrap();
    insert(&oplog, &mut db.connect(), "b").unwrap();
    check(&oplog, &mut db.connect());
}

fn pool(f: &Fixture, size: u32) -> Pool<ConnectionManager<Conn>> {
    Pool::builder()
        .max_size(size)
        .build(ConnectionManager::new(f.db.url()))
        .unwrap()
}

#[test]
fn a_pool_of_one_connection_survives_errors_and_panics() {
    let mut f = Fixture::new();
    let pool = pool(&f, 1);
    for round in 0..3 {
        let alice: Account = {
            let mut conn = pool.get().unwrap();
            let new = (accounts::id.eq(round + 1), accounts::owner.eq("Alice"));
            f.oplog
                .transaction(&mut conn, |tx| tx.logged_insert(new))
                .unwrap()
        };
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let mut conn = pool.get().unwrap();
            f.oplog.transaction(&mut conn, |tx| -> Result<(), Error> {
                tx.logged_delete(&alice)?;
                panic!("on purpose")
            })
        }));
        assert!(panic.is_err());
        let panic = {
            // The connection outlives the panic and goes back to the pool in good order.
            let mut conn = pool.get().unwrap();
            let panic = catch_unwind(AssertUnwindSafe(|| {
                f.oplog.transaction(&mut conn, |tx| -> Result<(), Error> {
                    tx.logged_delete(&alice)?;
                    panic!("on purpose")
                })
            }));
            assert_free(&mut conn);
            panic
        };
        assert!(panic.is_err());
        let mut conn = pool.get().unwrap();
        let error = f
            .oplog
            .transaction(&mut conn, |tx| {
                tx.logged_insert::<Account, _>(&NewAccount { owner: "nobody" })
            })
            .unwrap_err();
        assert!(matches!(error, Error::Database(_)), "{error:?}");
        f.oplog
            .on(alice.aggregate())
            .transaction(&mut conn, |tx| {
                tx.logged_update(&alice, accounts::balance.eq(round))
            })
            .unwrap();
        assert_free(&mut conn);
    }
    assert_eq!(f.news(), (1..=3).flat_map(|id| [
        format!(r#"account:{id}/1 create account(email=NULL id={id} owner="Alice" balance=10) nulls[4]"#),
        format!(r#"account:{id}/2 update account(email=NULL id={id} owner="Alice" balance={}) nulls[4] was(balance=10) set[balance]"#, id - 1),
    ]).collect::<Vec<_>>());
    assert_eq!(pool.state().connections, 1);
    f.check();
}

#[test]
fn a_pool_of_eight_connections_is_shared_by_threads() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let pool = pool(&f, 8);
    let (oplog, alice) = (&f.oplog, &alice);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = pool.clone();
            scope.spawn(move || {
                for round in 0..3 {
                    let mut conn = pool.get().unwrap();
                    let fails = (thread + round) % 3 == 0;
                    let result = catch_unwind(AssertUnwindSafe(|| {
                        oplog.transaction(&mut conn, |tx| {
                            tx.logged_update(alice, accounts::balance.eq(accounts::balance + 1))?;
                            if fails {
                                panic!("on purpose");
                            }
                            Ok::<_, Error>(())
                        })
                    }));
                    assert_eq!(result.is_err(), fails);
                    assert_free(&mut conn);
                }
            });
        }
    });
    assert_eq!(f.snapshot().accounts[0].balance, 10 + 16);
    assert_eq!(f.news().len(), 16);
    for _ in 0..8 {
        assert_free(&mut pool.get().unwrap());
    }
    f.check();
}

/// On request, the fate of the logged transaction is that of the outer one.
#[test]
fn a_nested_transaction_goes_with_the_outer_one() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    let gone: Result<(), Error> = f.conn.transaction(|conn| {
        oplog.nested().transaction(conn, |tx| {
            tx.logged_insert::<Account, _>(NewAccount { owner: "gone" })
        })?;
        Err(Error::NotMigrated)
    });
    assert!(gone.is_err());
    assert_eq!((f.snapshot().accounts.len(), f.entries().len()), (0, 0));

    f.conn
        .transaction(|conn| {
            let mut ids = Vec::new();
            for owner in ["Alice", "Bob"] {
                let account: Account = oplog.nested().transaction(conn, |tx| {
                    tx.logged_insert::<Account, _>(NewAccount { owner })
                })?;
                ids.push(account.id);
            }
            // An error takes back what is its own, and the outer transaction goes on.
            let refused = oplog.nested().transaction(conn, |tx| {
                tx.logged_insert::<Account, _>(NewAccount { owner: "Carol" })?;
                tx.logged_insert::<Account, _>(NewAccount { owner: "nobody" })
            });
            assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
            oplog
                .nested()
                .on(format!("account:{}", ids[0]))
                .transaction(conn, |tx| {
                    let alice: Account =
                        tx.read_one(accounts::table.find(ids[0]).select(Account::as_select()))?;
                    tx.logged_update(&alice, accounts::balance.eq(5))
                })
                .map(drop)
        })
        .unwrap();
    let owners: Vec<String> = f
        .snapshot()
        .accounts
        .into_iter()
        .map(|account| account.owner)
        .collect();
    assert_eq!(owners, ["Alice", "Bob"]);
    assert_eq!(f.entries().len(), 3);
    f.check();

    // Outside of any transaction it is one of its own.
    oplog
        .nested()
        .transaction(&mut f.conn, |tx| {
            tx.logged_insert::<Account, _>(NewAccount { owner: "Dave" })
        })
        .unwrap();
    f.check();
}

/// What would run again does not: the outer transaction must.
#[test]
fn a_nested_transaction_runs_once() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let oplog = f.oplog.clone();
    let mut runs = 0;
    let lost: Result<(), Error> = f.conn.transaction(|conn| {
        // Somebody else changes the ticket: here the outer transaction itself.
        let result = oplog
            .nested()
            .on(alice.aggregate())
            .transaction(conn, |tx| {
                runs += 1;
                tx.unlogged("the ticket moves", |conn| {
                    diesel::sql_query("UPDATE oplog_ticket SET version = version + 1").execute(conn)
                })?;
                tx.logged_update(&alice, accounts::balance.eq(5))
            });
        assert!(
            matches!(
                result,
                Err(Error::Contention {
                    attempts: 1,
                    reason: Retry::TicketLost,
                    ..
                })
            ),
            "{result:?}"
        );
        result.map(drop)
    });
    assert!(lost.is_err());
    assert_eq!(runs, 1);
    f.check();
}
