//! Aggregates that are named beforehand.

use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use oplog_diesel::core::Head;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Retry};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::{Fixture, assert_receipts, builder};

diesel::table! {
    #[sql_name = "oplog_ticket"]
    tickets (name) {
        name -> Text,
        version -> BigInt,
        head_hash -> Binary,
        epoch -> Integer,
    }
}

fn setting(name: &str) -> Setting {
    Setting {
        section: "s".to_owned(),
        name: name.to_owned(),
        value: None,
    }
}

/// The ticket that an administrator would insert.
fn insert_ticket(f: &mut Fixture, name: &str) {
    let head = Head::genesis(&f.oplog.log_id(), name, f.oplog.epoch());
    diesel::insert_into(tickets::table)
        .values((
            tickets::name.eq(name),
            tickets::version.eq(1),
            tickets::head_hash.eq(head.hash.as_bytes().to_vec()),
            tickets::epoch.eq(1),
        ))
        .execute(&mut f.conn)
        .unwrap();
}

#[test]
fn a_named_aggregate_is_written() {
    let mut f = Fixture::new();
    // From its first entry on, and named twice.
    for round in 1..=3_u64 {
        let ((), receipts) = f
            .oplog
            .on("settings")
            .and("settings")
            .transaction_with_receipts(&mut f.conn, |tx| {
                let _: Setting = tx.logged_insert(setting(&round.to_string()))?;
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(receipts.len(), 1);
        assert_eq!(
            (receipts[0].aggregate.as_str(), receipts[0].sequence),
            ("settings", round)
        );
    }
    assert_eq!(
        f.news(),
        [
            r#"settings/1 create setting(section="s" name="1" value=NULL) nulls[3]"#,
            r#"settings/2 create setting(section="s" name="2" value=NULL) nulls[3]"#,
            r#"settings/3 create setting(section="s" name="3" value=NULL) nulls[3]"#,
        ]
    );
    f.check();
}

#[test]
fn other_aggregates_are_written_beside_a_named_one() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let ((), receipts) = f
        .oplog
        .on(alice.aggregate())
        .transaction_with_receipts(&mut f.conn, |tx| {
            let _: Setting = tx.logged_insert(setting("a"))?;
            let _: Account = tx.logged_insert(&NewAccount { owner: "Bob" })?;
            tx.logged_update(&alice, accounts::balance.eq(1))?;
            Ok::<_, Error>(())
        })
        .unwrap();
    let entries = f.entries().split_off(1);
    assert_receipts(&receipts, &entries);
    assert!(
        entries
            .iter()
            .all(|entry| entry.group == entries[0].group && entry.group.unwrap().parts == 3)
    );
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=1) nulls[4] was(balance=10) set[balance] #2"#,
            r#"account:2/1 create account(email=NULL id=2 owner="Bob" balance=10) nulls[4] #1"#,
            r#"settings/1 create setting(section="s" name="a" value=NULL) nulls[3] #0"#,
        ]
    );
    f.check();
}

#[test]
fn a_named_aggregate_that_is_not_written_is_not_redeemed() {
    let mut f = Fixture::new();
    let (alice, bob) = (f.account("Alice"), f.account("Bob"));
    let before = f.snapshot();
    f.oplog
        .on(alice.aggregate())
        .and(bob.aggregate())
        .and("settings")
        .transaction(&mut f.conn, |tx| {
            tx.logged_update(&bob, accounts::balance.eq(1))
        })
        .unwrap();
    let after = f.snapshot();
    assert_eq!(before.tickets[0], after.tickets[0]);
    assert_eq!(after.tickets[1].version, 3);
    // A ticket may be created in order to be locked, but it stays at the beginning.
    assert!(
        after.tickets[2..]
            .iter()
            .all(|ticket| ticket.name == "settings" && ticket.version == 1)
    );
    assert_eq!(
        f.news(),
        [
            r#"account:2/2 update account(email=NULL id=2 owner="Bob" balance=1) nulls[4] was(balance=10) set[balance]"#
        ]
    );
    f.check();
    // And the aggregate begins as ever.
    f.oplog
        .on("settings")
        .transaction(&mut f.conn, |tx| {
            tx.logged_insert::<Setting, _>(&setting("a"))
        })
        .unwrap();
    assert_eq!(
        f.news(),
        [r#"settings/1 create setting(section="s" name="a" value=NULL) nulls[3]"#]
    );
    f.check();
}

#[test]
fn without_creation_a_ticket_must_be_there() {
    let mut f = Fixture::new();
    f.oplog = builder(&f.db)
        .create_tickets(false)
        .open(&mut f.conn)
        .unwrap();
    f.unchanged(|f| {
        let mut ran = 0;
        let error = f
            .oplog
            .transaction(&mut f.conn, |tx| {
                ran += 1;
                tx.logged_insert::<Setting, _>(&setting("a"))
            })
            .unwrap_err();
        assert!(
            matches!(&error, Error::TicketNotFound { aggregate } if aggregate == "settings"),
            "{error:?}"
        );
        assert_eq!(ran, 1);
        let error = f
            .oplog
            .on("settings")
            .transaction(&mut f.conn, |_| -> Result<(), Error> { panic!("it ran") })
            .unwrap_err();
        assert!(
            matches!(&error, Error::TicketNotFound { aggregate } if aggregate == "settings"),
            "{error:?}"
        );
        // One ticket of several.
        let error = f
            .run(|tx| {
                let _: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
                tx.logged_insert::<Setting, _>(&setting("a"))
            })
            .unwrap_err();
        assert!(matches!(error, Error::TicketNotFound { .. }), "{error:?}");
    });
    insert_ticket(&mut f, "settings");
    f.run(|tx| tx.logged_insert::<Setting, _>(&setting("a")))
        .unwrap();
    f.oplog
        .on("settings")
        .transaction(&mut f.conn, |tx| {
            tx.logged_insert::<Setting, _>(&setting("b"))
        })
        .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"settings/1 create setting(section="s" name="a" value=NULL) nulls[3]"#,
            r#"settings/2 create setting(section="s" name="b" value=NULL) nulls[3]"#,
        ]
    );
    f.check();
}

#[test]
fn a_ticket_that_was_inserted_by_hand_is_used() {
    let mut f = Fixture::new();
    insert_ticket(&mut f, "settings");
    insert_ticket(&mut f, "account:1");
    f.oplog
        .on("settings")
        .transaction(&mut f.conn, |tx| {
            let _: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            tx.logged_insert::<Setting, _>(&setting("a"))
        })
        .unwrap();
    assert_eq!(
        f.snapshot()
            .tickets
            .iter()
            .map(|ticket| ticket.version)
            .collect::<Vec<_>>(),
        [2, 2]
    );
    f.check();
}

#[test]
fn a_ticket_of_another_epoch_is_an_error() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.conn
        .batch_execute("UPDATE oplog_ticket SET epoch = 2")
        .unwrap();
    for named in [false, true] {
        let builder = if named {
            f.oplog.on("account:1")
        } else {
            f.oplog.metadata("a", "b")
        };
        let error = builder
            .transaction(&mut f.conn, |tx| {
                tx.logged_update(&alice, accounts::balance.eq(1))
            })
            .unwrap_err();
        assert!(
            matches!(&error, Error::Epoch { aggregate, expected: 1, found: 2 } if aggregate == "account:1"),
            "{error:?}"
        );
    }
    assert_eq!(f.snapshot().accounts, [alice]);
    assert_eq!(f.news(), [""; 0]);
}

/// The closure may look at another connection, and what is there is not yet what it wrote.
#[test]
fn nobody_sees_a_transaction_before_it_is_committed() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    let before = f.snapshot();
    f.oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| {
            tx.logged_update(&alice, accounts::balance.eq(1))?;
            let _: Setting = tx.logged_insert(setting("a"))?;
            assert_eq!(crate::fixture::snapshot(&mut other), before);
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_ne!(f.snapshot(), before);
    f.check();
}

/// SQLite has one writer, so the second one can't even begin; on PostgreSQL they write different
/// rows and tickets.
#[test]
fn a_transaction_within_a_transaction_on_another_connection() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let mut other = f.db.connect();
    let impatient = builder(&f.db)
        .attempts(3, Duration::ZERO)
        .open(&mut other)
        .unwrap();
    let single_writer = f.db.url().ends_with(".db");
    f.run(|tx| {
        tx.logged_update(&alice, accounts::balance.eq(1))?;
        let inner = impatient.transaction(&mut other, |tx| {
            tx.logged_insert::<Setting, _>(&setting("a"))
        });
        if single_writer {
            let error = inner.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Contention {
                        attempts: 1,
                        reason: Retry::Busy,
                        ..
                    }
                ) && error.is_retryable(),
                "{error:?}"
            );
        } else {
            inner?;
        }
        crate::fixture::assert_free(&mut other);
        Ok(())
    })
    .unwrap();
    if single_writer {
        impatient
            .transaction(&mut other, |tx| {
                tx.logged_insert::<Setting, _>(&setting("a"))
            })
            .unwrap();
    }
    assert_eq!(
        f.news_sorted(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=1) nulls[4] was(balance=10) set[balance]"#,
            r#"settings/1 create setting(section="s" name="a" value=NULL) nulls[3]"#,
        ]
    );
    f.check();
}
