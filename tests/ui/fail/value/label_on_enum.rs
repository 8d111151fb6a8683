use oplog_diesel::prelude::*;

#[derive(OplogValue)]
#[oplog(label = "state")]
enum State {
    #[oplog(label = "active")]
    Active,
}

fn main() {}
