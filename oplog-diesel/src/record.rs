//! What statements did to rows, as messages.

use std::collections::{HashMap, HashSet};

use diesel::result::Error as DieselError;
use oplog_core::{LogRow, Message};

use crate::bind::Bindable;
use crate::by_key::{key_columns, key_of};
use crate::cascade::Below;
use crate::connection::LogConnection;
use crate::{Error, Oplogged, Tx};

impl<C: LogConnection> Tx<'_, C> {
    /// Logs what an insert of one row returned.
    pub(crate) fn record_insert<M>(&mut self, mut rows: Vec<M>) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        let gone = self.read_again(&mut rows)?;
        let row = only_row(rows)?;
        if gone.is_empty() {
            self.record(&row, &Message::create(&row))?;
        }
        Ok(row)
    }

    /// Logs what an update of one row returned.
    pub(crate) fn record_update<M>(
        &mut self,
        below: Option<Below<C::Backend>>,
        before: &M,
        mut rows: Vec<M>,
    ) -> Result<M, Error>
    where
        M: Oplogged + Bindable<C::Backend>,
    {
        let gone = self.read_again(&mut rows)?;
        let after = only_row(rows)?;
        match gone.is_empty() {
            true => self.record_change_with(below, before, &after)?,
            false => self.record(before, &Message::delete(before))?,
        }
        Ok(after)
    }

    /// Logs what a delete by primary key returned: one row or none.
    pub(crate) fn record_delete<M: Oplogged>(
        &mut self,
        mut rows: Vec<M>,
    ) -> Result<Option<M>, Error> {
        if rows.len() > 1 {
            return Err(Error::RowCount {
                expected: 1,
                found: rows.len(),
            });
        }
        for row in &rows {
            self.record(row, &Message::delete(row))?;
        }
        Ok(rows.pop())
    }

    pub(crate) fn record<M: Oplogged>(&mut self, row: &M, message: &Message) -> Result<(), Error> {
        self.progress.record(M::DEF, row.aggregate(), message)
    }

    pub(crate) fn record_change<M: Oplogged>(
        &mut self,
        before: &M,
        after: &M,
    ) -> Result<(), Error> {
        let (was_in, is_in) = (before.aggregate(), after.aggregate());
        if was_in != is_in || !is_same_row(before, after) {
            let progress = &mut *self.progress;
            progress.record(M::DEF, was_in, &Message::delete(before))?;
            return progress.record(M::DEF, is_in, &Message::create(after));
        }
        match Message::update(before, after) {
            Some(message) => self.progress.record(M::DEF, is_in, &message),
            None => Ok(()),
        }
    }

    /// Logs what one statement did to several rows, which are matched by their keys, without those
    /// that a trigger deleted.
    ///
    /// If it changed keys, nobody can tell which row became which, and a replay that moved them one
    /// by one would run into rows that have not moved yet. Then all changed rows are deletes first
    /// and creates afterwards: the same rows in the end.
    pub(crate) fn record_changes<M: Oplogged>(
        &mut self,
        before: &[M],
        after: &[M],
        gone: &HashSet<usize>,
    ) -> Result<(), Error> {
        let mut pairs = before.iter().zip(after);
        if gone.is_empty()
            && before.len() == after.len()
            && pairs
                .clone()
                .all(|(before, after)| is_same_row(before, after))
        {
            return pairs.try_for_each(|(before, after)| self.record_change(before, after));
        }
        let old: HashMap<Vec<u8>, &M> = before.iter().map(|row| (key_bytes(row), row)).collect();
        let mut stored = HashSet::new();
        let mut matched: Vec<(Option<&M>, &M)> = Vec::with_capacity(after.len());
        for (at, row) in after.iter().enumerate() {
            if !gone.contains(&at) {
                let key = key_bytes(row);
                matched.push((old.get(&key).copied(), row));
                stored.insert(key);
            }
        }
        if matched.iter().all(|(before, _)| before.is_some()) {
            for row in before
                .iter()
                .filter(|row| !stored.contains(&key_bytes(*row)))
            {
                self.record(row, &Message::delete(row))?;
            }
            return matched
                .into_iter()
                .filter_map(|(before, after)| Some((before?, after)))
                .try_for_each(|(before, after)| self.record_change(before, after));
        }
        let same = |before: &M, after: &M| Message::update(before, after).is_none();
        let kept: HashSet<Vec<u8>> = matched
            .iter()
            .filter(|(before, after)| before.is_some_and(|before| same(before, after)))
            .map(|(_, after)| key_bytes(*after))
            .collect();
        let moved = |row: &&M| !kept.contains(&key_bytes(*row));
        for row in before.iter().filter(moved) {
            self.record(row, &Message::delete(row))?;
        }
        for row in matched.iter().map(|(_, row)| *row).filter(moved) {
            self.record(row, &Message::create(row))?;
        }
        Ok(())
    }
}

/// Whether two rows have the same primary key.
pub(crate) fn is_same_row<M: LogRow>(one: &M, other: &M) -> bool {
    key_columns(M::DEF).all(|index| one.value(index) == other.value(index))
}

/// The primary key of a row, in the bytes it has in the log.
pub(crate) fn key_bytes<M: LogRow>(row: &M) -> Vec<u8> {
    key_of(M::DEF, |index| row.value(index))
}

pub(crate) fn only_row_or_none<M>(mut rows: Vec<M>) -> Result<M, Error> {
    let found = rows.len();
    match rows.pop() {
        None => Err(Error::Database(DieselError::NotFound)),
        Some(row) if found == 1 => Ok(row),
        Some(_) => Err(Error::RowCount { expected: 1, found }),
    }
}

pub(crate) fn only_row<M>(mut rows: Vec<M>) -> Result<M, Error> {
    let found = rows.len();
    match rows.pop() {
        Some(row) if found == 1 => Ok(row),
        _ => Err(Error::RowCount { expected: 1, found }),
    }
}
