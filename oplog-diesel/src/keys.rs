//! The log's data keys in its own tables, wrapped under keys that are never there.

use std::collections::BTreeMap;

use diesel::QueryResult;
use oplog_core::{
    DataKey, Kek, KeyId, KeyWrapper, Keyring, NAME_SHOWN_MAX, WrapContext, short_name,
};

use crate::Error;
use crate::backend::{LogBackend, malformed};
use crate::connection::{LogConnection, execute, in_transaction, load, load_one};
use crate::statement::{Bind, Statement, statements};
use crate::store::LogRow;
use crate::transaction::now_us;

statements! {
    SelectKeys = "SELECT id, scope, purpose, version, state FROM oplog_key WHERE state <> 'destroyed' ORDER BY scope, purpose, version";
    SelectEntry = "SELECT 1 FROM oplog_entry LIMIT 1";
    SelectWraps = "SELECT key_id, kek_id, wrapped FROM oplog_key_wrap ORDER BY key_id, kek_id";
    InsertKey = "INSERT INTO oplog_key (id, scope, purpose, version, state, created_us) VALUES (?, ?, ?, 1, 'primary', ?)";
    InsertWrap = "INSERT INTO oplog_key_wrap (key_id, kek_id, wrapped) VALUES (?, ?, ?)";
}

const SCOPE: &str = "default";
const PURPOSE: &str = "entry";

struct KeyRow {
    id: Vec<u8>,
    scope: String,
    purpose: String,
    version: i64,
    state: String,
}

struct WrapRow {
    key_id: Vec<u8>,
    kek_id: String,
    wrapped: Vec<u8>,
}

/// Loads every data key that the given keys unwrap. Creates the first one of a new log.
pub(crate) fn load_or_create<C: LogConnection>(
    conn: &mut C,
    log: &LogRow,
    keks: &[Kek],
) -> Result<Keyring, Error> {
    // Keys and their wraps are two tables: without a snapshot, a key that somebody creates at this
    // moment could be seen without its wrap.
    let keyring = in_transaction(
        conn,
        C::Backend::BEGIN_SNAPSHOT,
        "opening a snapshot of the keys",
        |conn| self::keyring(conn, log, keks),
    )?;
    if let Some(keyring) = keyring {
        return Ok(keyring);
    }
    // Several processes may open a new log at once: the lock lets one of them create the key, and
    // the others find it when they look again.
    in_transaction(
        conn,
        C::Backend::BEGIN_ALONE,
        "creating the first data key",
        |conn| {
            C::Backend::lock_maintenance(conn).map_err(Error::store("locking the key tables"))?;
            if let Some(keyring) = self::keyring(conn, log, keks)? {
                return Ok(keyring);
            }
            let entry = load_one(conn, Statement::<SelectEntry>::new(&[]), |_| Ok(()));
            if entry
                .map_err(Error::store("looking for entries"))?
                .is_some()
            {
                return Err(Error::KeysVanished);
            }
            create(conn, log, keks)?;
            self::keyring(conn, log, keks)?.ok_or(Error::MalformedKey {
                key_id: String::new(),
                what: "the key that was just created is not there",
            })
        },
    )
}

/// The keys of the log, or `None` if it has none yet.
fn keyring<C: LogConnection>(
    conn: &mut C,
    log: &LogRow,
    keks: &[Kek],
) -> Result<Option<Keyring>, Error> {
    let rows = read_keys(conn).map_err(Error::store("reading the data keys"))?;
    let wraps = read_wraps(conn).map_err(Error::store("reading the wrapped data keys"))?;
    if rows.is_empty() && wraps.is_empty() {
        return Ok(None);
    }
    let given: BTreeMap<_, _> = keks.iter().map(|kek| (kek.id().as_str(), kek)).collect();
    let mut wraps_of: BTreeMap<&[u8], Vec<&WrapRow>> = BTreeMap::new();
    for wrap in &wraps {
        wraps_of.entry(&wrap.key_id).or_default().push(wrap);
    }
    let keyring = Keyring::new();
    let mut primary = None;
    let mut wanted = Vec::new();
    for row in &rows {
        let bad = |what| Error::MalformedKey {
            key_id: hex(&row.id),
            what,
        };
        let key_id =
            KeyId::try_from(row.id.as_slice()).map_err(|_| bad("its id is not 16 bytes"))?;
        let version = u32::try_from(row.version).map_err(|_| bad("its version is out of range"))?;
        let context = WrapContext {
            log_id: log.log_id,
            key_id,
            scope: &row.scope,
            purpose: &row.purpose,
            version,
        };
        let is_primary = row.state == "primary" && row.scope == SCOPE && row.purpose == PURPOSE;
        if is_primary && primary.replace(key_id).is_some() {
            return Err(bad("there is another primary key"));
        }
        let own = wraps_of
            .get(row.id.as_slice())
            .map_or(&[][..], Vec::as_slice);
        let opened = own
            .iter()
            .find_map(|wrap| Some((given.get(wrap.kek_id.as_str())?, &wrap.wrapped)));
        let Some((kek, wrapped)) = opened else {
            // What other keys sealed stays closed; without the primary one nothing can be written.
            if is_primary {
                wanted.extend(own.iter().map(|wrap| short_name(&wrap.kek_id)));
            }
            continue;
        };
        let key = kek
            .unwrap(&context, wrapped)
            .map_err(|source| Error::KeyUnwrap {
                key_id: key_id.to_string(),
                kek_id: kek.kek_id(),
                source,
            })?;
        keyring.insert(key)?;
    }
    let Some(primary) = primary else {
        let first = rows
            .first()
            .map(|row| row.id.as_slice())
            .or(wraps.first().map(|wrap| wrap.key_id.as_slice()));
        return Err(Error::MalformedKey {
            key_id: hex(first.unwrap_or_default()),
            what: "there is no primary key",
        });
    };
    if !keyring.contains(&primary) {
        return Err(match wanted.is_empty() {
            true => Error::MalformedKey {
                key_id: primary.to_string(),
                what: "it is wrapped under no key at all",
            },
            false => Error::KeyNotGiven { wanted },
        });
    }
    keyring.set_primary(&primary)?;
    Ok(Some(keyring))
}

fn create<C: LogConnection>(conn: &mut C, log: &LogRow, keks: &[Kek]) -> Result<(), Error> {
    let key = DataKey::generate()?;
    let context = WrapContext {
        log_id: log.log_id,
        key_id: *key.id(),
        scope: SCOPE,
        purpose: PURPOSE,
        version: 1,
    };
    let failed = |kek: &Kek| {
        let (key_id, kek_id) = (key.id().to_string(), kek.kek_id());
        move |source| Error::KeyUnwrap {
            key_id,
            kek_id,
            source,
        }
    };
    let kek = keks.first().ok_or(crate::KeySourceError::Missing)?;
    let wrapped = kek.wrap(&context, &key).map_err(failed(kek))?;
    execute(
        conn,
        &Statement::<InsertKey>::new(&[
            Bind::Bytes(key.id().as_bytes()),
            Bind::Text(SCOPE),
            Bind::Text(PURPOSE),
            Bind::I64(now_us()),
        ]),
    )
    .map_err(Error::store("creating the first data key"))?;
    execute(
        conn,
        &Statement::<InsertWrap>::new(&[
            Bind::Bytes(key.id().as_bytes()),
            Bind::Text(kek.id().as_str()),
            Bind::Bytes(&wrapped),
        ]),
    )
    .map_err(Error::store("storing the wrapped data key"))?;
    Ok(())
}

fn read_keys<C: LogConnection>(conn: &mut C) -> QueryResult<Vec<KeyRow>> {
    load(conn, Statement::<SelectKeys>::new(&[]), |row| {
        Ok(KeyRow {
            id: C::Backend::read_bytes(row, 0)?.ok_or_else(|| malformed("a key id"))?,
            scope: C::Backend::read_text(row, 1)?.ok_or_else(|| malformed("a key scope"))?,
            purpose: C::Backend::read_text(row, 2)?.ok_or_else(|| malformed("a key purpose"))?,
            version: C::Backend::read_i64(row, 3)?,
            state: C::Backend::read_text(row, 4)?.ok_or_else(|| malformed("a key state"))?,
        })
    })
}

fn read_wraps<C: LogConnection>(conn: &mut C) -> QueryResult<Vec<WrapRow>> {
    load(conn, Statement::<SelectWraps>::new(&[]), |row| {
        Ok(WrapRow {
            key_id: C::Backend::read_bytes(row, 0)?.ok_or_else(|| malformed("a key id"))?,
            kek_id: C::Backend::read_text(row, 1)?
                .ok_or_else(|| malformed("a key-encryption key id"))?,
            wrapped: C::Backend::read_bytes(row, 2)?.ok_or_else(|| malformed("a wrapped key"))?,
        })
    })
}

/// The id of a key as its row has it, which may be of any length.
fn hex(id: &[u8]) -> String {
    let digits = id.iter().take(NAME_SHOWN_MAX);
    short_name(&digits.map(|byte| format!("{byte:02x}")).collect::<String>())
}
