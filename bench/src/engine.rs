//! What differs between databases.

use oplog_diesel::{Connect, LogConnection};

use crate::model::Member;
use crate::variant::{Operation, Result, Variant};

/// How safe a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitMode {
    /// In results and labels.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// Makes it so for a connection.
    pub sql: &'static str,
    /// Whether a commit waits for the disk.
    pub waits: bool,
}

pub trait Engine: Sync {
    type Conn: Connect<Connection = Self::Conn> + LogConnection + Send;
    /// A place of its own for the tables of one variant. It is removed when it is dropped.
    type Place;

    /// In results and labels.
    const NAME: &'static str;
    /// For people.
    const TITLE: &'static str;
    const COMMIT_MODES: &'static [CommitMode];
    /// The application's table, and those of the original.
    const TABLES: &'static str;
    /// A trigger that keeps a JSON image of each row that is written.
    const TRIGGER: &'static str;
    /// Makes commits of a connection quick and unsafe, for what is not measured.
    const CARELESS: &'static str;

    /// The server and its settings, as far as they matter for the numbers: a line each.
    fn about(&self) -> Result<Vec<String>>;
    fn place(&self) -> Result<Self::Place>;
    fn connect(&self, place: &Self::Place) -> Result<Self::Conn>;
    /// Process of the server that works for a connection, if it is one on this machine.
    fn server_process(&self, conn: &mut Self::Conn) -> Result<Option<i32>>;

    fn count(conn: &mut Self::Conn, sql: &str) -> Result<i64>;
    /// Inserts rows without a log.
    fn fill(conn: &mut Self::Conn, rows: &[Member]) -> Result<()>;

    fn alone(operation: Operation, rows: usize) -> Vec<Variant<Self::Conn>>;
    fn together() -> Vec<Variant<Self::Conn>>;
}
