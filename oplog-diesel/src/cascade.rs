//! The rows below a row: those that refer to it by foreign keys, directly or through others.
//!
//! If a row is deleted, keys with an action delete or change rows below it. If it moves, because its
//! primary key, its root or a column that keys refer to changes, the log has it as a delete and a
//! create, and a replay would meet those same keys in between. In both cases the log must have each
//! row go before the rows that it refers to, and come after them: then the keys of a target find
//! nothing to act upon.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use diesel::query_builder::QueryFragment;
use diesel::query_dsl::methods::LoadQuery;
use diesel::query_source::QuerySource;
use oplog_core::{
    Aggregate, LogRow, Message, Op, RowError, RowValues, TypeDef, Value, encode_columns,
};

use crate::backend::LogBackend;
use crate::bind::Bindable;
use crate::by_key::{self, Ends, Numbered, key_of};
use crate::catalogue::{KeyAction, KeyColumn};
use crate::check::Catalogue;
use crate::connection::LogConnection;
use crate::dml::{BeforeDelete, ByKeys, Delete, Deleted, Locking, Many, Returning};
use crate::model::Model;
use crate::record::key_bytes;
use crate::replay::{AnyRow, TableName};
use crate::reread::steps;
use crate::tx::{Progress, Tx, keys_max};
use crate::{Cascade, Error, Oplogged};

/// The foreign keys among logged tables, by the stored name of the type that they refer to.
#[derive(Debug, Default)]
pub(crate) struct Cascades {
    keys: HashMap<&'static str, Vec<Key>>,
}

/// A foreign key between two logged tables.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    parent_table: TableName,
    child: Model,
    child_table: TableName,
    columns: Vec<KeyColumn>,
    on_delete: KeyAction,
    on_update: KeyAction,
}

/// What is about to happen to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Delete,
    Move,
}

/// Rows and the rows below them, as they are before a statement, locked.
pub(crate) struct Below<DB: LogBackend> {
    nodes: Vec<Node<DB>>,
    /// Those that go, each before the rows that it refers to.
    order: Vec<usize>,
    /// Whether foreign keys act on this connection.
    keys_act: bool,
}

struct Node<DB: LogBackend> {
    def: &'static TypeDef,
    row: NodeRow<DB>,
    /// Whether it goes, and does not only change.
    goes: bool,
    /// The rows that refer to it, each with the index of the key among those of its type.
    children: Vec<(usize, usize)>,
}

enum NodeRow<DB: LogBackend> {
    /// One of those that the statement itself is about, by its index.
    Own(usize),
    /// One that a key is about.
    Victim(Model, Box<dyn AnyRow<DB>>),
}

/// A message, and the aggregate it belongs to.
type Step = (Aggregate, Message);

impl Cascades {
    pub fn new(catalogue: &Catalogue) -> Self {
        let mut keys: HashMap<&'static str, Vec<Key>> = HashMap::new();
        for key in &catalogue.keys {
            let parent = catalogue.tables.get(&key.parent);
            let child = catalogue.tables.get(&key.child);
            let (Some(parent), Some(child)) = (parent, child) else {
                continue;
            };
            let Some(model) = child.model() else {
                continue;
            };
            let acts = key.on_delete.writes() || key.on_update.writes();
            let key = Key {
                parent_table: parent.name.clone(),
                child: *model,
                child_table: child.name.clone(),
                columns: key.columns.clone(),
                on_delete: key.on_delete,
                on_update: key.on_update,
            };
            // What is not declared is not done, if the log was opened nevertheless.
            let declares = |model: &&Model| !acts || model.cascade() == Cascade::Log;
            for model in parent.models.iter().filter(declares) {
                let keys = keys.entry(model.def().type_name).or_default();
                keys.push(key.clone());
            }
        }
        Cascades { keys }
    }

    /// The keys that refer to the rows of a type.
    pub fn of(&self, type_name: &str) -> &[Key] {
        self.keys.get(type_name).map_or(&[], Vec::as_slice)
    }

    /// The columns of a type that must not change without care: the rows below would be in the way
    /// of a replay, or change, too. None if nothing is below.
    pub fn moving_columns(&self, def: &'static TypeDef) -> impl Iterator<Item = usize> {
        let keys = self.of(def.type_name);
        let columns = match keys {
            [] => 0,
            _ => def.columns.len(),
        };
        (0..columns).filter(move |index| {
            let column = &def.columns[*index];
            let is_identity = column.key || def.root == Some(*index);
            let acts = |key: &Key| key.on_update.writes() && key.refers_to(column.name);
            is_identity || keys.iter().any(acts)
        })
    }

    /// Whether rows that refer to a row of this type move with it.
    fn follows(&self, def: &'static TypeDef) -> bool {
        let mut keys = self.of(def.type_name).iter();
        keys.any(|key| key.follows(Purpose::Move).0)
    }
}

impl Key {
    fn refers_to(&self, column: &str) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|key| key.parent.eq_ignore_ascii_case(column))
    }

    /// Whether the rows that refer to one that goes go as well, and whether they must at least be
    /// looked at.
    fn follows(&self, purpose: Purpose) -> (bool, bool) {
        // A replay defers constraints among the rows of one statement, but not what keys do and not
        // `RESTRICT`.
        let looks = self.on_delete != KeyAction::NoAction;
        match purpose {
            Purpose::Delete => (self.on_delete == KeyAction::Cascade, looks),
            Purpose::Move => {
                let goes = looks || self.on_update.writes();
                (goes, goes)
            }
        }
    }
}

impl<DB: LogBackend> Below<DB> {
    /// Rows with nothing below them that is of interest.
    fn alone(def: &'static TypeDef, rows: usize) -> Self {
        let nodes = (0..rows).map(|at| Node {
            def,
            row: NodeRow::Own(at),
            goes: true,
            children: Vec::new(),
        });
        Below {
            nodes: nodes.collect(),
            order: (0..rows).collect(),
            keys_act: false,
        }
    }

    /// Finds and locks the rows below these, which must be locked already so that nobody makes
    /// others refer to them meanwhile.
    pub fn find<C>(
        conn: &mut C,
        progress: &mut Progress,
        def: &'static TypeDef,
        own: &[&dyn AnyRow<DB>],
        purpose: Purpose,
    ) -> Result<Self, Error>
    where
        C: LogConnection<Backend = DB>,
    {
        let oplog = progress.oplog.clone();
        let Below { mut nodes, .. } = Self::alone(def, own.len());
        let mut known: HashMap<(&'static str, Vec<u8>), usize> = HashMap::new();
        for (at, row) in own.iter().enumerate() {
            let key = key_of(def, |index| row.value(index));
            known.insert((def.type_name, key), at);
        }
        let keys_act = DB::keys_act(conn)
            .map_err(|error| progress.failed(conn, "asking whether foreign keys act", error))?;
        // Where they do not, nothing goes with a deleted row. But a row that moves must still be
        // able to do so on a target where they do.
        let mut waiting: Vec<usize> = match keys_act || purpose == Purpose::Move {
            true => (0..nodes.len()).collect(),
            false => Vec::new(),
        };
        while !waiting.is_empty() {
            let mut next = Vec::new();
            let mut by_type: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
            for node in waiting {
                let nodes_of_type = by_type.entry(nodes[node].def.type_name).or_default();
                nodes_of_type.push(node);
            }
            for (type_name, parents) in by_type {
                for (at, key) in oplog.cascades().of(type_name).iter().enumerate() {
                    let (goes, looks) = key.follows(purpose);
                    if !looks {
                        continue;
                    }
                    let rows: Vec<&dyn AnyRow<DB>> = parents
                        .iter()
                        .map(|node| nodes[*node].row.of(own))
                        .collect();
                    let child = key.child.def();
                    let ends = Ends {
                        parent: nodes[parents[0]].def,
                        parent_table: &key.parent_table,
                        child,
                        child_table: &key.child_table,
                        columns: &key.columns,
                        deletes: goes,
                    };
                    let children = by_key::children(conn, &ends, &rows, DB::ops(&key.child))
                        .map_err(|error| {
                            progress.failed(conn, "reading the rows that refer to others", error)
                        })?;
                    for (parent, row) in children {
                        let parent = parents[parent];
                        let id = (child.type_name, key_of(child, |index| row.value(index)));
                        let node = *known.entry(id).or_insert_with(|| {
                            nodes.push(Node {
                                def: child,
                                row: NodeRow::Victim(key.child, row),
                                goes: false,
                                children: Vec::new(),
                            });
                            nodes.len() - 1
                        });
                        // A row that refers to itself goes as any other.
                        if node != parent {
                            nodes[parent].children.push((node, at));
                        }
                        if goes && !nodes[node].goes {
                            nodes[node].goes = true;
                            next.push(node);
                        }
                    }
                }
            }
            waiting = next;
        }
        let order = children_first(&nodes).ok_or(Error::CascadeCircle {
            type_name: def.type_name,
        })?;
        Ok(Below {
            nodes,
            order,
            keys_act,
        })
    }

    /// The rows of the statement itself, by their indexes, each before those that it refers to.
    pub fn own(&self) -> impl Iterator<Item = usize> {
        self.order
            .iter()
            .filter_map(|node| match self.nodes[*node].row {
                NodeRow::Own(at) => Some(at),
                NodeRow::Victim(..) => None,
            })
    }

    /// The models of the rows below.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.nodes.iter().filter_map(|node| match &node.row {
            NodeRow::Own(_) => None,
            NodeRow::Victim(model, _) => Some(model),
        })
    }

    /// Logs what deleting the rows did to those below: first what only changed, then what went, each
    /// of the statement's own rows with its own message.
    pub fn record_deleted<C>(
        self,
        conn: &mut C,
        progress: &mut Progress,
        own: impl Fn(usize) -> Step,
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
    {
        for node in self.nodes.iter().filter(|node| !node.goes) {
            let NodeRow::Victim(model, before) = &node.row else {
                continue;
            };
            let after = read_again(conn, progress, model, &[&**before])?.pop();
            let steps = steps(
                node.def,
                Some(|index| before.value(index)),
                after.as_ref().map(|row| |index| row.value(index)),
            );
            for (aggregate, message) in steps {
                progress.record(node.def, aggregate, &message)?;
            }
        }
        let went = self.order.iter().map(|node| {
            let Node { def, row, .. } = &self.nodes[*node];
            match row {
                NodeRow::Own(at) => own(*at),
                NodeRow::Victim(_, row) => step(Op::DeleteItems, def, &**row),
            }
        });
        record_run(progress, went.collect())
    }

    /// Which of the statement's own rows go and come if these of them move: they and those below.
    pub fn moving(&self, moves: &HashSet<usize>) -> HashSet<usize> {
        let own = |node: usize| match self.nodes[node].row {
            NodeRow::Own(at) => Some(at),
            NodeRow::Victim(..) => None,
        };
        self.moved(moves).into_iter().filter_map(own).collect()
    }

    /// Logs that rows moved: that they and all below them went, and came back. `moves` are those of
    /// the statement's own rows that moved, `own` gives each of them before and after.
    pub fn record_moved<'r, C>(
        self,
        conn: &mut C,
        progress: &mut Progress,
        moves: &HashSet<usize>,
        own: impl Fn(usize) -> Option<(&'r dyn AnyRow<DB>, &'r dyn AnyRow<DB>)>,
    ) -> Result<(), Error>
    where
        C: LogConnection<Backend = DB>,
        DB: 'r,
    {
        let moved = self.moved(moves);
        let after = self.after(conn, progress, &moved, &own)?;
        let order = || self.order.iter().filter(|node| moved.contains(node));
        // One row alone that has another key now leaves nothing behind that could refer to it.
        let has_new_key = |node: &usize| match self.nodes[*node].row {
            NodeRow::Own(at) => own(at).is_some_and(|(before, after)| {
                let def = self.nodes[*node].def;
                let key = |row: &dyn AnyRow<DB>| key_of(def, |index| row.value(index));
                key(before) != key(after)
            }),
            NodeRow::Victim(..) => false,
        };
        let is_alone = moved.len() == 1 && moved.iter().all(has_new_key);
        let (delete, create) = match is_alone {
            true => (Op::Delete, Op::Create),
            false => (Op::DeleteItems, Op::CreateItems),
        };
        let mut run = Vec::new();
        for node in order() {
            let Node { def, row, .. } = &self.nodes[*node];
            let before = match row {
                NodeRow::Own(at) => own(*at).map(|(before, _)| before),
                NodeRow::Victim(_, before) => Some(&**before),
            };
            run.extend(before.map(|row| step(delete, def, row)));
        }
        for node in order().rev() {
            let Node { def, row, .. } = &self.nodes[*node];
            let after = match row {
                NodeRow::Own(at) => own(*at).map(|(_, after)| after),
                NodeRow::Victim(..) => after.get(node).map(|row| &**row),
            };
            run.extend(after.map(|row| step(create, def, row)));
        }
        record_run(progress, run)
    }

    /// The rows of the statement itself that moved, and all below them.
    fn moved(&self, moves: &HashSet<usize>) -> HashSet<usize> {
        let has_moved = |node: &usize| match self.nodes[*node].row {
            NodeRow::Own(at) => moves.contains(&at),
            NodeRow::Victim(..) => false,
        };
        let mut moved = HashSet::new();
        let mut waiting: Vec<usize> = (0..self.nodes.len()).filter(has_moved).collect();
        while let Some(node) = waiting.pop() {
            if moved.insert(node) {
                waiting.extend(self.nodes[node].children.iter().map(|(child, _)| *child));
            }
        }
        moved
    }

    /// The rows below as they are stored after the statement. Where a key is part of a primary key,
    /// the row is looked for under the key that it must have now.
    fn after<'r, C>(
        &self,
        conn: &mut C,
        progress: &mut Progress,
        moved: &HashSet<usize>,
        own: &impl Fn(usize) -> Option<(&'r dyn AnyRow<DB>, &'r dyn AnyRow<DB>)>,
    ) -> Result<HashMap<usize, Box<dyn AnyRow<DB>>>, Error>
    where
        C: LogConnection<Backend = DB>,
        DB: 'r,
    {
        let oplog = progress.oplog.clone();
        let mut changes: HashMap<usize, Vec<(usize, Value<'static>)>> = HashMap::new();
        let mut expected: BTreeMap<&'static str, Vec<Numbered<DB>>> = BTreeMap::new();
        // Parents first: what changes in a row may change the rows below it in turn.
        for node in self.order.iter().rev().filter(|node| moved.contains(node)) {
            let Node {
                def, row, children, ..
            } = &self.nodes[*node];
            let changed = changes.remove(node).unwrap_or_default();
            let keys = oplog.cascades().of(def.type_name);
            let mut pass_on = |before: &dyn AnyRow<DB>, after: &dyn AnyRow<DB>| {
                for (child, key) in children.iter().filter(|_| self.keys_act) {
                    let changes = changes.entry(*child).or_default();
                    changes.extend(keys[*key].changes(def, before, after));
                }
            };
            match row {
                NodeRow::Own(at) => {
                    if let Some((before, after)) = own(*at) {
                        pass_on(before, after);
                    }
                }
                NodeRow::Victim(model, before) => {
                    let after = changed_row(model, &**before, &changed)?;
                    pass_on(&**before, &*after);
                    expected
                        .entry(def.type_name)
                        .or_default()
                        .push((*node, after));
                }
            }
        }
        let mut stored = HashMap::new();
        for (type_name, expected) in expected {
            let model = *oplog.catalog().by_name(type_name)?;
            let def = model.def();
            let rows: Vec<&dyn AnyRow<DB>> = expected.iter().map(|(_, row)| &**row).collect();
            let mut found: HashMap<Vec<u8>, _> = read_again(conn, progress, &model, &rows)?
                .into_iter()
                .map(|row| (key_of(def, |index| row.value(index)), row))
                .collect();
            for (node, row) in &expected {
                // A trigger may have deleted it.
                if let Some(row) = found.remove(&key_of(def, |index| row.value(index))) {
                    stored.insert(*node, row);
                }
            }
        }
        Ok(stored)
    }
}

impl Key {
    /// What the change of a row that it refers to does to a row with the key.
    fn changes<DB: LogBackend>(
        &self,
        parent: &'static TypeDef,
        before: &dyn AnyRow<DB>,
        after: &dyn AnyRow<DB>,
    ) -> Vec<(usize, Value<'static>)> {
        let find = |def: &'static TypeDef, name: &str| {
            let mut columns = def.columns.iter();
            columns.position(|column| column.name.eq_ignore_ascii_case(name))
        };
        let pairs = self.columns.iter().filter_map(|column| {
            let pair = (
                find(parent, &column.parent)?,
                find(self.child.def(), &column.child)?,
            );
            Some(pair)
        });
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let changed = |(parent, _): &(usize, usize)| before.value(*parent) != after.value(*parent);
        if !pairs.iter().any(changed) {
            return Vec::new();
        }
        pairs
            .into_iter()
            .filter_map(|(parent, child)| match self.on_update {
                KeyAction::Cascade => Some((child, after.value(parent).into_owned())),
                KeyAction::SetNull => Some((child, Value::Null)),
                _ => None,
            })
            .collect()
    }
}

impl<DB: LogBackend> NodeRow<DB> {
    fn of<'a>(&'a self, own: &[&'a dyn AnyRow<DB>]) -> &'a dyn AnyRow<DB> {
        match self {
            NodeRow::Own(at) => own[*at],
            NodeRow::Victim(_, row) => &**row,
        }
    }
}

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

fn step<DB: LogBackend>(op: Op, def: &'static TypeDef, row: &dyn AnyRow<DB>) -> Step {
    let value = |index| row.value(index);
    (
        Aggregate::of_values(def, value),
        Message::of_values(op, def, value),
    )
}

/// Records messages that stand together: a replay checks constraints after the last of them.
fn record_run(progress: &mut Progress, run: Vec<Step>) -> Result<(), Error> {
    let goes = |message: &Message| matches!(message.op, Op::Delete | Op::DeleteItems);
    for (_, message) in run.iter().filter(|(_, message)| goes(message)) {
        progress.catch_up(message)?;
    }
    for (aggregate, message) in &run {
        let def = progress.def(message)?;
        progress.record(def, aggregate.clone(), message)?;
    }
    Ok(())
}

/// A row with other values in some columns.
fn changed_row<DB: LogBackend>(
    model: &Model,
    row: &dyn AnyRow<DB>,
    changes: &[(usize, Value<'static>)],
) -> Result<Box<dyn AnyRow<DB>>, RowError> {
    let def = model.def();
    let values = (0..def.columns.len()).map(|index| {
        let change = changes.iter().rev().find(|(column, _)| *column == index);
        let value = change.map_or_else(|| row.value(index), |(_, value)| value.reborrow());
        (index, value)
    });
    let encoded = encode_columns(def, values);
    let values = RowValues::decode(def, &encoded.bytes, &encoded.null_tags)?;
    DB::ops(model).decode(&values)
}

fn read_again<C: LogConnection>(
    conn: &mut C,
    progress: &mut Progress,
    model: &Model,
    rows: &[&dyn AnyRow<C::Backend>],
) -> Result<Vec<Box<dyn AnyRow<C::Backend>>>, Error> {
    let ops = C::Backend::ops(model);
    ops.table()
        .and_then(|table| by_key::select(conn, model.def(), &table, rows, |row| ops.read(row)))
        .map_err(|error| progress.failed(conn, "reading the rows that foreign keys changed", error))
}

/// The nodes that go, each after those that refer to it. `None` if some refer to each other in a
/// circle.
fn children_first<DB: LogBackend>(nodes: &[Node<DB>]) -> Option<Vec<usize>> {
    let going: Vec<usize> = (0..nodes.len()).filter(|node| nodes[*node].goes).collect();
    // How many rows refer to it that have not gone yet.
    let mut left = vec![0_usize; nodes.len()];
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for parent in &going {
        for (child, _) in &nodes[*parent].children {
            if nodes[*child].goes {
                left[*parent] += 1;
                parents[*child].push(*parent);
            }
        }
    }
    let leaves = going.iter().copied().filter(|node| left[*node] == 0);
    let mut ready: VecDeque<usize> = leaves.collect();
    let mut order = Vec::with_capacity(going.len());
    while let Some(node) = ready.pop_front() {
        order.push(node);
        for parent in &parents[node] {
            left[*parent] -= 1;
            if left[*parent] == 0 {
                ready.push_back(*parent);
            }
        }
    }
    (order.len() == going.len()).then_some(order)
}
