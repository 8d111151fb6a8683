//! The version that documents show is the one that a release would have.

use std::fs;

use crate::error::{Error, Result, cannot};
use crate::shell::Shell;

/// Compares README.md, CHANGELOG.md and the pins of our crates to each other with the workspace's version.
pub(crate) fn check(shell: &Shell) -> Result<()> {
    let read = |name: &str| {
        fs::read_to_string(shell.root.join(name)).map_err(cannot(format!("read {name}")))
    };
    let manifest = read("Cargo.toml")?;
    let version = workspace_version(&manifest)
        .ok_or_else(|| Error::new("Cargo.toml has no `version = \"…\"` in [workspace.package]"))?;
    let faults = [
        pins(&manifest, version),
        readme(&read("README.md")?, version),
        changelog(&read("CHANGELOG.md")?, version),
    ];
    match faults.into_iter().flatten().next() {
        Some(fault) => Err(Error::new(fault)),
        None => Ok(()),
    }
}

fn workspace_version(manifest: &str) -> Option<&str> {
    let section = manifest.split_once("[workspace.package]")?.1;
    let section = section
        .split_once("\n[")
        .map_or(section, |(section, _)| section);
    section
        .lines()
        .find_map(|line| line.strip_prefix("version"))
        .and_then(quoted)
}

/// Our crates use each other's hidden items, so `=` is the only requirement that holds.
fn pins(manifest: &str, version: &str) -> Option<String> {
    let wanted = format!("version = \"={version}\"");
    let wrong = manifest
        .lines()
        .find(|line| line.starts_with("oplog-") && !line.contains(&wanted))?;
    Some(format!("Cargo.toml: `{wrong}` does not have `{wanted}`"))
}

fn readme(text: &str, version: &str) -> Option<String> {
    let mut shown = text
        .lines()
        .filter(|line| line.trim_start().starts_with("oplog-diesel = "))
        .peekable();
    if shown.peek().is_none() {
        return Some("README.md shows no dependency line `oplog-diesel = …`".to_owned());
    }
    let wrong = shown.find(|line| {
        let found = line.split_once("version").map_or(*line, |(_, rest)| rest);
        !quoted(found).is_some_and(|found| {
            found == version || Some(found) == version.rsplit_once('.').map(|v| v.0)
        })
    })?;
    Some(format!(
        "README.md: `{}` does not name version {version}",
        wrong.trim()
    ))
}

fn changelog(text: &str, version: &str) -> Option<String> {
    let mut titles = text.lines().filter(|line| line.starts_with("## "));
    let found = titles
        .next()
        .is_some_and(|title| title.contains(version) || title.contains("Unreleased"));
    (!found)
        .then(|| format!("CHANGELOG.md: the first `## ` title is neither {version} nor Unreleased"))
}

fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_version_is_not_that_of_a_dependency() {
        let manifest = "[package]\nversion = \"9\"\n[workspace.package]\nedition = \"2024\"\nversion = \"0.1.0\"\n[x]\n";
        assert_eq!(workspace_version(manifest), Some("0.1.0"));
        assert_eq!(
            workspace_version("[workspace.package]\n[x]\nversion = \"1\""),
            None
        );
    }

    #[test]
    fn a_readme_that_fell_behind_is_found() {
        let check = |text, good| assert_eq!(readme(text, "0.2.0").is_none(), good, "{text}");
        check("oplog-diesel = \"0.2\"", true);
        check(
            "oplog-diesel = { version = \"0.2.0\", features = [\"sqlite\"] }",
            true,
        );
        check(
            "oplog-diesel = { features = [\"sqlite\"], version = \"0.2\" }",
            true,
        );
        check("oplog-diesel = \"0.2\"\noplog-diesel = \"0.1\"", false);
        check("oplog-diesel = \"0\"", false);
        check("oplog-diesel = { path = \".\" }", false);
        check("nothing", false);
    }

    #[test]
    fn pins_and_changelog_follow_the_version() {
        assert!(
            pins(
                "oplog-core = { path = \"oplog-core\", version = \"=0.2.0\" }",
                "0.2.0"
            )
            .is_none()
        );
        assert!(
            pins(
                "oplog-core = { path = \"oplog-core\", version = \"=0.1.0\" }",
                "0.2.0"
            )
            .is_some()
        );
        assert!(changelog("# Changes\n## Unreleased\n## 0.1.0", "0.2.0").is_none());
        assert!(changelog("## 0.2.0 (2027-01-01)", "0.2.0").is_none());
        assert!(changelog("## 0.1.0", "0.2.0").is_some());
    }
}
