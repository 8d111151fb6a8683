//! A fresh PostgreSQL database for each test, on the server that `cargo xtask test` starts.

use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

pub type Conn = PgConnection;

/// A database of its own, dropped with everything in it unless the test fails.
pub struct Db {
    name: String,
    folder: tempfile::TempDir,
}

const VARIABLE: &str = "OPLOG_TEST_POSTGRES_URL";

fn server() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!("{VARIABLE} is not set: run `cargo xtask test`, or set it to the URL of a server for tests")
    })
}

impl Db {
    /// An empty database.
    pub fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "oplog_test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut conn = PgConnection::establish(&server()).expect("the server for tests");
        conn.batch_execute(&format!("DROP DATABASE IF EXISTS {name}"))
            .expect("no old database");
        conn.batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("a new database");
        Db {
            name,
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// A database with the tables of an application that does much by itself, and the log's.
    pub fn with_side_effects() -> Self {
        let db = Self::empty();
        let mut conn = db.connect();
        conn.batch_execute(include_str!("behind_postgres.sql"))
            .expect("the tables of the tests");
        oplog_diesel::run_migrations(&mut conn).expect("the log's tables");
        db
    }

    /// A database with the application's tables and the log's.
    pub fn new() -> Self {
        let db = Self::empty();
        let mut conn = db.connect();
        conn.batch_execute(include_str!("postgres.sql"))
            .expect("the tables of the tests");
        oplog_diesel::run_migrations(&mut conn).expect("the log's tables");
        db
    }

    pub fn url(&self) -> String {
        let server = server();
        let (base, query) = server
            .split_once('?')
            .map_or((server.as_str(), None), |(base, query)| (base, Some(query)));
        let (host, _) = base
            .rsplit_once('/')
            .expect("a URL that ends in a database");
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{host}/{}{query}", self.name)
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn connect(&self) -> Conn {
        PgConnection::establish(&self.url()).expect("a connection")
    }
}

impl Default for Db {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the database {} is kept", self.name);
        } else if let Ok(mut conn) = PgConnection::establish(&server()) {
            let _ = conn.batch_execute(&format!(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                self.name
            ));
        }
    }
}
