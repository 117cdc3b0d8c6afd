//! What the entries of one archive may not do to each other: the part of the rule in
//! [`entry`](super::entry) that needs a memory of the entries before.
//!
//! Packer, inspector and unpacker pass every entry through [`EntryGuard::admit`], and through nothing
//! else. Memory is bounded: [`MAX_ENTRIES`] entries with [`MAX_NAME_BYTES_TOTAL`] bytes of names.

use std::collections::HashMap;

use super::entry::{
    Admitted, EntryError, EntryProblem, Kind, MAX_ENTRIES, MAX_NAME_BYTES_TOTAL, MAX_TARGET_BYTES, Object, RelPath,
    fold_case, normalise, shown, split_parent,
};

/// setuid, setgid and sticky.
const SPECIAL_BITS: u32 = 0o7000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Directory,
    File,
    Link,
}

#[derive(Debug)]
struct Node {
    seen: Seen,
    /// The path as first spelled, where folding its case changed it.
    spelled: Option<Box<[u8]>>,
}

/// Admits the entries of one archive, in their order, and remembers what they must not contradict.
#[derive(Debug, Default)]
pub struct EntryGuard {
    /// By case-folded path.
    nodes: HashMap<Box<[u8]>, Node>,
    /// The directory of the entry before, known to be one: entries come in runs.
    last_parent: Box<[u8]>,
    entries: u64,
    placed: u64,
    name_bytes: u64,
}

impl EntryGuard {
    /// A guard that has seen no entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Entries admitted, the root's own included.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether no entry but the root was admitted.
    pub fn is_empty(&self) -> bool {
        self.placed == 0
    }

    /// Checks one entry against the rule and against all entries before it.
    ///
    /// `mode` is the permission part of a Unix mode, `size` the bytes of data that follow, `link` the
    /// target of a symbolic or hard link.
    pub fn admit(
        &mut self,
        path: &[u8],
        kind: Kind,
        mode: u32,
        size: u64,
        link: Option<&[u8]>,
    ) -> Result<Admitted, EntryError> {
        self.admit_unnamed(path, kind, mode, size, link).map_err(|problem| EntryError::new(path, problem))
    }

    fn admit_unnamed(
        &mut self,
        raw: &[u8],
        kind: Kind,
        mode: u32,
        size: u64,
        link: Option<&[u8]>,
    ) -> Result<Admitted, EntryProblem> {
        let path = normalise(raw)?;
        if let Kind::Unsupported(what) = kind {
            return Err(EntryProblem::Unsupported(what));
        }
        if kind != Kind::Directory && path.is_empty() {
            return Err(EntryProblem::RootNotDirectory);
        }
        if kind != Kind::Directory && raw.ends_with(b"/") {
            return Err(EntryProblem::TrailingSlash);
        }
        if kind != Kind::File && size != 0 {
            return Err(EntryProblem::UnexpectedData(size));
        }
        // Links have no mode of their own that a system honours.
        if kind == Kind::File && mode & SPECIAL_BITS != 0 {
            return Err(EntryProblem::SpecialBits(mode & 0o7777));
        }
        let object = match kind {
            Kind::Directory | Kind::Unsupported(_) => Object::Directory,
            Kind::File => Object::File { executable: mode & 0o111 != 0, size },
            Kind::Symlink => Object::Symlink { target: symlink_target(link)?.into() },
            Kind::HardLink => Object::HardLink { target: self.hard_link_target(link)? },
        };
        if self.entries >= MAX_ENTRIES {
            return Err(EntryProblem::TooMany);
        }
        let link_bytes = link.map_or(0, <[u8]>::len);
        self.charge(link_bytes)?;
        if !path.is_empty() {
            self.require_directories(split_parent(path).0)?;
            self.place(path, kind)?;
            self.placed += 1;
        }
        self.entries += 1;
        Ok(Admitted { path: RelPath::from_normalised(path), object })
    }

    fn hard_link_target(&self, link: Option<&[u8]>) -> Result<RelPath, EntryProblem> {
        let raw = link.filter(|link| !link.is_empty()).ok_or(EntryProblem::NoTarget)?;
        let bad = || EntryProblem::BadHardLink(shown(raw));
        let target = normalise(raw).map_err(|_| bad())?;
        let folded = fold_case(target);
        match self.nodes.get(&*folded) {
            Some(node) if node.seen == Seen::File && spelling(node, &folded) == target => {
                Ok(RelPath::from_normalised(target))
            }
            _ => Err(bad()),
        }
    }

    /// Makes sure that `directory` and all above it are directories, known or implied.
    fn require_directories(&mut self, directory: &[u8]) -> Result<(), EntryProblem> {
        if directory.is_empty() || *directory == *self.last_parent {
            return Ok(());
        }
        // A known directory vouches for its ancestors: they were checked when it came.
        let mut unknown = Vec::new();
        let mut at = directory;
        while !at.is_empty() {
            let folded = fold_case(at);
            if let Some(node) = self.nodes.get(&*folded) {
                let spelled = spelling(node, &folded);
                if spelled != at {
                    return Err(EntryProblem::CaseCollision(shown(spelled)));
                }
                if node.seen != Seen::Directory {
                    return Err(EntryProblem::BelowNonDirectory(shown(at)));
                }
                break;
            }
            unknown.push((at, folded));
            at = split_parent(at).0;
        }
        for (path, folded) in unknown {
            self.insert(path, folded, Seen::Directory)?;
        }
        self.last_parent = directory.into();
        Ok(())
    }

    fn place(&mut self, path: &[u8], kind: Kind) -> Result<(), EntryProblem> {
        let seen = match kind {
            Kind::Directory | Kind::Unsupported(_) => Seen::Directory,
            Kind::File | Kind::HardLink => Seen::File,
            Kind::Symlink => Seen::Link,
        };
        let folded = fold_case(path);
        let Some(node) = self.nodes.get(&*folded) else {
            return self.insert(path, folded, seen);
        };
        let spelled = spelling(node, &folded);
        if spelled != path {
            Err(EntryProblem::CaseCollision(shown(spelled)))
        } else if (node.seen == Seen::Directory) != (seen == Seen::Directory) {
            Err(EntryProblem::KindConflict)
        } else if seen == Seen::Directory {
            Ok(())
        } else {
            Err(EntryProblem::Duplicate)
        }
    }

    fn insert(&mut self, path: &[u8], folded: Box<[u8]>, seen: Seen) -> Result<(), EntryProblem> {
        let spelled: Option<Box<[u8]>> = (*folded != *path).then(|| path.into());
        self.charge(folded.len() + spelled.as_ref().map_or(0, |spelled| spelled.len()))?;
        self.nodes.insert(folded, Node { seen, spelled });
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), EntryProblem> {
        self.name_bytes = self.name_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.name_bytes > MAX_NAME_BYTES_TOTAL { Err(EntryProblem::NamesTooLong) } else { Ok(()) }
    }
}

fn spelling<'a>(node: &'a Node, folded: &'a [u8]) -> &'a [u8] {
    node.spelled.as_deref().unwrap_or(folded)
}

fn symlink_target(link: Option<&[u8]>) -> Result<&[u8], EntryProblem> {
    let target = link.filter(|link| !link.is_empty()).ok_or(EntryProblem::NoTarget)?;
    if target.contains(&0) {
        return Err(EntryProblem::Nul);
    }
    // The system's bound counts a final NUL.
    if target.len() >= MAX_TARGET_BYTES {
        return Err(EntryProblem::TargetTooLong);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(guard: &mut EntryGuard, path: &[u8]) -> Result<Admitted, EntryProblem> {
        guard.admit(path, Kind::File, 0o644, 0, None).map_err(|error| error.problem)
    }

    fn directory(guard: &mut EntryGuard, path: &[u8]) -> Result<Admitted, EntryProblem> {
        guard.admit(path, Kind::Directory, 0o755, 0, None).map_err(|error| error.problem)
    }

    fn refusal(path: &[u8]) -> EntryProblem {
        file(&mut EntryGuard::new(), path).expect_err("refused")
    }

    #[test]
    fn names_found_in_real_trees_are_admitted() {
        let mut guard = EntryGuard::new();
        let names: [&[u8]; 9] = [
            b"with space",
            b"@scope/pkg.js",
            b".hidden",
            "na\u{ef}ve/\u{96ea}.txt".as_bytes(),
            b"it's \"quoted\"",
            b"back\\slash",
            b"line\nend",
            b"latin1-\xe9",
            b"...",
        ];
        for name in names {
            let admitted = file(&mut guard, name).expect("admitted");
            assert_eq!(admitted.path.as_bytes(), name);
        }
    }

    #[test]
    fn a_leading_dot_slash_and_a_trailing_slash_are_dropped() {
        let mut guard = EntryGuard::new();
        assert!(directory(&mut guard, b"./").expect("the root").path.is_root());
        assert_eq!(directory(&mut guard, b"./bin/").expect("a directory").path.as_bytes(), b"bin");
        assert_eq!(refusal(b"bin/"), EntryProblem::TrailingSlash);
        assert_eq!(refusal(b"."), EntryProblem::RootNotDirectory);
    }

    #[test]
    fn an_archive_of_only_its_root_is_empty() {
        let mut guard = EntryGuard::new();
        directory(&mut guard, b"./").expect("the root");
        assert!(guard.is_empty());
        assert_eq!(guard.entries(), 1);
    }

    #[test]
    fn a_path_appears_once_but_directories_may_be_named_again() {
        let mut guard = EntryGuard::new();
        directory(&mut guard, b"d").expect("admitted");
        directory(&mut guard, b"d/").expect("the same again");
        file(&mut guard, b"d/f").expect("admitted");
        assert_eq!(file(&mut guard, b"./d/f"), Err(EntryProblem::Duplicate));
    }

    #[test]
    fn a_name_is_not_both_directory_and_file() {
        let mut guard = EntryGuard::new();
        file(&mut guard, b"a/b").expect("admitted");
        assert_eq!(file(&mut guard, b"a"), Err(EntryProblem::KindConflict));
        assert_eq!(directory(&mut guard, b"a/b"), Err(EntryProblem::KindConflict));
        assert_eq!(file(&mut guard, b"a/b/c"), Err(EntryProblem::BelowNonDirectory("a/b".into())));
    }

    #[test]
    fn nothing_is_placed_below_a_symbolic_link() {
        let mut guard = EntryGuard::new();
        guard.admit(b"lib", Kind::Symlink, 0o777, 0, Some(b"/etc")).expect("links may point anywhere");
        assert_eq!(file(&mut guard, b"lib/x"), Err(EntryProblem::BelowNonDirectory("lib".into())));
        assert_eq!(file(&mut guard, b"lib/deep/x"), Err(EntryProblem::BelowNonDirectory("lib".into())));
        assert_eq!(directory(&mut guard, b"lib"), Err(EntryProblem::KindConflict));
    }

    #[test]
    fn a_directory_with_content_does_not_turn_into_a_link() {
        let mut guard = EntryGuard::new();
        file(&mut guard, b"lib/x").expect("admitted");
        let refused = guard.admit(b"lib", Kind::Symlink, 0o777, 0, Some(b"/etc")).expect_err("refused");
        assert_eq!(refused.problem, EntryProblem::KindConflict);
    }

    #[test]
    fn names_that_differ_only_by_case_are_refused() {
        let mut guard = EntryGuard::new();
        file(&mut guard, b"README").expect("admitted");
        assert_eq!(file(&mut guard, b"readme"), Err(EntryProblem::CaseCollision("README".into())));
        file(&mut guard, "\u{c9}t\u{e9}".as_bytes()).expect("admitted");
        assert!(matches!(file(&mut guard, "\u{e9}t\u{c9}".as_bytes()), Err(EntryProblem::CaseCollision(_))));
        file(&mut guard, b"Dir/a").expect("admitted");
        assert_eq!(file(&mut guard, b"dir/b"), Err(EntryProblem::CaseCollision("Dir".into())));
    }

    #[test]
    fn equal_names_in_different_directories_do_not_collide() {
        let mut guard = EntryGuard::new();
        file(&mut guard, b"a/README").expect("admitted");
        file(&mut guard, b"b/readme").expect("admitted");
    }

    #[test]
    fn a_hard_link_names_an_earlier_regular_file() {
        let mut guard = EntryGuard::new();
        file(&mut guard, b"bin/Git").expect("admitted");
        guard.admit(b"bin/link", Kind::Symlink, 0o777, 0, Some(b"Git")).expect("admitted");
        let admitted = guard.admit(b"bin/git-add", Kind::HardLink, 0o755, 0, Some(b"./bin/Git")).expect("admitted");
        assert_eq!(admitted.object, Object::HardLink { target: RelPath::parse(b"bin/Git").expect("valid") });
        for target in [&b"bin/git"[..], b"bin/link", b"bin", b"../outside", b"/etc/passwd", b"later"] {
            let refused = guard.admit(b"x", Kind::HardLink, 0o755, 0, Some(target)).expect_err("refused");
            assert_eq!(refused.problem, EntryProblem::BadHardLink(shown(target)));
        }
    }

    #[test]
    fn symbolic_link_targets_are_bounded_and_present() {
        let mut guard = EntryGuard::new();
        let mut link =
            |target: &[u8]| guard.admit(b"l", Kind::Symlink, 0o777, 0, Some(target)).map_err(|error| error.problem);
        assert_eq!(link(b""), Err(EntryProblem::NoTarget));
        assert_eq!(link(b"a\0b"), Err(EntryProblem::Nul));
        assert_eq!(link(&[b'a'; MAX_TARGET_BYTES]), Err(EntryProblem::TargetTooLong));
        assert!(link(&[b'a'; MAX_TARGET_BYTES - 1]).is_ok());
    }

    #[test]
    fn special_bits_are_refused_on_files_and_ignored_on_directories() {
        let mut guard = EntryGuard::new();
        for mode in [0o4755, 0o2755, 0o1644] {
            let refused = guard.admit(b"su", Kind::File, mode, 0, None).expect_err("refused");
            assert_eq!(refused.problem, EntryProblem::SpecialBits(mode));
        }
        guard.admit(b"shared", Kind::Directory, 0o2775, 0, None).expect("admitted");
    }

    #[test]
    fn a_refusal_names_the_entry_without_control_characters() {
        let refused = EntryGuard::new().admit(b"a\x1b[2J\xff", Kind::Unsupported("a fifo"), 0, 0, None);
        let text = refused.expect_err("refused").to_string();
        assert!(text.starts_with("entry `a\\u{1b}[2J\\xff` is a fifo"), "{text}");
    }

    #[test]
    fn very_long_names_are_cut_in_errors() {
        let refused = EntryGuard::new().admit(&[b'x'; 9000], Kind::File, 0, 0, None).expect_err("refused");
        assert!(refused.entry.chars().count() < 300);
        assert!(refused.entry.ends_with('…'));
    }

    #[test]
    fn data_belongs_to_regular_files() {
        let refused = EntryGuard::new().admit(b"d", Kind::Directory, 0o755, 7, None).expect_err("refused");
        assert_eq!(refused.problem, EntryProblem::UnexpectedData(7));
    }

    #[test]
    fn one_entry_too_many_is_refused() {
        let mut guard = EntryGuard::new();
        for _ in 0..MAX_ENTRIES {
            directory(&mut guard, b"./").expect("admitted");
        }
        assert_eq!(directory(&mut guard, b"./"), Err(EntryProblem::TooMany));
    }

    #[test]
    fn names_and_targets_are_bounded_together() {
        let mut guard = EntryGuard::new();
        let target = [b't'; MAX_TARGET_BYTES - 1];
        let refused = (0..MAX_ENTRIES).find_map(|number| {
            let name = number.to_string();
            guard.admit(name.as_bytes(), Kind::Symlink, 0o777, 0, Some(&target)).err()
        });
        assert_eq!(refused.expect("refused").problem, EntryProblem::NamesTooLong);
        assert!(guard.entries() < MAX_NAME_BYTES_TOTAL / 4095);
    }
}
