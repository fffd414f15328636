//! Every command, every call that it makes to a provider, every way in which
//! that call can go wrong: enumerated, not listed.

use std::time::Duration;

use rstest::rstest;
use serde_json::json;
use sprag::claims::plan::{Step, plan};
use sprag::facts::CommandKind;
use sprag::store::Backend;

use super::{RED, Running, Scene, forced, sent_with};
use crate::support::control_plane::{Verb, What, Where};

/// The commands that open a claim, and the status they are given in.
const COMMANDS: [(CommandKind, &str); 8] = [
    (CommandKind::Restart, "online"),
    (CommandKind::SwitchProvider, "online"),
    (CommandKind::Restart, "provisioning"),
    (CommandKind::SwitchProvider, "provisioning"),
    (CommandKind::Pause, "online"),
    (CommandKind::Hibernate, "online"),
    (CommandKind::Resume, "paused"),
    (CommandKind::Wake, "hibernated"),
];

/// A fault, how often it strikes, and whether the command succeeds in spite of it.
fn faults() -> Vec<(What, Option<u32>, bool)> {
    let short = Duration::from_millis(30);
    let late = Duration::from_millis(150);
    vec![
        (What::Fail, Some(1), true),
        (What::FailAccepted, Some(1), true),
        (What::HangUp, Some(1), true),
        // Lost answers: the repeat is known as one.
        (What::Lose, Some(1), true),
        (What::Lose, None, true),
        (What::Before(short), None, true),
        (What::After(short), None, true),
        // Held back in the network, and done long after it was given up on.
        (What::Late { by: late, answer: None }, Some(1), true),
        (What::Late { by: late, answer: Some(500) }, None, false),
        (What::Fail, None, false),
        (What::HangUp, None, false),
        (What::Refuse { status: 422, code: "NO_ROOM" }, None, false),
    ]
}

/// A workspace in the status that a command is given in.
async fn standing(scene: &Scene, status: &str) -> Running {
    if status == "provisioning" {
        let id = scene.boot(RED).await;
        return scene.running(&id).await;
    }
    let one = scene.workspace(RED).await;
    match status {
        "paused" => drop(scene.carried_out(&one.id, "pause", json!({})).await),
        "hibernated" => drop(scene.carried_out(&one.id, "hibernate", forced()).await),
        _ => {}
    }
    one
}

/// So many times, or until the faults are cleared.
fn strike(scene: &Scene, at: Where, what: What, times: Option<u32>) {
    match times {
        Some(times) => scene.plane.faults.next(times, at, what),
        None => scene.plane.faults.always(at, what),
    }
}

const fn verb(step: Step) -> Option<Verb> {
    match step {
        Step::StopOld => Some(Verb::Stop),
        Step::StartNew => Some(Verb::Start),
        _ => None,
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_provider_does_the_row_is_true_and_no_box_is_left(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let mut injected = 0;
    for (command, from) in COMMANDS {
        let name = command.cause().as_str().replace('_', "-");
        for planned in plan(Some(command)) {
            let Some(verb) = verb(planned.step) else { continue };
            for (what, times, succeeds) in faults() {
                let one = standing(&scene, from).await;
                let at = Where::workspace(&one.id).only(verb);
                strike(&scene, at, what, times);
                let claim = scene.carried_out(&one.id, &name, sent_with(&name)).await;
                scene.plane.faults.clear();
                let told = format!("{name}, {}, {what:?} x {times:?}: {claim:#}", planned.step);
                // A stop that is given up on does not hold the claim up; a start does.
                let expected = if succeeds || planned.step == Step::StopOld { "committed" } else { "not" };
                match expected {
                    "committed" => assert_eq!(claim["state"], "committed", "{told}"),
                    _ => assert_ne!(claim["state"], "committed", "{told}"),
                }
                scene.settled(&one.id).await;
                let calls = scene.plane.journal.calls(&one.id);
                let astray = calls.iter().filter(|c| c.verb == Verb::Stop).any(|c| {
                    let started_at = calls.iter().find(|s| s.verb == Verb::Start && s.instance == c.instance);
                    started_at.is_some_and(|s| s.provider != c.provider)
                });
                assert!(!astray, "a provider was asked to stop another's box: {told}");
                injected += 1;
            }
        }
    }
    println!("{injected} faults injected into provider calls on {backend:?}");
    assert!(injected > 80, "{injected}");
}

/// The start was done, nobody was told, and nobody says what runs: then it is stopped, and if that fails owed.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nobody_answers_for_leaves_no_box(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(true, false)] stop_works: bool,
) {
    let scene = Scene::new(backend).await;
    let one = scene.workspace(RED).await;
    scene.carried_out(&one.id, "hibernate", forced()).await;
    scene.plane.faults.always(Where::workspace(&one.id).only(Verb::Start), What::Lose);
    scene.plane.faults.always(Where::workspace(&one.id).only(Verb::Fence), What::Fail);
    if !stop_works {
        scene.plane.faults.always(Where::workspace(&one.id).only(Verb::Stop), What::Fail);
    }
    // The repeats of the start are told nothing either: their key is known, and the connection closes.
    let claim = scene.carried_out(&one.id, "wake", json!({})).await;
    // Where it may run still, "hibernated" would be untrue.
    let (state, status) = if stop_works { ("rolled_back", "hibernated") } else { ("failed", "failed") };
    assert_eq!(claim["state"], state, "{claim:#}");
    scene.plane.faults.clear();
    scene.settled(&one.id).await;
    assert!(scene.plane.running(&one.id).is_empty());
    assert_eq!(scene.row(&one.id).await["status"], status);
}

/// The same of the calls that are made when something went wrong already: the
/// stop of the new box, and the question what runs.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_provider_does_on_the_way_back(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::new(backend).await;
    let mut injected = 0;
    for (command, from) in COMMANDS {
        if !plan(Some(command)).iter().any(|planned| planned.step == Step::StartNew) {
            continue;
        }
        let name = command.cause().as_str().replace('_', "-");
        for verb in [Verb::Stop, Verb::Fence] {
            for (what, times, _) in faults() {
                let one = standing(&scene, from).await;
                // The box starts, and nobody hears of it.
                scene.plane.faults.always(Where::workspace(&one.id).only(Verb::Start), What::Lose);
                if verb == Verb::Stop {
                    scene.plane.faults.always(Where::workspace(&one.id).only(Verb::Fence), What::HangUp);
                }
                let at = Where::workspace(&one.id).only(verb);
                strike(&scene, at, what, times);
                let claim = scene.carried_out(&one.id, &name, sent_with(&name)).await;
                scene.plane.faults.clear();
                assert_ne!(claim["state"], "open", "{name}, {verb:?}, {what:?} x {times:?}: {claim:#}");
                scene.settled(&one.id).await;
                injected += 1;
            }
        }
    }
    println!("{injected} faults injected on the way back on {backend:?}");
    assert!(injected > 80, "{injected}");
}
