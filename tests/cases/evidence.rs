//! Opening logs, and what tests keep of errors: every error is searched for what must never be in it.

use std::error::Error as StdError;
use std::sync::Mutex;

use oplog_diesel::core::{ChainError, EnvelopeError, KeyError, OpenError};
use oplog_diesel::prelude::*;
use oplog_diesel::{EntryError, Error, Finding, KeySource};

use crate::db::{Conn, Db};

/// Content of rows, which no error may show.
pub const CANARY: &str = "canary-of-the-rows";

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The key file of a database, whose content no error may show from now on.
pub fn key_file(db: &Db) -> KeyFile {
    let path = db.folder().join("oplog.key");
    let file = KeyFile::create_if_missing(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let kek = file.keys().unwrap().remove(0);
    assert!(!format!("{kek:?}").contains(&text[13..20]));
    SECRETS.lock().unwrap().extend(
        text.lines()
            .map(|line| line["oplog-kek-v1:".len()..].to_owned()),
    );
    file
}

pub fn open(db: &Db) -> Oplog {
    Oplog::builder()
        .key(key_file(db))
        .open(&mut db.connect())
        .unwrap()
}

/// The text of an error and of its causes, after a search for secrets in it.
pub fn shown(error: &(dyn StdError + 'static)) -> String {
    let mut shown = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        shown = format!("{shown}: {error}");
        cause = error.source();
    }
    search(&format!("{shown} {error:?} {error:#?}"));
    shown
}

/// Looks for secrets in a text.
fn search(all: &str) {
    assert!(!all.contains(CANARY), "a row's content in {all}");
    // As a list of numbers, too.
    let numbers = format!("{:?}", CANARY.as_bytes());
    assert!(!all.contains(&numbers[1..20]), "a row's content in {all}");
    for secret in SECRETS.lock().unwrap().iter() {
        assert!(!all.contains(secret.as_str()), "a key in {all}");
    }
}

/// What is wrong with an entry, in a word or two.
pub fn short(error: &EntryError) -> String {
    shown(error);
    match error {
        EntryError::Envelope(EnvelopeError::Malformed { what }) => format!("malformed {what}"),
        EntryError::Envelope(EnvelopeError::TooLong { .. }) => "too long".to_owned(),
        EntryError::Envelope(EnvelopeError::UnsupportedVersion(version)) => {
            format!("version {version}")
        }
        EntryError::Envelope(EnvelopeError::SuiteRejected(suite)) => format!("suite {suite}"),
        EntryError::Column { column } => format!("column {column}"),
        EntryError::Metadata(_) => "metadata".to_owned(),
        EntryError::Chain(chain) => chain_text(chain),
        EntryError::Key(KeyError::Unknown(_)) => "unknown key".to_owned(),
        EntryError::Open(OpenError::Integrity { .. }) => "integrity".to_owned(),
        EntryError::Queue(_) => "queue".to_owned(),
        EntryError::Message { index, .. } => format!("message {index}"),
        EntryError::Type { index, .. } => format!("type {index}"),
        EntryError::Group { found, expected } => format!("group {found}/{expected}"),
        EntryError::Ordinals => "ordinals".to_owned(),
        EntryError::Ticket => "ticket".to_owned(),
        EntryError::Missing => "missing".to_owned(),
        other => panic!("not expected: {other:?}"),
    }
}

/// An error about an entry, in a few words.
pub fn brief(error: &Error) -> String {
    let text = shown(error);
    match error {
        Error::Entry {
            aggregate,
            sequence,
            source,
        } => format!("{aggregate}/{sequence} {}", short(source)),
        Error::Diverged {
            aggregate,
            sequence,
            table,
            key,
            what,
        } => {
            format!("{aggregate}/{sequence} {table} ({key}): {what}")
        }
        Error::Target { table, what } => format!("{table}: {what}"),
        _ => text,
    }
}

fn briefs(findings: Vec<Finding>) -> Vec<String> {
    let mut briefs: Vec<String> = findings
        .iter()
        .map(|finding| {
            search(&format!("{finding} {finding:?}"));
            match finding {
                Finding::Entry {
                    aggregate,
                    sequence,
                    source,
                } => format!("{aggregate}/{sequence} {}", short(source)),
                Finding::Ticket {
                    aggregate,
                    ticket,
                    entries,
                } => format!("{aggregate} ticket {ticket} {entries}"),
                other => panic!("not expected: {other:?}"),
            }
        })
        .collect();
    briefs.sort();
    briefs
}

/// What a check of the structure finds.
pub fn structure(oplog: &Oplog, conn: &mut Conn) -> Vec<String> {
    match oplog.verify_structure(conn) {
        Ok(report) => briefs(report.findings),
        Err(error) => vec![brief(&error)],
    }
}

/// What a check of the contents finds.
pub fn contents(oplog: &Oplog, conn: &mut Conn) -> Vec<String> {
    match oplog.verify_contents(conn) {
        Ok(report) => briefs(report.findings),
        Err(error) => vec![brief(&error)],
    }
}

/// What reading all entries finds.
pub fn reading(oplog: &Oplog, conn: &mut Conn) -> Vec<String> {
    let stored: Vec<_> = oplog.entries(conn).collect();
    let opened = stored
        .into_iter()
        .map(|stored| stored.and_then(|stored| oplog.open_entry(&stored)));
    opened
        .filter_map(|entry| entry.err().map(|error| brief(&error)))
        .collect()
}

/// What a replay into copies says. If it fails, it leaves none of them.
pub fn replaying(oplog: &Oplog, conn: &mut Conn) -> String {
    match oplog.replay(conn).into_suffix("_x") {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            assert!(
                !crate::sabotage::has_table(conn, "accounts_x"),
                "a copy is left"
            );
            brief(&error)
        }
    }
}

fn chain_text(chain: &ChainError) -> String {
    match chain {
        ChainError::WrongLog { .. } => "wrong log",
        ChainError::SequenceGap { .. } => "gap",
        ChainError::Duplicate { .. } => "duplicate",
        ChainError::ChainBroken { .. } => "broken",
        ChainError::EpochRegress { .. } => "epoch",
        _ => "another break of the chain",
    }
    .to_owned()
}
