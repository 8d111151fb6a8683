//! What one transaction becomes in the log.

use diesel::prelude::*;
use oplog_diesel::Error;
use oplog_diesel::core::{AggregateError, MetadataError, RecordError};
use oplog_diesel::prelude::*;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::fixture::{Fixture, assert_receipts, check};

diesel::table! {
    documents (folder, name) {
        folder -> Text,
        name -> Text,
    }
}

/// A row whose aggregate has the length that its text has.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = documents)]
#[diesel(primary_key(folder, name))]
#[oplog(type_name = "document", aggregate = "folder", root = folder)]
struct Document {
    #[oplog(tag = 1)]
    folder: String,
    #[oplog(tag = 2)]
    name: String,
}

fn setting(name: &str) -> Setting {
    Setting {
        section: "s".to_owned(),
        name: name.to_owned(),
        value: None,
    }
}

#[test]
fn nothing_written_is_nothing_logged() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.unchanged(|f| {
        let (read, receipts) = f
            .oplog
            .on("account:1")
            .and("settings")
            .metadata("a", "b")
            .transaction_with_receipts(&mut f.conn, |tx| {
                tx.metadata("late", "too")?;
                Ok::<_, Error>(
                    tx.read::<_, Account>(accounts::table.select(Account::as_select()))?
                        .len(),
                )
            })
            .unwrap();
        assert_eq!((read, receipts), (1, Vec::new()));
        f.oplog
            .on("nothing")
            .transaction(&mut f.conn, |_| Ok::<_, Error>(()))
            .unwrap();
    });
}

#[test]
fn one_statement_may_be_read_in_many_ways() {
    let mut f = Fixture::new();
    f.account("Alice");
    f.account("Bob");
    f.run(|tx| {
        let _: Account = tx.logged_insert(&NewAccount { owner: "Carol" })?;
        // A transaction sees what it wrote.
        let owners: Vec<String> =
            tx.read(accounts::table.select(accounts::owner).order(accounts::id))?;
        assert_eq!(owners, ["Alice", "Bob", "Carol"]);
        let n: i64 = tx.read_one(accounts::table.count())?;
        assert_eq!(n, 3);
        let joined: Vec<(i64, i64)> = tx.read(
            postings::table
                .inner_join(accounts::table)
                .select((postings::id, accounts::id)),
        )?;
        assert_eq!(joined, []);
        let first: Account = tx.read_one(
            accounts::table
                .select(Account::as_select())
                .order(accounts::id),
        )?;
        assert_eq!(first.id, 1);
        let none = tx.read_one::<_, i64>(
            accounts::table
                .select(accounts::id)
                .filter(accounts::id.gt(3)),
        );
        assert!(matches!(
            none,
            Err(Error::Database(diesel::result::Error::NotFound))
        ));
        Ok(())
    })
    .unwrap();
    assert_eq!(f.news().len(), 1);
    f.check();
}

#[test]
fn each_aggregate_gets_one_entry_in_byte_order() {
    let mut f = Fixture::new();
    let receipts = f
        .oplog
        .transaction_with_receipts(&mut f.conn, |tx| {
            let _: Setting = tx.logged_insert(setting("1"))?;
            for id in [9, 10] {
                let _: Account =
                    tx.logged_insert((accounts::id.eq(id), accounts::owner.eq("o")))?;
            }
            let _: Setting = tx.logged_insert(setting("2"))?;
            let _: Posting =
                tx.logged_insert((postings::account_id.eq(9), postings::amount.eq(1)))?;
            Ok::<_, Error>(())
        })
        .unwrap()
        .1;
    let entries = f.entries();
    assert_receipts(&receipts, &entries);
    let group = entries[0].group.unwrap();
    assert_eq!(group.parts, 3);
    assert!(
        entries
            .iter()
            .all(|entry| entry.group == Some(group) && entry.sequence == 1)
    );
    assert_eq!(
        f.news(),
        [
            r#"account:10/1 create account(email=NULL id=10 owner="o" balance=10) nulls[4] #2"#,
            r#"account:9/1 create account(email=NULL id=9 owner="o" balance=10) nulls[4] #1"#,
            r#"account:9/1 create posting(id=1 account_id=9 amount=1 note=NULL) nulls[4] #4"#,
            r#"settings/1 create setting(section="s" name="1" value=NULL) nulls[3] #0"#,
            r#"settings/1 create setting(section="s" name="2" value=NULL) nulls[3] #3"#,
        ]
    );
    f.check();
    // Another transaction has another group.
    f.run(|tx| {
        tx.logged_delete_by_key::<Setting, _>(("s", "1"))?;
        tx.logged_delete_by_key::<Account, _>(10)
    })
    .unwrap();
    let entries = f.entries().split_off(3);
    assert_eq!(entries[0].group.unwrap().parts, 2);
    assert_ne!(entries[0].group.unwrap().txn_id, group.txn_id);
    f.check();
}

#[test]
fn receipts_are_those_of_the_stored_entries() {
    let mut f = Fixture::new();
    let ((), receipts) = f
        .oplog
        .metadata_key("k")
        .transaction_with_receipts(&mut f.conn, |tx| {
            let _: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            Ok::<_, Error>(())
        })
        .unwrap();
    let entries = f.entries();
    assert_receipts(&receipts, &entries);
    assert_eq!(receipts.len(), 1);
    assert_eq!(entries[0].group, None);
    assert_eq!(
        f.oplog
            .frontier(&mut f.conn)
            .unwrap()
            .head("account:1")
            .unwrap()
            .hash,
        receipts[0].entry_hash
    );
    assert!(f.oplog.resolve(&mut f.conn, &receipts).unwrap());
}

#[test]
fn every_entry_carries_the_metadata() {
    let mut f = Fixture::new();
    f.oplog
        .metadata("actor", "root")
        .metadata("actor", "cron")
        .metadata_key("reviewed")
        .metadata("empty", "")
        .transaction(&mut f.conn, |tx| {
            tx.metadata("actor", "late")?;
            let _: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            let _: Setting = tx.logged_insert(setting(""))?;
            tx.metadata("rows", "2")?;
            Ok::<_, Error>(())
        })
        .unwrap();
    let expected = [
        ("actor", Some("root")),
        ("actor", Some("cron")),
        ("actor", Some("late")),
        ("empty", Some("")),
        ("reviewed", None),
        ("rows", Some("2")),
    ]
    .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
    let entries = f.entries();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.metadata == expected));
    f.check();
}

#[test]
fn metadata_that_cant_be_stored_is_refused_before_anything_is_done() {
    let mut f = Fixture::new();
    f.unchanged(|f| {
        let long = "k".repeat(256);
        type Is = fn(&MetadataError) -> bool;
        let cases: [(&str, String, Is); 6] = [
            ("_oplog.unlogged", "v".to_owned(), |e| {
                matches!(e, MetadataError::Reserved { .. })
            }),
            ("a\0b", "v".to_owned(), |e| {
                matches!(e, MetadataError::Nul { .. })
            }),
            ("k", "v\0".to_owned(), |e| {
                matches!(e, MetadataError::Nul { .. })
            }),
            ("", "v".to_owned(), |e| matches!(e, MetadataError::EmptyKey)),
            (&long, "v".to_owned(), |e| {
                matches!(e, MetadataError::KeyTooLong { len: 256, max: 255 })
            }),
            ("k", "v".repeat(65_537), |e| {
                matches!(e, MetadataError::ValueTooLong { .. })
            }),
        ];
        for (key, value, is_expected) in cases {
            let error = f
                .oplog
                .metadata("fine", "fine")
                .metadata(key, value.as_str())
                .transaction(&mut f.conn, |_| -> Result<(), Error> {
                    panic!("it must not run")
                })
                .unwrap_err();
            assert!(
                matches!(&error, Error::Metadata(error) if is_expected(error)),
                "{error:?}"
            );
        }
        let mut builder = f.oplog.metadata_key("_oplog.x");
        builder = builder.metadata("fine", "fine");
        let error = builder
            .transaction(&mut f.conn, |_| Ok::<_, Error>(()))
            .unwrap_err();
        assert!(
            matches!(error, Error::Metadata(MetadataError::Reserved { .. })),
            "{error:?}"
        );
        let many = (0..65).fold(f.oplog.metadata_key("k"), |builder, n| {
            builder.metadata("n", n.to_string())
        });
        let error = many
            .transaction(&mut f.conn, |_| Ok::<_, Error>(()))
            .unwrap_err();
        assert!(
            matches!(error, Error::Metadata(MetadataError::TooMany { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn late_metadata_that_is_refused_leaves_the_transaction_usable() {
    let mut f = Fixture::new();
    f.run(|tx| {
        assert!(matches!(
            tx.metadata("_oplog.x", ""),
            Err(Error::Metadata(MetadataError::Reserved { .. }))
        ));
        assert!(matches!(
            tx.metadata("", ""),
            Err(Error::Metadata(MetadataError::EmptyKey))
        ));
        tx.metadata("k", "v")?;
        let _: Setting = tx.logged_insert(setting("a"))?;
        Ok(())
    })
    .unwrap();
    assert_eq!(
        f.entries()[0].metadata,
        [("k".to_owned(), Some("v".to_owned()))]
    );
    f.check();
}

#[test]
fn the_largest_metadata_is_stored() {
    let mut f = Fixture::new();
    let (key, value) = ("k".repeat(255), "v".repeat(65_536));
    f.oplog
        .metadata(key.as_str(), value.as_str())
        .transaction(&mut f.conn, |tx| {
            tx.logged_insert::<Setting, _>(&setting("a"))
        })
        .unwrap();
    assert_eq!(f.entries()[0].metadata, [(key, Some(value))]);
    f.check();
}

#[test]
fn names_that_no_aggregate_can_have_are_refused_before_anything_is_done() {
    let mut f = Fixture::new();
    f.unchanged(|f| {
        let long = "x".repeat(256);
        type Is = fn(&AggregateError) -> bool;
        let cases: [(&str, Is); 4] = [
            (&long, |e| {
                matches!(e, AggregateError::TooLong { len: 256, max: 255 })
            }),
            ("", |e| matches!(e, AggregateError::Empty)),
            ("a\0", |e| matches!(e, AggregateError::Nul { offset: 1 })),
            ("_oplog/keys", |e| matches!(e, AggregateError::Reserved)),
        ];
        for (name, is_expected) in cases {
            let error = f
                .oplog
                .on("account:1")
                .and(name)
                .transaction(&mut f.conn, |_| -> Result<(), Error> {
                    panic!("it must not run")
                })
                .unwrap_err();
            assert!(
                matches!(&error, Error::Aggregate(error) if is_expected(error)),
                "{error:?}"
            );
        }
    });
}

#[test]
fn a_row_whose_aggregate_has_no_valid_name_is_not_committed() {
    use diesel::connection::SimpleConnection as _;

    let mut f = Fixture::new();
    f.conn
        .batch_execute("CREATE TABLE documents (folder TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (folder, name))")
        .unwrap();
    let document = |len: usize| Document {
        folder: "f".repeat(len),
        name: String::new(),
    };
    let insert = |f: &mut Fixture, len| f.run(|tx| tx.logged_insert::<Document, _>(&document(len)));
    let longest = 255 - "folder:".len();

    let error = insert(&mut f, longest + 1).unwrap_err();
    let Error::Record(RecordError::Aggregate(error)) = error else {
        panic!("{error:?}")
    };
    assert!(matches!(
        error,
        AggregateError::TooLong { len: 256, max: 255 }
    ));
    // An update that moves the row there, by one and by a filter.
    insert(&mut f, longest).unwrap();
    let grown = documents::folder.eq("f".repeat(longest + 1));
    let error = f
        .run(|tx| tx.logged_update(&document(longest), grown.clone()))
        .unwrap_err();
    assert!(
        matches!(error, Error::Record(RecordError::Aggregate(_))),
        "{error:?}"
    );
    let error = f
        .run(|tx| tx.logged_update_where::<Document, _, _>(documents::table, grown.clone()))
        .unwrap_err();
    assert!(
        matches!(error, Error::Record(RecordError::Aggregate(_))),
        "{error:?}"
    );
    // It stays an error if the closure does not look at it.
    let error = f
        .run(|tx| {
            assert!(
                tx.logged_insert::<Document, _>(&document(longest + 1))
                    .is_err()
            );
            tx.logged_delete(&document(longest))
        })
        .unwrap_err();
    assert!(
        matches!(error, Error::Record(RecordError::Poisoned)),
        "{error:?}"
    );
    // A text that the database itself would take, but no name.
    insert(&mut f, 0).unwrap();
    let rows: Vec<Document> = documents::table
        .select(Document::as_select())
        .order(documents::folder)
        .load(&mut f.conn)
        .unwrap();
    assert_eq!(rows, [document(0), document(longest)]);
    let names: Vec<_> = f
        .entries()
        .into_iter()
        .map(|entry| entry.aggregate)
        .collect();
    assert_eq!(
        names,
        [
            format!("folder:{}", "f".repeat(longest)),
            "folder:".to_owned()
        ]
    );
    check(&f.oplog, &mut f.conn);
}

#[test]
fn the_closure_owns_its_error() {
    #[derive(Debug)]
    enum Mine {
        Broke(u32),
        Log(#[expect(dead_code)] Error),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Self {
            Mine::Log(error)
        }
    }
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.unchanged(|f| {
        let error = f
            .oplog
            .transaction(&mut f.conn, |tx| {
                tx.logged_update(&alice, accounts::balance.eq(0))?;
                let _: Setting = tx.logged_insert(setting("a"))?;
                tx.logged_delete(&alice)?;
                Err::<(), _>(Mine::Broke(7))
            })
            .unwrap_err();
        assert!(matches!(error, Mine::Broke(7)), "{error:?}");
        // Its own error is kept even if a write failed before.
        let error = f
            .oplog
            .transaction(&mut f.conn, |tx| {
                tx.logged_insert::<Account, _>(&NewAccount { owner: "nobody" })
                    .map_err(|_| Mine::Broke(8))?;
                Ok::<_, Mine>(())
            })
            .unwrap_err();
        assert!(matches!(error, Mine::Broke(8)), "{error:?}");
    });
}
