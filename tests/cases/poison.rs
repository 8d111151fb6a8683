//! Whatever goes wrong in a transaction, rows and log stay the same.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::backend::Backend;
use diesel::deserialize::{FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::serialize::{Output, ToSql};
use diesel::sql_types::{BigInt, Text};
use oplog_diesel::core::RecordError;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Conn;
use crate::fixture::{Fixture, assert_free};

/// A text that can't be sent if it is `refused`.
#[derive(Debug, Clone, Copy, AsExpression)]
#[diesel(sql_type = Text)]
struct Picky(&'static str);

impl<DB: Backend> ToSql<Text, DB> for Picky
where
    str: ToSql<Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> diesel::serialize::Result {
        match self.0 {
            "refused" => Err("it is refused".into()),
            "panics" => panic!("it panics on purpose"),
            text => <str as ToSql<Text, DB>>::to_sql(text, out),
        }
    }
}

diesel::table! {
    odds (id) {
        id -> BigInt,
        odd -> BigInt,
    }
}

/// An odd number, which is all that this type can read.
#[derive(Debug, Clone, Copy, PartialEq, AsExpression, FromSqlRow, OplogValue)]
#[diesel(sql_type = BigInt)]
struct Odd(i64);

impl<DB: Backend> FromSql<BigInt, DB> for Odd
where
    i64: FromSql<BigInt, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> diesel::deserialize::Result<Self> {
        match i64::from_sql(bytes)? {
            even if even % 2 == 0 => Err("it is even".into()),
            odd => Ok(Odd(odd)),
        }
    }
}

impl<DB: Backend> ToSql<BigInt, DB> for Odd
where
    i64: ToSql<BigInt, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> diesel::serialize::Result {
        <i64 as ToSql<BigInt, DB>>::to_sql(&self.0, out)
    }
}

#[derive(Queryable, Selectable, Identifiable, Oplogged, Debug)]
#[diesel(table_name = odds)]
#[oplog(type_name = "odds", aggregate = "odds")]
struct Odds {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 2)]
    odd: Odd,
}

/// Something that a transaction may try.
type Try = fn(&mut Tx<'_, Conn>) -> Result<(), Error>;

/// Writes that a constraint refuses.
const VIOLATIONS: [(&str, Try, DatabaseErrorKind); 9] = [
    (
        "check",
        |tx| {
            tx.logged_insert::<Account, _>(&NewAccount { owner: "nobody" })
                .map(drop)
        },
        DatabaseErrorKind::CheckViolation,
    ),
    (
        "unique",
        |tx| {
            tx.logged_insert::<Account, _>((accounts::owner.eq("x"), accounts::email.eq("alice@")))
                .map(drop)
        },
        DatabaseErrorKind::UniqueViolation,
    ),
    (
        "primary key",
        |tx| {
            tx.logged_insert::<Account, _>((accounts::id.eq(1), accounts::owner.eq("x")))
                .map(drop)
        },
        DatabaseErrorKind::UniqueViolation,
    ),
    (
        "foreign key",
        |tx| {
            tx.logged_insert::<Posting, _>((postings::account_id.eq(77), postings::amount.eq(1)))
                .map(drop)
        },
        DatabaseErrorKind::ForeignKeyViolation,
    ),
    (
        "the last of many",
        |tx| {
            let owners = (0..600).map(|i| NewAccount {
                owner: if i == 599 { "nobody" } else { "x" },
            });
            tx.logged_insert_many::<Account, _>(owners).map(drop)
        },
        DatabaseErrorKind::CheckViolation,
    ),
    (
        "update",
        |tx| {
            let alice: Account =
                tx.read_one(accounts::table.find(1).select(Account::as_select()))?;
            tx.logged_update(&alice, accounts::owner.eq("nobody"))
                .map(drop)
        },
        DatabaseErrorKind::CheckViolation,
    ),
    (
        "update of many",
        |tx| {
            tx.logged_update_where::<Account, _, _>(accounts::table, accounts::email.eq("same@"))
                .map(drop)
        },
        DatabaseErrorKind::UniqueViolation,
    ),
    (
        "delete",
        |tx| tx.logged_delete_by_key::<Account, _>(2).map(drop),
        DatabaseErrorKind::ForeignKeyViolation,
    ),
    (
        "delete of many",
        |tx| {
            tx.logged_delete_where::<Account, _>(accounts::table)
                .map(drop)
        },
        DatabaseErrorKind::ForeignKeyViolation,
    ),
];

/// Alice with an address, Bob with a posting.
fn alice_and_bob() -> Fixture {
    let mut f = Fixture::new();
    let (alice, bob) = (f.account("Alice"), f.account("Bob"));
    f.run(|tx| {
        tx.logged_update(&alice, accounts::email.eq("alice@"))?;
        tx.logged_insert::<Posting, _>((postings::account_id.eq(bob.id), postings::amount.eq(1)))
    })
    .unwrap();
    f.news();
    f
}

/// Several writes, of which nothing may stay.
fn write_something(tx: &mut Tx<'_, Conn>) -> Result<(), Error> {
    let carol: Account = tx.logged_insert(&NewAccount { owner: "Carol" })?;
    tx.logged_update(&carol, accounts::balance.eq(0))?;
    tx.logged_insert::<Posting, _>((postings::account_id.eq(1), postings::amount.eq(1)))?;
    tx.logged_insert::<Setting, _>(&Setting {
        section: String::new(),
        name: String::new(),
        value: None,
    })?;
    Ok(())
}

#[test]
fn a_failed_write_comes_back_as_diesels_error() {
    let mut f = alice_and_bob();
    f.unchanged(|f| {
        for (what, write, expected) in VIOLATIONS {
            let error = f
                .run(|tx| {
                    write_something(tx)?;
                    write(tx)
                })
                .unwrap_err();
            assert!(
                matches!(&error, Error::Database(DieselError::DatabaseError(kind, _)) if format!("{kind:?}") == format!("{expected:?}")),
                "{what}: {error:?}"
            );
            assert_free(&mut f.conn);
        }
    });
}

#[test]
fn a_failed_write_that_the_closure_ignores_is_not_committed() {
    let mut f = alice_and_bob();
    f.unchanged(|f| {
        for (what, write, _) in VIOLATIONS {
            // With and without other writes before it.
            for before in [false, true] {
                let error = f
                    .run(|tx| {
                        if before {
                            write_something(tx)?;
                        }
                        assert!(write(tx).is_err(), "{what}");
                        Ok(())
                    })
                    .unwrap_err();
                assert!(
                    matches!(error, Error::Record(RecordError::Poisoned)),
                    "{what}: {error:?}"
                );
                assert_free(&mut f.conn);
            }
        }
    });
}

/// On SQLite a failed statement leaves the transaction open, so that more can be written.
#[test]
fn writes_after_a_failed_one_are_not_committed() {
    let mut f = alice_and_bob();
    f.unchanged(|f| {
        for (what, write, _) in VIOLATIONS {
            let error = f
                .run(|tx| {
                    assert!(write(tx).is_err(), "{what}");
                    let _ = write_something(tx);
                    Ok(())
                })
                .unwrap_err();
            assert!(
                matches!(error, Error::Record(RecordError::Poisoned)),
                "{what}: {error:?}"
            );
        }
    });
}

#[test]
fn a_failed_read_is_not_hidden() {
    let mut f = alice_and_bob();
    f.unchanged(|f| {
        let error = f
            .run(|tx| {
                write_something(tx)?;
                let missing =
                    diesel::select(diesel::dsl::sql::<Text>("no_such_function_of_the_tests()"));
                tx.read_one::<_, String>(missing)
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::DatabaseError(..))),
            "{error:?}"
        );
    });
}

/// A failed read writes nothing. PostgreSQL commits nothing after it; on SQLite what was written
/// stays, with its entries.
#[test]
fn a_failed_read_that_the_closure_ignores_keeps_rows_and_log_together() {
    let mut f = alice_and_bob();
    let result = f.run(|tx| {
        write_something(tx)?;
        let missing = diesel::select(diesel::dsl::sql::<Text>("no_such_function_of_the_tests()"));
        assert!(tx.read_one::<_, String>(missing).is_err());
        Ok(())
    });
    let written = f.snapshot().accounts.len() == 3;
    assert_eq!(written, result.is_ok());
    assert_eq!(f.news().len(), if written { 4 } else { 0 });
    f.check();
}

#[test]
fn a_value_that_cant_be_sent_leaves_the_transaction_usable() {
    let mut f = Fixture::new();
    f.run(|tx| {
        let error = tx
            .logged_insert::<Account, _>(accounts::owner.eq(Picky("refused")))
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::SerializationError(_))),
            "{error:?}"
        );
        tx.logged_insert::<Account, _>(accounts::owner.eq(Picky("sent")))
    })
    .unwrap();
    assert_eq!(f.news().len(), 1);
    f.check();
}

/// Where each row is a statement of its own, some were sent before the one that can't be.
#[test]
fn a_value_of_many_that_cant_be_sent_commits_no_part_of_them() {
    let mut f = Fixture::new();
    f.unchanged(|f| {
        let owners = ["a", "b", "refused", "c"].map(|owner| (accounts::owner.eq(Picky(owner)),));
        let error = f
            .run(|tx| tx.logged_insert_many::<Account, _>(owners))
            .unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::SerializationError(_))),
            "{error:?}"
        );
        let result = f.run(|tx| {
            assert!(tx.logged_insert_many::<Account, _>(owners).is_err());
            Ok(())
        });
        assert!(
            matches!(result, Err(Error::Record(RecordError::Poisoned))),
            "{result:?}"
        );
    });
}

#[test]
fn a_panic_rolls_back_and_goes_on() {
    let mut f = alice_and_bob();
    f.unchanged(|f| {
        for at in ["end", "statement"] {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                f.run(|tx| {
                    write_something(tx)?;
                    if at == "statement" {
                        tx.logged_insert::<Account, _>(accounts::owner.eq(Picky("panics")))?;
                    }
                    if at == "end" {
                        panic!("it panics on purpose");
                    }
                    Ok(())
                })
            }))
            .unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"it panics on purpose"));
            assert_free(&mut f.conn);
        }
    });
    f.run(write_something).unwrap();
    f.check();
}

#[test]
fn a_panic_that_the_closure_catches_inside_a_write_is_not_committed() {
    let mut f = alice_and_bob();
    f.unchanged(|f| {
        let error = f
            .run(|tx| {
                write_something(tx)?;
                let write = || tx.logged_insert::<Account, _>(accounts::owner.eq(Picky("panics")));
                assert!(catch_unwind(AssertUnwindSafe(write)).is_err());
                Ok(())
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::Record(RecordError::Poisoned)),
            "{error:?}"
        );
    });
}

/// A row that the database stored but the model can't hold: an ignored error of the reading once
/// committed such a row unlogged.
#[test]
fn a_row_that_cant_be_read_back_is_not_committed() {
    use diesel::connection::SimpleConnection as _;

    let mut f = Fixture::new();
    f.conn
        .batch_execute("CREATE TABLE odds (id BIGINT PRIMARY KEY, odd BIGINT NOT NULL)")
        .unwrap();
    let odd = |n: i64| (odds::id.eq(n), odds::odd.eq(n));
    f.run(|tx| tx.logged_insert::<Odds, _>(odd(1))).unwrap();
    f.news();
    let tries: [Try; 4] = [
        |tx| {
            tx.logged_insert::<Odds, _>((odds::id.eq(2), odds::odd.eq(2)))
                .map(drop)
        },
        |tx| {
            tx.logged_insert_many::<Odds, _>([3, 4].map(|n| (odds::id.eq(n), odds::odd.eq(n))))
                .map(drop)
        },
        |tx| {
            tx.logged_update(&Odds { id: 1, odd: Odd(1) }, odds::odd.eq(2))
                .map(drop)
        },
        |tx| {
            tx.logged_update_where::<Odds, _, _>(odds::table, odds::odd.eq(odds::odd + 1))
                .map(drop)
        },
    ];
    for write in tries {
        let error = f.run(write).unwrap_err();
        assert!(
            matches!(error, Error::Database(DieselError::DeserializationError(_))),
            "{error:?}"
        );
        let error = f
            .run(|tx| {
                assert!(write(tx).is_err());
                Ok(())
            })
            .unwrap_err();
        assert!(
            matches!(error, Error::Record(RecordError::Poisoned)),
            "{error:?}"
        );
    }
    let rows: Vec<(i64, i64)> = odds::table.load(&mut f.conn).unwrap();
    assert_eq!(rows, [(1, 1)]);
    assert_eq!(f.news(), [""; 0]);
    f.check();
}
