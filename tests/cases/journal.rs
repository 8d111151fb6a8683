//! SQLite with the journal that it has unless told otherwise. A commit waits until nobody reads, and
//! what a killed writer left behind is taken back by whoever comes next.

use crate::db::{Db, Journal};
use crate::kills::{Graveyard, at_any_moment, at_each_statement, during_the_commit};

fn graveyard() -> Graveyard {
    Graveyard::new(Db::with_journal(Journal::Rollback))
}

#[test]
fn a_writer_is_killed_at_each_statement() {
    at_each_statement(graveyard());
}

#[test]
fn a_writer_is_killed_during_its_commit() {
    during_the_commit(graveyard());
}

#[test]
fn several_writers_are_killed_at_any_moment() {
    at_any_moment(graveyard());
}
