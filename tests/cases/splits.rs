//! Transactions that do not fit into one entry.

use diesel::prelude::*;
use oplog_diesel::core::{Op, QueueError, RecordError};
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Conn;
use crate::fixture::{Fixture, assert_receipts, builder};

fn setting(name: usize, value: Option<Vec<u8>>) -> Setting {
    Setting {
        section: String::new(),
        name: format!("{name:05}"),
        value,
    }
}

#[test]
fn an_entry_ends_at_ten_thousand_messages() {
    const N: usize = 10_050;
    let mut f = Fixture::new();
    f.run(|tx| {
        tx.logged_insert::<Setting, _>(&Setting {
            section: "before".to_owned(),
            ..setting(0, None)
        })
    })
    .unwrap();
    f.news();
    let (rows, receipts) = f
        .oplog
        .metadata("k", "v")
        .transaction_with_receipts(&mut f.conn, |tx| {
            tx.logged_insert_many::<Setting, _>((0..N).map(|n| setting(n, None)))
        })
        .unwrap();
    assert_eq!(rows.len(), N);
    let entries = f.entries().split_off(1);
    assert_receipts(&receipts, &entries);
    assert_eq!(
        entries
            .iter()
            .map(|entry| (entry.sequence, entry.messages.len()))
            .collect::<Vec<_>>(),
        [(2, 10_000), (3, 50),]
    );
    assert!(entries.iter().all(|entry| {
        entry.group == entries[0].group
            && entry.group.unwrap().parts == 2
            && entry.metadata == [("k".to_owned(), Some("v".to_owned()))]
    }));
    let lines = (0..N).map(|n| {
        let sequence = if n < 10_000 { 2 } else { 3 };
        format!(
            r#"settings/{sequence} create items setting(section="" name="{n:05}" value=NULL) nulls[3] #{n}"#
        )
    });
    assert_eq!(f.news(), lines.collect::<Vec<_>>());
    f.check();
}

#[test]
fn ten_thousand_messages_are_one_entry_without_ordinals() {
    let mut f = Fixture::new();
    f.run(|tx| tx.logged_insert_many::<Setting, _>((0..10_000).map(|n| setting(n, None))))
        .unwrap();
    let entries = f.entries();
    assert_eq!((entries.len(), entries[0].group), (1, None));
    assert_eq!(entries[0].messages.len(), 10_000);
    assert!(
        entries[0]
            .messages
            .iter()
            .all(|line| line.ends_with("nulls[3]"))
    );
    // One more in the same transaction: an update of the last row.
    f.news();
    f.run(|tx| {
        tx.logged_delete_where::<Setting, _>(settings::table)?;
        tx.logged_insert::<Setting, _>(&setting(1, None))
    })
    .unwrap();
    let entries = f.entries().split_off(1);
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry.messages.len())
            .collect::<Vec<_>>(),
        [10_000, 1]
    );
    assert_eq!(
        entries[1].messages,
        [r#"create setting(section="" name="00001" value=NULL) nulls[3] #10000"#]
    );
    f.check();
}

/// The parts of several aggregates share one transaction; what belongs together is read by ordinals.
#[test]
fn a_split_entry_beside_others() {
    let mut f = Fixture::new();
    let ((), receipts) = f
        .oplog
        .on("settings")
        .transaction_with_receipts(&mut f.conn, |tx| {
            tx.logged_insert_many::<Setting, _>((0..5_000).map(|n| setting(n, None)))?;
            let alice: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            tx.logged_update_where::<Setting, _, _>(
                settings::table,
                settings::value.eq(&b"v"[..]),
            )?;
            tx.logged_delete(&alice)?;
            tx.logged_delete_where::<Setting, _>(
                settings::table.filter(settings::name.lt("00010")),
            )?;
            Ok::<_, Error>(())
        })
        .unwrap();
    let entries = f.entries();
    assert_receipts(&receipts, &entries);
    let shape: Vec<_> = entries
        .iter()
        .map(|entry| {
            (
                entry.aggregate.as_str(),
                entry.sequence,
                entry.messages.len(),
                entry.group.unwrap().parts,
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            ("account:1", 1, 2, 3),
            ("settings", 1, 10_000, 3),
            ("settings", 2, 10, 3)
        ]
    );
    assert_eq!(
        entries[0].messages,
        [
            r#"create account(email=NULL id=1 owner="Alice" balance=10) nulls[4] #5000"#,
            r#"delete account(email=NULL id=1 owner="Alice" balance=10) nulls[4] #10001"#,
        ]
    );
    let news = f.news_sorted();
    assert_eq!(news.len(), 10_012);
    f.check();
}

fn too_long(error: &Error) -> bool {
    matches!(
        error,
        Error::Record(RecordError::Queue(QueueError::MessageTooLong { .. }))
    )
}

#[test]
fn a_message_that_fits_into_no_entry_is_refused() {
    let mut f = Fixture::new();
    f.run(|tx| tx.logged_insert::<Setting, _>(&setting(0, None)))
        .unwrap();
    f.unchanged(|f| {
        let huge = vec![7; 17 << 20];
        let insert = |tx: &mut Tx<'_, Conn>| {
            let _: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            tx.logged_insert::<Setting, _>((
                settings::section.eq(""),
                settings::name.eq("huge"),
                settings::value.eq(&huge),
            ))
        };
        let error = f.run(insert).unwrap_err();
        assert!(too_long(&error), "{error:?}");
        let error = f
            .run(|tx| {
                assert!(insert(tx).is_err());
                Ok(())
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::Record(RecordError::Poisoned)),
            "{error:?}"
        );
        let error = f
            .run(|tx| tx.logged_update(&setting(0, None), settings::value.eq(&huge)))
            .unwrap_err();
        assert!(too_long(&error), "{error:?}");
        let error = f
            .run(|tx| {
                tx.logged_update_where::<Setting, _, _>(settings::table, settings::value.eq(&huge))
            })
            .unwrap_err();
        assert!(too_long(&error), "{error:?}");
        // The error names lengths, never what the row holds.
        assert!(!format!("{error:?}").contains("7, 7"));
    });
}

/// A row that fits, but not together with what it was before.
#[test]
fn an_update_whose_two_images_fit_into_no_entry_is_refused() {
    let mut f = Fixture::new();
    let (one, two) = (vec![1; 9 << 20], vec![2; 9 << 20]);
    let row = setting(0, Some(one));
    f.run(|tx| tx.logged_insert::<Setting, _>(&row)).unwrap();
    let error = f
        .run(|tx| tx.logged_update(&row, settings::value.eq(&two)))
        .unwrap_err();
    assert!(too_long(&error), "{error:?}");
    let after = f.snapshot();
    assert!(after.settings == [row] && after.entries == 1);
    crate::fixture::assert_free(&mut f.conn);
}

#[test]
fn an_entry_ends_at_its_bytes() {
    let mut f = Fixture::new();
    let sizes = [8 << 20, 7 << 20, 2 << 20];
    let rows: Vec<Setting> = (0..3)
        .map(|n| setting(n, Some(vec![n as u8; sizes[n]])))
        .collect();
    let (stored, receipts) = f
        .oplog
        .transaction_with_receipts(&mut f.conn, |tx| tx.logged_insert_many::<Setting, _>(&rows))
        .unwrap();
    assert!(stored == rows);
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.sequence)
            .collect::<Vec<_>>(),
        [1, 2]
    );
    let stored: Vec<_> = f
        .oplog
        .entries(&mut f.conn)
        .collect::<Result<_, _>>()
        .unwrap();
    let mut found = Vec::new();
    for (stored, receipt) in stored.iter().zip(&receipts) {
        assert_eq!(
            (stored.header().sequence, stored.entry_hash()),
            (receipt.sequence, receipt.entry_hash)
        );
        assert_eq!(stored.header().group.unwrap().parts, 2);
        for message in f.oplog.open_entry(stored).unwrap().messages {
            assert_eq!(message.op, Op::CreateItems);
            found.push((
                stored.header().sequence,
                message.ordinal.unwrap(),
                message.row::<Setting>().unwrap(),
            ));
        }
    }
    let expected: Vec<_> = rows
        .iter()
        .cloned()
        .zip([(1, 0), (1, 1), (2, 2)])
        .map(|(row, (sequence, ordinal))| (sequence, ordinal, row))
        .collect();
    assert!(found == expected);
    // Each entry was opened above, which takes its time in a debug build.
    assert!(f.oplog.verify_structure(&mut f.conn).unwrap().is_intact());
    assert!(f.snapshot().settings == rows);
    crate::fixture::assert_free(&mut f.conn);
}

/// What exceeds a limit of the transaction is named, and nothing of it stays.
#[test]
fn a_transaction_beyond_its_limits_leaves_nothing() {
    let mut f = Fixture::new();
    f.account("Alice");
    let limited = |rows, bytes| builder(&f.db).transaction_limits(rows, bytes);
    let few = limited(3, 1 << 20).open(&mut f.conn).unwrap();
    let small = limited(1000, 1000).open(&mut f.conn).unwrap();
    let settings = |from: i32, to: i32| {
        (from..to).map(|n| Setting {
            section: "limits".to_owned(),
            name: n.to_string(),
            value: Some(vec![7; 100]),
        })
    };
    f.unchanged(|f| {
        let many = few.transaction(&mut f.conn, |tx| {
            let _: Vec<Setting> = tx.logged_insert_many(settings(0, 4))?;
            Ok::<_, Error>(())
        });
        assert!(
            matches!(
                many,
                Err(Error::Record(RecordError::TooManyMessages { max: 3 }))
            ),
            "{many:?}"
        );
        let ignored = few.transaction(&mut f.conn, |tx| {
            for setting in settings(0, 4) {
                let _ = tx.logged_insert::<Setting, _>(&setting);
            }
            Ok::<_, Error>(())
        });
        assert!(
            matches!(ignored, Err(Error::Record(RecordError::Poisoned))),
            "{ignored:?}"
        );
        let large = small.transaction(&mut f.conn, |tx| {
            let _: Vec<Setting> = tx.logged_insert_many(settings(0, 10))?;
            Ok::<_, Error>(())
        });
        assert!(
            matches!(
                large,
                Err(Error::Record(RecordError::TooManyBytes { max: 1000 }))
            ),
            "{large:?}"
        );
    });
    // What a savepoint took back does not count.
    small
        .transaction(&mut f.conn, |tx| {
            for round in 0..5 {
                let gone: Result<(), Error> = tx.savepoint(|tx| {
                    let _: Vec<Setting> = tx.logged_insert_many(settings(0, 5))?;
                    Err(Error::NotMigrated)
                });
                assert!(matches!(gone, Err(Error::NotMigrated)), "{round}: {gone:?}");
            }
            let _: Vec<Setting> = tx.logged_insert_many(settings(0, 5))?;
            Ok::<_, Error>(())
        })
        .unwrap();
    f.check();
}
