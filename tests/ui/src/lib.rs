//! Runs the examples in the documentation of the derives. `oplog-derive` can't: they use
//! `oplog-diesel`, which depends on it.

#[doc = include_str!("../../../oplog-derive/src/oplogged.md")]
/// # Expanded example
///
/// ```
/// # diesel::table! {
/// #     accounts (id) { id -> BigInt, owner -> Text, balance -> BigInt, email -> Nullable<Text> }
/// # }
/// # struct Account { id: i64, owner: String, balance: i64, email: Option<String> }
#[doc = include_str!("../../../oplog-derive/src/snapshots/account.rs")]
/// ```
pub struct Oplogged;

#[doc = include_str!("../../../oplog-derive/src/oplog_value.md")]
pub struct OplogValue;
