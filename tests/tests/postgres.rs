//! The cases of all backends on PostgreSQL, and what PostgreSQL alone does.

use oplog_tests::postgres as db;

#[path = "../cases/writes.rs"]
mod writes;
