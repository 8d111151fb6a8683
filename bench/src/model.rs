//! The measured table: a row of about 80 bytes, as applications have many.

use chrono::NaiveDateTime;
use diesel::prelude::*;
use oplog_diesel::prelude::*;

diesel::table! {
    members (id) {
        id -> BigInt,
        team_id -> BigInt,
        name -> Text,
        email -> Nullable<Text>,
        age -> Integer,
        active -> Bool,
        created_at -> Timestamp,
    }
}

/// A row. Diesel caches the insert of a struct only if `None` is a value and not `DEFAULT`.
#[derive(
    Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq, Eq,
)]
#[diesel(table_name = members, treat_none_as_default_value = false)]
// The trigger that is measured beside the log writes to a table of its own.
#[oplog(type_name = "member", aggregate = "team", root = team_id, triggers = "ignore")]
pub struct Member {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub team_id: i64,
    #[oplog(tag = 3)]
    pub name: String,
    #[oplog(tag = 4)]
    pub email: Option<String>,
    #[oplog(tag = 5)]
    pub age: i32,
    #[oplog(tag = 6)]
    pub active: bool,
    #[oplog(tag = 7)]
    pub created_at: NaiveDateTime,
}

/// The same row in an aggregate whose ticket is locked first.
#[derive(
    Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq, Eq,
)]
#[diesel(table_name = members, treat_none_as_default_value = false)]
#[oplog(
    type_name = "queued member",
    aggregate = "queue",
    root = team_id,
    ticket = "lock_first",
    triggers = "ignore"
)]
pub struct QueuedMember {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub team_id: i64,
    #[oplog(tag = 3)]
    pub name: String,
    #[oplog(tag = 4)]
    pub email: Option<String>,
    #[oplog(tag = 5)]
    pub age: i32,
    #[oplog(tag = 6)]
    pub active: bool,
    #[oplog(tag = 7)]
    pub created_at: NaiveDateTime,
}

/// The same row as most people write it, with Diesel's defaults.
#[derive(Insertable, Clone, Debug)]
#[diesel(table_name = members)]
pub struct AsWritten<'a> {
    pub id: i64,
    pub team_id: i64,
    pub name: &'a str,
    pub email: Option<&'a str>,
    pub age: i32,
    pub active: bool,
    pub created_at: NaiveDateTime,
}

impl Member {
    /// A row that was never inserted before if its id was not.
    pub fn new(id: i64, team_id: i64) -> Self {
        Member {
            id,
            team_id,
            name: format!("Member number {id}"),
            email: Some(format!("member-{id}@example.com")),
            age: 20 + (id % 50) as i32,
            active: id % 3 != 0,
            created_at: chrono::DateTime::from_timestamp_micros(1_764_000_000_000_000 + id * 1_001)
                .unwrap_or_default()
                .naive_utc(),
        }
    }

    pub fn as_written(&self) -> AsWritten<'_> {
        AsWritten {
            id: self.id,
            team_id: self.team_id,
            name: &self.name,
            email: self.email.as_deref(),
            age: self.age,
            active: self.active,
            created_at: self.created_at,
        }
    }

    /// The row in an aggregate whose ticket is locked first.
    pub fn queued(&self) -> QueuedMember {
        let Member {
            id,
            team_id,
            name,
            email,
            age,
            active,
            created_at,
        } = self.clone();
        QueuedMember {
            id,
            team_id,
            name,
            email,
            age,
            active,
            created_at,
        }
    }

    /// The row with another age.
    pub fn aged(&self, age: i32) -> Self {
        Member {
            age,
            ..self.clone()
        }
    }
}
