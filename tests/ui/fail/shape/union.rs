use oplog_diesel::prelude::*;

#[derive(Oplogged)]
union Account {
    id: i64,
    balance: f64,
}

fn main() {}
