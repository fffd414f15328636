//! Recorded decisions, asked again of the shipped policies. A file of
//! `golden/` is a recording as `sprag record` writes it, with names for ids;
//! what stands in `boundaries/` was written by hand, what stands in `recorded/`
//! comes from the runs below. `UPDATE=1` blesses.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rstest::rstest;
use sprag::advance::Advance;
use sprag::facts::{Answer, Reason};
use sprag::facts::{Cause, Command, CommandKind, Decision, Heartbeat, Outcome, Probe, Readiness, Verdict};
use sprag::machine::{CauseKind, EDGES, EdgeRow, Runtimes, Status};
use sprag::replay::{Closeness, ask_again, differences, read_line};
use sprag::store::Backend;

use crate::support::fleet::Fleet;
use crate::support::sandbox::shipped;

/// Every reason code that the shipped policies can give on an edge of the table.
const CODES: &[&str] = &[
    "active-tasks",
    "agent-alive",
    "agent-returned",
    "agent-started",
    "ancestor-paused",
    "boot-failed",
    "box-not-running",
    "confirm-data-loss",
    "error-rate-high",
    "idle",
    "mcp-server-missing",
    "mcp-tools-not-loaded",
    "model-missing",
    "operator-hibernated",
    "operator-paused",
    "operator-removed",
    "operator-restarted",
    "operator-resumed",
    "operator-switched-provider",
    "operator-woke",
    "provisioning-timed-out",
    "recovered",
    "recovery-restarted",
    "registered",
    "runtime-external",
    "runtime-wedged",
    "same-provider",
    "target-provider-missing",
    "went-silent",
];

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn blesses() -> bool {
    std::env::var("UPDATE").is_ok_and(|v| v == "1")
}

fn read(path: &Path) -> Vec<Decision> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().enumerate();
    lines
        .map(|(i, line)| read_line(i + 1, line).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .collect()
}

fn written(cases: &[Decision]) -> String {
    let mut text = String::new();
    for case in cases {
        let _ = writeln!(text, "{}", serde_json::to_string(case).expect("a decision is JSON"));
    }
    text
}

/// Asks every case of a file again, to the letter.
#[rstest]
#[tokio::test]
async fn says_what_it_said(#[files("golden/*/*.jsonl")] path: PathBuf) {
    let revision = shipped().await;
    let mut cases = read(&path);
    assert!(!cases.is_empty(), "{} holds no case", path.display());
    let mut found = Vec::new();
    for case in &mut cases {
        let now = ask_again(&revision, case).await;
        found.extend(differences(case, &now, Closeness::Exact));
        *case = anonymous(now, &case.id);
    }
    if blesses() {
        std::fs::write(&path, written(&cases)).expect("blessing");
    } else {
        let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{}:\n{}", path.display(), lines.join("\n"));
    }
}

/// Ids, times and digests differ from run to run; names do not.
fn anonymous(mut decision: Decision, name: &str) -> Decision {
    name.clone_into(&mut decision.id);
    decision.revision = 1;
    let votes = decision.votes.iter_mut().map(|vote| &mut vote.by);
    let plans = decision.recovery.iter_mut().map(|plan| &mut plan.by);
    let rulings = decision.actions.iter_mut().flat_map(|asked| &mut asked.cooldowns).map(|r| &mut r.by);
    for by in votes.chain(plans).chain(rulings) {
        Arc::make_mut(by).digest = format!("sha256:{}", "0".repeat(64));
    }
    decision
}

/// What happens to one workspace: a name, what is special about the row, the cause.
struct Scenario {
    name: String,
    kind: &'static str,
    row: Row,
    cause: Cause,
}

#[derive(Clone, Copy, PartialEq)]
enum Row {
    Plain,
    Busy,
    Volume,
    Boxed,
    BelowPaused,
}

/// Everything that can be said of one row of the table.
fn scenarios(cause: CauseKind) -> Vec<Scenario> {
    let plain =
        |name: &str, cause| Scenario { name: name.to_owned(), kind: "workspace", row: Row::Plain, cause };
    match cause {
        CauseKind::Registered => platform("ready", Readiness::default(), &|r| Cause::Registered(r))
            .chain([plain("plain", Cause::Registered(Readiness::default()))])
            .collect(),
        CauseKind::Heartbeat => heartbeats(&plain),
        CauseKind::Silence => vec![
            plain("silent", Cause::Silence { for_: 90_000 }),
            plain("silent for too long", Cause::Silence { for_: 301_000 }),
        ],
        CauseKind::Probed => {
            let probed = |running| Cause::Probed(Probe { instance_id: "i-1".to_owned(), running });
            let boxed = |name, running| Scenario { row: Row::Boxed, ..plain(name, probed(running)) };
            vec![plain("gone", probed(false)), boxed("its own gone", false), boxed("its own running", true)]
        }
        CauseKind::ProvisioningFor => vec![
            plain("long", Cause::ProvisioningFor { for_: 700_000 }),
            plain("too long", Cause::ProvisioningFor { for_: 1_801_000 }),
        ],
        CauseKind::IdleFor => {
            let idle = |name| plain(name, Cause::IdleFor { for_: 3_600_000 });
            vec![
                idle("idle"),
                Scenario { row: Row::Busy, ..idle("idle with tasks") },
                Scenario { kind: "platform", ..idle("idle platform") },
            ]
        }
        CauseKind::ClaimEnded => Vec::new(),
        _ => {
            let kind = CommandKind::ALL.into_iter().find(|c| c.cause() == cause).expect("a command");
            commands(kind)
        }
    }
}

fn platform<'a>(
    name: &'a str,
    ready: Readiness,
    cause: &'a dyn Fn(Readiness) -> Cause,
) -> impl Iterator<Item = Scenario> + 'a {
    let server = Readiness { mcp_server_present: Some(false), ..ready.clone() };
    let tools = Readiness { mcp_server_present: Some(true), loaded_mcp_tools: Some(0), ..ready.clone() };
    let model = Readiness { model_present: Some(false), ..ready.clone() };
    let all = [(name, ready), ("no server", server), ("tools not loaded", tools), ("no model", model)];
    all.into_iter().map(move |(name, readiness)| Scenario {
        name: format!("platform {name}"),
        kind: "platform",
        row: Row::Plain,
        cause: cause(readiness),
    })
}

fn heartbeats(plain: &dyn Fn(&str, Cause) -> Scenario) -> Vec<Scenario> {
    let beat = |error_rate, runtime_state: &str, native_status| {
        let runtime_state = runtime_state.to_owned();
        Cause::Heartbeat(Heartbeat { error_rate, runtime_state, native_status, ..Heartbeat::default() })
    };
    let with = |readiness| Cause::Heartbeat(Heartbeat { readiness, ..Heartbeat::default() });
    [
        plain("well", beat(0.0, "", false)),
        plain("errors", beat(0.9, "", false)),
        plain("wedged", beat(0.0, "wedged", false)),
        plain("native errors", beat(0.9, "", true)),
        plain("native wedged", beat(0.0, "wedged", true)),
    ]
    .into_iter()
    .chain(platform("ready", Readiness::default(), &with))
    .collect()
}

fn commands(kind: CommandKind) -> Vec<Scenario> {
    let other = (kind == CommandKind::SwitchProvider).then(|| "elsewhere".to_owned());
    let command = Command { command: kind, target_provider: other, ..Command::remove() };
    let with = |name: &str, row, command: &Command| Scenario {
        name: name.to_owned(),
        kind: "workspace",
        row,
        cause: Cause::Commanded(command.clone()),
    };
    let mut all = vec![
        with("asked", Row::Plain, &command),
        with("below a paused one", Row::BelowPaused, &command),
        with("busy", Row::Busy, &command),
        with("busy and forced", Row::Busy, &Command { force: true, ..command.clone() }),
    ];
    if kind == CommandKind::Restart {
        let recovery = Command { actor: "recovery".to_owned(), ..command.clone() };
        all.push(with("asked by recovery", Row::Plain, &recovery));
    }
    if kind == CommandKind::SwitchProvider {
        let to = |provider: Option<&str>| Command {
            target_provider: provider.map(str::to_owned),
            ..command.clone()
        };
        all.push(with("nowhere", Row::Plain, &to(None)));
        all.push(with("to where it is", Row::Plain, &to(Some("process"))));
        all.push(with("with a volume", Row::Volume, &command));
        let confirmed = Command { confirm_data_loss: true, ..command.clone() };
        all.push(with("with a volume, confirmed", Row::Volume, &confirmed));
    }
    all
}

/// The recorded cases of one cause come from real runs: rows in a real
/// database, taken through `advance`, exported from its decisions.
#[rstest]
#[tokio::test]
async fn comes_from_a_real_run(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        CauseKind::Registered,
        CauseKind::Heartbeat,
        CauseKind::Silence,
        CauseKind::Probed,
        CauseKind::ProvisioningFor,
        CauseKind::IdleFor,
        CauseKind::Restart,
        CauseKind::SwitchProvider,
        CauseKind::Pause,
        CauseKind::Resume,
        CauseKind::Wake,
        CauseKind::Hibernate,
        CauseKind::Remove
    )]
    cause: CauseKind,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let mut names = Vec::new();
    for row in EDGES.iter().filter(|row| row.cause == cause) {
        for runtime in runtimes(row) {
            for from in row.from {
                for scenario in scenarios(cause) {
                    let id = run(&fleet, &fleet.advance, runtime, *from, &scenario).await;
                    names.push((id, format!("{from}/{cause}/{runtime}/{}", scenario.name)));
                }
            }
        }
    }
    let exported = fleet.store.decisions(None, 10_000).await.expect("exporting");
    let cases: Vec<_> = names
        .iter()
        .map(|(id, name)| {
            let mut of_row = exported.iter().filter(|d| d.question.workspace.id == *id);
            let decision = of_row.next().unwrap_or_else(|| panic!("{name} left no decision"));
            assert!(of_row.next().is_none(), "{name} left more than one decision");
            timeless(anonymous(decision.clone(), name))
        })
        .collect();
    let path = golden_dir().join("recorded").join(format!("{cause}.jsonl"));
    if blesses() {
        std::fs::write(&path, written(&cases)).expect("blessing");
    } else {
        let recorded = read(&path);
        assert_eq!(recorded.len(), cases.len(), "{} is out of date; UPDATE=1 blesses", path.display());
        for (recorded, now) in recorded.iter().zip(&cases) {
            assert_eq!(recorded, now, "UPDATE=1 blesses");
        }
    }
}

fn runtimes(row: &EdgeRow) -> &'static [&'static str] {
    match (row.runtimes, row.cause) {
        (Runtimes::OnlyExternal, _) => &["external"],
        (Runtimes::All, CauseKind::Restart | CauseKind::SwitchProvider | CauseKind::Hibernate) => {
            &["hermes", "external"]
        }
        _ => &["hermes"],
    }
}

async fn run(fleet: &Fleet, advance: &Advance, runtime: &str, from: Status, scenario: &Scenario) -> String {
    let parent = match scenario.row {
        Row::BelowPaused => Some(fleet.workspace("workspace", "hermes", Status::Paused).await.id),
        _ => None,
    };
    let made = fleet.child(scenario.kind, runtime, from, parent.as_deref()).await;
    let set = match scenario.row {
        Row::Busy => Some("active_tasks = 2"),
        Row::Volume => Some("persistent_volume = true"),
        Row::Boxed => Some("instance_id = 'i-1'"),
        Row::Plain | Row::BelowPaused => None,
    };
    // As [`timeless`] has it: in its status for a thousand seconds.
    let set = set.map_or(String::new(), |set| format!(", {set}"));
    let sql =
        format!("UPDATE workspaces SET status_since = status_since - 1000000{set} WHERE id = '{}'", made.id);
    fleet.db.sql(&sql).await;
    advance.workspace(&made.id, &scenario.cause, None).await.expect("answered");
    made.id
}

/// Times and ids of a run, replaced by ones that stay.
fn timeless(mut decision: Decision) -> Decision {
    let question = &mut decision.question;
    question.now = 1_700_000_000_000;
    question.workspace.status_since = 1_699_999_000_000;
    question.workspace.last_heartbeat_at = None;
    "a-workspace".clone_into(&mut question.workspace.id);
    decision
}

/// Every edge of the table and every reason code has a recorded case.
#[test]
fn every_edge_and_every_code_is_recorded() {
    if blesses() {
        return; // The files are being written.
    }
    let mut edges = BTreeSet::new();
    let mut codes = BTreeSet::new();
    for cause in CauseKind::ALL {
        for case in read(&golden_dir().join("recorded").join(format!("{cause}.jsonl"))) {
            let from = case.question.workspace.status;
            let external = case.question.workspace.runtime == "external";
            edges.extend(case.question.candidates.iter().map(|to| (cause, from, *to, external)));
            let reasons = case.votes.iter().flat_map(|vote| match &vote.answer {
                Answer::Verdicts(verdicts) => verdicts.iter().filter_map(reason).collect(),
                Answer::Error(_) => Vec::new(),
            });
            codes.extend(reasons.map(|reason| reason.code.clone()));
        }
    }
    for row in EDGES.iter().filter(|row| row.cause != CauseKind::ClaimEnded) {
        for from in row.from {
            let external = row.runtimes == Runtimes::OnlyExternal;
            let runtime = if external { "external" } else { "hermes" };
            for to in from.edge(row.cause, runtime).expect("a row is an edge").candidates() {
                let case = (row.cause, *from, to, external);
                assert!(edges.contains(&case), "no recorded case for {case:?}");
            }
        }
    }
    let recorded: Vec<_> = codes.iter().map(String::as_str).collect();
    assert_eq!(recorded, CODES);
}

fn reason(verdict: &Verdict) -> Option<&Reason> {
    match verdict {
        Verdict::Allow(reason) | Verdict::Deny(reason) => Some(reason),
        Verdict::Abstain => None,
    }
}

/// A threshold on both sides, in the words of whoever wrote the case: the one
/// moves, the other holds.
#[rstest]
#[case("heartbeat", "online at the degrade threshold", "online just under the degrade threshold")]
#[case("heartbeat", "degraded just under the recover threshold", "degraded at the recover threshold")]
#[case("silence", "at the window", "just within the window")]
#[case("silence", "hermes at its window", "hermes just within its window")]
#[case("silence", "external at its window", "external just within its window")]
#[case("instances", "its own box, gone", "its own box, running")]
#[case("instances", "its own box, gone", "another box, gone")]
#[case("instances", "heard of at heard-within", "heard of just within heard-within")]
#[case("instances", "came to life at heard-within", "came to life just within heard-within")]
#[case("instances", "a boot at its grace", "a boot just within its grace")]
#[case("provisioning-timeout", "at the limit", "just within the limit")]
#[case("provisioning-timeout", "hermes at its limit", "hermes just within its limit")]
#[case("idle", "at the least wait", "just within the least wait")]
#[case("idle", "at the least wait", "platform at the least wait")]
fn the_boundaries_move_and_hold(#[case] file: &str, #[case] moves: &str, #[case] holds: &str) {
    let cases = read(&golden_dir().join("boundaries").join(format!("{file}.jsonl")));
    let moved = |name: &str| {
        let case = cases.iter().find(|c| c.id == name).unwrap_or_else(|| panic!("no case {name}"));
        matches!(case.outcome, Outcome::Moved { .. })
    };
    assert!(moved(moves), "{moves}");
    assert!(!moved(holds), "{holds}");
}
