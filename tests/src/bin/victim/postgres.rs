//! The victim on this database.

pub use oplog_tests::postgres as db;

#[path = "work.rs"]
pub mod work;
