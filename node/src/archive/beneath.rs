//! Opening what lies below a directory, and nothing else, whoever else writes there meanwhile.
//!
//! The kernel resolves the whole path in one go and refuses a symbolic link, a mount or `..` in it
//! (`openat2`, Linux 5.6). Where there is no `openat2`, every component is opened by itself, each
//! relative to the one before and following no link, which refuses the same but for mounts.
//!
//! Nothing here may ever resolve a path as a string: between a look at a name and its use somebody
//! may put a link there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Tries after each of which the kernel says that it could not be sure, because something was renamed.
const MAX_TRIES: u32 = 16;

/// The kernel has no `openat2`; it is not asked again.
static WITHOUT_OPENAT2: AtomicBool = AtomicBool::new(false);

/// Opens `path`, one or more names separated by `/`, below `root`. The result is not inherited by
/// other programs. `ELOOP`, `ENOTDIR` and `EXDEV` say that something led elsewhere.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !WITHOUT_OPENAT2.load(Ordering::Relaxed) {
        match by_kernel(root, path, flags, mode) {
            // Some sandboxes answer to calls that they do not know that they are not permitted.
            Err(Errno::PERM) => {}
            Err(Errno::NOSYS) => WITHOUT_OPENAT2.store(true, Ordering::Relaxed),
            result => return result,
        }
    }
    by_component(root, path, flags, mode)
}

fn by_kernel(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..MAX_TRIES {
        result = fs::openat2(root, path, flags, mode, resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

fn by_component(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let Some((last, directories)) = names.split_last() else { return Err(Errno::NOENT) };
    if names.iter().any(|name| matches!(*name, b"" | b"." | b"..")) {
        return Err(Errno::XDEV);
    }
    let mut opened: Option<OwnedFd> = None;
    for name in directories {
        let parent = opened.as_ref().map_or(root, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        opened = Some(fs::openat(parent, *name, flags, Mode::empty())?);
    }
    fs::openat(opened.as_ref().map_or(root, AsFd::as_fd), *last, flags, mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    type Way = fn(BorrowedFd<'_>, &[u8], OFlags, Mode) -> Result<OwnedFd, Errno>;

    const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// Both ways must give the same answers, whichever the kernel at hand would take.
    fn each_way(test: impl Fn(Way, BorrowedFd<'_>)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let inside = directory.path().join("root");
        std::fs::create_dir_all(inside.join("a/b")).expect("directories");
        std::fs::write(inside.join("a/b/file"), b"inside").expect("a file");
        std::fs::write(directory.path().join("outside"), b"outside").expect("a file");
        symlink("..", inside.join("up")).expect("a link");
        symlink("a", inside.join("sideways")).expect("a link");
        symlink("../../../outside", inside.join("a/b/out")).expect("a link");
        let root = std::fs::File::open(&inside).expect("the root");
        for way in [open as Way, by_kernel, by_component] {
            if by_kernel(root.as_fd(), b"a", READ, Mode::empty()).is_err_and(|errno| errno == Errno::NOSYS)
                && std::ptr::fn_addr_eq(way, by_kernel as Way)
            {
                continue;
            }
            test(way, root.as_fd());
        }
    }

    #[test]
    fn what_lies_below_is_opened() {
        each_way(|way, root| {
            assert!(way(root, b"a/b/file", READ, Mode::empty()).is_ok());
            assert!(way(root, b"a/b", READ | OFlags::DIRECTORY, Mode::empty()).is_ok());
        });
    }

    #[test]
    fn a_link_is_followed_neither_at_the_end_nor_on_the_way() {
        each_way(|way, root| {
            for path in [&b"up/outside"[..], b"a/b/out", b"sideways/b/file", b"sideways"] {
                let refused = way(root, path, READ, Mode::empty()).expect_err("refused");
                assert!(matches!(refused, Errno::LOOP | Errno::NOTDIR), "{} {refused}", path.escape_ascii());
            }
        });
    }

    #[test]
    fn nothing_climbs_out() {
        each_way(|way, root| {
            for path in [&b".."[..], b"../outside", b"a/../../outside", b"/etc/passwd"] {
                let refused = way(root, path, READ, Mode::empty()).expect_err("refused");
                assert_eq!(refused, Errno::XDEV, "{}", path.escape_ascii());
            }
        });
    }

    #[test]
    fn a_file_is_made_only_where_nothing_is() {
        each_way(|way, root| {
            let make = READ.difference(OFlags::RDONLY) | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let mode = Mode::from_raw_mode(0o644);
            assert!(way(root, b"a/new", make, mode).is_ok());
            assert_eq!(way(root, b"a/new", make, mode).expect_err("there already"), Errno::EXIST);
            assert_eq!(way(root, b"a/b/out", make, mode).expect_err("a link is there"), Errno::EXIST);
            fs::unlinkat(root, "a/new", fs::AtFlags::empty()).expect("removed for the next way");
        });
    }
}
