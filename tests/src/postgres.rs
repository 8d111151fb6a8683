//! A fresh PostgreSQL database for each test, on the server that `cargo xtask test` starts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

pub type Conn = PgConnection;

/// Whether a log on this database remembers the heads of its tickets.
pub const REMEMBERS_HEADS: bool = true;

/// A database of its own, dropped with everything in it unless the test fails.
pub struct Db {
    server: String,
    name: String,
    folder: tempfile::TempDir,
}

const VARIABLE: &str = "OPLOG_TEST_POSTGRES_URL";

fn server() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!("{VARIABLE} is not set: run `cargo xtask test`, or set it to the URL of a server for tests")
    })
}

/// A connection to a URL that [`Db::url`] gave.
pub fn connect(url: &str) -> Conn {
    PgConnection::establish(url).expect("a connection")
}

impl Db {
    /// An empty database.
    pub fn empty() -> Self {
        Self::empty_on(server())
    }

    /// An empty database on the server with this URL.
    pub fn empty_on(server: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "oplog_test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut conn = PgConnection::establish(&server).expect("the server for tests");
        conn.batch_execute(&format!("DROP DATABASE IF EXISTS {name}"))
            .expect("no old database");
        conn.batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("a new database");
        Db {
            server,
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
        Self::new_on(server())
    }

    /// As [`new`](Self::new), on the server with this URL.
    pub fn new_on(server: String) -> Self {
        let db = Self::empty_on(server);
        let mut conn = db.connect();
        conn.batch_execute(include_str!("postgres.sql"))
            .expect("the tables of the tests");
        oplog_diesel::run_migrations(&mut conn).expect("the log's tables");
        db
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> String {
        let (base, query) = self
            .server
            .split_once('?')
            .map_or((self.server.as_str(), None), |(base, query)| {
                (base, Some(query))
            });
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
        connect(&self.url())
    }
}

/// The name of the database for a program that can use several.
pub const NAME: &str = "postgres";

/// Waits until nobody else is connected: the server may notice only later that a client is gone.
pub fn wait_alone(conn: &mut Conn) {
    const OTHERS: &str = "(SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend')";
    let started = Instant::now();
    let others = || diesel::select(sql::<BigInt>(OTHERS));
    while others().get_result::<i64>(conn).expect("a number") > 0 {
        let waited = started.elapsed();
        assert!(waited < Duration::from_secs(60), "somebody stays connected");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether no transaction is open, whatever Diesel thinks.
pub fn is_free(conn: &mut Conn) -> bool {
    conn.batch_execute("SAVEPOINT only_inside_of_one").is_err()
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
        } else if let Ok(mut conn) = PgConnection::establish(&self.server) {
            let _ = conn.batch_execute(&format!(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                self.name
            ));
        }
    }
}
