use oplog_diesel::prelude::*;

#[derive(OplogValue)]
enum State {
    #[oplog(label = "active")]
    Active,
    ShutDown,
}

fn main() {}
