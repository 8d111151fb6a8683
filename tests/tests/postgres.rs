//! The cases of all backends on PostgreSQL, and what PostgreSQL alone does.

use oplog_tests::postgres as db;

#[path = "../cases/writes.rs"]
mod writes;

#[path = "../cases/evidence.rs"]
mod evidence;
#[path = "../cases/sabotage.rs"]
mod sabotage;
#[path = "../cases/tampering.rs"]
mod tampering;
#[path = "../cases/fixture.rs"]
mod fixture;
#[path = "../cases/inserts.rs"]
mod inserts;
#[path = "../cases/updates.rs"]
mod updates;
#[path = "../cases/deletes.rs"]
mod deletes;
#[path = "../cases/filters.rs"]
mod filters;
#[path = "../cases/transactions.rs"]
mod transactions;
#[path = "../cases/poison.rs"]
mod poison;
#[path = "../cases/nesting.rs"]
mod nesting;
