//! The rows for the transactions, made outside the measured time.

use crate::model::Member;
use crate::variant::{Operation, Result, Teams};

/// Transactions of updates until the same rows come again.
const UPDATE_POOL: usize = 32;
/// Rows that are in aggregates of their own have those with numbers from here on.
const NEW_TEAMS: i64 = 1_000_000;

pub struct Feed {
    operation: Operation,
    rows: usize,
    teams: Teams,
    team: i64,
    next_id: i64,
    age: i32,
    /// Rows that are stored, for a transaction each.
    pool: Vec<Vec<Member>>,
    at: usize,
    current: Vec<Member>,
}

impl Feed {
    /// Rows with ids from `first_id` on.
    pub fn new(operation: Operation, rows: usize, teams: Teams, team: i64, first_id: i64) -> Self {
        Feed {
            operation,
            rows,
            teams,
            team,
            next_id: first_id,
            age: 1_000,
            pool: Vec::new(),
            at: 0,
            current: Vec::new(),
        }
    }

    /// Rows that must be stored before `transactions` can run.
    pub fn refill(&mut self, transactions: usize) -> Vec<Member> {
        let wanted = match self.operation {
            Operation::Insert => 0,
            Operation::Update => UPDATE_POOL,
            Operation::Delete => transactions,
        };
        let missing = wanted.saturating_sub(self.pool.len());
        let batches: Vec<Vec<Member>> = (0..missing).map(|_| self.make()).collect();
        let rows = batches.concat();
        self.pool.extend(batches);
        rows
    }

    /// The rows of the next transaction and an age that none of them has.
    pub fn next(&mut self) -> Result<(&[Member], i32)> {
        self.age += 1;
        match self.operation {
            Operation::Insert => self.current = self.make(),
            Operation::Update => self.at = (self.at + 1) % self.pool.len().max(1),
            Operation::Delete => self.current = self.pool.pop().unwrap_or_default(),
        }
        let last = self.last();
        if last.0.is_empty() {
            return Err("there are no rows to write".into());
        }
        Ok(last)
    }

    /// The rows of the last transaction are as it left them.
    pub fn wrote(&mut self) {
        if self.operation == Operation::Update
            && let Some(rows) = self.pool.get_mut(self.at)
        {
            rows.iter_mut().for_each(|row| row.age = self.age);
        }
    }

    /// The same again.
    pub fn last(&self) -> (&[Member], i32) {
        let rows = match self.operation {
            Operation::Insert | Operation::Delete => &self.current,
            Operation::Update => self.pool.get(self.at).unwrap_or(&self.current),
        };
        (rows, self.age)
    }

    fn make(&mut self) -> Vec<Member> {
        let first = self.next_id;
        self.next_id += self.rows as i64;
        let team = match self.teams {
            Teams::One => self.team,
            Teams::New => NEW_TEAMS + first,
        };
        (first..self.next_id)
            .map(|id| Member::new(id, team))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn ids(rows: &[Member]) -> Vec<i64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn inserts_are_of_new_rows_in_one_team() {
        let mut feed = Feed::new(Operation::Insert, 2, Teams::One, 7, 1);
        assert!(feed.refill(100).is_empty());
        assert_eq!(ids(feed.next().unwrap().0), [1, 2]);
        let (rows, _) = feed.next().unwrap();
        assert_eq!(ids(rows), [3, 4]);
        assert!(rows.iter().all(|row| row.team_id == 7));
    }

    #[test]
    fn new_teams_are_new_for_each_transaction() {
        let mut feed = Feed::new(Operation::Insert, 1, Teams::New, 7, 1);
        let first = feed.next().unwrap().0[0].team_id;
        let second = feed.next().unwrap().0[0].team_id;
        assert!(first != second && first != 7 && second != 7);
    }

    #[test]
    fn updates_change_stored_rows_and_change_them_each_time() {
        let mut feed = Feed::new(Operation::Update, 3, Teams::One, 1, 1);
        let stored = feed.refill(5);
        assert_eq!(stored.len(), 3 * UPDATE_POOL);
        let mut ages = Vec::new();
        for _ in 0..2 * UPDATE_POOL {
            let (rows, age) = feed.next().unwrap();
            assert!(
                rows.iter()
                    .all(|row| stored.iter().any(|other| other.id == row.id) && row.age != age)
            );
            ages.push(age);
            feed.wrote();
            assert!(feed.last().0.iter().all(|row| row.age == age));
        }
        let all = ages.len();
        ages.dedup();
        assert_eq!(ages.len(), all);
        assert!(feed.refill(5).is_empty());
    }

    #[test]
    fn no_row_is_deleted_twice() {
        let mut feed = Feed::new(Operation::Delete, 2, Teams::One, 1, 1);
        let stored = ids(&feed.refill(3));
        let mut deleted: Vec<i64> = (0..3).flat_map(|_| ids(feed.next().unwrap().0)).collect();
        deleted.sort_unstable();
        assert_eq!(deleted, stored);
        assert!(feed.next().is_err());
        assert!(!stored.contains(&feed.refill(1)[0].id));
    }
}
