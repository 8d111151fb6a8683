//! Every form of a logged write, as data: what each test of faults goes through.
//!
//! A new form is one line in [`WRITES`], a new way to take tickets one line in [`MODES`].

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::BigInt;
use oplog_diesel::core::Receipt;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, TransactionBuilder, Tx};
use oplog_tests::faulty::Faulty;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Conn;

pub type FaultyTx<'t> = Tx<'t, Faulty<Conn>>;

/// One way to write. All of its rows belong to a [`Stage`].
pub struct Write {
    pub name: &'static str,
    pub run: Run,
}

type Receipts = Result<Vec<Receipt>, Error>;

/// What is run.
pub enum Run {
    /// A closure in a logged transaction.
    Inside(fn(&mut FaultyTx<'_>, Stage) -> Result<(), Error>),
    /// A logged transaction of its own.
    Alone(fn(TransactionBuilder<'_>, &mut Faulty<Conn>, Stage) -> Receipts),
}

use Run::{Alone, Inside};

/// One way to take tickets: the aggregates that are named beforehand.
pub struct Mode {
    pub name: &'static str,
    pub named: fn(Stage) -> Vec<String>,
    /// Whether it runs in a transaction of the application's.
    pub is_nested: bool,
}

/// The rows of one run: numbers that no other run has. Before the write there are the accounts `old`
/// and `other`, the counter `old` and the settings `a` and `b`, and tickets of all of these but not of
/// `fresh`.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub number: i64,
}

/// The rows of one stage, the same for every stage that went through the same.
#[derive(Debug, Default, PartialEq)]
pub struct Rows {
    accounts: Vec<(i64, String, i64, Option<String>)>,
    postings: Vec<(i64, i64, Option<String>)>,
    settings: Vec<(String, Option<usize>)>,
    counters: Vec<(i64, i64)>,
    /// Of a table without a model.
    scratch: i64,
}

pub const MODES: [Mode; 7] = [
    Mode {
        name: "late",
        named: |_| vec![],
        is_nested: false,
    },
    Mode {
        name: "optimistic, with a ticket",
        named: |stage| vec![stage.name(stage.old())],
        is_nested: false,
    },
    Mode {
        name: "optimistic, without a ticket",
        named: |stage| vec![stage.name(stage.fresh())],
        is_nested: false,
    },
    Mode {
        name: "optimistic, several",
        named: |stage| {
            vec![
                stage.name(stage.fresh()),
                "settings".to_owned(),
                stage.name(stage.old()),
            ]
        },
        is_nested: false,
    },
    Mode {
        name: "optimistic, only read",
        named: |stage| vec![stage.name(stage.number + 7)],
        is_nested: false,
    },
    Mode {
        name: "lock first",
        named: |stage| {
            let mut named = vec![stage.name(stage.old())];
            named.extend([stage.fresh(), stage.old()].map(|id| format!("counter:{id}")));
            named
        },
        is_nested: false,
    },
    Mode {
        name: "nested",
        named: |stage| {
            let mut named = vec![stage.name(stage.old())];
            named.extend([stage.fresh(), stage.old()].map(|id| format!("counter:{id}")));
            named
        },
        is_nested: true,
    },
];

pub const WRITES: &[Write] = &[
    Write {
        name: "insert into a new aggregate",
        run: Inside(|tx, stage| insert(tx, stage.fresh()).map(drop)),
    },
    Write {
        name: "insert into an old aggregate",
        run: Inside(|tx, stage| post(tx, stage.old()).map(drop)),
    },
    Write {
        name: "insert_many",
        run: Inside(|tx, stage| {
            let rows = ["c", "d", "e"].map(|name| stage.setting(name, None));
            tx.logged_insert_many::<Setting, _>(rows).map(drop)
        }),
    },
    Write {
        name: "insert_many into several aggregates",
        run: Inside(|tx, stage| {
            let rows = [5, 6].map(|n| {
                (
                    accounts::id.eq(stage.number + n),
                    accounts::owner.eq("many"),
                )
            });
            tx.logged_insert_many::<Account, _>(rows).map(drop)
        }),
    },
    Write {
        name: "update",
        run: Inside(|tx, stage| pay(tx, stage.old())),
    },
    Write {
        name: "update that changes nothing",
        run: Inside(|tx, stage| {
            let old = account(tx, stage.old())?;
            tx.logged_update(&old, accounts::balance.eq(old.balance))
                .map(drop)
        }),
    },
    Write {
        name: "update of the aggregate's root",
        run: Inside(|tx, stage| {
            let other = account(tx, stage.other())?;
            tx.logged_update(&other, accounts::id.eq(stage.fresh()))
                .map(drop)
        }),
    },
    Write {
        name: "update_where",
        run: Inside(|tx, stage| {
            let these = settings::table.filter(settings::section.eq(stage.section()));
            tx.logged_update_where::<Setting, _, _>(these, settings::value.eq(Some(vec![1, 2])))
                .map(drop)
        }),
    },
    Write {
        name: "update_where that finds nothing",
        run: Inside(|tx, stage| {
            let none = accounts::table.filter(accounts::id.eq(stage.fresh()));
            tx.logged_update_where::<Account, _, _>(none, accounts::balance.eq(0))
                .map(drop)
        }),
    },
    Write {
        name: "delete",
        run: Inside(|tx, stage| {
            let other = account(tx, stage.other())?;
            tx.logged_delete(&other).map(drop)
        }),
    },
    Write {
        name: "delete_by_key",
        run: Inside(|tx, stage| {
            tx.logged_delete_by_key::<Account, _>(stage.other())
                .map(drop)
        }),
    },
    Write {
        name: "delete_where",
        run: Inside(|tx, stage| {
            let these = settings::table.filter(settings::section.eq(stage.section()));
            tx.logged_delete_where::<Setting, _>(these).map(drop)
        }),
    },
    Write {
        name: "savepoint that is kept",
        run: Inside(|tx, stage| {
            pay(tx, stage.old())?;
            tx.savepoint(|tx| insert(tx, stage.fresh())).map(drop)
        }),
    },
    Write {
        name: "savepoint that is taken back",
        run: Inside(|tx, stage| {
            pay(tx, stage.old())?;
            let back: Result<(), Error> = tx.savepoint(|tx| {
                insert(tx, stage.fresh())?;
                pay(tx, stage.other())?;
                Err(Error::from(diesel::result::Error::RollbackTransaction))
            });
            taken_back(back)
        }),
    },
    Write {
        name: "savepoints, one in the other",
        run: Inside(|tx, stage| {
            tx.savepoint(|tx| {
                pay(tx, stage.old())?;
                tx.savepoint(|tx| insert(tx, stage.fresh()))?;
                post(tx, stage.fresh()).map(drop)
            })
        }),
    },
    Write {
        name: "several aggregates",
        run: Inside(|tx, stage| {
            pay(tx, stage.other())?;
            insert(tx, stage.fresh())?;
            pay(tx, stage.old())?;
            tx.logged_insert::<Setting, _>(&stage.setting("c", None))?;
            post(tx, stage.fresh()).map(drop)
        }),
    },
    Write {
        name: "metadata that comes late",
        run: Inside(|tx, stage| {
            pay(tx, stage.old())?;
            tx.metadata("late", stage.number.to_string())
        }),
    },
    Write {
        name: "read only",
        run: Inside(|tx, stage| account(tx, stage.old()).map(drop)),
    },
    Write {
        name: "nothing",
        run: Inside(|_, _| Ok(())),
    },
    Write {
        name: "insert_row",
        run: Alone(|builder, conn, stage| {
            builder.logged_insert_row(conn, &stage.account(stage.fresh(), "new", 7))
        }),
    },
    Write {
        name: "update_row",
        run: Alone(|builder, conn, stage| {
            let old = stage.account(stage.old(), "old", 10);
            let new = stage.account(stage.old(), "changed", 11);
            builder.logged_update_row(conn, &old, &new)
        }),
    },
    Write {
        name: "update_row of another row than is there",
        run: Alone(|builder, conn, stage| {
            let old = stage.account(stage.old(), "old", 99);
            let new = stage.account(stage.old(), "changed", 99);
            builder.logged_update_row(conn, &old, &new)
        }),
    },
    Write {
        name: "update_row that moves it",
        run: Alone(|builder, conn, stage| {
            let old = stage.account(stage.other(), "old", 10);
            let new = stage.account(stage.fresh(), "old", 10);
            builder.logged_update_row(conn, &old, &new)
        }),
    },
    Write {
        name: "delete_row",
        run: Alone(|builder, conn, stage| {
            builder.logged_delete_row(conn, &stage.account(stage.other(), "old", 10))
        }),
    },
    Write {
        name: "read_with",
        run: Inside(|tx, stage| {
            pay(tx, stage.old())?;
            let old = tx.read_with(|conn| {
                accounts::table
                    .find(stage.old())
                    .select(Account::as_select())
                    .first(conn)
            })?;
            tx.logged_update(&old, accounts::owner.eq("read")).map(drop)
        }),
    },
    Write {
        name: "unlogged",
        run: Inside(|tx, stage| {
            tx.unlogged("a test", |conn| add_scratch(conn, stage))?;
            pay(tx, stage.old())
        }),
    },
    Write {
        name: "unlogged that is taken back",
        run: Inside(|tx, stage| {
            pay(tx, stage.old())?;
            let back: Result<(), Error> = tx.unlogged("a test", |conn| {
                add_scratch(conn, stage)?;
                Err(diesel::result::Error::RollbackTransaction)
            });
            taken_back(back)
        }),
    },
];

/// Writes of rows whose ticket is locked first. They work only in the modes that name it.
pub const LOCKED_FIRST: &[Write] = &[
    Write {
        name: "update under a lock",
        run: Inside(|tx, stage| count(tx, stage.old())),
    },
    Write {
        name: "insert under a lock, and others",
        run: Inside(|tx, stage| {
            pay(tx, stage.old())?;
            let row = counters::id.eq(stage.fresh());
            tx.logged_insert::<Counter, _>(row)?;
            count(tx, stage.fresh())?;
            tx.savepoint(|tx| count(tx, stage.old()))
        }),
    },
    Write {
        name: "insert_row under a lock",
        run: Alone(|builder, conn, stage| {
            let row = Counter {
                id: stage.fresh(),
                n: 3,
            };
            builder.logged_insert_row(conn, &row)
        }),
    },
    Write {
        name: "update_row under a lock",
        run: Alone(|builder, conn, stage| {
            let row = |n| Counter { id: stage.old(), n };
            builder.logged_update_row(conn, &row(0), &row(3))
        }),
    },
];

/// Two rows that do not fit into one entry. Not one of the [`WRITES`], for its size.
pub const SPLIT: Write = Write {
    name: "an entry in two parts",
    run: Inside(|tx, stage| {
        pay(tx, stage.old())?;
        for name in ["c", "d"] {
            tx.logged_insert::<Setting, _>(&stage.setting(name, Some(9 << 20)))?;
        }
        Ok(())
    }),
};

/// The table without a model, which writes that are not logged write.
pub const SCRATCH: &str = "CREATE TABLE scratch (number BIGINT NOT NULL)";

/// Runs a write in a logged transaction.
pub fn run(
    oplog: &Oplog,
    conn: &mut Faulty<Conn>,
    mode: &Mode,
    write: &Write,
    stage: Stage,
) -> Result<Vec<Receipt>, Error> {
    let builder = oplog.metadata("form", write.name);
    if !mode.is_nested {
        return run_in(builder, conn, mode, write, stage);
    }
    let mut receipts = Vec::new();
    let committed = conn.transaction(|conn| {
        receipts = run_in(builder.nested(), conn, mode, write, stage)?;
        Ok(())
    });
    match committed {
        Ok(()) => Ok(receipts),
        // Whoever lost the connection at the commit of a transaction of his own asks for what was
        // written in it.
        Err(Error::Database(error)) if is_lost(&error) && !receipts.is_empty() => {
            Err(Error::CommitUnknown { receipts })
        }
        Err(error) => Err(error),
    }
}

/// Whether the database did not answer.
fn is_lost(error: &DieselError) -> bool {
    match error {
        DieselError::DatabaseError(kind, _) => *kind == DatabaseErrorKind::ClosedConnection,
        DieselError::RollbackErrorOnCommit { commit_error, .. } => is_lost(commit_error),
        _ => false,
    }
}

/// Writes rows that are there whatever was written before, of a named aggregate, of one whose ticket is
/// locked first and of one that is not named. How often it had to run.
pub fn follow(oplog: &Oplog, conn: &mut Faulty<Conn>, stage: Stage) -> u32 {
    let mut runs = 0;
    oplog
        .on(stage.name(stage.old()))
        .and(format!("counter:{}", stage.old()))
        .transaction(conn, |tx| {
            runs += 1;
            pay(tx, stage.old())?;
            count(tx, stage.old())?;
            tx.logged_insert::<Setting, _>(&stage.setting("z", None))
        })
        .map_err(|error: Error| error)
        .unwrap();
    runs
}

fn run_in(
    builder: TransactionBuilder<'_>,
    conn: &mut Faulty<Conn>,
    mode: &Mode,
    write: &Write,
    stage: Stage,
) -> Result<Vec<Receipt>, Error> {
    let named = (mode.named)(stage);
    let builder = named
        .iter()
        .fold(builder, |builder, name| builder.and(name.as_str()));
    match write.run {
        Inside(body) => builder
            .transaction_with_receipts(conn, |tx| body(tx, stage))
            .map(|((), receipts)| receipts),
        Alone(body) => body(builder, conn, stage),
    }
}

impl Stage {
    /// The account whose aggregate has entries.
    pub fn old(self) -> i64 {
        self.number + 1
    }

    /// Another one.
    pub fn other(self) -> i64 {
        self.number + 2
    }

    /// The account that is not there yet, nor its ticket.
    pub fn fresh(self) -> i64 {
        self.number + 5
    }

    /// The stage after this one.
    pub fn next(self) -> Self {
        Stage {
            number: self.number + 10,
        }
    }

    fn name(self, account: i64) -> String {
        format!("account:{account}")
    }

    fn section(self) -> String {
        self.number.to_string()
    }

    fn setting(self, name: &str, bytes: Option<usize>) -> Setting {
        Setting {
            section: self.section(),
            name: name.to_owned(),
            value: bytes.map(|bytes| vec![7; bytes]),
        }
    }

    fn account(self, id: i64, owner: &str, balance: i64) -> Account {
        Account {
            id,
            owner: owner.to_owned(),
            balance,
            email: None,
        }
    }

    /// Puts the rows there that all writes expect.
    pub fn set(self, oplog: &Oplog, conn: &mut Conn) {
        oplog
            .on(format!("counter:{}", self.old()))
            .transaction(conn, |tx| {
                tx.logged_insert::<Counter, _>(counters::id.eq(self.old()))?;
                for id in [self.old(), self.other()] {
                    let row = (accounts::id.eq(id), accounts::owner.eq("old"));
                    tx.logged_insert::<Account, _>(row)?;
                }
                let settings = ["a", "b"].map(|name| self.setting(name, Some(1)));
                tx.logged_insert_many::<Setting, _>(settings)
            })
            .map_err(|error: Error| error)
            .unwrap();
    }

    /// What is there.
    pub fn rows(self, conn: &mut Conn) -> Rows {
        let ids = self.number..self.number + 10;
        let accounts: Vec<Account> = accounts::table
            .filter(accounts::id.between(ids.start, ids.end - 1))
            .select(Account::as_select())
            .order(accounts::id)
            .load(conn)
            .unwrap();
        let postings: Vec<Posting> = postings::table
            .filter(postings::account_id.between(ids.start, ids.end - 1))
            .select(Posting::as_select())
            .order(postings::id)
            .load(conn)
            .unwrap();
        let settings: Vec<Setting> = settings::table
            .filter(settings::section.eq(self.section()))
            .select(Setting::as_select())
            .order(settings::name)
            .load(conn)
            .unwrap();
        let counters: Vec<Counter> = counters::table
            .filter(counters::id.between(ids.start, ids.end - 1))
            .select(Counter::as_select())
            .order(counters::id)
            .load(conn)
            .unwrap();
        let scratch = format!(
            "(SELECT count(*) FROM scratch WHERE number = {})",
            self.number
        );
        let scratch = diesel::select(sql::<BigInt>(&scratch))
            .get_result(conn)
            .unwrap();
        Rows {
            scratch,
            counters: counters
                .into_iter()
                .map(|row| (row.id - self.number, row.n))
                .collect(),
            accounts: accounts
                .into_iter()
                .map(|row| (row.id - self.number, row.owner, row.balance, row.email))
                .collect(),
            postings: postings
                .into_iter()
                .map(|row| (row.account_id - self.number, row.amount, row.note))
                .collect(),
            settings: settings
                .into_iter()
                .map(|row| (row.name, row.value.map(|value| value.len())))
                .collect(),
        }
    }
}

fn account(tx: &mut FaultyTx<'_>, id: i64) -> Result<Account, Error> {
    tx.read_one(accounts::table.find(id).select(Account::as_select()))
}

fn insert(tx: &mut FaultyTx<'_>, id: i64) -> Result<Account, Error> {
    tx.logged_insert((accounts::id.eq(id), accounts::owner.eq("new")))
}

fn post(tx: &mut FaultyTx<'_>, account: i64) -> Result<Posting, Error> {
    tx.logged_insert((postings::account_id.eq(account), postings::amount.eq(5)))
}

fn pay(tx: &mut FaultyTx<'_>, id: i64) -> Result<(), Error> {
    let now = account(tx, id)?;
    tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
        .map(drop)
}

fn count(tx: &mut FaultyTx<'_>, id: i64) -> Result<(), Error> {
    let now: Counter = tx.read_one(counters::table.find(id).select(Counter::as_select()))?;
    tx.logged_update(&now, counters::n.eq(now.n + 1)).map(drop)
}

fn add_scratch(conn: &mut Faulty<Conn>, stage: Stage) -> QueryResult<()> {
    diesel::sql_query(format!("INSERT INTO scratch VALUES ({})", stage.number))
        .execute(conn)
        .map(drop)
}

/// The error that a closure returns to take back what it did, and no other, is none.
fn taken_back(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Database(diesel::result::Error::RollbackTransaction)) => Ok(()),
        other => other,
    }
}
