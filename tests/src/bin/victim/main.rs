//! A program that writes logged transactions until it is killed, for the tests that kill it.
//!
//! After each commit it prints a line with the transaction's number and its receipts, so that whoever
//! killed it knows what it was told. It ends by itself only if the moment of its death never came.

// The work is written once for all databases, as the cases of the tests are.
#![allow(clippy::duplicate_mod)]

use std::time::Duration;

/// What to write, and when to die. Given as arguments, in this order.
pub struct Orders {
    /// The URL of the database.
    pub url: String,
    /// The key file.
    pub key: String,
    /// The writer's name in the metadata of its entries.
    pub name: String,
    pub mode: Mode,
    pub death: Death,
}

/// How it takes tickets, and which rows it writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Those of the account and the settings late.
    Late,
    /// It names both.
    Optimistic,
    /// Those of the counter and of one more that is not there yet, before it reads; that of the settings
    /// late.
    LockFirst,
    /// That of the counter before it reads, names the account, and that of the settings late.
    Mixed,
    /// That of the counter before it reads, and the others late, in a transaction of its own around the
    /// logged one, which could not run again.
    Nested,
    /// It only inserts into the settings, in a single statement where the database can.
    Alone,
}

/// Always by SIGKILL, in the third transaction or whenever somebody else sends it.
#[derive(Clone, Copy)]
pub enum Death {
    /// Before the statement of this number is sent.
    Statement(usize),
    /// So long after the COMMIT began to be sent.
    Commit(Duration),
    /// After the COMMIT, before anybody is told.
    Untold,
    /// By somebody else.
    Other,
}

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("another argument");
    let database = next();
    let orders = Orders {
        url: next(),
        key: next(),
        name: next(),
        mode: mode(&next()),
        death: death(&next()),
    };
    match database.as_str() {
        #[cfg(feature = "postgres")]
        "postgres" => postgres::work::work(&orders),
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::work::work(&orders),
        other => panic!("no database `{other}`"),
    }
}

fn mode(text: &str) -> Mode {
    match text {
        "late" => Mode::Late,
        "optimistic" => Mode::Optimistic,
        "lock first" => Mode::LockFirst,
        "mixed" => Mode::Mixed,
        "nested" => Mode::Nested,
        "alone" => Mode::Alone,
        _ => panic!("no mode `{text}`"),
    }
}

fn death(text: &str) -> Death {
    let number = |text: &str| text.parse().expect("a number");
    match text.split_once('=') {
        Some(("statement", at)) => Death::Statement(number(at)),
        Some(("commit", after)) => Death::Commit(Duration::from_micros(number(after) as u64)),
        None if text == "untold" => Death::Untold,
        None if text == "other" => Death::Other,
        _ => panic!("no death `{text}`"),
    }
}
