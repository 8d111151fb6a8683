//! Updates of one row.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::BigInt;
use oplog_diesel::Error;
use oplog_diesel::prelude::*;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::{Fixture, assert_receipts};

#[test]
fn only_what_changed_is_in_the_masks() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| {
        // The owner is set to what it is.
        let alice = tx.logged_update(
            &alice,
            (accounts::owner.eq("Alice"), accounts::balance.eq(0)),
        )?;
        let alice = tx.logged_update(&alice, (accounts::owner.eq(""), accounts::email.eq("e")))?;
        let alice = tx.logged_update(&alice, accounts::email.eq("f"))?;
        let alice = tx.logged_update(
            &alice,
            (accounts::email.eq(None::<String>), accounts::balance.eq(1)),
        )?;
        let alice = tx.logged_update(&alice, accounts::email.eq(""))?;
        assert_eq!(
            alice,
            Account {
                email: Some(String::new()),
                id: 1,
                owner: String::new(),
                balance: 1
            }
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=0) nulls[4] was(balance=10) set[balance]"#,
            r#"account:1/2 update account(email="e" id=1 owner="" balance=0) was(email=NULL owner="Alice") was_nulls[4] set[owner,email]"#,
            r#"account:1/2 update account(email="f" id=1 owner="" balance=0) was(email="e") set[email]"#,
            r#"account:1/2 update account(email=NULL id=1 owner="" balance=1) nulls[4] was(email="f" balance=0) set[balance] unset[email]"#,
            r#"account:1/2 update account(email="" id=1 owner="" balance=1) was(email=NULL) was_nulls[4] set[email]"#,
        ]
    );
    f.check();
}

#[test]
fn what_is_logged_as_before_is_the_stored_row_not_the_callers() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let stale = Account {
        balance: 999,
        owner: "somebody".to_owned(),
        ..alice
    };
    f.run(|tx| tx.logged_update(&stale, accounts::balance.eq(accounts::balance * 2 + 1)))
        .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=21) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

#[test]
fn a_change_may_name_columns_without_their_table() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| {
        let more = sql::<BigInt>("balance + length(owner) + ").bind::<BigInt, _>(3);
        tx.logged_update(&alice, accounts::balance.eq(more))
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=18) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

#[test]
fn a_change_that_changes_nothing_is_not_logged() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.unchanged(|f| {
        let (same, receipts) = f
            .oplog
            .transaction_with_receipts(&mut f.conn, |tx| {
                let same = tx.logged_update(&alice, accounts::balance.eq(accounts::balance))?;
                tx.logged_update(
                    &same,
                    &AccountChange {
                        owner: Some("Alice"),
                        email: Some(None),
                    },
                )
            })
            .unwrap();
        assert_eq!(same, alice);
        assert_eq!(receipts, []);
    });
}

#[test]
fn a_changeset_leaves_out_what_is_none() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| {
        let alice = tx.logged_update(
            &alice,
            &AccountChange {
                owner: Some("Bob"),
                email: None,
            },
        )?;
        let alice = tx.logged_update(
            &alice,
            &AccountChange {
                owner: None,
                email: Some(Some("b")),
            },
        )?;
        tx.logged_update(
            &alice,
            AccountChange {
                owner: None,
                email: Some(None),
            },
        )
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Bob" balance=10) nulls[4] was(owner="Alice") set[owner]"#,
            r#"account:1/2 update account(email="b" id=1 owner="Bob" balance=10) was(email=NULL) was_nulls[4] set[email]"#,
            r#"account:1/2 update account(email=NULL id=1 owner="Bob" balance=10) nulls[4] was(email="b") unset[email]"#,
        ]
    );
    f.check();
}

#[test]
fn nothing_to_set_is_an_error_that_leaves_the_transaction_usable() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| {
        let error = tx
            .logged_update(&alice, &AccountChange::default())
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::QueryBuilderError(_))),
            "{error:?}"
        );
        tx.logged_update(&alice, accounts::balance.eq(1))
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=1) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

#[test]
fn a_missing_row_is_an_error_that_leaves_the_transaction_usable() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let nobody = Account {
        id: 77,
        ..alice.clone()
    };
    f.run(|tx| {
        let error = tx
            .logged_update(&nobody, accounts::balance.eq(1))
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::NotFound)),
            "{error:?}"
        );
        tx.logged_update(&alice, accounts::balance.eq(1))
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="Alice" balance=1) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}

#[test]
fn another_primary_key_is_a_delete_and_a_create() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let ((), receipts) = f
        .oplog
        .transaction_with_receipts(&mut f.conn, |tx| {
            let moved = tx.logged_update(&alice, (accounts::id.eq(2), accounts::email.eq("e")))?;
            assert_eq!(moved.id, 2);
            Ok::<_, Error>(())
        })
        .unwrap();
    let entries = f.entries();
    assert_receipts(&receipts, &entries[1..]);
    assert_eq!(entries[0].group, None);
    assert_eq!(entries[1].group, entries[2].group);
    assert_eq!(entries[1].group.unwrap().parts, 2);
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 delete account(email=NULL id=1 owner="Alice" balance=10) nulls[4] #0"#,
            r#"account:2/1 create account(email="e" id=2 owner="Alice" balance=10) #1"#,
        ]
    );
    f.check();
}

#[test]
fn a_part_of_a_composite_key_is_a_key_too() {
    let mut f = Fixture::new();
    let one = Setting {
        section: "a".to_owned(),
        name: "1".to_owned(),
        value: None,
    };
    f.run(|tx| tx.logged_insert::<Setting, _>(&one)).unwrap();
    let two = f
        .run(|tx| tx.logged_update(&one, settings::name.eq("2")))
        .unwrap();
    f.run(|tx| tx.logged_update(&two, settings::value.eq(&b"v"[..])))
        .unwrap();
    assert_eq!(
        f.news()[1..],
        [
            // In one aggregate, so in one entry without ordinals.
            r#"settings/2 delete setting(section="a" name="1" value=NULL) nulls[3]"#,
            r#"settings/2 create setting(section="a" name="2" value=NULL) nulls[3]"#,
            r#"settings/3 update setting(section="a" name="2" value=[118]) was(value=NULL) was_nulls[3] set[value]"#,
        ]
    );
    f.check();
}

#[test]
fn another_root_moves_the_row_to_another_aggregate() {
    let mut f = Fixture::new();
    let (alice, bob) = (f.account("Alice"), f.account("Bob"));
    let posting: Posting = f
        .run(|tx| tx.logged_insert((postings::account_id.eq(bob.id), postings::amount.eq(3))))
        .unwrap();
    assert_eq!(posting.aggregate().as_str(), "account:2");
    let (moved, receipts) = f
        .oplog
        .transaction_with_receipts(&mut f.conn, |tx| {
            tx.logged_update(&posting, postings::account_id.eq(alice.id))
        })
        .unwrap();
    assert_eq!(
        moved,
        Posting {
            account_id: alice.id,
            ..posting
        }
    );
    let entries = f.entries();
    // In byte order of the aggregates, so the create stands first; the ordinals tell better.
    assert_receipts(&receipts, &entries[3..]);
    assert_eq!(entries[3].group, entries[4].group);
    assert_eq!(entries[3].group.unwrap().parts, 2);
    assert_eq!(
        f.news(),
        [
            r#"account:2/2 create posting(id=1 account_id=2 amount=3 note=NULL) nulls[4]"#,
            r#"account:1/2 create posting(id=1 account_id=1 amount=3 note=NULL) nulls[4] #1"#,
            r#"account:2/3 delete posting(id=1 account_id=2 amount=3 note=NULL) nulls[4] #0"#,
        ]
    );
    f.check();
}

#[test]
fn several_types_share_an_aggregate() {
    let mut f = Fixture::new();
    f.run(|tx| {
        let alice: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
        let posting: Posting = tx.logged_insert((
            postings::account_id.eq(alice.id),
            postings::amount.eq(3),
            postings::note.eq("n"),
        ))?;
        tx.logged_update(
            &alice,
            accounts::balance.eq(accounts::balance + posting.amount),
        )?;
        Ok(())
    })
    .unwrap();
    assert_eq!(f.entries().len(), 1);
    assert_eq!(
        f.news(),
        [
            r#"account:1/1 create account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
            r#"account:1/1 create posting(id=1 account_id=1 amount=3 note="n")"#,
            r#"account:1/1 update account(email=NULL id=1 owner="Alice" balance=13) nulls[4] was(balance=10) set[balance]"#,
        ]
    );
    f.check();
}
