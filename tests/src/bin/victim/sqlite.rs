//! The victim on this database.

pub use oplog_tests::sqlite as db;

#[path = "work.rs"]
pub mod work;
