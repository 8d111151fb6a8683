//! Keys: where they come from, what opens what, and what becomes of keys that were tampered with.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Barrier;

use diesel::prelude::*;
use oplog_diesel::core::{DataKey, Kek, KeyWrapError, KeyWrapper, LogId, WrapContext};
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, KeySource, KeySourceError};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, Db};
use crate::evidence::*;
use crate::sabotage::*;

/// Keys that the test holds itself.
struct Held(Vec<[u8; 32]>);

impl KeySource for Held {
    fn keys(&self) -> Result<Vec<Kek>, KeySourceError> {
        Ok(self.0.iter().map(|bytes| Kek::from_bytes(*bytes)).collect())
    }
}

fn with(db: &Db, keys: &[[u8; 32]]) -> Result<Oplog, Error> {
    Oplog::builder()
        .key(Held(keys.to_vec()))
        .open(&mut db.connect())
}

fn write(oplog: &Oplog, conn: &mut Conn, owner: &str) {
    oplog
        .transaction::<_, Account, Error, _>(conn, |tx| tx.logged_insert(&NewAccount { owner }))
        .unwrap();
}

fn keys_and_wraps(conn: &mut Conn) -> (i64, i64) {
    (
        number(conn, "SELECT count(*) AS value FROM oplog_key"),
        number(conn, "SELECT count(*) AS value FROM oplog_key_wrap"),
    )
}

/// Adds a key with its wrap, as a rotation would.
fn add_key(conn: &mut Conn, kek: &Kek, version: u32, state: &str, purpose: &str) -> DataKey {
    let key = DataKey::generate().unwrap();
    let context = WrapContext {
        log_id: log_id(conn),
        key_id: *key.id(),
        scope: "default",
        purpose,
        version,
    };
    let wrapped = blob(&kek.wrap(&context, &key).unwrap());
    let id = blob(key.id().as_bytes());
    run(
        conn,
        &format!(
            "INSERT INTO oplog_key (id, scope, purpose, version, state, created_us) \
             VALUES ({id}, 'default', '{purpose}', {version}, '{state}', 0); \
             INSERT INTO oplog_key_wrap (key_id, kek_id, wrapped) VALUES ({id}, '{kek}', {wrapped})",
            kek = kek.id().as_str(),
        ),
    );
    key
}

#[test]
fn key_files_that_are_none_are_typed_errors() {
    let db = Db::new();
    let folder = db.folder();
    let good = Kek::from_bytes([0xc5; 32]).to_text().to_string();
    let line = good.trim_end();
    let secret = &line["oplog-kek-v1:".len()..];
    let write = |name: &str, bytes: &[u8], mode: u32| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let check = |path: std::path::PathBuf, expected: &str| {
        let error = Oplog::builder()
            .key(KeyFile::new(&path))
            .open(&mut db.connect())
            .unwrap_err();
        assert!(matches!(error, Error::KeySource(_)), "{error:?}");
        let text = shown(&error);
        assert!(text.contains(expected), "{expected}: {text}");
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        let all = format!("{text} {error:?}");
        for part in [
            &secret[..12],
            &secret[20..32],
            "foreign",
            "c5c5",
            "197, 197",
        ] {
            assert!(!all.contains(part), "{all}");
        }
    };
    check(folder.join("missing"), "could not be opened");
    check(folder.to_owned(), "");
    for mode in [0o640, 0o604, 0o620, 0o660, 0o666, 0o601, 0o777, 0o4644] {
        check(
            write("mode", good.as_bytes(), mode),
            &format!("has mode {mode:04o}"),
        );
    }
    let foreign = [
        String::new(),
        "\n".to_owned(),
        "foreign text".to_owned(),
        secret.to_owned(),
        format!("oplog-kek-v2:{secret}"),
        format!(" {line}"),
        format!("{line} "),
        format!("{line}\n\n"),
        format!("{line}\r\n"),
        format!("\u{feff}{line}"),
        format!("{line}\n{line}"),
        format!("{line}\n# foreign"),
        format!("{line}=\n"),
        line[..line.len() - 1].to_owned(),
        format!("{}!", &line[..line.len() - 1]),
        format!("{line}A"),
        line.replace("oplog", "OPLOG"),
    ];
    for text in foreign {
        check(write("text", text.as_bytes(), 0o600), "holds no keys");
    }
    check(write("binary", &[0xff; 60], 0o600), "could not be read");
    for (len, expected) in [(65_536, "holds no keys"), (65_537, "larger than")] {
        check(write("long", &vec![b'f'; len], 0o600), expected);
    }
    // A pipe, as a shell's process substitution makes one, tells no length beforehand.
    let piped = |text: String, expected: Option<&str>| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
        match expected {
            Some(expected) => check(path.into(), expected),
            None => assert_eq!(KeyFile::new(path).keys().unwrap().len(), 1),
        }
        // Whoever still writes is told that nobody reads any more.
        drop(reader);
        let _ = writing.join().unwrap();
    };
    piped(good.clone(), None);
    piped("foreign\n".repeat(10_000), Some("larger than"));
    // With and without a newline at the end, and less than what is allowed.
    for (text, mode) in [(good.as_str(), 0o600), (line, 0o400)] {
        Oplog::builder()
            .key(KeyFile::new(write("good", text.as_bytes(), mode)))
            .open(&mut db.connect())
            .unwrap();
    }
    let error = Oplog::builder().open(&mut db.connect()).unwrap_err();
    assert!(
        matches!(error, Error::KeySource(KeySourceError::Missing)),
        "{error:?}"
    );
}

#[test]
fn a_missing_key_file_is_created_once() {
    let db = Db::empty();
    for round in 0..40 {
        let path = db.folder().join(format!("{round}.key"));
        assert!(KeyFile::new(&path).keys().is_err());
        assert!(!path.exists());
        let barrier = Barrier::new(8);
        let ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        let keys = KeyFile::create_if_missing(&path).and_then(|file| file.keys());
                        keys.map(|keys| keys[0].id().as_str().to_owned())
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap().unwrap_or_else(|error| shown(&error)))
                .collect()
        });
        assert!(
            ids.iter().all(|id| id == &ids[0] && id.starts_with("k1:")),
            "{ids:?}"
        );
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
    }
    // Nothing else is left.
    assert_eq!(
        std::fs::read_dir(db.folder())
            .unwrap()
            .filter(|file| !file.as_ref().unwrap().path().ends_with("test.db"))
            .count(),
        40
    );
}

/// What a process left behind that died while it created the file.
#[test]
fn a_key_file_is_created_beside_what_a_crash_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oplog.key");
    std::fs::write(
        folder
            .path()
            .join(format!("oplog.key.{}.new", std::process::id())),
        "",
    )
    .unwrap();
    let keys = KeyFile::create_if_missing(&path).unwrap().keys();
    assert!(keys.is_ok(), "{keys:?}");
}

const CHILD: &str = "OPLOG_TEST_CHILD";

/// The variable is read in a process of its own: a test may not change its own environment.
#[test]
fn keys_come_from_the_environment() {
    if std::env::var_os(CHILD).is_some() {
        match KeyEnv::new().keys() {
            Ok(keys) => println!(
                "found {}",
                keys.iter()
                    .map(|key| key.id().as_str())
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
            Err(error) => println!("found {}", shown(&error)),
        }
        return;
    }
    let (one, two) = (Kek::from_bytes([1; 32]), Kek::from_bytes([2; 32]));
    let (one_text, two_text) = (
        one.to_text().trim_end().to_owned(),
        two.to_text().trim_end().to_owned(),
    );
    let name = format!(
        "{}::keys_come_from_the_environment",
        module_path!().split_once("::").unwrap().1
    );
    let child = |value: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD, "1")
            .env_remove("OPLOG_KEK");
        if let Some(value) = value {
            command.env("OPLOG_KEK", value);
        }
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let (_, found) = output
            .split_once("found ")
            .unwrap_or_else(|| panic!("{output}"));
        found.lines().next().unwrap().to_owned()
    };
    assert_eq!(child(Some(&one_text)), one.id().as_str());
    let both = format!("{one_text}\n{two_text}\n");
    assert_eq!(
        child(Some(&both)),
        format!("{} {}", one.id().as_str(), two.id().as_str())
    );
    assert_eq!(
        child(None),
        "the environment variable `OPLOG_KEK` is not set"
    );
    for foreign in ["", "foreign", &one_text[13..]] {
        let found = child(Some(foreign));
        assert!(found.contains("`OPLOG_KEK` holds no keys"), "{found}");
        assert!(foreign.is_empty() || !found.contains(foreign), "{found}");
    }
}

#[test]
fn another_key_does_not_open_the_log_and_makes_no_new_one() {
    let db = Db::new();
    let conn = &mut db.connect();
    let oplog = with(&db, &[[1; 32]]).unwrap();
    write(&oplog, conn, CANARY);
    let error = with(&db, &[[2; 32]]).unwrap_err();
    let wanted = Kek::from_bytes([1; 32]).id().as_str().to_owned();
    let Error::KeyNotGiven { wanted: named } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(named[..], [wanted.as_str()]);
    assert!(shown(&error).contains(&wanted));
    assert_eq!(keys_and_wraps(conn), (1, 1));
    let error = with(&db, &[]).unwrap_err();
    assert!(matches!(error, Error::KeyNotGiven { .. }), "{error:?}");
    // Old keys unwrap, wherever they stand.
    for keys in [
        vec![[2; 32], [1; 32]],
        vec![[1; 32], [2; 32]],
        vec![[3; 32], [2; 32], [1; 32]],
    ] {
        let oplog = with(&db, &keys).unwrap();
        assert_eq!(contents(&oplog, conn), [""; 0]);
    }
    assert_eq!(keys_and_wraps(conn), (1, 1));
}

#[test]
fn the_first_key_of_several_wraps_the_first_data_key() {
    let db = Db::new();
    with(&db, &[[1; 32], [2; 32]]).unwrap();
    let wraps = names(
        &mut db.connect(),
        "SELECT kek_id AS value FROM oplog_key_wrap",
    );
    assert_eq!(wraps, [Kek::from_bytes([1; 32]).id().as_str()]);
    // A new log without any key is not opened.
    let other = Db::new();
    let error = with(&other, &[]).unwrap_err();
    assert!(
        matches!(error, Error::KeySource(KeySourceError::Missing)),
        "{error:?}"
    );
    assert_eq!(keys_and_wraps(&mut other.connect()), (0, 0));
}

#[test]
fn several_processes_that_open_a_new_log_share_one_key() {
    let db = Db::new();
    let conns: Vec<Conn> = (0..8).map(|_| db.connect()).collect();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for (at, mut conn) in conns.into_iter().enumerate() {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let oplog = Oplog::builder()
                    .key(Held(vec![[1; 32]]))
                    .open(&mut conn)
                    .unwrap();
                write(&oplog, &mut conn, &format!("owner {at}"));
            });
        }
    });
    let conn = &mut db.connect();
    assert_eq!(keys_and_wraps(conn), (1, 1));
    let oplog = with(&db, &[[1; 32]]).unwrap();
    assert_eq!(contents(&oplog, conn), [""; 0]);
    assert_eq!(oplog.entries(conn).count(), 8);
}

#[test]
fn entries_of_several_data_keys_open() {
    let db = Db::new();
    let conn = &mut db.connect();
    let kek = Kek::from_bytes([1; 32]);
    write(&with(&db, &[[1; 32]]).unwrap(), conn, "under the first key");
    // The second becomes primary.
    run(conn, "UPDATE oplog_key SET state = 'retired'");
    let second = add_key(conn, &kek, 2, "primary", "entry");
    add_key(conn, &kek, 3, "pending", "entry");
    // A primary key for something else is none for entries.
    add_key(conn, &kek, 1, "primary", "something else");
    let oplog = with(&db, &[[1; 32]]).unwrap();
    write(&oplog, conn, "under the second key");
    let stored: Vec<_> = oplog.entries(conn).map(Result::unwrap).collect();
    assert_eq!(stored[1].header().key_id, *second.id());
    assert_ne!(stored[0].header().key_id, *second.id());
    assert_eq!(contents(&oplog, conn), [""; 0]);
    assert_eq!(oplog.replay(conn).into_suffix("_x").unwrap().rows, 2);
    // A key that is not there any more closes its entries and no others.
    undone(conn, |conn| {
        let id = blob(stored[0].header().key_id.as_bytes());
        run(
            conn,
            &format!("DELETE FROM oplog_key_wrap WHERE key_id = {id}"),
        );
        let oplog = Oplog::builder()
            .key(Held(vec![[1; 32]]))
            .open(conn)
            .unwrap();
        assert_eq!(structure(&oplog, conn), [""; 0]);
        assert_eq!(contents(&oplog, conn), ["account:1/1 unknown key"]);
    });
    let error = undone(conn, |conn| {
        run(
            conn,
            "UPDATE oplog_key SET state = 'primary' WHERE version = 1",
        );
        Oplog::builder()
            .key(Held(vec![[1; 32]]))
            .open(conn)
            .unwrap_err()
    });
    assert!(shown(&error).contains("another primary"), "{error:?}");
    let error = undone(conn, |conn| {
        run(conn, "UPDATE oplog_key SET state = 'retired'");
        Oplog::builder()
            .key(Held(vec![[1; 32]]))
            .open(conn)
            .unwrap_err()
    });
    assert!(matches!(error, Error::MalformedKey { .. }), "{error:?}");
    shown(&error);
    // The key that is wanted is that of the primary.
    let error = undone(conn, |conn| {
        run(
            conn,
            &format!(
                "UPDATE oplog_key_wrap SET kek_id = 'k1:other' WHERE key_id = {}",
                blob(second.id().as_bytes())
            ),
        );
        Oplog::builder()
            .key(Held(vec![[1; 32]]))
            .open(conn)
            .unwrap_err()
    });
    let Error::KeyNotGiven { wanted } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*wanted, ["k1:other"]);
}

/// T17 to T20, and every other change of a row of a key.
#[test]
fn keys_that_were_tampered_with_do_not_unwrap() {
    let db = Db::new();
    let conn = &mut db.connect();
    let kek = Kek::from_bytes([1; 32]);
    write(&with(&db, &[[1; 32]]).unwrap(), conn, CANARY);
    let second = blob(add_key(conn, &kek, 2, "pending", "entry").id().as_bytes());
    disarm(conn);
    let first = format!("key_id <> {second}");
    let wrapped = bytes(
        conn,
        &format!("SELECT wrapped AS value FROM oplog_key_wrap WHERE {first}"),
    );
    let other = bytes(
        conn,
        &format!("SELECT wrapped AS value FROM oplog_key_wrap WHERE key_id = {second}"),
    );
    let set_wrap = |bytes: &[u8]| {
        format!(
            "UPDATE oplog_key_wrap SET wrapped = {} WHERE {first}",
            blob(bytes)
        )
    };
    let mut attacks = vec![
        (
            "T17: wraps swapped",
            format!(
                "{}; UPDATE oplog_key_wrap SET wrapped = {} WHERE key_id = {second}",
                set_wrap(&other),
                blob(&wrapped)
            ),
        ),
        (
            "T18: scope",
            "UPDATE oplog_key SET scope = 'other'".to_owned(),
        ),
        (
            "purpose",
            "UPDATE oplog_key SET purpose = 'other'".to_owned(),
        ),
        (
            "version",
            "UPDATE oplog_key SET version = version + 10".to_owned(),
        ),
        (
            "negative version",
            "UPDATE oplog_key SET version = -1 WHERE version = 1".to_owned(),
        ),
        (
            "long scope",
            format!(
                "UPDATE oplog_key SET scope = '{}' WHERE version = 1",
                "s".repeat(70_000)
            ),
        ),
        ("state", "UPDATE oplog_key SET state = 'foreign'".to_owned()),
        (
            "short id",
            format!(
                "UPDATE oplog_key SET id = {} WHERE version = 1",
                blob(&[1; 15])
            ),
        ),
        (
            "other id",
            format!(
                "UPDATE oplog_key SET id = {} WHERE version = 1; UPDATE oplog_key_wrap SET key_id = {} WHERE {first}",
                blob(&[1; 16]),
                blob(&[1; 16])
            ),
        ),
        (
            "name of the key",
            "UPDATE oplog_key_wrap SET kek_id = ''".to_owned(),
        ),
        (
            "long name of the key",
            format!(
                "UPDATE oplog_key_wrap SET kek_id = '{}'",
                "k".repeat(20_000)
            ),
        ),
        (
            "long id",
            format!(
                "UPDATE oplog_key SET id = {} WHERE version = 1",
                blob(&[1; 20_000])
            ),
        ),
        ("no wraps", "DELETE FROM oplog_key_wrap".to_owned()),
        ("no keys", "DELETE FROM oplog_key".to_owned()),
        ("empty wrap", set_wrap(&[])),
        ("short wrap", set_wrap(&wrapped[..wrapped.len() - 1])),
        ("long wrap", set_wrap(&[&wrapped[..], &[0]].concat())),
        ("very long wrap", set_wrap(&vec![1; 100_000])),
    ];
    for at in 0..wrapped.len() {
        let mut bytes = wrapped.clone();
        bytes[at] ^= 0x10;
        attacks.push(("flip", set_wrap(&bytes)));
    }
    for (name, attack) in attacks {
        let error = undone(conn, |conn| {
            run(conn, &attack);
            Oplog::builder().key(Held(vec![[1; 32]])).open(conn).err()
        });
        let Some(error) = error else {
            panic!("{name} is not found")
        };
        assert!(shown(&error).len() < 4096, "{name}");
        match &error {
            Error::KeyUnwrap { source, .. } => assert!(
                matches!(
                    source,
                    KeyWrapError::Integrity { .. }
                        | KeyWrapError::Malformed { .. }
                        | KeyWrapError::UnsupportedVersion(_)
                        | KeyWrapError::NameTooLong { .. }
                ),
                "{name}: {error:?}"
            ),
            Error::MalformedKey { .. } | Error::KeyNotGiven { .. } => {}
            error => panic!("{name}: {error:?}"),
        }
    }
}

/// T19: keys that vanished with everything that tells of them.
#[test]
fn entries_whose_key_vanished_are_found() {
    let db = Db::new();
    let conn = &mut db.connect();
    let oplog = with(&db, &[[1; 32]]).unwrap();
    write(&oplog, conn, CANARY);
    run(conn, "DELETE FROM oplog_key_wrap; DELETE FROM oplog_key");
    // No new key is made, which would make the log look like a whole one that began today.
    let error = with(&db, &[[1; 32]]).unwrap_err();
    assert!(matches!(error, Error::KeysVanished), "{error:?}");
    assert_eq!(crate::fixture::count(conn, "oplog_key"), 0);
    // Who has the log open already finds that its entries are still whole.
    assert_eq!(contents(&oplog, conn), Vec::<String>::new());
}

#[test]
fn only_the_expected_log_is_opened() {
    let db = Db::new();
    let conn = &mut db.connect();
    let log_id = open(&db).log_id();
    let expect = |conn: &mut Conn, id| {
        Oplog::builder()
            .key(key_file(&db))
            .expect_log(id)
            .open(conn)
    };
    assert_eq!(expect(conn, log_id).unwrap().log_id(), log_id);
    let error = expect(conn, LogId::from_bytes([7; 16])).unwrap_err();
    assert!(
        matches!(error, Error::WrongLog { found, .. } if found == log_id),
        "{error:?}"
    );
    assert!(shown(&error).contains(&log_id.to_string()));
    let other = Db::empty();
    let error = expect(&mut other.connect(), log_id).unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error:?}");
    assert!(shown(&error).contains("run_migrations"));
}

/// Everything that the log stores, once the rows themselves are gone, holds none of their content.
#[test]
fn no_content_of_rows_is_in_the_log() {
    let db = Db::new();
    let key = key_file(&db);
    let oplog = Oplog::builder()
        .key(key.clone())
        .open(&mut db.connect())
        .unwrap();
    let conn = &mut db.connect();
    oplog
        .metadata("in", "the clear")
        .transaction(conn, |tx| {
            let row: Account =
                tx.logged_insert((accounts::owner.eq(CANARY), accounts::email.eq(CANARY)))?;
            let row = tx.logged_update(&row, accounts::owner.eq(format!("{CANARY} {CANARY}")))?;
            tx.logged_delete(&row)
        })
        .map_err(|error: Error| error)
        .unwrap();
    let kek = key.keys().unwrap().remove(0);
    let data_key = data_key(conn, &kek);
    let text = std::fs::read_to_string(db.folder().join("oplog.key")).unwrap();
    let secrets: [&[u8]; 3] = [
        CANARY.as_bytes(),
        data_key.expose_secret(),
        text["oplog-kek-v1:".len()..].trim_end().as_bytes(),
    ];
    let mut stored = Vec::new();
    if is_postgres() {
        for table in ["entry", "ticket", "metadata", "key", "key_wrap", "log"] {
            for row in names(
                conn,
                &format!("SELECT oplog_{table}::text AS value FROM oplog_{table}"),
            ) {
                stored.extend_from_slice(row.as_bytes());
                // Bytes are shown in hexadecimal.
                for hex in row.split("\\x").skip(1) {
                    let digits: Vec<u8> = hex.bytes().take_while(u8::is_ascii_hexdigit).collect();
                    let byte = |pair: &[u8]| {
                        u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                    };
                    stored.extend(digits.chunks_exact(2).map(byte));
                }
            }
        }
    } else {
        run(conn, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
        for file in ["test.db", "test.db-wal", "test.db-shm"] {
            stored.extend(std::fs::read(db.folder().join(file)).unwrap_or_default());
        }
    }
    let holds = |bytes: &[u8]| stored.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(b"account:1") && holds(b"the clear"));
    assert!(!secrets.iter().any(|secret| holds(secret)));
}
