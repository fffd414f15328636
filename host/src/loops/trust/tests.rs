//! What makes a host suspect itself, each reason by itself.

use std::thread::sleep;

use super::*;

/// A host that pulsed at `NOW` by the database.
const NOW: Timestamp = 1_700_000_000_000;

/// Bounds that only the one of a test is near to.
fn trust(change: impl FnOnce(&mut BrakeConfig)) -> Trust {
    let far = 3_600_000;
    let mut config = BrakeConfig { stall_ms: far, slow_ms: far, jump_ms: far, ..BrakeConfig::default() };
    change(&mut config);
    Trust::new(&config)
}

fn pulsed(change: impl FnOnce(&mut BrakeConfig)) -> Trust {
    let trust = trust(change);
    trust.pulsed(NOW);
    trust
}

fn code(reason: Option<Reason>) -> Option<String> {
    reason.map(|reason| reason.code)
}

#[test]
fn before_its_first_pulse_nothing_is_known() {
    let trust = trust(|_| ());
    assert_eq!(trust.vouch(None), Err(Distrust("starting")));
    assert_eq!(trust.vouch(Some(NOW)), Err(Distrust("starting")));
    // That nobody listened before, the store finds out.
    assert_eq!((trust.gap(), trust.jump(NOW)), (None, None));
    trust.pulsed(NOW);
    assert_eq!(trust.vouch(Some(NOW)), Ok(()));
}

#[test]
fn a_stall_is_this_host_s_or_the_database_s() {
    let trust = pulsed(|config| config.stall_ms = 20);
    assert_eq!((trust.vouch(None), trust.gap()), (Ok(()), None));
    sleep(Duration::from_millis(30));
    assert_eq!(trust.vouch(None), Err(Distrust("stalled")));
    assert_eq!(code(trust.gap()).as_deref(), Some("stalled"));
    trust.failed();
    assert_eq!(code(trust.gap()).as_deref(), Some("database-away"));
    trust.pulsed(NOW);
    assert_eq!((trust.vouch(None), trust.gap()), (Ok(()), None));
}

#[test]
fn one_pulse_that_fails_is_no_gap() {
    let trust = pulsed(|_| ());
    trust.failed();
    assert_eq!((trust.vouch(Some(NOW)), trust.gap()), (Ok(()), None));
}

#[test]
fn a_clock_has_jumped_that_is_off_by_more_than_it_may_either_way() {
    const MAY: u64 = 5_000;
    // What a busy machine takes between two lines of this test.
    const SLACK: u64 = 2_000;
    let trust = pulsed(|config| config.jump_ms = MAY);
    for fine in [NOW, NOW + MAY - SLACK, NOW - MAY + SLACK] {
        assert_eq!((trust.vouch(Some(fine)), trust.jump(fine)), (Ok(()), None), "{fine}");
    }
    for off in [0, NOW - MAY - SLACK, NOW + MAY + SLACK, u64::MAX] {
        assert_eq!(trust.vouch(Some(off)), Err(Distrust("clock-jumped")), "{off}");
        assert_eq!(code(trust.jump(off)).as_deref(), Some("clock-jumped"), "{off}");
    }
}

#[test]
fn a_pulse_that_took_long_is_distrust_whatever_it_says() {
    let trust = pulsed(|config| config.slow_ms = 20);
    let begun = Instant::now();
    assert_eq!(trust.slow(begun), None);
    sleep(Duration::from_millis(30));
    assert_eq!(code(trust.slow(begun)).as_deref(), Some("database-slow"));
}
