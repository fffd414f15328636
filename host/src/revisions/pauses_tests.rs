//! The pauses, at times that a test names.

use super::*;

#[test]
fn pauses_double_up_to_the_longest_and_begin_anew_for_another() {
    let (mut pauses, mut now) = (Pauses::default(), Instant::now());
    assert!(!pauses.rests(&1, now));
    for expected in [30, 60, 120, 240, 480, 960, 1_800, 1_800] {
        pauses.failed(1, now);
        now += Duration::from_secs(expected - 1);
        assert!(pauses.rests(&1, now), "after {expected} s");
        assert!(!pauses.rests(&2, now), "another may be tried at once");
        now += Duration::from_secs(1);
        assert!(!pauses.rests(&1, now), "after {expected} s");
    }
    pauses.failed(2, now);
    assert!(!pauses.rests(&2, now + Duration::from_secs(30)));
}
