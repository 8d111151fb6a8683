//! The operation log for Diesel.
#![forbid(unsafe_code)]
// The impls for tuples of up to 128 columns.
#![recursion_limit = "256"]

mod backend;
mod bind;
mod connection;
mod coverage;
mod dml;
mod entries;
mod error;
mod frontier;
mod key_source;
mod keys;
mod migrations;
mod model;
mod oplog;
mod oplogged;
mod replay;
mod statement;
mod store;
mod transaction;
mod tx;
mod verify;

pub use connection::{Connect, LogConnection};
pub use entries::{Entries, Entry, StoredEntry};
pub use error::{Divergence, EntryError, Error, Retry, TargetError};
pub use frontier::Frontier;
pub use key_source::{KeyEnv, KeyFile, KeySource, KeySourceError};
pub use migrations::run_migrations;
pub use model::{Model, Replayable};
pub use oplog::{Oplog, OplogBuilder};
pub use oplog_core::{
    self as core, Aggregate, Hash, Head, Header, Kek, Kind, LogId, Message, Metadata, Op, OplogValue, Receipt,
    RowValues, TypeDef, Value, ValueError,
};
pub use oplog_derive::{OplogValue, Oplogged};
pub use oplogged::Oplogged;
pub use replay::{Replay, ReplayProgress, ReplayReport};
pub use transaction::TransactionBuilder;
pub use tx::Tx;
pub use verify::{Finding, StructureReport};

/// The models that a log knows, by their stored names and by their Rust types.
pub type TypeCatalog = oplog_core::TypeCatalog<Model>;

/// What most files need: `use oplog_diesel::prelude::*;`.
pub mod prelude {
    pub use crate::{KeyEnv, KeyFile, Oplog, OplogValue, Oplogged};
}

/// Named by generated code only. Nothing in it is covered by any promise.
#[doc(hidden)]
pub mod __private {
    pub use crate::bind::{AsDeclared, AsStandIn, Bindable, NotAtAll, Probe, RawRow};
    pub use crate::coverage::{Covers, CoversAll};
    pub use crate::model::{Linked, Model};
    pub use crate::oplogged::Oplogged;
    pub use crate::replay::{TableName, table_of};
    pub use crate::{bind_columns, submit_model as submit};
    pub use diesel;
    pub use inventory;
    pub use oplog_core::{ColumnDef, Kind, LogRow, OplogValue, RowError, RowValues, TypeDef, Value};

    /// The panic of a column index that no code of ours produces.
    pub fn no_column(column: usize) -> ! {
        panic!("the model has no column with the index {column}")
    }
}
