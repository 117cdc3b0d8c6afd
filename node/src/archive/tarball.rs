//! Tar streams, read and written.
//!
//! The reader understands what tools in use produce: v7, ustar, GNU (long names, base-256 numbers)
//! and pax headers. It is written on top of the `tar` crate's header only, because its limits must
//! hold before memory is taken: an extension header is bounded, and whatever two readers could
//! understand differently (two names for one entry, names or sizes in a global header, data after the
//! end of the archive) is refused.
//!
//! The writer produces one encoding of a tree: GNU headers, long names and targets as GNU `L` and `K`
//! records (pax would require UTF-8), owner 0:0 without names, one fixed time.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::entry::{Admitted, Kind, MAX_PATH_BYTES, Object};
use super::source::read_some;

const RECORD_BYTES: u64 = 512;

/// Bytes of one extension header: a path, a target and room. Bounds what a hostile header makes us buffer.
const MAX_EXTENSION_BYTES: u64 = 64 * 1024;

/// Seconds since 1970 given to every entry. Not 0: GNU tar and zip tools call that implausible.
const MTIME: u64 = 1;

/// One member of a tar stream, as it describes itself. Its data, if any, follows in the reader.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) size: u64,
}

#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

/// Reads members one after the other. [`Read`] yields the data of the present one.
#[derive(Debug)]
pub(super) struct TarReader<R> {
    inner: R,
    data_left: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, data_left: 0, padding: 0 }
    }

    /// The next member; none once the end-of-archive record was read.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        self.skip(self.data_left)?;
        self.data_left = 0;
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.padding)?;
            self.padding = 0;
            let Some(header) = self.header()? else {
                return if extensions.is_empty() { Ok(None) } else { Err(bad("it ends after an extension header")) };
            };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::GNULongName => {
                    set(&mut extensions.path, gnu_string(self.extension(size)?)?)?;
                }
                EntryType::GNULongLink => {
                    set(&mut extensions.link, gnu_string(self.extension(size)?)?)?;
                }
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    pax_records(&records, |key, value| extensions.pax(key, value))?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.extension(size)?;
                    pax_records(&records, |key, _| refuse_global(key))?;
                }
                _ => return self.member(&header, size, extensions).map(Some),
            }
        }
    }

    /// Reads to the end of the stream, which must be zeros: data there would be unpacked by some
    /// tools and not by others.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let mut block = vec![0; super::source::BLOCK_BYTES];
        loop {
            let read = read_some(&mut self.inner, &mut block)?;
            if read == 0 {
                return Ok(());
            }
            if block[..read].iter().any(|byte| *byte != 0) {
                return Err(bad("it has data after its end-of-archive record"));
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> io::Result<Member> {
        let entry_type = header.entry_type();
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let kind = if extensions.sparse { Kind::Unsupported("a sparse file") } else { kind_of(entry_type, &path) };
        let link = match kind {
            Kind::Symlink | Kind::HardLink => {
                extensions.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
            }
            _ => None,
        };
        let size = extensions.size.unwrap_or(size);
        self.begin_data(size)?;
        Ok(Member { path, link, kind, mode: header.mode()?, size })
    }

    fn begin_data(&mut self, size: u64) -> io::Result<()> {
        if size > u64::MAX - RECORD_BYTES {
            return Err(bad("an entry's size is impossible"));
        }
        self.data_left = size;
        self.padding = size.next_multiple_of(RECORD_BYTES) - size;
        Ok(())
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        self.inner.read_exact(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum is computed with its own field taken as spaces.
        let field = 148..156;
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(at, byte)| if field.contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() == Some(sum) { Ok(Some(header)) } else { Err(bad("a header's checksum does not match")) }
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(bad("an extension header is over 64 KiB"));
        }
        self.begin_data(size)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.inner.read_exact(&mut bytes)?;
        self.data_left = 0;
        Ok(bytes)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.inner.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data_left -= u64::try_from(read).map_err(io::Error::other)?;
        Ok(read)
    }
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.size.is_none() && !self.sparse
    }

    fn pax(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        match key {
            b"path" => set(&mut self.path, value.to_vec()),
            b"linkpath" => set(&mut self.link, value.to_vec()),
            b"size" => {
                let size = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                set(&mut self.size, size.ok_or_else(|| bad("a pax header's size is not a number"))?)
            }
            _ => {
                self.sparse |= key.starts_with(b"GNU.sparse.");
                Ok(())
            }
        }
    }
}

fn kind_of(entry_type: EntryType, path: &[u8]) -> Kind {
    match entry_type {
        // Before ustar a directory was a file whose name ends in a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::Unsupported("a character device"),
        EntryType::Block => Kind::Unsupported("a block device"),
        EntryType::Fifo => Kind::Unsupported("a fifo"),
        EntryType::GNUSparse => Kind::Unsupported("a sparse file"),
        _ => Kind::Unsupported("of a type unknown to tar"),
    }
}

fn bad(detail: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

fn set<T>(slot: &mut Option<T>, value: T) -> io::Result<()> {
    if slot.replace(value).is_some() {
        return Err(bad("one entry has two extension headers for the same thing"));
    }
    Ok(())
}

fn gnu_string(mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    if bytes[end..].iter().any(|byte| *byte != 0) {
        return Err(bad("a long name has a NUL byte inside"));
    }
    bytes.truncate(end);
    Ok(bytes)
}

fn refuse_global(key: &[u8]) -> io::Result<()> {
    let changes_entries = matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
    if changes_entries { Err(bad("a global header sets names or sizes")) } else { Ok(()) }
}

/// Calls `each` with every `LENGTH KEY=VALUE\n` record.
fn pax_records(mut records: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    let malformed = || bad("a pax header is malformed");
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length: usize =
            str::from_utf8(&records[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n"));
        let record = record.ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        each(&record[..equals], &record[equals + 1..])?;
        records = &records[length..];
    }
    Ok(())
}

/// Writes the one encoding of a tree.
#[derive(Debug)]
pub(super) struct TarWriter<W> {
    inner: W,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes the header of `entry`. For a file, exactly its size of data and [`Self::pad`] follow.
    pub(super) fn header(&mut self, entry: &Admitted) -> io::Result<()> {
        let (entry_type, mode, size) = match &entry.object {
            Object::Directory => (EntryType::Directory, 0o755, 0),
            Object::File { executable, size } => (EntryType::Regular, if *executable { 0o755 } else { 0o644 }, *size),
            Object::Symlink { .. } => (EntryType::Symlink, 0o777, 0),
            Object::HardLink { .. } => (EntryType::Link, 0o644, 0),
        };
        let mut path = entry.path.as_bytes().to_vec();
        let target = match &entry.object {
            Object::Symlink { target } => &target[..],
            Object::HardLink { target } => target.as_bytes(),
            Object::Directory => {
                path.push(b'/');
                &[]
            }
            Object::File { .. } => &[],
        };
        let mut header = blank(entry_type, mode, size);
        let short_target = self.fit(target, header.as_old().linkname.len(), EntryType::GNULongLink)?;
        header.as_old_mut().linkname[..short_target.len()].copy_from_slice(short_target);
        let short_path = self.fit(&path, header.as_old().name.len(), EntryType::GNULongName)?;
        header.as_old_mut().name[..short_path.len()].copy_from_slice(short_path);
        header.set_cksum();
        self.inner.write_all(header.as_bytes())
    }

    /// The part of `text` that goes into the header; all of it into a record before where it is longer.
    fn fit<'t>(&mut self, text: &'t [u8], room: usize, long: EntryType) -> io::Result<&'t [u8]> {
        // A name that fills the field exactly has no NUL, which some readers trip over.
        if text.len() < room {
            return Ok(text);
        }
        debug_assert!(text.len() <= MAX_PATH_BYTES, "the guard admitted it");
        let size = u64::try_from(text.len()).map_err(io::Error::other)? + 1;
        let mut header = blank(long, 0o644, size);
        let name = b"././@LongLink";
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        self.inner.write_all(header.as_bytes())?;
        self.inner.write_all(text)?;
        self.inner.write_all(&[0])?;
        self.pad(size)?;
        Ok(&text[..room - 1])
    }

    /// Writes data of the file whose header came last.
    pub(super) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)
    }

    /// Fills up to the record boundary after `size` bytes of data.
    pub(super) fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(RECORD_BYTES) - size;
        self.inner.write_all(&ZEROS[..usize::try_from(padding).map_err(io::Error::other)?])
    }

    /// Writes the end-of-archive record.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&ZEROS)?;
        Ok(self.inner)
    }
}

const ZEROS: [u8; 1024] = [0; 1024];

fn blank(entry_type: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(entry_type);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size);
    header
}
