//! What changed between two trees, file by file.

use std::cmp::Ordering;

use git2::{ErrorCode, Odb, Oid, Repository, Tree};

use crate::history::{HistoryError, missing};
use crate::model::File;

const KIND_MASK: i32 = 0o170000;
const KIND_TREE: i32 = 0o040000;
const KIND_SUBMODULE: i32 = 0o160000;

/// One file that differs between two trees. A rename is a delete and a create, as in Git itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The file is only in the later tree.
    Create(File),
    /// The file is in both, with another content, mode or kind.
    Update { before: File, after: File },
    /// The file is only in the earlier tree.
    Delete(File),
}

impl Change {
    /// The path that changed.
    #[cfg(test)]
    pub fn path(&self) -> &[u8] {
        match self {
            Change::Create(file) | Change::Delete(file) | Change::Update { after: file, .. } => {
                &file.path
            }
        }
    }

    /// The file as it is after the change.
    pub fn after(self) -> Option<File> {
        match self {
            Change::Create(file) | Change::Update { after: file, .. } => Some(file),
            Change::Delete(_) => None,
        }
    }
}

/// Yields the changes from one tree to another in the byte order of their paths.
///
/// Walks both trees side by side and passes over equal folders, so it holds one open tree for each
/// level of folders and never a list of changes. Git sorts a folder as if its name ended in `/`,
/// which is why the files come in the byte order of their whole paths.
pub struct TreeDiff<'r> {
    odb: Odb<'r>,
    before: Cursor<'r>,
    after: Cursor<'r>,
    failed: bool,
}

impl<'r> TreeDiff<'r> {
    /// The changes from the tree `before` to the tree `after`; `None` is a tree without files.
    pub fn new(
        repo: &'r Repository,
        odb: Odb<'r>,
        before: Option<Oid>,
        after: Option<Oid>,
    ) -> Result<Self, HistoryError> {
        let unchanged = before == after;
        Ok(Self {
            odb,
            before: Cursor::new(repo, before.filter(|_| !unchanged))?,
            after: Cursor::new(repo, after.filter(|_| !unchanged))?,
            failed: false,
        })
    }

    fn step(&mut self) -> Result<Option<Change>, HistoryError> {
        loop {
            let order = match (&self.before.entry, &self.after.entry) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), Some(_)) => self.before.path.cmp(&self.after.path),
            };
            match order {
                Ordering::Less => {
                    if let Some(gone) = self.before.take_file()? {
                        return Ok(Some(Change::Delete(self.file(gone)?)));
                    }
                }
                Ordering::Greater => {
                    if let Some(new) = self.after.take_file()? {
                        return Ok(Some(Change::Create(self.file(new)?)));
                    }
                }
                Ordering::Equal => {
                    if self.before.entry == self.after.entry {
                        self.before.pass()?;
                        self.after.pass()?;
                        continue;
                    }
                    // The same path means the same kind of entry: only a folder's ends in `/`.
                    let (before, after) = (self.before.take_file()?, self.after.take_file()?);
                    if let (Some(before), Some(after)) = (before, after) {
                        let (before, after) = (self.file(before)?, self.file(after)?);
                        return Ok(Some(Change::Update { before, after }));
                    }
                }
            }
        }
    }

    /// Adds the size of a file to what the tree says about it.
    fn file(&self, (path, entry): (Vec<u8>, Entry)) -> Result<File, HistoryError> {
        let size = match entry.mode & KIND_MASK {
            KIND_SUBMODULE => Some(0),
            // From the object's header alone: the content may be larger than the memory.
            _ => match self.odb.read_header(entry.id) {
                Ok((size, _)) => Some(i64::try_from(size).unwrap_or(i64::MAX)),
                Err(error) if error.code() == ErrorCode::NotFound => None,
                Err(error) => return Err(error.into()),
            },
        };
        Ok(File {
            path,
            mode: entry.mode,
            blob_id: entry.id.as_bytes().to_vec(),
            size,
        })
    }
}

impl Iterator for TreeDiff<'_> {
    type Item = Result<Change, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step().transpose();
        self.failed = matches!(step, Some(Err(_)));
        step
    }
}

/// A place in the walk through one tree.
struct Cursor<'r> {
    repo: &'r Repository,
    levels: Vec<Level<'r>>,
    /// The entry at this place, `None` at the end of the tree.
    entry: Option<Entry>,
    /// Its whole path, with a `/` at the end if it is a folder.
    path: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    mode: i32,
    id: Oid,
}

impl Entry {
    fn is_tree(self) -> bool {
        self.mode & KIND_MASK == KIND_TREE
    }
}

/// An open folder.
struct Level<'r> {
    tree: Tree<'r>,
    /// Places of the entries in Git's order, if the tree does not hold them in it.
    sorted: Option<Vec<usize>>,
    next: usize,
    /// Length of the folder's path, its `/` included.
    path_len: usize,
}

/// How a tree's entries lie in Git's order of names.
enum TreeOrder {
    Ascending,
    Mixed,
    NotAName,
}

impl<'r> Cursor<'r> {
    fn new(repo: &'r Repository, tree: Option<Oid>) -> Result<Self, HistoryError> {
        let mut cursor = Self {
            repo,
            levels: Vec::new(),
            entry: None,
            path: Vec::new(),
        };
        if let Some(tree) = tree {
            cursor.levels.push(Level::open(repo, tree, 0)?);
            cursor.pass()?;
        }
        Ok(cursor)
    }

    /// Takes the file at this place, or enters the folder there and returns `None`.
    fn take_file(&mut self) -> Result<Option<(Vec<u8>, Entry)>, HistoryError> {
        let Some(entry) = self.entry else {
            return Ok(None);
        };
        let file = if entry.is_tree() {
            self.levels
                .push(Level::open(self.repo, entry.id, self.path.len())?);
            None
        } else {
            Some((self.path.clone(), entry))
        };
        self.pass()?;
        Ok(file)
    }

    /// Goes on to the next entry, past the one at this place.
    fn pass(&mut self) -> Result<(), HistoryError> {
        self.entry = None;
        while let Some(level) = self.levels.last_mut() {
            if let Some(entry) = level.next(&mut self.path) {
                self.entry = Some(entry);
                return Ok(());
            }
            self.levels.pop();
        }
        Ok(())
    }
}

impl<'r> Level<'r> {
    fn open(repo: &'r Repository, id: Oid, path_len: usize) -> Result<Self, HistoryError> {
        let tree = repo
            .find_tree(id)
            .map_err(|error| missing("tree", id, error))?;
        let mut level = Self {
            tree,
            sorted: None,
            next: 0,
            path_len,
        };
        // Old tools wrote trees in another order, and the walk rests on it.
        match level.order() {
            TreeOrder::Ascending => {}
            TreeOrder::NotAName => {
                return Err(HistoryError::MalformedTree {
                    id,
                    what: "a name is empty or holds a `/`",
                });
            }
            TreeOrder::Mixed => {
                let mut places: Vec<usize> = (0..level.tree.len()).collect();
                places.sort_by_cached_key(|&place| {
                    let mut name = Vec::new();
                    level.read(place, &mut name);
                    name
                });
                level.sorted = Some(places);
                if !matches!(level.order(), TreeOrder::Ascending) {
                    return Err(HistoryError::MalformedTree {
                        id,
                        what: "it holds a name twice",
                    });
                }
            }
        }
        Ok(level)
    }

    fn order(&self) -> TreeOrder {
        let (mut last, mut name) = (Vec::new(), Vec::new());
        let mut order = TreeOrder::Ascending;
        for place in 0..self.tree.len() {
            name.clear();
            let is_tree = self
                .read(self.at(place), &mut name)
                .is_some_and(Entry::is_tree);
            let bare = &name[..name.len() - usize::from(is_tree)];
            if bare.is_empty() || bare.contains(&b'/') {
                return TreeOrder::NotAName;
            }
            if name <= last {
                order = TreeOrder::Mixed;
            }
            std::mem::swap(&mut last, &mut name);
        }
        order
    }

    fn at(&self, place: usize) -> usize {
        self.sorted.as_ref().map_or(place, |places| places[place])
    }

    fn next(&mut self, path: &mut Vec<u8>) -> Option<Entry> {
        if self.next == self.tree.len() {
            return None;
        }
        path.truncate(self.path_len);
        let entry = self.read(self.at(self.next), path);
        self.next += 1;
        entry
    }

    /// Reads an entry and appends its name as Git sorts it.
    fn read(&self, place: usize, path: &mut Vec<u8>) -> Option<Entry> {
        let entry = self.tree.get(place)?;
        path.extend_from_slice(entry.name_bytes());
        let read = Entry {
            mode: entry.filemode_raw(),
            id: entry.id(),
        };
        if read.is_tree() {
            path.push(b'/');
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::history::History;
    use crate::testing::Scratch;

    /// Both trees hold the paths with the contents behind them; each change is written as its sign
    /// and path.
    fn check(before: &[(&str, &str)], after: &[(&str, &str)], expected: &[&str]) {
        let repo = Scratch::new();
        let (before, after) = (repo.tree(before), repo.tree(after));
        assert_eq!(signs(&repo, Some(before), Some(after)), expected);
    }

    fn signs(repo: &Scratch, before: Option<Oid>, after: Option<Oid>) -> Vec<String> {
        changes(repo, before, after)
            .unwrap()
            .into_iter()
            .map(|change| {
                let sign = match change {
                    Change::Create(_) => '+',
                    Change::Update { .. } => '~',
                    Change::Delete(_) => '-',
                };
                format!("{sign}{}", String::from_utf8_lossy(change.path()))
            })
            .collect()
    }

    fn changes(
        repo: &Scratch,
        before: Option<Oid>,
        after: Option<Oid>,
    ) -> Result<Vec<Change>, HistoryError> {
        TreeDiff::new(repo.git(), repo.git().odb()?, before, after)?.collect()
    }

    #[test]
    fn creates_updates_and_deletes_come_in_path_order() {
        check(&[("a", "1")], &[("a", "1")], &[]);
        check(
            &[("a", "1"), ("b", "1"), ("d/x", "1"), ("d/y", "1")],
            &[
                ("a", "2"),
                ("c", "1"),
                ("d/x", "1"),
                ("d/y", "2"),
                ("d/z/q", "1"),
            ],
            &["~a", "-b", "+c", "~d/y", "+d/z/q"],
        );
    }

    #[test]
    fn a_rename_is_a_create_and_a_delete() {
        check(
            &[("old/name", "1")],
            &[("new/name", "1")],
            &["+new/name", "-old/name"],
        );
        check(
            &[("folder/a", "1"), ("folder/b/c", "1")],
            &[],
            &["-folder/a", "-folder/b/c"],
        );
    }

    #[test]
    fn a_file_that_becomes_a_folder_keeps_the_order_of_whole_paths() {
        check(
            &[("a", "1"), ("a.b", "1"), ("a0", "1")],
            &[("a.b", "2"), ("a/in", "1"), ("a0", "2")],
            &["-a", "~a.b", "+a/in", "~a0"],
        );
        check(&[("a/in", "1")], &[("a", "1")], &["+a", "-a/in"]);
    }

    #[test]
    fn nothing_and_everything() {
        let repo = Scratch::new();
        let tree = repo.tree(&[("a", "1"), ("b/c", "1")]);
        let empty = repo.tree(&[]);
        assert_eq!(signs(&repo, None, None), [""; 0]);
        assert_eq!(signs(&repo, None, Some(empty)), [""; 0]);
        assert_eq!(signs(&repo, Some(empty), Some(tree)), ["+a", "+b/c"]);
        assert_eq!(signs(&repo, Some(tree), None), ["-a", "-b/c"]);
    }

    #[test]
    fn modes_links_and_submodules_are_rows() {
        let repo = Scratch::new();
        let blob = repo.blob(b"content");
        let commit = Oid::from_str("0123456789012345678901234567890123456789").unwrap();
        let before = repo.tree_of(&[
            (b"became-link", 0o100644, blob),
            (b"became-submodule", 0o100644, blob),
            (b"script", 0o100644, blob),
        ]);
        let after = repo.tree_of(&[
            (b"became-link", 0o120000, blob),
            (b"became-submodule", 0o160000, commit),
            (b"script", 0o100755, blob),
            (b"submodule", 0o160000, commit),
        ]);
        let file = |path: &str, mode, id: Oid, size| File {
            path: path.into(),
            mode,
            blob_id: id.as_bytes().to_vec(),
            size,
        };
        let update = |path: &str, mode, id, size| Change::Update {
            before: file(path, 0o100644, blob, Some(7)),
            after: file(path, mode, id, size),
        };
        assert_eq!(
            changes(&repo, Some(before), Some(after)).unwrap(),
            [
                update("became-link", 0o120000, blob, Some(7)),
                update("became-submodule", 0o160000, commit, Some(0)),
                update("script", 0o100755, blob, Some(7)),
                Change::Create(file("submodule", 0o160000, commit, Some(0))),
            ]
        );
    }

    #[test]
    fn paths_are_bytes() {
        let repo = Scratch::new();
        let blob = repo.blob(b"");
        let tree = repo.tree_of(&[
            (b"caf\xe9", 0o100644, blob),
            (b"\xff\xfe/\x01", 0o100644, blob),
        ]);
        let paths: Vec<_> = changes(&repo, None, Some(tree))
            .unwrap()
            .iter()
            .map(|change| change.path().to_vec())
            .collect();
        assert_eq!(paths, [b"caf\xe9".to_vec(), b"\xff\xfe/\x01".to_vec()]);
    }

    #[test]
    fn a_blob_that_is_not_there_has_no_size() {
        let repo = Scratch::new();
        let blob = repo.blob(b"content");
        let tree = repo.tree_of(&[(b"a", 0o100644, blob)]);
        repo.forget(blob);
        let changes = changes(&repo, None, Some(tree)).unwrap();
        assert_eq!(changes[0].clone().after().unwrap().size, None);
    }

    #[test]
    fn a_folder_that_is_not_there_ends_the_walk_with_its_name() {
        let repo = Scratch::new();
        let tree = repo.tree(&[("a", "1"), ("b/c", "1"), ("d", "1")]);
        let folder = repo
            .git()
            .find_tree(tree)
            .unwrap()
            .get_name("b")
            .unwrap()
            .id();
        repo.forget(folder);
        let mut walk =
            TreeDiff::new(repo.git(), repo.git().odb().unwrap(), None, Some(tree)).unwrap();
        assert!(walk.next().unwrap().is_ok());
        let error = walk.next().unwrap().unwrap_err();
        assert!(matches!(error, HistoryError::MissingObject { kind: "tree", id } if id == folder));
        assert!(walk.next().is_none());
    }

    #[test]
    fn a_tree_in_the_wrong_order_is_walked_in_the_right_one() {
        let repo = Scratch::new();
        let blob = repo.blob(b"");
        let folder = repo.tree(&[("in", "1")]);
        // Sorted as if folders had no `/`, a mistake of early tools.
        let tree = repo.raw_tree(&[(b"a", 0o040000, folder), (b"a.b", 0o100644, blob)]);
        assert_eq!(signs(&repo, None, Some(tree)), ["+a.b", "+a/in"]);
    }

    #[test]
    fn a_malformed_tree_is_an_error() {
        let repo = Scratch::new();
        let blob = repo.blob(b"");
        for names in [[b"a".as_slice(), b"a"], [b"a", b"b/c"]] {
            let tree = repo.raw_tree(&names.map(|name| (name, 0o100644, blob)));
            let error = changes(&repo, None, Some(tree)).unwrap_err();
            assert!(
                matches!(error, HistoryError::MalformedTree { id, .. } if id == tree),
                "{error}"
            );
        }
    }

    #[test]
    fn ten_thousand_levels_of_folders_need_no_stack() {
        let repo = Scratch::new();
        let blob = repo.blob(b"");
        let mut tree = repo.tree_of(&[(b"a", 0o100644, blob)]);
        for _ in 0..10_000 {
            tree = repo.raw_tree(&[(b"d", 0o040000, tree)]);
        }
        let changes = changes(&repo, None, Some(tree)).unwrap();
        assert_eq!(changes[0].path().len(), 20_001);
    }

    #[test]
    fn an_empty_commit_changes_nothing_and_a_merge_what_its_side_brought() {
        let repo = Scratch::new();
        let root = repo.commit(&[], &[("a", "1")]);
        let empty = repo.commit(&[root], &[("a", "1")]);
        let side = repo.commit(&[root], &[("a", "1"), ("s/1", "1"), ("s/2", "1")]);
        let merge = repo.commit(&[empty, side], &[("a", "1"), ("s/1", "1"), ("s/2", "1")]);
        repo.head(merge);
        let history = History::open(repo.path(), None).unwrap();
        let counts: Vec<_> = (0..3)
            .map(|i| history.changes(i).unwrap().count())
            .collect();
        assert_eq!(counts, [1, 0, 2]);
    }
}
