use oplog_diesel::prelude::*;

#[derive(OplogValue)]
struct Money {
    cents: i64,
    currency: String,
}

fn main() {}
