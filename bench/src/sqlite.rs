//! SQLite, one file for each variant.

#[path = "original.rs"]
mod original;
#[path = "variants.rs"]
mod variants;

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use tempfile::TempDir;

use crate::engine::{CommitMode, Engine};
use crate::machine;
use crate::model::Member;
use crate::variant::{Operation, Result, Variant};

pub type Conn = SqliteConnection;

const TRIGGER: &str = "plain + json_object trigger";

pub struct Sqlite;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Version {
    #[diesel(sql_type = Text)]
    version: String,
}

impl Engine for Sqlite {
    type Conn = Conn;
    type Place = TempDir;

    const NAME: &'static str = "sqlite";
    const TITLE: &'static str = "SQLite";
    const COMMIT_MODES: &'static [CommitMode] = &[
        CommitMode {
            name: "normal",
            title: "journal WAL, synchronous = NORMAL",
            sql: "PRAGMA synchronous = NORMAL",
            waits: false,
        },
        CommitMode {
            name: "full",
            title: "journal WAL, synchronous = FULL",
            sql: "PRAGMA synchronous = FULL",
            waits: true,
        },
    ];
    const CARELESS: &'static str = "PRAGMA synchronous = OFF";
    const TABLES: &'static str = "
        CREATE TABLE members (
            id INTEGER PRIMARY KEY,
            team_id BIGINT NOT NULL,
            name TEXT NOT NULL,
            email TEXT,
            age INTEGER NOT NULL,
            active BOOLEAN NOT NULL,
            created_at TIMESTAMP NOT NULL
        );
        CREATE TABLE original_ticket (
            id INTEGER PRIMARY KEY,
            create_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            update_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            name TEXT NOT NULL UNIQUE,
            version BIGINT NOT NULL
        );
        CREATE TABLE original_entry (
            id INTEGER PRIMARY KEY,
            create_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            update_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            version TEXT NOT NULL,
            aggregate_name TEXT NOT NULL,
            data BLOB NOT NULL
        );
        CREATE TABLE original_metadata (
            id INTEGER PRIMARY KEY,
            create_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            update_time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            entry_id BIGINT NOT NULL REFERENCES original_entry (id) ON DELETE CASCADE,
            key TEXT NOT NULL,
            value TEXT
        );
        CREATE INDEX original_metadata_key ON original_metadata (key);
        CREATE INDEX original_metadata_value ON original_metadata (value);
        CREATE TABLE audit (
            id INTEGER PRIMARY KEY,
            at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            table_name TEXT NOT NULL,
            operation TEXT NOT NULL,
            before TEXT,
            after TEXT
        )";
    const TRIGGER: &'static str = "
        CREATE TRIGGER audit_insert AFTER INSERT ON members BEGIN
            INSERT INTO audit (table_name, operation, after) VALUES ('members', 'INSERT',
                json_object('id', NEW.id, 'team_id', NEW.team_id, 'name', NEW.name, 'email', NEW.email,
                    'age', NEW.age, 'active', NEW.active, 'created_at', NEW.created_at));
        END;
        CREATE TRIGGER audit_update AFTER UPDATE ON members BEGIN
            INSERT INTO audit (table_name, operation, before, after) VALUES ('members', 'UPDATE',
                json_object('id', OLD.id, 'team_id', OLD.team_id, 'name', OLD.name, 'email', OLD.email,
                    'age', OLD.age, 'active', OLD.active, 'created_at', OLD.created_at),
                json_object('id', NEW.id, 'team_id', NEW.team_id, 'name', NEW.name, 'email', NEW.email,
                    'age', NEW.age, 'active', NEW.active, 'created_at', NEW.created_at));
        END;
        CREATE TRIGGER audit_delete AFTER DELETE ON members BEGIN
            INSERT INTO audit (table_name, operation, before) VALUES ('members', 'DELETE',
                json_object('id', OLD.id, 'team_id', OLD.team_id, 'name', OLD.name, 'email', OLD.email,
                    'age', OLD.age, 'active', OLD.active, 'created_at', OLD.created_at));
        END";

    fn about(&self) -> Result<Vec<String>> {
        let folder = self.place()?;
        let mut conn = SqliteConnection::establish(&file(folder.path())?)?;
        let version: Version =
            diesel::sql_query("SELECT sqlite_version() AS version").get_result(&mut conn)?;
        Ok(vec![format!(
            "{}, bundled; a file for each variant {}",
            version.version,
            machine::on_file_system(folder.path())
        )])
    }

    fn place(&self) -> Result<TempDir> {
        Ok(tempfile::Builder::new().prefix("oplog-bench-").tempdir()?)
    }

    fn connect(&self, place: &TempDir) -> Result<Conn> {
        let mut conn = SqliteConnection::establish(&file(place.path())?)?;
        conn.batch_execute(
            "PRAGMA busy_timeout = 30000; PRAGMA foreign_keys = ON; PRAGMA journal_mode = WAL",
        )?;
        conn.batch_execute(Self::CARELESS)?;
        Ok(conn)
    }

    fn server_process(&self, _conn: &mut Conn) -> Result<Option<i32>> {
        Ok(None)
    }

    fn count(conn: &mut Conn, sql: &str) -> Result<i64> {
        let counted: Count = diesel::sql_query(format!("SELECT ({sql}) AS n")).get_result(conn)?;
        Ok(counted.n)
    }

    fn fill(conn: &mut Conn, rows: &[Member]) -> Result<()> {
        Ok(conn.transaction(|conn| {
            rows.chunks(1)
                .try_for_each(|row| variants::insert(conn, row))
        })?)
    }

    fn alone(operation: Operation, rows: usize) -> Vec<Variant<Conn>> {
        variants::alone(operation, rows)
    }

    fn together() -> Vec<Variant<Conn>> {
        variants::together()
    }
}

fn file(folder: &Path) -> Result<String> {
    let file = folder.join("bench.db");
    Ok(file
        .to_str()
        .ok_or("the path of the temporary folder is not UTF-8")?
        .to_owned())
}

/// A transaction among many: one that begins as a reader could not become a writer while others write.
fn contended(conn: &mut Conn, body: &mut dyn FnMut(&mut Conn) -> Result<()>) -> Result<()> {
    conn.immediate_transaction(body)
}
