//! Archive entries, and the one rule for them. Packer, inspector and unpacker all pass every entry
//! through [`EntryGuard::admit`](super::EntryGuard::admit), so that publishing refuses exactly what
//! installing would refuse.
//!
//! The rule, in full:
//! - A path is relative. Its components are 1 to 255 bytes, never `.` or `..`; at most 128 of them,
//!   4096 bytes in all. One leading `./` and one trailing `/` (directories only) are dropped; `.`
//!   alone is the root. Names are bytes: real trees hold names that are not UTF-8, and spaces,
//!   quotes, backslashes and line ends. Only NUL is refused, for no Linux name can hold it.
//! - A symbolic link is kept verbatim, absolute and dangling ones too: what it points to is the
//!   concern of who follows it. Nothing is ever placed below one: each ancestor of an entry is a
//!   directory.
//! - A hard link names an earlier regular file of the same archive.
//! - Devices, fifos, sockets and sparse files are refused, and regular files that are setuid, setgid
//!   or sticky, for they would not work once unpacked as 0755 or 0644. On directories those bits are
//!   dropped like the rest of the mode: trees built in a shared setgid directory are full of them,
//!   and they grant nothing to who runs what is inside.
//! - A path appears once. A directory may be named again, for many tools do, and nothing differs.
//! - Two names of one directory must differ in more than case (Unicode lower case, one code point
//!   at a time), so that a release means the same on every file system.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes of one path component. Linux file systems stop here.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// Bytes of one path. Linux's `PATH_MAX`; bounds what one entry costs in tables.
pub const MAX_PATH_BYTES: usize = 4096;

/// Components of one path. Bounds open directories and recursion while a tree is unpacked.
pub const MAX_DEPTH: usize = 128;

/// Bytes of a symbolic link's target. Linux's `PATH_MAX`.
pub const MAX_TARGET_BYTES: usize = 4096;

/// Entries of one archive. Bounds inodes and tables.
pub const MAX_ENTRIES: u64 = 2_000_000;

/// Bytes of all paths and link targets of one archive. Bounds tables against many very long names.
pub const MAX_NAME_BYTES_TOTAL: u64 = 512 * 1024 * 1024;

/// Characters of a name shown in an error.
const MAX_SHOWN_CHARS: usize = 200;

/// What an archive says an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier regular file.
    HardLink,
    /// Anything else, as an error would call it: `a fifo`.
    Unsupported(&'static str),
}

/// A path that obeys the rule: relative, without `.` and `..`. Empty means the root of the tree.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Checks and normalises `raw`.
    pub fn parse(raw: &[u8]) -> Result<Self, EntryError> {
        let path = normalise(raw).map_err(|problem| EntryError::new(raw, problem))?;
        Ok(Self::from_normalised(path))
    }

    /// A path that [`normalise`] returned.
    pub(super) fn from_normalised(path: &[u8]) -> Self {
        Self(path.into())
    }

    /// The path's bytes, components separated by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path, relative to the root of the tree.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether this is the root of the tree itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, outermost first. None for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// The directory that holds this entry (empty for the root's own) and the entry's name in it.
    pub fn split(&self) -> (&[u8], &[u8]) {
        split_parent(&self.0)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({})", shown(&self.0))
    }
}

/// What to place, with everything that was checked in its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A directory, 0755.
    Directory,
    /// A regular file.
    File {
        /// Whether any execute bit was set: 0755, else 0644.
        executable: bool,
        /// Bytes of the file.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, verbatim.
        target: Box<[u8]>,
    },
    /// Another name of an earlier regular file.
    HardLink {
        /// That file's path.
        target: RelPath,
    },
}

/// An entry that may be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Where.
    pub path: RelPath,
    /// What.
    pub object: Object,
}

/// An entry that an archive may not contain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry `{entry}` {problem}")]
pub struct EntryError {
    /// The entry's name, printable.
    pub entry: String,
    /// What is wrong with it.
    pub problem: EntryProblem,
}

impl EntryError {
    pub(super) fn new(raw: &[u8], problem: EntryProblem) -> Self {
        Self { entry: shown(raw), problem }
    }
}

/// Why an entry is refused. Reads as the end of a sentence that begins with the entry's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryProblem {
    /// Begins with `/`.
    #[error("is an absolute path; pack it relative to the tree's root")]
    Absolute,
    /// Has a `..` component.
    #[error("has a `..` component, which could leave the install directory")]
    ParentComponent,
    /// Has an empty or `.` component, or no name at all.
    #[error("has an empty or `.` component")]
    EmptyComponent,
    /// Has a NUL byte.
    #[error("has a NUL byte in its name or link target")]
    Nul,
    /// A component is too long.
    #[error("has a component over {MAX_COMPONENT_BYTES} bytes")]
    ComponentTooLong,
    /// The path is too long.
    #[error("is a path over {MAX_PATH_BYTES} bytes")]
    PathTooLong,
    /// Too many components.
    #[error("is over {MAX_DEPTH} directories deep")]
    TooDeep,
    /// Ends in `/` without being a directory.
    #[error("ends in `/` and is not a directory")]
    TrailingSlash,
    /// The root of the tree as something other than a directory.
    #[error("names the root of the tree and is not a directory")]
    RootNotDirectory,
    /// A device, fifo, socket and so on.
    #[error("is {0}; only files, directories, symbolic links and hard links can be installed")]
    Unsupported(&'static str),
    /// setuid, setgid or sticky.
    #[error("has mode {0:04o}; setuid, setgid and sticky files are never installed, `chmod` it first")]
    SpecialBits(u32),
    /// Not a regular file, and yet has data.
    #[error("is not a regular file and yet has {0} bytes of data")]
    UnexpectedData(u64),
    /// A link without a target.
    #[error("is a link without a target")]
    NoTarget,
    /// A symbolic link's target is too long.
    #[error("is a symbolic link whose target is over {MAX_TARGET_BYTES} bytes")]
    TargetTooLong,
    /// A hard link to something that is not an earlier regular file of the archive.
    #[error("is a hard link to `{0}`, which is no earlier regular file of this archive")]
    BadHardLink(String),
    /// The path appeared before.
    #[error("appears twice")]
    Duplicate,
    /// Directory here, something else there.
    #[error("is a directory in one place of the archive and something else in another")]
    KindConflict,
    /// An ancestor is not a directory.
    #[error("lies below `{0}`, which is not a directory")]
    BelowNonDirectory(String),
    /// Differs from another entry only by case.
    #[error("differs from `{0}` only by case; they would be one file on some file systems, rename one")]
    CaseCollision(String),
    /// One entry too many.
    #[error("is one more than the {MAX_ENTRIES} entries that an archive may have")]
    TooMany,
    /// A path where a single file's name is wanted.
    #[error("is a path, where the name of a single file is wanted")]
    NotAName,
    /// Names take too much memory.
    #[error("brings the names of the archive over {MAX_NAME_BYTES_TOTAL} bytes")]
    NamesTooLong,
}

pub(super) fn normalise(raw: &[u8]) -> Result<&[u8], EntryProblem> {
    if raw.contains(&0) {
        return Err(EntryProblem::Nul);
    }
    if raw.starts_with(b"/") {
        return Err(EntryProblem::Absolute);
    }
    if raw == b"." || raw == b"./" {
        return Ok(b"");
    }
    let path = raw.strip_prefix(b"./").unwrap_or(raw);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path.len() >= MAX_PATH_BYTES {
        return Err(EntryProblem::PathTooLong);
    }
    let mut depth = 0;
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => return Err(EntryProblem::EmptyComponent),
            b".." => return Err(EntryProblem::ParentComponent),
            _ if component.len() > MAX_COMPONENT_BYTES => {
                return Err(EntryProblem::ComponentTooLong);
            }
            _ => depth += 1,
        }
    }
    if depth > MAX_DEPTH { Err(EntryProblem::TooDeep) } else { Ok(path) }
}

pub(super) fn split_parent(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Folds each component by itself and each code point by itself, so that the fold of a directory is
/// a prefix of the fold of what it holds.
pub(super) fn fold_case(path: &[u8]) -> Box<[u8]> {
    if path.is_ascii() {
        return path.to_ascii_lowercase().into();
    }
    let mut folded = Vec::with_capacity(path.len() + 8);
    for (index, component) in path.split(|byte| *byte == b'/').enumerate() {
        if index > 0 {
            folded.push(b'/');
        }
        match str::from_utf8(component) {
            Ok(text) => {
                let lower: String = text.chars().flat_map(char::to_lowercase).collect();
                folded.extend_from_slice(lower.as_bytes());
            }
            Err(_) => folded.extend(component.iter().map(u8::to_ascii_lowercase)),
        }
    }
    folded.into()
}

/// A name made safe for a terminal and a log line: control characters and bytes that are not UTF-8
/// are escaped, and a very long name is cut.
pub(super) fn shown(raw: &[u8]) -> String {
    let mut text = String::new();
    for (count, chunk) in raw.utf8_chunks().flat_map(|chunk| pieces_of(&chunk)).enumerate() {
        if count == MAX_SHOWN_CHARS {
            text.push('…');
            break;
        }
        text.push_str(&chunk);
    }
    text
}

fn pieces_of<'a>(chunk: &std::str::Utf8Chunk<'a>) -> impl Iterator<Item = String> + use<'a> {
    let valid = chunk.valid().chars().map(|character| {
        if character.is_control() { character.escape_default().to_string() } else { character.to_string() }
    });
    valid.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(path: &[u8]) -> EntryProblem {
        RelPath::parse(path).expect_err("refused").problem
    }

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        assert_eq!(refusal(b"/etc/passwd"), EntryProblem::Absolute);
        assert_eq!(refusal(b".."), EntryProblem::ParentComponent);
        assert_eq!(refusal(b"a/../../b"), EntryProblem::ParentComponent);
        assert_eq!(refusal(b"./../b"), EntryProblem::ParentComponent);
    }

    #[test]
    fn paths_with_empty_or_dot_components_are_refused() {
        for path in [&b""[..], b"a//b", b"a/./b", b"././a", b".//a", b"a/."] {
            assert_eq!(refusal(path), EntryProblem::EmptyComponent, "{}", shown(path));
        }
    }

    #[test]
    fn a_nul_in_a_name_is_refused() {
        assert_eq!(refusal(b"a\0b"), EntryProblem::Nul);
    }

    #[test]
    fn lengths_and_depth_are_bounded_at_their_limits() {
        let component = vec![b'a'; MAX_COMPONENT_BYTES];
        assert!(RelPath::parse(&component).is_ok());
        assert_eq!(refusal(&[&component[..], b"a"].concat()), EntryProblem::ComponentTooLong);
        let deep = vec!["d"; MAX_DEPTH].join("/");
        assert!(RelPath::parse(deep.as_bytes()).is_ok());
        assert_eq!(refusal(format!("{deep}/d").as_bytes()), EntryProblem::TooDeep);
        let long = vec!["d".repeat(250); 17].join("/");
        assert_eq!(refusal(long.as_bytes()), EntryProblem::PathTooLong);
    }

    proptest! {
        #[test]
        fn an_admitted_path_never_leaves_the_tree(raw in proptest::collection::vec(prop_oneof![
            Just(b'.'), Just(b'/'), any::<u8>()], 0..40)) {
            if let Ok(path) = RelPath::parse(&raw) {
                prop_assert!(!path.as_bytes().starts_with(b"/"));
                for component in path.components() {
                    prop_assert!(component != b".." && component != b"." && !component.contains(&0));
                }
            }
        }

        #[test]
        fn the_fold_of_a_directory_is_a_prefix_of_the_fold_of_its_content(a in "\\PC{1,8}", b in "\\PC{1,8}") {
            let whole = fold_case(format!("{a}/{b}").as_bytes());
            prop_assert!(whole.starts_with(&fold_case(a.as_bytes())));
        }
    }
}
