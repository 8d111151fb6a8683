//! The cases of all backends on SQLite, and what SQLite alone does.

use oplog_tests::sqlite as db;

#[path = "../cases/writes.rs"]
mod writes;
