//! The command as its user meets it, on SQLite.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

#[path = "../src/testing.rs"]
mod testing;

use testing::{Scratch, varied};

fn git_history(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_git-history"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn json_is_one_object_and_nothing_else() {
    let repo = varied();
    let output = git_history(repo.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut expected = [
        "commits",
        "entries",
        "messages",
        "rows",
        "compared",
        "tamper_found",
        "log_bytes",
        "log_seconds",
        "replay_seconds",
        "peak_rss_bytes",
    ];
    expected.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(json["commits"], 13);
    assert_eq!(json["entries"], 12);
    assert_eq!(json["messages"], 28);
    assert_eq!(json["rows"], 2);
    assert_eq!(json["tamper_found"], true);
    let compared = json["compared"].as_array().unwrap();
    assert_eq!(compared.len(), 11);
    for one in compared {
        assert_eq!(one["differences"], 0);
        assert_eq!(one["commit"].as_str().unwrap().len(), 40);
    }
    assert_eq!(compared[10]["rows"], 2);
}

#[test]
fn the_oldest_commits_can_be_taken_alone() {
    let repo = varied();
    for (commits, entries, rows) in [(1, 1, 4), (2, 2, 3), (3, 2, 3), (99, 12, 2)] {
        let limit = commits.to_string();
        let output = git_history(repo.path(), &["--json", "--limit", &limit]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let commits = commits.min(13);
        assert_eq!(json["commits"], commits);
        assert_eq!(json["entries"], entries);
        assert_eq!(json["rows"], rows);
        assert_eq!(json["compared"].as_array().unwrap().len(), commits.min(11));
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn people_read_who_did_what_and_when() {
    let repo = varied();
    let elsewhere = tempfile::tempdir().unwrap();
    let database = elsewhere.path().join("log.sqlite");
    let database = database.to_str().unwrap();
    let repository = repo.path().to_str().unwrap();
    let arguments = ["--repo", repository, "--database-url", database];
    let output = git_history(elsewhere.path(), &arguments);
    let shown = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{shown}{}",
        text(&output.stderr)
    );
    for expected in [
        "13 commits",
        "12 entries",
        "1 of them changed no file",
        "Ann <ann@example.com>",
        "created 4/5/6 (3 bytes)",
        "exactly at each of 11 commits, and the flipped byte was found",
    ] {
        assert!(
            shown.contains(expected),
            "{expected:?} is missing in:\n{shown}"
        );
    }

    // The database stays, with its key, and is never written twice.
    assert!(Path::new(database).exists());
    assert!(elsewhere.path().join("log.sqlite.key").exists());
    let again = git_history(elsewhere.path(), &arguments);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("exists already"));
}

#[test]
fn what_can_not_be_done_is_said_with_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str], folder: &Path, expected: &str| {
        let output = git_history(folder, arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(output.stdout.is_empty());
        assert!(
            said.contains(expected),
            "{expected:?} is missing in: {said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    check(
        &["--json"],
        folder.path(),
        "is not in a Git repository; go into one",
    );
    check(&["--json"], Scratch::new().path(), "no commit yet");

    let repo = varied();
    let arguments = ["--json", "--database-url", "mysql://localhost/x"];
    check(&arguments, repo.path(), "not a mysql: URL");
    let arguments = ["--json", "--database-url", "postgres:///x?host=/missing"];
    check(
        &arguments,
        repo.path(),
        "check --database-url and whether the server runs",
    );

    let empty = Scratch::new();
    let head = empty.commit(&[], &[]);
    empty.head(head);
    check(&["--json"], empty.path(), "nothing to log");
}
