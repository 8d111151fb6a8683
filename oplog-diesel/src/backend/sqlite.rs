use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use diesel::migration::{Migration, MigrationSource};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::Sqlite;
use diesel::{QueryResult, sql_query};
use oplog_core::{Head, TypeDef};

use super::{Deferral, Locked, LogBackend, Reading, RowWrite, TableCopy, Wait, joined, values};
use crate::bind::{RawRow, read};
use crate::catalogue::{ForeignKey, KeyAction, KeyColumn, Switch, Trigger};
use crate::connection::{LogConnection, execute, give_up, load, load_one};
use crate::model::Model;
use crate::replay::{Column, TableName, TableOps};
use crate::statement::{Bind, Statement, statements};
use crate::store::{self, Redemption, Row};

statements! {
    CreateTicket = "INSERT INTO oplog_ticket (name, version, head_hash, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING";
    RedeemTicket = "UPDATE oplog_ticket SET version = ?, head_hash = ?, epoch = ? WHERE name = ? AND version = ? AND head_hash = ? AND epoch = ?";
    SelectColumns = "SELECT name, hidden FROM pragma_table_xinfo(?, ?)";
    SelectOrphan = "SELECT 1 FROM pragma_foreign_key_check(?, ?) LIMIT 1";
    SelectReading = "SELECT query_only, total_changes() FROM pragma_query_only";
    SelectForeignKeys = "SELECT foreign_keys FROM pragma_foreign_keys";
    SelectSql = "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('table', 'index') AND sql IS NOT NULL ORDER BY type DESC, name";
}

/// `BEGIN IMMEDIATE` takes the only write lock that SQLite has, so every ticket is ours as soon as
/// the transaction is open.
impl LogBackend for Sqlite {
    const NAME: &'static str = "SQLite";
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    // Without a write-ahead log, a transaction that began otherwise waits for readers at its commit.
    const BEGIN_ALONE: &'static str = "BEGIN EXCLUSIVE";
    const BEGIN_SNAPSHOT: &'static str = "BEGIN";
    const LOCKS_ROWS: bool = false;
    const SAYS_DEFAULT: bool = false;
    const RETURNS_BEFORE: bool = false;
    const CACHES_HEADS: bool = false;
    // Nobody is far away here, and a statement that writes two tables does not exist.
    const WRITES_ROWS_ALONE: bool = false;
    const SURVIVES_REFUSAL: bool = true;
    const INSERT_IDENTITY: &'static str = "";
    // Each statement that returns rows opens a table in memory for them, so that one for many rows
    // costs less.
    const REPLAY_ROWS_MAX: usize = 64;

    fn ops(model: &Model) -> &'static dyn TableOps<Self> {
        model.sqlite()
    }

    values!();

    fn read_i64(row: &dyn RawRow<Self>, column: usize) -> QueryResult<i64> {
        read::<i64, BigInt, Self>(row, column)
    }

    fn lock_ticket<C>(conn: &mut C, name: &str, _wait: Wait) -> QueryResult<Locked>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(match store::ticket(conn, name)? {
            Some(head) => Locked::Ours(head),
            None => Locked::NotThere,
        })
    }

    fn create_ticket<C>(conn: &mut C, name: &str, head: &Head, _wait: Wait) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        let created = execute(
            conn,
            &Statement::<CreateTicket>::new(&[
                Bind::Text(name),
                Bind::I64(head.next_sequence as i64),
                Bind::Bytes(head.hash.as_bytes()),
                Bind::I64(head.epoch.into()),
            ]),
        )?;
        Ok(created == 1)
    }

    fn redeem<C>(conn: &mut C, redemption: &Redemption<'_>, row: &Row<'_>) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        let Redemption {
            name,
            before,
            after,
            exists,
            wait: _,
        } = redemption;
        let redeemed = if *exists {
            execute(
                conn,
                &Statement::<RedeemTicket>::new(&[
                    Bind::I64(after.next_sequence as i64),
                    Bind::Bytes(after.hash.as_bytes()),
                    Bind::I64(after.epoch.into()),
                    Bind::Text(name),
                    Bind::I64(before.next_sequence as i64),
                    Bind::Bytes(before.hash.as_bytes()),
                    Bind::I64(before.epoch.into()),
                ]),
            )? == 1
        } else {
            Self::create_ticket(conn, name, after, Wait::ForIt)?
        };
        if redeemed {
            store::insert_entry(conn, row)?;
        }
        Ok(redeemed)
    }

    fn write_row<C>(
        _conn: &mut C,
        _table: &TableName,
        _def: &'static TypeDef,
        _write: &RowWrite<'_, Self>,
        _redemption: &Redemption<'_>,
        _row: &Row<'_>,
    ) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(false)
    }

    /// The pragma is the connection's and no transaction's, and any statement can switch it off again;
    /// so what was changed is counted as well.
    fn begin_reading<C>(conn: &mut C) -> QueryResult<Reading>
    where
        C: LogConnection<Backend = Self>,
    {
        let before = reading(conn)?;
        or_writable(conn, &before, |conn| {
            conn.batch_execute("SAVEPOINT oplog_reading; PRAGMA query_only = ON")
        })?;
        Ok(before)
    }

    fn end_reading<C>(conn: &mut C, before: Reading) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        if !before.refused {
            or_writable(conn, &before, |conn| {
                conn.batch_execute("PRAGMA query_only = OFF")
            })?;
        }
        // Without the savepoint, the closure ended the transaction that it was in.
        conn.batch_execute("ROLLBACK TO oplog_reading; RELEASE oplog_reading")?;
        Ok(reading(conn)?.changes == before.changes)
    }

    /// Constraints with `ON CONFLICT ROLLBACK`, a full disk, errors of files and of memory end the
    /// transaction. Within one, `BEGIN` is refused, which tells by itself whether there is one.
    fn has_vanished<C>(conn: &mut C) -> bool
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("BEGIN; ROLLBACK").is_ok()
    }

    fn migrations() -> Vec<Box<dyn Migration<Self>>> {
        MigrationSource::<Self>::migrations(&crate::migrations::SQLITE)
            .expect("the names of embedded migrations were checked when they were embedded")
    }

    fn lock_maintenance<C>(_conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(())
    }

    fn table_columns<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<Column>>
    where
        C: LogConnection<Backend = Self>,
    {
        let binds = [
            Bind::Text(table.name()),
            Bind::Text(table.schema().unwrap_or("main")),
        ];
        load(conn, Statement::<SelectColumns>::new(&binds), |row| {
            Ok(Column {
                name: Self::read_text(row, 0)?.unwrap_or_default(),
                generated: Self::read_i64(row, 1)? >= 2,
            })
        })
    }

    fn resolve_table<C>(conn: &mut C, table: &TableName) -> QueryResult<Option<TableName>>
    where
        C: LogConnection<Backend = Self>,
    {
        let schema = table.schema().unwrap_or("main");
        let select = sql_query(format!(
            "SELECT name FROM {}.sqlite_master WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')",
            Self::quote(schema)?
        ));
        load_one(conn, select.bind::<Text, _>(table.name()), |row| {
            Ok(TableName::in_schema(schema, text(row, 0)?))
        })
    }

    fn table_triggers<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<Trigger>>
    where
        C: LogConnection<Backend = Self>,
    {
        let mut triggers = Vec::new();
        // Those in the schema `temp` are this connection's own, on tables of any schema.
        for schema in [table.schema().unwrap_or("main"), "temp"] {
            let quoted = Self::quote(schema)?;
            let select = sql_query(format!(
                "SELECT name, sql FROM {quoted}.sqlite_master WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE ORDER BY name"
            ));
            triggers.extend(load(conn, select.bind::<Text, _>(table.name()), |row| {
                let (name, sql) = (text(row, 0)?, text(row, 1)?);
                let (timing, events) = trigger_words(&sql).unwrap_or_default();
                // The text in the catalogue names no schema: run again, it makes a trigger of `main`.
                let switch = match schema {
                    "main" => Some(Switch {
                        off: format!("DROP TRIGGER {quoted}.{}", Self::quote(&name)?),
                        on: sql,
                    }),
                    _ => None,
                };
                Ok(Trigger {
                    name,
                    is_rule: false,
                    timing,
                    events,
                    is_deferrable: false,
                    switch,
                })
            })?);
        }
        Ok(triggers)
    }

    fn foreign_keys<C>(conn: &mut C, tables: &[TableName]) -> QueryResult<Vec<ForeignKey>>
    where
        C: LogConnection<Backend = Self>,
    {
        let mut keys = Vec::new();
        let schemas: BTreeSet<&str> = tables
            .iter()
            .map(|table| table.schema().unwrap_or("main"))
            .collect();
        for schema in schemas {
            // A key that names no columns refers to the primary key. The names of tables and of
            // columns may be spelt in other cases than where they were made.
            let select = sql_query(format!(
                "SELECT c.name, p.name, k.id, k.\"from\", \
                 coalesce(k.\"to\", (SELECT i.name FROM pragma_table_info(p.name, ?1) i WHERE i.pk = k.seq + 1)), \
                 k.on_delete, k.on_update \
                 FROM {quoted}.sqlite_master c, pragma_foreign_key_list(c.name, ?1) k \
                 JOIN {quoted}.sqlite_master p ON p.name = k.\"table\" COLLATE NOCASE AND p.type = 'table' \
                 WHERE c.type = 'table' ORDER BY c.name, k.id, k.seq",
                quoted = Self::quote(schema)?
            ));
            let columns = load(conn, select.bind::<Text, _>(schema), |row| {
                let (child, parent) = (text(row, 0)?, text(row, 1)?);
                let id = (child.clone(), Self::read_i64(row, 2)?);
                let key = ForeignKey {
                    name: String::new(),
                    child: TableName::in_schema(schema, child),
                    parent: TableName::in_schema(schema, parent),
                    columns: vec![KeyColumn {
                        child: text(row, 3)?,
                        parent: text(row, 4)?,
                        is_set: true,
                    }],
                    on_delete: action(&text(row, 5)?),
                    on_update: action(&text(row, 6)?),
                };
                Ok((id, key))
            })?;
            keys.extend(joined(columns));
        }
        for key in &mut keys {
            let columns: Vec<&str> = key.columns.iter().map(|c| c.child.as_str()).collect();
            key.name = format!("FOREIGN KEY ({})", columns.join(", "));
        }
        Ok(keys)
    }

    fn replaces_rows<C>(conn: &mut C, table: &TableName) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        let schema = Self::quote(table.schema().unwrap_or("main"))?;
        let select = sql_query(format!(
            "SELECT sql FROM {schema}.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        ));
        let sql = load_one(conn, select.bind::<Text, _>(table.name()), |row| {
            text(row, 0)
        })?;
        Ok(sql.is_some_and(|sql| says_replace(&sql)))
    }

    /// Only if the connection was told to check them.
    fn keys_act<C>(conn: &mut C) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        let checked = load_one(conn, Statement::<SelectForeignKeys>::new(&[]), |row| {
            Self::read_i64(row, 0)
        })?;
        Ok(checked.is_some_and(|checked| checked != 0))
    }

    /// There are none.
    fn fire_deferred<C>(_conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(())
    }

    /// SQLite has no `LIKE` for tables, and its pragmas do not tell everything that a `CREATE TABLE`
    /// says. So the tables are renamed, which makes SQLite itself rewrite every reference among
    /// them; the statements are read from the catalogue and the renaming is rolled back.
    fn copy_tables<C>(conn: &mut C, tables: &[TableCopy]) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("SAVEPOINT oplog_copy")?;
        let statements = renamed_sql(conn, tables);
        conn.batch_execute("ROLLBACK TO oplog_copy; RELEASE oplog_copy")?;
        for statement in statements? {
            conn.batch_execute(&statement)?;
        }
        Ok(())
    }

    /// Makes SQLite prepare every statement anew, and so is nothing for every entry.
    fn defer<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("PRAGMA defer_foreign_keys = ON")
    }

    /// SQLite itself checks at the commit only.
    fn check_deferred<C>(conn: &mut C, tables: &[TableName]) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("PRAGMA defer_foreign_keys = OFF")?;
        for table in tables {
            let schema = table.schema().unwrap_or("main");
            let binds = [Bind::Text(table.name()), Bind::Text(schema)];
            let orphan = load_one(conn, Statement::<SelectOrphan>::new(&binds), |_| Ok(()))?;
            if orphan.is_some() {
                let text = "FOREIGN KEY constraint failed".to_owned();
                let kind = DatabaseErrorKind::ForeignKeyViolation;
                return Err(DieselError::DatabaseError(kind, Box::new(text)));
            }
        }
        Ok(())
    }

    fn make_deferrable<C>(conn: &mut C, _tables: &[TableName]) -> QueryResult<Deferral>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(Deferral {
            any: Self::keys_act(conn)?,
            undo: Vec::new(),
        })
    }

    /// SQLite keeps `AUTOINCREMENT` past explicit keys by itself.
    fn reset_sequences<C>(_conn: &mut C, _table: &TableName) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(())
    }
}

fn reading<C>(conn: &mut C) -> QueryResult<Reading>
where
    C: LogConnection<Backend = Sqlite>,
{
    let reading = load_one(conn, Statement::<SelectReading>::new(&[]), |row| {
        Ok(Reading {
            refused: Sqlite::read_i64(row, 0)? != 0,
            changes: Sqlite::read_i64(row, 1)?,
        })
    })?;
    Ok(reading.unwrap_or_default())
}

/// Runs what switches between reading and writing. If that fails, the connection must not stay one that
/// only reads: it is made writable once more, or given up.
fn or_writable<C>(
    conn: &mut C,
    before: &Reading,
    switch: impl FnOnce(&mut C) -> QueryResult<()>,
) -> QueryResult<()>
where
    C: LogConnection<Backend = Sqlite>,
{
    let outcome = catch_unwind(AssertUnwindSafe(|| switch(conn)));
    if !matches!(outcome, Ok(Ok(()))) && !before.refused {
        let off = || conn.batch_execute("PRAGMA query_only = OFF");
        if !matches!(catch_unwind(AssertUnwindSafe(off)), Ok(Ok(()))) {
            give_up(conn);
        }
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

fn renamed_sql<C>(conn: &mut C, tables: &[TableCopy]) -> QueryResult<Vec<String>>
where
    C: LogConnection<Backend = Sqlite>,
{
    for TableCopy { from, to, exists } in tables {
        if *exists {
            // Out of the way, until the roll-back brings it back.
            conn.batch_execute(&format!("DROP TABLE {}", to.quoted()))?;
        }
        conn.batch_execute(&format!(
            "ALTER TABLE {} RENAME TO {}",
            from.quoted(),
            to.quoted_name()
        ))?;
    }
    let mut statements = Vec::new();
    for TableCopy { to, .. } in tables.iter().filter(|table| !table.exists) {
        let rows = load(
            conn,
            Statement::<SelectSql>::new(&[Bind::Text(to.name())]),
            |row| {
                Ok((
                    Sqlite::read_text(row, 0)?.unwrap_or_default(),
                    Sqlite::read_text(row, 1)?.unwrap_or_default(),
                    Sqlite::read_text(row, 2)?.unwrap_or_default(),
                ))
            },
        )?;
        for (kind, name, sql) in rows {
            statements.push(match kind.as_str() {
                "index" => {
                    rename_index(&sql, &format!("{}_{name}", to.name())).ok_or_else(|| {
                        DieselError::QueryBuilderError(
                            format!("the statement of the index `{name}` could not be read").into(),
                        )
                    })?
                }
                _ => sql,
            });
        }
    }
    Ok(statements)
}

/// The statement of an index, as SQLite keeps it, under another name: `CREATE [UNIQUE] INDEX name
/// ON …`, where only the name is as the user spelt it.
fn rename_index(sql: &str, name: &str) -> Option<String> {
    let (create, rest) = ["CREATE UNIQUE INDEX ", "CREATE INDEX "]
        .iter()
        .find_map(|create| {
            sql.strip_prefix(create)
                .map(|rest| (create, rest.trim_start()))
        })?;
    let end = identifier_end(rest)?;
    Some(format!(
        "{create}\"{}\"{}",
        name.replace('"', "\"\""),
        &rest[end..]
    ))
}

/// A text of the catalogue that is never `NULL`.
fn text(row: &dyn RawRow<Sqlite>, column: usize) -> QueryResult<String> {
    Ok(Sqlite::read_text(row, column)?.unwrap_or_default())
}

fn action(words: &str) -> KeyAction {
    match words {
        "CASCADE" => KeyAction::Cascade,
        "SET NULL" => KeyAction::SetNull,
        "SET DEFAULT" => KeyAction::SetDefault,
        "RESTRICT" => KeyAction::Restrict,
        _ => KeyAction::NoAction,
    }
}

/// When a trigger fires and on what, from its statement as SQLite keeps it: `CREATE TRIGGER name
/// [BEFORE|AFTER|INSTEAD OF] DELETE|INSERT|UPDATE …`, where only the first two words are SQLite's.
fn trigger_words(sql: &str) -> Option<(String, String)> {
    let rest = sql.strip_prefix("CREATE TRIGGER ")?.trim_start();
    let mut words = words(&rest[identifier_end(rest)?..]);
    let mut word = words.next()?;
    let timing = match word.as_str() {
        "BEFORE" | "AFTER" => word,
        "INSTEAD" => {
            words.next()?;
            "INSTEAD OF".to_owned()
        }
        // What is not said is BEFORE.
        _ => return Some(("BEFORE".to_owned(), word)),
    };
    word = words.next()?;
    Some((timing, word))
}

/// Whether a statement that makes a table gives it a constraint that replaces rows.
fn says_replace(sql: &str) -> bool {
    let words: Vec<String> = words(sql).collect();
    words
        .windows(3)
        .any(|words| words == ["ON", "CONFLICT", "REPLACE"])
}

/// The words of a statement in capitals, without what is in quotes or in comments.
fn words(sql: &str) -> impl Iterator<Item = String> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        loop {
            let first = rest.chars().next()?;
            if let Some(comment) = rest.strip_prefix("--") {
                rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = rest.strip_prefix("/*") {
                rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else if ['"', '`', '\'', '['].contains(&first) {
                rest = &rest[identifier_end(rest)?..];
            } else if is_of_word(first) {
                break;
            } else {
                rest = &rest[first.len_utf8()..];
            }
        }
        let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word.to_ascii_uppercase())
    })
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the identifier at the start of `sql` ends, in any of SQLite's four ways to quote.
fn identifier_end(sql: &str) -> Option<usize> {
    let close = match sql.chars().next()? {
        '"' => '"',
        '`' => '`',
        '\'' => '\'',
        '[' => return sql.find(']').map(|at| at + 1),
        _ => {
            return sql
                .find(|c: char| c.is_whitespace() || c == '(')
                .filter(|end| *end > 0);
        }
    };
    let mut chars = sql.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != close {
            continue;
        }
        // A doubled quote stands for itself.
        if chars.peek().is_some_and(|(_, next)| *next == close) {
            chars.next();
            continue;
        }
        return Some(at + 1);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{rename_index, says_replace, trigger_words};

    #[test]
    fn constraints_that_replace_rows_are_found() {
        for sql in [
            "CREATE TABLE t (a INTEGER PRIMARY KEY ON CONFLICT REPLACE)",
            "create table t (a unique on /* so */ conflict -- and\n replace, b)",
            "CREATE TABLE t (a, [b'c], UNIQUE (a) ON\nCONFLICT\tREPLACE)",
        ] {
            assert!(says_replace(sql), "{sql}");
        }
        for sql in [
            "CREATE TABLE t (a INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)",
            "CREATE TABLE t (a DEFAULT 'on conflict replace', \"ON CONFLICT REPLACE\")",
            "CREATE TABLE t (a) -- ON CONFLICT REPLACE",
            "CREATE TABLE t (a CHECK (a <> 'on conflict' AND replace(a, 'b', 'c') = a))",
            "CREATE TABLE t ('open",
        ] {
            assert!(!says_replace(sql), "{sql}");
        }
    }

    #[test]
    fn when_a_trigger_fires_is_read_from_its_statement() {
        for (sql, timing, events) in [
            ("a AFTER UPDATE ON t BEGIN", "AFTER", "UPDATE"),
            ("\"after insert\" before delete ON t", "BEFORE", "DELETE"),
            ("[b c]\n  INSERT ON t BEGIN", "BEFORE", "INSERT"),
            (
                "a /* AFTER */ INSTEAD -- so\n OF update of x",
                "INSTEAD OF",
                "UPDATE",
            ),
            ("`a``b` Update OF \"x\" ON t", "BEFORE", "UPDATE"),
        ] {
            assert_eq!(
                trigger_words(&format!("CREATE TRIGGER {sql}")),
                Some((timing.to_owned(), events.to_owned())),
                "{sql}"
            );
        }
        assert_eq!(trigger_words("CREATE TRIGGER a"), None);
        assert_eq!(trigger_words("SELECT 1"), None);
    }

    #[test]
    fn an_index_is_renamed_however_its_name_is_quoted() {
        for name in [
            "by_a",
            "\"by a\"",
            "\"by \"\"a\"\"\"",
            "`by a`",
            "[by a]",
            "'by a'",
        ] {
            for create in ["CREATE INDEX", "CREATE UNIQUE INDEX"] {
                assert_eq!(
                    rename_index(&format!("{create} {name} ON \"t\" (a) WHERE b"), "n").as_deref(),
                    Some(format!("{create} \"n\" ON \"t\" (a) WHERE b").as_str()),
                );
            }
        }
        assert_eq!(rename_index("CREATE INDEX \"open", "n"), None);
        assert_eq!(rename_index("CREATE TABLE t (a)", "n"), None);
    }
}
