use oplog_diesel::prelude::*;

diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Text,
    }
}

#[derive(Oplogged)]
#[diesel(table_name = accounts)]
#[oplog(type_name = "account", aggregate = "account", unlogged_columns(owner, owner))]
struct Account {
    #[oplog(tag = 1)]
    id: i64,
    
}

fn main() {}
