//! Compiles the programs of `pass/` and those of `fail/`, one mistake in each.
//!
//! The text of an error belongs to the compiler too, so `fail/` is compared on one version of it.
//! After a change of a message: `TRYBUILD=overwrite cargo test -p oplog-ui-tests`, and read the
//! difference as the user would who made the mistake.

/// The compiler that wrote the `.stderr` files.
const RUSTC: &str = "rustc 1.95.";

#[test]
fn ui() {
    let tests = trybuild::TestCases::new();
    tests.pass("pass/*.rs");
    if compiler().starts_with(RUSTC) {
        tests.compile_fail("fail/*/*.rs");
    } else {
        eprintln!("not compared: the texts in fail/ are those of {RUSTC}x, this is {}", compiler());
    }
}

fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).arg("--version").output();
    let output = output.expect("cargo found a compiler to build this test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
