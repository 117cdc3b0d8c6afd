#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    updraft_tests::decoders::evidence(bytes);
});
