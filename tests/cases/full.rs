//! A database without room for more, on SQLite. The server of `restarts.rs` has a full disk, too.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use oplog_diesel::core::RecordError;
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, is_free};
use crate::fixture::{Fixture, assert_free};

fn setting(tx: &mut Tx<'_, Conn>, room: i64, name: &str, bytes: usize) -> Result<(), Error> {
    tx.logged_insert::<Setting, _>(&Setting {
        section: room.to_string(),
        name: name.to_owned(),
        value: Some(vec![7; bytes]),
    })
    .map(drop)
}

fn account(tx: &mut Tx<'_, Conn>, owner: &str) -> Result<(), Error> {
    tx.logged_insert::<Account, _>(&NewAccount { owner })
        .map(drop)
}

fn count(tx: &mut Tx<'_, Conn>) -> Result<(), Error> {
    let now: Counter = tx.read_one(counters::table.find(1).select(Counter::as_select()))?;
    tx.logged_update(&now, counters::n.eq(now.n + 1)).map(drop)
}

type Body = fn(&mut Tx<'_, Conn>, i64) -> Result<(), Error>;

/// Rows of several sizes, in two aggregates.
fn write(tx: &mut Tx<'_, Conn>, room: i64) -> Result<(), Error> {
    account(tx, "before")?;
    setting(tx, room, "a", 20_000)?;
    setting(tx, room, "b", 10)?;
    setting(tx, room, "c", 30_000)?;
    account(tx, "after")
}

/// As [`write`], by somebody who does not look at errors and puts what is large into savepoints.
fn write_on(tx: &mut Tx<'_, Conn>, room: i64) -> Result<(), Error> {
    let _ = account(tx, "before");
    let _ = setting(tx, room, "a", 20_000);
    let _ = tx.savepoint(|tx| setting(tx, room, "b", 10));
    let _ = tx.savepoint(|tx| setting(tx, room, "c", 30_000));
    let _ = account(tx, "after");
    Ok(())
}

#[derive(QueryableByName)]
struct Pages {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    page_count: i64,
}

/// With room for no page more, for one, for two, until there is enough: so the disk becomes full at
/// each statement that needs a page.
#[test]
fn a_full_disk_leaves_no_half() {
    for body in [write as Body, write_on] {
        let mut f = Fixture::new();
        f.account("Alice");
        f.counter(1);
        let pages: Pages = diesel::sql_query("SELECT page_count FROM pragma_page_count")
            .get_result(&mut f.conn)
            .unwrap();
        let mut failures = 0;
        let mut conn = f.db.connect();
        for room in 0.. {
            let pages_max = pages.page_count + room;
            conn.batch_execute(&format!("PRAGMA max_page_count = {pages_max}"))
                .unwrap();
            let before = f.snapshot();
            let builder = f.oplog.metadata("room", room.to_string());
            let builder = match room % 3 {
                0 => builder,
                1 => builder.on("settings").on("account:1"),
                _ => builder.on("settings").on("counter:1"),
            };
            let told = builder.transaction(&mut conn, |tx| {
                if room % 3 == 2 {
                    count(tx)?;
                }
                body(tx, room)
            });
            assert!(is_free(&mut conn));
            assert_free(&mut conn);
            match told {
                // Without those that were taken back to their savepoints.
                Ok(()) if f.snapshot().settings.len() < before.settings.len() + 3 => continue,
                Ok(()) => break,
                Err(
                    Error::Database(_) | Error::Store { .. } | Error::Record(RecordError::Poisoned),
                ) => failures += 1,
                Err(error) => panic!("{error:?}"),
            }
            assert_eq!(f.snapshot(), before);
        }
        assert!(failures > 5, "{failures}");
        f.check();
    }
}
