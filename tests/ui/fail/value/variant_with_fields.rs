use oplog_diesel::prelude::*;

#[derive(OplogValue)]
enum State {
    #[oplog(label = "active")]
    Active,
    #[oplog(label = "closed")]
    Closed { reason: String },
}

fn main() {}
