//! The program on the first page of the documentation.

use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Db;
use crate::fixture::Fixture;

#[test]
fn the_program_of_the_readme_works() {
    let mut f = Fixture::new();
    let alice: Account = f
        .oplog
        .metadata("actor", "root")
        .transaction(&mut f.conn, |tx| {
            let alice: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            tx.logged_update(&alice, accounts::email.eq("alice@example.com"))
        })
        .unwrap();
    let now = f
        .oplog
        .on(alice.aggregate())
        .transaction(&mut f.conn, |tx| {
            let now: Account =
                tx.read_one(accounts::table.find(alice.id).select(Account::as_select()))?;
            tx.logged_update(&now, accounts::balance.eq(now.balance - 5))
        })
        .unwrap();
    assert_eq!(
        now,
        Account {
            email: Some("alice@example.com".to_owned()),
            id: 1,
            owner: "Alice".to_owned(),
            balance: 5
        }
    );
    assert_eq!(
        f.entries()[0].metadata,
        [("actor".to_owned(), Some("root".to_owned()))]
    );
    assert_eq!(f.entries()[1].metadata, []);
    assert_eq!(
        f.news(),
        [
            r#"account:1/1 create account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#,
            concat!(
                r#"account:1/1 update account(email="alice@example.com" id=1 owner="Alice" balance=10)"#,
                r#" was(email=NULL) was_nulls[4] set[email]"#,
            ),
            concat!(
                r#"account:1/2 update account(email="alice@example.com" id=1 owner="Alice" balance=5)"#,
                r#" was(balance=10) set[balance]"#,
            ),
        ]
    );
    f.check();
}

#[test]
fn the_log_gives_the_rows_in_another_database() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.account("Bob");
    f.run(|tx| {
        tx.logged_delete(&alice)?;
        let _: Setting = tx.logged_insert(&Setting {
            section: "a".to_owned(),
            name: String::new(),
            value: Some(Vec::new()),
        })?;
        Ok(())
    })
    .unwrap();
    let other = Db::new();
    let replayed = f
        .oplog
        .replay(&mut f.conn)
        .into_database(&mut other.connect())
        .unwrap();
    assert_eq!(
        (replayed.entries, replayed.messages, replayed.rows),
        (4, 4, 2)
    );
    let (live, copy) = (f.snapshot(), crate::fixture::snapshot(&mut other.connect()));
    assert_eq!(
        (live.accounts, live.settings),
        (copy.accounts, copy.settings)
    );
    f.check();
}
