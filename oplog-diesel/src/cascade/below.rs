//! The rows below rows, and the messages about them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use oplog_core::{Aggregate, Message, Op, RowError, RowValues, TypeDef, Value, encode_columns};

use super::Purpose;
use crate::Error;
use crate::backend::LogBackend;
use crate::by_key::{self, Ends, Numbered, key_of};
use crate::connection::LogConnection;
use crate::model::Model;
use crate::replay::AnyRow;
use crate::reread::steps;
use crate::tx::Progress;

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

impl<DB: LogBackend> Below<DB> {
    /// Rows with nothing below them that is of interest.
    pub fn alone(def: &'static TypeDef, rows: usize) -> Self {
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

impl<DB: LogBackend> NodeRow<DB> {
    fn of<'a>(&'a self, own: &[&'a dyn AnyRow<DB>]) -> &'a dyn AnyRow<DB> {
        match self {
            NodeRow::Own(at) => own[*at],
            NodeRow::Victim(_, row) => &**row,
        }
    }
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
