//! Rows that are read again because triggers may have changed them after they were written.
//!
//! What a statement did to a row is known from the row before and after it. With triggers at work,
//! a row may change between two statements on it, or after the last one. So where the log of this
//! transaction and the database differ about a row, a message is put in between that leads from one
//! to the other: before a statement's own message, and at the close for every row.
//!
//! What the log says about a row is read from the messages that wait for the close. Only the keys
//! and places of those are kept beside them, and the rows that are watched.

use std::collections::{BTreeMap, HashMap};

use oplog_core::{Aggregate, Message, Op, RowValues, TypeDef, Value};

use crate::backend::LogBackend;
use crate::by_key::{self, key_of};
use crate::connection::LogConnection;
use crate::replay::AnyRow;
use crate::tx::Progress;
use crate::{Error, Oplogged, Retry, Triggers};

/// What a transaction knows about the rows that it wrote.
#[derive(Debug, Default)]
pub(crate) struct Rereads {
    /// Whether a model was written whose table has triggers.
    is_on: bool,
    /// Whether something was written after a row was read again for the last time.
    is_stale: bool,
    /// Where the last message of each row is. Absent if it is to be made from the messages.
    index: Option<HashMap<Key, Place>>,
    next_rank: usize,
    /// Rows that were read because triggers may change them, though no statement does.
    watched: Vec<(Key, Message)>,
}

/// A row: the stored name of its type, and its primary key in the bytes it has in the log.
type Key = (&'static str, Vec<u8>);

/// Where it stands what the log says about a row.
#[derive(Clone, Debug)]
struct Place {
    of: Source,
    /// Rows in the order in which they were written last.
    rank: usize,
}

#[derive(Clone, Debug)]
enum Source {
    /// In a message that waits for the close.
    Message { aggregate: Aggregate, index: usize },
    /// Among the rows that are watched.
    Watched(usize),
}

/// Rows that are read again by one statement at most.
const ROWS_MAX: usize = 256;

impl Rereads {
    /// A statement on rows of a model that declares this is about to be sent.
    pub fn writing(&mut self, triggers: Triggers, is_first: bool) {
        if self.is_on {
            self.is_stale = true;
        } else if triggers == Triggers::Reread {
            self.is_on = true;
            self.is_stale = !is_first;
        }
    }

    /// Rows were written that were not read again.
    pub fn expire(&mut self) {
        self.is_stale = true;
    }

    /// The point to which [`rollback_to`](Self::rollback_to) goes back.
    pub fn mark(&self) -> usize {
        self.watched.len()
    }

    /// Messages were taken back.
    pub fn rollback_to(&mut self, mark: usize) {
        self.watched.truncate(mark);
        self.index = None;
    }
}

impl Progress {
    /// Appends what a statement did to a row. Where triggers may be at work, what they did to the
    /// row before comes first.
    pub fn record(&mut self, aggregate: Aggregate, message: &Message) -> Result<(), Error> {
        self.catch_up(message)?;
        self.append(aggregate, message)
    }

    /// Appends what leads from the last message of a row to the row that a statement found, which
    /// its own message tells.
    pub fn catch_up(&mut self, message: &Message) -> Result<(), Error> {
        if !self.rereads.is_on {
            return Ok(());
        }
        let def = self.def(message)?;
        let found = before(def, message)?;
        let key = self.key(message)?;
        let Some(last) = self.last(&key)? else {
            return Ok(());
        };
        let logged = after(def, &last)?;
        let steps = steps(
            def,
            logged.as_ref().map(|row| move |index| value(row, index)),
            found.as_ref().map(|row| move |index| value(row, index)),
        );
        for (aggregate, message) in steps {
            self.append(aggregate, &message)?;
        }
        Ok(())
    }

    fn append(&mut self, aggregate: Aggregate, message: &Message) -> Result<(), Error> {
        if !self.rereads.is_on {
            return Ok(self.recorder.record(aggregate, message)?);
        }
        self.build_index()?;
        let index = self.recorder.message_count(&aggregate);
        self.recorder.record(aggregate.clone(), message)?;
        self.note(aggregate, index, message)
    }

    fn note(&mut self, aggregate: Aggregate, index: usize, message: &Message) -> Result<(), Error> {
        let key = self.key(message)?;
        self.place(key, Source::Message { aggregate, index });
        Ok(())
    }

    fn place(&mut self, key: Key, of: Source) {
        let rank = self.rereads.next_rank;
        self.rereads.next_rank += 1;
        let places = self.rereads.index.get_or_insert_default();
        places.insert(key, Place { of, rank });
    }

    fn key(&self, message: &Message) -> Result<Key, Error> {
        let def = self.def(message)?;
        let row = message.values(def)?;
        Ok((def.type_name, key_of(def, |index| value(&row, index))))
    }

    /// From now on, what triggers do to this row is logged, though no statement writes it.
    pub fn watch<M: Oplogged>(&mut self, row: &M) -> Result<(), Error> {
        self.rereads.is_on = true;
        self.rereads.is_stale = true;
        self.build_index()?;
        let image = Message::create(row);
        let key = self.key(&image)?;
        let places = self.rereads.index.as_ref();
        if places.is_none_or(|places| !places.contains_key(&key)) {
            self.place(key.clone(), Source::Watched(self.rereads.watched.len()));
            self.rereads.watched.push((key, image));
        }
        Ok(())
    }

    fn build_index(&mut self) -> Result<(), Error> {
        if self.rereads.index.is_some() {
            return Ok(());
        }
        self.rereads.index = Some(HashMap::new());
        for at in 0..self.rereads.watched.len() {
            let (key, _) = &self.rereads.watched[at];
            self.place(key.clone(), Source::Watched(at));
        }
        for (aggregate, index) in self.recorder.places() {
            if let Some(message) = self.recorder.message(&aggregate, index)? {
                self.note(aggregate, index, &message)?;
            }
        }
        Ok(())
    }

    /// The last message of a row, or one that stands for what a watched row was.
    fn last(&mut self, key: &Key) -> Result<Option<Message>, Error> {
        self.build_index()?;
        let places = self.rereads.index.as_ref();
        let place = places.and_then(|places| places.get(key));
        Ok(match place.map(|place| &place.of) {
            Some(Source::Message { aggregate, index }) => {
                self.recorder.message(aggregate, *index)?
            }
            Some(Source::Watched(at)) => {
                let watched = self.rereads.watched.get(*at);
                watched.map(|(_, image)| image.clone())
            }
            None => None,
        })
    }

    fn def(&self, message: &Message) -> Result<&'static TypeDef, Error> {
        Ok(self.oplog.catalog().by_name(&message.type_name)?.def())
    }

    /// Reads every row of the transaction once more, if triggers may have changed any since, and
    /// appends what differs from the log.
    pub fn read_again<C: LogConnection>(&mut self, conn: &mut C) -> Result<(), Error> {
        let is_lost = self.recorder.is_poisoned() || self.retry.is_some();
        if !self.rereads.is_on || is_lost {
            return Ok(());
        }
        if self.oplog.has_deferrable_triggers() {
            // What constraints refuse here, they would refuse at the commit: the application's own
            // error.
            C::Backend::fire_deferred(conn).map_err(|error| {
                self.retry = Retry::of(&error);
                Error::Database(error)
            })?;
        } else if !self.rereads.is_stale {
            return Ok(());
        }
        self.build_index()?;
        let mut keys: BTreeMap<&'static str, Vec<(usize, Key)>> = BTreeMap::new();
        for (key, place) in self.rereads.index.iter().flatten() {
            let keys = keys.entry(key.0).or_default();
            keys.push((place.rank, key.clone()));
        }
        // Updates may let go of rows that are deleted, and creates may refer to others.
        let (mut deletes, mut creates) = (Vec::new(), Vec::new());
        for (type_name, mut keys) in keys {
            keys.sort_unstable();
            for keys in keys.chunks(ROWS_MAX) {
                for (rank, aggregate, message) in self.differences(conn, type_name, keys)? {
                    match message.op {
                        Op::Update => self.append(aggregate, &message)?,
                        Op::Delete => deletes.push((rank, aggregate, message)),
                        _ => creates.push((rank, aggregate, message)),
                    }
                }
            }
        }
        deletes.sort_by_key(|(rank, ..)| std::cmp::Reverse(*rank));
        creates.sort_by_key(|(rank, ..)| *rank);
        for (_, aggregate, message) in deletes.into_iter().chain(creates) {
            self.append(aggregate, &message)?;
        }
        Ok(())
    }

    /// What leads from the log to the stored rows, each with the rank of its row.
    fn differences<C: LogConnection>(
        &mut self,
        conn: &mut C,
        type_name: &'static str,
        keys: &[(usize, Key)],
    ) -> Result<Vec<(usize, Aggregate, Message)>, Error> {
        let model = *self.oplog.catalog().by_name(type_name)?;
        let (def, ops) = (model.def(), C::Backend::ops(&model));
        let mut logged = Vec::with_capacity(keys.len());
        for (rank, key) in keys {
            let Some(last) = self.last(key)? else {
                continue;
            };
            let exists = !matches!(last.op, Op::Delete | Op::DeleteItems);
            let row = ops.decode(&last.values(def)?)?;
            logged.push((*rank, key, row, exists));
        }
        let rows: Vec<&dyn AnyRow<C::Backend>> =
            logged.iter().map(|(_, _, row, _)| &**row).collect();
        let stored = ops
            .table()
            .and_then(|table| by_key::select(conn, def, &table, &rows, |row| ops.read(row)))
            .map_err(|error| self.failed("reading the written rows again", error))?;
        let stored: HashMap<Vec<u8>, _> = stored
            .into_iter()
            .map(|row| (key_of(def, |index| row.value(index)), row))
            .collect();
        let mut differences = Vec::new();
        for (rank, key, row, exists) in &logged {
            let logged = exists.then_some(|index| row.value(index));
            let stored = stored.get(&key.1).map(|row| |index| row.value(index));
            let steps = steps(def, logged, stored);
            differences.extend(
                steps
                    .into_iter()
                    .map(|(aggregate, message)| (*rank, aggregate, message)),
            );
        }
        Ok(differences)
    }

    /// Keeps in mind why one of our own statements failed, whatever the closure makes of the error.
    pub fn failed(&mut self, operation: &'static str, error: diesel::result::Error) -> Error {
        if let Some(retry) = Retry::of(&error) {
            self.retry = Some(retry);
        }
        Error::store(operation)(error)
    }
}

/// The messages that lead from one state of a row to another; `None` where there is no row.
pub(crate) fn steps<'a, 'b>(
    def: &'static TypeDef,
    before: Option<impl Fn(usize) -> Value<'a>>,
    after: Option<impl Fn(usize) -> Value<'b>>,
) -> Vec<(Aggregate, Message)> {
    let delete = |row: &dyn Fn(usize) -> Value<'a>| {
        (
            Aggregate::of_values(def, row),
            Message::of_values(Op::Delete, def, row),
        )
    };
    let create = |row: &dyn Fn(usize) -> Value<'b>| {
        (
            Aggregate::of_values(def, row),
            Message::of_values(Op::Create, def, row),
        )
    };
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![create(&after)],
        (Some(before), None) => vec![delete(&before)],
        (Some(before), Some(after)) => {
            let (from, to) = (delete(&before), create(&after));
            if from.0 != to.0 {
                return vec![from, to];
            }
            let update = Message::update_of_values(def, before, after);
            update.map(|update| (to.0, update)).into_iter().collect()
        }
    }
}

/// The row before what a message says.
fn before<'a>(def: &'static TypeDef, message: &'a Message) -> Result<Option<RowValues<'a>>, Error> {
    let row = message.values(def)?;
    Ok(match message.op {
        Op::Create | Op::CreateItems => None,
        Op::Delete | Op::DeleteItems => Some(row),
        Op::Update => Some(match message.previous_values(def)? {
            Some(previous) => row.overlaid(previous),
            None => row,
        }),
    })
}

/// The row after what a message says.
fn after<'a>(def: &'static TypeDef, message: &'a Message) -> Result<Option<RowValues<'a>>, Error> {
    Ok(match message.op {
        Op::Delete | Op::DeleteItems => None,
        _ => Some(message.values(def)?),
    })
}

fn value<'v>(row: &'v RowValues<'_>, column: usize) -> Value<'v> {
    row.get(column).map_or(Value::Null, Value::reborrow)
}
