//! The first-parent line of a repository, oldest commit first.

use std::path::{Path, PathBuf};

use git2::{Commit, ErrorClass, ErrorCode, Odb, Oid, Repository};

use crate::moment;
use crate::tree::TreeDiff;

/// A repository and the commits of its first-parent line, oldest first.
///
/// Only the ids of the commits are held; commits, trees and sizes are read when they are asked for.
pub struct History {
    repo: Repository,
    line: Vec<Oid>,
}

/// What the log says about a commit.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// The commit's id in hexadecimal digits.
    pub id: String,
    /// Author as `name <email>`; bytes that are not UTF-8 are replaced, control characters too.
    pub author: String,
    /// When the author wrote it, in RFC 3339 with the author's own offset from UTC.
    pub time: String,
}

/// Why the repository can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is no repository at the path or above it.
    #[error(
        "{} is not in a Git repository; go into one or name one with --repo PATH",
        path.display()
    )]
    NotARepository { path: PathBuf },
    /// The repository belongs to somebody else, which libgit2 takes for a trap, as Git does.
    #[error(
        "the repository at {} belongs to another user; if you trust it, run \
         `git config --global --add safe.directory {}`",
        path.display(), path.display()
    )]
    NotYours { path: PathBuf },
    /// The repository uses a feature of Git that libgit2 does not know.
    #[error(
        "the repository at {} has a form that libgit2 can't read (a partial clone, for example); \
         make a plain full clone of it and name that with --repo PATH",
        path.display()
    )]
    UnknownForm { path: PathBuf, source: git2::Error },
    /// `HEAD` leads to no commit.
    #[error("the repository at {} has no commit yet; commit something first", path.display())]
    NoCommit { path: PathBuf },
    /// An object that the history needs is not there.
    #[error(
        "the {kind} {id} is not in the repository; `git fsck` says more, `git fetch --refetch` may bring it back"
    )]
    MissingObject { kind: &'static str, id: Oid },
    /// A tree that Git itself would not have written.
    #[error("the tree {id} is malformed ({what}); `git fsck` says more")]
    MalformedTree { id: Oid, what: &'static str },
    /// Anything else that libgit2 reports.
    #[error("the repository can't be read; `git fsck` says more")]
    Git(#[from] git2::Error),
}

impl History {
    /// Opens the repository that contains `path` and walks the first-parent line of its `HEAD`,
    /// of which it keeps the `limit` oldest commits.
    pub fn open(path: &Path, limit: Option<usize>) -> Result<Self, HistoryError> {
        // Each object is read once or twice here: a cache would only hold memory.
        git2::opts::enable_caching(false);
        let repo = Repository::discover(path).map_err(|error| open_error(path, error))?;
        let mut line = first_parent_line(&repo)?;
        line.reverse();
        line.truncate(limit.unwrap_or(usize::MAX));
        Ok(Self { repo, line })
    }

    /// Number of commits.
    pub fn len(&self) -> usize {
        self.line.len()
    }

    /// The folder of the repository: the work tree, or the Git folder of a bare one.
    pub fn path(&self) -> &Path {
        folder(&self.repo)
    }

    /// What the log says about the commit at this place of the line.
    pub fn facts(&self, index: usize) -> Result<CommitFacts, HistoryError> {
        let commit = find_commit(&self.repo, self.line[index])?;
        let author = commit.author();
        let text = |bytes| readable(&String::from_utf8_lossy(bytes));
        Ok(CommitFacts {
            id: commit.id().to_string(),
            author: format!(
                "{} <{}>",
                text(author.name_bytes()),
                text(author.email_bytes())
            ),
            time: moment::rfc3339(author.when().seconds(), author.when().offset_minutes()),
        })
    }

    /// What the commit at this place changed against its first parent; the oldest one created all
    /// that it holds.
    pub fn changes(&self, index: usize) -> Result<TreeDiff<'_>, HistoryError> {
        let before = match index.checked_sub(1) {
            Some(parent) => Some(self.tree(parent)?),
            None => None,
        };
        TreeDiff::new(&self.repo, self.odb()?, before, Some(self.tree(index)?))
    }

    /// All files of the commit at this place, as if it had created them, in the order of their paths.
    pub fn files(&self, index: usize) -> Result<TreeDiff<'_>, HistoryError> {
        TreeDiff::new(&self.repo, self.odb()?, None, Some(self.tree(index)?))
    }

    fn tree(&self, index: usize) -> Result<Oid, HistoryError> {
        Ok(find_commit(&self.repo, self.line[index])?.tree_id())
    }

    fn odb(&self) -> Result<Odb<'_>, HistoryError> {
        Ok(self.repo.odb()?)
    }
}

/// The ids of the first-parent line, newest first.
fn first_parent_line(repo: &Repository) -> Result<Vec<Oid>, HistoryError> {
    let head = match repo.head() {
        Ok(head) => head.peel_to_commit()?,
        Err(error) if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) => {
            return Err(HistoryError::NoCommit {
                path: folder(repo).to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let shallow = repo.is_shallow();
    let mut line = vec![head.id()];
    let mut commit = head;
    while commit.parent_count() > 0 {
        commit = match find_commit(repo, commit.parent_id(0)?) {
            Ok(parent) => parent,
            // The history of a shallow clone begins where the clone does.
            Err(HistoryError::MissingObject { .. }) if shallow => break,
            Err(error) => return Err(error),
        };
        line.push(commit.id());
    }
    Ok(line)
}

fn find_commit(repo: &Repository, id: Oid) -> Result<Commit<'_>, HistoryError> {
    repo.find_commit(id)
        .map_err(|error| missing("commit", id, error))
}

/// A missing object by its name, any other error as it is.
pub fn missing(kind: &'static str, id: Oid, error: git2::Error) -> HistoryError {
    match error.code() {
        ErrorCode::NotFound => HistoryError::MissingObject { kind, id },
        _ => HistoryError::Git(error),
    }
}

fn folder(repo: &Repository) -> &Path {
    repo.workdir().unwrap_or(repo.path())
}

fn open_error(path: &Path, error: git2::Error) -> HistoryError {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let extension = error.class() == ErrorClass::Repository && error.code() != ErrorCode::NotFound;
    match error.code() {
        ErrorCode::NotFound => HistoryError::NotARepository { path },
        // Git wants to be told the repository itself, not a folder in it.
        ErrorCode::Owner => {
            let root = path.ancestors().find(|folder| folder.join(".git").exists());
            HistoryError::NotYours {
                path: root.unwrap_or(&path).to_owned(),
            }
        }
        _ if extension => HistoryError::UnknownForm {
            path,
            source: error,
        },
        _ => HistoryError::Git(error),
    }
}

/// The text with its control characters replaced: it goes to a terminal later, and U+0000 can't be
/// stored. Cut at a length no honest name has.
fn readable(text: &str) -> String {
    const CHARS_MAX: usize = 500;
    let safe = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.trim().chars().take(CHARS_MAX).map(safe).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::testing::Scratch;

    #[test]
    fn the_line_is_the_first_parents_oldest_first() {
        let repo = Scratch::new();
        let root = repo.commit(&[], &[("a", "1")]);
        let side = repo.commit(&[root], &[("a", "1"), ("side", "s")]);
        let main = repo.commit(&[root], &[("a", "2")]);
        let merge = repo.commit(&[main, side], &[("a", "2"), ("side", "s")]);
        let last = repo.commit(&[merge], &[("a", "3"), ("side", "s")]);
        repo.head(last);

        let history = History::open(repo.path(), None).unwrap();
        assert_eq!(history.line, [root, main, merge, last]);
        let changes: Vec<_> = history
            .changes(2)
            .unwrap()
            .map(|c| c.unwrap().path().to_vec())
            .collect();
        assert_eq!(changes, [b"side"]);

        let oldest = History::open(repo.path(), Some(2)).unwrap();
        assert_eq!(oldest.line, [root, main]);
    }

    #[test]
    fn facts_are_text_whatever_the_commit_holds() {
        let repo = Scratch::new();
        let tree = repo.tree(&[("a", "1")]);
        let id = repo.raw_commit(tree, b"J\xf6rg \x1b[31m <jo@\xffrg> 1700000000 -0330");
        repo.head(id);
        let facts = History::open(repo.path(), None).unwrap().facts(0).unwrap();
        assert_eq!(facts.author, "J\u{fffd}rg \u{fffd}[31m <jo@\u{fffd}rg>");
        assert_eq!(facts.time, "2023-11-14T18:43:20-03:30");
        assert_eq!(facts.id, id.to_string());
    }

    #[test]
    fn no_repository_and_no_commit_are_said_plainly() {
        let folder = tempfile::tempdir().unwrap();
        let error = History::open(folder.path(), None).err().unwrap();
        assert!(
            matches!(error, HistoryError::NotARepository { .. }),
            "{error:?}"
        );
        let error = History::open(&folder.path().join("missing"), None)
            .err()
            .unwrap();
        assert!(
            matches!(error, HistoryError::NotARepository { .. }),
            "{error:?}"
        );

        let empty = Scratch::new();
        let error = History::open(empty.path(), None).err().unwrap();
        assert!(matches!(error, HistoryError::NoCommit { .. }), "{error:?}");
    }

    #[test]
    fn a_folder_below_the_root_finds_the_repository() {
        let repo = Scratch::new();
        let id = repo.commit(&[], &[("a", "1")]);
        repo.head(id);
        let below = repo.path().join("some/folder");
        std::fs::create_dir_all(&below).unwrap();
        assert_eq!(History::open(&below, None).unwrap().len(), 1);
    }

    #[test]
    fn a_shallow_boundary_counts_as_the_first_commit() {
        let repo = Scratch::new();
        let root = repo.commit(&[], &[("a", "1")]);
        let boundary = repo.commit(&[root], &[("a", "2"), ("b", "1")]);
        let last = repo.commit(&[boundary], &[("a", "3"), ("b", "1")]);
        repo.head(last);
        std::fs::write(repo.path().join(".git/shallow"), format!("{boundary}\n")).unwrap();
        repo.forget(root);

        let history = History::open(repo.path(), None).unwrap();
        assert_eq!(history.line, [boundary, last]);
        assert_eq!(history.changes(0).unwrap().count(), 2);
    }

    #[test]
    fn a_missing_parent_of_a_full_clone_is_an_error() {
        let repo = Scratch::new();
        let root = repo.commit(&[], &[("a", "1")]);
        let last = repo.commit(&[root], &[("a", "2")]);
        repo.head(last);
        repo.forget(root);
        let error = History::open(repo.path(), None).err().unwrap();
        assert!(matches!(error, HistoryError::MissingObject { kind: "commit", id } if id == root));
    }

    #[test]
    fn a_repository_with_sha_256_ids_works() {
        let repo = Scratch::with_sha_256();
        let id = repo.commit(&[], &[("a", "1")]);
        repo.head(id);
        let history = History::open(repo.path(), None).unwrap();
        let change = history.files(0).unwrap().next().unwrap().unwrap();
        assert_eq!(change.after().unwrap().blob_id.len(), 32);
    }
}
