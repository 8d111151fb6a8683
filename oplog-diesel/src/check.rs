use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::backend::LogBackend;
pub use crate::catalogue::KeyAction;
use crate::catalogue::{ForeignKey, Trigger};
use crate::connection::LogConnection;
use crate::model::Model;
use crate::replay::TableName;
use crate::{Cascade, Error, Triggers, TypeCatalog};

/// What a database does to logged tables that no statement says; see
/// [`Oplog::check`](crate::Oplog::check).
///
/// # Examples
///
/// ```
/// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
/// # let (mut conn, oplog) = open();
/// assert!(oplog.check(&mut conn)?.is_declared());
///
/// diesel::sql_query(
///     "CREATE TRIGGER shout AFTER INSERT ON accounts BEGIN
///          UPDATE accounts SET owner = upper(NEW.owner) WHERE id = NEW.id;
///      END",
/// )
/// .execute(&mut conn)?;
/// let report = oplog.check(&mut conn)?;
/// for effect in report.undeclared() {
///     println!("{effect}"); // and what to write
/// }
/// assert_eq!(report.undeclared().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Everything that was found, in the order of the tables' names.
    pub side_effects: Vec<SideEffect>,
}

/// One thing that a database does by itself when a logged table is written. `Display` tells what it
/// is and, unless it is declared, what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SideEffect {
    /// The table whose statements have the effect.
    pub table: String,
    /// What it is.
    pub cause: Cause,
    /// Paths of the models of the table that do not declare it; empty if it is no logged table.
    pub silent_models: Vec<&'static str>,
    /// Whether it is taken care of: a log is opened only if everything is.
    pub is_declared: bool,
}

/// Why a database does something by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A trigger fires when the table is written.
    Trigger {
        /// Its name.
        name: String,
        /// `BEFORE`, `AFTER` or `INSTEAD OF`; empty if it is not known.
        timing: String,
        /// `INSERT`, `UPDATE`, `DELETE` or several of them with `OR` between; empty if it is not
        /// known.
        events: String,
    },
    /// A rule of PostgreSQL rewrites statements on the table.
    Rule {
        /// Its name.
        name: String,
        /// `ALSO` or `INSTEAD`.
        timing: String,
        /// `INSERT`, `UPDATE` or `DELETE`.
        events: String,
    },
    /// A foreign key of another table, or of the same one, acts when a row that it refers to is
    /// deleted or changed.
    ForeignKey {
        /// Name of the constraint; on SQLite, where it has none, its columns.
        name: String,
        /// The table with the key.
        child: String,
        /// Whether that table is logged.
        child_is_logged: bool,
        /// What happens to its rows when the row that they refer to is deleted.
        on_delete: KeyAction,
        /// What happens to its rows when the columns that they refer to change.
        on_update: KeyAction,
        /// Why it can't be taken care of, if it can't.
        problem: Option<CascadeProblem>,
    },
    /// A constraint of SQLite says `ON CONFLICT REPLACE`: an insert or update deletes the rows that
    /// are in its way. What it deletes can't be logged.
    ReplacingConstraint,
    /// A column is computed from others. There is nothing to declare: the database returns what it
    /// computed.
    GeneratedColumn {
        /// The name.
        column: String,
    },
}

/// Why what a foreign key does can't be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CascadeProblem {
    /// The table with the key is not logged.
    ChildNotLogged,
    /// The table that the key refers to is not logged, so that no logged statement deletes its rows.
    ParentNotLogged,
    /// The key would set a column by which its rows are found: one of their primary key, their root,
    /// or one that another key with an `ON UPDATE` action refers to.
    SetsIdentity,
}

impl CheckReport {
    /// What is not taken care of.
    pub fn undeclared(&self) -> impl Iterator<Item = &SideEffect> {
        self.side_effects
            .iter()
            .filter(|effect| !effect.is_declared)
    }

    /// Whether everything is taken care of, so that log and rows agree.
    pub fn is_declared(&self) -> bool {
        self.undeclared().next().is_none()
    }
}

impl fmt::Display for SideEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        let models = match self.silent_models.as_slice() {
            [] => "its model".to_owned(),
            models => format!("`{}`", models.join("`, `")),
        };
        match &self.cause {
            Cause::Trigger {
                name,
                timing,
                events,
            } => {
                write!(
                    f,
                    "table `{table}`: the trigger `{name}`{} may write what no statement says",
                    words(timing, events)
                )?;
                if self.is_declared {
                    return f.write_str("; that is declared");
                }
                write!(
                    f,
                    "; write `#[oplog(triggers = \"reread\")]` on {models} to have what it does to \
                     written rows logged, or `triggers = \"ignore\"` if it changes nothing that is \
                     logged, such as only `unlogged_columns(…)`"
                )
            }
            Cause::Rule {
                name,
                timing,
                events,
            } => {
                write!(
                    f,
                    "table `{table}`: the rule `{name}`{} may write what no statement says",
                    words(timing, events)
                )?;
                if self.is_declared {
                    return f.write_str("; that is declared");
                }
                write!(
                    f,
                    "; write `#[oplog(triggers = \"reread\")]` on {models} to have what it does to \
                     written rows logged, or `triggers = \"ignore\"` if it changes nothing that is \
                     logged"
                )
            }
            Cause::ForeignKey {
                name,
                child,
                on_delete,
                on_update,
                problem,
                ..
            } => {
                write!(f, "table `{table}`: the key `{name}` of `{child}` acts")?;
                let mut before = " ";
                for (event, action) in [("ON DELETE", on_delete), ("ON UPDATE", on_update)] {
                    if action.writes() {
                        write!(f, "{before}{event} {action}")?;
                        before = ", ";
                    }
                }
                if self.is_declared {
                    return f.write_str("; that is declared");
                }
                let mut before = "; ";
                if !self.silent_models.is_empty() {
                    write!(f, "{before}write `#[oplog(cascade = \"log\")]` on {models}")?;
                    before = " and ";
                }
                let other = match problem {
                    None => return Ok(()),
                    Some(CascadeProblem::SetsIdentity) => {
                        return write!(
                            f,
                            "{before}give the key another action: it sets a column by which rows of \
                             `{child}` are found or referred to"
                        );
                    }
                    Some(CascadeProblem::ChildNotLogged) => child,
                    Some(CascadeProblem::ParentNotLogged) => table,
                };
                write!(
                    f,
                    "{before}derive `Oplogged` for a model of `{other}`, which is not logged, or \
                     name it with `OplogBuilder::unlogged_table(\"{other}\")` if that is on purpose"
                )?;
                match problem {
                    Some(CascadeProblem::ParentNotLogged) => write!(
                        f,
                        " and no logged statement deletes or changes its rows by another key"
                    ),
                    _ => Ok(()),
                }
            }
            Cause::ReplacingConstraint => write!(
                f,
                "table `{table}`: a constraint with ON CONFLICT REPLACE deletes rows that are in the \
                 way of others, and that can't be logged; make the table anew without it"
            ),
            Cause::GeneratedColumn { column } => write!(
                f,
                "table `{table}`: the column `{column}` is generated; there is nothing to declare"
            ),
        }
    }
}

/// ` (AFTER UPDATE)`, as far as it is known.
fn words(timing: &str, events: &str) -> String {
    match (timing, events) {
        ("", "") => String::new(),
        ("", events) => format!(" ({events})"),
        (timing, events) => format!(" ({timing} {events})"),
    }
}

/// What a database does by itself to the tables of a catalog, as it stood when it was read.
#[derive(Debug)]
pub(crate) struct Catalogue {
    /// The logged tables that exist, by their full names.
    pub tables: BTreeMap<TableName, Logged>,
    pub keys: Vec<ForeignKey>,
}

/// A logged table.
#[derive(Debug)]
pub(crate) struct Logged {
    /// As its models call it.
    pub name: TableName,
    pub models: Vec<Model>,
    pub triggers: Vec<Trigger>,
    /// Columns that are computed from others.
    generated: Vec<String>,
    replaces_rows: bool,
}

impl Catalogue {
    pub fn read<C: LogConnection>(conn: &mut C, catalog: &TypeCatalog) -> Result<Self, Error> {
        let mut tables: BTreeMap<TableName, Logged> = BTreeMap::new();
        for model in catalog.iter() {
            let Ok(name) = C::Backend::ops(model).table() else {
                continue;
            };
            let full = C::Backend::resolve_table(conn, &name)
                .map_err(Error::store("looking for a table"))?;
            let Some(full) = full else {
                // A program may link models whose tables are in another database.
                continue;
            };
            if let Some(table) = tables.get_mut(&full) {
                table.models.push(*model);
                continue;
            }
            let triggers = C::Backend::table_triggers(conn, &full)
                .map_err(Error::store("reading the triggers of a table"))?;
            let replaces_rows = C::Backend::replaces_rows(conn, &full)
                .map_err(Error::store("reading the constraints of a table"))?;
            let generated = C::Backend::table_columns(conn, &full)
                .map_err(Error::store("reading the columns of a table"))?
                .into_iter()
                .filter(|column| column.generated)
                .map(|column| column.name)
                .collect();
            let models = vec![*model];
            tables.insert(
                full,
                Logged {
                    name,
                    models,
                    triggers,
                    generated,
                    replaces_rows,
                },
            );
        }
        let names: Vec<TableName> = tables.keys().cloned().collect();
        let keys = C::Backend::foreign_keys(conn, &names)
            .map_err(Error::store("reading the foreign keys of the tables"))?;
        Ok(Catalogue { tables, keys })
    }

    /// Everything that was found. The tables of `unlogged` are not logged on purpose.
    pub fn report(&self, unlogged: &[String]) -> CheckReport {
        let mut side_effects = Vec::new();
        for table in self.tables.values() {
            side_effects.extend(table.triggers.iter().map(|trigger| table.trigger(trigger)));
            if table.replaces_rows {
                side_effects.push(SideEffect {
                    table: table.name.to_string(),
                    cause: Cause::ReplacingConstraint,
                    silent_models: Vec::new(),
                    is_declared: false,
                });
            }
            side_effects.extend(table.generated.iter().map(|column| SideEffect {
                table: table.name.to_string(),
                cause: Cause::GeneratedColumn {
                    column: column.clone(),
                },
                silent_models: Vec::new(),
                is_declared: true,
            }));
        }
        side_effects.extend(
            self.keys
                .iter()
                .filter(|key| key.on_delete.writes() || key.on_update.writes())
                .filter_map(|key| self.key(key, unlogged)),
        );
        side_effects.sort_by(|one, other| one.table.cmp(&other.table));
        CheckReport { side_effects }
    }

    /// What a foreign key does, if it does it to logged tables.
    fn key(&self, key: &ForeignKey, unlogged: &[String]) -> Option<SideEffect> {
        let parent = self.tables.get(&key.parent);
        let child = self.tables.get(&key.child);
        let is_named = |table: &TableName| unlogged.iter().any(|name| is_called(table, name));
        let silent_models: Vec<&'static str> = parent
            .map(|parent| parent.silent(|model| model.cascade() == Cascade::Undeclared))
            .unwrap_or_default();
        let problem = match (parent, child) {
            (None, None) => return None,
            (Some(_), None) => (!is_named(&key.child)).then_some(CascadeProblem::ChildNotLogged),
            (None, Some(_)) => {
                let is_fine = is_named(&key.parent) && !self.is_reached(&key.parent, key);
                (!is_fine).then_some(CascadeProblem::ParentNotLogged)
            }
            (Some(_), Some(child)) => self
                .sets_identity(key, child)
                .then_some(CascadeProblem::SetsIdentity),
        };
        let name = |table: &TableName, logged: Option<&Logged>| match logged {
            Some(logged) => logged.name.to_string(),
            None if key.parent.schema() == key.child.schema() => table.name().to_owned(),
            None => table.to_string(),
        };
        Some(SideEffect {
            table: name(&key.parent, parent),
            is_declared: silent_models.is_empty() && problem.is_none(),
            silent_models,
            cause: Cause::ForeignKey {
                name: key.name.clone(),
                child: name(&key.child, child),
                child_is_logged: child.is_some(),
                on_delete: key.on_delete,
                on_update: key.on_update,
                problem,
            },
        })
    }

    /// Whether a statement on a logged table may delete rows of an unlogged one, or change the
    /// columns of it that `key` refers to.
    fn is_reached(&self, table: &TableName, key: &ForeignKey) -> bool {
        let mut seen = BTreeSet::new();
        let mut waiting = vec![(table, key)];
        while let Some((table, below)) = waiting.pop() {
            for above in self.keys.iter().filter(|above| above.child == *table) {
                let deletes = above.on_delete == KeyAction::Cascade;
                let changes = (above.on_delete.writes() || above.on_update.writes())
                    && above.columns.iter().any(|column| {
                        let mut below = below.columns.iter();
                        below.any(|below| below.parent == column.child)
                    });
                if !deletes && !changes {
                    continue;
                }
                if self.tables.contains_key(&above.parent) {
                    return true;
                }
                if seen.insert((&above.parent, &above.name)) {
                    waiting.push((&above.parent, above));
                }
            }
        }
        false
    }

    /// Whether a key sets columns by which its rows are found, so that they would be others.
    fn sets_identity(&self, key: &ForeignKey, child: &Logged) -> bool {
        let sets = |action| matches!(action, KeyAction::SetNull | KeyAction::SetDefault);
        let is_set = |name: &str| {
            let mut columns = key.columns.iter();
            columns.any(|column| {
                let on_delete = sets(key.on_delete) && column.is_set;
                let on_update = key.on_update == KeyAction::SetDefault;
                (on_delete || on_update) && column.child.eq_ignore_ascii_case(name)
            })
        };
        let is_found_by = child.model().is_some_and(|model| {
            let def = model.def();
            let mut columns = def.columns.iter().enumerate();
            columns.any(|(index, column)| {
                (column.key || def.root == Some(index)) && is_set(column.name)
            })
        });
        let mut below = self.keys.iter().filter(|below| below.parent == key.child);
        is_found_by
            || below.any(|below| {
                let mut columns = below.columns.iter();
                below.on_update.writes() && columns.any(|column| is_set(&column.parent))
            })
    }

    /// Whether a rule rewrites the statements on a logged table.
    pub fn has_rules(&self) -> bool {
        let mut tables = self.tables.values();
        tables.any(|table| table.triggers.iter().any(|trigger| trigger.is_rule))
    }

    /// Whether a trigger of a logged table may fire as late as at the commit.
    pub fn has_deferrable_triggers(&self) -> bool {
        let mut tables = self.tables.values();
        tables.any(|table| table.triggers.iter().any(|trigger| trigger.is_deferrable))
    }
}

impl Logged {
    fn trigger(&self, trigger: &Trigger) -> SideEffect {
        let silent_models = self.silent(|model| model.triggers() == Triggers::Undeclared);
        let Trigger {
            name,
            timing,
            events,
            ..
        } = trigger.clone();
        SideEffect {
            table: self.name.to_string(),
            cause: match trigger.is_rule {
                true => Cause::Rule {
                    name,
                    timing,
                    events,
                },
                false => Cause::Trigger {
                    name,
                    timing,
                    events,
                },
            },
            is_declared: silent_models.is_empty(),
            silent_models,
        }
    }

    fn silent(&self, is_silent: impl Fn(&Model) -> bool) -> Vec<&'static str> {
        let silent = self.models.iter().filter(|model| is_silent(model));
        silent.map(|model| model.def().rust_name).collect()
    }

    /// The model in whose name rows are logged that no statement of a model wrote: one that holds
    /// the whole row, if there is one.
    pub fn model(&self) -> Option<&Model> {
        let whole = self.models.iter().find(|model| !model.def().partial);
        whole.or(self.models.first())
    }
}

/// Whether a table is the one that was named, with its schema or without.
fn is_called(table: &TableName, name: &str) -> bool {
    match name.split_once('.') {
        Some((schema, name)) => table.schema() == Some(schema) && table.name() == name,
        None => table.name() == name,
    }
}
