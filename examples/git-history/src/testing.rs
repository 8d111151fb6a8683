//! Throw-away repositories for tests, written object by object.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::path::Path;

use git2::{ObjectFormat, ObjectType, Oid, Repository, RepositoryInitOptions};
use tempfile::TempDir;

/// A repository in a folder that goes away with it.
pub struct Scratch {
    git: Repository,
    folder: TempDir,
}

impl Scratch {
    /// An empty repository.
    pub fn new() -> Self {
        Self::with_format(ObjectFormat::Sha1)
    }

    /// An empty repository whose ids have 32 bytes.
    pub fn with_sha_256() -> Self {
        Self::with_format(ObjectFormat::Sha256)
    }

    fn with_format(format: ObjectFormat) -> Self {
        // Trees as no careful writer would make them are a part of the tests.
        git2::opts::strict_object_creation(false);
        let folder = tempfile::tempdir().unwrap();
        let mut options = RepositoryInitOptions::new();
        options.initial_head("main").object_format(format);
        let git = Repository::init_opts(folder.path(), &options).unwrap();
        Self { git, folder }
    }

    /// Where the repository lies.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The repository.
    pub fn git(&self) -> &Repository {
        &self.git
    }

    /// Writes a blob.
    pub fn blob(&self, content: &[u8]) -> Oid {
        self.git.blob(content).unwrap()
    }

    /// Writes a tree of files by path and content, folders included.
    pub fn tree(&self, files: &[(&str, &str)]) -> Oid {
        let files: Vec<_> = files
            .iter()
            .map(|(path, content)| (path.as_bytes(), 0o100644, self.blob(content.as_bytes())))
            .collect();
        self.tree_of(&files)
    }

    /// Writes a tree of files by path, mode and id, folders included.
    pub fn tree_of(&self, files: &[(&[u8], u32, Oid)]) -> Oid {
        type Folder<'f> = Vec<(&'f [u8], u32, Oid)>;
        let mut entries: BTreeMap<Vec<u8>, (&[u8], u32, Oid)> = BTreeMap::new();
        let mut folders: BTreeMap<&[u8], Folder<'_>> = BTreeMap::new();
        for &(path, mode, id) in files {
            match path.iter().position(|&byte| byte == b'/') {
                Some(end) => {
                    folders
                        .entry(&path[..end])
                        .or_default()
                        .push((&path[end + 1..], mode, id))
                }
                None => drop(entries.insert(path.to_vec(), (path, mode, id))),
            }
        }
        for (name, files) in &folders {
            let id = self.tree_of(files);
            entries.insert([name, b"/".as_slice()].concat(), (name, 0o040000, id));
        }
        self.raw_tree(&entries.into_values().collect::<Vec<_>>())
    }

    /// Writes a tree of exactly these entries.
    pub fn raw_tree(&self, entries: &[(&[u8], u32, Oid)]) -> Oid {
        let mut bytes = Vec::new();
        for (name, mode, id) in entries {
            bytes.extend_from_slice(format!("{mode:o} ").as_bytes());
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(id.as_bytes());
        }
        self.git
            .odb()
            .unwrap()
            .write(ObjectType::Tree, &bytes)
            .unwrap()
    }

    /// Writes a commit with these parents and files.
    pub fn commit(&self, parents: &[Oid], files: &[(&str, &str)]) -> Oid {
        self.commit_tree(parents, self.tree(files))
    }

    /// Writes a commit with these parents and this tree.
    pub fn commit_tree(&self, parents: &[Oid], tree: Oid) -> Oid {
        let parents: String = parents.iter().map(|id| format!("parent {id}\n")).collect();
        let person = "Ann <ann@example.com> 1700000000 +0000";
        let text =
            format!("tree {tree}\n{parents}author {person}\ncommitter {person}\n\nmessage\n");
        self.git
            .odb()
            .unwrap()
            .write(ObjectType::Commit, text.as_bytes())
            .unwrap()
    }

    /// Writes a commit without parents whose author line is exactly this.
    pub fn raw_commit(&self, tree: Oid, author: &[u8]) -> Oid {
        let text = [
            format!("tree {tree}\nauthor ").as_bytes(),
            author,
            b"\ncommitter C <c@example.com> 0 +0000\n\nmessage\n",
        ]
        .concat();
        self.git
            .odb()
            .unwrap()
            .write(ObjectType::Commit, &text)
            .unwrap()
    }

    /// Makes the commit the repository's `HEAD`.
    pub fn head(&self, commit: Oid) {
        self.git
            .reference("refs/heads/main", commit, true, "test")
            .unwrap();
    }

    /// Removes an object, as if it had never been fetched.
    pub fn forget(&self, id: Oid) {
        let id = id.to_string();
        let (folder, name) = id.split_at(2);
        std::fs::remove_file(self.git.path().join("objects").join(folder).join(name)).unwrap();
    }
}

/// Thirteen commits on the first-parent line with everything that a tree may do; one of them
/// changes nothing.
pub fn varied() -> Scratch {
    let repo = Scratch::new();
    let (one, two) = (repo.blob(b"one"), repo.blob(b"content two"));
    let submodule = one;
    let mut head = repo.commit_tree(
        &[],
        repo.tree_of(&[
            (b"a", 0o100644, one),
            (b"caf\xe9/\xff", 0o100644, one),
            (b"link", 0o120000, two),
            (b"old name", 0o100644, two),
        ]),
    );
    let side = repo.commit_tree(&[head], repo.tree_of(&[(b"side", 0o100644, one)]));
    let trees: [&[(&[u8], u32, Oid)]; 12] = [
        &[
            (b"a", 0o100755, one),
            (b"caf\xe9/\xff", 0o100644, two),
            (b"new name", 0o100644, two),
        ],
        &[
            (b"a", 0o100755, one),
            (b"caf\xe9/\xff", 0o100644, two),
            (b"new name", 0o100644, two),
        ],
        &[(b"a/in", 0o100644, one), (b"caf\xe9", 0o120000, two)],
        &[(b"a/in", 0o160000, submodule)],
        &[(b"a/in", 0o100644, one), (b"b", 0o100644, one)],
        &[],
        &[(b"1", 0o100644, one)],
        &[(b"1", 0o100644, two)],
        &[(b"1", 0o100644, one)],
        &[(b"2", 0o100644, one)],
        &[(b"3", 0o100644, one)],
        &[(b"3", 0o100644, one), (b"4/5/6", 0o100644, one)],
    ];
    for (index, files) in trees.iter().enumerate() {
        let parents = if index == 4 {
            vec![head, side]
        } else {
            vec![head]
        };
        head = repo.commit_tree(&parents, repo.tree_of(files));
    }
    repo.head(head);
    repo
}
