//! Entries as they are read back: which, in what order, and what is in them.

use diesel::prelude::*;
use oplog_diesel::core::{CatalogError, Op, OplogValue, RowError, Value};
use oplog_diesel::prelude::*;
use oplog_diesel::{EntryError, Error, Frontier, StoredEntry};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};
use crate::evidence::*;

fn names(entries: impl Iterator<Item = Result<StoredEntry, Error>>) -> Vec<String> {
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            format!("{}/{}", entry.aggregate(), entry.sequence())
        })
        .collect()
}

/// Five entries for each of three accounts, in turns.
fn accounts_in_turns(oplog: &Oplog, conn: &mut Conn) {
    for round in 0..5 {
        for id in 1..=3_i64 {
            oplog
                .transaction(conn, |tx| {
                    if round == 0 {
                        let owner = format!("owner {id}");
                        let _: Account =
                            tx.logged_insert((accounts::id.eq(id), accounts::owner.eq(owner)))?;
                    } else {
                        tx.logged_update_where::<Account, _, _>(
                            accounts::table.find(id),
                            accounts::balance.eq(round),
                        )?;
                    }
                    Ok::<_, Error>(())
                })
                .unwrap();
        }
    }
}

#[test]
fn entries_are_chosen_by_aggregate_sequence_and_frontier() {
    let db = Db::new();
    let oplog = open(&db);
    let conn = &mut db.connect();
    assert_eq!(oplog.entries(conn).count(), 0);
    assert_eq!(oplog.frontier(conn).unwrap(), Frontier::default());
    accounts_in_turns(&oplog, conn);
    let all = names(oplog.entries(conn));
    assert_eq!(
        all[..4],
        ["account:1/1", "account:2/1", "account:3/1", "account:1/2"]
    );
    assert_eq!(all.len(), 15);
    assert_eq!(
        names(
            oplog
                .entries(conn)
                .aggregate("account:2")
                .from_sequence(2)
                .to_sequence(3)
        ),
        ["account:2/2", "account:2/3"]
    );
    assert_eq!(
        names(oplog.entries(conn).aggregate("account:2").from_sequence(5)),
        ["account:2/5"]
    );
    assert_eq!(
        names(oplog.entries(conn).aggregate("account:2").to_sequence(1)),
        ["account:2/1"]
    );
    assert_eq!(names(oplog.entries(conn).from_sequence(5)).len(), 3);
    for nothing in [
        names(oplog.entries(conn).aggregate("account:2").from_sequence(6)),
        names(
            oplog
                .entries(conn)
                .aggregate("account:2")
                .from_sequence(3)
                .to_sequence(2),
        ),
        names(
            oplog
                .entries(conn)
                .aggregate("account:2")
                .from_sequence(u64::MAX),
        ),
        names(oplog.entries(conn).aggregate("account:2").to_sequence(0)),
        names(oplog.entries(conn).aggregate("account")),
        names(oplog.entries(conn).aggregate("ACCOUNT:2")),
        names(oplog.entries(conn).aggregate("")),
        names(oplog.entries(conn).below(&Frontier::default())),
        names(oplog.entries(conn).below(&Frontier::at([("account:2", 0)]))),
    ] {
        assert_eq!(nothing, [""; 0]);
    }
    assert_eq!(
        names(
            oplog
                .entries(conn)
                .aggregate("account:2")
                .from_sequence(0)
                .to_sequence(u64::MAX)
        )
        .len(),
        5
    );
    let cut = Frontier::at([("account:1", 1), ("account:3", 2), ("nobody", 7)]);
    assert_eq!(
        names(oplog.entries(conn).below(&cut)),
        ["account:1/1", "account:3/1", "account:3/2"]
    );
    assert_eq!(
        names(oplog.entries(conn).below(&cut).aggregate("account:3")),
        ["account:3/1", "account:3/2"]
    );
    assert_eq!(
        names(oplog.entries(conn).below(&cut).from_sequence(2)),
        ["account:3/2"]
    );
    assert_eq!(cut.entries(), 10);
    let frontier = oplog.frontier(conn).unwrap();
    assert_eq!(frontier.entries(), 15);
    assert_eq!(frontier.head("account:3").unwrap().next_sequence, 6);
    assert_eq!(frontier.head("account:4"), None);
    let last = oplog
        .entries(conn)
        .aggregate("account:3")
        .from_sequence(5)
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(frontier.head("account:3").unwrap().hash, last.entry_hash());
    assert!(oplog.resolve(conn, &[last.receipt()]).unwrap());
    // What comes later is not below the frontier.
    oplog
        .transaction(conn, |tx| tx.logged_delete_by_key::<Account, _>(1_i64))
        .unwrap();
    assert_eq!(names(oplog.entries(conn).below(&frontier)), all);
    assert_eq!(Frontier::at([("a", u64::MAX)]).entries(), u64::MAX - 1);
}

#[test]
fn more_entries_than_a_page_holds_come_in_order() {
    let db = Db::new();
    let oplog = open(&db);
    let conn = &mut db.connect();
    conn.begin_test_transaction().unwrap();
    let setting = |value: u32| Setting {
        section: "s".into(),
        name: "n".into(),
        value: Some(value.to_le_bytes().to_vec()),
    };
    oplog
        .transaction(conn, |tx| tx.logged_insert::<Setting, _>(setting(0)))
        .unwrap();
    for n in 1..4_200_u32 {
        oplog
            .transaction(conn, |tx| {
                let changes = settings::value.eq(Some(n.to_le_bytes().to_vec()));
                let now = setting(n - 1);
                tx.logged_update(&now, changes)
            })
            .unwrap();
    }
    let all: Vec<_> = oplog.entries(conn).map(Result::unwrap).collect();
    assert!(all.iter().map(StoredEntry::sequence).eq(1..=4_200));
    let of = oplog
        .entries(conn)
        .aggregate("settings")
        .from_sequence(3)
        .to_sequence(4_190)
        .map(|entry| entry.unwrap().sequence());
    assert!(of.eq(3..=4_190));
    for entry in &all {
        let entry = oplog.open_entry(entry).unwrap();
        let value = entry.messages[0].row::<Setting>().unwrap().value.unwrap();
        assert_eq!(value, (entry.header.sequence as u32 - 1).to_le_bytes());
    }
    assert!(oplog.verify_contents(conn).unwrap().is_intact());
    let report = oplog.replay(conn).into_suffix("_x").unwrap();
    assert_eq!(
        (report.entries, report.messages, report.rows),
        (4_200, 4_200, 1)
    );
}

#[test]
fn large_entries_come_in_order() {
    let db = Db::new();
    let oplog = open(&db);
    let conn = &mut db.connect();
    for n in 0..3_u8 {
        oplog
            .transaction(conn, |tx| {
                let value = Some(vec![n; 3 << 20]);
                tx.logged_insert::<Setting, _>(Setting {
                    section: "large".into(),
                    name: n.to_string(),
                    value,
                })
            })
            .unwrap();
        oplog
            .transaction(conn, |tx| {
                tx.logged_insert::<Setting, _>(Setting {
                    section: "small".into(),
                    name: n.to_string(),
                    value: None,
                })
            })
            .unwrap();
    }
    for entries in [
        oplog.entries(conn).collect::<Vec<_>>(),
        oplog.entries(conn).aggregate("settings").collect(),
    ] {
        let entries: Vec<_> = entries.into_iter().map(Result::unwrap).collect();
        assert!(entries.iter().map(StoredEntry::sequence).eq(1..=6));
        for (at, stored) in entries.iter().enumerate() {
            assert_eq!(stored.envelope().len() > 3 << 20, at % 2 == 0);
        }
    }
    let last = oplog
        .entries(conn)
        .aggregate("settings")
        .from_sequence(5)
        .next()
        .unwrap()
        .unwrap();
    let entry = oplog.open_entry(&last).unwrap();
    assert_eq!(
        entry.messages[0].row::<Setting>().unwrap().value,
        Some(vec![2; 3 << 20])
    );
}

#[test]
fn messages_are_read_typed_and_untyped() {
    let db = Db::new();
    let oplog = open(&db);
    let conn = &mut db.connect();
    oplog
        .metadata("actor", "root")
        .metadata("actor", "also")
        .metadata_key("flag")
        .transaction(conn, |tx| {
            let row: Account =
                tx.logged_insert((accounts::owner.eq(CANARY), accounts::email.eq("e")))?;
            let row = tx.logged_update(
                &row,
                (accounts::balance.eq(11), accounts::email.eq(None::<String>)),
            )?;
            tx.logged_delete(&row)
        })
        .unwrap();
    let stored = oplog.entries(conn).next().unwrap().unwrap();
    let entry = oplog.open_entry(&stored).unwrap();
    assert!(entry.metadata.get("actor").eq([Some("root"), Some("also")]));
    assert!(entry.metadata.get("flag").eq([None]));
    assert_eq!(stored.metadata(), &entry.metadata);
    let ops: Vec<_> = entry.messages.iter().map(|message| message.op).collect();
    assert_eq!(ops, [Op::Create, Op::Update, Op::Delete]);
    let [create, update, delete] = &entry.messages[..] else {
        panic!("{:?}", entry.messages)
    };
    let created: Account = create.row().unwrap();
    assert_eq!(
        (
            created.owner.as_str(),
            created.balance,
            created.email.as_deref()
        ),
        (CANARY, 10, Some("e"))
    );
    let after: Account = update.row().unwrap();
    assert_eq!((after.balance, &after.email), (11, &None));
    assert_eq!(delete.row::<Account>().unwrap(), after);
    assert_eq!(update.field_mask, ["balance"]);
    assert_eq!(update.null_mask, ["email"]);
    let error = create.row::<Setting>().unwrap_err();
    assert!(shown(&error).contains("setting"), "{error:?}");

    let def = oplog_diesel::core::Typed::def(oplog.catalog().by_name(&update.type_name).unwrap());
    let values = update.values(def).unwrap();
    let named: Vec<_> = values
        .iter()
        .map(|(column, value)| (column.name, value.clone()))
        .collect();
    assert!(named.contains(&("balance", Value::Sint(11))));
    assert!(named.contains(&("email", Value::Null)));
    assert!(named.contains(&("owner", Value::Text(CANARY.into()))));
    let previous = update.previous_values(def).unwrap().unwrap();
    let named: Vec<_> = previous
        .iter()
        .map(|(column, value)| (column.name, value.clone()))
        .collect();
    assert_eq!(
        named,
        [
            ("email", "e".to_owned().to_value()),
            ("balance", Value::Sint(10))
        ]
    );
    assert!(matches!(
        oplog.catalog().by_name("nobody knows").unwrap_err(),
        CatalogError::UnknownName { .. }
    ));
    let other = oplog_diesel::core::Typed::def(oplog.catalog().by_name("setting").unwrap());
    let error: RowError = create.values(other).unwrap_err();
    shown(&error);
    for secret in [
        format!("{entry:?}"),
        format!("{stored:?}"),
        format!("{values:?}"),
        format!("{entry:#?}"),
    ] {
        assert!(!secret.contains(CANARY), "{secret}");
    }
}

#[test]
fn a_program_without_the_model_reads_and_checks_but_does_not_replay() {
    let db = Db::new();
    let oplog = open(&db);
    let conn = &mut db.connect();
    oplog
        .transaction(conn, |tx| {
            tx.logged_insert::<Account, _>(&NewAccount { owner: CANARY })
        })
        .unwrap();
    let other = Oplog::builder()
        .key(key_file(&db))
        .only_named_models()
        .model::<Setting>()
        .open(conn)
        .unwrap();
    let stored = other.entries(conn).next().unwrap().unwrap();
    let entry = other.open_entry(&stored).unwrap();
    assert_eq!(entry.messages[0].type_name, "account");
    assert!(other.verify_contents(conn).unwrap().is_intact());
    let error = other.replay(conn).into_suffix("_x").unwrap_err();
    assert!(
        matches!(
            error,
            Error::Entry {
                sequence: 1,
                source: EntryError::Type { index: 0, .. },
                ..
            }
        ),
        "{error:?}"
    );
    assert!(shown(&error).contains("account"));
    assert!(!crate::sabotage::has_table(conn, "settings_x"));
}
