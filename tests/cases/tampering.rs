//! What somebody who owns the database, but no key, can do to the log, and who finds it.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::core::{Hash, Message, Queue, TxnId, entry_hash};
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Finding, KeySource};
use oplog_tests::models::*;
use oplog_tests::schema::*;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::db::{Conn, Db};
use crate::evidence::*;
use crate::sabotage::*;

/// `account:1` with entries 1 to 4, `account:2` with 1 and 2; `account:1/3` and `account:2/1` are of
/// one transaction.
fn log() -> (Db, Oplog, Conn) {
    let db = Db::new();
    let oplog = open(&db);
    let mut conn = db.connect();
    write(&oplog, &mut conn).unwrap();
    (db, oplog, conn)
}

fn write(oplog: &Oplog, conn: &mut Conn) -> Result<(), Error> {
    let alice: Account = oplog
        .metadata("actor", "root")
        .metadata("ticket", "4711")
        .transaction(conn, |tx| {
            tx.logged_insert((accounts::owner.eq(CANARY), accounts::email.eq("a")))
        })?;
    let alice = oplog.transaction(conn, |tx| {
        tx.logged_update(&alice, accounts::balance.eq(11))
    })?;
    let (alice, bob) = oplog.transaction(conn, |tx| {
        let alice = tx.logged_update(&alice, accounts::balance.eq(12))?;
        let bob: Account = tx.logged_insert(&NewAccount { owner: "Bob" })?;
        Ok::<_, Error>((alice, bob))
    })?;
    oplog.transaction(conn, |tx| {
        tx.logged_update(&alice, accounts::balance.eq(13))
    })?;
    oplog.transaction(conn, |tx| {
        tx.logged_update(&bob, accounts::owner.eq("Bobby"))
    })?;
    Ok(())
}

struct Attack {
    name: &'static str,
    attack: fn(&mut Conn),
    /// What the structure check finds.
    structure: &'static [&'static str],
    /// What the check of the contents finds.
    contents: &'static [&'static str],
    /// What a replay says.
    replay: &'static str,
}

fn insert_copy(conn: &mut Conn, of: i64, sequence: i64) -> QueryResult<()> {
    conn.batch_execute(&format!(
        "INSERT INTO oplog_entry (id, create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data) \
         SELECT 100 + id, create_time, version, aggregate_name, {sequence}, key_id, txn_id, metadata, data \
         FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = {of}"
    ))
}

fn hash(conn: &mut Conn, aggregate: &str, sequence: i64) -> Hash {
    entry_hash(&data(conn, aggregate, sequence))
}

/// Attacks T1 to T24 of the threat model that need no key and no checkpoint.
const ATTACKS: &[Attack] = &[
    Attack {
        name: "T1: one bit of a ciphertext",
        attack: |conn| flip(conn, "account:1", 2, -20),
        structure: &["account:1/3 broken"],
        contents: &["account:1/2 integrity", "account:1/3 broken"],
        replay: "account:1/2 integrity",
    },
    Attack {
        name: "T2: one bit of the newest entry",
        attack: |conn| flip(conn, "account:1", 4, -1),
        structure: &["account:1 ticket 5 5"],
        contents: &["account:1 ticket 5 5", "account:1/4 integrity"],
        replay: "account:1/4 integrity",
    },
    Attack {
        name: "T3: the same, and the ticket fits",
        attack: |conn| {
            flip(conn, "account:1", 4, -1);
            let hash = hash(conn, "account:1", 4);
            set_ticket(conn, "account:1", 5, &hash);
        },
        structure: &[],
        contents: &["account:1/4 integrity"],
        replay: "account:1/4 integrity",
    },
    Attack {
        name: "T4: an entry in the middle is gone",
        attack: |conn| {
            run(
                conn,
                "DELETE FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 2",
            )
        },
        structure: &["account:1/3 gap"],
        contents: &["account:1/3 gap"],
        replay: "account:1/3 gap",
    },
    Attack {
        name: "T4: the first entry is gone",
        attack: |conn| {
            run(
                conn,
                "DELETE FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 1",
            )
        },
        structure: &["account:1/2 gap"],
        contents: &["account:1/2 gap"],
        replay: "account:1/2 gap",
    },
    Attack {
        name: "the last entry is gone",
        attack: |conn| {
            run(
                conn,
                "DELETE FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 4",
            )
        },
        structure: &["account:1 ticket 5 4"],
        contents: &["account:1 ticket 5 4"],
        replay: "account:1/4 missing",
    },
    Attack {
        name: "all entries of an aggregate are gone",
        attack: |conn| {
            run(
                conn,
                "DELETE FROM oplog_entry WHERE aggregate_name = 'account:2'",
            )
        },
        structure: &["account:2 ticket 3 1"],
        contents: &["account:2 ticket 3 1"],
        replay: "account:2/1 missing",
    },
    Attack {
        name: "T5, T7: the last entry is gone and the ticket fits, which only an anchor can tell",
        attack: |conn| {
            run(
                conn,
                "DELETE FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 4",
            );
            let hash = hash(conn, "account:1", 3);
            set_ticket(conn, "account:1", 4, &hash);
        },
        structure: &[],
        contents: &[],
        replay: "ok",
    },
    Attack {
        name: "T8: two entries of an aggregate have swapped their envelopes",
        attack: |conn| {
            let (one, two) = (data(conn, "account:1", 1), data(conn, "account:1", 2));
            set_data(conn, "account:1", 1, &two);
            set_data(conn, "account:1", 2, &one);
        },
        structure: &[
            "account:1/1 column sequence",
            "account:1/2 column sequence",
            "account:1/3 gap",
        ],
        contents: &[
            "account:1/1 column sequence",
            "account:1/2 column sequence",
            "account:1/3 gap",
        ],
        replay: "account:1/1 column sequence",
    },
    Attack {
        name: "T8: entries of two aggregates have swapped their envelopes",
        attack: |conn| {
            let (one, two) = (data(conn, "account:1", 2), data(conn, "account:2", 2));
            set_data(conn, "account:1", 2, &two);
            set_data(conn, "account:2", 2, &one);
        },
        structure: &[
            "account:1/2 column aggregate_name",
            "account:1/3 gap",
            "account:2 ticket 3 2",
            "account:2/2 column aggregate_name",
        ],
        contents: &[
            "account:1/2 column aggregate_name",
            "account:1/3 gap",
            "account:2 ticket 3 2",
            "account:2/2 column aggregate_name",
        ],
        replay: "account:1/2 column aggregate_name",
    },
    Attack {
        name: "T9: two entries have swapped their numbers",
        attack: |conn| {
            set(conn, "account:1", 2, "sequence = 99");
            set(conn, "account:1", 3, "sequence = 2");
            set(conn, "account:1", 99, "sequence = 3");
        },
        structure: &[
            "account:1/2 column sequence",
            "account:1/3 column sequence",
            "account:1/4 gap",
        ],
        contents: &[
            "account:1/2 column sequence",
            "account:1/3 column sequence",
            "account:1/4 gap",
        ],
        replay: "account:1/3 column sequence",
    },
    Attack {
        name: "T9: an entry has no number that is one",
        attack: |conn| set(conn, "account:1", 4, "sequence = -4"),
        structure: &["account:1 ticket 5 4", "account:1/0 column sequence"],
        contents: &["account:1 ticket 5 4", "account:1/0 column sequence"],
        replay: "account:1/4 missing",
    },
    Attack {
        name: "T10: an entry has moved to another aggregate",
        attack: |conn| {
            set(
                conn,
                "account:2",
                2,
                "aggregate_name = 'account:1', sequence = 5",
            )
        },
        structure: &["account:1/5 column aggregate_name", "account:2 ticket 3 2"],
        contents: &["account:1/5 column aggregate_name", "account:2 ticket 3 2"],
        replay: "account:1/5 ticket",
    },
    Attack {
        name: "T10: the same, and the tickets fit",
        attack: |conn| {
            set(
                conn,
                "account:2",
                2,
                "aggregate_name = 'account:1', sequence = 5",
            );
            let (one, two) = (hash(conn, "account:1", 5), hash(conn, "account:2", 1));
            set_ticket(conn, "account:1", 6, &one);
            set_ticket(conn, "account:2", 2, &two);
        },
        structure: &["account:1 ticket 6 5", "account:1/5 column aggregate_name"],
        contents: &["account:1 ticket 6 5", "account:1/5 column aggregate_name"],
        replay: "account:1/5 column aggregate_name",
    },
    Attack {
        name: "T11: an old entry stands again as the newest",
        attack: |conn| {
            insert_copy(conn, 2, 5).unwrap();
            let hash = hash(conn, "account:1", 2);
            set_ticket(conn, "account:1", 6, &hash);
        },
        structure: &["account:1 ticket 6 5", "account:1/5 column sequence"],
        contents: &["account:1 ticket 6 5", "account:1/5 column sequence"],
        replay: "account:1/5 column sequence",
    },
    Attack {
        name: "T12: an entry stands twice",
        attack: |conn| {
            unconstrain(conn);
            insert_copy(conn, 2, 2).unwrap();
        },
        structure: &["account:1/2 duplicate"],
        contents: &["account:1/2 duplicate"],
        replay: "account:1/2 duplicate",
    },
    Attack {
        name: "T13: a value of the metadata",
        attack: |conn| {
            let mut metadata = bytes(
                conn,
                "SELECT metadata AS value FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 1",
            );
            let last = metadata.len() - 1;
            metadata[last] ^= 1;
            set(
                conn,
                "account:1",
                1,
                &format!("metadata = {}", blob(&metadata)),
            );
        },
        structure: &["account:1/1 column metadata", "account:1/2 gap"],
        contents: &["account:1/1 column metadata", "account:1/2 gap"],
        replay: "account:1/1 column metadata",
    },
    Attack {
        name: "T14: the metadata of another entry",
        attack: |conn| {
            let metadata = bytes(
                conn,
                "SELECT metadata AS value FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 1",
            );
            set(
                conn,
                "account:1",
                2,
                &format!("metadata = {}", blob(&metadata)),
            );
        },
        structure: &["account:1/2 column metadata", "account:1/3 gap"],
        contents: &["account:1/2 column metadata", "account:1/3 gap"],
        replay: "account:1/2 column metadata",
    },
    Attack {
        name: "T14: no metadata",
        attack: |conn| set(conn, "account:1", 1, &format!("metadata = {}", blob(&[]))),
        structure: &["account:1/1 column metadata", "account:1/2 gap"],
        contents: &["account:1/1 column metadata", "account:1/2 gap"],
        replay: "account:1/1 column metadata",
    },
    Attack {
        name: "T15: the key of the column",
        attack: |conn| {
            set(
                conn,
                "account:1",
                2,
                &format!("key_id = {}", blob(&[7; 16])),
            )
        },
        structure: &["account:1/2 column key_id", "account:1/3 gap"],
        contents: &["account:1/2 column key_id", "account:1/3 gap"],
        replay: "account:1/2 column key_id",
    },
    Attack {
        name: "a key of the column that is too short",
        attack: |conn| set(conn, "account:1", 2, &format!("key_id = {}", blob(&[7; 3]))),
        structure: &["account:1/2 column key_id", "account:1/3 gap"],
        contents: &["account:1/2 column key_id", "account:1/3 gap"],
        replay: "account:1/2 column key_id",
    },
    Attack {
        name: "T16: the key of header and column",
        attack: |conn| {
            let mut data = data(conn, "account:1", 2);
            let id = bytes(conn, "SELECT id AS value FROM oplog_key");
            let at = data
                .windows(16)
                .position(|window| window == id.as_slice())
                .unwrap();
            data[at..at + 16].copy_from_slice(&[7; 16]);
            set_data(conn, "account:1", 2, &data);
            set(
                conn,
                "account:1",
                2,
                &format!("key_id = {}", blob(&[7; 16])),
            );
        },
        structure: &["account:1/3 broken"],
        contents: &["account:1/2 unknown key", "account:1/3 broken"],
        replay: "account:1/2 unknown key",
    },
    Attack {
        name: "the transaction of the column is gone",
        attack: |conn| set(conn, "account:2", 1, "txn_id = NULL"),
        structure: &["account:2/1 column txn_id", "account:2/2 gap"],
        contents: &["account:2/1 column txn_id", "account:2/2 gap"],
        replay: "account:2/1 column txn_id",
    },
    Attack {
        name: "another transaction",
        attack: |conn| {
            set(
                conn,
                "account:2",
                1,
                &format!("txn_id = {}", blob(&[7; 16])),
            )
        },
        structure: &["account:2/1 column txn_id", "account:2/2 gap"],
        contents: &["account:2/1 column txn_id", "account:2/2 gap"],
        replay: "account:2/1 column txn_id",
    },
    Attack {
        name: "a transaction where there was none",
        attack: |conn| set(conn, "account:1", 2, &format!("txn_id = {}", blob(&[]))),
        structure: &["account:1/2 column txn_id", "account:1/3 gap"],
        contents: &["account:1/2 column txn_id", "account:1/3 gap"],
        replay: "account:1/2 column txn_id",
    },
    Attack {
        name: "the time",
        attack: |conn| set(conn, "account:1", 2, "create_time = create_time - 1"),
        structure: &["account:1/2 column create_time", "account:1/3 gap"],
        contents: &["account:1/2 column create_time", "account:1/3 gap"],
        replay: "account:1/2 column create_time",
    },
    Attack {
        name: "the earliest time",
        attack: |conn| set(conn, "account:1", 2, "create_time = -9223372036854775807"),
        structure: &["account:1/2 column create_time", "account:1/3 gap"],
        contents: &["account:1/2 column create_time", "account:1/3 gap"],
        replay: "account:1/2 column create_time",
    },
    Attack {
        name: "the version",
        attack: |conn| set(conn, "account:1", 2, "version = -1"),
        structure: &["account:1/2 column version", "account:1/3 gap"],
        contents: &["account:1/2 column version", "account:1/3 gap"],
        replay: "account:1/2 column version",
    },
    Attack {
        name: "the name of the aggregate",
        attack: |conn| set(conn, "account:1", 2, "aggregate_name = ''"),
        structure: &["/2 column aggregate_name", "account:1/3 gap"],
        contents: &["/2 column aggregate_name", "account:1/3 gap"],
        replay: "/2 ticket",
    },
    Attack {
        name: "the order of two entries",
        attack: |conn| {
            run(
                conn,
                "UPDATE oplog_entry SET id = 100 WHERE aggregate_name = 'account:1' AND sequence = 2",
            )
        },
        structure: &["account:1/2 duplicate", "account:1/3 gap"],
        contents: &["account:1/2 duplicate", "account:1/3 gap"],
        replay: "account:1/3 gap",
    },
    Attack {
        name: "an entry behind the beginning",
        attack: |conn| {
            run(
                conn,
                "UPDATE oplog_entry SET id = -5 WHERE aggregate_name = 'account:1' AND sequence = 2",
            )
        },
        structure: &["account:1/1 duplicate", "account:1/2 gap"],
        contents: &["account:1/1 duplicate", "account:1/2 gap"],
        replay: "account:1/2 gap",
    },
    Attack {
        name: "T21: a suite that would be plain text",
        attack: |conn| {
            let mut data = data(conn, "account:1", 4);
            data[4] = 0xf0;
            set_data(conn, "account:1", 4, &data);
            set_ticket(conn, "account:1", 5, &entry_hash(&data));
        },
        structure: &["account:1 ticket 5 4", "account:1/4 suite 240"],
        contents: &["account:1 ticket 5 4", "account:1/4 suite 240"],
        replay: "account:1/4 suite 240",
    },
    Attack {
        name: "T22: an unknown version",
        attack: |conn| {
            let mut data = data(conn, "account:1", 4);
            data[3] = 9;
            set_data(conn, "account:1", 4, &data);
        },
        structure: &["account:1 ticket 5 4", "account:1/4 version 9"],
        contents: &["account:1 ticket 5 4", "account:1/4 version 9"],
        replay: "account:1/4 version 9",
    },
    Attack {
        name: "T22: an unknown flag",
        attack: |conn| {
            let mut data = data(conn, "account:1", 4);
            data[5] = 2;
            set_data(conn, "account:1", 4, &data);
        },
        structure: &["account:1 ticket 5 4", "account:1/4 malformed flags"],
        contents: &["account:1 ticket 5 4", "account:1/4 malformed flags"],
        replay: "account:1/4 malformed flags",
    },
    Attack {
        name: "T23: the ticket is back by one",
        attack: |conn| {
            run(
                conn,
                "UPDATE oplog_ticket SET version = 4 WHERE name = 'account:1'",
            )
        },
        structure: &["account:1 ticket 4 5"],
        contents: &["account:1 ticket 4 5"],
        replay: "account:1/4 ticket",
    },
    Attack {
        name: "T23: the same, and the hash fits",
        attack: |conn| {
            let hash = hash(conn, "account:1", 3);
            set_ticket(conn, "account:1", 4, &hash);
        },
        structure: &["account:1 ticket 4 5"],
        contents: &["account:1 ticket 4 5"],
        replay: "account:1/4 ticket",
    },
    Attack {
        name: "the ticket is ahead",
        attack: |conn| {
            run(
                conn,
                "UPDATE oplog_ticket SET version = 9223372036854775807 WHERE name = 'account:1'",
            )
        },
        structure: &["account:1 ticket 9223372036854775807 5"],
        contents: &["account:1 ticket 9223372036854775807 5"],
        replay: "account:1/5 missing",
    },
    Attack {
        name: "T24: the hash of the ticket",
        attack: |conn| set_ticket(conn, "account:1", 5, &Hash::from_bytes([7; 32])),
        structure: &["account:1 ticket 5 5"],
        contents: &["account:1 ticket 5 5"],
        replay: "account:1/4 ticket",
    },
    Attack {
        name: "the epoch of the ticket",
        attack: |conn| {
            run(
                conn,
                "UPDATE oplog_ticket SET epoch = 2 WHERE name = 'account:1'",
            )
        },
        structure: &["account:1 ticket 5 5"],
        contents: &["account:1 ticket 5 5"],
        // It says nothing about rows.
        replay: "ok",
    },
    Attack {
        name: "a ticket of nothing",
        attack: |conn| {
            let hash = blob(&[7; 32]);
            run(
                conn,
                &format!(
                    "INSERT INTO oplog_ticket (name, version, head_hash, epoch) VALUES ('z', 1, {hash}, 1)"
                ),
            );
        },
        structure: &["z ticket 1 1"],
        contents: &["z ticket 1 1"],
        replay: "z/0 ticket",
    },
    Attack {
        name: "a ticket is gone",
        attack: |conn| run(conn, "DELETE FROM oplog_ticket WHERE name = 'account:1'"),
        structure: &["account:1 ticket 0 5"],
        contents: &["account:1 ticket 0 5"],
        replay: "account:1/1 ticket",
    },
    Attack {
        name: "all tickets are gone",
        attack: |conn| run(conn, "DELETE FROM oplog_ticket"),
        structure: &["account:1 ticket 0 5", "account:2 ticket 0 3"],
        contents: &["account:1 ticket 0 5", "account:2 ticket 0 3"],
        replay: "account:1/1 ticket",
    },
    Attack {
        name: "a short envelope",
        attack: |conn| set_data(conn, "account:1", 4, b"OPL\x01\x01"),
        structure: &["account:1 ticket 5 4", "account:1/4 malformed cut"],
        contents: &["account:1 ticket 5 4", "account:1/4 malformed cut"],
        replay: "account:1/4 malformed cut",
    },
    Attack {
        name: "no envelope",
        attack: |conn| set_data(conn, "account:1", 4, b""),
        structure: &["account:1 ticket 5 4", "account:1/4 malformed cut"],
        contents: &["account:1 ticket 5 4", "account:1/4 malformed cut"],
        replay: "account:1/4 malformed cut",
    },
    Attack {
        name: "T39: an aggregate's length that lies",
        attack: |conn| {
            let mut data = data(conn, "account:1", 4);
            let at = data
                .windows(9)
                .position(|window| window == b"account:1")
                .unwrap();
            data[at - 2..at].copy_from_slice(&[0xff; 2]);
            set_data(conn, "account:1", 4, &data);
        },
        structure: &[
            "account:1 ticket 5 4",
            "account:1/4 malformed aggregate length",
        ],
        contents: &[
            "account:1 ticket 5 4",
            "account:1/4 malformed aggregate length",
        ],
        replay: "account:1/4 malformed aggregate length",
    },
];

/// Whoever owns the database chooses the names in it, and must not be able to write lines of a
/// report that way, to control the terminal that shows it or to fill pages of it.
#[test]
fn a_name_writes_no_lines_into_a_report() {
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    disarm(conn);
    let check = |shown: &str| {
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.len() < 4096, "{} bytes", shown.len());
    };
    let name = format!(
        "account:1\n\u{1b}[2Jthe log is intact{}",
        " ".repeat(20_000)
    );
    for attack in [
        format!("UPDATE oplog_entry SET aggregate_name = '{name}' WHERE sequence = 4"),
        format!(
            "INSERT INTO oplog_ticket SELECT '{name}', version, head_hash, epoch FROM oplog_ticket WHERE name = 'account:1'"
        ),
    ] {
        undone(conn, |conn| {
            run(conn, &attack);
            let report = oplog.verify_structure(conn).unwrap();
            assert!(!report.is_intact());
            for finding in report.findings {
                check(&finding.to_string());
            }
            for entry in oplog.entries(conn) {
                let mut cause = entry
                    .as_ref()
                    .err()
                    .map(|error| error as &dyn std::error::Error);
                while let Some(error) = cause {
                    check(&error.to_string());
                    cause = error.source();
                }
            }
        });
    }
}

#[test]
fn every_attack_is_found() {
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    assert_eq!(structure(&oplog, conn), Vec::<String>::new());
    assert_eq!(contents(&oplog, conn), Vec::<String>::new());
    disarm(conn);
    let mut wrong = Vec::new();
    for Attack {
        name,
        attack,
        structure: expected,
        contents: expected_contents,
        replay,
    } in ATTACKS
    {
        undone(conn, |conn| {
            attack(conn);
            let mut is = |what: &str, found: String, expected: String| {
                if found != expected {
                    wrong.push(format!(
                        "{name}, {what}\n  found    {found}\n  expected {expected}"
                    ));
                }
            };
            is(
                "structure",
                format!("{:?}", structure(&oplog, conn)),
                format!("{expected:?}"),
            );
            is(
                "contents",
                format!("{:?}", contents(&oplog, conn)),
                format!("{expected_contents:?}"),
            );
            is("replay", replaying(&oplog, conn), (*replay).to_owned());
            for error in reading(&oplog, conn) {
                let known = expected_contents.iter().any(|expected| *expected == error);
                is(
                    "entries",
                    error.clone(),
                    if known { error } else { "nothing".to_owned() },
                );
            }
        });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(contents(&oplog, conn), Vec::<String>::new());
}

/// T28: both logs are under one key-encryption key.
#[test]
fn an_entry_of_another_log_is_found() {
    let (db, oplog, mut conn) = log();
    let other = Db::new();
    std::fs::copy(
        db.folder().join("oplog.key"),
        other.folder().join("oplog.key"),
    )
    .unwrap();
    let mut other_conn = other.connect();
    let other_oplog = open(&other);
    write(&other_oplog, &mut other_conn).unwrap();
    assert_ne!(oplog.log_id(), other_oplog.log_id());
    disarm(&mut conn);
    let of = "FROM oplog_entry WHERE aggregate_name = 'account:1' AND sequence = 4";
    let foreign = data(&mut other_conn, "account:1", 4);
    let key_id = bytes(&mut other_conn, &format!("SELECT key_id AS value {of}"));
    let time = number(
        &mut other_conn,
        &format!("SELECT create_time AS value {of}"),
    );
    set_data(&mut conn, "account:1", 4, &foreign);
    set(
        &mut conn,
        "account:1",
        4,
        &format!("create_time = {time}, key_id = {}", blob(&key_id)),
    );
    set_ticket(&mut conn, "account:1", 5, &entry_hash(&foreign));
    let expected = ["account:1 ticket 5 4", "account:1/4 wrong log"];
    assert_eq!(structure(&oplog, &mut conn), expected);
    assert_eq!(contents(&oplog, &mut conn), expected);
    assert_eq!(replaying(&oplog, &mut conn), "account:1/4 unknown key");
}

#[test]
fn the_database_refuses_to_change_the_log() {
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    let entry = "(create_time, version, aggregate_name, sequence, key_id, metadata, data)";
    let key = blob(&[7; 16]);
    let envelope = blob(b"OPL\x01\x01");
    let none = blob(&[]);
    let mut refused = vec![
        "UPDATE oplog_entry SET create_time = 0".to_owned(),
        "UPDATE oplog_entry SET data = data WHERE sequence = 1".to_owned(),
        "DELETE FROM oplog_entry".to_owned(),
        "DELETE FROM oplog_entry WHERE sequence = 4".to_owned(),
        "DELETE FROM oplog_ticket".to_owned(),
        "DELETE FROM oplog_log".to_owned(),
        "INSERT INTO oplog_log (only_row, log_id, epoch) SELECT 2, log_id, epoch FROM oplog_log"
            .to_owned(),
        "UPDATE oplog_ticket SET version = 0".to_owned(),
        format!("UPDATE oplog_ticket SET head_hash = {key}"),
        // No envelope, a sequence that is there, a key that is none.
        format!("INSERT INTO oplog_entry {entry} VALUES (0, 2, 'a', 1, {key}, {none}, {key})"),
        format!(
            "INSERT INTO oplog_entry {entry} VALUES (0, 2, 'account:1', 1, {key}, {none}, {envelope})"
        ),
        format!(
            "INSERT INTO oplog_entry {entry} VALUES (0, 2, 'a', 1, {none}, {none}, {envelope})"
        ),
        format!("INSERT INTO oplog_entry {entry} VALUES (0, 2, 'a', 0, {key}, {none}, {envelope})"),
    ];
    if is_postgres() {
        refused.extend(
            [
                "oplog_entry",
                "oplog_ticket",
                "oplog_log",
                "oplog_metadata",
                "oplog_entry, oplog_metadata",
            ]
            .map(|table| format!("TRUNCATE {table} CASCADE")),
        );
    } else {
        let all = "INSERT OR REPLACE INTO oplog_entry (id, create_time, version, aggregate_name, sequence, key_id, metadata, data)";
        refused.extend([
            format!("{all} VALUES (1, 0, 2, 'other', 1, {key}, {none}, {envelope})"),
            format!("{all} VALUES (99, 0, 2, 'account:1', 1, {key}, {none}, {envelope})"),
            format!("REPLACE INTO oplog_entry {entry} VALUES (0, 2, 'account:1', 4, {key}, {none}, {envelope})"),
            "INSERT OR REPLACE INTO oplog_entry SELECT * FROM oplog_entry".to_owned(),
            "UPDATE OR REPLACE oplog_entry SET sequence = 1".to_owned(),
        ]);
    }
    for statement in refused {
        let refused = undone(conn, |conn| conn.batch_execute(&statement).is_err());
        assert!(refused, "{statement}");
    }
    assert_eq!(contents(&oplog, conn), Vec::<String>::new());
}

#[test]
fn the_database_refuses_an_empty_envelope() {
    let db = Db::new();
    let (key, none) = (blob(&[7; 16]), blob(&[]));
    let statement = format!(
        "INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, metadata, data) \
         VALUES (0, 2, 'a', 1, {key}, {none}, {none})"
    );
    assert!(db.connect().batch_execute(&statement).is_err());
}

#[test]
fn a_writer_does_not_go_on_with_a_ticket_that_was_set_back() {
    let (_db, oplog, mut conn) = log();
    let before = hash(&mut conn, "account:1", 3);
    set_ticket(&mut conn, "account:1", 4, &before);
    let error = oplog
        .transaction(&mut conn, |tx| {
            tx.logged_update_where::<Account, _, _>(
                accounts::table.find(1),
                accounts::balance.eq(0),
            )
        })
        .unwrap_err();
    shown(&error);
    assert!(matches!(error, Error::Store { .. }), "{error:?}");
    assert_eq!(
        number(
            &mut conn,
            "SELECT balance AS value FROM accounts WHERE id = 1"
        ),
        13
    );
    run(&mut conn, "UPDATE oplog_ticket SET epoch = 2");
    let error = oplog
        .transaction(&mut conn, |tx| {
            tx.logged_update_where::<Account, _, _>(
                accounts::table.find(1),
                accounts::balance.eq(0),
            )
        })
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Epoch {
                expected: 1,
                found: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn malformed_tickets_and_identities_are_typed_errors() {
    let (db, oplog, mut conn) = log();
    let conn = &mut conn;
    disarm(conn);
    let attacks = [
        "UPDATE oplog_ticket SET version = -1 WHERE name = 'account:1'".to_owned(),
        "UPDATE oplog_ticket SET epoch = -1 WHERE name = 'account:1'".to_owned(),
        format!(
            "UPDATE oplog_ticket SET head_hash = {} WHERE name = 'account:1'",
            blob(&[7; 31])
        ),
    ];
    for attack in attacks {
        undone(conn, |conn| {
            run(conn, &attack);
            assert!(!structure(&oplog, conn).is_empty(), "{attack}");
            assert_ne!(replaying(&oplog, conn), "ok", "{attack}");
            assert!(
                matches!(oplog.frontier(conn).unwrap_err(), Error::Store { .. }),
                "{attack}"
            );
        });
    }
    // Opening again looks at `oplog_log`.
    let key = key_file(&db);
    let attacks = [
        (format!("UPDATE oplog_log SET log_id = {}", blob(&[7; 15])), "reading the log's identity"),
        ("UPDATE oplog_log SET epoch = -1".to_owned(), "reading the log's identity"),
        ("DELETE FROM oplog_log".to_owned(), "exactly one row"),
        (
            "INSERT INTO oplog_log (only_row, log_id, epoch) SELECT 2, log_id, epoch FROM oplog_log".to_owned(),
            "exactly one row",
        ),
        // The wraps are bound to the log.
        (format!("UPDATE oplog_log SET log_id = {}", blob(&[7; 16])), "could not be unwrapped"),
    ];
    for (attack, expected) in attacks {
        let error = undone(conn, |conn| {
            run(conn, &attack);
            shown(&Oplog::builder().key(key.clone()).open(conn).unwrap_err())
        });
        assert!(error.contains(expected), "{attack}: {error}");
    }
}

/// SQLite stores any type in any column; a reader must survive it.
#[test]
fn values_of_foreign_types_are_found() {
    if is_postgres() {
        return;
    }
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    disarm(conn);
    let columns = [
        "create_time",
        "version",
        "aggregate_name",
        "sequence",
        "key_id",
        "txn_id",
        "metadata",
        "data",
    ];
    let values = [
        "'text'",
        "X'ff00fe'",
        "1.5",
        "CAST(X'fffe00c3' AS TEXT)",
        "9e99",
        "zeroblob(100000)",
    ];
    for column in columns {
        for value in values {
            undone(conn, |conn| {
                set(conn, "account:1", 2, &format!("{column} = {value}"));
                for found in [structure(&oplog, conn), contents(&oplog, conn)] {
                    assert!(!found.is_empty(), "{column} = {value}");
                }
                assert_ne!(replaying(&oplog, conn), "ok", "{column} = {value}");
                reading(&oplog, conn);
            });
        }
    }
    for column in ["name", "version", "head_hash", "epoch"] {
        for value in values {
            undone(conn, |conn| {
                run(
                    conn,
                    &format!("UPDATE oplog_ticket SET {column} = {value} WHERE name = 'account:1'"),
                );
                // 1.5 is read as 1, which is what it was.
                let same = (column, value) == ("epoch", "1.5");
                assert!(
                    same || !structure(&oplog, conn).is_empty(),
                    "{column} = {value}"
                );
                // The epoch says nothing about rows.
                assert!(
                    column == "epoch" || replaying(&oplog, conn) != "ok",
                    "{column} = {value}"
                );
            });
        }
    }
}

#[test]
fn an_oversized_envelope_is_refused() {
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    disarm(conn);
    let mut long = data(conn, "account:1", 4);
    // The longer one takes more than any row does, and is not even read.
    for len in [17 << 20, 22 << 20] {
        long.resize(len, 0);
        diesel::sql_query(if is_postgres() {
            "UPDATE oplog_entry SET data = $1 WHERE aggregate_name = 'account:1' AND sequence = 4"
        } else {
            "UPDATE oplog_entry SET data = ? WHERE aggregate_name = 'account:1' AND sequence = 4"
        })
        .bind::<diesel::sql_types::Binary, _>(&long)
        .execute(conn)
        .unwrap();
        assert_eq!(
            structure(&oplog, conn),
            ["account:1 ticket 5 4", "account:1/4 too long"]
        );
        assert_eq!(replaying(&oplog, conn), "account:1/4 too long");
        let error = oplog
            .entries(conn)
            .aggregate("account:1")
            .find_map(Result::err);
        let text = shown(&error.unwrap());
        assert!(text.contains(&format!("takes {len} bytes")), "{text}");
    }
}

/// What does not fit into memory is found all the same, and by the same columns.
#[test]
fn oversized_columns_are_found() {
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    disarm(conn);
    let long = 22 << 20;
    let (bytes, text) = if is_postgres() {
        (
            format!("convert_to(repeat('x', {long}), 'UTF8')"),
            format!("repeat('x', {long})"),
        )
    } else {
        (
            format!("zeroblob({long})"),
            format!("hex(zeroblob({}))", long / 2),
        )
    };
    for (column, value) in [("key_id", &bytes), ("txn_id", &bytes), ("metadata", &bytes)] {
        undone(conn, |conn| {
            set(conn, "account:1", 4, &format!("{column} = {value}"));
            let expected = format!("account:1/4 column {column}");
            assert_eq!(
                structure(&oplog, conn),
                ["account:1 ticket 5 4", expected.as_str()]
            );
        });
    }
    undone(conn, |conn| {
        unconstrain(conn);
        set(conn, "account:1", 4, &format!("aggregate_name = {text}"));
        let report = oplog.verify_structure(conn).unwrap();
        let found: Vec<String> = report.findings.iter().map(Finding::to_string).collect();
        assert!(
            found
                .iter()
                .any(|it| it.contains("column `aggregate_name`")),
            "{found:?}"
        );
    });
}

/// Random changes of every column of an entry and of its ticket: something is found, nothing is
/// applied, nobody panics.
#[test]
fn random_changes_are_found() {
    let (_db, oplog, mut conn) = log();
    let conn = &mut conn;
    disarm(conn);
    let len = data(conn, "account:1", 2).len();
    let numbers = prop::sample::select(vec!["create_time", "version", "sequence"]);
    let byte_columns =
        prop::sample::select(vec!["key_id", "txn_id", "metadata", "data", "head_hash"]);
    let change = prop_oneof![
        // A bit or a cut of the envelope.
        (0..len, 0..8_u32, any::<bool>()).prop_map(|(at, bit, cut)| Change::Envelope {
            at,
            bit,
            cut
        }),
        (numbers, any::<i16>()).prop_map(|(column, value)| Change::Number { column, value }),
        (byte_columns, prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(column, value)| Change::Bytes { column, value }),
        "[a-z:/0-9é]{0,12}".prop_map(Change::Name),
    ];
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig {
            cases: 200,
            failure_persistence: None,
            ..ProptestConfig::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let conn = std::cell::RefCell::new(conn);
    runner
        .run(&change, |change| {
            let mut conn = conn.borrow_mut();
            let found = undone(&mut conn, |conn| {
                let before = data(conn, "account:1", 2);
                match &change {
                    Change::Envelope { at, bit, cut } => {
                        let mut data = before.clone();
                        data[*at] ^= 1 << bit;
                        data.truncate(if *cut { *at } else { len });
                        set_data(conn, "account:1", 2, &data);
                    }
                    Change::Number { column, value } => {
                        set(conn, "account:1", 2, &format!("{column} = {value}"))
                    }
                    Change::Bytes {
                        column: "head_hash",
                        value,
                    } => run(
                        conn,
                        &format!(
                            "UPDATE oplog_ticket SET head_hash = {} WHERE name = 'account:1'",
                            blob(value)
                        ),
                    ),
                    Change::Bytes { column, value } => {
                        set(conn, "account:1", 2, &format!("{column} = {}", blob(value)))
                    }
                    Change::Name(name) => {
                        set(conn, "account:1", 2, &format!("aggregate_name = '{name}'"))
                    }
                }
                reading(&oplog, conn);
                structure(&oplog, conn);
                (contents(&oplog, conn), replaying(&oplog, conn))
            });
            let same = matches!(
                change,
                Change::Number {
                    column: "version" | "sequence",
                    value: 2
                }
            );
            prop_assert!(same || !found.0.is_empty(), "{:?}", change);
            prop_assert!(same || found.1 != "ok", "{:?}", change);
            Ok(())
        })
        .unwrap();
}

#[derive(Clone, Debug)]
enum Change {
    Envelope {
        at: usize,
        bit: u32,
        cut: bool,
    },
    Number {
        column: &'static str,
        value: i16,
    },
    Bytes {
        column: &'static str,
        value: Vec<u8>,
    },
    Name(String),
}

fn queue(messages: &[(Message, Option<u32>)]) -> Vec<u8> {
    let mut queue = Queue::new();
    let mut numbered = Vec::new();
    for (message, ordinal) in messages {
        match ordinal {
            None => queue.push(message).unwrap(),
            Some(ordinal) => {
                let mut message = message.clone();
                message.ordinal = Some(*ordinal);
                let bytes = message.to_bytes();
                numbered.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                numbered.extend_from_slice(&bytes);
            }
        }
    }
    [queue.as_bytes(), &numbered].concat()
}

fn account(id: i64) -> Account {
    Account {
        id,
        owner: CANARY.to_owned(),
        balance: 0,
        email: None,
    }
}

/// What a holder of the keys may write that no writer of ours does.
#[test]
fn queues_that_lie_are_typed_errors() {
    let db = Db::new();
    let oplog = open(&db);
    let mut conn = db.connect();
    let conn = &mut conn;
    let kek = key_file(&db).keys().unwrap().remove(0);
    let forger = Forger::new(conn, &kek);
    let good = Message::create(&account(7));
    let of_no_type = {
        let mut message = good.clone();
        message.type_name = "nobody knows".into();
        queue(&[(message, None)])
    };
    let cut_row = {
        let mut message = good.clone();
        message.value.pop();
        queue(&[(good.clone(), None), (message, None)])
    };
    let other_row = {
        let mut message = good.clone();
        message.type_name = "setting".into();
        queue(&[(message, None)])
    };
    let bad_op = {
        let mut bytes = queue(&[(good.clone(), None)]);
        // Field 3 of the message is the operation.
        let at = bytes
            .windows(2)
            .position(|window| window == [0x18, 1])
            .unwrap();
        bytes[at + 1] = 77;
        bytes
    };
    let cases = [
        (vec![0xff, 0xff, 0xff, 0xff], "a/1 queue", "a/1 queue"),
        (vec![0xff, 0xff, 0xff, 0x7f, 1], "a/1 queue", "a/1 queue"),
        (vec![0, 0, 0, 0], "a/1 queue", "a/1 queue"),
        (vec![0, 0, 0], "a/1 queue", "a/1 queue"),
        (vec![0; 4 * 10_001], "a/1 queue", "a/1 queue"),
        (bad_op, "a/1 queue", "a/1 queue"),
        (of_no_type, "", "a/1 type 0"),
        (cut_row, "", "a/1 message 1"),
        (other_row, "", "a/1 message 0"),
        (queue(&[(good.clone(), Some(0))]), "", "a/1 ordinals"),
        (
            queue(&[(Message::delete(&account(7)), None)]),
            "",
            "a/1 accounts_x (id = 7): the row is not there",
        ),
        (
            queue(&[(good.clone(), None), (good.clone(), None)]),
            "",
            "a/1 accounts_x (id = 7): the target refused the row (UniqueViolation",
        ),
        (
            queue(&[
                (good.clone(), None),
                (
                    Message::update(
                        &Account {
                            balance: 1,
                            ..account(7)
                        },
                        &Account {
                            balance: 2,
                            ..account(7)
                        },
                    )
                    .unwrap(),
                    None,
                ),
            ]),
            "",
            "a/1 accounts_x (id = 7): the row holds other values in balance",
        ),
        (
            queue(&[
                (good.clone(), None),
                (
                    Message::delete(&Account {
                        balance: 1,
                        email: Some(CANARY.to_owned()),
                        ..account(7)
                    }),
                    None,
                ),
            ]),
            "",
            "a/1 accounts_x (id = 7): the row holds other values in email, balance",
        ),
        // Nothing was done, which is no lie.
        (vec![], "", "ok"),
    ];
    for (queue, expected, replay) in cases {
        undone(conn, |conn| {
            forger.append(conn, "a", &queue, None);
            assert_eq!(structure(&oplog, conn), Vec::<String>::new());
            assert_eq!(contents(&oplog, conn).join(","), expected, "{replay}");
            let found = replaying(&oplog, conn);
            assert!(found.starts_with(replay), "{found} instead of {replay}");
        });
    }
}

#[test]
fn transactions_that_lie_are_typed_errors() {
    let db = Db::new();
    let oplog = open(&db);
    let mut conn = db.connect();
    let conn = &mut conn;
    let kek = key_file(&db).keys().unwrap().remove(0);
    let forger = Forger::new(conn, &kek);
    let txn = TxnId::from_bytes([7; 16]);
    let part = |messages: &[(i64, Option<u32>)]| {
        let messages: Vec<_> = messages
            .iter()
            .map(|(id, ordinal)| (Message::create(&account(*id)), *ordinal))
            .collect();
        queue(&messages)
    };
    let cases = [
        (
            vec![(2, part(&[(1, Some(0))])), (2, part(&[(2, Some(1))]))],
            "ok",
        ),
        // In whatever order the parts come.
        (
            vec![
                (2, part(&[(2, Some(1)), (3, Some(3))])),
                (2, part(&[(1, Some(0)), (4, Some(2))])),
            ],
            "ok",
        ),
        (vec![(2, part(&[(1, Some(0))]))], "a/1 group 1/2"),
        (
            vec![(3, part(&[(1, Some(0))])), (3, part(&[(2, Some(1))]))],
            "a/1 group 2/3",
        ),
        (
            vec![(2, part(&[(1, Some(0))])), (3, part(&[(2, Some(1))]))],
            "b/1 group 2/3",
        ),
        (
            vec![(2, part(&[(1, Some(0))])), (2, part(&[(2, Some(0))]))],
            "b/1 ordinals",
        ),
        (
            vec![(2, part(&[(1, Some(0))])), (2, part(&[(2, Some(2))]))],
            "b/1 ordinals",
        ),
        (
            vec![(2, part(&[(1, Some(1))])), (2, part(&[(2, Some(2))]))],
            "b/1 ordinals",
        ),
        (
            vec![(2, part(&[(1, None)])), (2, part(&[(2, Some(0))]))],
            "a/1 ordinals",
        ),
        (
            vec![
                (2, part(&[(1, Some(u32::MAX))])),
                (2, part(&[(2, Some(0))])),
            ],
            "b/1 ordinals",
        ),
    ];
    for (parts, expected) in cases {
        undone(conn, |conn| {
            for ((count, queue), aggregate) in parts.iter().zip(["a", "b"]) {
                forger.append(conn, aggregate, queue, Some((txn, *count)));
            }
            assert_eq!(contents(&oplog, conn), Vec::<String>::new());
            assert_eq!(replaying(&oplog, conn), expected);
        });
    }
}
