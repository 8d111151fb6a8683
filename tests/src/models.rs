use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use diesel::prelude::*;
use oplog_diesel::prelude::*;

use crate::schema::{accounts, counters, everything, postings, settings};

#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", root = id)]
pub struct Account {
    // In another order than the table on purpose.
    #[oplog(tag = 4)]
    pub email: Option<String>,
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub owner: String,
    #[oplog(tag = 3)]
    pub balance: i64,
}

#[derive(Insertable, Clone, Debug)]
#[diesel(table_name = accounts)]
pub struct NewAccount<'a> {
    pub owner: &'a str,
}

#[derive(AsChangeset, Default)]
#[diesel(table_name = accounts)]
pub struct AccountChange<'a> {
    pub owner: Option<&'a str>,
    pub email: Option<Option<&'a str>>,
}

/// A child of an account, in the account's aggregate.
#[derive(Queryable, Selectable, Identifiable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = postings)]
#[oplog(type_name = "posting", aggregate = "account", root = account_id)]
pub struct Posting {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub account_id: i64,
    #[oplog(tag = 3)]
    pub amount: i64,
    #[oplog(tag = 4)]
    pub note: Option<String>,
}

/// A row with a composite key, in a constant aggregate.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = settings)]
#[diesel(primary_key(section, name))]
#[oplog(type_name = "setting", aggregate = "settings")]
pub struct Setting {
    #[oplog(tag = 1)]
    pub section: String,
    #[oplog(tag = 2)]
    pub name: String,
    #[oplog(tag = 3)]
    pub value: Option<Vec<u8>>,
}

/// A row whose writers queue for its ticket.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = counters)]
#[oplog(type_name = "counter", aggregate = "counter", root = id, ticket = "lock_first")]
pub struct Counter {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub n: i64,
}

/// A column of every type.
#[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = everything)]
#[oplog(type_name = "everything", aggregate = "everything", root = id)]
pub struct Everything {
    #[oplog(tag = 1)]
    pub id: i32,
    #[oplog(tag = 2)]
    pub a_bool: bool,
    #[oplog(tag = 3)]
    pub a_small: i16,
    #[oplog(tag = 4)]
    pub an_int: i32,
    #[oplog(tag = 5)]
    pub a_big: i64,
    #[oplog(tag = 6)]
    pub a_float: f32,
    #[oplog(tag = 7)]
    pub a_double: f64,
    #[oplog(tag = 8)]
    pub a_text: String,
    #[oplog(tag = 9)]
    pub some_bytes: Vec<u8>,
    #[oplog(tag = 10)]
    pub a_date: NaiveDate,
    #[oplog(tag = 11)]
    pub a_time: NaiveTime,
    #[oplog(tag = 12)]
    pub a_timestamp: NaiveDateTime,
    #[oplog(tag = 13)]
    pub maybe_bool: Option<bool>,
    #[oplog(tag = 14)]
    pub maybe_small: Option<i16>,
    #[oplog(tag = 15)]
    pub maybe_int: Option<i32>,
    #[oplog(tag = 16)]
    pub maybe_big: Option<i64>,
    #[oplog(tag = 17)]
    pub maybe_float: Option<f32>,
    #[oplog(tag = 18)]
    pub maybe_double: Option<f64>,
    #[oplog(tag = 19)]
    pub maybe_text: Option<String>,
    #[oplog(tag = 20)]
    pub maybe_bytes: Option<Vec<u8>>,
    #[oplog(tag = 21)]
    pub maybe_date: Option<NaiveDate>,
    #[oplog(tag = 22)]
    pub maybe_time: Option<NaiveTime>,
    #[oplog(tag = 23)]
    pub maybe_timestamp: Option<NaiveDateTime>,
}
