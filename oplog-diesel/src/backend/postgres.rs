use diesel::QueryResult;
use diesel::deserialize;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::{Pg, PgValue};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_core::{Head, TypeDef};

use super::postgres_row::RowStatement;
use super::{
    Deferral, Locked, LogBackend, Reading, RowWrite, TableCopy, Wait, joined, malformed, read_head,
    values,
};
use crate::bind::RawRow;
use crate::catalogue::{ForeignKey, KeyAction, KeyColumn, Switch, Trigger};
use crate::connection::{LogConnection, execute, load, load_one};
use crate::model::Model;
use crate::replay::{Column, TableName, TableOps};
use crate::statement::{Bind, Statement, statements};
use crate::store::{Redemption, Row};

statements! {
    LockTicket = "SELECT version, head_hash, epoch FROM oplog_ticket WHERE name = ? FOR UPDATE";
    // Not NOWAIT, which would answer with an error whose text depends on the server's language.
    LockTicketIfFree = "SELECT version, head_hash, epoch FROM oplog_ticket WHERE name = ? FOR UPDATE SKIP LOCKED";
    CreateTicket = "INSERT INTO oplog_ticket (name, version, head_hash, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING";
    // For the insert there is no word like SKIP LOCKED: the function waits for a millisecond.
    CreateTicketIfFree = "SELECT oplog_create_ticket(?, ?, ?, ?)";
    RedeemTicket = "WITH redeemed AS (UPDATE oplog_ticket SET version = ?, head_hash = ?, epoch = ? WHERE name = ? AND version = ? AND head_hash = ? AND epoch = ? RETURNING 1) INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data) SELECT ?, ?, ?, ?, ?, ?, ?, ? FROM redeemed";
    // Without `held` it would wait for whoever holds the ticket.
    RedeemTicketIfFree = "WITH held AS (SELECT name FROM oplog_ticket WHERE name = ? AND version = ? AND head_hash = ? AND epoch = ? FOR UPDATE SKIP LOCKED), redeemed AS (UPDATE oplog_ticket AS ticket SET version = ?, head_hash = ?, epoch = ? FROM held WHERE ticket.name = held.name RETURNING 1) INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data) SELECT ?, ?, ?, ?, ?, ?, ?, ? FROM redeemed";
    RedeemNewTicket = "WITH redeemed AS (INSERT INTO oplog_ticket (name, version, head_hash, epoch) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING RETURNING 1) INSERT INTO oplog_entry (create_time, version, aggregate_name, sequence, key_id, txn_id, metadata, data) SELECT ?, ?, ?, ?, ?, ?, ?, ? FROM redeemed";
    LockMaintenance = "SELECT pg_advisory_xact_lock(8029759185026510694)";
    SelectColumns = "SELECT attname::text, attgenerated <> '' FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    ResolveTable = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(?)";
    // With the triggers of partitions. Those that a partition has from its parent are the parent's.
    // A row of pg_trigger for TRUNCATE alone is none of ours.
    SelectTriggers = "WITH RECURSIVE tree (oid) AS (SELECT to_regclass(?)::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid) SELECT false, t.tgname::text, t.tgrelid::regclass::text, CASE WHEN t.tgtype & 64 <> 0 THEN 'INSTEAD OF' WHEN t.tgtype & 2 <> 0 THEN 'BEFORE' ELSE 'AFTER' END, concat_ws(' OR ', CASE WHEN t.tgtype & 4 <> 0 THEN 'INSERT' END, CASE WHEN t.tgtype & 16 <> 0 THEN 'UPDATE' END, CASE WHEN t.tgtype & 8 <> 0 THEN 'DELETE' END), t.tgdeferrable, t.tgenabled = 'A' FROM pg_trigger t JOIN tree ON t.tgrelid = tree.oid WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled NOT IN ('D', 'R') AND t.tgtype & 28 <> 0 UNION ALL SELECT true, r.rulename::text, r.ev_class::regclass::text, CASE WHEN r.is_instead THEN 'INSTEAD' ELSE 'ALSO' END, CASE r.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END, false, r.ev_enabled = 'A' FROM pg_rewrite r JOIN tree ON r.ev_class = tree.oid WHERE r.rulename <> '_RETURN' AND r.ev_enabled NOT IN ('D', 'R') ORDER BY 1, 2";
    // One row for each column of each key. The list of columns that are set came with PostgreSQL 15,
    // and so is asked for by its name. The key of a partition that came from its parent is the
    // parent's.
    SelectAllForeignKeys = "SELECT k.oid::bigint, k.conname::text, cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text, ca.attname::text, pa.attname::text, k.confdeltype::text, k.confupdtype::text, CASE jsonb_typeof(to_jsonb(k) -> 'confdelsetcols') WHEN 'array' THEN (to_jsonb(k) -> 'confdelsetcols') @> to_jsonb(u.child) ELSE true END FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS u (child, parent, at) JOIN pg_attribute ca ON ca.attrelid = c.oid AND ca.attnum = u.child JOIN pg_attribute pa ON pa.attrelid = p.oid AND pa.attnum = u.parent WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.oid, u.at";
    SelectGenerators = "SELECT attname::text, pg_get_serial_sequence(?, attname) FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped AND attnotnull AND pg_get_serial_sequence(?, attname) IS NOT NULL";
    SelectDeferrable = "SELECT k.conname::text, k.condeferrable FROM pg_constraint k JOIN pg_class t ON t.oid = k.conrelid WHERE t.oid = to_regclass(?) AND (k.condeferrable OR k.contype = 'f' AND k.conparentid = 0 AND pg_has_role(t.relowner, 'USAGE')) ORDER BY k.conname";
    SelectForeignKeys = "SELECT conname::text, pg_get_constraintdef(oid), confrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND conrelid = to_regclass(?) AND confrelid = to_regclass(?) ORDER BY conname";
}

impl LogBackend for Pg {
    const NAME: &'static str = "PostgreSQL";
    const BEGIN: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const BEGIN_ALONE: &'static str = Self::BEGIN;
    const BEGIN_SNAPSHOT: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    const LOCKS_ROWS: bool = true;
    const SAYS_DEFAULT: bool = true;
    const RETURNS_BEFORE: bool = true;
    const CACHES_HEADS: bool = true;
    const WRITES_ROWS_ALONE: bool = true;
    const SURVIVES_REFUSAL: bool = false;
    const INSERT_IDENTITY: &'static str = " OVERRIDING SYSTEM VALUE";
    const REPLAY_ROWS_MAX: usize = 128;

    fn ops(model: &Model) -> &'static dyn TableOps<Self> {
        model.postgres()
    }

    values!();

    /// Integers of any width, since the catalogue and our tables have all of them.
    fn read_i64(row: &dyn RawRow<Self>, column: usize) -> QueryResult<i64> {
        let mut read = Err(malformed("an integer"));
        row.with_value(column, &mut |value| {
            read = value
                .ok_or_else(|| malformed("an integer"))
                .and_then(|value| integer(&value).map_err(DieselError::DeserializationError));
        })?;
        read
    }

    fn lock_ticket<C>(conn: &mut C, name: &str, wait: Wait) -> QueryResult<Locked>
    where
        C: LogConnection<Backend = Self>,
    {
        let binds = [Bind::Text(name)];
        let head = match wait {
            Wait::ForIt => load_one(
                conn,
                Statement::<LockTicket>::new(&binds),
                read_head::<Self>,
            )?,
            Wait::NotAtAll => load_one(
                conn,
                Statement::<LockTicketIfFree>::new(&binds),
                read_head::<Self>,
            )?,
        };
        Ok(head.map_or(Locked::NotThere, Locked::Ours))
    }

    fn create_ticket<C>(conn: &mut C, name: &str, head: &Head, wait: Wait) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        let [version, hash, epoch] = head_binds(head);
        let binds = [Bind::Text(name), version, hash, epoch];
        match wait {
            Wait::ForIt => {
                execute(conn, &Statement::<CreateTicket>::new(&binds)).map(|created| created == 1)
            }
            Wait::NotAtAll => {
                let statement = Statement::<CreateTicketIfFree>::new(&binds);
                let created = load_one(conn, statement, |row| Self::read_i64(row, 0))?;
                Ok(created.is_some_and(|created| created != 0))
            }
        }
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
            wait,
        } = redemption;
        let name = Bind::Text(name);
        let [version, hash, epoch] = head_binds(after);
        let [version_before, hash_before, epoch_before] = head_binds(before);
        let [e1, e2, e3, e4, e5, e6, e7, e8] = row.binds();
        let inserted = match (exists, wait) {
            (true, Wait::ForIt) => execute(
                conn,
                &Statement::<RedeemTicket>::new(&[
                    version,
                    hash,
                    epoch,
                    name,
                    version_before,
                    hash_before,
                    epoch_before,
                    e1,
                    e2,
                    e3,
                    e4,
                    e5,
                    e6,
                    e7,
                    e8,
                ]),
            )?,
            (true, Wait::NotAtAll) => execute(
                conn,
                &Statement::<RedeemTicketIfFree>::new(&[
                    name,
                    version_before,
                    hash_before,
                    epoch_before,
                    version,
                    hash,
                    epoch,
                    e1,
                    e2,
                    e3,
                    e4,
                    e5,
                    e6,
                    e7,
                    e8,
                ]),
            )?,
            (false, _) => execute(
                conn,
                &Statement::<RedeemNewTicket>::new(&[
                    name, version, hash, epoch, e1, e2, e3, e4, e5, e6, e7, e8,
                ]),
            )?,
        };
        Ok(inserted == 1)
    }

    fn write_row<C>(
        conn: &mut C,
        table: &TableName,
        def: &'static TypeDef,
        write: &RowWrite<'_, Self>,
        redemption: &Redemption<'_>,
        row: &Row<'_>,
    ) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        let [version, hash, epoch] = head_binds(&redemption.before);
        let statement = RowStatement {
            table,
            def,
            write,
            exists: redemption.exists,
            after: head_binds(&redemption.after),
            before: [Bind::Text(redemption.name), version, hash, epoch],
            entry: row.binds(),
        };
        match execute(conn, &statement) {
            Err(DieselError::DatabaseError(DatabaseErrorKind::NotNullViolation, information))
                if information.table_name() == Some("oplog_entry")
                    && information.column_name() == Some("sequence") =>
            {
                Ok(false)
            }
            result => Ok(result? == 1),
        }
    }

    /// A transaction that is read-only can't be made anything else by a statement, but it is so only
    /// as long as the savepoint in which it became so.
    fn begin_reading<C>(conn: &mut C) -> QueryResult<Reading>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("SAVEPOINT oplog_reading; SET LOCAL transaction_read_only = on")?;
        Ok(Reading::default())
    }

    fn end_reading<C>(conn: &mut C, _reading: Reading) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("ROLLBACK TO SAVEPOINT oplog_reading; RELEASE SAVEPOINT oplog_reading")?;
        Ok(true)
    }

    fn migrations() -> Vec<Box<dyn Migration<Self>>> {
        MigrationSource::<Self>::migrations(&crate::migrations::POSTGRES)
            .expect("the names of embedded migrations were checked when they were embedded")
    }

    fn lock_maintenance<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        execute(conn, &Statement::<LockMaintenance>::new(&[])).map(|_| ())
    }

    fn table_columns<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<Column>>
    where
        C: LogConnection<Backend = Self>,
    {
        load(
            conn,
            Statement::<SelectColumns>::new(&[Bind::Text(&table.quoted())]),
            |row| {
                Ok(Column {
                    name: Self::read_text(row, 0)?.unwrap_or_default(),
                    generated: Self::read_i64(row, 1)? != 0,
                })
            },
        )
    }

    fn resolve_table<C>(conn: &mut C, table: &TableName) -> QueryResult<Option<TableName>>
    where
        C: LogConnection<Backend = Self>,
    {
        let name = table.quoted();
        let binds = [Bind::Text(&name)];
        load_one(conn, Statement::<ResolveTable>::new(&binds), |row| {
            Ok(TableName::in_schema(text(row, 0)?, text(row, 1)?))
        })
    }

    fn table_triggers<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<Trigger>>
    where
        C: LogConnection<Backend = Self>,
    {
        let name = table.quoted();
        let binds = [Bind::Text(&name)];
        load(conn, Statement::<SelectTriggers>::new(&binds), |row| {
            let is_rule = Self::read_i64(row, 0)? != 0;
            let name = text(row, 1)?;
            let alter = format!("ALTER TABLE {}", text(row, 2)?);
            let what = if is_rule { "RULE" } else { "TRIGGER" };
            let always = match Self::read_i64(row, 6)? {
                0 => "",
                _ => "ALWAYS ",
            };
            let quoted = Self::quote(&name)?;
            Ok(Trigger {
                is_rule,
                timing: text(row, 3)?,
                events: text(row, 4)?,
                is_deferrable: Self::read_i64(row, 5)? != 0,
                switch: Some(Switch {
                    off: format!("{alter} DISABLE {what} {quoted}"),
                    on: format!("{alter} ENABLE {always}{what} {quoted}"),
                }),
                name,
            })
        })
    }

    fn foreign_keys<C>(conn: &mut C, _tables: &[TableName]) -> QueryResult<Vec<ForeignKey>>
    where
        C: LogConnection<Backend = Self>,
    {
        let columns = load(conn, Statement::<SelectAllForeignKeys>::new(&[]), |row| {
            let key = ForeignKey {
                name: text(row, 1)?,
                child: TableName::in_schema(text(row, 2)?, text(row, 3)?),
                parent: TableName::in_schema(text(row, 4)?, text(row, 5)?),
                columns: vec![KeyColumn {
                    child: text(row, 6)?,
                    parent: text(row, 7)?,
                    is_set: Self::read_i64(row, 10)? != 0,
                }],
                on_delete: action(&text(row, 8)?),
                on_update: action(&text(row, 9)?),
            };
            Ok((Self::read_i64(row, 0)?, key))
        })?;
        Ok(joined(columns))
    }

    fn replaces_rows<C>(_conn: &mut C, _table: &TableName) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(false)
    }

    fn keys_act<C>(_conn: &mut C) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>,
    {
        Ok(true)
    }

    fn fire_deferred<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")
    }

    fn copy_tables<C>(conn: &mut C, tables: &[TableCopy]) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        for TableCopy { from, to, .. } in tables.iter().filter(|table| !table.exists) {
            let (from_quoted, to_quoted) = (from.quoted(), to.quoted());
            // Without INCLUDING IDENTITY: a generator of the copy's own is made below, also for
            // the columns whose default would draw from the original's sequence.
            conn.batch_execute(&format!(
                "CREATE TABLE {to_quoted} (LIKE {from_quoted} INCLUDING DEFAULTS INCLUDING CONSTRAINTS \
                 INCLUDING INDEXES INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMMENTS INCLUDING STATISTICS)"
            ))?;
            for (column, _) in generators(conn, from)? {
                let column = column.replace('"', "\"\"");
                conn.batch_execute(&format!(
                    "ALTER TABLE {to_quoted} ALTER COLUMN \"{column}\" DROP DEFAULT; \
                     ALTER TABLE {to_quoted} ALTER COLUMN \"{column}\" ADD GENERATED BY DEFAULT AS IDENTITY"
                ))?;
            }
        }
        for TableCopy { from, to, .. } in tables.iter().filter(|table| !table.exists) {
            for TableCopy {
                from: other,
                to: other_copy,
                ..
            } in tables
            {
                let binds = (from.quoted(), other.quoted());
                let keys = load(
                    conn,
                    Statement::<SelectForeignKeys>::new(&[
                        Bind::Text(&binds.0),
                        Bind::Text(&binds.1),
                    ]),
                    |row| {
                        Ok((
                            Self::read_text(row, 0)?.unwrap_or_default(),
                            Self::read_text(row, 1)?.unwrap_or_default(),
                            Self::read_text(row, 2)?.unwrap_or_default(),
                        ))
                    },
                )?;
                for (name, definition, referenced) in keys {
                    let definition = definition.replacen(
                        &format!(" REFERENCES {referenced}("),
                        &format!(" REFERENCES {}(", other_copy.quoted()),
                        1,
                    );
                    conn.batch_execute(&format!(
                        "ALTER TABLE {} ADD CONSTRAINT {} {definition}",
                        to.quoted(),
                        Self::quote(&name)?
                    ))?;
                }
            }
        }
        Ok(())
    }

    fn defer<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("SET CONSTRAINTS ALL DEFERRED")
    }

    fn check_deferred<C>(conn: &mut C, _tables: &[TableName]) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        conn.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")
    }

    /// Only for tables that belong to the user of the connection.
    fn make_deferrable<C>(conn: &mut C, tables: &[TableName]) -> QueryResult<Deferral>
    where
        C: LogConnection<Backend = Self>,
    {
        let mut deferral = Deferral::default();
        for table in tables {
            let quoted = table.quoted();
            let binds = [Bind::Text(&quoted)];
            let keys = load(conn, Statement::<SelectDeferrable>::new(&binds), |row| {
                Ok((
                    Self::read_text(row, 0)?.unwrap_or_default(),
                    Self::read_i64(row, 1)? != 0,
                ))
            })?;
            deferral.any |= !keys.is_empty();
            for (name, _) in keys.iter().filter(|(_, deferrable)| !deferrable) {
                let alter = format!(
                    "ALTER TABLE {quoted} ALTER CONSTRAINT {}",
                    Self::quote(name)?
                );
                conn.batch_execute(&format!("{alter} DEFERRABLE INITIALLY IMMEDIATE"))?;
                deferral.undo.push(format!("{alter} NOT DEFERRABLE"));
            }
        }
        Ok(deferral)
    }

    fn reset_sequences<C>(conn: &mut C, table: &TableName) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>,
    {
        for (column, sequence) in generators(conn, table)? {
            let (table, column) = (table.quoted(), column.replace('"', "\"\""));
            let sequence = sequence.replace('\'', "''");
            conn.batch_execute(&format!(
                "SELECT setval('{sequence}', greatest(max(\"{column}\"), 1), max(\"{column}\") >= 1) \
                 FROM {table} HAVING max(\"{column}\") IS NOT NULL"
            ))?;
        }
        Ok(())
    }
}

/// The columns `version, head_hash, epoch` of a head.
fn head_binds(head: &Head) -> [Bind<'_>; 3] {
    [
        Bind::I64(head.next_sequence as i64),
        Bind::Bytes(head.hash.as_bytes()),
        Bind::I32(head.epoch as i32),
    ]
}

/// The columns of a table that draw from a sequence of their own, with the sequence.
fn generators<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<(String, String)>>
where
    C: LogConnection<Backend = Pg>,
{
    let name = table.quoted();
    let binds = [Bind::Text(&name), Bind::Text(&name), Bind::Text(&name)];
    load(conn, Statement::<SelectGenerators>::new(&binds), |row| {
        Ok((
            Pg::read_text(row, 0)?.unwrap_or_default(),
            Pg::read_text(row, 1)?.unwrap_or_default(),
        ))
    })
}

/// A text of the catalogue that is never `NULL`.
fn text(row: &dyn RawRow<Pg>, column: usize) -> QueryResult<String> {
    Ok(Pg::read_text(row, column)?.unwrap_or_default())
}

/// The letter that stands for an action in the catalogue.
fn action(letter: &str) -> KeyAction {
    match letter {
        "c" => KeyAction::Cascade,
        "n" => KeyAction::SetNull,
        "d" => KeyAction::SetDefault,
        "r" => KeyAction::Restrict,
        _ => KeyAction::NoAction,
    }
}

fn integer(value: &PgValue<'_>) -> deserialize::Result<i64> {
    let bytes = value.as_bytes();
    Ok(match bytes.len() {
        1 => bytes[0].into(),
        2 => i16::from_be_bytes(bytes.try_into()?).into(),
        4 => i32::from_be_bytes(bytes.try_into()?).into(),
        8 => i64::from_be_bytes(bytes.try_into()?),
        _ => return Err("an integer of an unknown width".into()),
    })
}
