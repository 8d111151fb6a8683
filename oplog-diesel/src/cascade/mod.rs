//! The rows below a row: those that refer to it by foreign keys, directly or through others.
//!
//! If a row is deleted, keys with an action delete or change rows below it. If it moves, because its
//! primary key, its root or a column that keys refer to changes, the log has it as a delete and a
//! create, and a replay would meet those same keys in between. In both cases the log must have each
//! row go before the rows that it refers to, and come after them: then the keys of a target find
//! nothing to act upon.

mod below;
mod keys;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use diesel::query_builder::QueryFragment;
use diesel::query_dsl::methods::LoadQuery;
use diesel::query_source::QuerySource;
use oplog_core::{LogRow, Message};

use crate::backend::LogBackend;
use crate::bind::Bindable;
use crate::by_key;
use crate::connection::LogConnection;
use crate::dml::{BeforeDelete, ByKeys, Delete, Deleted, Locking, Many, Returning};
use crate::record::key_bytes;
use crate::replay::AnyRow;
use crate::tx::{Progress, Tx, keys_max};
use crate::{Cascade, Error, Oplogged};

pub(crate) use below::Below;
pub(crate) use keys::{Cascades, Purpose};

impl<C: LogConnection> Tx<'_, C> {
    /// Whether deleting rows of `M` may do something to others that is to be logged.
    pub(crate) fn cascades<M: Oplogged>(&self) -> bool {
        let oplog = &self.progress.oplog;
        M::CASCADE == Cascade::Log && !oplog.cascades().of(M::DEF.type_name).is_empty()
    }

    /// Deletes the rows of a filter together with what foreign keys delete and change with them.
    ///
    /// All of it is read and locked first, and logged in an order in which every row goes before the
    /// rows that it refers to: on the target of a replay, foreign keys then find nothing to do.
    pub(crate) fn delete_cascading<'q, M, W>(
        &mut self,
        filter: W,
        message: fn(&M) -> Message,
    ) -> Result<Vec<M>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        BeforeDelete<M, W>: LoadQuery<'q, C, M>,
        Deleted<M, ByKeys<Many<M>>>: LoadQuery<'q, C, M>,
    {
        let before: BeforeDelete<M, W> = Locking {
            from: M::Table::default().from_clause(),
            filter,
            columns: M::columns(),
        };
        let rows = self.load(before)?;
        if rows.is_empty() {
            return Ok(rows);
        }
        let own: Vec<&dyn AnyRow<C::Backend>> = rows.iter().map(|row| row as _).collect();
        let below = Below::find(self.conn, self.progress, M::DEF, &own, Purpose::Delete)?;
        // Rows that go with others of the same statement are deleted before them.
        let order: Vec<usize> = below.own().collect();
        let mut rows: Vec<Option<M>> = rows.into_iter().map(Some).collect();
        let mut rows: Vec<M> = order.iter().filter_map(|at| rows[*at].take()).collect();
        self.deleting::<M>();
        self.acting_on(&below);
        self.write_many(|tx| {
            let mut deleted = Vec::with_capacity(rows.len());
            while !rows.is_empty() {
                let rest = rows.split_off(rows.len().min(keys_max::<M>()));
                let chunk: Many<M> = Rc::new(std::mem::replace(&mut rows, rest));
                let delete: Deleted<M, ByKeys<Many<M>>> = Returning {
                    statement: Delete {
                        from: M::Table::default().from_clause(),
                        filter: ByKeys(Rc::clone(&chunk)),
                    },
                    columns: M::columns(),
                };
                let returned = tx.load(delete)?;
                tx.all_are_gone(&chunk, &returned)?;
                // The statement is done, and nobody else has the rows.
                deleted.extend(Rc::into_inner(chunk).unwrap_or(returned));
            }
            let places: HashMap<usize, &M> = order.iter().copied().zip(&deleted).collect();
            below.record_deleted(tx.conn, tx.progress, |at| {
                let row = places[&at];
                (row.aggregate(), message(row))
            })?;
            Ok(deleted)
        })
    }

    /// Rows that were to be deleted but were not returned must have gone with others of the same
    /// statement, as SQLite does it, and not have been kept by a trigger.
    fn all_are_gone<M>(&mut self, rows: &[M], returned: &[M]) -> Result<(), Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        if returned.len() == rows.len() {
            return Ok(());
        }
        let returned: HashSet<Vec<u8>> = returned.iter().map(key_bytes).collect();
        let missing: Vec<&dyn AnyRow<C::Backend>> = rows
            .iter()
            .filter(|row| !returned.contains(&key_bytes(*row)))
            .map(|row| row as _)
            .collect();
        let kept = M::table()
            .and_then(|table| by_key::select(self.conn, M::DEF, &table, &missing, |_| Ok(())))
            .map_err(|error| {
                self.progress
                    .failed(self.conn, "looking for deleted rows", error)
            })?;
        match kept.is_empty() {
            true => Ok(()),
            false => Err(Error::RowCount {
                expected: rows.len(),
                found: rows.len() - kept.len(),
            }),
        }
    }

    /// Foreign keys will change rows of these models, whose triggers fire, too.
    fn acting_on(&mut self, below: &Below<C::Backend>) {
        for model in below.models() {
            let Progress {
                recorder, rereads, ..
            } = &mut *self.progress;
            rereads.writing(model.triggers(), recorder.is_empty());
            rereads.expire();
        }
    }

    /// Whether changes may set a column that foreign keys refer to, so that rows below must be found
    /// before.
    pub(crate) fn may_move<M, V>(&self, changes: &V) -> Result<bool, Error>
    where
        M: Oplogged,
        V: QueryFragment<C::Backend>,
    {
        let cascades = self.progress.oplog.cascades();
        let mut columns = cascades.moving_columns(M::DEF).peekable();
        if columns.peek().is_none() {
            return Ok(false);
        }
        // Whoever sets a column names it. One that is only read may be named as well, and then
        // nothing will have moved.
        let text = C::Backend::text_of(changes)?;
        for index in columns {
            if text.contains(&C::Backend::quote(M::DEF.columns[index].name)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds and locks the rows below these if the changes may move them.
    pub(crate) fn below_moving<M, V>(
        &mut self,
        rows: &[M],
        changes: &V,
    ) -> Result<Option<Below<C::Backend>>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        V: QueryFragment<C::Backend>,
    {
        if rows.is_empty() || !self.may_move::<M, V>(changes)? {
            return Ok(None);
        }
        let oplog = self.progress.oplog.clone();
        let rows: Vec<&dyn AnyRow<C::Backend>> = rows.iter().map(|row| row as _).collect();
        if !oplog.cascades().follows(M::DEF) {
            return Ok(Some(Below::alone(M::DEF, rows.len())));
        }
        M::table()
            .and_then(|table| by_key::lock(self.conn, M::DEF, &table, &rows))
            .map_err(|error| {
                self.progress
                    .failed(self.conn, "locking rows that may move", error)
            })?;
        Below::find(self.conn, self.progress, M::DEF, &rows, Purpose::Move).map(Some)
    }

    /// Logs what one statement did to a row, and if that moved it, to the rows below it.
    pub(crate) fn record_change_with<M>(
        &mut self,
        below: Option<Below<C::Backend>>,
        before: &M,
        after: &M,
    ) -> Result<(), Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        if !self.moves(before, after) {
            return self.record_change(before, after);
        }
        let below = below.ok_or(moved::<M>())?;
        self.acting_on(&below);
        let moves = HashSet::from([0]);
        below.record_moved(self.conn, self.progress, &moves, |_| {
            Some((before as _, after as _))
        })
    }

    /// As [`record_changes`](Self::record_changes), with the rows below those that moved.
    pub(crate) fn record_changes_with<M>(
        &mut self,
        below: Option<Below<C::Backend>>,
        before: &[M],
        after: &[M],
        gone: &HashSet<usize>,
    ) -> Result<(), Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        let oplog = self.progress.oplog.clone();
        if oplog.cascades().of(M::DEF.type_name).is_empty() {
            return self.record_changes(before, after, gone);
        }
        let stored: HashMap<Vec<u8>, &M> = after
            .iter()
            .enumerate()
            .filter(|(at, _)| !gone.contains(at))
            .map(|(_, row)| (key_bytes(row), row))
            .collect();
        let mut pairs: HashMap<usize, (&M, &M)> = HashMap::new();
        let mut moves = HashSet::new();
        let mut lost = Vec::new();
        for (at, row) in before.iter().enumerate() {
            let Some(after) = stored.get(&key_bytes(row)) else {
                lost.push((at, row));
                continue;
            };
            pairs.insert(at, (row, *after));
            if self.moves(row, *after) {
                moves.insert(at);
            }
        }
        let old: HashSet<Vec<u8>> = before.iter().map(key_bytes).collect();
        let new: Vec<&M> = stored
            .iter()
            .filter(|(key, _)| !old.contains(*key))
            .map(|(_, row)| *row)
            .collect();
        match (lost.as_slice(), new.as_slice()) {
            // Triggers deleted them.
            (lost, []) => {
                for (_, row) in lost {
                    self.record(*row, &Message::delete(*row))?;
                }
            }
            // Only one got another key, so that it is known which became which.
            ([(at, row)], [after]) => {
                pairs.insert(*at, (*row, *after));
                moves.insert(*at);
            }
            _ => return self.record_keys_moved(below, before, &stored),
        }
        let below = match moves.is_empty() {
            true => None,
            false => Some(below.ok_or(moved::<M>())?),
        };
        let moving = below.as_ref().map(|below| below.moving(&moves));
        for at in 0..before.len() {
            let is_moving = moving.as_ref().is_some_and(|moving| moving.contains(&at));
            if let Some((before, after)) = pairs.get(&at).filter(|_| !is_moving) {
                self.record_change(*before, *after)?;
            }
        }
        let Some(below) = below else {
            return Ok(());
        };
        self.acting_on(&below);
        below.record_moved(self.conn, self.progress, &moves, |at| {
            let pair = pairs.get(&at)?;
            Some((pair.0 as _, pair.1 as _))
        })
    }

    /// Logs that one statement gave several rows other keys, so that nobody can tell which became
    /// which. Nothing but the rows themselves may depend on it.
    fn record_keys_moved<M>(
        &mut self,
        below: Option<Below<C::Backend>>,
        before: &[M],
        stored: &HashMap<Vec<u8>, &M>,
    ) -> Result<(), Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        let below = below.ok_or(moved::<M>())?;
        if below.models().next().is_some() {
            return Err(moved::<M>());
        }
        let is_same = |before: &M, after: &M| Message::update(before, after).is_none();
        let kept: HashSet<Vec<u8>> = before
            .iter()
            .map(|row| (key_bytes(row), row))
            .filter(|(key, row)| stored.get(key).is_some_and(|after| is_same(row, after)))
            .map(|(key, _)| key)
            .collect();
        // Each before the rows that it refers to. When they come back, their order does not matter:
        // a replay looks at the end of the run whether all that is referred to is there.
        let went: Vec<&M> = below
            .own()
            .map(|at| &before[at])
            .filter(|row| !kept.contains(&key_bytes(*row)))
            .collect();
        let came: BTreeMap<&Vec<u8>, &M> = stored
            .iter()
            .filter(|(key, _)| !kept.contains(*key))
            .map(|(key, row)| (key, *row))
            .collect();
        for row in &went {
            self.progress.catch_up(&Message::delete_items(*row))?;
        }
        for row in went {
            self.record(row, &Message::delete_items(row))?;
        }
        for row in came.into_values() {
            self.record(row, &Message::create_items(row))?;
        }
        Ok(())
    }

    /// Whether a change is more than an update of the row alone.
    fn moves<M: Oplogged>(&self, before: &M, after: &M) -> bool {
        let oplog = &self.progress.oplog;
        let mut columns = oplog.cascades().moving_columns(M::DEF);
        columns.any(|index| before.value(index) != after.value(index))
    }
}

fn moved<M: LogRow>() -> Error {
    let type_name = M::DEF.type_name;
    Error::Moved { type_name }
}
