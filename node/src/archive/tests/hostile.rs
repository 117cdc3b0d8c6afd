//! Archives made to do harm. Each is refused at publish and at install, in the same words.

use super::*;

fn tar_refusal(build: impl for<'t> FnOnce(&'t mut RawTar) -> &'t mut RawTar) -> String {
    let mut tar = RawTar::default();
    build(&mut tar);
    refusal(Format::Tar, &tar.end())
}

#[test]
fn a_tar_does_not_climb_out() {
    assert!(tar_refusal(|tar| tar.file(b"../evil", b"x")).starts_with("entry `../evil` has a `..` component"));
    assert!(tar_refusal(|tar| tar.file(b"a/../../evil", b"x")).contains("`..` component"));
    assert!(tar_refusal(|tar| tar.file(b"/tmp/evil", b"x")).starts_with("entry `/tmp/evil` is an absolute path"));
}

#[test]
fn a_long_name_does_not_climb_out_either() {
    let refused = tar_refusal(|tar| tar.extension(b'L', b"../evil\0").file(b"harmless", b"x"));
    assert!(refused.starts_with("entry `../evil`"), "{refused}");
    let refused = tar_refusal(|tar| tar.extension(b'x', &pax("path", b"/evil")).file(b"harmless", b"x"));
    assert!(refused.starts_with("entry `/evil`"), "{refused}");
}

#[test]
fn a_tar_writes_through_no_link_of_its_own() {
    let refused = tar_refusal(|tar| tar.entry(b'2', b"out", 0o777, b"..").file(b"out/evil", b"x"));
    assert!(refused.starts_with("entry `out/evil` lies below `out`"), "{refused}");
    let refused = tar_refusal(|tar| tar.entry(b'2', b"out", 0o777, b"../evil").file(b"out", b"x"));
    assert!(refused.starts_with("entry `out` appears twice"), "{refused}");
    let refused = tar_refusal(|tar| tar.entry(b'2', b"out", 0o777, b"..").entry(b'5', b"out", 0o755, b""));
    assert!(refused.starts_with("entry `out` is a directory in one place"), "{refused}");
}

#[test]
fn a_hard_link_reaches_nothing_outside() {
    for target in [&b"/etc/passwd"[..], b"../artifact", b"later", b"link"] {
        let refused = tar_refusal(|tar| {
            tar.entry(b'2', b"link", 0o777, b"/etc/passwd").entry(b'1', b"evil", 0o644, target).file(b"later", b"x")
        });
        assert!(refused.starts_with("entry `evil` is a hard link to"), "{refused}");
    }
}

#[test]
fn devices_fifos_and_setuid_are_refused_by_name() {
    for (kind, what) in
        [(b'3', "a character device"), (b'4', "a block device"), (b'6', "a fifo"), (b'S', "a sparse file")]
    {
        let refused = tar_refusal(|tar| tar.entry(kind, b"dev/x", 0o644, b""));
        assert!(refused.starts_with(&format!("entry `dev/x` is {what}")), "{refused}");
    }
    let refused = tar_refusal(|tar| tar.entry(b'0', b"bin/su", 0o4755, b""));
    assert!(refused.starts_with("entry `bin/su` has mode 4755"), "{refused}");
}

#[test]
fn duplicates_and_case_collisions_are_refused() {
    let refused = tar_refusal(|tar| tar.file(b"a", b"x").file(b"./a", b"y"));
    assert_eq!(refused, "entry `./a` appears twice");
    let refused = tar_refusal(|tar| tar.file(b"a/F", b"x").file(b"A/f", b"y"));
    assert!(refused.starts_with("entry `A/f` differs from `a` only by case"), "{refused}");
}

#[test]
fn an_archive_without_entries_is_refused() {
    assert!(tar_refusal(|tar| tar).ends_with("is an archive without entries; there is nothing to install"));
    assert!(tar_refusal(|tar| tar.entry(b'5', b"./", 0o755, b"")).contains("without entries"));
    assert!(refusal(Format::Zip, &zip_of(&[])).contains("without entries"));
}

#[test]
fn an_empty_file_is_refused() {
    for format in [Format::Tar, Format::TarGz, Format::TarXz, Format::TarZst, Format::Zip, Format::File] {
        assert!(refusal(format, b"").contains("is an empty file"), "{format:?}");
    }
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_was_cut() {
    let mut tar = RawTar::default();
    let bytes = tar.file(b"a", &[1; 3000]).file(b"b", &[2; 3000]).end();
    for format in TARS {
        let whole = compress(format, &bytes);
        let step = whole.len() / 40 + 1;
        // The end-of-archive record of a plain tar is two blocks, and one is enough.
        let end = if format == Format::Tar { whole.len() - 1024 } else { whole.len() - 1 };
        for cut in (1..=end).step_by(step).chain([end]) {
            let refused = refusal(format, &whole[..cut]);
            assert!(
                refused.contains("cut short") || refused.contains("not a sound archive"),
                "{format:?} {cut}: {refused}"
            );
        }
    }
}

#[test]
fn a_tar_without_its_end_record_counts_as_truncated() {
    let mut tar = RawTar::default();
    let refused = refusal(Format::Tar, &tar.file(b"a", b"x").0);
    assert!(refused.contains("cut short"), "{refused}");
}

#[test]
fn data_after_the_end_of_a_tar_is_refused() {
    let mut tar = RawTar::default();
    let twice = [tar.file(b"a", b"x").end(), tar.file(b"b", b"y").end()].concat();
    for format in TARS {
        assert!(
            refusal(format, &compress(format, &twice)).contains("data after its end-of-archive record"),
            "{format:?}"
        );
    }
}

#[test]
fn garbage_after_the_compressed_stream_is_refused() {
    let mut tar = RawTar::default();
    let bytes = tar.file(b"a", b"x").end();
    for format in [Format::TarGz, Format::TarXz, Format::TarZst] {
        let refused = refusal(format, &[compress(format, &bytes), b"garbage!".to_vec()].concat());
        assert!(refused.contains("not a sound archive") || refused.contains("cut short"), "{format:?}: {refused}");
    }
}

#[test]
fn a_damaged_header_is_refused() {
    let mut tar = RawTar::default();
    let mut bytes = tar.file(b"a", b"x").end();
    bytes[0] = b'b';
    assert!(refusal(Format::Tar, &bytes).contains("checksum"));
}

#[test]
fn a_size_beyond_the_archive_is_truncation_and_takes_no_memory() {
    let refused = tar_refusal(|tar| tar.header(b'0', b"a", 0o644, u64::MAX >> 1, b""));
    assert!(refused.contains("cut short"), "{refused}");
    let refused = tar_refusal(|tar| tar.header(b'L', b"a", 0o644, 1 << 40, b""));
    assert!(refused.contains("extension header is over 64 KiB"), "{refused}");
    let refused = tar_refusal(|tar| tar.header(b'0', b"a", 0o644, u64::MAX, b""));
    assert!(refused.contains("size is impossible"), "{refused}");
}

#[test]
fn a_directory_with_data_is_refused() {
    let refused = tar_refusal(|tar| tar.header(b'5', b"d", 0o755, 5, b"").data(b"12345"));
    assert!(refused.starts_with("entry `d` is not a regular file and yet has 5 bytes"), "{refused}");
}

#[test]
fn headers_that_two_readers_take_differently_are_refused() {
    let refused =
        tar_refusal(|tar| tar.extension(b'L', b"one\0").extension(b'x', &pax("path", b"two")).file(b"three", b"x"));
    assert!(refused.contains("two extension headers"), "{refused}");
    let refused = tar_refusal(|tar| tar.extension(b'g', &pax("path", b"all")).file(b"a", b"x"));
    assert!(refused.contains("global header"), "{refused}");
    let refused = tar_refusal(|tar| tar.extension(b'L', b"ok\0../evil").file(b"a", b"x"));
    assert!(refused.contains("NUL byte inside"), "{refused}");
    let refused = tar_refusal(|tar| tar.extension(b'x', b"99 path=short\n").file(b"a", b"x"));
    assert!(refused.contains("pax header is malformed"), "{refused}");
    let refused = tar_refusal(|tar| tar.extension(b'x', &pax("GNU.sparse.size", b"9")).file(b"a", b"x"));
    assert!(refused.contains("a sparse file"), "{refused}");
}

#[test]
fn an_archive_that_ends_in_an_extension_header_is_refused() {
    let refused = tar_refusal(|tar| tar.file(b"a", b"x").extension(b'L', b"name\0"));
    assert!(refused.contains("ends after an extension header"), "{refused}");
}

#[test]
fn a_zip_does_not_climb_out() {
    let refused = refusal(Format::Zip, &zip_of(&[("../evil", 0o100_644, b"x")]));
    assert!(refused.starts_with("entry `../evil` has a `..` component"), "{refused}");
    let refused = refusal(Format::Zip, &zip_of(&[("out", 0o120_777, b".."), ("out/evil", 0o100_644, b"x")]));
    assert!(refused.starts_with("entry `out/evil` lies below `out`"), "{refused}");
}

#[test]
fn a_zip_with_equal_names_is_refused() {
    let mut bytes = zip_of(&[("name-a", 0o100_644, b"x"), ("name-b", 0o100_644, b"y")]);
    while let Some(at) = bytes.windows(6).position(|window| window == b"name-b") {
        bytes[at + 5] = b'a';
    }
    assert!(refusal(Format::Zip, &bytes).contains("the same name"));
}

#[test]
fn a_zip_whose_local_names_differ_is_refused() {
    let mut bytes = zip_of(&[("name-a", 0o100_644, b"x")]);
    let local = bytes.windows(6).position(|window| window == b"name-a").expect("the local name");
    bytes[local + 5] = b'z';
    assert!(refusal(Format::Zip, &bytes).contains("not a sound archive"));
}

#[test]
fn a_zip_with_setuid_is_refused_by_name() {
    let refused = refusal(Format::Zip, &zip_with_mode(0o104_755));
    assert!(refused.starts_with("entry `bin/su` has mode 4755"), "{refused}");
}

#[test]
fn a_zip_with_a_device_a_fifo_or_a_socket_is_refused_by_name() {
    for (kind, what) in [
        (0o020_000, "a character device"),
        (0o060_000, "a block device"),
        (0o010_000, "a fifo"),
        (0o140_000, "a socket"),
    ] {
        let refused = refusal(Format::Zip, &zip_with_mode(kind | 0o644));
        assert!(refused.starts_with(&format!("entry `bin/su` is {what}")), "{refused}");
    }
}

/// A zip whose only central header has this mode, which the writer would not write.
fn zip_with_mode(mode: u32) -> Vec<u8> {
    let mut bytes = zip_of(&[("bin/su", 0o100_755, b"x")]);
    let central = bytes.windows(4).position(|window| window == b"PK\x01\x02").expect("a central header");
    bytes[central + 38..central + 42].copy_from_slice(&(mode << 16).to_le_bytes());
    bytes
}

#[test]
fn a_damaged_or_truncated_zip_is_refused() {
    let bytes = zip_of(&[("a", 0o100_644, &vec![5; 40_000])]);
    let mut damaged = bytes.clone();
    damaged[45] ^= 0xFF;
    let refused = refusal(Format::Zip, &damaged);
    assert!(refused.contains("not a sound archive") || refused.contains("cut short"), "{refused}");
    for cut in 1..bytes.len() {
        refusal(Format::Zip, &bytes[..cut]);
    }
}

#[test]
fn a_zip_bomb_is_refused_before_it_is_unpacked() {
    let bomb = zip_of(&[("zeros", 0o100_644, &vec![0; 60 << 20])]);
    assert!(bomb.len() < 100_000);
    let refused = refusal(Format::Zip, &bomb);
    assert!(refused.contains("beyond what a zip of its size may"), "{refused}");
}

#[test]
fn a_zip_entry_longer_than_it_declares_is_refused() {
    let mut bytes = zip_of(&[("a", 0o100_644, &vec![7; 30_000])]);
    for header in [b"PK\x03\x04", b"PK\x01\x02"] {
        let at = bytes.windows(4).position(|window| window == header).expect("a header");
        let size = at + if header[2] == 3 { 22 } else { 24 };
        bytes[size..size + 4].copy_from_slice(&10_u32.to_le_bytes());
    }
    refusal(Format::Zip, &bytes);
}

#[test]
fn a_zip_entry_shorter_than_it_declares_is_refused() {
    let mut bytes = zip_of(&[("a", 0o100_644, &vec![7; 30_000])]);
    for header in [b"PK\x03\x04", b"PK\x01\x02"] {
        let at = bytes.windows(4).position(|window| window == header).expect("a header");
        let size = at + if header[2] == 3 { 22 } else { 24 };
        bytes[size..size + 4].copy_from_slice(&30_001_u32.to_le_bytes());
    }
    let refused = refusal(Format::Zip, &bytes);
    assert!(refused.contains("shorter than it declares"), "{refused}");
}

#[test]
fn xz_that_asks_for_much_memory_is_refused() {
    let mut tar = RawTar::default();
    let bytes = tar.file(b"a", b"x").end();
    // The encoder would take gigabytes for such a dictionary; a small one is patched to claim it.
    let mut small = compress(Format::TarXz, &bytes);
    let filter = small[12..].windows(2).position(|window| window == [0x21, 0x01]).expect("the LZMA2 filter") + 12;
    // 1 GiB.
    small[filter + 2] = 36;
    let header = (usize::from(small[12]) + 1) * 4;
    let crc = {
        let mut crc = flate2::Crc::new();
        crc.update(&small[12..12 + header - 4]);
        crc.sum()
    };
    small[12 + header - 4..12 + header].copy_from_slice(&crc.to_le_bytes());
    let refused = refusal(Format::TarXz, &small);
    assert!(refused.contains("not a sound archive"), "{refused}");
}

/// Decision 8: a link is kept as it is and never followed, so one that leads out is the release's own affair.
#[test]
fn links_that_lead_out_are_installed_as_they_are_and_nothing_goes_through_them() {
    let mut tar = RawTar::default();
    let targets: [&[u8]; 3] = [b"/etc/passwd", b"../../..", b"no/such/thing"];
    for (number, target) in targets.iter().enumerate() {
        tar.entry(b'2', format!("link-{number}").as_bytes(), 0o777, target);
    }
    let bench = Bench::new(&tar.end());
    let packed = bench.inspect(Format::Tar).expect("publishable");
    bench.unpack(Format::Tar, &expected(&packed)).expect("unpacked");
    for (number, target) in targets.iter().enumerate() {
        let link = fs::read_link(bench.staging().join(format!("link-{number}"))).expect("a link");
        assert_eq!(link, path(target));
    }
    bench.assert_contained();
}
