//! Every command, every objection, both sides of each.

use sprag_policy::testing::{Ask, command, heartbeat};

use super::*;
use CommandKind::*;
use Status::*;

const COMMANDS: [(CommandKind, Status, &str); 7] = [
    (Restart, Provisioning, "operator-restarted"),
    (SwitchProvider, Provisioning, "operator-switched-provider"),
    (Pause, Paused, "operator-paused"),
    (Resume, Provisioning, "operator-resumed"),
    (Hibernate, Hibernated, "operator-hibernated"),
    (Wake, Provisioning, "operator-woke"),
    (Remove, Removed, "operator-removed"),
];

/// The command as an operator sends it; a switch goes to another provider.
fn order(kind: CommandKind) -> Command {
    let command = command(kind);
    if kind == SwitchProvider { command.to_provider("elsewhere") } else { command }
}

/// A status from which the table has an edge for this command.
fn from(kind: CommandKind) -> Status {
    match kind {
        Resume => Paused,
        Wake => Hibernated,
        _ => Online,
    }
}

fn code(ask: &Ask, candidate: Status) -> String {
    match ask.of::<Operations>(candidate) {
        Verdict::Allow(reason) => format!("allow {}", reason.code),
        Verdict::Deny(reason) => format!("deny {}", reason.code),
        Verdict::Abstain => "abstain".to_owned(),
    }
}

#[test]
fn every_command_leads_to_its_own_target_and_nowhere_else() {
    for (kind, target, done) in COMMANDS {
        let ask = Ask::at(from(kind)).because(order(kind));
        for candidate in [Provisioning, Paused, Hibernated, Removed, Online, Failed] {
            let expected = if candidate == target { format!("allow {done}") } else { "abstain".to_owned() };
            assert_eq!(code(&ask, candidate), expected, "{kind:?} -> {candidate:?}");
        }
    }
}

/// What each command answers to one obstacle at a time.
#[test]
fn each_obstacle_stops_the_commands_that_it_concerns() {
    type Obstacle = fn(Ask) -> Ask;
    let cases: [(&str, Obstacle, &[CommandKind]); 4] = [
        ("runtime-external", |ask| ask.runtime("external"), &[Restart, SwitchProvider, Hibernate]),
        ("ancestor-paused", Ask::ancestor_paused, &[Restart, SwitchProvider, Resume, Wake]),
        ("confirm-data-loss", Ask::persistent_volume, &[SwitchProvider]),
        ("active-tasks", |ask| ask.tasks(1), &[Restart, SwitchProvider, Hibernate]),
    ];
    for (objection, obstacle, stopped) in cases {
        for (kind, target, done) in COMMANDS {
            let ask = obstacle(Ask::at(from(kind)).because(order(kind)));
            let expected =
                if stopped.contains(&kind) { format!("deny {objection}") } else { format!("allow {done}") };
            assert_eq!(code(&ask, target), expected, "{kind:?} with {objection}");
        }
    }
}

#[test]
fn tasks_count_where_they_are_live_and_a_restart_cures_a_degraded_agent() {
    let cases = [
        (Restart, Online, true),
        (Restart, Degraded, false),
        (Restart, Offline, false),
        (Restart, Failed, false),
        // What its last heartbeat said, the box before said.
        (Restart, Provisioning, false),
        (SwitchProvider, Provisioning, false),
        (SwitchProvider, Online, true),
        (SwitchProvider, Degraded, true),
        (SwitchProvider, Offline, false),
        (SwitchProvider, Failed, false),
        (Hibernate, Online, true),
        (Hibernate, Degraded, true),
    ];
    for (kind, status, stopped) in cases {
        let target = target(kind);
        let busy = Ask::at(status).tasks(3).because(order(kind));
        assert_eq!(code(&busy, target) == "deny active-tasks", stopped, "{kind:?} {status:?}");
        let forced = busy.because(order(kind).forced());
        assert!(code(&forced, target).starts_with("allow"), "{kind:?} {status:?}");
    }
}

#[test]
fn a_switch_names_another_provider_and_confirms_what_it_loses() {
    let here = Ask::at(Online); // provider "local"
    let homeless = Ask::at(Online).workspace(|w| w.provider = None);
    let keeps_data = Ask::at(Online).persistent_volume();
    let cases = [
        (here.clone(), command(SwitchProvider), "deny target-provider-missing"),
        (homeless.clone(), command(SwitchProvider), "deny target-provider-missing"),
        (here.clone(), command(SwitchProvider).to_provider("local"), "deny same-provider"),
        (here, command(SwitchProvider).to_provider("cloud"), "allow operator-switched-provider"),
        (homeless, command(SwitchProvider).to_provider("local"), "allow operator-switched-provider"),
        (keeps_data.clone(), order(SwitchProvider).forced(), "deny confirm-data-loss"),
        (keeps_data, order(SwitchProvider).confirmed(), "allow operator-switched-provider"),
    ];
    for (ask, command, expected) in cases {
        assert_eq!(code(&ask.because(command.clone()), Provisioning), expected, "{command:?}");
    }
}

#[test]
fn the_first_objection_in_the_documented_order_is_the_verdict() {
    let mut ask = Ask::at(Online)
        .runtime("external")
        .ancestor_paused()
        .persistent_volume()
        .tasks(1)
        .because(command(SwitchProvider).to_provider("local"));
    assert_eq!(code(&ask, Provisioning), "deny runtime-external");
    ask = ask.runtime("hermes");
    assert_eq!(code(&ask, Provisioning), "deny ancestor-paused");
    ask.workspace.ancestor_paused = false;
    assert_eq!(code(&ask, Provisioning), "deny same-provider");
    ask = ask.because(order(SwitchProvider));
    assert_eq!(code(&ask, Provisioning), "deny confirm-data-loss");
    ask = ask.because(order(SwitchProvider).confirmed());
    assert_eq!(code(&ask, Provisioning), "deny active-tasks");
    ask = ask.because(order(SwitchProvider).confirmed().forced());
    assert_eq!(code(&ask, Provisioning), "allow operator-switched-provider");
}

#[test]
fn a_restart_says_who_wanted_it() {
    let by_the_host = Command { actor: "recovery".to_owned(), ..command(Restart) };
    assert_eq!(code(&Ask::at(Failed).because(by_the_host), Provisioning), "allow recovery-restarted");
    assert_eq!(code(&Ask::at(Failed).because(command(Restart)), Provisioning), "allow operator-restarted");
}

#[test]
fn only_commands_are_its_business() {
    assert_eq!(code(&Ask::at(Offline).because(heartbeat()), Online), "abstain");
    assert_eq!(code(&Ask::at(Online).because(Cause::IdleFor(1)), Hibernated), "abstain");
}
