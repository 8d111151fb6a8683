//! Foreign keys among logged tables, and what they do.

use std::collections::HashMap;

use oplog_core::{TypeDef, Value};

use crate::Cascade;
use crate::backend::LogBackend;
use crate::catalogue::{KeyAction, KeyColumn};
use crate::check::Catalogue;
use crate::model::Model;
use crate::replay::{AnyRow, TableName};

/// The foreign keys among logged tables, by the stored name of the type that they refer to.
#[derive(Debug, Default)]
pub(crate) struct Cascades {
    keys: HashMap<&'static str, Vec<Key>>,
}

/// A foreign key between two logged tables.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub parent_table: TableName,
    pub child: Model,
    pub child_table: TableName,
    pub columns: Vec<KeyColumn>,
    pub on_delete: KeyAction,
    pub on_update: KeyAction,
}

/// What is about to happen to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Delete,
    Move,
}

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
    pub fn follows(&self, def: &'static TypeDef) -> bool {
        let mut keys = self.of(def.type_name).iter();
        keys.any(|key| key.follows(Purpose::Move).0)
    }
}

impl Key {
    pub fn refers_to(&self, column: &str) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|key| key.parent.eq_ignore_ascii_case(column))
    }

    /// Whether the rows that refer to one that goes go as well, and whether they must at least be
    /// looked at.
    pub fn follows(&self, purpose: Purpose) -> (bool, bool) {
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

impl Key {
    /// What the change of a row that it refers to does to a row with the key.
    pub fn changes<DB: LogBackend>(
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
