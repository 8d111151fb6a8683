//! The cases of all backends on PostgreSQL, and what PostgreSQL alone does.

use oplog_tests::postgres as db;

#[path = "../cases/writes.rs"]
mod writes;

#[path = "../cases/behind.rs"]
mod behind;
#[path = "../postgres/behind.rs"]
mod behind_alone;
#[path = "../cases/commits.rs"]
mod commits;
#[path = "../cases/consequences.rs"]
mod consequences;
#[path = "../cases/contention.rs"]
mod contention;
#[path = "../cases/crowds.rs"]
mod crowds;
#[path = "../cases/cuts.rs"]
mod cuts;
#[path = "../cases/deletes.rs"]
mod deletes;
#[path = "../cases/entries.rs"]
mod entries;
#[path = "../cases/evidence.rs"]
mod evidence;
#[path = "../cases/faults.rs"]
mod faults;
#[path = "../cases/filters.rs"]
mod filters;
#[path = "../cases/fixture.rs"]
mod fixture;
#[path = "../cases/forms.rs"]
mod forms;
#[path = "../cases/heads.rs"]
mod heads;
#[path = "../cases/inserts.rs"]
mod inserts;
#[path = "../cases/keys.rs"]
mod keys;
#[path = "../cases/kills.rs"]
mod kills;
#[path = "../cases/lent.rs"]
mod lent;
#[path = "../cases/lock_first.rs"]
mod lock_first;
#[path = "../cases/migrations.rs"]
mod migrations;
#[path = "../cases/nesting.rs"]
mod nesting;
#[path = "../cases/poison.rs"]
mod poison;
#[path = "../cases/races.rs"]
mod races;
#[path = "../cases/read_only.rs"]
mod read_only;
#[path = "../cases/replays.rs"]
mod replays;
#[path = "../cases/restarts.rs"]
mod restarts;
#[path = "../cases/rows.rs"]
mod rows;
#[path = "../cases/sabotage.rs"]
mod sabotage;
#[path = "../cases/savepoints.rs"]
mod savepoints;
#[path = "../cases/splits.rs"]
mod splits;
#[path = "../cases/tampering.rs"]
mod tampering;
#[path = "../cases/tickets.rs"]
mod tickets;
#[path = "../cases/timeouts.rs"]
mod timeouts;
#[path = "../cases/transactions.rs"]
mod transactions;
#[path = "../cases/updates.rs"]
mod updates;
