//! An operation log for [Diesel](diesel): every write also leaves an encrypted, ordered and
//! tamper-evident entry, in the same transaction, and from the log the rows can be rebuilt.
//!
//! - [How it works](#how-it-works)
//! - [Setting up](#setting-up)
//! - Recipes for writing: [write](#write),
//!   [count on what you read](#count-on-what-you-read),
//!   [choose how tickets are locked](#choose-how-tickets-are-locked),
//!   [write single rows](#write-single-rows), [say who and why](#say-who-and-why),
//!   [lend the connection](#lend-the-connection),
//!   [inside a transaction of yours](#inside-a-transaction-of-yours),
//!   [connections from a pool](#connections-from-a-pool), [tests](#tests)
//! - Recipes for reading: [read the log](#read-the-log), [check it](#check-it),
//!   [rebuild the tables](#rebuild-the-tables)
//! - Recipes for models: [several models in one aggregate](#several-models-in-one-aggregate),
//!   [a part of a table](#a-part-of-a-table), [newtypes and enums](#newtypes-and-enums),
//!   [change a model](#change-a-model)
//! - [What triggers and cascades need](#what-triggers-and-cascades-need)
//! - [Keep the key](#keep-the-key)
//! - [Crate features](#crate-features)
//! - [Reading compile errors](#reading-compile-errors)
//! - [Which values survive where](#which-values-survive-where)
//! - [When something goes wrong](#when-something-goes-wrong)
//! - [Questions and answers](#questions-and-answers)
//!
//! # How it works
//!
//! A **model** is a Diesel struct with [`#[derive(Oplogged)]`](derive@Oplogged). Every row of it
//! belongs to one **aggregate**, a name like `settings` or `account:42` that follows from the row.
//!
//! [`Oplog::transaction`] opens a transaction and lends a [`Tx`]. Each `logged_*` call runs one
//! write at once and keeps what the database stored as a **message**: a create, update or delete of
//! one row. When the closure returns `Ok`, the messages of each aggregate are sealed as one
//! **entry**, and everything is committed together. No writes, no entry.
//!
//! The entries of an aggregate have **sequences** 1, 2, 3 … in the order of their commits, and each
//! holds the hash of the one before. The **ticket** of the aggregate, one row, knows the next
//! sequence and the last hash; writers compare and set it. A **frontier** is one such position for
//! each aggregate, read in one snapshot: an exact point of the whole log.
//!
//! The tables of the log live beside yours, in the same database. Their bytes are described in
//! `FORMAT.md`.
//!
//! # Setting up
//!
//! ```toml
//! [dependencies]
//! oplog-diesel = { version = "0.1", features = ["sqlite"] } # or "postgres", or both
//! diesel = { version = "2.3", features = ["sqlite"] }
//! ```
//!
//! The log's tables have migrations of their own, apart from yours. The key that protects the log is
//! in a file (or [variable](KeyEnv)) and never in the database.
//!
//! ```standalone_crate
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); }
//! # use setup::{NewKey as KeyFile, connect};
//! # impl KeyFile {
//! #     fn create_if_missing(_: &str) -> Result<Self, oplog_diesel::KeySourceError> { Ok(KeyFile) }
//! # }
//! use oplog_diesel::Oplog;
//!
//! let mut conn = connect();
//! oplog_diesel::run_migrations(&mut conn)?;
//! let oplog = Oplog::builder().key(KeyFile::create_if_missing("oplog.key")?).open(&mut conn)?;
//! assert_eq!(oplog.catalog().len(), 2); // the models of the program were found by themselves
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Open the log once and share it: an [`Oplog`] holds no connection, and its clones are cheap.
//!
//! The examples below go on from here, with a table of accounts and this model:
//!
//! ```
//! # diesel::table! {
//! #     accounts (id) { id -> BigInt, owner -> Text, balance -> BigInt, email -> Nullable<Text> }
//! # }
//! use diesel::prelude::*;
//! use oplog_diesel::prelude::*;
//!
//! #[derive(Queryable, Selectable, Identifiable, Oplogged, Debug)]
//! #[diesel(table_name = accounts)]
//! #[oplog(type_name = "account", aggregate = "account", root = id)]
//! struct Account {
//!     #[oplog(tag = 1)]
//!     id: i64,
//!     #[oplog(tag = 2)]
//!     owner: String,
//!     #[oplog(tag = 3)]
//!     balance: i64,
//!     #[oplog(tag = 4)]
//!     email: Option<String>,
//! }
//! ```
//!
//! # Write
//!
//! What can be inserted and set is what Diesel can insert and set: structs, tuples, expressions. What
//! comes back is the row as it is stored.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog) = open();
//! use oplog_diesel::Error;
//!
//! let bob = oplog.transaction(&mut conn, |tx| {
//!     let bob: Account = tx.logged_insert(NewAccount { owner: "Bob" })?;
//!     assert_eq!(bob.balance, 0); // the column's default
//!     let bob = tx.logged_update(&bob, accounts::balance.eq(accounts::balance + 100))?;
//!     let bob = tx.logged_update(&bob, AccountChange { owner: Some("Robert"), email: None })?;
//!
//!     let more: Vec<Account> =
//!         tx.logged_insert_many(["Carol", "Dave"].map(|owner| NewAccount { owner }))?;
//!     let poor: Vec<Account> =
//!         tx.logged_update_where(accounts::table.filter(accounts::balance.lt(10)), accounts::balance.eq(10))?;
//!     assert_eq!((more.len(), poor.len()), (2, 2));
//!
//!     tx.logged_delete(&more[0])?;
//!     tx.logged_delete_by_key::<Account, _>(more[1].id)?;
//!     let none: Vec<Account> = tx.logged_delete_where(accounts::table.filter(accounts::owner.eq("Eve")))?;
//!     assert!(none.is_empty());
//!
//!     let rich: i64 = tx.read_one(accounts::table.filter(accounts::balance.ge(100)).count())?;
//!     assert_eq!(rich, 1);
//!     Ok::<_, Error>(bob)
//! })?;
//! assert_eq!((bob.owner.as_str(), bob.balance), ("Robert", 100));
//! # Ok::<(), Error>(())
//! ```
//!
//! The closure may return any error that has `From<oplog_diesel::Error>`. If it ends in `Ok(…)`,
//! Rust wants to be told which one, as in the last line of it above.
//!
//! **An error is final.** After a write failed, the transaction can't be committed, even if the
//! closure goes on. Only a write that did not happen, because no row has that key, leaves it as it
//! was.
//!
//! # Count on what you read
//!
//! Two programs that read a balance of 100 and write 95 lose one of the two payments. Name the
//! aggregate with [`on`](Oplog::on), and the one that commits second runs its closure again:
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog, alice) = open_with_alice();
//! use oplog_diesel::{Aggregate, Error};
//!
//! let alice: Account = oplog.on(alice.aggregate()).transaction(&mut conn, |tx| {
//!     let now: Account = tx.read_one(accounts::table.find(alice.id).select(Account::as_select()))?;
//!     tx.logged_update(&now, accounts::balance.eq(now.balance - 5))
//! })?;
//! assert_eq!(alice.balance, -5);
//!
//! // Of several: `on(…).and(…)`. One that is only read counts, too.
//! oplog.on(alice.aggregate()).and("settings").transaction(&mut conn, |tx| {
//!     tx.logged_update(&alice, accounts::email.eq("alice@example.com"))
//! })?;
//! # Ok::<(), Error>(())
//! ```
//!
//! What you read must belong to the aggregates that you name. Without `on`, a transaction is never
//! repeated because of the log, and rows are as protected as your database protects them.
//!
//! # Choose how tickets are locked
//!
//! Every entry redeems the ticket of its aggregate, and only one transaction can hold a ticket. How
//! much protection that gives, and what it costs where many write the same aggregate, is a choice:
//!
//! | | late | optimistic | locked first |
//! |---|---|---|---|
//! | how | nothing to do | [`on`](Oplog::on) and [`and`](TransactionBuilder::and) | `#[oplog(ticket = "lock_first")]` on the model, and `on` |
//! | the ticket is locked | at the close, for the length of the commit | at the close, and compared with the head from before the closure | before the closure, until the commit |
//! | two who read 100 and write 95 | one payment is lost, unless the row itself was locked | the second runs again | the second waits |
//! | the closure runs again because of the log | never | whenever somebody else committed meanwhile | never |
//! | with many writers of one aggregate | best | worst: most runs are in vain | one at a time, for as long as the closures take |
//!
//! Take *late* unless the closure decides something by what it read; then *optimistic* where writers
//! seldom meet, and *locked first* where they meet all the time. The three mix in one transaction:
//! what was not named is written late. All models of an aggregate must agree on `lock_first`, which
//! [`open`](OplogBuilder::open) checks; writing one without naming its aggregate is
//! [`RecordError::NotLockedFirst`](crate::core::RecordError::NotLockedFirst).
//!
//! Tickets are locked in an order that can't deadlock. Rows are locked in the order in which the
//! closures write them: two that change the same rows in opposite orders wait for each other until
//! the database breaks it, on PostgreSQL after its `deadlock_timeout` of a second, and one of them
//! runs again. Where that is frequent, write rows in the order of their keys.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let mut conn = connect();
//! # use diesel::sql_query;
//! # diesel::table! {
//! #     seats (id) { id -> BigInt, left -> BigInt }
//! # }
//! # sql_query("CREATE TABLE seats (id INTEGER PRIMARY KEY, left BIGINT NOT NULL)").execute(&mut conn)?;
//! # oplog_diesel::run_migrations(&mut conn)?;
//! #[derive(Queryable, Selectable, Identifiable, Insertable, Oplogged)]
//! #[diesel(table_name = seats)]
//! #[oplog(type_name = "seats", aggregate = "concert", root = id, ticket = "lock_first")]
//! struct Seats {
//!     #[oplog(tag = 1)]
//!     id: i64,
//!     #[oplog(tag = 2)]
//!     left: i64,
//! }
//!
//! # let oplog = Oplog::builder().key(NewKey).only_named_models().model::<Seats>().open(&mut conn)?;
//! # oplog.on("concert:1").transaction(&mut conn, |tx| tx.logged_insert::<Seats, _>(&Seats { id: 1, left: 2 }))?;
//! oplog.on("concert:1").transaction(&mut conn, |tx| {
//!     let now: Seats = tx.read_one(seats::table.find(1).select(Seats::as_select()))?;
//!     tx.logged_update(&now, seats::left.eq(now.left - 1))
//! })?;
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! # Write single rows
//!
//! A row of which every column is known needs no transaction around it:
//! [`logged_insert_row`](Oplog::logged_insert_row), [`logged_update_row`](Oplog::logged_update_row)
//! and [`logged_delete_row`](Oplog::logged_delete_row) are one statement on PostgreSQL, which writes
//! the row, redeems the ticket and appends the entry, and takes all of it back if anything is not as
//! it was sealed.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog) = open();
//! let alice = Account { id: 1, owner: "Alice".into(), balance: 0, email: None };
//! oplog.metadata("actor", "root").logged_insert_row(&mut conn, &alice)?;
//! oplog.logged_update_row(&mut conn, &alice, &Account { balance: 5, ..alice.clone() })?;
//! # assert_eq!(oplog.entries(&mut conn).count(), 2);
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! # Say who and why
//!
//! Metadata goes with every entry of a transaction. A key may have many values, or none. It is
//! **not encrypted**.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog) = open();
//! # use oplog_diesel::Error;
//! let changes = oplog.metadata("actor", "root").metadata("actor", "sudo").metadata_key("reviewed");
//! changes.transaction(&mut conn, |tx| {
//!     let alice: Account = tx.logged_insert(NewAccount { owner: "Alice" })?;
//!     tx.metadata("account", alice.id.to_string())?; // known only now
//!     Ok::<_, Error>(())
//! })?;
//!
//! let stored = oplog.entries(&mut conn).next().expect("one entry")?;
//! let actors: Vec<_> = stored.metadata().get("actor").flatten().collect();
//! assert_eq!(actors, ["root", "sudo"]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Lend the connection
//!
//! Inside a logged transaction there is no raw connection. For what [`read`](Tx::read) does not take,
//! [`read_with`](Tx::read_with) lends it while the database refuses writes; for what shall not be
//! logged, [`unlogged`](Tx::unlogged) lends it with a reason, which every entry of the transaction
//! then carries under `_oplog.unlogged`.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog, alice) = open_with_alice();
//! use diesel::sql_query;
//!
//! fn richest(conn: &mut SqliteConnection) -> QueryResult<Account> {
//!     accounts::table.order(accounts::balance.desc()).first(conn)
//! }
//!
//! # sql_query("CREATE TABLE jobs (name TEXT)").execute(&mut conn)?;
//! oplog.transaction(&mut conn, |tx| {
//!     let account = tx.read_with(richest)?;
//!     tx.unlogged("jobs are no accounts", |conn| sql_query("DELETE FROM jobs").execute(conn))?;
//!     tx.logged_update(&account, accounts::balance.eq(accounts::balance + 1))
//! })?;
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! # Inside a transaction of yours
//!
//! A logged transaction may have to run again, and can't do so inside another one, so it refuses to
//! begin there with [`Error::OuterTransaction`]. If you run the outer transaction again yourself,
//! [`nested`](Oplog::nested) allows it: the closure runs once, as a savepoint, and what would have
//! made it run again is [`Error::Contention`]. Its tickets stay locked until the outer transaction
//! ends, and others who write the same aggregates wait for it.
//!
//! # Connections from a pool
//!
//! With the feature `r2d2`, a pooled connection is used like any other.
//!
#![cfg_attr(feature = "r2d2", doc = "```")]
#![cfg_attr(not(feature = "r2d2"), doc = "```ignore")]
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! use diesel::r2d2::{ConnectionManager, Pool};
//!
//! let manager = ConnectionManager::<SqliteConnection>::new(":memory:");
//! let pool = Pool::builder().max_size(1).build(manager)?;
//!
//! let mut conn = pool.get()?;
//! # diesel::sql_query("CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance BIGINT NOT NULL DEFAULT 0, email TEXT)").execute(&mut conn)?;
//! oplog_diesel::run_migrations(&mut conn)?;
//! # let key = NewKey;
//! let oplog = Oplog::builder().key(key)
//! #     .only_named_models().model::<Account>()
//!     .open(&mut conn)?;
//! let alice: Account = oplog.transaction(&mut conn, |tx| tx.logged_insert(NewAccount { owner: "Alice" }))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Tests
//!
//! Inside Diesel's test transaction, a logged transaction is a savepoint: all of it happens, and
//! nothing stays. Open it with `begin_test_transaction`; a `test_transaction` with a closure is one
//! more transaction around it, and refused like any other. A key of the test's own keeps it off the
//! disk.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::{connect, Account, NewAccount};
//! use diesel::prelude::*;
//! use oplog_diesel::{Error, Kek, Oplog};
//!
//! # let mut conn = connect();
//! conn.begin_test_transaction()?;
//! oplog_diesel::run_migrations(&mut conn)?;
//! let oplog = Oplog::builder().kek(Kek::generate()?)
//! #     .only_named_models().model::<Account>()
//!     .open(&mut conn)?;
//!
//! let (alice, receipts) = oplog.transaction_with_receipts(&mut conn, |tx| {
//!     let alice: Account = tx.logged_insert(NewAccount { owner: "Alice" })?;
//!     Ok::<_, Error>(alice)
//! })?;
//! assert_eq!(receipts.len(), 1);
//! assert_eq!((receipts[0].aggregate.as_str(), receipts[0].sequence), ("account:1", 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read the log
//!
//! [`Oplog::entries`] reads page by page. An entry is opened only if you need its messages.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog, alice) = open_with_alice();
//! use oplog_diesel::{Error, Op};
//! # oplog.transaction(&mut conn, |tx| tx.logged_update(&alice, accounts::balance.eq(7)))?;
//!
//! let mut history = Vec::new();
//! for stored in oplog.entries(&mut conn).aggregate("account:1") {
//!     let entry = oplog.open_entry(&stored?)?;
//!     for message in &entry.messages {
//!         // Of a model that you know:
//!         let account: Account = message.row()?;
//!         history.push((entry.header.sequence, message.op, account.balance));
//!
//!         // Of whatever it is:
//!         let model = oplog.catalog().by_name(&message.type_name)?;
//!         let values = message.values(model.def())?;
//!         let text: Vec<String> = values.iter().map(|(column, value)| format!("{}={value}", column.name)).collect();
//!         println!("{} {} {}", message.op, message.type_name, text.join(" "));
//!     }
//! }
//! assert_eq!(history, [(1, Op::Create, 0), (2, Op::Update, 7)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To process the log piece by piece, take a [`Frontier`] and read what is
//! [below](Entries::below) it. Never go on from the last id or time that you saw: an entry with a
//! smaller one may be committed later.
//!
//! # Check it
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog, _) = open_with_alice();
//! let report = oplog.verify_structure(&mut conn)?; // needs no key: hashes, sequences, columns
//! assert!(report.is_intact(), "{:?}", report.findings);
//! let report = oplog.verify_contents(&mut conn)?; // opens every entry as well
//! assert!(report.is_intact(), "{:?}", report.findings);
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! A log that was cut at its end, tickets included, looks intact. If that matters, keep
//! [receipts](Oplog::transaction_with_receipts) or the heads of a [`Frontier`] outside the database,
//! and pin the log's identity with [`expect_log`](OplogBuilder::expect_log).
//!
//! # Rebuild the tables
//!
//! Into copies beside the originals, with their keys, constraints and the foreign keys among them:
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog, alice) = open_with_alice();
//! # oplog.transaction(&mut conn, |tx| tx.logged_update(&alice, accounts::balance.eq(7)))?;
//! use oplog_diesel::Frontier;
//!
//! let report = oplog.replay(&mut conn).into_suffix("_replay")?;
//! assert_eq!((report.entries, report.messages, report.rows), (2, 2, 1));
//!
//! // As they were: after the first entry of one account, and nothing of any other.
//! let then = Frontier::at([("account:1", 1)]);
//! oplog.replay(&mut conn).up_to(&then).into_suffix("_then")?;
//!
//! diesel::table! {
//!     accounts_then (id) { id -> BigInt, balance -> BigInt }
//! }
//! assert_eq!(accounts_then::table.select(accounts_then::balance).load::<i64>(&mut conn), Ok(vec![0]));
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! Or into the empty tables of another database, on which your own migrations were run. It may be of
//! another kind: SQLite to PostgreSQL and back.
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::*;
//! # let (mut conn, oplog, alice) = open_with_alice();
//! # let mut other = connect();
//! oplog.replay(&mut conn).into_database(&mut other)?;
//! assert_eq!(accounts::table.find(alice.id).first(&mut other), Ok(alice));
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! A replay is one transaction and strict. If the log says that an update found a balance of 100,
//! then a balance of 100 must be there, and what the target stores must be what it was given.
//! Otherwise it ends with [`Error::Diverged`], which names the entry, the table, the key and the
//! columns, and the target is as it was.
//!
//! # Several models in one aggregate
//!
//! An account and its postings change together, so they are best ordered together. Both models name
//! the same aggregate, and each says which of its columns holds the account:
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::{*, Posting as _, postings as _};
//! # let (mut conn, oplog, alice) = open_with_alice();
//! # diesel::table! {
//! #     postings (id) { id -> BigInt, account_id -> BigInt, amount -> BigInt }
//! # }
//! #[derive(Queryable, Selectable, Identifiable, Oplogged)]
//! #[diesel(table_name = postings)]
//! #[oplog(type_name = "posting", aggregate = "account", root = account_id)]
//! struct Posting {
//!     #[oplog(tag = 1)]
//!     id: i64,
//!     #[oplog(tag = 2)]
//!     account_id: i64,
//!     #[oplog(tag = 3)]
//!     amount: i64,
//! }
//!
//! let (_, receipts) = oplog.on(alice.aggregate()).transaction_with_receipts(&mut conn, |tx| {
//!     let posting: Posting =
//!         tx.logged_insert((postings::account_id.eq(alice.id), postings::amount.eq(-5)))?;
//!     assert_eq!(posting.aggregate(), alice.aggregate());
//!     tx.logged_update(&alice, accounts::balance.eq(accounts::balance + posting.amount))
//! })?;
//! assert_eq!(receipts.len(), 1); // one entry with two messages
//! # Ok::<(), oplog_diesel::Error>(())
//! ```
//!
//! Without `root`, all rows of the model are one aggregate, and all who write it queue for one
//! ticket: right for settings, wrong for a busy table.
//!
//! # A part of a table
//!
//! Every column must be accounted for. One that is not worth logging is named; a model that is only a
//! view of its table is `partial`:
//!
//! ```
//! # use diesel::prelude::*;
//! # use oplog_diesel::prelude::*;
//! # diesel::table! {
//! #     users (id) { id -> BigInt, name -> Text, last_seen -> BigInt }
//! # }
//! #[derive(Queryable, Oplogged)]
//! #[diesel(table_name = users)]
//! #[oplog(type_name = "user", aggregate = "user", root = id, unlogged_columns(last_seen))]
//! struct User {
//!     #[oplog(tag = 1)]
//!     id: i64,
//!     #[oplog(tag = 2)]
//!     name: String,
//! }
//! ```
//!
//! Such columns can still be written by `logged_insert` and `logged_update`. A replay leaves them to
//! the target's defaults, so there they must have one or be nullable.
//!
//! # Newtypes and enums
//!
//! [`#[derive(OplogValue)]`](derive@OplogValue) beside what Diesel needs of the type anyway. A newtype
//! is stored as what it wraps, an enum as the labels that you give to its variants.
//!
//! ```
//! use diesel::deserialize::FromSqlRow;
//! use diesel::expression::AsExpression;
//! use diesel::sql_types::{BigInt, Text};
//! use oplog_diesel::{OplogValue, Value};
//!
//! #[derive(OplogValue, AsExpression, FromSqlRow, Clone, Copy, Debug)]
//! #[diesel(sql_type = BigInt)]
//! struct UserId(i64); // and Diesel's `ToSql` and `FromSql`
//!
//! #[derive(OplogValue, AsExpression, FromSqlRow, Clone, Copy, Debug)]
//! #[diesel(sql_type = Text)]
//! enum State { // likewise
//!     #[oplog(label = "active")]
//!     Active,
//!     #[oplog(label = "blocked")]
//!     Blocked,
//! }
//!
//! assert_eq!(UserId(7).to_value(), Value::Sint(7));
//! assert_eq!(State::Blocked.to_value(), Value::Text("blocked".into()));
//! ```
//!
//! Labels are in the log for good: rename variants as you like, but not labels. For any other type,
//! implement [`OplogValue`] by hand.
//!
//! # Change a model
//!
//! Old entries keep their bytes, so a model keeps its promises about them:
//!
//! | you want to | do |
//! |---|---|
//! | rename the struct, a field or its column; reorder fields | nothing else; masks of old entries keep the old SQL names |
//! | add a column | a new tag; if it can't be NULL, `#[oplog(tag = 5, default = 0)]` says what old entries are read as |
//! | remove a column | remove the field and put its tag into `#[oplog(reserved(5))]` |
//! | widen an integer | change the type: all signed integers have one form |
//! | change the kind of a column | a new tag for the new column, the old one reserved |
//! | rename the table | change `table_name`; the stored name is `type_name` |
//! | change `type_name`, a tag, a label | don't: old entries could not be read |
//! | change `aggregate` or `root` | it starts new sequences; old entries stay where they are |
//!
//! # What triggers and cascades need
//!
//! A database may do more than a statement says. [`open`](OplogBuilder::open) looks for that in the
//! tables of all models, and refuses the log with [`Error::Undeclared`] until each of it is declared
//! or gone; the error lists everything at once and says what to write. [`Oplog::check`] gives the same
//! list at any time, so call it after a migration: triggers and keys made while the log is open are
//! taken note of when it is opened the next time.
//!
//! | the database has | the model of that table says | then |
//! |---|---|---|
//! | triggers or rules that change the row that was written, or others that the transaction writes | `#[oplog(triggers = "reread")]` | rows are read again after each statement, so `logged_*` returns them as they are then, and once more before the entries are sealed |
//! | triggers that write rows the transaction does not write, such as totals | the same, and the transaction calls [`watch`](Tx::watch) for those rows | what has become of them is logged |
//! | triggers that change nothing that is logged: they notify, or write only [unlogged columns](#a-part-of-a-table) or tables | `#[oplog(triggers = "ignore")]` | nothing more is done |
//! | foreign keys that refer to the table with `CASCADE`, `SET NULL` or `SET DEFAULT` | `#[oplog(cascade = "log")]` | the rows that a delete takes along or changes are found, locked and logged in their own aggregates, through any number of tables |
//! | such a key of a table that is not logged, or to one | `#[oplog(cascade = "log")]` on the logged parent, and [`unlogged_table`](OplogBuilder::unlogged_table) on the builder | its rows are left alone |
//! | foreign keys with `RESTRICT` or `NO ACTION`; generated columns | nothing | |
//! | constraints with `ON CONFLICT REPLACE` (SQLite) | can't be declared | make the table anew without them |
//!
//! ```
//! # mod setup { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/doctest_setup.rs")); } use setup::{connect, NewKey as KeyFile};
//! # impl KeyFile {
//! #     fn create_if_missing(_: &str) -> Result<Self, oplog_diesel::KeySourceError> { Ok(KeyFile) }
//! # }
//! # let mut conn = connect();
//! # diesel::table! { teams (id) { id -> BigInt, name -> Text, version -> BigInt } }
//! # diesel::table! { members (id) { id -> BigInt, team_id -> BigInt } }
//! use diesel::connection::SimpleConnection;
//! use diesel::prelude::*;
//! use oplog_diesel::prelude::*;
//! use oplog_diesel::{Error, Op};
//!
//! # conn.batch_execute("PRAGMA foreign_keys = ON")?;
//! conn.batch_execute(
//!     "CREATE TABLE teams (id INTEGER PRIMARY KEY, name TEXT NOT NULL, version BIGINT NOT NULL DEFAULT 1);
//!      CREATE TRIGGER next_version AFTER UPDATE OF name ON teams BEGIN
//!          UPDATE teams SET version = version + 1 WHERE id = NEW.id;
//!      END;
//!      CREATE TABLE members (
//!          id INTEGER PRIMARY KEY,
//!          team_id BIGINT NOT NULL REFERENCES teams (id) ON DELETE CASCADE
//!      )",
//! )?;
//!
//! #[derive(Queryable, Oplogged)]
//! #[diesel(table_name = teams)]
//! #[oplog(type_name = "team", aggregate = "team", root = id, triggers = "reread", cascade = "log")]
//! struct Team {
//!     #[oplog(tag = 1)]
//!     id: i64,
//!     #[oplog(tag = 2)]
//!     name: String,
//!     #[oplog(tag = 3)]
//!     version: i64,
//! }
//!
//! #[derive(Queryable, Oplogged)]
//! #[diesel(table_name = members)]
//! #[oplog(type_name = "member", aggregate = "team", root = team_id)]
//! struct Member {
//!     #[oplog(tag = 1)]
//!     id: i64,
//!     #[oplog(tag = 2)]
//!     team_id: i64,
//! }
//!
//! oplog_diesel::run_migrations(&mut conn)?;
//! let oplog = Oplog::builder().key(KeyFile::create_if_missing("oplog.key")?)
//! #     .only_named_models().model::<Team>().model::<Member>()
//!     .open(&mut conn)?;
//! let red = oplog.transaction(&mut conn, |tx| {
//!     let red: Team = tx.logged_insert(teams::name.eq("red"))?;
//!     tx.logged_insert::<Member, _>(members::team_id.eq(red.id))?;
//!     tx.logged_update(&red, teams::name.eq("Red"))
//! })?;
//! assert_eq!(red.version, 2); // what the trigger made of it
//!
//! oplog.transaction(&mut conn, |tx| tx.logged_delete(&red))?;
//! let stored = oplog.entries(&mut conn).last().expect("two entries")?;
//! let messages = oplog.open_entry(&stored)?.messages;
//! assert_eq!((messages[0].op, &*messages[0].type_name), (Op::DeleteItems, "member"));
//! assert_eq!((messages[1].op, &*messages[1].type_name), (Op::Delete, "team"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What goes with a deleted row is logged before it, each row before the rows that it refers to, so a
//! replay never meets a key that acts. Rows that refer to each other in a circle have no such order:
//! [`Error::CascadeCircle`].
//!
//! A row **moves** if its primary key, its root or a column that a key with `ON UPDATE` refers to
//! changes. The log has it as a delete and a create, and the rows below it go and come with it. Which
//! became which must be known: a statement that moves several rows that have others below to other
//! keys is [`Error::Moved`].
//!
//! Triggers must not change primary keys, nor the root of rows with others below them, nor write
//! logged rows of which the transaction knows nothing. Nobody can find out about that; a later change
//! of such a row stops a replay.
//!
//! Triggers of the target of a [replay](Replay::into_database) that its models declare are switched off
//! while it runs; others are refused.
//!
//! # Keep the key
//!
//! The log is encrypted with **data keys**, which are in the database, wrapped under a
//! **key-encryption key**, which is not. [`KeyFile`] holds the latter: one line of text, mode `0600`.
//!
//! - **Back it up, apart from the database.** Without it nobody can read the log again: no entry, no
//!   replay. (The tables themselves are not touched.)
//! - Use [`KeyFile::create_if_missing`] where a new key may be made, as in development, and
//!   [`KeyFile::new`] in production, where a missing file should stop the program. A log that has
//!   keys already is never given another one: [`Error::KeyNotGiven`] says which key it wants.
//! - [`KeyEnv`] takes the same text from `OPLOG_KEK`. Implement [`KeySource`] for a vault.
//! - A file may hold several lines; every one of them opens the data keys wrapped under it. Changing
//!   keys has no command yet, so never remove a line.
//! - Keep it out of version control.
//!
//! # Crate features
//!
//! None is on by default; they carry Diesel's names and can be combined.
//!
//! | feature | gives |
//! |---|---|
//! | `sqlite` | logs on `SqliteConnection`. Needs SQLite 3.35 |
//! | `postgres` | logs on `PgConnection`, through libpq. Needs PostgreSQL 13 |
//! | `postgres_backend` | the same without libpq, for connections of other crates to Diesel's `Pg` |
//! | `r2d2` | pooled connections |
//! | `chrono` | chrono's dates, times and timestamps as columns |
//!
//! The client libraries can be built from source: add `libsqlite3-sys` with its feature `bundled`, or
//! `pq-sys` with `bundled`, to your own manifest. A table of more than 32 columns needs Diesel's
//! feature `64-column-tables` or `128-column-tables`.
//!
//! # Reading compile errors
//!
//! Mistakes in `#[oplog(…)]` are all reported at once, each with a `help:` line that holds the correct
//! spelling. What the compiler itself finds reads like this:
//!
//! | it says | it means |
//! |---|---|
//! | `Account` does not account for the column `columns::email` of its table | a column without a field: add the field, or see [a part of a table](#a-part-of-a-table) |
//! | `Money` has no encoding in the operation log | a field's type needs [`OplogValue`]: see [newtypes and enums](#newtypes-and-enums); for chrono, the feature `chrono` |
//! | evaluation panicked: `owner` can't be the root of an aggregate | `root` is an integer, text, bool or a newtype of these, and no `Option` |
//! | `Account` can't be written to the operation log | the struct lacks `#[derive(Oplogged)]` |
//! | `…` is no connection that a logged transaction can run on | the feature of the backend, or `r2d2`, is not on, or it is another kind of connection |
//! | `!` can't be written to the operation log, or type annotations needed, at a `logged_*` call | say which model: `let alice: Account = tx.logged_insert(…)?` |
//! | type annotations needed, cannot infer `E`, at the `Ok(…)` of a closure | say which error it returns: `Ok::<_, oplog_diesel::Error>(…)` |
//! | `…: CompatibleType<Account, …>` or `Account: FromSqlRow<…>` is not satisfied | the model lacks `#[derive(Queryable)]`, or a field has another type than its column |
//! | `…: SelectQuery` is not satisfied, at `read` or `read_one` | only a `SELECT` can be read; writes are `logged_*` |
//! | cannot move out of `…`, a captured variable in an `FnMut` closure | the closure may run again, so it can't use up what it captured: use a reference, or clone inside |
//!
//! # Which values survive where
//!
//! What is logged is the row as the database stored it, so a log and its own database agree about
//! every value. The table says what a database makes of a value on the way in, which is also what
//! happens to it in a replay from the other one: what is not a plain "yes" stops such a replay with
//! [`Error::Diverged`], and never passes in silence.
//!
//! | kind | Rust type | SQLite | PostgreSQL |
//! |---|---|---|---|
//! | [`Bool`](Kind::Bool) | `bool` | yes | yes |
//! | [`Sint`](Kind::Sint) | `i16` `i32` `i64` | yes | yes |
//! | | `i8` | Diesel binds it on neither; for types of your own that bind as something else | |
//! | [`Uint`](Kind::Uint) | `u8` `u16` `u32` `u64` | likewise | `u32` as `Oid` |
//! | [`F32`](Kind::F32) [`F64`](Kind::F64) | `f32` `f64` | −0.0 becomes 0.0; NaN becomes NULL, and is refused if the column is `NOT NULL`; infinities: yes | yes, the bits of a NaN included |
//! | [`Text`](Kind::Text) | `String`, enums | yes | refuses U+0000 |
//! | [`Bytes`](Kind::Bytes) | `Vec<u8>` | yes | yes |
//! | [`Date`](Kind::Date) | `NaiveDate` | yes | from 24 November 4714 BC on, earlier ones are refused |
//! | [`Time`](Kind::Time) | `NaiveTime` | to the nanosecond, leap seconds included | whole microseconds; a leap second becomes the second after it, or is refused at midnight |
//! | [`Timestamp`](Kind::Timestamp) | `NaiveDateTime` | to the nanosecond, leap seconds included | whole microseconds; from 24 November 4714 BC on; a leap second becomes the second after it |
//! | | `DateTime<Utc>` | as `TimestamptzSqlite`, else the same | as `Timestamptz`, else the same |
//! | any | `Option` of it | NULL stays NULL | NULL stays NULL |
//!
//! A schema says `Timestamptz` or `TimestamptzSqlite`; a replay into the other database uses the
//! other of the two. Other column types are not supported yet; a type of your own with [`OplogValue`],
//! `ToSql` and `FromSql` works where its SQL type does. A column that the target can't bind at all is
//! [`Divergence::Unsupported`], with its name.
//!
//! # When something goes wrong
//!
//! Unless it says otherwise, nothing of the transaction was written.
//!
//! | [`Error`] | what happened | what you do |
//! |---|---|---|
//! | [`Database`](Error::Database) | a statement of yours failed: a constraint, no such row, a time-out | as in any Diesel program |
//! | [`Record`](Error::Record) | a write failed and the closure went on, a row fits into no entry, a [limit](OplogBuilder::transaction_limits) was passed, or an aggregate should have been locked first | the variant inside says which; try a write that may fail in a [`savepoint`](Tx::savepoint) |
//! | [`RowCount`](Error::RowCount) | a write touched another number of rows than it must | look for triggers and rules that swallow it |
//! | [`Contention`](Error::Contention) | others were in the way until the attempts or the time were used up | try later, make the transaction shorter, or choose another [way to lock](#choose-how-tickets-are-locked) |
//! | [`CommitUnknown`](Error::CommitUnknown) | the connection broke during the commit: **it may have been written** | [`resolve`](Oplog::resolve) with the receipts, on a new connection, before you write it again |
//! | [`OuterTransaction`](Error::OuterTransaction) | the connection is in a transaction already | use another one, or [`nested`](Oplog::nested) |
//! | [`Lent`](Error::Lent) | a closure that got the connection left it in another transaction, or wrote where it was to read | keep `BEGIN`, `COMMIT` and writes out of [`read_with`](Tx::read_with) and [`unlogged`](Tx::unlogged) |
//! | [`Metadata`](Error::Metadata), [`Aggregate`](Error::Aggregate) | a key, value or name can't be stored | the variant inside says why |
//! | [`TicketNotFound`](Error::TicketNotFound) | creating tickets is switched off, and there is none | insert the ticket, or switch it on |
//! | [`NotMigrated`](Error::NotMigrated), [`NoLog`](Error::NoLog) | the log's tables are missing, old or emptied | [`run_migrations`]; a log that lost its identity is brought back from a backup |
//! | [`WrongLog`](Error::WrongLog), [`Epoch`](Error::Epoch) | this is another log, or another incarnation of it | check the connection; after a restore, open the log again |
//! | [`Undeclared`](Error::Undeclared) | the database does to logged tables what no model declares | each effect says what to write; see [what triggers and cascades need](#what-triggers-and-cascades-need) |
//! | [`CascadeCircle`](Error::CascadeCircle), [`Moved`](Error::Moved) | what foreign keys do to the rows below can't be put in order | set one reference to `NULL` first; move rows one by one |
//! | [`KeySource`](Error::KeySource), [`KeyNotGiven`](Error::KeyNotGiven) | the key could not be read, or is not the one of this log | the error names the key that is wanted |
//! | [`KeysVanished`](Error::KeysVanished), [`KeyUnwrap`](Error::KeyUnwrap), [`MalformedKey`](Error::MalformedKey), [`Key`](Error::Key) | somebody changed or removed the log's keys | bring back `oplog_key` and `oplog_key_wrap` from a backup, and ask who it was |
//! | [`Catalog`](Error::Catalog) | two models can't be in one log | give them different names, or one `lock_first` |
//! | [`Entry`](Error::Entry), [`Message`](Error::Message) | a stored entry is not what it must be, or its type has no model here | nothing was applied; [`verify_contents`](Oplog::verify_contents) shows all that is wrong |
//! | [`Diverged`](Error::Diverged), [`Target`](Error::Target) | the rows and the log do not agree, or a replay's target is not ready | the error names table, key and columns; the target is as it was |
//! | [`Seal`](Error::Seal), [`Rng`](Error::Rng), [`Store`](Error::Store) | no random numbers, or a statement on the log's own tables failed | the error names the operation; look at permissions, space and the connection |
//!
//! # Questions and answers
//!
//! **What may run twice?** The closure, as a whole, from its first line: when an aggregate of `on` was
//! written by somebody else, when the database broke a deadlock or could not serialise, or was busy.
//! What it did to the database was rolled back each time. What it did elsewhere was not: send mails
//! and change variables outside after `transaction` returned. After 30 seconds or 1,000 attempts it
//! gives up with [`Error::Contention`]; [`OplogBuilder::attempts`] sets both.
//!
//! **What if I write past the log?** Plain Diesel writes, other programs and `psql` work as ever and
//! leave no entry. Nothing finds them by itself today. A later `logged_update` of the same row logs the
//! row as it found it, so a replay stops there with [`Error::Diverged`]. Comparing the live tables with
//! the log is planned.
//!
//! **What about triggers, and foreign keys with `CASCADE`?** They must be declared, and then what they
//! do is logged: see [what triggers and cascades need](#what-triggers-and-cascades-need).
//!
//! **Does remembering tickets make two processes disagree?** No. On PostgreSQL a log remembers the
//! heads of the tickets that it redeemed, to save reading them, but the database compares each of
//! them. A wrong one costs a statement, or a run of a transaction that counted on it.
//!
//! **Why `DuplicateName`?** Two models with one `type_name` are linked into the program. In doc tests
//! this is because Rust joins them into one program: mark them `standalone_crate`, or register what
//! you need with [`only_named_models`](OplogBuilder::only_named_models) and
//! [`model`](OplogBuilder::model).
//!
//! **A message is "of an unknown type"?** The linker dropped a crate of which nothing else is used, and
//! with it the model. Name it with [`model`](OplogBuilder::model).
//!
//! **How large can a transaction be?** Its messages are held in memory until the commit, about as many
//! bytes as the rows themselves. One entry takes 10,000 messages or 16 MiB; above that the
//! transaction writes several, which are read back as one. A single row must fit into one entry. A
//! transaction of more than 10,000,000 rows or 1 GiB is refused;
//! [`OplogBuilder::transaction_limits`] sets both.
//!
//! **What does `CommitUnknown` want of me?** The connection broke while the database committed, and it
//! may have done so. Ask [`Oplog::resolve`] with the receipts of the error, on a new connection, before
//! you write again.
//!
//! **What can somebody with the database see?** Names of aggregates and models' tables, metadata,
//! sizes and times, and of course your tables. Not the messages.
//!
//! **Is it async? MySQL?** Not yet, and planned. So are following a log from another database, undo and
//! signed checkpoints.
#![forbid(unsafe_code)]
// The impls for tuples of up to 128 columns.
#![recursion_limit = "256"]
// Without a backend there is nothing to do, but a crate of models only may well be built so.
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres_backend")),
    allow(unused)
)]

mod backend;
mod bind;
mod by_key;
mod cascade;
mod catalogue;
mod check;
mod connection;
mod coverage;
mod dml;
mod entries;
mod error;
mod frontier;
mod gates;
mod heads;
mod key_source;
mod keys;
mod lent;
pub mod migrations;
mod model;
mod oplog;
mod oplogged;
mod record;
mod replay;
mod reread;
mod single;
mod statement;
mod store;
mod transaction;
mod tx;
mod verify;

pub use check::{CascadeProblem, Cause, CheckReport, KeyAction, SideEffect};
pub use connection::{Connect, LogConnection};
pub use entries::{Entries, Entry, StoredEntry};
pub use error::{Divergence, EntryError, Error, LentError, Retry, TargetError};
pub use frontier::Frontier;
pub use key_source::{KeyEnv, KeyFile, KeySource, KeySourceError};
#[doc(inline)]
pub use migrations::run_migrations;
pub use model::{Model, Replayable};
pub use oplog::{Oplog, OplogBuilder};
/// Messages, values, envelopes, keys and the chain, without a database: for tools that look into
/// entries more closely than [`Entry`] does.
pub use oplog_core as core;
#[doc(inline)]
pub use oplog_core::{
    Aggregate, Hash, Head, Header, Kek, Kind, LogId, Message, Metadata, Op, OplogValue, Receipt,
    RowValues, TypeDef, Value, ValueError,
};
#[doc(inline)]
pub use oplog_derive::{OplogValue, Oplogged};
pub use oplogged::{Cascade, Oplogged, Triggers};
pub use replay::{Replay, ReplayProgress, ReplayReport};
pub use transaction::TransactionBuilder;
pub use tx::Tx;
pub use verify::{Finding, VerifyReport};

/// The models that a log knows, by their stored names and by their Rust types.
pub type TypeCatalog = oplog_core::TypeCatalog<Model>;

/// A result with the error of this crate, for functions and for closures that end in `Ok`:
/// `oplog_diesel::Result::Ok(value)`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What most files need: `use oplog_diesel::prelude::*;`.
///
/// The log and its keys, and the two derives with their traits (for `account.aggregate()`). Meant to
/// stand beside `use diesel::prelude::*;`, with which it shares no name.
pub mod prelude {
    pub use crate::{KeyEnv, KeyFile, Oplog, OplogValue, Oplogged};
}

/// The README's programs, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// Named by generated code only. Nothing in it is covered by any promise.
#[doc(hidden)]
pub mod __private {
    pub use crate::bind::{AsDeclared, AsStandIn, Bindable, NotAtAll, Probe, RawRow};
    pub use crate::coverage::{Covers, CoversAll};
    pub use crate::model::{Linked, Model};
    pub use crate::oplogged::{Cascade, Oplogged, Triggers};
    pub use crate::replay::{TableName, table_of};
    pub use crate::{bind_columns, submit_model as submit};
    pub use diesel;
    pub use inventory;
    pub use oplog_core::{
        ColumnDef, Kind, LogRow, OplogValue, RowError, RowValues, TypeDef, Value, ValueError,
    };

    /// The panic of a column index that no code of ours produces.
    pub fn no_column(column: usize) -> ! {
        panic!("the model has no column with the index {column}")
    }
}
