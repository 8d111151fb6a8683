// What the examples of the documentation have in common. They include it, hidden, as a module:
//
//     # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//     # let (mut conn, oplog) = open();

pub use diesel::prelude::*;
pub use oplog_diesel::prelude::*;

diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Text,
        balance -> BigInt,
        email -> Nullable<Text>,
    }
}

diesel::table! {
    postings (id) {
        id -> BigInt,
        account_id -> BigInt,
        amount -> BigInt,
    }
}

#[derive(Queryable, Selectable, Identifiable, Oplogged, Clone, PartialEq, Debug)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", root = id)]
pub struct Account {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub owner: String,
    #[oplog(tag = 3)]
    pub balance: i64,
    #[oplog(tag = 4)]
    pub email: Option<String>,
}

#[derive(Insertable)]
#[diesel(table_name = accounts)]
pub struct NewAccount<'a> {
    pub owner: &'a str,
}

#[derive(AsChangeset, Default)]
#[diesel(table_name = accounts)]
pub struct AccountChange<'a> {
    pub owner: Option<&'a str>,
    pub email: Option<Option<&'a str>>,
}

// In the aggregate of its account.
#[derive(Queryable, Selectable, Identifiable, Oplogged, Clone, PartialEq, Debug)]
#[diesel(table_name = postings)]
#[oplog(type_name = "posting", aggregate = "account", root = account_id)]
pub struct Posting {
    #[oplog(tag = 1)]
    pub id: i64,
    #[oplog(tag = 2)]
    pub account_id: i64,
    #[oplog(tag = 3)]
    pub amount: i64,
}

/// A key that is forgotten with the database, so that no example leaves a file behind.
pub struct NewKey;

impl oplog_diesel::KeySource for NewKey {
    fn keys(&self) -> Result<Vec<oplog_diesel::Kek>, oplog_diesel::KeySourceError> {
        Ok(vec![oplog_diesel::Kek::generate()?])
    }
}

/// A database in memory with the application's tables, and nothing of the log's.
pub fn connect() -> SqliteConnection {
    use diesel::connection::SimpleConnection;
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    conn.batch_execute(
        "CREATE TABLE accounts (
             id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance BIGINT NOT NULL DEFAULT 0, email TEXT
         );
         CREATE TABLE postings (
             id INTEGER PRIMARY KEY, account_id BIGINT NOT NULL REFERENCES accounts (id), amount BIGINT NOT NULL
         );",
    )
    .unwrap();
    conn
}

/// The same with an open log.
pub fn open() -> (SqliteConnection, Oplog) {
    let mut conn = connect();
    oplog_diesel::run_migrations(&mut conn).unwrap();
    // Not the linked ones: all examples are linked into one program, each with these models.
    let models = Oplog::builder().only_named_models().model::<Account>().model::<Posting>();
    let oplog = models.key(NewKey).open(&mut conn).unwrap();
    (conn, oplog)
}

/// The same with an account of Alice's.
pub fn open_with_alice() -> (SqliteConnection, Oplog, Account) {
    let (mut conn, oplog) = open();
    let alice = oplog.transaction(&mut conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }));
    let alice: Result<Account, oplog_diesel::Error> = alice;
    (conn, oplog, alice.unwrap())
}
