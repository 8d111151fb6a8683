//! The log's own tables: how they are created, and their migrations for a tree of your own.

use diesel::Connection;
use diesel::migration::Migration;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use crate::Error;
use crate::backend::LogBackend;
use crate::connection::{Connect, LogConnection, in_transaction, load};
use crate::replay::TableName;
use crate::statement::{Statement, statements};

type BackendOf<C> = <<C as Connect>::Connection as Connection>::Backend;

/// The migrations of the log's own tables for SQLite, to be exported into a migration tree of your
/// own. Each records itself, so that both ways know of each other.
#[cfg(feature = "sqlite")]
pub const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The migrations of the log's own tables for PostgreSQL; see [`SQLITE`].
#[cfg(feature = "postgres_backend")]
pub const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

statements! {
    SelectVersions = "SELECT version FROM oplog_migration ORDER BY version";
}

/// Creates the log's own tables, or brings them up to date. Does nothing if they are.
///
/// They are kept apart from the application's migrations: ours are recorded in `oplog_migration`,
/// and `__diesel_schema_migrations` is neither read nor written. Several processes may call it at
/// once. Each call is one transaction.
///
/// # Errors
///
/// [`Error::Store`] if the tables can't be created, [`Error::OuterTransaction`].
///
/// # Examples
///
/// ```
/// use diesel::prelude::*;
///
/// let mut conn = SqliteConnection::establish(":memory:")?;
/// oplog_diesel::run_migrations(&mut conn)?;
/// oplog_diesel::run_migrations(&mut conn)?; // nothing left to do
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_migrations<C: Connect>(conn: &mut C) -> Result<(), Error> {
    let conn = conn.connection();
    // Whoever is running them at this moment may keep SQLite from answering, and a transaction waits.
    if pending(conn).is_ok_and(|pending| pending.is_empty()) {
        return Ok(());
    }
    in_transaction(
        conn,
        <BackendOf<C> as LogBackend>::BEGIN_ALONE,
        "opening a transaction for the migrations",
        |conn| {
            BackendOf::<C>::lock_maintenance(conn)
                .map_err(Error::store("locking the migrations"))?;
            // Somebody else may have run them while we waited.
            for migration in pending(conn)? {
                migration.run(conn).map_err(|_| Error::Store {
                    operation: "running the oplog's migrations",
                    kind: None,
                    constraint: None,
                })?;
            }
            Ok(())
        },
    )
}

/// Whether the log's tables are as this version needs them.
pub(crate) fn check<C: LogConnection>(conn: &mut C) -> Result<(), Error> {
    if pending(conn)?.is_empty() {
        Ok(())
    } else {
        Err(Error::NotMigrated)
    }
}

/// The migrations that were not run yet, oldest first.
fn pending<C: LogConnection>(conn: &mut C) -> Result<Vec<Box<dyn Migration<C::Backend>>>, Error> {
    let failed = Error::store("reading which migrations were run");
    let table = TableName::new("oplog_migration");
    let run: Vec<String> = C::Backend::table_columns(conn, &table)
        .and_then(|columns| match columns.is_empty() {
            true => Ok(Vec::new()),
            false => load(conn, Statement::<SelectVersions>::new(&[]), |row| {
                Ok(C::Backend::read_text(row, 0)?.unwrap_or_default())
            }),
        })
        .map_err(failed)?;
    let mut pending = C::Backend::migrations();
    pending.retain(|migration| !run.contains(&migration.name().version().to_string()));
    Ok(pending)
}
