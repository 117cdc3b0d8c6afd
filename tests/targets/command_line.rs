//! Being written.
#[test]
fn the_target_exists() {}
