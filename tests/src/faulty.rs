//! A connection that counts what is sent to the database and lets one statement of it fail.
//!
//! Every way to the database goes through three methods of Diesel's connection traits, so that a
//! count over them leaves out no statement, whoever sends it: the user's, the log's own, and those
//! that open, close and nest transactions.

use std::num::NonZeroU32;
use std::panic::resume_unwind;

use diesel::backend::Backend;
use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, ConnectionSealed, Instrumentation,
    LoadConnection, SimpleConnection, TransactionManager,
};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::{ConnectionResult, QueryResult};
use oplog_diesel::{Connect, LogConnection};

/// A connection of which one statement fails.
pub struct Faulty<C> {
    conn: C,
    sent: Vec<String>,
    plan: Option<Plan>,
    struck: Option<Struck>,
    before: Option<Hook>,
    dead: bool,
}

/// The statement that failed as planned.
#[derive(Clone, Debug)]
pub struct Struck {
    /// Its text.
    pub sql: String,
    /// Whether it was a transaction by itself.
    pub is_alone: bool,
}

/// A connection that can be wrapped.
pub trait Inner: LogConnection<Backend: Default + Backend<QueryBuilder: Default>> {}

impl<C: LogConnection<Backend: Default + Backend<QueryBuilder: Default>>> Inner for C {}

/// Is told of each statement: its number, from 1, and its text.
pub type Hook = Box<dyn FnMut(usize, &str) + Send>;

/// What happens to one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not sent, and reported as failed.
    Instead(Failure),
    /// It is executed, and reported as failed.
    After(Failure),
    /// It is not sent, and the one that comes next, which takes back, is not either.
    InsteadAndNext(Failure),
    /// It fails, and the database takes back the whole transaction by itself, as only SQLite does.
    Vanish,
    /// It is not sent, and the connection panics.
    PanicInstead,
    /// It is executed, and the connection panics.
    PanicAfter,
}

/// How a statement fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// With an error that says nothing: out of memory, disk full, no permission, a time-out.
    Unknown,
    /// With a constraint.
    Constraint,
    /// The database could not serialise.
    Serialization,
    /// The database broke a deadlock.
    Deadlock,
    /// SQLite is busy.
    Busy,
    /// The connection is gone, and so it stays.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    at: usize,
    fault: Fault,
}

/// What a panic of a [`Faulty`] carries.
#[derive(Debug)]
pub struct Planned;

/// A roll-back that is a statement like any other.
struct Rollback;

impl<DB: Backend> QueryFragment<DB> for Rollback {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql("ROLLBACK");
        Ok(())
    }
}

impl QueryId for Rollback {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// What is left to do once a statement was executed.
enum Rest {
    Nothing,
    Fail(Failure),
    Panic,
}

impl Fault {
    /// How the statement is reported as failed, unless by a panic.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Fault::Instead(failure) | Fault::After(failure) | Fault::InsteadAndNext(failure) => {
                Some(failure)
            }
            Fault::Vanish => Some(Failure::Unknown),
            Fault::PanicInstead | Fault::PanicAfter => None,
        }
    }
}

impl Failure {
    /// Whether a transaction that fails so is made again.
    pub fn is_retried(self) -> bool {
        matches!(
            self,
            Failure::Serialization | Failure::Deadlock | Failure::Busy
        )
    }

    fn error(self) -> Error {
        use DatabaseErrorKind as Kind;
        let (kind, text) = match self {
            Failure::Unknown => (Kind::Unknown, "a planned failure"),
            Failure::Constraint => (Kind::CheckViolation, "a planned violation"),
            Failure::Serialization => (Kind::SerializationFailure, "could not serialize access"),
            Failure::Deadlock => (Kind::Unknown, "deadlock detected"),
            Failure::Busy => (Kind::Unknown, "database is locked"),
            Failure::Closed => (Kind::ClosedConnection, "connection is closed"),
        };
        Error::DatabaseError(kind, Box::new(text.to_owned()))
    }
}

impl<C: Inner> Faulty<C> {
    /// A connection on which nothing fails yet.
    pub fn new(conn: C) -> Self {
        Faulty {
            conn,
            sent: Vec::new(),
            plan: None,
            struck: None,
            before: None,
            dead: false,
        }
    }

    /// Counts from 1 again, and lets the statement of this number fail, if there is one and it can fail
    /// like that.
    ///
    /// A database that answers a BEGIN, a COMMIT or the like with an error has not done it, nor a
    /// statement that is a transaction of its own. Only one that does not answer at all may have.
    pub fn plan(&mut self, at: usize, fault: Fault) {
        self.sent.clear();
        self.struck = None;
        self.plan = Some(Plan { at, fault });
    }

    /// Counts from 1 again. Nothing fails any more, unless the connection is closed.
    pub fn heal(&mut self) {
        self.sent.clear();
        self.struck = None;
        self.plan = None;
    }

    /// Is called before a statement is sent.
    pub fn before(&mut self, hook: impl FnMut(usize, &str) + Send + 'static) {
        self.before = Some(Box::new(hook));
    }

    /// The texts of the statements that arrived since the count began.
    pub fn sent(&self) -> &[String] {
        &self.sent
    }

    /// The statement that failed as planned, since the count began.
    pub fn struck(&self) -> Option<&Struck> {
        self.struck.as_ref()
    }

    /// The connection itself, past all plans.
    pub fn inner(&mut self) -> &mut C {
        &mut self.conn
    }

    /// Whether Diesel would not let a pool hand the connection out again.
    pub fn is_broken(&mut self) -> bool {
        AnsiTransactionManager::is_broken_transaction_manager(&mut self.conn)
    }

    fn text<T: QueryFragment<C::Backend>>(source: &T) -> String {
        let mut builder = <C::Backend as Backend>::QueryBuilder::default();
        match source.to_sql(&mut builder, &C::Backend::default()) {
            Ok(()) => builder.finish(),
            // It can't be built, and so will not be sent; the connection says why.
            Err(error) => format!("({error})"),
        }
    }

    /// A statement arrives: it fails here, or tells what is to happen once it was executed.
    fn arrive(&mut self, text: String) -> QueryResult<Rest> {
        if self.dead {
            return Err(Failure::Closed.error());
        }
        self.sent.push(text.clone());
        let number = self.sent.len();
        if let Some(hook) = &mut self.before {
            hook(number, &text);
        }
        let Some(Plan { at, fault }) = self.plan else {
            return Ok(Rest::Nothing);
        };
        let follows = matches!(fault, Fault::InsteadAndNext(_)) && number == at + 1;
        if number != at && !follows {
            return Ok(Rest::Nothing);
        }
        let starts = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
        let is_alone = !starts(&["BEGIN"]) && self.depth().is_none();
        let is_control = starts(&["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"]);
        let answers = !matches!(fault, Fault::After(Failure::Closed));
        if matches!(fault, Fault::After(_)) && answers && (is_alone || is_control) {
            return Ok(Rest::Nothing);
        }
        if number == at {
            self.struck = Some(Struck {
                sql: text,
                is_alone,
            });
        }
        match fault {
            Fault::Instead(failure) | Fault::InsteadAndNext(failure) => Err(self.fail(failure)),
            Fault::Vanish => {
                // Past Diesel, which is not told either.
                self.conn.execute_returning_count(&Rollback)?;
                Err(self.fail(Failure::Unknown))
            }
            Fault::PanicInstead => resume_unwind(Box::new(Planned)),
            Fault::After(failure) => Ok(Rest::Fail(failure)),
            Fault::PanicAfter => Ok(Rest::Panic),
        }
    }

    fn depth(&mut self) -> Option<NonZeroU32> {
        let status = AnsiTransactionManager::transaction_manager_status_mut(&mut self.conn);
        status.transaction_depth().ok().flatten()
    }

    fn leave(&mut self, rest: Rest) -> QueryResult<()> {
        match rest {
            Rest::Nothing => Ok(()),
            Rest::Fail(failure) => Err(self.fail(failure)),
            Rest::Panic => resume_unwind(Box::new(Planned)),
        }
    }

    /// The error, and what Diesel makes of a connection that is lost.
    fn fail(&mut self, failure: Failure) -> Error {
        if failure == Failure::Closed {
            self.dead = true;
            AnsiTransactionManager::transaction_manager_status_mut(&mut self.conn).set_in_error();
        }
        failure.error()
    }
}

impl<C: Inner> Connect for Faulty<C>
where
    Faulty<C>: LogConnection,
{
    type Connection = Self;
    fn connection(&mut self) -> &mut Self {
        self
    }
}

impl<C: Inner> SimpleConnection for Faulty<C> {
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        let rest = self.arrive(query.to_owned())?;
        let result = self.conn.batch_execute(query);
        self.leave(rest)?;
        result
    }
}

impl<C> ConnectionSealed for Faulty<C> {}

impl<C: Inner> Connection for Faulty<C> {
    type Backend = C::Backend;
    type TransactionManager = AnsiTransactionManager;

    fn establish(url: &str) -> ConnectionResult<Self> {
        C::establish(url).map(Faulty::new)
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Self::Backend> + QueryId,
    {
        let rest = self.arrive(Self::text(source))?;
        let result = self.conn.execute_returning_count(source);
        self.leave(rest)?;
        result
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        self.conn.transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.conn.instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.conn.set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.conn.set_prepared_statement_cache_size(size);
    }
}

impl<C: Inner> LoadConnection for Faulty<C> {
    type Cursor<'conn, 'query> = C::Cursor<'conn, 'query>;
    type Row<'conn, 'query> = C::Row<'conn, 'query>;

    /// A statement that fails afterwards is executed to its end here, since SQLite does it row by row.
    fn load<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
        Self::Backend: QueryMetadata<T::SqlType>,
    {
        let rest = self.arrive(Self::text(&source))?;
        if matches!(rest, Rest::Nothing) {
            return LoadConnection::load(&mut self.conn, source);
        }
        LoadConnection::load(&mut self.conn, source)?.try_for_each(|row| row.map(drop))?;
        self.leave(rest)?;
        unreachable!("what is left to do is to fail")
    }
}
