//! What a database's own catalogue says about what it does without being told to.

use std::fmt;

use crate::replay::TableName;

/// A trigger or rule that fires when rows of a table are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The name.
    pub name: String,
    /// Whether it is a rule and not a trigger.
    pub is_rule: bool,
    /// `BEFORE`, `AFTER` or `INSTEAD OF`; of a rule `ALSO` or `INSTEAD`. Empty if it is not known.
    pub timing: String,
    /// `INSERT`, `UPDATE`, `DELETE` or several of them with `OR` between. Empty if it is not known.
    pub events: String,
    /// Whether it may fire as late as at the commit.
    pub is_deferrable: bool,
    /// Statements that switch it off and on again; `None` if that can't be done in a transaction
    /// that leaves no trace.
    pub switch: Option<Switch>,
}

/// How a trigger is switched off for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Switches it off.
    pub off: String,
    /// Makes it what it was.
    pub on: String,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The name, or what stands for it where keys have none.
    pub name: String,
    /// The table with the key.
    pub child: TableName,
    /// The table that it refers to.
    pub parent: TableName,
    /// Its columns in order.
    pub columns: Vec<KeyColumn>,
    /// What becomes of the child when the parent is deleted.
    pub on_delete: KeyAction,
    /// What becomes of the child when the parent's columns change.
    pub on_update: KeyAction,
}

/// A column of a foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// In the table with the key.
    pub child: String,
    /// In the table that the key refers to.
    pub parent: String,
    /// Whether it is set when the parent is deleted and the key sets something then.
    pub is_set: bool,
}

/// What a foreign key does to a row whose parent goes away or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyAction {
    /// Nothing: a statement that leaves the row without its parent is refused, at its end or at the
    /// commit.
    NoAction,
    /// Nothing: the statement is refused at once.
    Restrict,
    /// The row goes or changes with its parent.
    Cascade,
    /// The columns of the key become `NULL`.
    SetNull,
    /// The columns of the key get their defaults.
    SetDefault,
}

impl KeyAction {
    /// Whether it writes anything.
    pub fn writes(self) -> bool {
        !matches!(self, KeyAction::NoAction | KeyAction::Restrict)
    }
}

/// As in SQL.
impl fmt::Display for KeyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyAction::NoAction => "NO ACTION",
            KeyAction::Restrict => "RESTRICT",
            KeyAction::Cascade => "CASCADE",
            KeyAction::SetNull => "SET NULL",
            KeyAction::SetDefault => "SET DEFAULT",
        })
    }
}
