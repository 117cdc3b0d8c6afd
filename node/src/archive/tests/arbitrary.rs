//! Arbitrary and damaged bytes end in an error or a contained tree, never in a panic.

use super::*;
use proptest::prelude::*;

fn survive(format: Format, bytes: &[u8]) {
    let bench = Bench::new(bytes);
    let published = bench.inspect(format);
    let mut allowed = anything(bytes);
    allowed.content.length = 64 << 20;
    let installed = bench.unpack(format, &allowed);
    // The digest of the content was never right, so only a mismatch can follow what publish accepts.
    match (published, installed) {
        (Ok(_), Err(ArchiveError::Mismatch { .. })) | (Err(_), Err(_)) => {}
        other => panic!("{other:?}"),
    }
    bench.assert_contained();
}

fn any_archive() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Tar), Just(Format::TarGz), Just(Format::TarXz), Just(Format::TarZst), Just(Format::Zip),]
}

/// A well-formed archive in any format.
fn sound(format: Format) -> Vec<u8> {
    if format == Format::Zip {
        return zip_of(&[("d/", 0o40_755, b""), ("d/f", 0o100_644, &[3; 3000]), ("l", 0o120_777, b"d/f")]);
    }
    let mut tar = RawTar::default();
    tar.extension(b'x', &pax("path", b"dir/long")).file(b"short", &[1; 700]);
    tar.extension(b'L', b"dir/longer\0").entry(b'0', b"s", 0o755, b"").entry(b'2', b"link", 0o777, b"dir");
    tar.entry(b'1', b"hard", 0o644, b"dir/long");
    compress(format, &tar.end())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_never_panic(format in any_archive(), bytes in proptest::collection::vec(any::<u8>(), 1..3000)) {
        survive(format, &bytes);
    }

    #[test]
    fn damaged_archives_never_panic(
        format in any_archive(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut bytes = sound(format);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        survive(format, &bytes);
    }

    #[test]
    fn damaged_tar_headers_with_right_checksums_never_panic(
        damage in proptest::collection::vec((0_usize..512, any::<u8>()), 1..8),
        which in 0_usize..8,
    ) {
        let mut bytes = sound(Format::Tar);
        let start = which * 512;
        for (at, byte) in damage {
            bytes[start + at] = byte;
        }
        let mut header = ::tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&bytes[start..start + 512]);
        header.set_cksum();
        bytes[start..start + 512].copy_from_slice(header.as_bytes());
        survive(Format::Tar, &bytes);
    }
}
