//! Optimistic transactions whose tickets are taken from them, step by step. PostgreSQL only: SQLite
//! has one writer, who holds every ticket as soon as the transaction is open.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use oplog_diesel::core::Head;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Retry};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::{Fixture, builder};

fn setting(name: &str) -> Setting {
    Setting {
        section: "s".to_owned(),
        name: name.to_owned(),
        value: None,
    }
}

#[test]
fn the_loser_rolls_back_and_runs_again() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    let mut attempts = 0;
    let (now, receipts) = f
        .oplog
        .on(alice.aggregate())
        .metadata("attempt", "any")
        .transaction_with_receipts(&mut f.conn, |tx| {
            attempts += 1;
            tx.metadata("late", attempts.to_string())?;
            let now: Account = tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
            let _: Setting = tx.logged_insert(setting("of every attempt"))?;
            if attempts == 1 {
                f.oplog.transaction(&mut other, |tx| {
                    tx.logged_update(&alice, accounts::balance.eq(100))
                })?;
            }
            tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
        })
        .unwrap();
    assert_eq!((attempts, now.balance), (2, 101));
    let entries = f.entries().split_off(2);
    crate::fixture::assert_receipts(&receipts, &entries);
    let metadata = [("attempt", "any"), ("late", "2")]
        .map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
    assert!(entries.iter().all(|entry| entry.metadata == metadata));
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=100) nulls[4] was(balance=10) set[balance]"#,
            r#"account:1/3 update account(email=NULL id=1 owner="Alice" balance=101) nulls[4] was(balance=100) set[balance] #1"#,
            r#"settings/1 create setting(section="s" name="of every attempt" value=NULL) nulls[3] #0"#,
        ]
    );
    f.check();
}

#[test]
fn the_attempts_end() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    f.oplog = builder(&f.db)
        .attempts(3, Duration::from_secs(60))
        .open(&mut f.conn)
        .unwrap();
    let mut attempts = 0;
    let error = f
        .oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| {
            attempts += 1;
            f.oplog.transaction(&mut other, |tx| {
                tx.logged_update(&alice, accounts::balance.eq(accounts::balance + 1))
            })?;
            tx.logged_insert::<Posting, _>((postings::account_id.eq(1), postings::amount.eq(1)))
        })
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Contention {
                attempts: 3,
                reason: Retry::TicketLost,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_retryable());
    assert_eq!(attempts, 3);
    assert_eq!(
        (
            f.snapshot().accounts[0].balance,
            f.snapshot().postings.len()
        ),
        (13, 0)
    );
    f.check();
}

#[test]
fn a_named_aggregate_that_is_only_read_is_compared() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    let mut seen = Vec::new();
    f.oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| {
            let now: Account = tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
            seen.push(now.balance);
            if seen.len() == 1 {
                f.oplog.transaction(&mut other, |tx| {
                    tx.logged_update(&alice, accounts::balance.eq(0))
                })?;
            }
            tx.logged_insert::<Setting, _>(&setting(&now.balance.to_string()))
        })
        .unwrap();
    assert_eq!(seen, [10, 0]);
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=0) nulls[4] was(balance=10) set[balance]"#,
            r#"settings/1 create setting(section="s" name="0" value=NULL) nulls[3]"#,
        ]
    );
    f.check();
}

/// Both read 10 and write 11. The second write changes nothing, so there is nothing to log, but the
/// 11 of the first must not be taken for its own.
#[test]
fn a_write_that_changes_nothing_any_more_is_compared() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    let mut attempts = 0;
    let now = f
        .oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| {
            attempts += 1;
            let now: Account = tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
            if attempts == 1 {
                f.oplog.transaction(&mut other, |tx| {
                    tx.logged_update(&alice, accounts::balance.eq(11))
                })?;
            }
            tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
        })
        .unwrap();
    assert_eq!((attempts, now.balance), (2, 12));
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=11) nulls[4] was(balance=10) set[balance]"#,
            r#"account:1/3 update account(email=NULL id=1 owner="Alice" balance=12) nulls[4] was(balance=11) set[balance]"#,
        ]
    );
    f.check();
}

/// Without a write there is nothing that the decision could spoil.
#[test]
fn a_transaction_that_writes_nothing_is_not_run_again() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    let mut attempts = 0;
    f.oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |_| {
            attempts += 1;
            f.oplog.transaction(&mut other, |tx| {
                tx.logged_update(&alice, accounts::balance.eq(0))
            })
        })
        .unwrap();
    assert_eq!(attempts, 1);
    f.check();
}

#[test]
fn an_aggregate_that_begins_meanwhile_is_lost() {
    let mut f = Fixture::new();
    let mut other = f.db.connect();
    for written in [true, false] {
        let name = if written { "settings" } else { "account:1" };
        let mut attempts = 0;
        f.oplog
            .on(name)
            .transaction(&mut f.conn, |tx| {
                attempts += 1;
                if attempts == 1 {
                    f.oplog.transaction(&mut other, |tx| {
                        if written {
                            tx.logged_insert::<Setting, _>(&setting("other")).map(drop)
                        } else {
                            tx.logged_insert::<Account, _>(&NewAccount { owner: "other" })
                                .map(drop)
                        }
                    })?;
                }
                tx.logged_insert::<Setting, _>(&setting(name))
            })
            .unwrap();
        assert_eq!(attempts, 2);
    }
    assert_eq!(
        f.news(),
        [
            r#"settings/1 create setting(section="s" name="other" value=NULL) nulls[3]"#,
            r#"settings/2 create setting(section="s" name="settings" value=NULL) nulls[3]"#,
            r#"account:1/1 create account(email=NULL id=1 owner="other" balance=10) nulls[4]"#,
            r#"settings/3 create setting(section="s" name="account:1" value=NULL) nulls[3]"#,
        ]
    );
    f.check();
}

/// Whoever holds the ticket at the close has won; nobody waits for it.
#[test]
fn a_ticket_that_is_held_is_lost() {
    let mut f = Fixture::new();
    f.account("Alice");
    let mut other = f.db.connect();
    let mut attempts = 0;
    f.oplog
        .on("account:1")
        .transaction(&mut f.conn, |tx| {
            attempts += 1;
            other
                .batch_execute(match attempts {
                    1 => "BEGIN; SELECT 1 FROM oplog_ticket WHERE name = 'account:1' FOR UPDATE",
                    _ => "ROLLBACK",
                })
                .unwrap();
            tx.logged_insert::<Setting, _>(&setting("a"))
        })
        .unwrap();
    assert_eq!(attempts, 2);
    f.check();
}

#[test]
fn a_ticket_that_is_being_created_is_lost() {
    let mut f = Fixture::new();
    let mut other = f.db.connect();
    let hash = Head::genesis(&f.oplog.log_id(), "settings", 1).hash;
    let mut attempts = 0;
    f.oplog
        .on("settings")
        .transaction(&mut f.conn, |tx| {
            attempts += 1;
            other
                .batch_execute(&match attempts {
                    1 => format!(
                        "BEGIN; INSERT INTO oplog_ticket (name, version, head_hash, epoch) \
                         VALUES ('settings', 1, '\\x{hash}', 1)"
                    ),
                    _ => "ROLLBACK".to_owned(),
                })
                .unwrap();
            tx.logged_insert::<Setting, _>(&setting("a"))
        })
        .unwrap();
    assert_eq!(attempts, 2);
    assert_eq!(
        f.news(),
        [r#"settings/1 create setting(section="s" name="a" value=NULL) nulls[3]"#]
    );
    f.check();
}

/// The ticket is there, at its beginning, and somebody holds it.
#[test]
fn a_held_ticket_is_not_taken_for_a_missing_one() {
    let mut f = Fixture::new();
    for creates in [true, false] {
        f.oplog = builder(&f.db)
            .create_tickets(creates)
            .open(&mut f.conn)
            .unwrap();
        let name = format!("nothing yet {creates}");
        let hash = Head::genesis(&f.oplog.log_id(), &name, 1).hash;
        let mut other = f.db.connect();
        other
            .batch_execute(&format!(
                "INSERT INTO oplog_ticket (name, version, head_hash, epoch) VALUES ('{name}', 1, '\\x{hash}', 1)"
            ))
            .unwrap();
        if !creates {
            // Otherwise the ticket that is written would be missing.
            assert_eq!(
                f.snapshot()
                    .tickets
                    .iter()
                    .filter(|ticket| ticket.name == "settings")
                    .count(),
                1
            );
        }
        let mut attempts = 0;
        f.oplog
            .on(name.as_str())
            .transaction(&mut f.conn, |tx| {
                attempts += 1;
                other
                    .batch_execute(&match attempts {
                        1 => format!(
                            "BEGIN; SELECT 1 FROM oplog_ticket WHERE name = '{name}' FOR UPDATE"
                        ),
                        _ => "ROLLBACK".to_owned(),
                    })
                    .unwrap();
                tx.logged_insert::<Setting, _>(&setting(&name))
            })
            .unwrap();
        assert_eq!(attempts, 2);
    }
    f.check();
}

/// Whatever else keeps a ticket from being created is an error at once, and not a lost ticket that is
/// tried for again until the time is over.
#[test]
fn a_ticket_that_cant_be_created_is_not_lost() {
    let mut f = Fixture::new();
    f.conn
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON oplog_ticket \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .unwrap();
    f.unchanged(|f| {
        let mut attempts = 0;
        let error = f
            .oplog
            .on("settings")
            .transaction(&mut f.conn, |tx| {
                attempts += 1;
                tx.logged_insert::<Setting, _>(&setting("a"))
            })
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::Store {
                    operation: "creating a ticket",
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(attempts, 1);
    });
}

#[test]
fn the_sessions_lock_timeout_stays() {
    let mut f = Fixture::new();
    f.conn.batch_execute("SET lock_timeout = '4321ms'").unwrap();
    let timeout = || diesel::select(sql::<Text>("current_setting('lock_timeout')"));
    f.oplog
        .on("a")
        .and("b")
        .transaction(&mut f.conn, |tx| {
            tx.logged_insert::<Setting, _>(&setting("a"))
        })
        .unwrap();
    assert_eq!(
        timeout().get_result::<String>(&mut f.conn).unwrap(),
        "4321ms"
    );
    f.check();
}

#[test]
fn the_isolation_does_not_depend_on_the_session() {
    let mut f = Fixture::new();
    f.conn
        .batch_execute("SET default_transaction_isolation = 'serializable'")
        .unwrap();
    let level = f
        .run(|tx| {
            tx.read_one::<_, String>(diesel::select(sql::<Text>(
                "current_setting('transaction_isolation')",
            )))
        })
        .unwrap();
    assert_eq!(level, "read committed");
}

/// Two transactions that wait for each other's rows: the database breaks one, which runs again, also
/// if its closure goes on as if nothing had happened.
#[test]
fn a_deadlock_is_run_again() {
    for ignores in [false, true] {
        let mut f = Fixture::new();
        let accounts = [f.account("a"), f.account("b")];
        let barrier = Barrier::new(2);
        let attempts = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for mine in 0..2 {
                let (oplog, accounts, barrier, attempts) =
                    (&f.oplog, &accounts, &barrier, &attempts);
                let mut conn = f.db.connect();
                conn.batch_execute("SET deadlock_timeout = '10ms'").unwrap();
                scope.spawn(move || {
                    let mut first = true;
                    let change = accounts::balance.eq(accounts::balance + 1);
                    oplog
                        .transaction(&mut conn, |tx| {
                            attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            tx.logged_update(&accounts[mine], change)?;
                            if std::mem::take(&mut first) {
                                barrier.wait();
                            }
                            match tx.logged_update(&accounts[1 - mine], change) {
                                Err(_) if ignores => {}
                                result => drop(result?),
                            }
                            Ok::<_, Error>(())
                        })
                        .unwrap();
                    crate::fixture::assert_free(&mut conn);
                });
            }
        });
        assert!(attempts.into_inner() >= 3);
        let balances: Vec<_> = f
            .snapshot()
            .accounts
            .iter()
            .map(|account| account.balance)
            .collect();
        assert_eq!(balances, [12, 12]);
        assert_eq!(f.news().len(), 4);
        f.check();
    }
}

/// A late writer waits for whoever creates the ticket, and goes on from there.
#[test]
fn a_late_writer_waits_for_the_creator_of_a_ticket() {
    for kept in [true, false] {
        let mut f = Fixture::new();
        let hash = Head::genesis(&f.oplog.log_id(), "settings", 1).hash;
        let mut creator = f.db.connect();
        creator
            .batch_execute(&format!(
                "BEGIN; INSERT INTO oplog_ticket (name, version, head_hash, epoch) \
                 VALUES ('settings', 1, '\\x{hash}', 1)"
            ))
            .unwrap();
        thread::scope(|scope| {
            let (oplog, mut conn) = (&f.oplog, f.db.connect());
            let writer = scope.spawn(move || {
                let mut attempts = 0;
                oplog
                    .transaction(&mut conn, |tx| {
                        attempts += 1;
                        tx.logged_insert::<Setting, _>(&setting("a"))
                    })
                    .unwrap();
                attempts
            });
            let waits = || {
                diesel::select(sql::<Bool>(
                    "EXISTS (SELECT 1 FROM pg_stat_activity \
                     WHERE datname = current_database() AND wait_event_type = 'Lock')",
                ))
            };
            let mut observer = f.db.connect();
            while !waits().get_result::<bool>(&mut observer).unwrap() {
                assert!(!writer.is_finished());
                thread::yield_now();
            }
            creator
                .batch_execute(if kept { "COMMIT" } else { "ROLLBACK" })
                .unwrap();
            assert_eq!(writer.join().unwrap(), 1);
        });
        assert_eq!(
            f.news(),
            [r#"settings/1 create setting(section="s" name="a" value=NULL) nulls[3]"#]
        );
        f.check();
    }
}

/// The key may be checked at the end of the statement, so that rows can take each other's. Which row
/// became which nobody can tell, so they are deletes first and creates afterwards.
#[test]
fn keys_that_are_exchanged_and_moved_are_deletes_and_creates() {
    let mut f = Fixture::new();
    f.conn
        .batch_execute(
            "ALTER TABLE settings DROP CONSTRAINT settings_pkey; \
             ALTER TABLE settings ADD PRIMARY KEY (section, name) DEFERRABLE",
        )
        .unwrap();
    let setting = |name: &str, value: &[u8]| Setting {
        value: Some(value.to_vec()),
        ..setting(name)
    };
    f.run(|tx| {
        tx.logged_insert_many::<Setting, _>([
            setting("a", b"1"),
            setting("b", b"2"),
            setting("c", b"3"),
        ])
    })
    .unwrap();
    f.news();
    f.run(|tx| {
        tx.logged_update_where::<Setting, _, _>(
            settings::table,
            settings::name.eq(sql::<Text>(
                "CASE name WHEN 'a' THEN 'b' WHEN 'b' THEN 'd' ELSE 'a' END",
            )),
        )
    })
    .unwrap();
    assert_eq!(
        f.news_sorted(),
        [
            r#"settings/2 create setting(section="s" name="a" value=[51])"#,
            r#"settings/2 create setting(section="s" name="b" value=[49])"#,
            r#"settings/2 create setting(section="s" name="d" value=[50])"#,
            r#"settings/2 delete setting(section="s" name="a" value=[49])"#,
            r#"settings/2 delete setting(section="s" name="b" value=[50])"#,
            r#"settings/2 delete setting(section="s" name="c" value=[51])"#,
        ]
    );
    f.check();
}
