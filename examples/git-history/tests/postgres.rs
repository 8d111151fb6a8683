//! The command on PostgreSQL, on the server that `cargo xtask test` starts.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use diesel::prelude::*;

#[path = "../src/testing.rs"]
mod testing;

const VARIABLE: &str = "OPLOG_TEST_POSTGRES_URL";

#[test]
fn everything_happens_in_schemas_that_are_gone_afterwards() {
    let url = std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!("{VARIABLE} is not set: run `cargo xtask test`, or set it to the URL of a server for tests")
    });
    let repo = testing::varied();
    let output = Command::new(env!("CARGO_BIN_EXE_git-history"))
        .current_dir(repo.path())
        .args(["--json", "--database-url", &url])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, value) in [
        ("commits", 13),
        ("entries", 12),
        ("messages", 28),
        ("rows", 2),
    ] {
        assert_eq!(json[key], value, "{key}");
    }
    assert_eq!(json["tamper_found"], true);
    assert!(
        json["compared"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["differences"] == 0)
    );

    let mut conn = PgConnection::establish(&url).unwrap();
    let left: i64 = diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>(
        "(SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'git\\_history\\_%')",
    ))
    .get_result(&mut conn)
    .unwrap();
    assert_eq!(left, 0);
}
