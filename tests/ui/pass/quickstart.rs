use diesel::prelude::*;
use oplog_diesel::prelude::*;

diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Text,
        balance -> BigInt,
        email -> Nullable<Text>,
    }
}

#[derive(Queryable, Selectable, Identifiable, Oplogged, Debug)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", root = id)]
struct Account {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 2)]
    owner: String,
    #[oplog(tag = 3)]
    balance: i64,
    #[oplog(tag = 4)]
    email: Option<String>,
}

fn main() {
    let account = Account { id: 42, owner: "Alice".into(), balance: 5, email: None };
    assert_eq!(account.aggregate().to_string(), "account:42");
}
