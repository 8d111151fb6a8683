use diesel::prelude::*;
use oplog_diesel::prelude::*;
use oplog_diesel::Error;
use oplog_tests::models::*;
use oplog_tests::schema::*;

use crate::db::Db;

fn open(db: &Db) -> Oplog {
    let key = KeyFile::create_if_missing(db.folder().join("oplog.key")).unwrap();
    Oplog::builder().key(key).open(&mut db.connect()).unwrap()
}

#[test]
fn the_program_of_the_readme_works() {
    let db = Db::new();
    let oplog = open(&db);
    let conn = &mut db.connect();
    let alice: Account = oplog
        .metadata("actor", "root")
        .transaction(conn, |tx| {
            let alice: Account = tx.logged_insert(&NewAccount { owner: "Alice" })?;
            tx.logged_update(&alice, accounts::email.eq("alice@example.com"))
        })
        .map_err(|e: Error| e)
        .unwrap();
    assert_eq!(alice.email.as_deref(), Some("alice@example.com"));
    oplog
        .on(alice.aggregate())
        .transaction(conn, |tx| {
            let now: Account = tx.read_one(accounts::table.find(alice.id).select(Account::as_select()))?;
            tx.logged_update(&now, accounts::balance.eq(now.balance - 5))
        })
        .map_err(|e: Error| e)
        .unwrap();
    let n = oplog
        .transaction(conn, |tx| {
            let bob: Account = tx.logged_insert((accounts::owner.eq("Bob"), accounts::balance.eq(7)))?;
            let bob = tx.logged_update(&bob, &AccountChange { owner: None, email: Some(None) })?;
            let bob = tx.logged_update(&bob, (accounts::balance.eq(accounts::balance + 1), accounts::owner.eq("Bobby")))?;
            let rich: Vec<Account> =
                tx.logged_update_where(accounts::table.filter(accounts::balance.gt(4)), accounts::balance.eq(accounts::balance * 2))?;
            tx.logged_delete(&bob)?;
            let gone2: Vec<Account> = tx.logged_delete_where(accounts::table.filter(accounts::owner.like("Ali%")))?;
            let gone3: Vec<Account> = tx.logged_delete_where(accounts::table.find(99))?;
            let many: Vec<Account> = tx.logged_insert_many(vec![NewAccount { owner: "a" }, NewAccount { owner: "b" }])?;
            tx.logged_delete_by_key::<Account, _>(many[0].id)?;
            Ok::<_, Error>((rich.len(), gone2.len(), gone3.len()))
        })
        .unwrap();
    assert_eq!(n, (2, 1, 0));
    let report = oplog.verify_contents(conn).unwrap();
    assert!(report.is_intact(), "{:?}", report.findings);
    let replayed = oplog.replay(conn).into_suffix("_replay").unwrap();
    assert_eq!(replayed.rows, 1);
    let db2 = Db::new();
    let replayed = oplog.replay(conn).into_database(&mut db2.connect()).unwrap();
    assert_eq!(replayed.rows, 1);
}
