//! Whole rows, known beforehand: one statement on PostgreSQL, a transaction anywhere else.

use std::thread;

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_diesel::Error;
use oplog_diesel::core::{QueueError, RecordError};
use oplog_diesel::prelude::*;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, REMEMBERS_HEADS};
use crate::fixture::{Fixture, assert_free, assert_receipts};
use crate::heads::Statements;

fn account(id: i64, owner: &str) -> Account {
    Account {
        id,
        owner: owner.to_owned(),
        balance: 7,
        email: None,
    }
}

#[test]
fn a_row_is_inserted_changed_and_deleted() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    let actor = || oplog.metadata("actor", "root");
    let alice = account(1, "Alice");
    let rich = Account {
        balance: 100,
        email: Some("alice@example.com".to_owned()),
        ..alice.clone()
    };
    let mut receipts = actor().logged_insert_row(&mut f.conn, &alice).unwrap();
    assert_eq!(f.snapshot().accounts, std::slice::from_ref(&alice));
    receipts.extend(
        actor()
            .logged_update_row(&mut f.conn, &alice, &rich)
            .unwrap(),
    );
    assert_eq!(f.snapshot().accounts, std::slice::from_ref(&rich));
    receipts.extend(oplog.logged_update_row(&mut f.conn, &rich, &rich).unwrap());
    receipts.extend(actor().logged_delete_row(&mut f.conn, &rich).unwrap());
    assert_eq!(f.snapshot().accounts, []);

    let entries = f.new_entries();
    assert_receipts(&receipts, &entries);
    let messages: Vec<_> = entries.iter().flat_map(|entry| &entry.messages).collect();
    assert_eq!(
        messages,
        [
            r#"create account(email=NULL id=1 owner="Alice" balance=7) nulls[4]"#,
            r#"update account(email="alice@example.com" id=1 owner="Alice" balance=100) was(email=NULL balance=7) was_nulls[4] set[balance,email]"#,
            r#"delete account(email="alice@example.com" id=1 owner="Alice" balance=100)"#,
        ]
    );
    for entry in &entries {
        assert_eq!(
            entry.metadata,
            [("actor".to_owned(), Some("root".to_owned()))]
        );
    }
    f.check();
}

/// Every column type comes back as it was, values that are equal to others in SQL included.
#[test]
fn every_type_is_the_same_in_one_statement() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    let plain = crate::replays::plain(1);
    let statements = Statements::of(&mut f.conn);
    let odd = Everything {
        id: 2,
        a_float: -0.0,
        a_double: f64::MIN_POSITIVE,
        a_text: "  padded, \"quoted\", (in) 'brackets' \\ \u{1F980} ".to_owned(),
        some_bytes: (0..=255).collect(),
        maybe_text: Some(String::new()),
        maybe_bytes: Some(Vec::new()),
        ..plain.clone()
    };
    let empty = Everything {
        id: 3,
        maybe_bool: None,
        maybe_small: None,
        maybe_int: None,
        maybe_big: None,
        maybe_float: None,
        maybe_double: None,
        maybe_text: None,
        maybe_bytes: None,
        maybe_date: None,
        maybe_time: None,
        maybe_timestamp: None,
        ..plain.clone()
    };
    for row in [&plain, &odd, &empty] {
        statements.take();
        oplog.logged_insert_row(&mut f.conn, row).unwrap();
        let sent = statements.take();
        if REMEMBERS_HEADS {
            assert_eq!(sent, ["SELECT version,", "WITH written"]);
        }
        let nulled = Everything {
            id: row.id,
            ..empty.clone()
        };
        if nulled != *row {
            oplog.logged_update_row(&mut f.conn, row, &nulled).unwrap();
            let sent = statements.take();
            if REMEMBERS_HEADS {
                assert_eq!(sent, ["WITH written"]);
            }
            oplog.logged_update_row(&mut f.conn, &nulled, row).unwrap();
        }
        let stored: Everything = everything::table
            .find(row.id)
            .select(Everything::as_select())
            .first(&mut f.conn)
            .unwrap();
        assert_eq!(&stored, row);
    }
    f.check();
    for row in [&plain, &odd, &empty] {
        oplog.logged_delete_row(&mut f.conn, row).unwrap();
    }
    f.check();
}

#[test]
fn a_row_that_is_refused_is_an_error_of_its_own() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    let alice = account(1, "Alice");
    oplog.logged_insert_row(&mut f.conn, &alice).unwrap();
    let kind = |result: Result<_, Error>| match result.unwrap_err() {
        Error::Database(DieselError::DatabaseError(kind, _)) => kind,
        other => panic!("{other:?}"),
    };
    f.unchanged(|f| {
        let again = oplog.logged_insert_row(&mut f.conn, &alice);
        assert!(matches!(kind(again), DatabaseErrorKind::UniqueViolation));
        let nobody = oplog.logged_insert_row(&mut f.conn, &account(2, "nobody"));
        assert!(matches!(kind(nobody), DatabaseErrorKind::CheckViolation));
        let changed = oplog.logged_update_row(&mut f.conn, &alice, &account(1, "nobody"));
        assert!(matches!(kind(changed), DatabaseErrorKind::CheckViolation));
    });
    let posting: Posting = f
        .run(|tx| tx.logged_insert((postings::account_id.eq(1), postings::amount.eq(5))))
        .unwrap();
    f.unchanged(|f| {
        let orphan = Posting {
            account_id: 9,
            ..posting.clone()
        };
        let orphan = oplog.logged_update_row(&mut f.conn, &posting, &orphan);
        assert!(matches!(
            kind(orphan),
            DatabaseErrorKind::ForeignKeyViolation
        ));
        let parent = oplog.logged_delete_row(&mut f.conn, &alice);
        assert!(matches!(
            kind(parent),
            DatabaseErrorKind::ForeignKeyViolation
        ));
        for missing in [
            oplog.logged_delete_row(&mut f.conn, &account(5, "Eve")),
            oplog.logged_update_row(&mut f.conn, &account(5, "Eve"), &account(5, "Eva")),
        ] {
            assert!(
                matches!(missing, Err(Error::Database(DieselError::NotFound))),
                "{missing:?}"
            );
        }
        let long = Account {
            owner: "x".repeat(17 << 20),
            ..account(3, "")
        };
        let long = oplog.logged_insert_row(&mut f.conn, &long);
        assert!(
            matches!(
                long,
                Err(Error::Record(RecordError::Queue(
                    QueueError::MessageTooLong { .. }
                )))
            ),
            "{long:?}"
        );
    });
}

/// What the caller knows of the row is old: what is there is logged, and other columns stay.
#[test]
fn an_old_row_is_not_believed() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    let alice = f.account("Alice");
    let now = f
        .run(|tx| tx.logged_update(&alice, accounts::balance.eq(50)))
        .unwrap();
    f.news();
    let wanted = Account {
        email: Some("a@example.com".to_owned()),
        ..alice.clone()
    };
    oplog
        .logged_update_row(&mut f.conn, &alice, &wanted)
        .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/3 update account(email="a@example.com" id=1 owner="Alice" balance=50) was(email=NULL) was_nulls[4] set[email]"#
        ]
    );
    f.check();
    oplog.logged_delete_row(&mut f.conn, &now).unwrap();
    assert_eq!(
        f.news(),
        [r#"account:1/4 delete account(email="a@example.com" id=1 owner="Alice" balance=50)"#]
    );
    f.check();
}

/// A change of the key or the root is a delete and a create, in both aggregates.
#[test]
fn a_row_that_moves_is_deleted_and_created() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    let old = account(1, "Alice");
    oplog.logged_insert_row(&mut f.conn, &old).unwrap();
    f.news();
    let new = Account {
        id: 2,
        ..old.clone()
    };
    let receipts = oplog.logged_update_row(&mut f.conn, &old, &new).unwrap();
    let entries = f.new_entries();
    assert_eq!(entries.len(), 2);
    assert_receipts(&receipts, &entries);
    assert_eq!(f.snapshot().accounts, [new]);
    f.check();
}

/// A trigger that changes the row on its way in: what is stored is logged.
#[test]
fn a_row_that_the_database_changes_is_logged_as_stored() {
    if !REMEMBERS_HEADS {
        // A trigger of SQLite runs after the row was written, which RETURNING does not show.
        return;
    }
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    f.conn
        .batch_execute(
            "CREATE FUNCTION louder() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN NEW.owner := upper(NEW.owner); RETURN NEW; END $$; \
             CREATE TRIGGER louder BEFORE INSERT OR UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION louder()",
        )
        .unwrap();
    oplog
        .logged_insert_row(&mut f.conn, &account(1, "Alice"))
        .unwrap();
    let old = account(1, "ALICE");
    assert_eq!(f.snapshot().accounts, std::slice::from_ref(&old));
    oplog
        .logged_update_row(&mut f.conn, &old, &account(1, "Bob"))
        .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/1 create account(email=NULL id=1 owner="ALICE" balance=7) nulls[4]"#,
            r#"account:1/2 update account(email=NULL id=1 owner="BOB" balance=7) nulls[4] was(owner="ALICE") set[owner]"#,
        ]
    );
    f.check();
    f.conn
        .batch_execute(
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
             CREATE TRIGGER a_nothing BEFORE INSERT OR UPDATE OR DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION nothing()",
        )
        .unwrap();
    f.unchanged(|f| {
        let bob = account(1, "BOB");
        let kept = |written: Result<(), Error>| {
            let none = matches!(
                written,
                Err(Error::RowCount {
                    expected: 1,
                    found: 0
                })
            );
            assert!(none, "{written:?}");
        };
        let insert = oplog.logged_insert_row(&mut f.conn, &account(2, "x"));
        kept(insert.map(drop));
        let update = oplog.logged_update_row(&mut f.conn, &bob, &account(1, "x"));
        kept(update.map(drop));
        kept(oplog.transaction(&mut f.conn, |tx| {
            tx.logged_update(&bob, accounts::owner.eq("x")).map(drop)
        }));
        let delete = oplog.logged_delete_row(&mut f.conn, &bob);
        assert!(
            matches!(delete, Err(Error::Database(DieselError::NotFound))),
            "{delete:?}"
        );
    });
}

/// PostgreSQL refuses tables with rules in a statement that writes more than one.
#[test]
fn a_table_with_a_rule_is_written_in_a_transaction() {
    if !REMEMBERS_HEADS {
        // Only PostgreSQL has rules.
        return;
    }
    let mut f = Fixture::new();
    f.conn
        .batch_execute(
            "CREATE TABLE told (id BIGINT); \
             CREATE RULE tell AS ON INSERT TO accounts DO ALSO INSERT INTO told VALUES (NEW.id)",
        )
        .unwrap();
    let builder = crate::fixture::builder(&f.db).allow_undeclared();
    let oplog = builder.open(&mut f.conn).unwrap();
    let alice = account(1, "Alice");
    oplog.logged_insert_row(&mut f.conn, &alice).unwrap();
    oplog
        .logged_update_row(&mut f.conn, &alice, &account(1, "Bob"))
        .unwrap();
    assert_eq!(f.snapshot().accounts, [account(1, "Bob")]);
    assert_eq!(f.news().len(), 2);
    f.check();
}

/// Inside other transactions, with named aggregates and with tickets that are locked first.
#[test]
fn where_one_statement_would_not_do() {
    let mut f = Fixture::new();
    let oplog = f.oplog.clone();
    f.conn.begin_test_transaction().unwrap();
    oplog
        .logged_insert_row(&mut f.conn, &account(1, "gone"))
        .unwrap();
    assert_eq!(f.entries().len(), 1);
    AnsiTransactionManager::rollback_transaction(&mut f.conn).unwrap();
    assert_eq!(f.entries().len(), 0);

    let outer = f.conn.transaction(|conn| {
        let refused = oplog.logged_insert_row(conn, &account(1, "Alice"));
        assert!(
            matches!(refused, Err(Error::OuterTransaction)),
            "{refused:?}"
        );
        oplog.nested().logged_insert_row(conn, &account(1, "Alice"))
    });
    outer.unwrap();
    oplog
        .on("account:1")
        .logged_update_row(&mut f.conn, &account(1, "Alice"), &account(1, "Bob"))
        .unwrap();
    let counter = Counter { id: 1, n: 0 };
    let refused = oplog.logged_insert_row(&mut f.conn, &counter);
    assert!(
        matches!(
            refused,
            Err(Error::Record(RecordError::NotLockedFirst { .. }))
        ),
        "{refused:?}"
    );
    oplog
        .on(counter.aggregate())
        .logged_insert_row(&mut f.conn, &counter)
        .unwrap();
    let mistake = oplog
        .metadata("_oplog.x", "y")
        .logged_insert_row(&mut f.conn, &account(2, "x"));
    assert!(matches!(mistake, Err(Error::Metadata(_))), "{mistake:?}");
    f.check();
}

/// Many write one aggregate at once, each in its own way. Every id is drawn after its row was
/// written, or the replay of the check would not find the order.
#[test]
fn single_statements_race_with_transactions() {
    const THREADS: i64 = 12;
    const ROUNDS: i64 = 4;
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut conns: Vec<Conn> = (0..THREADS).map(|_| f.db.connect()).collect();
    thread::scope(|scope| {
        for (thread, conn) in (0..).zip(&mut conns) {
            let (oplog, alice) = (&f.oplog, &alice);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let setting = Setting {
                        section: thread.to_string(),
                        name: round.to_string(),
                        value: None,
                    };
                    match thread % 3 {
                        0 => {
                            oplog.logged_insert_row(conn, &setting).unwrap();
                            let valued = Setting {
                                value: Some(vec![1]),
                                ..setting.clone()
                            };
                            oplog.logged_update_row(conn, &setting, &valued).unwrap();
                        }
                        1 => {
                            let now: Account = accounts::table
                                .select(Account::as_select())
                                .first(conn)
                                .unwrap();
                            let more = Account {
                                balance: now.balance + 1,
                                ..now.clone()
                            };
                            oplog.logged_update_row(conn, &now, &more).unwrap();
                        }
                        _ => {
                            oplog
                                .transaction(conn, |tx| {
                                    tx.logged_insert::<Setting, _>(&setting)?;
                                    tx.logged_update(
                                        alice,
                                        accounts::balance.eq(accounts::balance + 1),
                                    )
                                })
                                .unwrap();
                        }
                    }
                }
                assert_free(conn);
            });
        }
    });
    f.check();
}
