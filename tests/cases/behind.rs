//! What the database does by itself when a logged table is written: triggers, and foreign keys that
//! act on other rows.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::{Error, Tx};
pub use oplog_tests::behind::*;

use crate::db::{Conn, Db};
use crate::fixture::{assert_free, builder, count, messages};

pub const TABLES: [&str; 11] = [
    "clerks",
    "customers",
    "orders",
    "lines",
    "remarks",
    "folders",
    "files",
    "shelves",
    "crates",
    "things",
    "memos",
];

/// A log on that application's database.
pub struct Shop {
    pub db: Db,
    pub oplog: Oplog,
    pub conn: Conn,
    seen: usize,
    checks: usize,
}

impl Shop {
    pub fn new() -> Self {
        Self::with("SELECT 1")
    }

    /// With more tables, triggers and keys.
    pub fn with(sql: &str) -> Self {
        let db = Db::with_side_effects();
        let mut conn = db.connect();
        conn.batch_execute(sql).unwrap();
        let oplog = builder(&db).open(&mut conn).unwrap();
        Shop {
            db,
            oplog,
            conn,
            seen: 0,
            checks: 0,
        }
    }

    pub fn run<T>(
        &mut self,
        body: impl FnMut(&mut Tx<'_, Conn>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.oplog.transaction(&mut self.conn, body)
    }

    /// Messages that were not asked for before.
    pub fn news(&mut self) -> Vec<String> {
        let news = messages(&self.oplog, &mut self.conn).split_off(self.seen);
        self.seen += news.len();
        news
    }

    /// The log gives exactly the rows, here and in another database, whose triggers and keys act as
    /// they do here.
    pub fn check(&mut self) {
        assert_free(&mut self.conn);
        let report = self.oplog.verify_contents(&mut self.conn).unwrap();
        assert!(report.is_intact(), "{:?}", report.findings);
        self.checks += 1;
        let suffix = format!("_{}", self.checks);
        let replayed = self.oplog.replay(&mut self.conn).into_suffix(&suffix);
        let replayed = replayed.unwrap_or_else(|error| panic!("{error}"));
        let mut rows = 0;
        for table in TABLES {
            let copy = format!("{table}{suffix}");
            let live = count(&mut self.conn, table);
            assert_eq!(count(&mut self.conn, &copy), live, "rows of {table}");
            let both =
                format!("(SELECT * FROM {table} INTERSECT SELECT * FROM {copy}) AS both_tables");
            assert_eq!(
                count(&mut self.conn, &both),
                live,
                "rows of {table} that are the same"
            );
            rows += live;
        }
        assert_eq!(replayed.rows as i64, rows);
        assert_free(&mut self.conn);
    }
}

fn undeclared(error: &Error) -> Vec<String> {
    match error {
        Error::Undeclared { side_effects } => {
            side_effects.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// What a log says that must not be opened on the usual tables after these statements.
pub fn refused(sql: &str) -> Vec<String> {
    let db = Db::new();
    let mut conn = db.connect();
    conn.batch_execute(sql).unwrap();
    let error = builder(&db).open(&mut conn).unwrap_err();
    undeclared(&error)
}

#[test]
fn what_is_declared_is_listed_and_not_refused() {
    let mut shop = Shop::new();
    let report = shop.oplog.check(&mut shop.conn).unwrap();
    assert!(report.is_declared());
    let lines: Vec<String> = report
        .side_effects
        .iter()
        .map(ToString::to_string)
        .collect();
    let generated =
        "table `customers`: the column `loud` is generated; there is nothing to declare";
    assert!(lines.iter().any(|line| line == generated), "{lines:#?}");
    let of = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((of("the key"), of("generated")), (11, 1), "{lines:#?}");
    let triggers = match backend() {
        "SQLite" => 11,
        _ => 7,
    };
    assert_eq!(of("the trigger"), triggers, "{lines:#?}");
    assert_eq!(lines.len(), 11 + 1 + triggers, "{lines:#?}");
}

#[test]
fn an_undeclared_trigger_is_refused() {
    let (create, timing) = match backend() {
        "SQLite" => (
            "CREATE TRIGGER \"my trigger\" AFTER UPDATE ON accounts BEGIN SELECT 1; END",
            "AFTER UPDATE",
        ),
        _ => (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER \"my trigger\" AFTER UPDATE OR INSERT ON accounts EXECUTE FUNCTION f();
             CREATE TRIGGER off AFTER UPDATE ON accounts EXECUTE FUNCTION f();
             CREATE TRIGGER truncates AFTER TRUNCATE ON accounts EXECUTE FUNCTION f();
             ALTER TABLE accounts DISABLE TRIGGER off",
            "AFTER INSERT OR UPDATE",
        ),
    };
    let lines = refused(create);
    let path = "oplog_tests::models::Account";
    assert_eq!(
        lines,
        [format!(
            "table `accounts`: the trigger `my trigger` ({timing}) may write what no statement says; \
             write `#[oplog(triggers = \"reread\")]` on `{path}` to have what it does to written rows \
             logged, or `triggers = \"ignore\"` if it changes nothing that is logged, such as only \
             `unlogged_columns(…)`"
        )]
    );
}

fn backend() -> &'static str {
    match std::any::type_name::<Conn>().contains("Sqlite") {
        true => "SQLite",
        false => "PostgreSQL",
    }
}

#[test]
fn everything_undeclared_is_refused_at_once() {
    let lines = refused(
        "CREATE TABLE sessions (
             id BIGINT PRIMARY KEY,
             account_id BIGINT CONSTRAINT of_account REFERENCES accounts (id) ON DELETE CASCADE
         );
         CREATE TABLE tenants (id BIGINT PRIMARY KEY);
         DROP TABLE settings;
         CREATE TABLE settings (
             section TEXT NOT NULL,
             name TEXT NOT NULL,
             tenant_id BIGINT CONSTRAINT of_tenant REFERENCES tenants (id) ON DELETE SET NULL ON UPDATE CASCADE,
             PRIMARY KEY (section, name)
         );
         DROP TABLE postings;
         CREATE TABLE postings (
             id BIGINT PRIMARY KEY,
             account_id BIGINT NOT NULL CONSTRAINT posting_account REFERENCES accounts (id) ON DELETE CASCADE
         )",
    );
    let name = |postgres: &'static str, sqlite: &'static str| match backend() {
        "SQLite" => sqlite,
        _ => postgres,
    };
    let mut expected = [
        format!(
            "table `accounts`: the key `{}` of `postings` acts ON DELETE CASCADE; write \
             `#[oplog(cascade = \"log\")]` on `oplog_tests::models::Account`",
            name("posting_account", "FOREIGN KEY (account_id)")
        ),
        format!(
            "table `accounts`: the key `{}` of `sessions` acts ON DELETE CASCADE; write \
             `#[oplog(cascade = \"log\")]` on `oplog_tests::models::Account` and derive `Oplogged` \
             for a model of `sessions`, which is not logged, or name it with \
             `OplogBuilder::unlogged_table(\"sessions\")` if that is on purpose",
            name("of_account", "FOREIGN KEY (account_id)")
        ),
        format!(
            "table `tenants`: the key `{}` of `settings` acts ON DELETE SET NULL, ON UPDATE CASCADE; \
             derive `Oplogged` for a model of `tenants`, which is not logged, or name it with \
             `OplogBuilder::unlogged_table(\"tenants\")` if that is on purpose and no logged \
             statement deletes or changes its rows by another key",
            name("of_tenant", "FOREIGN KEY (tenant_id)")
        ),
    ];
    let mut lines = lines;
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

/// A row that would get another key, or another parent for those below it, could not be followed.
#[test]
fn keys_that_set_what_rows_are_found_by_are_refused() {
    let db = Db::with_side_effects();
    let mut conn = db.connect();
    conn.batch_execute(
        "DROP TABLE remarks; DROP TABLE lines;
         CREATE TABLE lines (
             order_id BIGINT NOT NULL DEFAULT 1 REFERENCES orders (id) ON DELETE SET DEFAULT,
             number INTEGER NOT NULL,
             amount BIGINT NOT NULL,
             customer_id BIGINT UNIQUE REFERENCES customers (id) ON DELETE SET NULL,
             PRIMARY KEY (order_id, number)
         );
         CREATE TABLE remarks (
             id BIGINT PRIMARY KEY,
             order_id BIGINT REFERENCES lines (customer_id) ON UPDATE CASCADE,
             number INTEGER,
             remark TEXT NOT NULL
         )",
    )
    .unwrap();
    let error = builder(&db).open(&mut conn).unwrap_err();
    let lines = undeclared(&error);
    assert_eq!(lines.len(), 2, "{error}");
    let end = "; give the key another action: it sets a column by which rows of `lines` are found or \
               referred to";
    assert!(lines.iter().all(|line| line.ends_with(end)), "{error}");
    assert!(lines[0].starts_with("table `customers`"), "{error}");
    assert!(lines[1].starts_with("table `orders`"), "{error}");
}

/// A table may be left out of the log on purpose, but not if a logged statement reaches logged rows
/// through it.
#[test]
fn tables_are_unlogged_on_purpose() {
    let db = Db::with_side_effects();
    let mut conn = db.connect();
    conn.batch_execute(
        "CREATE TABLE sessions (
             id BIGINT PRIMARY KEY,
             customer_id BIGINT REFERENCES customers (id) ON DELETE CASCADE
         );
         CREATE TABLE tenants (id BIGINT PRIMARY KEY, boss BIGINT REFERENCES customers (id) ON DELETE SET NULL)",
    )
    .unwrap();
    let error = builder(&db).open(&mut conn).unwrap_err();
    assert_eq!(undeclared(&error).len(), 2, "{error}");
    let open = |conn: &mut Conn| {
        builder(&db)
            .unlogged_table("sessions")
            .unlogged_table("tenants")
            .open(conn)
    };
    let oplog = open(&mut conn).unwrap();
    assert!(oplog.check(&mut conn).unwrap().is_declared());

    // The boss of a tenant is deleted: nothing that is logged changes with that.
    conn.batch_execute(
        "ALTER TABLE files ADD tenant_id BIGINT REFERENCES tenants (id) ON DELETE CASCADE",
    )
    .unwrap();
    assert!(oplog.check(&mut conn).unwrap().is_declared());

    conn.batch_execute(
        "ALTER TABLE files ADD session_id BIGINT REFERENCES sessions (id) ON DELETE CASCADE",
    )
    .unwrap();
    let error = open(&mut conn).unwrap_err();
    let lines = undeclared(&error);
    assert_eq!(lines.len(), 1, "{error}");
    assert!(
        lines[0].contains("derive `Oplogged` for a model of `sessions`"),
        "{error}"
    );

    // Who only reads may look nevertheless.
    let reader = builder(&db).allow_undeclared().open(&mut conn).unwrap();
    let report = reader.check(&mut conn).unwrap();
    assert!(!report.is_declared());
}

pub fn customer(tx: &mut Tx<'_, Conn>, name: &str) -> Result<Customer, Error> {
    tx.logged_insert(customers::name.eq(name))
}

pub fn order(
    tx: &mut Tx<'_, Conn>,
    customer: &Customer,
    clerk: Option<i64>,
) -> Result<Order, Error> {
    let values = (
        orders::customer_id.eq(customer.id),
        orders::clerk_id.eq(clerk),
    );
    tx.logged_insert(values)
}

fn line(order: &Order, number: i32, amount: i64) -> Line {
    Line {
        order_id: order.id,
        number,
        amount,
        customer_id: None,
    }
}

#[test]
fn what_a_trigger_does_to_the_written_row_is_logged_and_returned() {
    let mut shop = Shop::new();
    let ann = shop.run(|tx| customer(tx, "ann")).unwrap();
    assert_eq!((ann.loud.as_str(), ann.version), ("ANN", 1));
    let bob = shop
        .run(|tx| tx.logged_update(&ann, customers::name.eq("bob")))
        .unwrap();
    assert_eq!((bob.version, bob.updated_at), (2, 10));
    let many = shop
        .run(|tx| {
            tx.logged_update_where::<Customer, _, _>(customers::table, customers::name.eq("cy"))
        })
        .unwrap();
    assert_eq!((many[0].version, many[0].updated_at), (3, 20));
    assert_eq!(
        shop.news(),
        [
            r#"customer:1/1 create customer(id=1 name="ann" loud="ANN" version=1 updated_at=0)"#,
            r#"customer:1/2 update customer(id=1 name="bob" loud="BOB" version=2 updated_at=10) was(name="ann" loud="ANN" version=1 updated_at=0) set[name,loud,version,updated_at]"#,
            r#"customer:1/3 update customer(id=1 name="cy" loud="CY" version=3 updated_at=20) was(name="bob" loud="BOB" version=2 updated_at=10) set[name,loud,version,updated_at]"#,
        ]
    );
    shop.check();
}

#[test]
fn messages_of_one_row_in_one_transaction_follow_each_other() {
    let mut shop = Shop::new();
    shop.run(|tx| {
        let ann = customer(tx, "ann")?;
        let ann = tx.logged_update(&ann, customers::name.eq("bob"))?;
        assert_eq!(ann.version, 2);
        let ann = tx.logged_update(&ann, customers::name.eq("cy"))?;
        assert_eq!(ann.version, 3);
        tx.logged_delete(&ann)?;
        let dora = customer(tx, "dora")?;
        tx.logged_update(&dora, customers::name.eq("dora"))
    })
    .unwrap();
    let news = shop.news();
    assert_eq!(news.len(), 6, "{news:#?}");
    shop.check();
}

/// A trigger of one table changes a row of another that the transaction wrote before: between two
/// statements on that row, and after the last one.
#[test]
fn what_triggers_of_other_tables_do_to_written_rows_is_logged() {
    let mut shop = Shop::new();
    shop.run(|tx| {
        tx.logged_insert::<Clerk, _>(Clerk {
            id: 7,
            boss_id: None,
        })
    })
    .unwrap();
    shop.run(|tx| {
        let ann = customer(tx, "ann")?;
        let order = order(tx, &ann, None)?;
        tx.logged_insert::<Line, _>(line(&order, 1, 5))?;
        let now = tx.logged_update(&order, orders::clerk_id.eq(7))?;
        assert_eq!((now.total, now.version), (5, 3));
        tx.logged_insert_many::<Line, _>([line(&order, 2, 10), line(&order, 3, 100)])
    })
    .unwrap();
    let lines: Vec<String> = shop
        .news()
        .into_iter()
        .filter_map(|line| {
            Some(
                line.split_once("order:1/1 ")?
                    .1
                    .split(" #")
                    .next()?
                    .to_owned(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "create order(id=1 customer_id=1 clerk_id=NULL total=0 version=1) nulls[3]",
            "create line(order_id=1 number=1 amount=5 customer_id=NULL) nulls[4]",
            "update order(id=1 customer_id=1 clerk_id=NULL total=5 version=2) nulls[3] was(total=0 version=1) set[total,version]",
            "update order(id=1 customer_id=1 clerk_id=7 total=5 version=3) was(clerk_id=NULL version=2) was_nulls[3] set[clerk_id,version]",
            "create items line(order_id=1 number=2 amount=10 customer_id=NULL) nulls[4]",
            "create items line(order_id=1 number=3 amount=100 customer_id=NULL) nulls[4]",
            "update order(id=1 customer_id=1 clerk_id=7 total=115 version=5) was(total=5 version=3) set[total,version]",
        ]
    );
    shop.check();
}

/// Rows that only triggers write are logged if they are watched.
#[test]
fn watched_rows_are_logged() {
    let mut shop = Shop::new();
    let order = shop
        .run(|tx| {
            let ann = customer(tx, "ann")?;
            order(tx, &ann, None)
        })
        .unwrap();
    shop.news();
    shop.run(|tx| {
        let now = tx.watch(&order)?;
        assert_eq!(now, order);
        tx.logged_insert::<Line, _>(line(&order, 1, 5))?;
        let gone: Result<(), Error> = tx.savepoint(|tx| {
            tx.watch(&order)?;
            tx.logged_insert::<Line, _>(line(&order, 2, 5))?;
            Err(Error::Database(diesel::result::Error::RollbackTransaction))
        });
        assert!(gone.is_err());
        Ok(())
    })
    .unwrap();
    assert_eq!(
        shop.news(),
        [
            "order:1/2 create line(order_id=1 number=1 amount=5 customer_id=NULL) nulls[4]",
            "order:1/2 update order(id=1 customer_id=1 clerk_id=NULL total=5 version=2) nulls[3] was(total=0 version=1) set[total,version]",
        ]
    );
    shop.check();
    // First in a savepoint that is taken back, then again; and what did not change is not logged.
    shop.run(|tx| {
        let gone: Result<(), Error> = tx.savepoint(|tx| {
            tx.logged_insert::<Line, _>(line(&order, 2, 5))?;
            tx.watch(&order)?;
            Err(Error::Database(diesel::result::Error::RollbackTransaction))
        });
        assert!(gone.is_err());
        tx.logged_insert::<Remark, _>(Remark {
            id: 1,
            order_id: None,
            number: None,
            remark: "!".to_owned(),
        })
    })
    .unwrap();
    assert_eq!(shop.news().len(), 1);
    shop.run(|tx| {
        let missing = Order {
            id: 77,
            ..order.clone()
        };
        let error = tx.watch(&missing).unwrap_err();
        assert!(
            matches!(error, Error::Database(diesel::result::Error::NotFound)),
            "{error:?}"
        );
        tx.watch(&order)?;
        tx.logged_delete_by_key::<Line, _>((order.id, 1))
    })
    .unwrap();
    assert_eq!(shop.news().len(), 2);
    shop.check();
}

#[test]
fn a_savepoint_that_is_taken_back_takes_its_rows_along() {
    let mut shop = Shop::new();
    shop.run(|tx| {
        let ann = customer(tx, "ann")?;
        let order = order(tx, &ann, None)?;
        let gone: Result<(), Error> = tx.savepoint(|tx| {
            tx.logged_insert::<Line, _>(line(&order, 1, 5))?;
            tx.logged_update(&order, orders::total.eq(1000))?;
            customer(tx, "gone")?;
            Err(Error::Database(diesel::result::Error::RollbackTransaction))
        });
        assert!(gone.is_err());
        tx.savepoint(|tx| tx.logged_insert::<Line, _>(line(&order, 1, 7)))
    })
    .unwrap();
    let news = shop.news();
    assert!(
        !news
            .iter()
            .any(|line| line.contains("1000") || line.contains("gone")),
        "{news:#?}"
    );
    assert!(
        news.iter().any(|line| line.contains("total=7")),
        "{news:#?}"
    );
    shop.check();
}

/// More rows than one statement reads again, and more than one entry.
#[test]
fn many_rows_are_read_again() {
    let mut shop = Shop::new();
    shop.run(|tx| {
        let ann = customer(tx, "ann")?;
        let mut all = Vec::new();
        for _ in 0..300 {
            all.push(order(tx, &ann, None)?);
        }
        tx.logged_insert_many::<Line, _>(all.iter().map(|order| line(order, 1, order.id)))?;
        Ok(())
    })
    .unwrap();
    let updates = shop
        .news()
        .into_iter()
        .filter(|line| line.contains("update order"));
    assert_eq!(updates.count(), 300);
    shop.check();
}

/// One customer, with rows on three levels below: two orders of four lines, one of which is also the
/// customer's by another way, and remarks.
pub fn fill(shop: &mut Shop) -> Customer {
    let ann = shop.run(stock).unwrap();
    shop.check();
    shop.news();
    ann
}

/// What [`fill`] writes.
pub fn stock(tx: &mut Tx<'_, Conn>) -> Result<Customer, Error> {
    tx.logged_insert_many::<Clerk, _>([
        Clerk {
            id: 1,
            boss_id: None,
        },
        Clerk {
            id: 2,
            boss_id: Some(1),
        },
    ])?;
    let ann = customer(tx, "ann")?;
    let other = customer(tx, "other")?;
    for (owner, clerk) in [(&ann, Some(2)), (&ann, None), (&other, Some(2))] {
        let order = order(tx, owner, clerk)?;
        for number in 1..3 {
            let customer_id = (number == 2).then_some(owner.id);
            let line = line(&order, number, 10 * order.id);
            tx.logged_insert::<Line, _>(Line {
                customer_id,
                ..line
            })?;
            tx.logged_insert::<Remark, _>(Remark {
                id: 10 * order.id + i64::from(number),
                order_id: Some(order.id),
                number: Some(number),
                remark: "!".to_owned(),
            })?;
        }
    }
    tx.logged_insert::<Remark, _>(Remark {
        id: 99,
        order_id: None,
        number: None,
        remark: "of nothing".to_owned(),
    })?;
    Ok(ann)
}

/// The parts of messages that tell operation, type and key, in order of the transaction.
pub fn brief(mut news: Vec<String>) -> Vec<String> {
    let ordinal = |line: &String| -> usize {
        line.rsplit_once(" #")
            .map_or(0, |(_, ordinal)| ordinal.parse().unwrap())
    };
    news.sort_by_key(ordinal);
    news.iter()
        .map(|line| {
            let (_, line) = line.split_once(' ').unwrap();
            let (head, row) = line.split_once('(').unwrap();
            let key: Vec<&str> = row.split([' ', ')']).collect();
            let keys = if head.ends_with("line") { 2 } else { 1 };
            let values = key[..keys]
                .iter()
                .map(|column| column.split_once('=').unwrap().1);
            format!("{head} {}", values.collect::<Vec<_>>().join("/"))
        })
        .collect()
}

#[test]
fn what_goes_with_a_deleted_row_is_logged_before_it() {
    let mut shop = Shop::new();
    let ann = fill(&mut shop);
    let gone = shop.run(|tx| tx.logged_delete(&ann)).unwrap();
    assert_eq!(gone, ann);
    let news = brief(shop.news());
    let at = |line: &str| {
        news.iter()
            .position(|other| other == line)
            .unwrap_or_else(|| panic!("{line}: {news:#?}"))
    };
    for order in 1..3 {
        for number in 1..3 {
            let line = at(&format!("delete items line {order}/{number}"));
            assert!(at(&format!("delete items remark {order}{number}")) < line);
            assert!(line < at(&format!("delete items order {order}")));
        }
        assert!(at(&format!("delete items order {order}")) < at("delete customer 1"));
    }
    assert_eq!(news.len(), 4 + 4 + 2 + 1, "{news:#?}");
    assert_eq!(count(&mut shop.conn, "lines"), 2);
    shop.check();
}

#[test]
fn what_goes_is_logged_however_a_row_is_deleted() {
    for how in 0..3 {
        let mut shop = Shop::new();
        fill(&mut shop);
        shop.run(|tx| {
            match how {
                0 => {
                    tx.logged_delete_by_key::<Customer, _>(1)?;
                }
                1 => {
                    let gone: Vec<Customer> = tx.logged_delete_where(customers::table)?;
                    assert_eq!(gone.len(), 2);
                }
                _ => {
                    let some = orders::table.filter(orders::id.ne(2));
                    let gone: Vec<Order> = tx.logged_delete_where(some)?;
                    assert_eq!(gone.len(), 2);
                    // Nothing is left to find.
                    let none: Vec<Order> =
                        tx.logged_delete_where(orders::table.filter(orders::id.eq(1)))?;
                    assert!(none.is_empty());
                    let error = tx.logged_delete_by_key::<Order, _>(1).unwrap_err();
                    assert!(matches!(
                        error,
                        Error::Database(diesel::result::Error::NotFound)
                    ));
                }
            }
            Ok(())
        })
        .unwrap();
        shop.check();
    }
}

#[test]
fn references_that_become_null_are_logged() {
    let mut shop = Shop::new();
    fill(&mut shop);
    shop.run(|tx| tx.logged_delete_by_key::<Clerk, _>(2))
        .unwrap();
    let mut news = shop.news();
    news.sort();
    let news: Vec<&str> = news
        .iter()
        .map(|line| line.split(" #").next().unwrap())
        .collect();
    assert_eq!(
        news,
        [
            "clerks/2 delete clerk(id=2 boss_id=1)",
            "order:1/2 update order(id=1 customer_id=1 clerk_id=NULL total=20 version=4) nulls[3] was(clerk_id=2 version=3) set[version] unset[clerk_id]",
            "order:3/2 update order(id=3 customer_id=2 clerk_id=NULL total=60 version=4) nulls[3] was(clerk_id=2 version=3) set[version] unset[clerk_id]",
        ]
    );
    shop.check();
    shop.run(|tx| tx.logged_delete_by_key::<Clerk, _>(1))
        .unwrap();
    shop.check();
}

#[test]
fn references_that_get_their_default_are_logged() {
    let mut shop = Shop::new();
    let folder = |id, parent_id| Folder { id, parent_id };
    shop.run(|tx| {
        tx.logged_insert_many::<Folder, _>([folder(1, None), folder(2, None), folder(3, Some(2))])?;
        tx.logged_insert_many::<File, _>([
            File {
                id: 1,
                folder_id: 1,
            },
            File {
                id: 2,
                folder_id: 2,
            },
            File {
                id: 3,
                folder_id: 3,
            },
        ])
    })
    .unwrap();
    shop.news();
    shop.run(|tx| tx.logged_delete_by_key::<Folder, _>(2))
        .unwrap();
    let mut news = shop.news();
    news.sort();
    let news: Vec<&str> = news
        .iter()
        .map(|line| line.split(" #").next().unwrap())
        .collect();
    assert_eq!(
        news,
        [
            "file:2/2 update file(id=2 folder_id=1) was(folder_id=2) set[folder_id]",
            "file:3/2 update file(id=3 folder_id=1) was(folder_id=3) set[folder_id]",
            "folder:2/2 delete folder(id=2 parent_id=NULL) nulls[2]",
            "folder:3/2 delete items folder(id=3 parent_id=2)",
        ]
    );
    shop.check();
}

/// A tree in one table: deep, with rows that the same statement deletes above and below each other,
/// and one that refers to itself.
#[test]
fn a_tree_goes_from_its_leaves() {
    let mut shop = Shop::new();
    let folder = |id, parent_id| Folder { id, parent_id };
    shop.run(|tx| {
        let mut folders = vec![
            folder(1, None),
            folder(500, Some(500)),
            folder(501, Some(500)),
        ];
        folders.extend((2..40).map(|id| folder(id, Some(id - 1))));
        folders.extend((100..400).map(|id| folder(id, Some(20))));
        tx.logged_insert_many::<Folder, _>(folders)
    })
    .unwrap();
    shop.news();
    let gone: Vec<Folder> = shop
        .run(|tx| {
            let some = folders::id.eq_any([38, 10, 20, 500]);
            tx.logged_delete_where(folders::table.filter(some))
        })
        .unwrap();
    assert_eq!(gone.len(), 4);
    let news = brief(shop.news());
    assert_eq!(news.len(), 30 + 300 + 2, "{news:#?}");
    let at = |id: i64| {
        news.iter()
            .position(|line| *line == format!("delete items folder {id}"))
            .unwrap()
    };
    for id in 10..39 {
        assert!(at(id + 1) < at(id), "{id}");
    }
    assert!((100..400).all(|id| at(id) < at(20)));
    assert!(at(501) < at(500));
    assert_eq!(count(&mut shop.conn, "folders"), 9);
    shop.check();
}

/// Several rows that refer to each other get other keys at once, with nothing else below.
#[test]
fn a_tree_gets_other_keys() {
    let mut shop = Shop::new();
    let folder = |id, parent_id| Folder { id, parent_id };
    shop.run(|tx| {
        let mut folders = vec![folder(1, None), folder(100, None)];
        folders.extend((2..10).map(|id| folder(id, Some(id - 1))));
        tx.logged_insert_many::<Folder, _>(folders)
    })
    .unwrap();
    shop.news();
    shop.run(|tx| {
        let all = folders::table.filter(folders::id.lt(100));
        let by = (
            folders::id.eq(folders::id + 50),
            folders::parent_id.eq(folders::parent_id + 50),
        );
        tx.logged_update_where::<Folder, _, _>(all, by)
    })
    .unwrap();
    let news = brief(shop.news());
    assert_eq!(news.len(), 2 * 9, "{news:#?}");
    let at = |id: i64| {
        news.iter()
            .position(|line| *line == format!("delete items folder {id}"))
            .unwrap()
    };
    assert!((1..9).all(|id| at(id + 1) < at(id)));
    shop.check();
}

#[test]
fn a_circle_is_refused() {
    let mut shop = Shop::new();
    let folder = |id, parent_id| Folder { id, parent_id };
    let two = shop
        .run(|tx| {
            let one: Folder = tx.logged_insert(folder(1, None))?;
            let two: Folder = tx.logged_insert(folder(2, Some(1)))?;
            tx.logged_update(&one, folders::parent_id.eq(2))?;
            Ok(two)
        })
        .unwrap();
    shop.news();
    let error = shop.run(|tx| tx.logged_delete(&two)).unwrap_err();
    assert!(matches!(error, Error::CascadeCircle { .. }), "{error:?}");
    assert_eq!(count(&mut shop.conn, "folders"), 2);
    shop.run(|tx| {
        let two = tx.logged_update(&two, folders::parent_id.eq(None::<i64>))?;
        tx.logged_delete(&two)
    })
    .unwrap();
    assert_eq!(count(&mut shop.conn, "folders"), 0);
    shop.check();
}

/// The target has the same triggers and keys, which must not do again what the log says.
#[test]
fn a_log_is_replayed_where_triggers_and_keys_act() {
    let mut shop = Shop::new();
    let ann = fill(&mut shop);
    shop.run(|tx| {
        tx.logged_delete_by_key::<Clerk, _>(2)?;
        let ann = tx.logged_update(&ann, customers::name.eq("anna"))?;
        tx.logged_delete_where::<Line, _>(
            lines::table.filter(lines::number.eq(2).and(lines::order_id.eq(3))),
        )?;
        tx.logged_delete(&ann)
    })
    .unwrap();
    let target = Db::with_side_effects();
    let mut target = target.connect();
    let replay = shop.oplog.replay(&mut shop.conn);
    replay.into_database(&mut target).unwrap();
    macro_rules! same {
        ($($table:ident: $model:ty,)*) => {$(
            let load = |conn: &mut Conn| {
                let rows: Vec<$model> = $table::table.select(<$model>::as_select()).load(conn).unwrap();
                let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
                rows.sort();
                rows
            };
            assert_eq!(load(&mut target), load(&mut shop.conn));
        )*};
    }
    same! {
        clerks: Clerk, customers: Customer, orders: Order, lines: Line, remarks: Remark,
        folders: Folder, files: File, shelves: Shelf, crates: Crate, things: Thing,
    }
    // They act again afterwards.
    let report = shop.oplog.check(&mut target).unwrap();
    assert_eq!(report, shop.oplog.check(&mut shop.conn).unwrap());
    diesel::update(customers::table)
        .set(customers::name.eq("x"))
        .execute(&mut target)
        .unwrap();
    let version: i64 = customers::table
        .select(customers::version)
        .first(&mut target)
        .unwrap();
    assert_eq!(version, 2);
}

/// Three shelves in one room with a crate and a thing on each; the last thing was on the first shelf.
pub fn furnish(shop: &mut Shop) {
    shop.run(place).unwrap();
    shop.check();
    shop.news();
}

/// What [`furnish`] writes.
pub fn place(tx: &mut Tx<'_, Conn>) -> Result<(), Error> {
    for id in 1..4 {
        let code = format!("c{id}");
        let shelf = Shelf {
            id,
            code: code.clone(),
            room: 1,
        };
        let shelf: Shelf = tx.logged_insert(shelf)?;
        let shelf_code = shelf.code.clone();
        let number = 1;
        tx.logged_insert::<Crate, _>(Crate {
            shelf_code,
            number,
            version: 1,
        })?;
        tx.logged_insert::<Thing, _>(Thing {
            id,
            shelf_code: shelf.code,
            number,
            shelf_id: (id == 1).then_some(id),
            was_at: (id == 3).then(|| "c1".to_owned()),
        })?;
    }
    Ok(())
}

#[test]
fn what_follows_a_changed_column_is_logged() {
    let mut shop = Shop::new();
    furnish(&mut shop);
    let moved: Shelf = shop
        .run(|tx| {
            let shelf: Shelf = tx.read_one(shelves::table.find(1).select(Shelf::as_select()))?;
            tx.logged_update(&shelf, shelves::code.eq("new"))
        })
        .unwrap();
    assert_eq!(moved.code, "new");
    // Which of the two things is found first is up to the database.
    let news: Vec<String> = brief(shop.news());
    let news: Vec<String> = news
        .iter()
        .map(|line| line.replace("thing 3", "thing 1"))
        .collect();
    assert_eq!(
        news,
        [
            "delete items thing 1",
            "delete items thing 1",
            "delete items crate \"c1\"",
            "delete items shelf 1",
            "create items shelf 1",
            "create items crate \"new\"",
            "create items thing 1",
            "create items thing 1",
        ]
    );
    let crate_: Crate = crates::table
        .filter(crates::shelf_code.eq("new"))
        .first(&mut shop.conn)
        .unwrap();
    assert_eq!(crate_.version, 2);
    let was_at: Option<String> = things::table
        .find(3)
        .select(things::was_at)
        .first(&mut shop.conn)
        .unwrap();
    assert_eq!(was_at, None);
    shop.check();
}

/// Only the aggregate changes, and the log has the row go and come: what is below must do so, too, or
/// a replay would lose it.
#[test]
fn what_is_below_moves_along_to_another_aggregate() {
    let mut shop = Shop::new();
    furnish(&mut shop);
    shop.run(|tx| {
        let shelf: Shelf = tx.read_one(shelves::table.find(1).select(Shelf::as_select()))?;
        tx.logged_update(&shelf, shelves::room.eq(2))
    })
    .unwrap();
    assert_eq!(shop.news().len(), 2 * (1 + 1 + 2));
    shop.check();
    let moved: Vec<Shelf> = shop
        .run(|tx| tx.logged_update_where(shelves::table, shelves::room.eq(2)))
        .unwrap();
    assert_eq!(moved.len(), 3);
    // The first one was there already.
    assert_eq!(shop.news().len(), 2 * (2 + 2 + 2));
    shop.check();
    shop.run(|tx| {
        let code = shelves::code.eq(shelves::code.concat("x"));
        tx.logged_update_where::<Shelf, _, _>(shelves::table.filter(shelves::id.ne(2)), code)
    })
    .unwrap();
    shop.check();
    // A column that is only read, and one that is set to what it was.
    shop.news();
    shop.run(|tx| {
        tx.logged_update_where::<Shelf, _, _>(shelves::table, shelves::room.eq(shelves::room))
    })
    .unwrap();
    assert_eq!(shop.news(), [""; 0]);
    shop.check();
}

#[test]
fn a_row_with_others_below_gets_another_key() {
    let mut shop = Shop::new();
    furnish(&mut shop);
    let new = shop
        .run(|tx| {
            let shelf: Shelf = tx.read_one(shelves::table.find(2).select(Shelf::as_select()))?;
            let shelf = tx.logged_update(&shelf, shelves::id.eq(20))?;
            tx.logged_update_where::<Shelf, _, _>(
                shelves::table.filter(shelves::id.eq(3)),
                shelves::id.eq(30),
            )?;
            Ok(shelf)
        })
        .unwrap();
    assert_eq!(new.id, 20);
    shop.check();
    // A key without an action still holds its row.
    let refused = shop.run(|tx| {
        let shelf: Shelf = tx.read_one(shelves::table.find(1).select(Shelf::as_select()))?;
        tx.logged_update(&shelf, shelves::id.eq(10))
    });
    assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
    let refused = shop.run(|tx| {
        let some = shelves::table.filter(shelves::id.ne(1));
        tx.logged_update_where::<Shelf, _, _>(some, shelves::id.eq(shelves::id + 1))
    });
    assert!(
        matches!(refused, Err(Error::Moved { type_name: "shelf" })),
        "{refused:?}"
    );
    // Nothing is below them, so that it does not matter which became which.
    shop.run(|tx| {
        tx.logged_delete_where::<Crate, _>(crates::table)?;
        tx.logged_update_where::<Shelf, _, _>(shelves::table, shelves::id.eq(shelves::id + 1))
    })
    .unwrap();
    shop.check();
}

fn memo(id: i64, body: &str) -> Memo {
    let body = body.to_owned();
    Memo {
        id,
        owner_id: 1,
        body,
    }
}

#[test]
fn triggers_move_rows_to_other_aggregates() {
    let mut shop = Shop::new();
    let (one, two) = shop
        .run(|tx| {
            let one: Memo = tx.logged_insert(memo(1, "move"))?;
            let two: Memo = tx.logged_insert(memo(2, ""))?;
            let two = tx.logged_update(&two, memos::body.eq("move"))?;
            Ok((one, two))
        })
        .unwrap();
    assert_eq!((one.owner_id, two.owner_id), (2, 2));
    let mut news = shop.news();
    news.sort_by_key(|line| line.rsplit_once('#').unwrap().1.to_owned());
    assert_eq!(
        news,
        [
            r#"memos:2/1 create memo(id=1 owner_id=2 body="move") #0"#,
            r#"memos:1/1 create memo(id=2 owner_id=1 body="") #1"#,
            r#"memos:1/1 delete memo(id=2 owner_id=1 body="") #2"#,
            r#"memos:2/1 create memo(id=2 owner_id=2 body="move") #3"#,
        ]
    );
    shop.check();
    let moved: Vec<Memo> = shop
        .run(|tx| {
            tx.logged_update_where::<Memo, _, _>(memos::table, memos::body.eq(""))?;
            tx.logged_update_where(memos::table, memos::body.eq("move"))
        })
        .unwrap();
    assert!(moved.iter().all(|memo| memo.owner_id == 3));
    shop.check();
}

#[test]
fn triggers_delete_rows_and_bring_them_back() {
    let mut shop = Shop::new();
    // What was never there for anybody is not logged.
    let gone: Memo = shop.run(|tx| tx.logged_insert(memo(1, "drop"))).unwrap();
    assert_eq!(gone.body, "drop");
    assert_eq!(shop.news(), [""; 0]);
    shop.check();

    shop.run(|tx| {
        let many = [
            memo(1, "a"),
            memo(2, "drop"),
            memo(3, "b"),
            memo(4, "c"),
            memo(5, "keep"),
        ];
        tx.logged_insert_many::<Memo, _>(many)
    })
    .unwrap();
    assert_eq!(shop.news().len(), 4);
    shop.check();
    shop.run(|tx| tx.logged_update::<Memo, _>(&memo(1, ""), memos::body.eq("drop")))
        .unwrap();
    assert_eq!(
        shop.news(),
        [r#"memos:1/2 delete memo(id=1 owner_id=1 body="a")"#]
    );
    shop.check();
    shop.run(|tx| {
        let some = memos::table.filter(memos::id.lt(5));
        tx.logged_update_where::<Memo, _, _>(some, memos::body.eq("drop"))
    })
    .unwrap();
    assert_eq!(shop.news().len(), 2);
    shop.check();

    shop.run(|tx| tx.logged_delete_by_key::<Memo, _>(5))
        .unwrap();
    assert_eq!(
        shop.news(),
        [
            r#"memos:1/4 delete memo(id=5 owner_id=1 body="keep")"#,
            r#"memos:1/4 create memo(id=5 owner_id=1 body="kept")"#,
        ]
    );
    shop.check();
}

diesel::table! { stamps (id) { id -> BigInt, seen -> BigInt, } }

/// A row whose triggers change nothing that is logged.
#[derive(Queryable, Insertable, Oplogged, Clone, Debug, PartialEq)]
#[diesel(table_name = stamps)]
#[oplog(type_name = "stamp", aggregate = "stamps")]
#[oplog(unlogged_columns(seen), triggers = "ignore")]
struct Stamp {
    #[oplog(tag = 1)]
    id: i64,
}

#[test]
fn triggers_may_be_ignored() {
    let db = Db::with_side_effects();
    let mut conn = db.connect();
    conn.batch_execute(
        "CREATE TABLE stamps (id BIGINT PRIMARY KEY, seen BIGINT NOT NULL DEFAULT 0)",
    )
    .unwrap();
    conn.batch_execute(match backend() {
        "SQLite" => {
            "CREATE TRIGGER seen AFTER INSERT ON stamps BEGIN UPDATE stamps SET seen = 1 WHERE id = NEW.id; END"
        }
        _ => {
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN UPDATE stamps SET seen = 1 WHERE id = NEW.id; RETURN NULL; END';
             CREATE TRIGGER seen AFTER INSERT ON stamps FOR EACH ROW EXECUTE FUNCTION see()"
        }
    })
    .unwrap();
    let oplog = builder(&db).open(&mut conn).unwrap();
    let report = oplog.check(&mut conn).unwrap();
    let of_stamps = report
        .side_effects
        .iter()
        .find(|effect| effect.table == "stamps")
        .unwrap();
    assert!(of_stamps.is_declared, "{of_stamps}");
    oplog
        .transaction::<_, _, Error, _>(&mut conn, |tx| tx.logged_insert(Stamp { id: 7 }))
        .map(|stamp: Stamp| assert_eq!(stamp.id, 7))
        .unwrap();
    assert_eq!(messages(&oplog, &mut conn), ["stamps/1 create stamp(id=7)"]);
    let seen: i64 = stamps::table.select(stamps::seen).first(&mut conn).unwrap();
    assert_eq!(seen, 1);
}
