//! The databases that a run can use: where it happens, and what is written for one alone.

use std::fmt;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::{Connect, LogConnection, Tx};
use tempfile::TempDir;

use crate::error::Error;
use crate::model::{Content, File, files, files_at, files_replay, oplog_entry};
use crate::tree::{Change, TreeDiff};

/// Created files are logged in chunks of this many rows, so that a first commit of any size needs
/// no more memory than its queue.
const CHUNK_ROWS: usize = 500;

/// One of the three tables of files.
#[derive(Clone, Copy, Debug)]
pub enum Table {
    /// What the commits wrote.
    Files,
    /// What the whole log was replayed into.
    Replay,
    /// What the log up to one commit was replayed into.
    At,
}

impl Table {
    /// The suffix that replay puts behind the name of the original.
    pub fn suffix(self) -> &'static str {
        match self {
            Table::Files => "",
            Table::Replay => "_replay",
            Table::At => "_at",
        }
    }
}

/// Where a run happens.
pub enum Place {
    /// A SQLite file that did not exist before.
    Sqlite { path: PathBuf },
    /// A PostgreSQL server, on which the run has two schemas of its own.
    Postgres { url: String, schema: String },
}

impl Place {
    /// The place that the command line names, a SQLite file in `folder` if it names none.
    pub fn new(url: Option<&str>, folder: &TempDir) -> Result<Self, Error> {
        let Some(url) = url else {
            return Ok(Place::Sqlite {
                path: folder.path().join("history.sqlite"),
            });
        };
        match url.split_once(':') {
            Some(("postgres" | "postgresql", _)) => {
                let random = RandomState::new().hash_one(std::process::id());
                Ok(Place::Postgres {
                    url: url.to_owned(),
                    schema: format!("git_history_{random:016x}"),
                })
            }
            Some(("sqlite", path)) => Self::file(path.strip_prefix("//").unwrap_or(path)),
            // One letter is a drive, not a scheme.
            Some((scheme, _)) if scheme.len() > 1 && scheme.chars().all(char::is_alphanumeric) => {
                Err(Error::UnknownDatabase {
                    scheme: scheme.to_owned(),
                })
            }
            _ => Self::file(url),
        }
    }

    fn file(path: &str) -> Result<Self, Error> {
        let path = PathBuf::from(path);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => Ok(Place::Sqlite { path }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::FileExists { path })
            }
            Err(source) => Err(Error::FileNotCreated { path, source }),
        }
    }

    /// Where the key file of the run lies: beside a SQLite file, else in `folder`.
    pub fn key_file(&self, folder: &TempDir) -> PathBuf {
        match self {
            Place::Sqlite { path } => {
                let mut name = path.clone().into_os_string();
                name.push(".key");
                name.into()
            }
            Place::Postgres { .. } => folder.path().join("oplog.key"),
        }
    }
}

/// A connection of a run, and what must be removed when it ends.
pub struct Session<D: Database> {
    /// The connection.
    pub conn: D,
    clean: Option<String>,
}

impl<D: Database> Drop for Session<D> {
    fn drop(&mut self) {
        if let Some(clean) = &self.clean {
            // Nothing is left to tell it to: the run has its result, or another error.
            let _ = self.conn.batch_execute(clean);
        }
    }
}

/// A database that a run can use.
pub trait Database: Connect<Connection: LogConnection> + SimpleConnection + Sized {
    /// The statement that creates the table of files.
    const CREATE_FILES: &'static str;

    /// Connects to the place of the run and prepares it.
    fn start(place: &Place) -> Result<Session<Self>, Error>;

    /// Copies the log to where it can be changed: as whoever owns the database could, without the
    /// triggers that keep entries as they are. `folder` takes files.
    fn copy_log(&mut self, place: &Place, folder: &Path) -> Result<Session<Self>, Error>;

    /// Writes a commit's changes. Returns their number.
    fn write(tx: &mut Tx<'_, Self::Connection>, changes: TreeDiff<'_>) -> Result<u64, Error>;

    /// The rows of a table whose paths come after `path`, at most `limit`, in the order of paths.
    fn page(&mut self, table: Table, path: &[u8], limit: i64) -> QueryResult<Vec<File>>;

    /// Number of rows of the table of files.
    fn count_rows(&mut self) -> QueryResult<i64>;

    /// The stored bytes of an entry.
    fn envelope(&mut self, sequence: i64) -> QueryResult<Vec<u8>>;

    /// Overwrites the stored bytes of an entry.
    fn set_envelope(&mut self, sequence: i64, data: &[u8]) -> QueryResult<()>;

    /// Bytes of all entries and their metadata.
    fn log_bytes(&mut self) -> QueryResult<i64>;
}

/// Diesel's query builder asks for the backend by name; the text is the same for each.
macro_rules! queries {
    () => {
        fn write(tx: &mut Tx<'_, Self::Connection>, changes: TreeDiff<'_>) -> Result<u64, Error> {
            let mut count = 0;
            let mut created: Vec<File> = Vec::new();
            for change in changes {
                count += 1;
                match change? {
                    Change::Create(file) => created.push(file),
                    Change::Update { before, after } => {
                        tx.logged_update(&before, Content::from(after))?;
                    }
                    Change::Delete(file) => {
                        tx.logged_delete(&file)?;
                    }
                }
                if created.len() == CHUNK_ROWS {
                    let _: Vec<File> = tx.logged_insert_many(created.drain(..))?;
                }
            }
            let _: Vec<File> = tx.logged_insert_many(created)?;
            Ok(count)
        }

        fn page(&mut self, table: Table, path: &[u8], limit: i64) -> QueryResult<Vec<File>> {
            macro_rules! page {
                ($table:ident) => {
                    $table::table
                        .filter($table::path.gt(path))
                        .order($table::path)
                        .limit(limit)
                        .load::<(Vec<u8>, i32, Vec<u8>, Option<i64>)>(self)?
                };
            }
            let rows = match table {
                Table::Files => page!(files),
                Table::Replay => page!(files_replay),
                Table::At => page!(files_at),
            };
            let file = |(path, mode, blob_id, size)| File {
                path,
                mode,
                blob_id,
                size,
            };
            Ok(rows.into_iter().map(file).collect())
        }

        fn count_rows(&mut self) -> QueryResult<i64> {
            files::table.count().get_result(self)
        }

        fn envelope(&mut self, sequence: i64) -> QueryResult<Vec<u8>> {
            oplog_entry::table
                .filter(oplog_entry::aggregate_name.eq("files"))
                .filter(oplog_entry::sequence.eq(sequence))
                .select(oplog_entry::data)
                .get_result(self)
        }

        fn set_envelope(&mut self, sequence: i64, data: &[u8]) -> QueryResult<()> {
            let entry = oplog_entry::table
                .filter(oplog_entry::aggregate_name.eq("files"))
                .filter(oplog_entry::sequence.eq(sequence));
            diesel::update(entry)
                .set(oplog_entry::data.eq(data))
                .execute(self)
                .map(|_| ())
        }

        fn log_bytes(&mut self) -> QueryResult<i64> {
            use diesel::dsl::sql;
            use diesel::sql_types::BigInt;
            oplog_entry::table
                .select(sql::<BigInt>(
                    "CAST(COALESCE(SUM(LENGTH(data) + LENGTH(metadata)), 0) AS BIGINT)",
                ))
                .get_result(self)
        }
    };
}

impl Database for SqliteConnection {
    const CREATE_FILES: &'static str = "CREATE TABLE files (
        path BLOB NOT NULL PRIMARY KEY,
        mode INTEGER NOT NULL,
        blob_id BLOB NOT NULL,
        size BIGINT
    )";

    fn start(place: &Place) -> Result<Session<Self>, Error> {
        let mut conn = SqliteConnection::establish(&place.address())?;
        // What SQLite recommends for every program that does not share the file over a network.
        conn.batch_execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")?;
        Ok(Session { conn, clean: None })
    }

    fn copy_log(&mut self, _place: &Place, folder: &Path) -> Result<Session<Self>, Error> {
        let path = folder.join("tampered.sqlite");
        let path = path.to_string_lossy();
        diesel::sql_query("VACUUM INTO ?")
            .bind::<diesel::sql_types::Text, _>(path.as_ref())
            .execute(self)?;
        let mut conn = SqliteConnection::establish(&path)?;
        for trigger in triggers::table
            .filter(triggers::r#type.eq("trigger"))
            .select(triggers::name)
            .load::<String>(&mut conn)?
        {
            conn.batch_execute(&format!("DROP TRIGGER \"{trigger}\""))?;
        }
        Ok(Session { conn, clean: None })
    }

    queries!();
}

diesel::table! {
    // SQLite's catalogue, as far as the copy of the log needs it.
    #[sql_name = "sqlite_master"]
    triggers (name) {
        r#type -> Text,
        name -> Text,
    }
}

impl Database for PgConnection {
    const CREATE_FILES: &'static str = "CREATE TABLE files (
        path BYTEA NOT NULL PRIMARY KEY,
        mode INTEGER NOT NULL,
        blob_id BYTEA NOT NULL,
        size BIGINT
    )";

    fn start(place: &Place) -> Result<Session<Self>, Error> {
        schema_session(place, place.schema())
    }

    fn copy_log(&mut self, place: &Place, _folder: &Path) -> Result<Session<Self>, Error> {
        let (from, to) = (place.schema(), format!("{}_copy", place.schema()));
        let mut copy = schema_session(place, &to)?;
        let tables: Vec<String> = pg_tables::table
            .filter(pg_tables::schemaname.eq(from))
            .filter(pg_tables::tablename.like("oplog\\_%"))
            .select(pg_tables::tablename)
            .load(&mut copy.conn)?;
        for table in tables {
            // `LIKE` copies keys and constraints, but no trigger.
            copy.conn.batch_execute(&format!(
                "CREATE TABLE {to}.{table} (LIKE {from}.{table} INCLUDING ALL);
                 INSERT INTO {to}.{table} OVERRIDING SYSTEM VALUE SELECT * FROM {from}.{table}"
            ))?;
        }
        Ok(copy)
    }

    queries!();
}

diesel::table! {
    // PostgreSQL's catalogue, as far as the copy of the log needs it.
    pg_tables (schemaname, tablename) {
        schemaname -> Text,
        tablename -> Text,
    }
}

/// Connects and makes a fresh schema, dropped at the end, the only one that names are looked up in.
fn schema_session(place: &Place, schema: &str) -> Result<Session<PgConnection>, Error> {
    let mut conn = PgConnection::establish(&place.address())?;
    // Dropping many tables is worth no notice on standard error.
    conn.batch_execute("SET client_min_messages = warning")?;
    conn.batch_execute(&format!("CREATE SCHEMA {schema}"))
        .map_err(|source| Error::Schema {
            schema: schema.to_owned(),
            source,
        })?;
    let clean = Some(format!("DROP SCHEMA IF EXISTS {schema} CASCADE"));
    let mut session = Session { conn, clean };
    session
        .conn
        .batch_execute(&format!("SET search_path TO {schema}"))?;
    Ok(session)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Sqlite { path } => write!(f, "SQLite, {}", path.display()),
            // The URL may hold a password.
            Place::Postgres { schema, .. } => write!(f, "PostgreSQL, schema {schema}"),
        }
    }
}

impl Place {
    fn address(&self) -> String {
        match self {
            Place::Sqlite { path } => path.to_string_lossy().into_owned(),
            Place::Postgres { url, .. } => url.clone(),
        }
    }

    fn schema(&self) -> &str {
        match self {
            Place::Sqlite { .. } => "main",
            Place::Postgres { schema, .. } => schema,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(url: &str) -> Result<Place, Error> {
        Place::new(Some(url), &tempfile::tempdir().unwrap())
    }

    #[test]
    fn a_url_names_its_database() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(None, &folder).unwrap();
        assert!(matches!(&place, Place::Sqlite { path } if path.starts_with(folder.path())));
        for url in ["postgres://localhost/x", "postgresql:///x"] {
            assert!(matches!(check(url).unwrap(), Place::Postgres { .. }));
        }
        let error = check("mysql://localhost/x").err().unwrap();
        assert!(matches!(error, Error::UnknownDatabase { scheme } if scheme == "mysql"));
    }

    #[test]
    fn a_sqlite_file_must_be_new() {
        let folder = tempfile::tempdir().unwrap();
        for prefix in ["", "sqlite:", "sqlite://"] {
            let path = folder.path().join(format!("{}.sqlite", prefix.len()));
            let url = format!("{prefix}{}", path.display());
            let place = check(&url).unwrap();
            assert!(matches!(place, Place::Sqlite { path: named } if named == path));
            assert!(matches!(
                check(&url).err().unwrap(),
                Error::FileExists { .. }
            ));
        }
        let missing = folder.path().join("missing/file").display().to_string();
        assert!(matches!(
            check(&missing).err().unwrap(),
            Error::FileNotCreated { .. }
        ));
    }
}
