//! The memory of a crowd.

use super::remembered;

#[test]
fn a_crowd_is_remembered_and_then_forgotten() {
    let after = |singles| (0..singles).fold(remembered(0, 512), |crowd, _| remembered(crowd, 1));
    assert_eq!(after(0), 512);
    assert!(after(3) > 256, "a few small batches do not end a crowd");
    // Half of 1 is nobody: then nothing waits.
    assert_eq!(after(64), 1);
}
