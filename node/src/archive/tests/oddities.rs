//! Archives that stretch their formats: numbers that lie, records that contradict each other, names at the
//! edge of what a system takes. Each is refused at publish and at install, in the same words, by the
//! name of the entry where there is one.

use super::*;

fn tar_refusal(build: impl for<'t> FnOnce(&'t mut RawTar) -> &'t mut RawTar) -> String {
    let mut tar = RawTar::default();
    build(&mut tar);
    refusal(Format::Tar, &tar.end())
}

/// The header of a file with these bytes in its size field.
fn with_size_field(field: [u8; 12]) -> RawTar {
    let mut tar = RawTar::default();
    tar.header(b'0', b"liar", 0o644, 0, b"");
    tar.0[124..136].copy_from_slice(&field);
    tar.0[148..156].fill(b' ');
    let sum: u32 = tar.0.iter().map(|byte| u32::from(*byte)).sum();
    tar.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar
}

#[test]
fn a_size_that_is_no_number_or_negative_is_refused() {
    for field in [
        *b"99999999999\0",
        *b"not a number",
        *b"-0000000001\0",
        [0xFF; 12],
        *b"\x80\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    ] {
        let refused = refusal(Format::Tar, &with_size_field(field).end());
        assert!(
            refused.contains("not a sound archive") || refused.contains("cut short"),
            "{}: {refused}",
            field.escape_ascii()
        );
    }
}

#[test]
fn a_pax_size_that_lies_is_refused() {
    // More than there is: what follows is eaten, and the end is missing.
    let refused = tar_refusal(|tar| tar.extension(b'x', &pax("size", b"100000")).file(b"a", b"x"));
    assert!(refused.contains("cut short"), "{refused}");
    // Less than there is: what is left over is no header.
    let refused = tar_refusal(|tar| tar.extension(b'x', &pax("size", b"0")).file(b"a", &[7; 512]));
    assert!(refused.contains("not a sound archive"), "{refused}");
    for size in [&b"-1"[..], b"1e3", b"", b"99999999999999999999999", b" 1"] {
        let refused = tar_refusal(|tar| tar.extension(b'x', &pax("size", size)).file(b"a", b"x"));
        assert!(refused.contains("not a number"), "{}: {refused}", size.escape_ascii());
    }
}

#[test]
fn pax_names_are_held_to_the_same_rule() {
    for (name, what) in [
        (&b"../evil"[..], "`..` component"),
        (b"a//b", "empty or `.` component"),
        (b"a/./b", "empty or `.` component"),
        (b"", "empty or `.` component"),
        (b"a\0b", "NUL byte"),
    ] {
        let refused = tar_refusal(|tar| tar.extension(b'x', &pax("path", name)).file(b"harmless", b"x"));
        assert!(refused.starts_with("entry `") && refused.contains(what), "{}: {refused}", name.escape_ascii());
    }
    let refused = tar_refusal(|tar| {
        tar.file(b"a", b"x").extension(b'x', &pax("linkpath", b"../../etc/passwd")).entry(b'1', b"b", 0o644, b"a")
    });
    assert!(refused.starts_with("entry `b` is a hard link to `../../etc/passwd`"), "{refused}");
}

#[test]
fn one_pax_key_twice_is_refused() {
    let both = [pax("path", b"one"), pax("path", b"two")].concat();
    let refused = tar_refusal(|tar| tar.extension(b'x', &both).file(b"a", b"x"));
    assert!(refused.contains("two extension headers for the same thing"), "{refused}");
}

#[test]
fn pax_records_whose_lengths_lie_are_refused() {
    for record in [
        &b"0 path=a\n"[..],
        b"1 path=a\n",
        b"9999999999999999999999 path=a\n",
        b"-9 path=a\n",
        b"10 path=ab",
        b"path=a\n",
        b"9 path:a\n",
        b"\0\0\0\0",
    ] {
        let refused = tar_refusal(|tar| tar.extension(b'x', record).file(b"a", b"x"));
        assert!(refused.contains("pax header is malformed"), "{}: {refused}", record.escape_ascii());
    }
}

#[test]
fn every_kind_of_sparse_file_is_refused_by_name() {
    let refused = tar_refusal(|tar| tar.entry(b'S', b"holes", 0o644, b""));
    assert!(refused.starts_with("entry `holes` is a sparse file"), "{refused}");
    for (key, value) in [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.map", b"0,1"),
        ("GNU.sparse.realsize", b"1099511627776"),
    ] {
        let refused = tar_refusal(|tar| tar.extension(b'x', &pax(key, value)).file(b"GNUSparseFile.0/holes", b"x"));
        assert!(refused.starts_with("entry `GNUSparseFile.0/holes` is a sparse file"), "{key}: {refused}");
    }
}

#[test]
fn members_that_only_some_tools_know_are_refused_by_name() {
    // GNU dump directories, multi-volume pieces and volume labels, Solaris access lists, and nonsense.
    for kind in [b'D', b'M', b'V', b'N', b'A', b'X', b'Z', b'8', 0xFF] {
        let refused = tar_refusal(|tar| tar.entry(kind, b"odd", 0o644, b""));
        assert!(refused.starts_with("entry `odd` is of a type unknown to tar"), "{kind}: {refused}");
    }
}

#[test]
fn setgid_and_sticky_files_are_refused_by_name() {
    for mode in [0o2755, 0o1755, 0o6755, 0o7777] {
        let refused = tar_refusal(|tar| tar.entry(b'0', b"bin/tool", mode, b""));
        assert!(refused.starts_with(&format!("entry `bin/tool` has mode {mode:04o}")), "{refused}");
    }
}

#[test]
fn a_device_is_refused_in_every_kind_of_archive() {
    let mut tar = RawTar::default();
    let bytes = tar.entry(b'3', b"dev/null", 0o666, b"").end();
    for format in TARS {
        let refused = refusal(format, &compress(format, &bytes));
        assert!(refused.starts_with("entry `dev/null` is a character device"), "{format:?}: {refused}");
    }
}

#[test]
fn names_and_depths_stop_at_what_a_system_takes() {
    let gnu = |name: &[u8]| [name, &[0]].concat();
    let refused = tar_refusal(|tar| tar.extension(b'L', &gnu(&[b'n'; 256])).file(b"a", b"x"));
    assert!(refused.contains("a component over 255 bytes"), "{refused}");
    let long = vec!["n".repeat(200); 21].join("/");
    let refused = tar_refusal(|tar| tar.extension(b'L', &gnu(long.as_bytes())).file(b"a", b"x"));
    assert!(refused.contains("a path over 4096 bytes"), "{refused}");
    let deep = vec!["d"; 129].join("/");
    let refused = tar_refusal(|tar| tar.extension(b'x', &pax("path", deep.as_bytes())).file(b"a", b"x"));
    assert!(refused.contains("over 128 directories deep"), "{refused}");
    let target = vec![b't'; 4096];
    let refused = tar_refusal(|tar| tar.extension(b'K', &gnu(&target)).entry(b'2', b"link", 0o777, b"x"));
    assert!(refused.starts_with("entry `link` is a symbolic link whose target is over 4096 bytes"), "{refused}");
    let refused = tar_refusal(|tar| tar.extension(b'L', &vec![b'n'; 70_000]).file(b"a", b"x"));
    assert!(refused.contains("extension header is over 64 KiB"), "{refused}");
}

#[test]
fn the_longest_names_that_are_allowed_are_unpacked() {
    let name = [vec!["n".repeat(250); 16].join("/").as_bytes(), b"/", &[b'e'; 70]].concat();
    let mut tar = RawTar::default();
    let bytes = tar.extension(b'L', &[&name[..], &[0]].concat()).file(b"a", b"x").end();
    let bench = Bench::new(&bytes);
    let packed = bench.inspect(Format::Tar).expect("publishable");
    bench.unpack(Format::Tar, &expected(&packed)).expect("unpacked");
}

#[test]
fn a_zip_is_held_to_the_same_rule() {
    for (name, mode, what) in [
        ("/etc/evil", 0o100_644, "is an absolute path"),
        ("a/../../evil", 0o100_644, "has a `..` component"),
        ("a//b", 0o100_644, "has an empty or `.` component"),
    ] {
        let refused = refusal(Format::Zip, &zip_of(&[(name, mode, b"x")]));
        assert!(refused.starts_with(&format!("entry `{name}` {what}")), "{refused}");
    }
    let refused = refusal(Format::Zip, &zip_of(&[("Readme", 0o100_644, b"x"), ("README", 0o100_644, b"y")]));
    assert!(refused.starts_with("entry `README` differs from `Readme` only by case"), "{refused}");
    let deep = vec!["d"; 129].join("/");
    assert!(refusal(Format::Zip, &zip_of(&[(&deep, 0o100_644, b"x")])).contains("over 128 directories deep"));
}

#[test]
fn frames_that_lie_about_their_size_are_refused() {
    let mut tar = RawTar::default();
    let bytes = tar.file(b"a", &[5; 2_000]).end();
    // zstd: the frame says how much it holds. The single-segment size is the byte or two after the descriptor.
    let mut zst = compress(Format::TarZst, &bytes);
    let declared = zst[4] >> 6;
    assert!(declared > 0 || zst[4] & 0x20 != 0, "the encoder wrote no size: this test looks at nothing");
    let at = if zst[4] & 0x20 == 0 { 6 } else { 5 };
    zst[at] ^= 0x55;
    let refused = refusal(Format::TarZst, &zst);
    assert!(refused.contains("not a sound archive") || refused.contains("cut short"), "{refused}");
    // gzip: the length of what was compressed stands at the end.
    let mut gz = compress(Format::TarGz, &bytes);
    let end = gz.len();
    gz[end - 4] ^= 0x55;
    assert!(refusal(Format::TarGz, &gz).contains("not a sound archive"));
}
