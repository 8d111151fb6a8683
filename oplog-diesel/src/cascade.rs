//! The rows that foreign keys change or delete when a row is deleted.

use std::collections::{BTreeMap, HashMap, VecDeque};

use oplog_core::TypeDef;

use crate::backend::LogBackend;
use crate::by_key::{self, Ends, key_of};
use crate::catalogue::{KeyAction, KeyColumn};
use crate::check::Catalogue;
use crate::connection::LogConnection;
use crate::model::Model;
use crate::replay::{AnyRow, TableName};
use crate::tx::Progress;
use crate::{Cascade, Error};

/// The foreign keys that act on rows of logged tables, by the stored name of the type that they
/// refer to.
#[derive(Debug, Default)]
pub(crate) struct Cascades {
    keys: HashMap<&'static str, Vec<CascadingKey>>,
}

/// A foreign key that acts, between two logged tables.
#[derive(Clone, Debug)]
pub(crate) struct CascadingKey {
    parent_table: TableName,
    child: Model,
    child_table: TableName,
    columns: Vec<KeyColumn>,
    on_delete: KeyAction,
    pub on_update: KeyAction,
}

/// What deleting rows will do, found out and locked before it is done.
pub(crate) struct Plan<DB: LogBackend> {
    /// The rows that go, each before the rows that it refers to.
    pub deleted: Vec<Deleted<DB>>,
    /// The rows that only lose what they referred to.
    pub changed: Vec<Victim<DB>>,
}

/// A row that goes.
pub(crate) enum Deleted<DB: LogBackend> {
    /// One of those that the statement itself deletes, by its index.
    Own(usize),
    /// One that a foreign key deletes.
    Victim(Victim<DB>),
}

/// A row that a foreign key changes or deletes, as it is before.
pub(crate) struct Victim<DB: LogBackend> {
    pub model: Model,
    pub row: Box<dyn AnyRow<DB>>,
}

impl Cascades {
    pub fn new(catalogue: &Catalogue) -> Self {
        let mut keys: HashMap<&'static str, Vec<CascadingKey>> = HashMap::new();
        for key in &catalogue.keys {
            let acts = key.on_delete.writes() || key.on_update.writes();
            let parent = catalogue.tables.get(&key.parent);
            let child = catalogue.tables.get(&key.child);
            let (true, Some(parent), Some(child)) = (acts, parent, child) else {
                continue;
            };
            let Some(model) = child.model() else {
                continue;
            };
            let key = CascadingKey {
                parent_table: parent.name.clone(),
                child: *model,
                child_table: child.name.clone(),
                columns: key.columns.clone(),
                on_delete: key.on_delete,
                on_update: key.on_update,
            };
            let parents = parent.models.iter();
            for model in parents.filter(|model| model.cascade() == Cascade::Log) {
                let keys = keys.entry(model.def().type_name).or_default();
                keys.push(key.clone());
            }
        }
        Cascades { keys }
    }

    /// The keys that refer to the rows of a type.
    pub fn of(&self, type_name: &str) -> &[CascadingKey] {
        self.keys.get(type_name).map_or(&[], Vec::as_slice)
    }
}

impl CascadingKey {
    /// Whether it refers to this column.
    pub fn refers_to(&self, column: &str) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|key| key.parent.eq_ignore_ascii_case(column))
    }

    pub fn child_table(&self) -> &TableName {
        &self.child_table
    }
}

/// A row while the plan is being made.
struct Node<DB: LogBackend> {
    def: &'static TypeDef,
    row: NodeRow<DB>,
    /// Whether it goes, and not only changes.
    is_deleted: bool,
    /// The rows that refer to it by keys that act.
    children: Vec<usize>,
}

enum NodeRow<DB: LogBackend> {
    Own(usize),
    Victim(Victim<DB>),
}

/// Finds and locks what deleting these rows of a type will delete and change, which must be locked
/// already, so that nobody makes other rows refer to them meanwhile.
pub(crate) fn plan<C: LogConnection>(
    conn: &mut C,
    progress: &mut Progress,
    def: &'static TypeDef,
    own: &[&dyn AnyRow<C::Backend>],
) -> Result<Plan<C::Backend>, Error> {
    let oplog = progress.oplog.clone();
    let mut nodes: Vec<Node<C::Backend>> = Vec::with_capacity(own.len());
    let mut known: HashMap<(&'static str, Vec<u8>), usize> = HashMap::new();
    for (at, row) in own.iter().enumerate() {
        known.insert((def.type_name, key_of(def, |index| row.value(index))), at);
        nodes.push(Node {
            def,
            row: NodeRow::Own(at),
            is_deleted: true,
            children: Vec::new(),
        });
    }
    let acts = C::Backend::keys_act(conn)
        .map_err(|error| progress.failed("asking whether foreign keys act", error))?;
    let mut waiting: Vec<usize> = match acts {
        true => (0..nodes.len()).collect(),
        false => Vec::new(),
    };
    while !waiting.is_empty() {
        let mut next = Vec::new();
        let mut by_type: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        for node in waiting {
            by_type
                .entry(nodes[node].def.type_name)
                .or_default()
                .push(node);
        }
        for (type_name, parents) in by_type {
            for key in oplog.cascades().of(type_name) {
                if !key.on_delete.writes() {
                    continue;
                }
                let rows: Vec<&dyn AnyRow<C::Backend>> = parents
                    .iter()
                    .map(|node| match &nodes[*node].row {
                        NodeRow::Own(at) => own[*at],
                        NodeRow::Victim(victim) => &*victim.row,
                    })
                    .collect();
                let deletes = key.on_delete == KeyAction::Cascade;
                let child = key.child.def();
                let ends = Ends {
                    parent: nodes[parents[0]].def,
                    parent_table: &key.parent_table,
                    child,
                    child_table: &key.child_table,
                    columns: &key.columns,
                    deletes,
                };
                let children = by_key::children(conn, &ends, &rows, C::Backend::ops(&key.child))
                    .map_err(|error| {
                        progress.failed("reading the rows that refer to deleted ones", error)
                    })?;
                for (parent, row) in children {
                    let parent = parents[parent];
                    let id = (child.type_name, key_of(child, |index| row.value(index)));
                    let node = *known.entry(id).or_insert_with(|| {
                        nodes.push(Node {
                            def: child,
                            row: NodeRow::Victim(Victim {
                                model: key.child,
                                row,
                            }),
                            is_deleted: false,
                            children: Vec::new(),
                        });
                        nodes.len() - 1
                    });
                    // A row that refers to itself goes as any other.
                    if node != parent {
                        nodes[parent].children.push(node);
                    }
                    if deletes && !nodes[node].is_deleted {
                        nodes[node].is_deleted = true;
                        next.push(node);
                    }
                }
            }
        }
        waiting = next;
    }
    let order = children_first(&nodes).ok_or_else(|| Error::CascadeCircle {
        type_name: def.type_name.to_owned(),
    })?;
    let mut rows: Vec<Option<Node<C::Backend>>> = nodes.into_iter().map(Some).collect();
    let deleted = order
        .into_iter()
        .filter_map(|node| rows[node].take())
        .map(|node| match node.row {
            NodeRow::Own(at) => Deleted::Own(at),
            NodeRow::Victim(victim) => Deleted::Victim(victim),
        })
        .collect();
    let changed = rows
        .into_iter()
        .flatten()
        .filter_map(|node| match node.row {
            NodeRow::Own(_) => None,
            NodeRow::Victim(victim) => Some(victim),
        })
        .collect();
    Ok(Plan { deleted, changed })
}

/// The nodes that go, each after those that refer to it. `None` if some refer to each other in a
/// circle.
fn children_first<DB: LogBackend>(nodes: &[Node<DB>]) -> Option<Vec<usize>> {
    let is_deleted = |node: &usize| nodes[*node].is_deleted;
    // How many rows refer to it that have not gone yet.
    let mut left = vec![0_usize; nodes.len()];
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let going: Vec<usize> = (0..nodes.len()).filter(is_deleted).collect();
    for parent in &going {
        for child in nodes[*parent]
            .children
            .iter()
            .filter(|node| is_deleted(node))
        {
            left[*parent] += 1;
            parents[*child].push(*parent);
        }
    }
    let mut ready: VecDeque<usize> = going
        .iter()
        .copied()
        .filter(|node| left[*node] == 0)
        .collect();
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
