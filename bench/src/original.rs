//! The protocol of the package that this project re-creates, written by hand: read the ticket, write
//! the rows, insert an entry, insert its metadata, redeem the ticket if nobody else has.
//!
//! It is treated well: every statement is cached, the ticket is not read again after it was
//! redeemed, and no triggers guard the log.

use std::error::Error;
use std::fmt;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use diesel::prelude::*;
use oplog_diesel::core::{Message, Queue};
use oplog_diesel::prelude::Oplogged;

use super::{Conn, contended};
use crate::model::Member;
use crate::statement::{
    Bind, Fixed, OriginalEntry, OriginalMetadata, OriginalRedeem, OriginalTicket,
};
use crate::variant::{At, Inside, METADATA, Over, Result};

/// Attempts at most. A block of the benchmark is over long before.
const ATTEMPTS_MAX: u32 = 1_000;

/// Somebody else redeemed the ticket.
#[derive(Debug)]
struct TicketLost;

impl fmt::Display for TicketLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ticket was redeemed by another transaction")
    }
}

impl Error for TicketLost {}

/// Rows and entry in one transaction.
fn write(
    conn: &mut Conn,
    rows: &[Member],
    write: impl FnOnce(&mut Conn) -> QueryResult<()>,
    messages: impl Iterator<Item = Message>,
    inside: &Inside,
) -> Result<()> {
    static CIPHER: LazyLock<XChaCha20Poly1305> =
        LazyLock::new(|| XChaCha20Poly1305::new(&[7; 32].into()));

    let aggregate = rows[0].aggregate();
    let name = aggregate.as_str();
    let version: i64 = Fixed::<OriginalTicket>::new(&[Bind::Text(name)]).get_result(conn)?;
    write(conn)?;

    let mut queue = Queue::new();
    for message in messages {
        queue.push(&message)?;
    }
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce)?;
    let mut data = nonce.to_vec();
    data.extend(
        CIPHER
            .encrypt(&XNonce::from(nonce), queue.as_bytes())
            .map_err(|_| "an entry can't be sealed")?,
    );

    let entry = [Bind::Text("v1"), Bind::Text(name), Bind::Bytes(&data)];
    let id: i64 = Fixed::<OriginalEntry>::new(&entry).get_result(conn)?;
    let [first, second, third] = METADATA;
    let metadata = [first, second, third]
        .map(|(key, value)| [Bind::Big(id), Bind::Text(key), Bind::Text(value)]);
    Fixed::<OriginalMetadata>::new(metadata.as_flattened()).execute(conn)?;

    // An application works on until it commits; what it wrote it knows by now.
    inside.work()?;
    let redeem = [Bind::Big(version + 1), Bind::Text(name), Bind::Big(version)];
    match Fixed::<OriginalRedeem>::new(&redeem).execute(conn)? {
        1 => Ok(()),
        _ => Err(TicketLost.into()),
    }
}

fn create_message(rows: &[Member]) -> impl Iterator<Item = Message> {
    let make = match rows {
        [_] => Message::create,
        _ => Message::create_items,
    };
    rows.iter().map(make)
}

pub fn create(at: At<'_, Conn>, insert: fn(&mut Conn, &[Member]) -> QueryResult<()>) -> Result<()> {
    let At {
        conn, rows, inside, ..
    } = at;
    conn.transaction(|conn| {
        write(
            conn,
            rows,
            |conn| insert(conn, rows),
            create_message(rows),
            inside,
        )
    })
}

pub fn update(
    at: At<'_, Conn>,
    update: fn(&mut Conn, &[Member], i32) -> QueryResult<()>,
) -> Result<()> {
    let At {
        conn,
        rows,
        age,
        inside,
        ..
    } = at;
    let messages = rows
        .iter()
        .filter_map(|row| Message::update(row, &row.aged(age)));
    conn.transaction(|conn| write(conn, rows, |conn| update(conn, rows, age), messages, inside))
}

pub fn delete(at: At<'_, Conn>, delete: fn(&mut Conn, &[Member]) -> QueryResult<()>) -> Result<()> {
    let At {
        conn, rows, inside, ..
    } = at;
    let make = match rows {
        [_] => Message::delete,
        _ => Message::delete_items,
    };
    conn.transaction(|conn| {
        write(
            conn,
            rows,
            |conn| delete(conn, rows),
            rows.iter().map(make),
            inside,
        )
    })
}

/// With many writers: again from the start whenever the ticket was lost.
pub fn create_again_and_again(
    at: At<'_, Conn>,
    insert: fn(&mut Conn, &[Member]) -> QueryResult<()>,
) -> Result<()> {
    let At {
        conn, rows, inside, ..
    } = at;
    for attempt in 1..=ATTEMPTS_MAX {
        let outcome = contended(conn, &mut |conn| {
            write(
                conn,
                rows,
                |conn| insert(conn, rows),
                create_message(rows),
                inside,
            )
        });
        match outcome {
            Err(failure) if failure.is::<TicketLost>() => thread::sleep(pause(attempt)?),
            outcome => return outcome,
        }
        if inside.is_over() {
            return Err(Over.into());
        }
    }
    Err(TicketLost.into())
}

/// As this project's own pause. The original's doubles without a bound, up to hours.
fn pause(attempt: u32) -> Result<Duration> {
    let micros = 500_u64 << attempt.saturating_sub(1).min(7);
    let chance = u64::from(getrandom::u32()?);
    Ok(Duration::from_micros(
        micros / 2 + micros * chance / u64::from(u32::MAX),
    ))
}
