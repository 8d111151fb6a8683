//! Deletes of one row.

use diesel::prelude::*;
use diesel::result::Error as DieselError;
use oplog_diesel::Error;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::Fixture;

#[test]
fn what_is_logged_is_the_row_as_it_was() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    let now = f
        .run(|tx| tx.logged_update(&alice, accounts::email.eq("e")))
        .unwrap();
    f.news();
    // The caller's model is out of date.
    let gone = f.run(|tx| tx.logged_delete(&alice)).unwrap();
    assert_eq!(gone, now);
    assert_eq!(
        f.news(),
        [r#"account:1/3 delete account(email="e" id=1 owner="Alice" balance=10)"#]
    );
    assert_eq!(f.snapshot().accounts, []);
    f.check();
}

#[test]
fn a_row_is_deleted_by_its_key() {
    let mut f = Fixture::new();
    f.account("Alice");
    let bob = f.account("Bob");
    let gone: Account = f.run(|tx| tx.logged_delete_by_key(bob.id)).unwrap();
    assert_eq!(gone, bob);
    assert_eq!(
        f.news(),
        [r#"account:2/2 delete account(email=NULL id=2 owner="Bob" balance=10) nulls[4]"#]
    );
    assert_eq!(f.snapshot().accounts.len(), 1);
    f.check();
}

#[test]
fn a_row_is_deleted_by_its_composite_key() {
    let mut f = Fixture::new();
    let setting = |name: &str| Setting {
        section: "s".to_owned(),
        name: name.to_owned(),
        value: Some(vec![1]),
    };
    f.run(|tx| tx.logged_insert_many::<Setting, _>([setting("a"), setting("b"), setting("c")]))
        .unwrap();
    f.news();
    f.run(|tx| {
        tx.logged_delete_by_key::<Setting, _>(("s", "b"))?;
        tx.logged_delete(&setting("c"))
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"settings/2 delete setting(section="s" name="b" value=[1])"#,
            r#"settings/2 delete setting(section="s" name="c" value=[1])"#,
        ]
    );
    assert_eq!(f.snapshot().settings, [setting("a")]);
    f.check();
}

#[test]
fn a_missing_row_is_an_error_that_leaves_the_transaction_usable() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| {
        let error = tx.logged_delete_by_key::<Account, _>(77).unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::NotFound)),
            "{error:?}"
        );
        let error = tx.logged_delete_by_key::<Setting, _>(("", "")).unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::NotFound)),
            "{error:?}"
        );
        let error = tx
            .logged_delete(&Account {
                id: 77,
                ..alice.clone()
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::NotFound)),
            "{error:?}"
        );
        tx.logged_delete(&alice)
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [r#"account:1/2 delete account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#]
    );
    f.check();
}

#[test]
fn an_aggregate_goes_on_after_its_last_row() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.run(|tx| {
        tx.logged_delete(&alice)?;
        tx.logged_insert::<Account, _>(&alice)
    })
    .unwrap();
    f.run(|tx| tx.logged_delete(&alice)).unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 delete account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
            r#"account:1/2 create account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
            r#"account:1/3 delete account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
        ]
    );
    f.check();
}
