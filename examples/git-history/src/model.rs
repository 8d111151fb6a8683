//! The table of files and its model: one row for each file of the tree of the last logged commit.

use diesel::prelude::*;
use oplog_diesel::prelude::*;

/// The one aggregate of all files: commits follow each other, and so do their entries.
pub const AGGREGATE: &str = "files";

/// A file as a commit's tree lists it.
#[derive(
    Queryable, Selectable, Identifiable, Insertable, Oplogged, Clone, PartialEq, Eq, Debug,
)]
#[diesel(table_name = files, primary_key(path))]
#[oplog(type_name = "file", aggregate = "files")]
pub struct File {
    /// Path from the root of the tree: bytes, because Git does not ask for UTF-8.
    #[oplog(tag = 1)]
    pub path: Vec<u8>,
    /// Mode as stored in the tree, for example 0o100644; 0o120000 is a symbolic link and 0o160000 a
    /// submodule.
    #[oplog(tag = 2)]
    pub mode: i32,
    /// Id of the content, 20 bytes or 32; of a submodule its commit.
    #[oplog(tag = 3)]
    pub blob_id: Vec<u8>,
    /// Bytes of the content; 0 for a submodule, `None` if the repository does not hold the content.
    #[oplog(tag = 4)]
    pub size: Option<i64>,
}

/// What a commit may change of a file that stays.
#[derive(AsChangeset, Debug)]
#[diesel(table_name = files, treat_none_as_null = true)]
pub struct Content {
    pub mode: i32,
    pub blob_id: Vec<u8>,
    pub size: Option<i64>,
}

impl From<File> for Content {
    fn from(file: File) -> Self {
        Self {
            mode: file.mode,
            blob_id: file.blob_id,
            size: file.size,
        }
    }
}

diesel::table! {
    files (path) {
        path -> Binary,
        mode -> Integer,
        blob_id -> Binary,
        size -> Nullable<BigInt>,
    }
}

diesel::table! {
    // The copy that the whole log is replayed into.
    files_replay (path) {
        path -> Binary,
        mode -> Integer,
        blob_id -> Binary,
        size -> Nullable<BigInt>,
    }
}

diesel::table! {
    // The copy that the log up to one commit is replayed into, for as long as it is compared.
    files_at (path) {
        path -> Binary,
        mode -> Integer,
        blob_id -> Binary,
        size -> Nullable<BigInt>,
    }
}

diesel::table! {
    // What this example looks at in the table of entries, when it counts and tampers.
    oplog_entry (id) {
        id -> BigInt,
        aggregate_name -> Text,
        sequence -> BigInt,
        data -> Binary,
    }
}
