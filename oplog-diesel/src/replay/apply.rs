use std::collections::{BTreeMap, HashMap};

use diesel::result::{DatabaseErrorKind, Error as DieselError};
use oplog_core::{Message, MessageError, Op, RowError, TypeDef};

use super::order::Place;
use super::statement::{OnTable, Texts, Verb};
use super::{AnyRow, TableName, TableOps};
use crate::backend::{Deferral, LogBackend, TableCopy};
use crate::bind::UnsupportedColumn;
use crate::connection::{LogConnection, load};
use crate::error::reduce;
use crate::{Divergence, EntryError, Error, Oplog, TargetError, Triggers};

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayReport {
    /// Entries applied.
    pub entries: u64,
    /// Messages applied.
    pub messages: u64,
    /// Rows that the tables hold in the end.
    pub rows: u64,
}

/// Rows from which on one statement for all, between a savepoint and its release, takes fewer round
/// trips than one statement for each.
const BATCH_ROWS_MIN: usize = 4;

/// Applies messages to tables of any name, strictly.
pub(crate) struct Applier<'o, DB: LogBackend> {
    oplog: &'o Oplog,
    suffix: Option<String>,
    targets: Vec<TableName>,
    deferral: Deferral,
    /// The first of a run of rows that one statement wrote, for which constraints are deferred.
    deferred: Option<Deferred>,
    /// Statements that switch the target's triggers on again.
    triggers: Vec<String>,
    tables: HashMap<&'static str, Table<DB>>,
    /// A run of creates in one table that waits to be inserted together.
    pending: Vec<(Place, Box<dyn AnyRow<DB>>)>,
    pending_type: Option<&'static str>,
    /// Whether one statement of the application wrote the rows that wait.
    pending_items: bool,
    report: ReplayReport,
}

/// Where a run of rows began that one statement of the application wrote.
struct Deferred {
    place: Place,
    table: String,
    key: String,
}

/// A table that messages are applied to.
struct Table<DB: LogBackend> {
    name: TableName,
    def: &'static TypeDef,
    ops: &'static dyn TableOps<DB>,
    texts: Texts,
    /// Rows that were made in the name of this model, less those that were deleted.
    rows: i64,
}

impl<'o, DB: LogBackend> Applier<'o, DB> {
    fn new<C>(
        conn: &mut C,
        oplog: &'o Oplog,
        suffix: Option<String>,
        targets: Vec<TableName>,
    ) -> Result<Self, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let deferral = DB::make_deferrable(conn, &targets).map_err(Error::store(
            "making the constraints of the tables deferrable",
        ))?;
        Ok(Applier {
            oplog,
            suffix,
            targets,
            deferral,
            deferred: None,
            triggers: Vec::new(),
            tables: HashMap::new(),
            pending: Vec::new(),
            pending_type: None,
            pending_items: false,
            report: ReplayReport::default(),
        })
    }

    /// Copies of the tables in the same database.
    pub fn into_suffix<C>(conn: &mut C, oplog: &'o Oplog, suffix: &str) -> Result<Self, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        // All at once, for the sake of the foreign keys among them. A program may link models whose
        // tables are in another database.
        let mut copies = BTreeMap::new();
        for model in oplog.catalog().iter() {
            let Ok(from) = DB::ops(model).table() else {
                continue;
            };
            if columns(conn, &from)?.is_empty() {
                continue;
            }
            let to = from.suffixed(suffix);
            let exists = !columns(conn, &to)?.is_empty();
            if exists {
                check_empty(conn, &to, model.def())?;
            }
            copies.insert(from.clone(), TableCopy { from, to, exists });
        }
        let copies: Vec<TableCopy> = copies.into_values().collect();
        DB::copy_tables(conn, &copies).map_err(Error::store("copying the tables"))?;
        let tables: Vec<TableName> = copies.into_iter().map(|copy| copy.to).collect();
        Self::new(conn, oplog, Some(suffix.to_owned()), tables)
    }

    /// The tables themselves in another database.
    pub fn into_database<C>(conn: &mut C, oplog: &'o Oplog) -> Result<Self, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let (mut tables, mut triggers) = (Vec::new(), Vec::new());
        for model in oplog.catalog().iter() {
            let Ok(table) = DB::ops(model).table() else {
                continue;
            };
            if !columns(conn, &table)?.is_empty() {
                check_empty(conn, &table, model.def())?;
                if model.triggers() != Triggers::Undeclared {
                    triggers.extend(switch_off(conn, &table)?);
                }
                tables.push(table);
            }
        }
        tables.sort_unstable();
        tables.dedup();
        let mut applier = Self::new(conn, oplog, None, tables)?;
        applier.triggers = triggers;
        Ok(applier)
    }

    /// Messages applied so far.
    pub fn messages(&self) -> u64 {
        self.report.messages
    }

    /// Applies one message.
    pub fn apply<C>(&mut self, conn: &mut C, place: &Place, message: &Message) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let model = self
            .oplog
            .catalog()
            .by_name(&message.type_name)
            .map_err(|source| {
                place.error(EntryError::Type {
                    index: place.index,
                    source,
                })
            })?;
        let def = model.def();
        if !self.tables.contains_key(def.type_name) {
            let table = Table::open(conn, def, DB::ops(model), self.suffix.as_deref())?;
            self.tables.insert(def.type_name, table);
        }
        let items = matches!(message.op, Op::CreateItems | Op::DeleteItems);
        let goes_on = |run: &Deferred| items && run.place.is_of_the_transaction_of(place);
        if !self.deferred.as_ref().is_none_or(goes_on) {
            self.flush(conn)?;
            self.check_deferred(conn)?;
        }
        let creates = matches!(message.op, Op::Create | Op::CreateItems);
        if !creates
            || self.pending_type != Some(def.type_name)
            || self.pending.len() >= DB::REPLAY_ROWS_MAX
        {
            self.flush(conn)?;
        }
        let table = &self.tables[def.type_name];
        let row = table.decode(place, message)?;
        self.report.messages += 1;
        if items && !DB::SURVIVES_REFUSAL && self.deferral.any && self.deferred.is_none() {
            self.flush(conn)?;
            self.defer(conn, place, def.type_name, &*row)?;
        }
        let table = &self.tables[def.type_name];
        match message.op {
            Op::Create | Op::CreateItems => {
                self.pending_type = Some(def.type_name);
                self.pending_items = items;
                self.pending.push((place.clone(), row));
                self.count(def.type_name, 1);
            }
            Op::Update => {
                let before = table.decode_before(place, message)?;
                table.update(conn, place, &*before, &*row)?;
            }
            Op::Delete | Op::DeleteItems => {
                if let Err(error) = table.delete(conn, place, &*row) {
                    self.defer_after(conn, error, items, place, def.type_name, &*row)?;
                    self.tables[def.type_name].delete(conn, place, &*row)?;
                }
                self.count(def.type_name, -1);
            }
        }
        Ok(())
    }

    fn count(&mut self, type_name: &'static str, rows: i64) {
        if let Some(table) = self.tables.get_mut(type_name) {
            table.rows += rows;
        }
    }

    /// The tables must hold as many rows as the log says. They do not if a foreign key of the target
    /// deleted any.
    fn check_rows<C>(&mut self, conn: &mut C) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        // Several models may share a table, and one of them delete what another made.
        let mut tables: BTreeMap<&TableName, (i64, &Table<DB>)> = BTreeMap::new();
        for table in self.tables.values() {
            tables.entry(&table.name).or_insert((0, table)).0 += table.rows;
        }
        for (name, (expected, table)) in tables {
            let found = table
                .rows(conn)
                .map_err(Error::store("counting the rows of a table"))?;
            let expected = u64::try_from(expected).unwrap_or(0);
            if found != expected {
                return Err(Error::Target {
                    table: name.to_string(),
                    what: TargetError::Rows { expected, found },
                });
            }
            self.report.rows += found;
        }
        Ok(())
    }

    /// Checks the constraints that were deferred for a run of rows.
    fn check_deferred<C>(&mut self, conn: &mut C) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let Some(run) = self.deferred.take() else {
            return Ok(());
        };
        DB::check_deferred(conn, &self.targets).map_err(|error| Error::Diverged {
            aggregate: run.place.aggregate.as_str().to_owned(),
            sequence: run.place.sequence,
            table: run.table,
            key: format!("{} and the rows after it", run.key),
            what: divergence(&error),
        })
    }

    /// Defers the constraints for a run of rows that begins with this one.
    fn defer<C>(
        &mut self,
        conn: &mut C,
        place: &Place,
        type_name: &'static str,
        row: &dyn AnyRow<DB>,
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        DB::defer(conn).map_err(Error::store("deferring the constraints of the tables"))?;
        let table = &self.tables[type_name];
        self.deferred = Some(Deferred {
            place: place.clone(),
            table: table.name.to_string(),
            key: table.key(row),
        });
        Ok(())
    }

    /// Defers the constraints if that may help after a row was refused. Otherwise gives the error
    /// back.
    fn defer_after<C>(
        &mut self,
        conn: &mut C,
        error: Error,
        items: bool,
        place: &Place,
        type_name: &'static str,
        row: &dyn AnyRow<DB>,
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let orphan = matches!(
            error,
            Error::Diverged {
                what: Divergence::Refused {
                    kind: Some(DatabaseErrorKind::ForeignKeyViolation),
                    ..
                },
                ..
            }
        );
        if !orphan || !items || !DB::SURVIVES_REFUSAL || self.deferred.is_some() {
            return Err(error);
        }
        self.defer(conn, place, type_name, row)
    }

    /// Inserts the rows that wait.
    fn flush<C>(&mut self, conn: &mut C) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let Some(type_name) = self.pending_type.take() else {
            return Ok(());
        };
        let (places, rows): (Vec<_>, Vec<_>) = self.pending.drain(..).unzip();
        let mut from = 0;
        while from < rows.len() {
            let left = rows.len() - from;
            // Powers of two, so that a few statements serve any number of rows.
            let to = from
                + if left < BATCH_ROWS_MIN {
                    1
                } else {
                    1 << left.ilog2()
                };
            let (places, rows) = (&places[from..to], &rows[from..to]);
            if let Err(error) = self.tables[type_name].insert(conn, places, rows) {
                self.defer_after(
                    conn,
                    error,
                    self.pending_items,
                    &places[0],
                    type_name,
                    &*rows[0],
                )?;
                self.tables[type_name].insert(conn, places, rows)?;
            }
            from = to;
        }
        Ok(())
    }

    /// Applies what waits and sets the tables' generators.
    pub fn finish<C>(mut self, conn: &mut C, entries: u64) -> Result<ReplayReport, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        self.flush(conn)?;
        self.check_deferred(conn)?;
        self.check_rows(conn)?;
        for statement in &self.deferral.undo {
            conn.batch_execute(statement)
                .map_err(Error::store("making the constraints what they were"))?;
        }
        for statement in &self.triggers {
            conn.batch_execute(statement).map_err(Error::store(
                "switching the triggers of the tables on again",
            ))?;
        }
        for table in self.tables.values() {
            DB::reset_sequences(conn, &table.name)
                .map_err(Error::store("setting the sequences of the tables"))?;
        }
        self.report.entries = entries;
        Ok(self.report)
    }
}

impl<DB: LogBackend> Table<DB> {
    fn open<C>(
        conn: &mut C,
        def: &'static TypeDef,
        ops: &'static dyn TableOps<DB>,
        suffix: Option<&str>,
    ) -> Result<Self, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let own = ops
            .table()
            .map_err(Error::store("reading the name of a table"))?;
        let name = suffix.map_or_else(|| own.clone(), |suffix| own.suffixed(suffix));
        let refused = |what| Error::Target {
            table: name.to_string(),
            what,
        };
        let described = columns(conn, &name)?;
        if described.is_empty() {
            return Err(refused(TargetError::Missing));
        }
        let triggers = DB::table_triggers(conn, &name)
            .map_err(Error::store("reading the triggers of a table"))?;
        if !triggers.is_empty() {
            let names = triggers.into_iter().map(|trigger| trigger.name).collect();
            return Err(refused(TargetError::Triggers { names }));
        }
        let mut columns = Vec::new();
        for (index, column) in def.columns.iter().enumerate() {
            let found = described
                .iter()
                .find(|found| found.name == column.name)
                .ok_or_else(|| {
                    refused(TargetError::NoColumn {
                        column: column.name,
                    })
                })?;
            if !found.generated {
                columns.push(index);
            }
        }
        let texts = Texts::new::<DB>(&name, def, columns)
            .map_err(Error::store("writing the name of a table"))?;
        Ok(Table {
            name,
            def,
            ops,
            texts,
            rows: 0,
        })
    }

    fn decode(&self, place: &Place, message: &Message) -> Result<Box<dyn AnyRow<DB>>, Error> {
        message
            .values(self.def)
            .and_then(|values| self.ops.decode(&values))
            .map_err(|source| place.row_error(source))
    }

    /// The row before an update: the row after it, with the previous values of what was changed.
    fn decode_before(
        &self,
        place: &Place,
        message: &Message,
    ) -> Result<Box<dyn AnyRow<DB>>, Error> {
        let after = message.values(self.def);
        let previous = message.previous_values(self.def);
        after
            .and_then(|after| {
                Ok(match previous? {
                    Some(previous) => after.overlaid(previous),
                    None => after,
                })
            })
            .and_then(|before| self.ops.decode(&before))
            .map_err(|source| place.row_error(source))
    }

    /// Inserts rows, all of them or none.
    fn insert<C>(
        &self,
        conn: &mut C,
        places: &[Place],
        rows: &[Box<dyn AnyRow<DB>>],
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        if rows.len() == 1 {
            return self.insert_each(conn, places, rows);
        }
        conn.batch_execute("SAVEPOINT oplog_rows")
            .map_err(Error::store("setting a savepoint"))?;
        let result = match self.load(conn, Verb::Insert { rows }) {
            Ok(stored) if stored.len() == rows.len() => places
                .iter()
                .zip(rows)
                .zip(stored)
                .try_for_each(|((place, row), stored)| self.compare(place, &**row, &[stored])),
            // One by one, to find out which row it was.
            _ => {
                conn.batch_execute("ROLLBACK TO oplog_rows")
                    .map_err(Error::store("going back to a savepoint"))?;
                self.insert_each(conn, places, rows)
            }
        };
        if result.is_err() {
            conn.batch_execute("ROLLBACK TO oplog_rows")
                .map_err(Error::store("going back to a savepoint"))?;
        }
        conn.batch_execute("RELEASE oplog_rows")
            .map_err(Error::store("releasing a savepoint"))?;
        result
    }

    fn insert_each<C>(
        &self,
        conn: &mut C,
        places: &[Place],
        rows: &[Box<dyn AnyRow<DB>>],
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        places.iter().zip(rows).try_for_each(|(place, row)| {
            let rows = std::slice::from_ref(row);
            let stored = self.run(conn, place, &**row, Verb::Insert { rows })?;
            self.compare(place, &**row, &stored)
        })
    }

    fn update<C>(
        &self,
        conn: &mut C,
        place: &Place,
        before: &dyn AnyRow<DB>,
        after: &dyn AnyRow<DB>,
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let found = self.run(conn, place, before, Verb::Select { key: before })?;
        self.find(place, before, &found)?;
        let changed: Vec<usize> = self
            .texts
            .inserted()
            .iter()
            .copied()
            .filter(|column| before.value(*column) != after.value(*column))
            .collect();
        if changed.is_empty() {
            return self.compare(place, after, &found);
        }
        let stored = self.run(
            conn,
            place,
            after,
            Verb::Update {
                columns: &changed,
                row: after,
            },
        )?;
        self.compare(place, after, &stored)
    }

    fn delete<C>(&self, conn: &mut C, place: &Place, row: &dyn AnyRow<DB>) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let deleted = self.run(conn, place, row, Verb::Delete { key: row })?;
        self.find(place, row, &deleted)
    }

    /// The one row that an update or delete found must be what the log says.
    fn find(
        &self,
        place: &Place,
        expected: &dyn AnyRow<DB>,
        found: &[Box<dyn AnyRow<DB>>],
    ) -> Result<(), Error> {
        let [found] = found else {
            return Err(self.diverged(place, expected, Divergence::NotFound));
        };
        match self.differences(expected, &**found) {
            columns if columns.is_empty() => Ok(()),
            columns => Err(self.diverged(place, expected, Divergence::Differs { columns })),
        }
    }

    /// The one row that was written must be what it was given.
    fn compare(
        &self,
        place: &Place,
        given: &dyn AnyRow<DB>,
        stored: &[Box<dyn AnyRow<DB>>],
    ) -> Result<(), Error> {
        let [stored] = stored else {
            return Err(self.diverged(place, given, Divergence::NotFound));
        };
        match self.differences(given, &**stored) {
            columns if columns.is_empty() => Ok(()),
            columns => Err(self.diverged(place, given, Divergence::Changed { columns })),
        }
    }

    fn differences(&self, one: &dyn AnyRow<DB>, other: &dyn AnyRow<DB>) -> Vec<&'static str> {
        let columns = self.def.columns.iter().enumerate();
        columns
            .filter(|(index, _)| one.value(*index) != other.value(*index))
            .map(|(_, column)| column.name)
            .collect()
    }

    fn run<C>(
        &self,
        conn: &mut C,
        place: &Place,
        row: &dyn AnyRow<DB>,
        verb: Verb<'_, DB>,
    ) -> Result<Vec<Box<dyn AnyRow<DB>>>, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        self.load(conn, verb)
            .map_err(|error| self.diverged(place, row, divergence(&error)))
    }

    fn load<C>(
        &self,
        conn: &mut C,
        verb: Verb<'_, DB>,
    ) -> Result<Vec<Box<dyn AnyRow<DB>>>, DieselError>
    where
        C: LogConnection<Backend = DB>,
    {
        load(
            conn,
            OnTable {
                texts: &self.texts,
                def: self.def,
                verb,
            },
            |row| self.ops.read(row),
        )
    }

    /// How many rows there are.
    fn rows<C>(&self, conn: &mut C) -> Result<u64, DieselError>
    where
        C: LogConnection<Backend = DB>,
    {
        let count = OnTable {
            texts: &self.texts,
            def: self.def,
            verb: Verb::Count,
        };
        let rows = load(conn, count, |row| DB::read_i64(row, 0))?.pop();
        Ok(rows.unwrap_or(0).unsigned_abs())
    }

    /// The primary key of a row, for people.
    fn key(&self, row: &dyn AnyRow<DB>) -> String {
        let columns = self.def.columns.iter().enumerate();
        let key: Vec<String> = columns
            .filter(|(_, column)| column.key)
            .map(|(index, column)| format!("{} = {}", column.name, row.value(index)))
            .collect();
        key.join(", ")
    }

    fn diverged(&self, place: &Place, row: &dyn AnyRow<DB>, what: Divergence) -> Error {
        Error::Diverged {
            aggregate: place.aggregate.as_str().to_owned(),
            sequence: place.sequence,
            table: self.name.to_string(),
            key: self.key(row),
            what,
        }
    }
}

impl Place {
    fn error(&self, source: EntryError) -> Error {
        Error::Entry {
            aggregate: self.aggregate.as_str().to_owned(),
            sequence: self.sequence,
            source,
        }
    }

    fn row_error(&self, source: RowError) -> Error {
        self.error(EntryError::Message {
            index: self.index,
            source: MessageError::Row { source },
        })
    }
}

/// An error of a statement of a replay, reduced to what can't carry a row's values.
fn divergence(error: &DieselError) -> Divergence {
    if let DieselError::SerializationError(cause) = error
        && let Some(UnsupportedColumn { column }) = cause.downcast_ref()
    {
        return Divergence::Unsupported { column };
    }
    let (kind, constraint) = reduce(error);
    Divergence::Refused { kind, constraint }
}

/// Switches the triggers of a table off whose model declares them: what they do is in the log. Gives
/// the statements that make them what they were. Those that can't be switched off are left, and
/// found when the table is opened.
fn switch_off<C: LogConnection>(conn: &mut C, table: &TableName) -> Result<Vec<String>, Error> {
    let triggers = C::Backend::table_triggers(conn, table)
        .map_err(Error::store("reading the triggers of a table"))?;
    let mut on_again = Vec::new();
    for switch in triggers.into_iter().filter_map(|trigger| trigger.switch) {
        conn.batch_execute(&switch.off)
            .map_err(Error::store("switching off the triggers of a table"))?;
        on_again.push(switch.on);
    }
    Ok(on_again)
}

fn columns<C: LogConnection>(conn: &mut C, table: &TableName) -> Result<Vec<super::Column>, Error> {
    C::Backend::table_columns(conn, table).map_err(Error::store("reading the columns of a table"))
}

fn check_empty<C: LogConnection>(
    conn: &mut C,
    table: &TableName,
    def: &'static TypeDef,
) -> Result<(), Error> {
    let rows = Texts::new::<C::Backend>(table, def, Vec::new())
        .and_then(|texts| {
            load(
                conn,
                OnTable {
                    texts: &texts,
                    def,
                    verb: Verb::Any,
                },
                |_| Ok(()),
            )
        })
        .map_err(Error::store("looking whether a table is empty"))?;
    match rows.is_empty() {
        true => Ok(()),
        false => Err(Error::Target {
            table: table.to_string(),
            what: TargetError::NotEmpty,
        }),
    }
}
