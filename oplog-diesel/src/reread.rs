//! Rows that are read again because triggers may have changed them after they were written.
//!
//! What a statement did to a row is known from the row before and after it. With triggers at work,
//! a row may change between two statements on it, or after the last one. So where the log of this
//! transaction and the database differ about a row, a message is put in between that leads from one
//! to the other: before a statement's own message, and at the close for every row.
//!
//! What the log says about a row is read from the messages that wait for the close. Only the keys
//! and places of those are kept beside them, and the rows that are watched.

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::query_dsl::methods::LoadQuery;
use diesel::query_source::QuerySource;
use diesel::result::Error as DieselError;
use oplog_core::{Aggregate, Message, Op, RowValues, TypeDef, Value};

use crate::backend::LogBackend;
use crate::bind::Bindable;
use crate::by_key::{self, key_of};
use crate::connection::LogConnection;
use crate::dml::{Before, ByKeys, Locking, One};
use crate::record::{key_bytes, only_row_or_none};
use crate::replay::AnyRow;
use crate::tx::{Progress, Tx};
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
    pub fn record(
        &mut self,
        def: &'static TypeDef,
        aggregate: Aggregate,
        message: &Message,
    ) -> Result<(), Error> {
        self.catch_up(message)?;
        self.append(def, aggregate, message)
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
            self.append(def, aggregate, &message)?;
        }
        Ok(())
    }

    fn append(
        &mut self,
        def: &'static TypeDef,
        aggregate: Aggregate,
        message: &Message,
    ) -> Result<(), Error> {
        if !self.rereads.is_on {
            return Ok(self.recorder.record(def, aggregate, message)?);
        }
        self.build_index()?;
        let index = self.recorder.message_count(&aggregate);
        self.recorder.record(def, aggregate.clone(), message)?;
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

    pub fn def(&self, message: &Message) -> Result<&'static TypeDef, Error> {
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
                self.remember(conn, &error);
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
                        Op::Update => {
                            let def = self.def(&message)?;
                            self.append(def, aggregate, &message)?;
                        }
                        Op::Delete => deletes.push((rank, aggregate, message)),
                        _ => creates.push((rank, aggregate, message)),
                    }
                }
            }
        }
        deletes.sort_by_key(|(rank, ..)| std::cmp::Reverse(*rank));
        creates.sort_by_key(|(rank, ..)| *rank);
        for (_, aggregate, message) in deletes.into_iter().chain(creates) {
            let def = self.def(&message)?;
            self.append(def, aggregate, &message)?;
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
            .map_err(|error| self.failed(conn, "reading the written rows again", error))?;
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
    pub fn failed<C: LogConnection>(
        &mut self,
        conn: &mut C,
        operation: &'static str,
        error: DieselError,
    ) -> Error {
        self.remember(conn, &error);
        Error::store(operation)(error)
    }

    /// Keeps in mind what the error of any statement says about the transaction.
    pub fn remember<C: LogConnection>(&mut self, conn: &mut C, error: &DieselError) {
        if let Some(retry) = Retry::of(error) {
            self.retry = Some(retry);
        }
        if C::Backend::has_vanished(conn) {
            self.recorder.vanished();
        }
    }
}

impl<C: LogConnection> Tx<'_, C> {
    /// Notes a row that triggers may change in this transaction though no statement of it does, such
    /// as a total: it is read and locked, and what has become of it by the close is logged. Gives the
    /// row as it is.
    ///
    /// The row is found by the model's primary key alone. Rows that the transaction itself writes
    /// need no watching if the model whose triggers fire declares `triggers = "reread"`.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] with [`NotFound`](diesel::result::Error::NotFound) if there is no such
    /// row, or if the statement fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::{*, Posting as _, postings as _};
    /// # let (mut conn, oplog, alice) = open_with_alice();
    /// # diesel::table! {
    /// #     postings (id) { id -> BigInt, account_id -> BigInt, amount -> BigInt }
    /// # }
    /// # #[derive(Queryable, Oplogged)]
    /// # #[diesel(table_name = postings)]
    /// # #[oplog(type_name = "posting", aggregate = "account", root = account_id, triggers = "reread")]
    /// # struct Posting { #[oplog(tag = 1)] id: i64, #[oplog(tag = 2)] account_id: i64, #[oplog(tag = 3)] amount: i64 }
    /// diesel::sql_query(
    ///     "CREATE TRIGGER balance AFTER INSERT ON postings BEGIN
    ///          UPDATE accounts SET balance = balance + NEW.amount WHERE id = NEW.account_id;
    ///      END",
    /// )
    /// .execute(&mut conn)?;
    /// oplog.transaction(&mut conn, |tx| {
    ///     tx.watch(&alice)?;
    ///     tx.logged_insert::<Posting, _>((postings::account_id.eq(alice.id), postings::amount.eq(7)))
    /// })?;
    /// oplog.replay(&mut conn).into_suffix("_replay")?;
    /// # diesel::table! {
    /// #     accounts_replay (id) { id -> BigInt, balance -> BigInt }
    /// # }
    /// assert_eq!(accounts_replay::table.select(accounts_replay::balance).first(&mut conn), Ok(7_i64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<'q, 'm, M>(&mut self, model: &'m M) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
        Before<M, ByKeys<One<'m, M>>>: LoadQuery<'q, C, M>,
    {
        let row: Before<M, ByKeys<One<'m, M>>> = Locking {
            from: M::Table::default().from_clause(),
            filter: ByKeys(std::slice::from_ref(model)),
            columns: M::columns(),
        };
        let row = only_row_or_none(self.load(row)?)?;
        self.progress.watch(&row)?;
        Ok(row)
    }

    /// A statement on rows of `M` is about to be sent.
    pub(crate) fn writing<M: Oplogged>(&mut self) {
        let Progress {
            recorder, rereads, ..
        } = &mut *self.progress;
        rereads.writing(M::TRIGGERS, recorder.is_empty());
    }

    /// As [`writing`](Self::writing), if the rows will not be read again at once.
    pub(crate) fn deleting<M: Oplogged>(&mut self) {
        self.writing::<M>();
        self.progress.rereads.expire();
    }

    /// Puts rows as they are stored in the place of what a statement returned, if triggers may have
    /// changed them since. Gives the indexes of those that are not there any more.
    pub(crate) fn read_again<M>(&mut self, rows: &mut [M]) -> Result<HashSet<usize>, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        let mut gone = HashSet::new();
        if M::TRIGGERS != Triggers::Reread {
            return Ok(gone);
        }
        let keys: Vec<&dyn AnyRow<C::Backend>> = rows.iter().map(|row| row as _).collect();
        let stored = M::table()
            .and_then(|table| {
                by_key::select(self.conn, M::DEF, &table, &keys, |row| {
                    <M as Bindable<C::Backend>>::read(row)
                })
            })
            .map_err(|error| {
                self.progress
                    .failed(self.conn, "reading written rows again", error)
            })?;
        let mut stored: HashMap<Vec<u8>, M> = stored
            .into_iter()
            .map(|row| (key_bytes(&row), row))
            .collect();
        for (at, row) in rows.iter_mut().enumerate() {
            match stored.remove(&key_bytes(row)) {
                Some(stored) => *row = stored,
                None => {
                    gone.insert(at);
                }
            }
        }
        Ok(gone)
    }

    /// Logs what a statement for several rows did to each, without those that a trigger deleted.
    pub(crate) fn record_items<M: Oplogged>(
        &mut self,
        rows: &[M],
        gone: &HashSet<usize>,
        message: impl Fn(&M) -> Message,
    ) -> Result<(), Error> {
        let rows = || rows.iter().enumerate().filter(|(at, _)| !gone.contains(at));
        // First, so that the messages of one statement stand together: a replay checks constraints
        // after the last of them.
        if self.progress.rereads.is_on {
            for (_, row) in rows() {
                self.progress.catch_up(&message(row))?;
            }
        }
        for (_, row) in rows() {
            self.record(row, &message(row))?;
        }
        Ok(())
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
