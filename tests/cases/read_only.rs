//! A database that can be read and not written.

use diesel::connection::SimpleConnection as _;
use oplog_diesel::Error;
use oplog_diesel::prelude::*;
use oplog_tests::models::*;

use crate::fixture::{Fixture, assert_free, builder};
use crate::sabotage::is_postgres;

#[test]
fn a_database_that_is_only_read_is_not_written() {
    let mut f = Fixture::new();
    let alice = f.account("Alice");
    f.unchanged(|f| {
        let mut conn = f.db.connect();
        conn.batch_execute(if is_postgres() {
            "SET default_transaction_read_only = on"
        } else {
            "PRAGMA query_only = on"
        })
        .unwrap();
        // A reader opens it as any other.
        let oplog = builder(&f.db).open(&mut conn).unwrap();
        assert!(oplog.verify_contents(&mut conn).unwrap().is_intact());
        for named in [false, true] {
            let builder = oplog.metadata("named", named.to_string());
            let builder = match named {
                false => builder,
                true => builder.on(alice.aggregate()).on("settings"),
            };
            let mut attempts = 0;
            let error = builder
                .transaction(&mut conn, |tx| {
                    attempts += 1;
                    tx.logged_insert::<Setting, _>(&Setting {
                        section: String::new(),
                        name: String::new(),
                        value: None,
                    })
                })
                .unwrap_err();
            let fits = matches!(error, Error::Database(_) | Error::Store { .. });
            assert!(fits && attempts <= 1, "{error:?}");
            assert_free(&mut conn);
        }
    });
}
