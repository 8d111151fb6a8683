//! Time-outs of the session that expire while somebody else holds what a statement waits for.
//! PostgreSQL only: SQLite knows but one lock, which `tickets.rs` has.

use std::time::Duration;

use diesel::connection::SimpleConnection as _;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::sql_types::Text;
use oplog_diesel::core::{Head, Receipt};
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
use oplog_tests::faulty::Faulty;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::{Conn, is_free};
use crate::fixture::{Fixture, assert_free, builder, is_soak};

/// Something that a statement can wait for.
struct Wait {
    name: &'static str,
    /// Takes it, on another connection.
    hold: fn(&Oplog) -> String,
    /// The aggregates that the writer names.
    named: &'static [&'static str],
    write: Write,
    /// Whose statement it is that waits.
    whose: Whose,
}

#[derive(Clone, Copy)]
enum Write {
    /// A closure in a logged transaction.
    Inside(fn(&mut Tx<'_, Faulty<Conn>>) -> Result<(), Error>),
    /// A statement that is a logged transaction of its own.
    Alone(fn(&Oplog, &mut Faulty<Conn>) -> Result<Vec<Receipt>, Error>),
}

use Write::{Alone, Inside};

#[derive(Clone, Copy)]
enum Whose {
    Users,
    Ours(&'static str),
    /// No statement waits at all: the ticket is lost.
    Nobodys,
}

const WAITS: &[Wait] = &[
    Wait {
        name: "the row of an update",
        hold: |_| "SELECT 1 FROM accounts WHERE id = 1 FOR UPDATE".to_owned(),
        named: &[],
        write: Inside(|tx| pay(tx, 1)),
        whose: Whose::Users,
    },
    Wait {
        name: "the rows of an update_where",
        hold: |_| "SELECT 1 FROM accounts WHERE id = 2 FOR UPDATE".to_owned(),
        named: &["account:1"],
        write: Inside(|tx| {
            tx.logged_update_where::<Account, _, _>(accounts::table, accounts::balance.eq(0))
                .map(drop)
        }),
        whose: Whose::Users,
    },
    Wait {
        name: "the row of a delete",
        hold: |_| "SELECT 1 FROM accounts WHERE id = 2 FOR UPDATE".to_owned(),
        named: &[],
        write: Inside(|tx| {
            pay(tx, 1)?;
            tx.logged_delete_by_key::<Account, _>(2).map(drop)
        }),
        whose: Whose::Users,
    },
    Wait {
        name: "a key that somebody is inserting",
        hold: |_| "INSERT INTO settings (section, name) VALUES ('s', 'a')".to_owned(),
        named: &[],
        write: Inside(|tx| {
            pay(tx, 1)?;
            set(tx, "a")
        }),
        whose: Whose::Users,
    },
    Wait {
        name: "a ticket, late",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'account:1' FOR UPDATE".to_owned(),
        named: &[],
        write: Inside(|tx| pay(tx, 1)),
        whose: Whose::Ours("locking a ticket"),
    },
    Wait {
        name: "the second ticket, late",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'account:2' FOR UPDATE".to_owned(),
        named: &[],
        write: Inside(|tx| {
            pay(tx, 2)?;
            pay(tx, 1)
        }),
        whose: Whose::Ours("locking a ticket"),
    },
    Wait {
        name: "the creator of a ticket, late",
        hold: |oplog| create(oplog, "settings"),
        named: &[],
        write: Inside(|tx| set(tx, "a")),
        whose: Whose::Ours("redeeming a ticket and appending its entry"),
    },
    Wait {
        name: "a ticket, named",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'account:1' FOR UPDATE".to_owned(),
        named: &["account:1"],
        write: Inside(|tx| pay(tx, 1)),
        whose: Whose::Nobodys,
    },
    Wait {
        name: "a ticket, locked first",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'counter:1' FOR UPDATE".to_owned(),
        named: &["counter:1"],
        write: Inside(|tx| count(tx, 1)),
        whose: Whose::Ours("locking a ticket"),
    },
    Wait {
        name: "the second ticket, locked first",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'counter:2' FOR UPDATE".to_owned(),
        named: &["account:1", "counter:2", "counter:1"],
        write: Inside(|tx| {
            pay(tx, 1)?;
            count(tx, 1)
        }),
        whose: Whose::Ours("locking a ticket"),
    },
    Wait {
        name: "the creator of a ticket, locked first",
        hold: |oplog| create(oplog, "counter:3"),
        named: &["counter:3"],
        write: Inside(|tx| {
            tx.logged_insert::<Counter, _>(Counter { id: 3, n: 0 })
                .map(drop)
        }),
        whose: Whose::Ours("creating a ticket"),
    },
    Wait {
        name: "a row whose ticket is locked first",
        hold: |_| "SELECT 1 FROM counters WHERE id = 1 FOR UPDATE".to_owned(),
        named: &["counter:1"],
        write: Inside(|tx| count(tx, 1)),
        whose: Whose::Users,
    },
    Wait {
        name: "a ticket, late, after one that is locked first",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'account:1' FOR UPDATE".to_owned(),
        named: &["counter:1"],
        write: Inside(|tx| {
            count(tx, 1)?;
            pay(tx, 1)
        }),
        whose: Whose::Ours("locking a ticket"),
    },
    Wait {
        name: "a ticket, named, after one that is locked first",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'account:1' FOR UPDATE".to_owned(),
        named: &["counter:1", "account:1"],
        write: Inside(|tx| {
            count(tx, 1)?;
            pay(tx, 1)
        }),
        whose: Whose::Nobodys,
    },
    Wait {
        name: "the key of an insert_row",
        hold: |_| "INSERT INTO settings (section, name) VALUES ('s', 'a')".to_owned(),
        named: &[],
        write: Alone(|oplog, conn| oplog.logged_insert_row(conn, &setting("a"))),
        whose: Whose::Users,
    },
    Wait {
        name: "the row of an update_row",
        hold: |_| "SELECT 1 FROM accounts WHERE id = 1 FOR UPDATE".to_owned(),
        named: &[],
        write: Alone(|oplog, conn| {
            oplog.logged_update_row(conn, &account("Alice"), &account("Carol"))
        }),
        whose: Whose::Users,
    },
    // The statement is the application's as much as ours.
    Wait {
        name: "the ticket of an update_row",
        hold: |_| "SELECT 1 FROM oplog_ticket WHERE name = 'account:1' FOR UPDATE".to_owned(),
        named: &[],
        write: Alone(|oplog, conn| {
            oplog.logged_update_row(conn, &account("Alice"), &account("Carol"))
        }),
        whose: Whose::Users,
    },
    Wait {
        name: "the creator of the ticket of an insert_row",
        hold: |oplog| create(oplog, "settings"),
        named: &[],
        write: Alone(|oplog, conn| oplog.logged_insert_row(conn, &setting("a"))),
        whose: Whose::Users,
    },
    // The last one, which is used by itself, too.
    Wait {
        name: "the creator of a ticket, named",
        hold: |oplog| create(oplog, "settings"),
        named: &["settings"],
        write: Inside(|tx| set(tx, "a")),
        whose: Whose::Nobodys,
    },
];

fn create(oplog: &Oplog, name: &str) -> String {
    let hash = Head::genesis(&oplog.log_id(), name, 1).hash;
    format!(
        "INSERT INTO oplog_ticket (name, version, head_hash, epoch) VALUES ('{name}', 1, '\\x{hash}', 1)"
    )
}

fn account(owner: &str) -> Account {
    Account {
        id: 1,
        owner: owner.to_owned(),
        balance: 10,
        email: None,
    }
}

fn setting(name: &str) -> Setting {
    Setting {
        section: "s".to_owned(),
        name: name.to_owned(),
        value: None,
    }
}

fn pay(tx: &mut Tx<'_, Faulty<Conn>>, id: i64) -> Result<(), Error> {
    let now: Account = tx.read_one(accounts::table.find(id).select(Account::as_select()))?;
    tx.logged_update(&now, accounts::balance.eq(accounts::balance + 1))
        .map(drop)
}

fn set(tx: &mut Tx<'_, Faulty<Conn>>, name: &str) -> Result<(), Error> {
    tx.logged_insert::<Setting, _>(&setting(name)).map(drop)
}

fn count(tx: &mut Tx<'_, Faulty<Conn>>, id: i64) -> Result<(), Error> {
    let now: Counter = tx.read_one(counters::table.find(id).select(Counter::as_select()))?;
    tx.logged_update(&now, counters::n.eq(now.n + 1)).map(drop)
}

/// What became of it, and how often the closure ran. Not at all if its tickets could not be locked.
fn write(oplog: &Oplog, conn: &mut Faulty<Conn>, wait: &Wait) -> (u32, Result<(), Error>) {
    let mut attempts = 0;
    let body = match wait.write {
        Inside(body) => body,
        Alone(write) => return (1, write(oplog, conn).map(drop)),
    };
    let builder = wait
        .named
        .iter()
        .fold(oplog.metadata("k", "v"), |builder, name| builder.on(*name));
    let result = builder.transaction(conn, |tx| {
        attempts += 1;
        body(tx)
    });
    (attempts, result)
}

/// What the session has set, not what a transaction has set for itself.
fn settings_of(conn: &mut Conn) -> [String; 3] {
    ["lock_timeout", "statement_timeout", "transaction_isolation"].map(|name| {
        diesel::select(sql::<Text>(&format!("current_setting('{name}')")))
            .get_result(conn)
            .unwrap()
    })
}

/// Each statement waits for one of the two time-outs; in a long run for either.
fn expire(timeout: &str, turn: usize) {
    let step = if is_soak() { 1 } else { 2 };
    for wait in WAITS.iter().skip(turn % step).step_by(step) {
        let mut f = Fixture::new();
        f.account("Alice");
        f.account("Bob");
        for id in [1, 2] {
            f.counter(id);
        }
        f.oplog = builder(&f.db)
            .attempts(3, Duration::from_secs(60))
            .open(&mut f.conn)
            .unwrap();
        let mut conn = f.db.connect();
        conn.batch_execute(&format!("SET {timeout} = '60ms'"))
            .unwrap();
        let before = settings_of(&mut conn);
        let mut conn = Faulty::new(conn);
        let mut other = f.db.connect();
        f.unchanged(|f| {
            let hold = (wait.hold)(&f.oplog);
            other.batch_execute(&format!("BEGIN; {hold}")).unwrap();
            let (attempts, told) = write(&f.oplog, &mut conn, wait);
            let error = told.expect_err(wait.name);
            let fits = match (wait.whose, &error) {
                (
                    Whose::Users,
                    Error::Database(DieselError::DatabaseError(DatabaseErrorKind::Unknown, why)),
                ) => why.message().contains("timeout") && attempts == 1,
                (
                    Whose::Ours(what),
                    Error::Store {
                        operation,
                        kind: Some(DatabaseErrorKind::Unknown),
                        ..
                    },
                ) => *operation == what && attempts <= 1,
                (Whose::Nobodys, Error::Contention { attempts: told, .. }) => {
                    attempts == 3 && *told == 3
                }
                _ => false,
            };
            assert!(fits, "{}: {error:?} after {attempts}", wait.name);
            assert!(is_free(conn.inner()), "{}", wait.name);
            assert_free(conn.inner());
            assert_eq!(settings_of(conn.inner()), before, "{}", wait.name);
            other.batch_execute("ROLLBACK").unwrap();
        });
        // Nobody is in the way any more.
        let (attempts, told) = write(&f.oplog, &mut conn, wait);
        told.unwrap();
        assert_eq!(attempts, 1);
        assert_eq!(settings_of(conn.inner()), before, "{}", wait.name);
        f.check();
    }
}

#[test]
fn a_lock_timeout_writes_nothing() {
    expire("lock_timeout", 0);
}

#[test]
fn a_statement_timeout_writes_nothing() {
    expire("statement_timeout", 1);
}

/// Inside a test transaction the settings outlive the logged transaction.
#[test]
fn a_lost_ticket_leaves_the_settings_of_a_test_transaction() {
    let mut f = Fixture::new();
    f.oplog = builder(&f.db)
        .attempts(2, Duration::from_secs(60))
        .open(&mut f.conn)
        .unwrap();
    let mut conn = f.db.connect();
    conn.begin_test_transaction().unwrap();
    conn.batch_execute("SET LOCAL lock_timeout = '4321ms'")
        .unwrap();
    let before = settings_of(&mut conn);
    let mut conn = Faulty::new(conn);
    let mut other = f.db.connect();
    let wait = WAITS.last().unwrap();
    let hold = (wait.hold)(&f.oplog);
    other.batch_execute(&format!("BEGIN; {hold}")).unwrap();
    let (attempts, told) = write(&f.oplog, &mut conn, wait);
    assert!(matches!(told, Err(Error::Contention { .. })), "{told:?}");
    assert_eq!((attempts, settings_of(conn.inner())), (2, before.clone()));
    other.batch_execute("ROLLBACK").unwrap();
    let (attempts, told) = write(&f.oplog, &mut conn, wait);
    told.unwrap();
    assert_eq!((attempts, settings_of(conn.inner())), (1, before));
    assert!(f.oplog.verify_contents(conn.inner()).unwrap().is_intact());
}
