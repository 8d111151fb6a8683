//! Every form of a logged write, as data: what each test of faults goes through.
//!
//! A new form is one line in [`WRITES`], a new way to take tickets one line in [`MODES`].

use diesel::prelude::*;
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
    pub run: fn(&mut FaultyTx<'_>, Stage) -> Result<(), Error>,
}

/// One way to take tickets: the aggregates that are named beforehand.
pub struct Mode {
    pub name: &'static str,
    pub named: fn(Stage) -> Vec<String>,
}

/// The rows of one run: numbers that no other run has. Before the write there are the accounts `old`
/// and `other` and the settings `a` and `b`, and tickets of all of these but not of `new`.
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
}

pub const MODES: [Mode; 5] = [
    Mode {
        name: "late",
        named: |_| vec![],
    },
    Mode {
        name: "optimistic, with a ticket",
        named: |stage| vec![stage.name(stage.old())],
    },
    Mode {
        name: "optimistic, without a ticket",
        named: |stage| vec![stage.name(stage.new())],
    },
    Mode {
        name: "optimistic, several",
        named: |stage| {
            vec![
                stage.name(stage.new()),
                "settings".to_owned(),
                stage.name(stage.old()),
            ]
        },
    },
    Mode {
        name: "optimistic, only read",
        named: |stage| vec![stage.name(stage.number + 7)],
    },
];

pub const WRITES: &[Write] = &[
    Write {
        name: "insert into a new aggregate",
        run: |tx, stage| insert(tx, stage.new()).map(drop),
    },
    Write {
        name: "insert into an old aggregate",
        run: |tx, stage| post(tx, stage.old()).map(drop),
    },
    Write {
        name: "insert_many",
        run: |tx, stage| {
            let rows = ["c", "d", "e"].map(|name| stage.setting(name, None));
            tx.logged_insert_many::<Setting, _>(rows).map(drop)
        },
    },
    Write {
        name: "insert_many into several aggregates",
        run: |tx, stage| {
            let rows = [5, 6].map(|n| {
                (
                    accounts::id.eq(stage.number + n),
                    accounts::owner.eq("many"),
                )
            });
            tx.logged_insert_many::<Account, _>(rows).map(drop)
        },
    },
    Write {
        name: "update",
        run: |tx, stage| pay(tx, stage.old()).map(drop),
    },
    Write {
        name: "update that changes nothing",
        run: |tx, stage| {
            let old = account(tx, stage.old())?;
            tx.logged_update(&old, accounts::balance.eq(old.balance))
                .map(drop)
        },
    },
    Write {
        name: "update of the aggregate's root",
        run: |tx, stage| {
            let other = account(tx, stage.other())?;
            tx.logged_update(&other, accounts::id.eq(stage.new()))
                .map(drop)
        },
    },
    Write {
        name: "update_where",
        run: |tx, stage| {
            let these = settings::table.filter(settings::section.eq(stage.section()));
            tx.logged_update_where::<Setting, _, _>(these, settings::value.eq(Some(vec![1, 2])))
                .map(drop)
        },
    },
    Write {
        name: "update_where that finds nothing",
        run: |tx, stage| {
            let none = accounts::table.filter(accounts::id.eq(stage.new()));
            tx.logged_update_where::<Account, _, _>(none, accounts::balance.eq(0))
                .map(drop)
        },
    },
    Write {
        name: "delete",
        run: |tx, stage| {
            let other = account(tx, stage.other())?;
            tx.logged_delete(&other).map(drop)
        },
    },
    Write {
        name: "delete_by_key",
        run: |tx, stage| {
            tx.logged_delete_by_key::<Account, _>(stage.other())
                .map(drop)
        },
    },
    Write {
        name: "delete_where",
        run: |tx, stage| {
            let these = settings::table.filter(settings::section.eq(stage.section()));
            tx.logged_delete_where::<Setting, _>(these).map(drop)
        },
    },
    Write {
        name: "savepoint that is kept",
        run: |tx, stage| {
            pay(tx, stage.old())?;
            tx.savepoint(|tx| insert(tx, stage.new())).map(drop)
        },
    },
    Write {
        name: "savepoint that is taken back",
        run: |tx, stage| {
            pay(tx, stage.old())?;
            let back: Result<(), Error> = tx.savepoint(|tx| {
                insert(tx, stage.new())?;
                pay(tx, stage.other())?;
                Err(Error::from(diesel::result::Error::RollbackTransaction))
            });
            match back {
                Err(Error::Database(diesel::result::Error::RollbackTransaction)) => Ok(()),
                other => other,
            }
        },
    },
    Write {
        name: "savepoints, one in the other",
        run: |tx, stage| {
            tx.savepoint(|tx| {
                pay(tx, stage.old())?;
                tx.savepoint(|tx| insert(tx, stage.new()))?;
                post(tx, stage.new()).map(drop)
            })
        },
    },
    Write {
        name: "several aggregates",
        run: |tx, stage| {
            pay(tx, stage.other())?;
            insert(tx, stage.new())?;
            pay(tx, stage.old())?;
            tx.logged_insert::<Setting, _>(&stage.setting("c", None))?;
            post(tx, stage.new()).map(drop)
        },
    },
    Write {
        name: "metadata that comes late",
        run: |tx, stage| {
            pay(tx, stage.old())?;
            tx.metadata("late", stage.number.to_string())
        },
    },
    Write {
        name: "read only",
        run: |tx, stage| account(tx, stage.old()).map(drop),
    },
    Write {
        name: "nothing",
        run: |_, _| Ok(()),
    },
];

/// Two rows that do not fit into one entry. Not one of the [`WRITES`], for its size.
pub const SPLIT: Write = Write {
    name: "an entry in two parts",
    run: |tx, stage| {
        pay(tx, stage.old())?;
        for name in ["c", "d"] {
            tx.logged_insert::<Setting, _>(&stage.setting(name, Some(9 << 20)))?;
        }
        Ok(())
    },
};

/// Runs a write in a logged transaction.
pub fn run(
    oplog: &Oplog,
    conn: &mut Faulty<Conn>,
    mode: &Mode,
    write: &Write,
    stage: Stage,
) -> Result<Vec<Receipt>, Error> {
    let builder = oplog.metadata("form", write.name);
    let named = (mode.named)(stage);
    let builder = named
        .iter()
        .fold(builder, |builder: TransactionBuilder<'_>, name| {
            builder.and(name.as_str())
        });
    builder
        .transaction_with_receipts(conn, |tx| (write.run)(tx, stage))
        .map(|((), receipts)| receipts)
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
    pub fn new(self) -> i64 {
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

    /// Puts the rows there that all writes expect.
    pub fn set(self, oplog: &Oplog, conn: &mut Conn) {
        oplog
            .transaction(conn, |tx| {
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
        Rows {
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

fn pay(tx: &mut FaultyTx<'_>, id: i64) -> Result<Account, Error> {
    let now = account(tx, id)?;
    tx.logged_update(&now, accounts::balance.eq(now.balance + 1))
}
