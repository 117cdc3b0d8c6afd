//! Where the control socket is, and how to reach it when its path is too long for the kernel.
//!
//! A socket address holds 108 bytes of path. A data directory deeper than that is no reason to
//! refuse to run: the directory is opened, and the socket addressed through the descriptor.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "control.sock";

/// Bytes of path in a `sockaddr_un`, the closing NUL included (Linux; others have 104).
const SUN_PATH_BYTES: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// Directories in which a socket is made before it moves to its place.
const NURSERY_PREFIX: &str = ".control-";

/// The control socket of the node in `data_dir`.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET_NAME)
}

/// Connects to the node in `data_dir`.
pub fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    with_usable_path(data_dir, |path| UnixStream::connect(path))
}

/// Binds the control socket of the node in `data_dir`, mode 0600, in place of one that a dead node
/// left. The caller holds the data directory's lock, so no living node's socket is replaced.
///
/// The socket is bound in a fresh directory that only its owner can enter, closed to everyone else,
/// and only then renamed to its place: at no moment can another user connect, and the change of the
/// process-wide umask, which would race with other threads, is not needed.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let path = socket_path(data_dir);
    match std::fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is in the way and is not a socket; move it elsewhere", path.display()),
            ));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_nurseries(data_dir)?;
    let nursery = tempfile::Builder::new()
        .prefix(NURSERY_PREFIX)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(data_dir)?;
    let listener = with_usable_path(nursery.path(), |path| UnixListener::bind(path))?;
    let born = socket_path(nursery.path());
    std::fs::set_permissions(&born, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&born, &path)?;
    nursery.close()?;
    Ok(listener)
}

/// Removes what a node that was killed while binding left behind.
fn remove_nurseries(data_dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(data_dir)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(NURSERY_PREFIX));
        if ours && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Calls `action` with a path of the socket in `directory` that fits a socket address.
fn with_usable_path<T>(directory: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = socket_path(directory);
    if path.as_os_str().len() < SUN_PATH_BYTES {
        return action(&path);
    }
    through_descriptor(directory, action)
}

#[cfg(target_os = "linux")]
fn through_descriptor<T>(directory: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;

    let descriptor = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    action(&socket_path(Path::new(&format!("/proc/self/fd/{}", descriptor.as_raw_fd()))))
}

#[cfg(not(target_os = "linux"))]
fn through_descriptor<T>(directory: &Path, _action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "the path of {} is too long for a socket on this system; choose a shorter data directory",
            directory.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn greets(data_dir: &Path, listener: &UnixListener) {
        let mut client = connect(data_dir).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        server.write_all(b"hello").expect("writes");
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).expect("reads");
        assert_eq!(text, "hello");
    }

    #[test]
    fn only_the_owner_may_connect() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = bind(dir.path()).expect("binds");
        let mode = std::fs::metadata(socket_path(dir.path())).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        greets(dir.path(), &listener);
    }

    #[test]
    fn the_socket_of_a_dead_node_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(bind(dir.path()).expect("binds"));
        assert!(socket_path(dir.path()).exists(), "a dropped listener leaves its socket, as a killed node does");
        assert_eq!(connect(dir.path()).expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
        let listener = bind(dir.path()).expect("binds again");
        greets(dir.path(), &listener);
    }

    #[test]
    fn a_file_in_the_sockets_place_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(socket_path(dir.path()), b"precious").expect("writes");
        assert_eq!(bind(dir.path()).expect_err("in the way").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(socket_path(dir.path())).expect("still there"), b"precious");
    }

    #[test]
    fn what_a_killed_bind_left_is_cleared() {
        let dir = tempfile::tempdir().expect("a directory");
        let nursery = dir.path().join(format!("{NURSERY_PREFIX}abc"));
        std::fs::create_dir(&nursery).expect("creates");
        let _listener = bind(dir.path()).expect("binds");
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("lists").map(|e| e.expect("an entry").file_name()).collect();
        assert_eq!(names, [SOCKET_NAME]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_data_directory_deeper_than_a_socket_address_works() {
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(200));
        std::fs::create_dir_all(&deep).expect("creates");
        let listener = bind(&deep).expect("binds");
        greets(&deep, &listener);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_length_around_the_limit_works() {
        let dir = tempfile::tempdir().expect("a directory");
        let fixed = socket_path(dir.path()).as_os_str().len() + 1;
        for total in SUN_PATH_BYTES - 16..SUN_PATH_BYTES + 3 {
            let deep = dir.path().join("x".repeat(total - fixed));
            std::fs::create_dir(&deep).expect("creates");
            assert_eq!(socket_path(&deep).as_os_str().len(), total);
            let listener = bind(&deep).expect("binds");
            greets(&deep, &listener);
        }
    }
}
