use oplog_diesel::prelude::*;

struct Account {
    id: i64,
}

fn needs_a_model<M: Oplogged>(_: &M) {}

fn main() {
    needs_a_model(&Account { id: 1 });
}
