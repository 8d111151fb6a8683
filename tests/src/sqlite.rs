//! A fresh SQLite file for each test.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

pub type Conn = SqliteConnection;

/// A database of its own, removed with everything in it when it is dropped.
pub struct Db {
    folder: tempfile::TempDir,
}

impl Db {
    /// An empty database.
    pub fn empty() -> Self {
        Db {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
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
        let db = Self::empty();
        let mut conn = db.connect();
        conn.batch_execute(include_str!("sqlite.sql"))
            .expect("the tables of the tests");
        oplog_diesel::run_migrations(&mut conn).expect("the log's tables");
        db
    }

    pub fn url(&self) -> String {
        self.folder
            .path()
            .join("test.db")
            .to_str()
            .expect("a path in UTF-8")
            .to_owned()
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn connect(&self) -> Conn {
        let mut conn = SqliteConnection::establish(&self.url()).expect("a connection");
        conn.batch_execute(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON",
        )
        .expect("the pragmas");
        conn
    }
}

impl Default for Db {
    fn default() -> Self {
        Self::new()
    }
}
