//! Everything that differs between databases.

mod insert_many;
#[cfg(feature = "postgres_backend")]
mod postgres;
#[cfg(feature = "postgres_backend")]
mod postgres_row;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use insert_many::InsertMany;
pub(crate) use insert_many::bound_columns;

use diesel::QueryResult;
use diesel::backend::Backend;
use diesel::migration::Migration;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::result::Error as DieselError;
use oplog_core::{Head, TypeDef};

use crate::bind::RawRow;
use crate::catalogue::{ForeignKey, Trigger};
use crate::connection::LogConnection;
use crate::model::Model;
use crate::replay::{AnyRow, Column, TableName, TableOps};
use crate::statement::Bind;
use crate::store::{Redemption, Row};

/// A database that can hold a log: its dialect, its locks and its catalogue.
///
/// Open on purpose, for connections of other crates to Diesel's backends and for backends to come.
pub trait LogBackend: Backend<QueryBuilder: Default> + 'static {
    /// Name of the database in messages to people.
    const NAME: &'static str;
    /// Opens a top-level transaction in which every statement sees what was committed before it,
    /// whatever the session's default is.
    const BEGIN: &'static str;
    /// Opens a top-level transaction that changes our own tables as such. Once it is open, nobody's
    /// reading can keep it from committing.
    const BEGIN_ALONE: &'static str;
    /// Whether several transactions write at once, so that rows must be locked before they are read
    /// to be changed.
    const LOCKS_ROWS: bool;
    /// Whether an insert says `DEFAULT` for what is not given, and does not leave out its column. Then one
    /// whose values are all bound has the same text whenever it is made of the same type.
    const SAYS_DEFAULT: bool;
    /// Whether an `UPDATE` can return rows as they were, with [`Exchange`](crate::dml::Exchange).
    const RETURNS_BEFORE: bool;

    /// Whether a head that is known saves reading a ticket. Where a transaction locks the whole
    /// database, reading is cheap and says the truth.
    const CACHES_HEADS: bool;

    /// Binds a value of one of our statements.
    ///
    /// # Errors
    ///
    /// Those of Diesel's query builder.
    fn push<'b>(out: &mut AstPass<'_, 'b, Self>, bind: &'b Bind<'b>) -> QueryResult<()>;
    /// A name in the database's own quotes.
    ///
    /// # Errors
    ///
    /// Those of Diesel's query builder.
    fn quote(name: &str) -> QueryResult<String>;
    /// The text of a part of a statement, with placeholders for its values.
    ///
    /// # Errors
    ///
    /// Those of Diesel's query builder.
    fn text_of<F: QueryFragment<Self>>(fragment: &F) -> QueryResult<String>;
    /// Reads an integer of one of our columns; `NULL` is an error.
    ///
    /// # Errors
    ///
    /// If the column holds something else.
    fn read_i64(row: &dyn RawRow<Self>, column: usize) -> QueryResult<i64>;
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// If the column holds something else.
    fn read_text(row: &dyn RawRow<Self>, column: usize) -> QueryResult<Option<String>>;
    /// Reads bytes.
    ///
    /// # Errors
    ///
    /// If the column holds something else.
    fn read_bytes(row: &dyn RawRow<Self>, column: usize) -> QueryResult<Option<Vec<u8>>>;

    /// Locks an aggregate's ticket until the end of the transaction and reads it.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn lock_ticket<C>(conn: &mut C, name: &str, wait: Wait) -> QueryResult<Locked>
    where
        C: LogConnection<Backend = Self>;

    /// Creates the ticket of an aggregate that has none, and locks it. `false` if somebody else
    /// did, or is about to and we do not wait.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn create_ticket<C>(conn: &mut C, name: &str, head: &Head, wait: Wait) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>;

    /// Redeems a ticket and appends the last of its entries, in as few round trips as the database
    /// allows. `false` if the ticket was not as expected, or is held and must not be waited for;
    /// then nothing was written.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn redeem<C>(conn: &mut C, redemption: &Redemption<'_>, row: &Row<'_>) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>;

    /// Whether [`write_row`](Self::write_row) works here.
    const WRITES_ROWS_ALONE: bool;

    /// Writes one row, redeems a ticket and appends its entry, in one statement without a transaction
    /// around it. `false` if the stored row or the ticket is not as expected; then nothing was
    /// written.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn write_row<C>(
        conn: &mut C,
        table: &TableName,
        def: &'static TypeDef,
        write: &RowWrite<'_, Self>,
        redemption: &Redemption<'_>,
        row: &Row<'_>,
    ) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>;

    /// Makes the database refuse writes on this connection until [`end_reading`](Self::end_reading),
    /// inside a transaction that goes on afterwards.
    ///
    /// # Errors
    ///
    /// Those of the statements.
    fn begin_reading<C>(conn: &mut C) -> QueryResult<Reading>
    where
        C: LogConnection<Backend = Self>;

    /// Lets the transaction write again, also after a statement that failed. `false` if something was
    /// written nevertheless.
    ///
    /// # Errors
    ///
    /// Those of the statements; also if the transaction was ended meanwhile.
    fn end_reading<C>(conn: &mut C, reading: Reading) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>;

    /// Asked after a statement failed: whether the database took back the whole transaction because of
    /// it. The next statement would be one outside of any, and must not be sent.
    fn has_vanished<C>(_conn: &mut C) -> bool
    where
        C: LogConnection<Backend = Self>,
    {
        false
    }

    /// The migrations of the log's own tables, oldest first.
    fn migrations() -> Vec<Box<dyn Migration<Self>>>;

    /// Serialises whoever changes our own tables (migrations, keys) until the end of the
    /// transaction.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn lock_maintenance<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>;

    /// Makes everything read in this transaction come from one snapshot.
    const BEGIN_SNAPSHOT: &'static str;

    /// The columns of a table, as the database describes them; none if there is no such table.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn table_columns<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<Column>>
    where
        C: LogConnection<Backend = Self>;

    /// The full name of a table, as the catalogue spells it; `None` if there is no such table.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn resolve_table<C>(conn: &mut C, table: &TableName) -> QueryResult<Option<TableName>>
    where
        C: LogConnection<Backend = Self>;

    /// The triggers and rules that fire when rows of a table are written. Those that the database
    /// made for foreign keys and those that are switched off are none.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn table_triggers<C>(conn: &mut C, table: &TableName) -> QueryResult<Vec<Trigger>>
    where
        C: LogConnection<Backend = Self>;

    /// All foreign keys of the schemas that these tables are in, with full names.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn foreign_keys<C>(conn: &mut C, tables: &[TableName]) -> QueryResult<Vec<ForeignKey>>
    where
        C: LogConnection<Backend = Self>;

    /// Whether a constraint of the table makes an insert or update delete rows that are in its way.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn replaces_rows<C>(conn: &mut C, table: &TableName) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>;

    /// Whether foreign keys act on this connection.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn keys_act<C>(conn: &mut C) -> QueryResult<bool>
    where
        C: LogConnection<Backend = Self>;

    /// Lets triggers that were to fire at the commit fire now.
    ///
    /// # Errors
    ///
    /// Those of the triggers, and those of constraints that were to be checked at the commit.
    fn fire_deferred<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>;

    /// Creates the copies that do not exist yet, empty, with the keys, constraints and defaults of
    /// their originals and the foreign keys among all copies.
    ///
    /// # Errors
    ///
    /// Those of the statements.
    fn copy_tables<C>(conn: &mut C, tables: &[TableCopy]) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>;

    /// Makes the foreign keys of these tables deferrable until the end of the transaction: a replay
    /// writes row by row what one statement of the application wrote at once.
    ///
    /// # Errors
    ///
    /// Those of the statements.
    fn make_deferrable<C>(conn: &mut C, tables: &[TableName]) -> QueryResult<Deferral>
    where
        C: LogConnection<Backend = Self>;

    /// Moves the generators of a table's columns past the values that are in it.
    ///
    /// # Errors
    ///
    /// Those of the statements.
    fn reset_sequences<C>(conn: &mut C, table: &TableName) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>;

    /// Rows of one insert statement of a replay.
    const REPLAY_ROWS_MAX: usize;

    /// How the rows of a model are written back on this database.
    fn ops(model: &Model) -> &'static dyn TableOps<Self>;

    /// Whether a transaction goes on after a statement that a constraint refused, so that constraints
    /// need to be deferred only then.
    const SURVIVES_REFUSAL: bool;

    /// From now on, checks constraints later.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    fn defer<C>(conn: &mut C) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>;

    /// Checks what was deferred on these tables, and from now on at once.
    ///
    /// # Errors
    ///
    /// Those of the constraints.
    fn check_deferred<C>(conn: &mut C, tables: &[TableName]) -> QueryResult<()>
    where
        C: LogConnection<Backend = Self>;

    /// Words between the column list and the values of an insert that may set identity columns.
    const INSERT_IDENTITY: &'static str;
}

/// What is done to one row.
pub enum RowWrite<'a, DB: LogBackend> {
    /// Inserts it.
    Insert {
        /// The whole row.
        new: &'a dyn AnyRow<DB>,
    },
    /// Sets columns of it.
    Update {
        /// The whole row, as it must be stored.
        old: &'a dyn AnyRow<DB>,
        /// The whole row, as it becomes.
        new: &'a dyn AnyRow<DB>,
        /// The columns that differ, by their index in the model's definition.
        columns: &'a [usize],
    },
    /// Deletes it.
    Delete {
        /// The whole row, as it must be stored.
        old: &'a dyn AnyRow<DB>,
    },
}

/// What a connection was before it was lent for reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Whether it refused writes already.
    pub refused: bool,
    /// A count that writes change, of whatever the database counts.
    pub changes: i64,
}

/// What can be deferred in a replay.
#[derive(Clone, Debug, Default)]
pub struct Deferral {
    /// Whether there is any constraint that [`LogBackend::defer`] has an effect on.
    pub any: bool,
    /// Statements that make the constraints what they were.
    pub undo: Vec<String>,
}

/// A table and its copy.
#[derive(Clone, Debug)]
pub struct TableCopy {
    /// The original.
    pub from: TableName,
    /// The copy.
    pub to: TableName,
    /// Whether the copy is there already.
    pub exists: bool,
}

/// Whether to wait for a ticket that somebody else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is free.
    ForIt,
    /// Not at all: in an optimistic close, whoever holds the ticket has already won.
    NotAtAll,
}

/// What became of the attempt to lock a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// The ticket is ours until the end of the transaction.
    Ours(Head),
    /// There is no such ticket, or it is held and we did not wait.
    NotThere,
}

/// An error about bytes in one of our tables that are not what they must be.
pub(crate) fn malformed(what: &'static str) -> DieselError {
    DieselError::DeserializationError(format!("{what} in the oplog's tables is malformed").into())
}

/// Foreign keys, of which the catalogue gives one row for each column.
pub(crate) fn joined<Id: PartialEq>(columns: Vec<(Id, ForeignKey)>) -> Vec<ForeignKey> {
    let mut keys: Vec<(Id, ForeignKey)> = Vec::new();
    for (id, key) in columns {
        match keys.last_mut() {
            Some((last, joined)) if *last == id => joined.columns.extend(key.columns),
            _ => keys.push((id, key)),
        }
    }
    keys.into_iter().map(|(_, key)| key).collect()
}

/// Reads `version, head_hash, epoch`.
pub(crate) fn read_head<DB: LogBackend>(row: &dyn RawRow<DB>) -> QueryResult<Head> {
    let version = DB::read_i64(row, 0)?;
    let hash = DB::read_bytes(row, 1)?.ok_or_else(|| malformed("a head hash"))?;
    let epoch = DB::read_i64(row, 2)?;
    Ok(Head {
        next_sequence: u64::try_from(version).map_err(|_| malformed("a ticket version"))?,
        hash: hash
            .as_slice()
            .try_into()
            .map_err(|_| malformed("a head hash"))?,
        epoch: u32::try_from(epoch).map_err(|_| malformed("an epoch"))?,
    })
}

/// Binding and reading is the same code on every backend, but its bounds can only be met with the
/// backend named.
macro_rules! values {
    () => {
        fn push<'b>(
            out: &mut diesel::query_builder::AstPass<'_, 'b, Self>,
            bind: &'b $crate::statement::Bind<'b>,
        ) -> diesel::QueryResult<()> {
            use diesel::sql_types::{BigInt, Binary, Integer, Nullable, SmallInt, Text};
            use $crate::statement::Bind;
            match bind {
                Bind::I64(value) => out.push_bind_param::<BigInt, _>(value),
                Bind::I32(value) => out.push_bind_param::<Integer, _>(value),
                Bind::I16(value) => out.push_bind_param::<SmallInt, _>(value),
                Bind::Text(value) => out.push_bind_param::<Text, str>(value),
                Bind::Bytes(value) => out.push_bind_param::<Binary, [u8]>(value),
                Bind::MaybeBytes(value) => out.push_bind_param::<Nullable<Binary>, _>(value),
            }
        }
        fn quote(name: &str) -> diesel::QueryResult<String> {
            use diesel::query_builder::QueryBuilder;
            let mut builder = <Self as diesel::backend::Backend>::QueryBuilder::default();
            builder.push_identifier(name)?;
            Ok(QueryBuilder::<Self>::finish(builder))
        }
        fn text_of<F: diesel::query_builder::QueryFragment<Self>>(
            fragment: &F,
        ) -> diesel::QueryResult<String> {
            use diesel::query_builder::QueryBuilder;
            let mut builder = <Self as diesel::backend::Backend>::QueryBuilder::default();
            fragment.to_sql(&mut builder, &Self)?;
            Ok(QueryBuilder::<Self>::finish(builder))
        }
        fn read_text(
            row: &dyn $crate::bind::RawRow<Self>,
            column: usize,
        ) -> diesel::QueryResult<Option<String>> {
            $crate::bind::read::<_, diesel::sql_types::Nullable<diesel::sql_types::Text>, Self>(
                row, column,
            )
        }
        fn read_bytes(
            row: &dyn $crate::bind::RawRow<Self>,
            column: usize,
        ) -> diesel::QueryResult<Option<Vec<u8>>> {
            $crate::bind::read::<_, diesel::sql_types::Nullable<diesel::sql_types::Binary>, Self>(
                row, column,
            )
        }
    };
}
use values;
