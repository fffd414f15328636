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
    trust.pulsed(&pulse(NOW));
    trust
}

/// One that found nothing.
fn pulse(now: Timestamp) -> Pulse {
    Pulse { now, trusted_from: 0, distrust: None, first: false, clock_from: 7, clock_seen: now }
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
    assert_eq!((trust.gap(), trust.own(NOW, None)), (None, Own::default()));
    assert_eq!(trust.clock(NOW), Ok(()));
    trust.pulsed(&pulse(NOW));
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
    trust.pulsed(&pulse(NOW));
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
        assert_eq!((trust.vouch(Some(fine)), trust.clock(fine)), (Ok(()), Ok(())), "{fine}");
        assert_eq!(trust.own(fine, None), Own { clock_from: Some(7), ..Own::default() }, "{fine}");
    }
    for off in [0, NOW - MAY - SLACK, NOW + MAY + SLACK, u64::MAX] {
        assert_eq!(trust.vouch(Some(off)), Err(Distrust("clock-jumped")), "{off}");
        assert_eq!(trust.clock(off), Err(Distrust("clock-jumped")), "{off}");
        let own = trust.own(off, None);
        assert_eq!(own.jump_ms.map(|ms| ms > 0), Some(off > NOW), "{off}: {own:?}");
    }
}

/// Set back by steps that are small each, it is behind what it has shown all the same.
#[test]
fn a_clock_that_creeps_back_has_jumped_in_the_end() {
    let trust = pulsed(|config| config.jump_ms = 5_000);
    trust.pulsed(&Pulse { now: NOW - 4_000, ..pulse(NOW) });
    assert_eq!(trust.clock(NOW - 4_000), Ok(()));
    assert_eq!(trust.clock(NOW - 8_000), Err(Distrust("clock-jumped")));
    assert_eq!(trust.own(NOW - 8_000, None).jump_ms, Some(-8_000));
}

#[test]
fn a_pulse_that_took_long_is_distrust_whatever_it_says() {
    let trust = pulsed(|config| config.slow_ms = 20);
    let begun = Instant::now();
    assert_eq!(trust.slow(begun), None);
    sleep(Duration::from_millis(30));
    assert_eq!(code(trust.slow(begun)).as_deref(), Some("database-slow"));
}
