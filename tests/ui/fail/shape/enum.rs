use oplog_diesel::prelude::*;

#[derive(Oplogged)]
enum Account {
    Open,
    Closed,
}

fn main() {}
