//! Updates and deletes of all rows that a filter finds.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use diesel::sql_types::Text;
use oplog_diesel::Error;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::Fixture;

fn settings_of(section: &str, names: impl Iterator<Item = usize>) -> Vec<Setting> {
    let setting = |name: usize| Setting {
        section: section.to_owned(),
        name: format!("{name:05}"),
        value: None,
    };
    names.map(setting).collect()
}

#[test]
fn no_row_is_no_error_and_no_entry() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.unchanged(|f| {
        f.run(|tx| {
            let none = accounts::table.filter(accounts::id.gt(1));
            assert_eq!(
                tx.logged_update_where::<Account, _, _>(none, accounts::balance.eq(0))?,
                []
            );
            assert_eq!(tx.logged_delete_where::<Account, _>(none)?, []);
            assert_eq!(
                tx.logged_delete_where::<Account, _>(accounts::table.find(5))?,
                []
            );
            assert_eq!(tx.logged_delete_where::<Setting, _>(settings::table)?, []);
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn one_row_is_changed_and_deleted() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.account("Bob");
    f.run(|tx| {
        let rows: Vec<Account> = tx.logged_update_where(
            accounts::table.filter(accounts::owner.eq("Bob")),
            (
                accounts::balance.eq(accounts::balance + accounts::id),
                accounts::email.eq(None::<String>),
            ),
        )?;
        assert_eq!(
            rows,
            [Account {
                email: None,
                id: 2,
                owner: "Bob".to_owned(),
                balance: 12
            }]
        );
        let gone: Vec<Account> = tx.logged_delete_where(accounts::table.find(1))?;
        assert_eq!(gone.len(), 1);
        Ok(())
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [
            r#"account:1/2 delete items account(email=NULL id=1 owner="Alice" balance=10) nulls[4] #1"#,
            r#"account:2/2 update account(email=NULL id=2 owner="Bob" balance=12) nulls[4] was(balance=10) set[balance] #0"#,
        ]
    );
    f.check();
}

#[test]
fn rows_that_do_not_change_are_returned_but_not_logged() {
    let mut f = Fixture::new();
    for owner in ["a", "b", "c"] {
        f.account(owner);
    }
    let rows: Vec<Account> = f
        .run(|tx| tx.logged_update_where(accounts::table, accounts::owner.eq("b")))
        .unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        f.news_sorted(),
        [
            r#"account:1/2 update account(email=NULL id=1 owner="b" balance=10) nulls[4] was(owner="a") set[owner]"#,
            r#"account:3/2 update account(email=NULL id=3 owner="b" balance=10) nulls[4] was(owner="c") set[owner]"#,
        ]
    );
    f.check();
}

#[test]
fn nothing_to_set_leaves_the_transaction_usable() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.run(|tx| {
        let error = tx
            .logged_update_where::<Account, _, _>(accounts::table, &AccountChange::default())
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::QueryBuilderError(_))),
            "{error:?}"
        );
        tx.logged_delete_where::<Account, _>(accounts::table)
    })
    .unwrap();
    assert_eq!(
        f.news(),
        [r#"account:1/2 delete items account(email=NULL id=1 owner="Alice" balance=10) nulls[4]"#]
    );
    f.check();
}

/// More rows than one statement addresses, with a composite key.
#[test]
fn thousands_of_rows_are_changed_and_deleted() {
    const N: usize = 5000;
    let mut f = Fixture::new();
    f.run(|tx| {
        tx.logged_insert_many::<Setting, _>(settings_of("kept", 0..2))?;
        tx.logged_insert_many::<Setting, _>(settings_of("all", 0..N))
    })
    .unwrap();
    f.news();
    let all = settings::table.filter(settings::section.eq("all"));
    let rows: Vec<Setting> = f
        .run(|tx| tx.logged_update_where(all, settings::value.eq(&b"v"[..])))
        .unwrap();
    assert_eq!(rows.len(), N);
    let expected: Vec<_> = (0..N)
        .map(|i| {
            let row = format!(r#"setting(section="all" name="{i:05}" value=[118])"#);
            format!("settings/2 update {row} was(value=NULL) was_nulls[3] set[value]")
        })
        .collect();
    assert_eq!(f.news_sorted(), expected);
    let gone: Vec<Setting> = f.run(|tx| tx.logged_delete_where(all)).unwrap();
    assert_eq!(gone.len(), N);
    let expected: Vec<_> = (0..N)
        .map(|i| {
            format!(r#"settings/3 delete items setting(section="all" name="{i:05}" value=[118])"#)
        })
        .collect();
    assert_eq!(f.news_sorted(), expected);
    assert_eq!(f.snapshot().settings, settings_of("kept", 0..2));
    f.check();
}

#[test]
fn keys_that_move_are_deletes_and_creates() {
    let mut f = Fixture::new();
    for owner in ["a", "b", "c"] {
        f.account(owner);
    }
    f.run(|tx| {
        let moved: Vec<Account> =
            tx.logged_update_where(accounts::table, accounts::id.eq(accounts::id + 1000))?;
        let mut ids: Vec<_> = moved.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1001, 1002, 1003]);
        Ok(())
    })
    .unwrap();
    let entries = f.entries().split_off(3);
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.aggregate.as_str())
            .collect::<Vec<_>>(),
        [
            "account:1",
            "account:1001",
            "account:1002",
            "account:1003",
            "account:2",
            "account:3"
        ]
    );
    assert!(
        entries
            .iter()
            .all(|entry| entry.group == entries[0].group && entry.group.unwrap().parts == 6)
    );
    assert_eq!(
        f.news_sorted(),
        [
            r#"account:1/2 delete items account(email=NULL id=1 owner="a" balance=10) nulls[4]"#,
            r#"account:1001/1 create items account(email=NULL id=1001 owner="a" balance=10) nulls[4]"#,
            r#"account:1002/1 create items account(email=NULL id=1002 owner="b" balance=10) nulls[4]"#,
            r#"account:1003/1 create items account(email=NULL id=1003 owner="c" balance=10) nulls[4]"#,
            r#"account:2/2 delete items account(email=NULL id=2 owner="b" balance=10) nulls[4]"#,
            r#"account:3/2 delete items account(email=NULL id=3 owner="c" balance=10) nulls[4]"#,
        ]
    );
    f.check();
}

/// More rows than one statement addresses move to keys beside those of the others.
#[test]
fn thousands_of_keys_move() {
    const N: usize = 2500;
    let mut f = Fixture::new();
    f.run(|tx| tx.logged_insert_many::<Setting, _>(settings_of("s", 0..N)))
        .unwrap();
    f.news();
    let moved: Vec<Setting> = f
        .run(|tx| {
            tx.logged_update_where(
                settings::table,
                settings::name.eq(sql::<Text>("name || 'x'")),
            )
        })
        .unwrap();
    assert_eq!(moved.len(), N);
    let mut expected: Vec<_> = (0..N)
        .flat_map(|i| {
            [("create", ""), ("delete", "x")].map(|(op, _)| {
                let x = if op == "create" { "x" } else { "" };
                format!(
                    r#"settings/2 {op} setting(section="s" name="{i:05}{x}" value=NULL) nulls[3]"#
                )
            })
        })
        .collect();
    expected.sort();
    assert_eq!(f.news_sorted(), expected);
    f.check();
}

/// The new values decide about the filter, too, but the rows were found before.
#[test]
fn a_filter_over_the_changed_column_finds_each_row_once() {
    let mut f = Fixture::new();
    f.run(|tx| tx.logged_insert_many::<Setting, _>(settings_of("s", 0..2100)))
        .unwrap();
    f.news();
    let found = settings::table.filter(settings::value.is_null());
    let rows: Vec<Setting> = f
        .run(|tx| tx.logged_update_where(found, settings::value.eq(&b"v"[..])))
        .unwrap();
    assert_eq!(rows.len(), 2100);
    assert_eq!(f.news().len(), 2100);
    assert_eq!(
        f.run(|tx| tx.logged_update_where::<Setting, _, _>(found, settings::value.eq(&b"w"[..])))
            .unwrap(),
        []
    );
    f.check();
}

#[test]
fn rows_move_to_another_aggregate() {
    let mut f = Fixture::new();
    let (alice, bob) = (f.account("Alice"), f.account("Bob"));
    f.run(|tx| {
        tx.logged_insert_many::<Posting, _>((1..=3).map(|amount| {
            (
                postings::account_id.eq(alice.id),
                postings::amount.eq(amount),
            )
        }))
    })
    .unwrap();
    f.news();
    f.run(|tx| {
        tx.logged_update_where::<Posting, _, _>(
            postings::table.filter(postings::amount.gt(1)),
            postings::account_id.eq(bob.id),
        )
    })
    .unwrap();
    assert_eq!(
        f.news_sorted(),
        [
            r#"account:1/3 delete posting(id=2 account_id=1 amount=2 note=NULL) nulls[4]"#,
            r#"account:1/3 delete posting(id=3 account_id=1 amount=3 note=NULL) nulls[4]"#,
            r#"account:2/2 create posting(id=2 account_id=2 amount=2 note=NULL) nulls[4]"#,
            r#"account:2/2 create posting(id=3 account_id=2 amount=3 note=NULL) nulls[4]"#,
        ]
    );
    f.check();
}
