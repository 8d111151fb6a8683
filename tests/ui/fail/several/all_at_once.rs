use oplog_diesel::prelude::*;

diesel::table! {
    accounts (id) {
        id -> BigInt,
        owner -> Text,
        email -> Nullable<Text>,
        balance -> BigInt,
    }
}

#[derive(Oplogged)]
#[diesel(table_name = accounts)]
#[oplog(typename = "account", aggregate = "account:", root = owners, reserved(3))]
struct Account {
    #[oplog(tag = 1)]
    id: i64,
    #[oplog(tag = 1)]
    owner: String,
    #[oplog(tag = 3)]
    email: Option<String>,
    balance: i64,
}

// The mistakes above cause no others here.
fn aggregate(account: &Account) -> impl Sized {
    account.aggregate()
}

fn main() {}
