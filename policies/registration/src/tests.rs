//! Every status a registration can meet, and every reason code.

use sprag_policy::testing::{Ask, heartbeat, ready, unreported};

use super::*;
use Status::*;

#[test]
fn a_registration_brings_online_what_was_not_put_away() {
    let cases = [
        (Provisioning, Verdict::allow("registered")),
        (AwaitingAgent, Verdict::allow("registered")),
        (Online, Verdict::Abstain),
        (Degraded, Verdict::allow("registered")),
        (Offline, Verdict::allow("registered")),
        (Failed, Verdict::allow("registered")),
        (Paused, Verdict::deny("workspace-paused")),
        (Hibernated, Verdict::deny("workspace-hibernated")),
        (Removed, Verdict::deny("workspace-removed")),
    ];
    for (from, expected) in cases {
        for readiness in [ready(), unreported()] {
            assert_eq!(Ask::at(from).because(readiness).of::<Registration>(Online), expected, "{from:?}");
        }
    }
}

#[test]
fn it_has_no_say_about_failed_nor_about_other_causes() {
    assert_eq!(Ask::at(Provisioning).because(ready()).of::<Registration>(Failed), Verdict::Abstain);
    assert_eq!(Ask::at(Provisioning).because(heartbeat()).of::<Registration>(Online), Verdict::Abstain);
}

#[test]
fn the_verdicts_stand_in_the_order_of_the_candidates() {
    assert_eq!(
        Ask::at(Provisioning).because(ready()).all::<Registration>(&[Failed, Online]),
        [Verdict::Abstain, Verdict::allow("registered")]
    );
}
