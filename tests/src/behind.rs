//! An application whose database does much by itself; see `behind_sqlite.sql` and
//! `behind_postgres.sql`.

use diesel::prelude::*;
use oplog_diesel::prelude::*;

diesel::table! { clerks (id) { id -> BigInt, boss_id -> Nullable<BigInt>, } }
diesel::table! {
    customers (id) {
        id -> BigInt,
        name -> Text,
        loud -> Text,
        version -> BigInt,
        updated_at -> BigInt,
    }
}
diesel::table! {
    orders (id) {
        id -> BigInt,
        customer_id -> BigInt,
        clerk_id -> Nullable<BigInt>,
        total -> BigInt,
        version -> BigInt,
    }
}
diesel::table! {
    lines (order_id, number) {
        order_id -> BigInt,
        number -> Integer,
        amount -> BigInt,
        customer_id -> Nullable<BigInt>,
    }
}
diesel::table! {
    remarks (id) {
        id -> BigInt,
        order_id -> Nullable<BigInt>,
        number -> Nullable<Integer>,
        remark -> Text,
    }
}
diesel::table! { folders (id) { id -> BigInt, parent_id -> Nullable<BigInt>, } }
diesel::table! { shelves (id) { id -> BigInt, code -> Text, room -> BigInt, } }
diesel::table! {
    crates (shelf_code, number) {
        shelf_code -> Text,
        number -> Integer,
        version -> BigInt,
    }
}
diesel::table! {
    things (id) {
        id -> BigInt,
        shelf_code -> Text,
        number -> Integer,
        shelf_id -> Nullable<BigInt>,
        was_at -> Nullable<Text>,
    }
}
diesel::table! { memos (id) { id -> BigInt, owner_id -> BigInt, body -> Text, } }
diesel::table! { files (id) { id -> BigInt, folder_id -> BigInt, } }

#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = clerks)]
#[oplog(type_name = "clerk", aggregate = "clerks", cascade = "log")]
pub struct Clerk {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub boss_id: Option<i64>,
}

#[derive(Queryable, Selectable, Identifiable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = customers)]
#[oplog(type_name = "customer", aggregate = "customer", root = id)]
#[oplog(triggers = "reread", cascade = "log")]
pub struct Customer {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub name: String,
    #[oplog(tag = 3)]
    pub loud: String,
    #[oplog(tag = 4)]
    pub version: i64,
    #[oplog(tag = 5)]
    pub updated_at: i64,
}

#[derive(Queryable, Selectable, Identifiable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = orders)]
#[oplog(type_name = "order", aggregate = "order", root = id)]
#[oplog(triggers = "reread", cascade = "log")]
pub struct Order {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub customer_id: i64,
    #[oplog(tag = 3)]
    pub clerk_id: Option<i64>,
    #[oplog(tag = 4)]
    pub total: i64,
    #[oplog(tag = 5)]
    pub version: i64,
}

/// A row of an order, in the order's aggregate.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = lines, primary_key(order_id, number))]
#[oplog(type_name = "line", aggregate = "order", root = order_id)]
#[oplog(triggers = "reread", cascade = "log")]
pub struct Line {
    #[oplog(tag = 1)]
    pub order_id: i64,
    #[oplog(tag = 2)]
    pub number: i32,
    #[oplog(tag = 3)]
    pub amount: i64,
    #[oplog(tag = 4)]
    pub customer_id: Option<i64>,
}

#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = remarks)]
#[oplog(type_name = "remark", aggregate = "remarks")]
pub struct Remark {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub order_id: Option<i64>,
    #[oplog(tag = 3)]
    pub number: Option<i32>,
    #[oplog(tag = 4)]
    pub remark: String,
}

#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = folders)]
#[oplog(type_name = "folder", aggregate = "folder", root = id, cascade = "log")]
pub struct Folder {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub parent_id: Option<i64>,
}

#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = files)]
#[oplog(type_name = "file", aggregate = "file", root = id)]
pub struct File {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub folder_id: i64,
}

/// A row whose aggregate can change without its key.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = shelves)]
#[oplog(type_name = "shelf", aggregate = "room", root = room, cascade = "log")]
pub struct Shelf {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub code: String,
    #[oplog(tag = 3)]
    pub room: i64,
}

/// A row whose key goes with another row's column.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = crates, primary_key(shelf_code, number))]
#[oplog(type_name = "crate", aggregate = "shelf", root = shelf_code)]
#[oplog(triggers = "reread", cascade = "log")]
pub struct Crate {
    #[oplog(tag = 1)]
    pub shelf_code: String,
    #[oplog(tag = 2)]
    pub number: i32,
    #[oplog(tag = 3)]
    pub version: i64,
}

#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = things)]
#[oplog(type_name = "thing", aggregate = "things")]
pub struct Thing {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub shelf_code: String,
    #[oplog(tag = 3)]
    pub number: i32,
    #[oplog(tag = 4)]
    pub shelf_id: Option<i64>,
    #[oplog(tag = 5)]
    pub was_at: Option<String>,
}

/// A row that triggers move to another aggregate, delete, and bring back.
#[derive(Queryable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = memos)]
#[oplog(type_name = "memo", aggregate = "memos", root = owner_id, triggers = "reread")]
pub struct Memo {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub owner_id: i64,
    #[oplog(tag = 3)]
    pub body: String,
}
