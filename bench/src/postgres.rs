//! PostgreSQL, one schema for each variant.

#[path = "original.rs"]
mod original;
#[path = "variants.rs"]
mod variants;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer, Text};

use crate::engine::{CommitMode, Engine};
use crate::machine;
use crate::model::Member;
use crate::variant::{Operation, Result, Variant};

pub type Conn = PgConnection;

const TRIGGER: &str = "plain + to_jsonb trigger";

pub struct Postgres {
    pub url: String,
}

/// A schema, dropped with everything in it.
pub struct Schema {
    url: String,
    name: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

#[derive(QueryableByName)]
struct Process {
    #[diesel(sql_type = Integer)]
    pid: i32,
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

impl Engine for Postgres {
    type Conn = Conn;
    type Place = Schema;

    const NAME: &'static str = "postgres";
    const TITLE: &'static str = "PostgreSQL";
    const COMMIT_MODES: &'static [CommitMode] = &[
        CommitMode {
            name: "sync",
            title: "synchronous_commit = on",
            sql: "SET synchronous_commit = on",
            waits: true,
        },
        CommitMode {
            name: "async",
            title: "synchronous_commit = off",
            sql: "SET synchronous_commit = off",
            waits: false,
        },
    ];
    const CARELESS: &'static str = "SET synchronous_commit = off";
    const TABLES: &'static str = "
        CREATE TABLE members (
            id BIGINT PRIMARY KEY,
            team_id BIGINT NOT NULL,
            name TEXT NOT NULL,
            email TEXT,
            age INTEGER NOT NULL,
            active BOOLEAN NOT NULL,
            created_at TIMESTAMP NOT NULL
        );
        CREATE TABLE original_ticket (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            create_time TIMESTAMPTZ NOT NULL DEFAULT now(),
            update_time TIMESTAMPTZ NOT NULL DEFAULT now(),
            name TEXT NOT NULL UNIQUE,
            version BIGINT NOT NULL
        );
        CREATE TABLE original_entry (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            create_time TIMESTAMPTZ NOT NULL DEFAULT now(),
            update_time TIMESTAMPTZ NOT NULL DEFAULT now(),
            version TEXT NOT NULL,
            aggregate_name TEXT NOT NULL,
            data BYTEA NOT NULL
        );
        CREATE TABLE original_metadata (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            create_time TIMESTAMPTZ NOT NULL DEFAULT now(),
            update_time TIMESTAMPTZ NOT NULL DEFAULT now(),
            entry_id BIGINT NOT NULL REFERENCES original_entry (id) ON DELETE CASCADE ON UPDATE CASCADE,
            key TEXT NOT NULL,
            value TEXT
        );
        CREATE INDEX original_metadata_key ON original_metadata (key);
        CREATE INDEX original_metadata_value ON original_metadata (value);
        CREATE TABLE audit (
            id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at TIMESTAMPTZ NOT NULL DEFAULT now(),
            table_name TEXT NOT NULL,
            operation TEXT NOT NULL,
            before JSONB,
            after JSONB
        )";
    const TRIGGER: &'static str = "
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                INSERT INTO audit (table_name, operation, after) VALUES (TG_TABLE_NAME, TG_OP, to_jsonb(NEW));
            ELSIF TG_OP = 'UPDATE' THEN
                INSERT INTO audit (table_name, operation, before, after)
                VALUES (TG_TABLE_NAME, TG_OP, to_jsonb(OLD), to_jsonb(NEW));
            ELSE
                INSERT INTO audit (table_name, operation, before) VALUES (TG_TABLE_NAME, TG_OP, to_jsonb(OLD));
            END IF;
            RETURN NULL;
        END
        $$;
        CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON members
        FOR EACH ROW EXECUTE FUNCTION audit()";

    fn about(&self) -> Result<Vec<String>> {
        let mut conn = PgConnection::establish(&self.url)?;
        let mut show = |name: &str| -> Result<String> {
            let sql = format!("SELECT current_setting('{name}') AS value");
            let setting: Setting = diesel::sql_query(sql).get_result(&mut conn)?;
            Ok(setting.value)
        };
        let mut settings = Vec::new();
        for name in [
            "fsync",
            "full_page_writes",
            "shared_buffers",
            "max_wal_size",
            "jit",
        ] {
            settings.push(format!("{name} = {}", show(name)?));
        }
        let version = show("server_version")?;
        // Only a superuser is told the folder.
        let folder = show("data_directory").unwrap_or_default();
        let place = if self.is_local() && !folder.is_empty() {
            format!(
                "over a Unix socket, data {}",
                machine::on_file_system(Path::new(&folder))
            )
        } else {
            "at the URL that was given".to_owned()
        };
        Ok(vec![format!("{version}, {place}"), settings.join(", ")])
    }

    fn place(&self) -> Result<Schema> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("oplog_bench_{}_{number}", std::process::id());
        let mut conn = PgConnection::establish(&self.url)?;
        conn.batch_execute(&format!("{}; CREATE SCHEMA {name}", Self::CARELESS))?;
        Ok(Schema {
            url: self.url.clone(),
            name,
        })
    }

    fn connect(&self, place: &Schema) -> Result<Conn> {
        let mut conn = PgConnection::establish(&self.url)?;
        conn.batch_execute(&format!("SET search_path = {}", place.name))?;
        conn.batch_execute(Self::CARELESS)?;
        Ok(conn)
    }

    fn server_process(&self, conn: &mut Conn) -> Result<Option<i32>> {
        if !self.is_local() {
            return Ok(None);
        }
        let process: Process =
            diesel::sql_query("SELECT pg_backend_pid() AS pid").get_result(conn)?;
        Ok(Some(process.pid))
    }

    fn count(conn: &mut Conn, sql: &str) -> Result<i64> {
        let counted: Count =
            diesel::sql_query(format!("SELECT ({sql})::bigint AS n")).get_result(conn)?;
        Ok(counted.n)
    }

    fn fill(conn: &mut Conn, rows: &[Member]) -> Result<()> {
        let (hundreds, rest) = rows.as_chunks::<100>();
        Ok(conn.transaction(|conn| {
            hundreds
                .iter()
                .try_for_each(|rows| variants::insert(conn, rows))?;
            rest.chunks(1)
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

impl Postgres {
    /// A server on this machine has its socket in a folder: its processes are ours to place.
    fn is_local(&self) -> bool {
        ["host=/", "host=%2F", "host=%2f"]
            .iter()
            .any(|host| self.url.contains(host))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let dropped = PgConnection::establish(&self.url)
            .map_err(|error| error.to_string())
            .and_then(|mut conn| {
                conn.batch_execute(&format!("DROP SCHEMA {} CASCADE", self.name))
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = dropped {
            eprintln!("the schema {} is left: {error}", self.name);
        }
    }
}

/// A transaction among many.
fn contended(conn: &mut Conn, body: &mut dyn FnMut(&mut Conn) -> Result<()>) -> Result<()> {
    conn.transaction(body)
}
