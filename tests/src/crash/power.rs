//! A disk that loses power: recorded steps played back in memory, and what is left when it ends.
//!
//! The model is as unkind as the rules of the file system allow. What was not synced may be there or not,
//! each thing by itself: an entry of a directory, the bytes of a file (none, some, or zeros in their
//! place). Only two things are given: a rename is all or nothing, and what a sync promised is there.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use rand::{Rng, RngExt as _};

use super::Recorded;

/// What a path leads to after the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// A directory.
    Directory,
    /// A file, with its bytes.
    File(Vec<u8>),
    /// A symbolic link, with its text.
    Link(PathBuf),
}

type Id = usize;

#[derive(Debug, Clone)]
enum Content {
    Directory,
    File { bytes: Vec<u8>, synced: Option<Vec<u8>> },
    Link(PathBuf),
}

/// A change of entries that may still be lost.
#[derive(Debug, Clone)]
struct Change {
    /// Directories, names in them, and what the name leads to from now on.
    entries: Vec<(Id, PathBuf, Option<Id>)>,
}

/// The disk: what its cache holds, and what would be there without.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    nodes: Vec<Content>,
    /// Entries as programs see them.
    seen: BTreeMap<(Id, PathBuf), Id>,
    /// Entries that are durable.
    durable: BTreeMap<(Id, PathBuf), Id>,
    /// Changes that are not, in their order.
    pending: Vec<Change>,
}

const ROOT: Id = 0;

impl Disk {
    /// A disk mounted at `root` that holds `tree` (relative to it), all of it durable.
    pub fn holding(root: &Path, tree: &BTreeMap<PathBuf, Left>) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            nodes: vec![Content::Directory],
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
        };
        for (path, left) in tree {
            let content = match left {
                Left::Directory => Content::Directory,
                Left::File(bytes) => Content::File { bytes: bytes.clone(), synced: Some(bytes.clone()) },
                Left::Link(target) => Content::Link(target.clone()),
            };
            if let Some(place) = disk.place(&root.join(path)) {
                let id = disk.add(content);
                disk.seen.insert(place, id);
            }
        }
        disk.durable.clone_from(&disk.seen);
        disk
    }

    fn add(&mut self, content: Content) -> Id {
        self.nodes.push(content);
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> Option<Id> {
        let relative = path.strip_prefix(&self.root).ok()?;
        relative.components().try_fold(ROOT, |at, part| match part {
            Component::Normal(name) => self.seen.get(&(at, name.into())).copied(),
            _ => None,
        })
    }

    /// The directory that `path` lies in, and its name there. `None` outside the disk.
    fn place(&self, path: &Path) -> Option<(Id, PathBuf)> {
        Some((self.find(path.parent()?)?, path.file_name()?.into()))
    }

    fn change(&mut self, entries: Vec<(Id, PathBuf, Option<Id>)>) {
        for (directory, name, leads_to) in &entries {
            set(&mut self.seen, (*directory, name.clone()), *leads_to);
        }
        self.pending.push(Change { entries });
    }

    fn link(&mut self, path: &Path, id: Id) {
        if let Some((directory, name)) = self.place(path) {
            self.change(vec![(directory, name, Some(id))]);
        }
    }

    /// Takes one recorded step. Steps outside the disk change nothing.
    pub fn take(&mut self, step: &Recorded) {
        match step.step.as_str() {
            "make_dir" => {
                let id = self.add(Content::Directory);
                self.link(&step.path, id);
            }
            "create_file" => {
                let id = self.add(Content::File { bytes: Vec::new(), synced: None });
                self.link(&step.path, id);
            }
            "symlink" => {
                let id = self.add(Content::Link(step.to.clone()));
                self.link(&step.path, id);
            }
            "hard_link" => {
                if let Some(id) = self.find(&step.path) {
                    self.link(&step.to, id);
                }
            }
            "append" => self.append(step),
            "rename" => {
                if let (Some(id), Some(from), Some(to)) =
                    (self.find(&step.path), self.place(&step.path), self.place(&step.to))
                {
                    self.change(vec![(from.0, from.1, None), (to.0, to.1, Some(id))]);
                }
            }
            "remove_file" => {
                if let Some((directory, name)) = self.place(&step.path) {
                    self.change(vec![(directory, name, None)]);
                }
            }
            "remove_tree" => self.remove_tree(&step.path),
            "sync_file" => {
                if let Some(id) = self.find(&step.path) {
                    self.sync_bytes(id);
                }
            }
            "sync_dir" => {
                if let Some(id) = self.find(&step.path) {
                    self.sync_entries(id);
                }
            }
            "sync_tree" => {
                if let Some(id) = self.find(&step.path) {
                    for below in self.below(id) {
                        self.sync_bytes(below);
                        self.sync_entries(below);
                    }
                }
            }
            _ => {}
        }
    }

    fn append(&mut self, step: &Recorded) {
        let more = data_encoding::HEXLOWER.decode(step.bytes.as_bytes()).unwrap_or_default();
        if let Some(id) = self.find(&step.path)
            && let Content::File { bytes, .. } = &mut self.nodes[id]
        {
            bytes.extend_from_slice(&more);
        }
    }

    /// A directory and all that it leads to.
    fn below(&self, id: Id) -> Vec<Id> {
        let mut found = vec![id];
        let mut at = 0;
        while at < found.len() {
            let directory = found[at];
            found.extend(
                self.seen.range((directory, PathBuf::new())..(directory + 1, PathBuf::new())).map(|(_, id)| *id),
            );
            at += 1;
        }
        found
    }

    /// Every entry goes by itself, in an order that nobody promised.
    fn remove_tree(&mut self, path: &Path) {
        let Some(id) = self.find(path) else { return };
        let inside: Vec<(Id, PathBuf)> = self
            .below(id)
            .into_iter()
            .flat_map(|directory| self.seen.range((directory, PathBuf::new())..(directory + 1, PathBuf::new())))
            .map(|(entry, _)| entry.clone())
            .collect();
        for (directory, name) in inside {
            self.change(vec![(directory, name, None)]);
        }
        if let Some((directory, name)) = self.place(path) {
            self.change(vec![(directory, name, None)]);
        }
    }

    fn sync_bytes(&mut self, id: Id) {
        if let Content::File { bytes, synced } = &mut self.nodes[id] {
            *synced = Some(bytes.clone());
        }
    }

    /// A rename out of or into the directory is durable as a whole.
    fn sync_entries(&mut self, directory: Id) {
        let touches = |change: &Change| change.entries.iter().any(|(at, _, _)| *at == directory);
        for change in self.pending.extract_if(.., |change| touches(change)) {
            for (at, name, leads_to) in change.entries {
                set(&mut self.durable, (at, name), leads_to);
            }
        }
    }

    /// What programs see while there is power.
    pub fn as_seen(&self) -> BTreeMap<PathBuf, Left> {
        self.list(&self.seen, &mut |content| match content {
            Content::Directory => Left::Directory,
            Content::File { bytes, .. } => Left::File(bytes.clone()),
            Content::Link(target) => Left::Link(target.clone()),
        })
    }

    /// What is left when the power goes now: of what was not synced, what `rng` keeps.
    pub fn after_power_loss(&self, rng: &mut impl Rng) -> BTreeMap<PathBuf, Left> {
        // Now and then all of it is lost, or all of it kept: the ends are worth more looks.
        let odds = [0.0, 0.5, 0.9, 0.1, 1.0][rng.random_range(0..5)];
        let mut entries = self.durable.clone();
        for change in &self.pending {
            if rng.random_bool(odds) {
                for (at, name, leads_to) in &change.entries {
                    set(&mut entries, (*at, name.clone()), *leads_to);
                }
            }
        }
        self.list(&entries, &mut |content| match content {
            Content::Directory => Left::Directory,
            Content::Link(target) => Left::Link(target.clone()),
            Content::File { bytes, synced: Some(synced) } if bytes == synced => Left::File(bytes.clone()),
            Content::File { bytes, synced } => Left::File(torn(bytes, synced.as_deref().unwrap_or_default(), rng)),
        })
    }

    fn list(
        &self,
        entries: &BTreeMap<(Id, PathBuf), Id>,
        show: &mut dyn FnMut(&Content) -> Left,
    ) -> BTreeMap<PathBuf, Left> {
        let mut listed = BTreeMap::new();
        let mut open = vec![(ROOT, PathBuf::new())];
        while let Some((directory, path)) = open.pop() {
            for ((_, name), id) in entries.range((directory, PathBuf::new())..(directory + 1, PathBuf::new())) {
                let path = path.join(name);
                let content = &self.nodes[*id];
                if matches!(content, Content::Directory) {
                    open.push((*id, path.clone()));
                }
                listed.insert(path, show(content));
            }
        }
        listed
    }
}

fn set(entries: &mut BTreeMap<(Id, PathBuf), Id>, place: (Id, PathBuf), leads_to: Option<Id>) {
    match leads_to {
        Some(id) => entries.insert(place, id),
        None => entries.remove(&place),
    };
}

/// What may be left of bytes that were not synced beyond `synced`.
fn torn(bytes: &[u8], synced: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let cut = rng.random_range(synced.len()..=bytes.len());
    match rng.random_range(0..4) {
        0 => synced.to_vec(),
        1 => bytes[..cut].to_vec(),
        // The length was written, the bytes were not.
        2 => [&bytes[..cut], &vec![0; bytes.len() - cut]].concat(),
        _ => bytes.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    fn step(kind: &str, path: &str, to: &str, bytes: &[u8]) -> Recorded {
        Recorded {
            step: kind.to_owned(),
            path: Path::new("/disk").join(path),
            to: if kind == "symlink" { to.into() } else { Path::new("/disk").join(to) },
            bytes: data_encoding::HEXLOWER.encode(bytes),
        }
    }

    fn played(steps: &[Recorded]) -> Disk {
        let mut disk = Disk::holding(Path::new("/disk"), &BTreeMap::new());
        for step in steps {
            disk.take(step);
        }
        disk
    }

    fn outcomes(disk: &Disk) -> Vec<BTreeMap<PathBuf, Left>> {
        let mut rng = SmallRng::seed_from_u64(1);
        (0..200).map(|_| disk.after_power_loss(&mut rng)).collect()
    }

    #[test]
    fn what_was_synced_is_there_and_what_was_not_may_be_gone() {
        let disk = played(&[
            step("create_file", "file", "", b""),
            step("append", "file", "", b"bytes"),
            step("sync_file", "file", "", b""),
        ]);
        assert!(outcomes(&disk).iter().any(BTreeMap::is_empty), "the entry was not synced");
        let disk = played(&[
            step("create_file", "file", "", b""),
            step("append", "file", "", b"bytes"),
            step("sync_file", "file", "", b""),
            step("sync_dir", "", "", b""),
        ]);
        let expected = BTreeMap::from([(PathBuf::from("file"), Left::File(b"bytes".to_vec()))]);
        assert!(outcomes(&disk).iter().all(|left| *left == expected));
    }

    #[test]
    fn a_file_without_fsync_may_be_empty_though_its_name_is_durable() {
        let disk = played(&[
            step("create_file", "file", "", b""),
            step("append", "file", "", b"bytes"),
            step("sync_dir", "", "", b""),
        ]);
        let empty = Some(&Left::File(Vec::new()));
        assert!(outcomes(&disk).iter().any(|left| left.get(Path::new("file")) == empty));
    }

    #[test]
    fn a_rename_happens_as_a_whole_or_not_at_all() {
        let disk = played(&[
            step("symlink", "new", "target", b""),
            step("sync_dir", "", "", b""),
            step("rename", "new", "current", b""),
        ]);
        let outcomes = outcomes(&disk);
        assert!(outcomes.iter().all(|left| left.len() == 1), "the link is under one name or the other");
        assert!(outcomes.iter().any(|left| left.contains_key(Path::new("new"))));
        assert!(outcomes.iter().any(|left| left.contains_key(Path::new("current"))));
    }

    #[test]
    fn a_synced_tree_is_whole_wherever_it_is_moved() {
        let disk = played(&[
            step("make_dir", "a", "", b""),
            step("sync_dir", "", "", b""),
            step("make_dir", "a/b", "", b""),
            step("create_file", "a/b/file", "", b""),
            step("append", "a/b/file", "", b"bytes"),
            step("sync_tree", "a", "", b""),
            step("rename", "a", "c", b""),
        ]);
        for left in outcomes(&disk) {
            let root = if left.contains_key(Path::new("a")) { "a" } else { "c" };
            assert_eq!(left.get(&Path::new(root).join("b/file")), Some(&Left::File(b"bytes".to_vec())));
        }
    }
}
