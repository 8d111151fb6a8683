//! A fresh SQLite file for each test.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

pub type Conn = SqliteConnection;

/// Whether a log on this database remembers the heads of its tickets.
pub const REMEMBERS_HEADS: bool = false;

/// A database of its own, removed with everything in it when it is dropped.
pub struct Db {
    folder: tempfile::TempDir,
    journal: Journal,
}

/// How SQLite keeps what it needs to take a transaction back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// A write-ahead log: readers and one writer go on beside each other.
    Wal,
    /// SQLite's default: whoever commits must be alone for a moment, and others wait for it.
    Rollback,
}

const ROLLBACK: &str = "?journal=rollback";

/// A connection to a URL that [`Db::url`] gave.
pub fn connect(url: &str) -> Conn {
    let (file, pragmas) = match url.strip_suffix(ROLLBACK) {
        None => (url, "PRAGMA journal_mode = WAL"),
        Some(file) => (file, "PRAGMA busy_timeout = 10000"),
    };
    let mut conn = SqliteConnection::establish(file).expect("a connection");
    conn.batch_execute(pragmas).expect("the journal");
    conn.batch_execute("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
        .expect("the pragmas");
    conn
}

impl Db {
    /// An empty database.
    pub fn empty() -> Self {
        Db {
            folder: tempfile::tempdir().expect("a temporary folder"),
            journal: Journal::Wal,
        }
    }

    /// As [`new`](Self::new), with another journal.
    pub fn with_journal(journal: Journal) -> Self {
        let mut db = Self::empty();
        db.journal = journal;
        db.fill();
        db
    }

    /// A database with the tables of an application that does much by itself, and the log's.
    pub fn with_side_effects() -> Self {
        let db = Self::empty();
        let mut conn = db.connect();
        conn.batch_execute(include_str!("behind_sqlite.sql"))
            .expect("the tables of the tests");
        oplog_diesel::run_migrations(&mut conn).expect("the log's tables");
        db
    }

    /// A database with the application's tables and the log's.
    pub fn new() -> Self {
        Self::with_journal(Journal::Wal)
    }

    fn fill(&self) {
        let mut conn = self.connect();
        conn.batch_execute(include_str!("sqlite.sql"))
            .expect("the tables of the tests");
        oplog_diesel::run_migrations(&mut conn).expect("the log's tables");
    }

    pub fn url(&self) -> String {
        let file = self.folder.path().join("test.db");
        let file = file.to_str().expect("a path in UTF-8");
        let journal = match self.journal {
            Journal::Wal => "",
            Journal::Rollback => ROLLBACK,
        };
        format!("{file}{journal}")
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn connect(&self) -> Conn {
        connect(&self.url())
    }
}

/// The name of the database for a program that can use several.
pub const NAME: &str = "sqlite";

/// Waits until nobody else is connected. The locks of a process go with it.
pub fn wait_alone(_conn: &mut Conn) {}

/// Whether no transaction is open, whatever Diesel thinks, and one that writes can be.
pub fn is_free(conn: &mut Conn) -> bool {
    conn.batch_execute("BEGIN IMMEDIATE; ROLLBACK").is_ok()
}

impl Default for Db {
    fn default() -> Self {
        Self::new()
    }
}
