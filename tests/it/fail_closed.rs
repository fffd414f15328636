//! Every badly behaved module, bound as the only policy of a whole registry:
//! the row stays as it is, the decision is kept with the named error, the host
//! lives on, and the next good decision is right.

use rstest::rstest;
use sprag::advance::Advanced;
use sprag::facts::{Answer, Cause, Heartbeat, Outcome, Setting, Settings};
use sprag::machine::Status;
use sprag::policy::{Binding, Limits, Revision};
use sprag::store::Backend;

use crate::support::fleet::{Fleet, Made};
use crate::support::sandbox::{limits, revision, sandbox, shipped};

fn failing() -> Cause {
    Cause::Heartbeat(Heartbeat { error_rate: 0.9, ..Heartbeat::default() })
}

/// Judged by `revision`, `made` stays as it is, and the error is on record.
async fn assert_held(fleet: &Fleet, made: &Made, revision: Revision, code: &str) {
    let before = fleet.row(&made.id).await;
    let advance = fleet.advance_under(revision);
    let advanced = advance.workspace(&made.id, &failing(), None).await.expect("answered");
    let Advanced::Held { status: Status::Online, decision } = advanced else {
        panic!("a failed policy moved the row: {advanced:?}")
    };
    assert_eq!(fleet.row(&made.id).await, before);
    let kept = fleet.store.decision(&decision.id).await.expect("reading").expect("the decision is kept");
    assert_eq!(kept, decision);
    let codes: Vec<_> = kept
        .votes
        .iter()
        .filter_map(|vote| match &vote.answer {
            Answer::Error(fault) => Some(fault.code.as_str()),
            Answer::Verdicts(_) => None,
        })
        .collect();
    assert_eq!(codes, [code]);
    let Outcome::Held { denials } = &kept.outcome else { panic!("not held: {kept:?}") };
    let denied: Vec<_> = denials.iter().map(|d| (d.candidate, d.reason.code.as_str())).collect();
    assert_eq!(denied, [(Status::Failed, "policy-error"), (Status::Degraded, "policy-error")]);
}

/// The same row, judged by good policies.
async fn assert_moves(fleet: &Fleet, made: &Made) {
    let advance = fleet.advance_under(shipped().await);
    let advanced = advance.workspace(&made.id, &failing(), None).await.expect("answered");
    assert!(matches!(advanced, Advanced::Moved { to: Status::Degraded, .. }), "{advanced:?}");
}

#[rstest]
#[tokio::test]
async fn a_failed_policy_denies_everything(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        ("trap", "trap"),
        ("divides-by-zero", "trap"),
        ("realloc-traps", "trap"),
        ("grows-table", "trap"),
        ("loops", "out_of_fuel"),
        ("grows-memory", "out_of_memory"),
        ("huge-string", "out_of_memory"),
        ("recurses", "stack_overflow"),
        ("too-few", "wrong_verdict_count"),
        ("too-many", "wrong_verdict_count"),
        ("long-list", "oversized_answer"),
        ("long-string", "oversized_answer"),
        ("lying-string", "bad_answer"),
        ("not-utf8", "bad_answer"),
        ("no-such-verdict", "bad_answer"),
        ("shouted-code", "bad_answer")
    )]
    guest: (&str, &str),
) {
    let (name, code) = guest;
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Online).await;
    assert_held(&fleet, &made, revision(&sandbox(limits()), 2, &[name]).await, code).await;
    assert_moves(&fleet, &made).await;
}

/// The wall clock ends what fuel would let run.
#[rstest]
#[tokio::test]
async fn a_policy_that_outstays_its_time_denies_everything(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Online).await;
    let patient = sandbox(Limits { fuel: u64::MAX, call_ms: 50, ..limits() });
    assert_held(&fleet, &made, revision(&patient, 2, &["loops"]).await, "out_of_time").await;
    assert_moves(&fleet, &made).await;
}

/// One policy that fails outweighs another that allows.
#[rstest]
#[tokio::test]
async fn a_failed_policy_is_not_outvoted(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Online).await;
    let mut mixed = revision(&sandbox(limits()), 2, &["trap"]).await;
    mixed.bindings.extend(shipped().await.bindings);
    assert_held(&fleet, &made, mixed, "trap").await;
    assert_moves(&fleet, &made).await;
}

/// Without a revision nobody may allow anything.
#[rstest]
#[tokio::test]
async fn no_revision_denies_everything(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", Status::Offline).await;
    let none = fleet.advance_under(Revision { number: 0, bindings: Vec::new() });
    let advanced = none.workspace(&made.id, &failing(), None).await.expect("answered");
    let Advanced::Held { decision, .. } = advanced else {
        panic!("nobody decided, and it moved: {advanced:?}")
    };
    let Outcome::Held { denials } = &decision.outcome else { panic!("not held") };
    assert!(denials.iter().all(|d| d.reason.code == "no-active-revision") && denials.len() == 2);
    assert_eq!(fleet.row(&made.id).await.workspace.status, Status::Offline);
}

/// A text that the host takes and the policy can't read denies by name.
#[rstest]
#[case("silence", "windows", Status::Online, Cause::Silence { for_: 86_400_000 })]
#[case("provisioning-timeout", "limits", Status::Provisioning, Cause::ProvisioningFor { for_: 86_400_000 })]
#[tokio::test]
async fn a_typo_in_a_setting_flips_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] policy: &str,
    #[case] setting: &str,
    #[case] status: Status,
    #[case] cause: Cause,
) {
    let fleet = Fleet::new(backend, shipped().await).await;
    let made = fleet.workspace("workspace", "hermes", status).await;
    let mut mistyped = shipped().await;
    let binding = mistyped.bindings.iter_mut().find(|b| b.module.manifest().name == policy);
    let binding = binding.expect("it is shipped");
    let typo = Settings::from([(setting.to_owned(), Setting::Text("codex=2x".to_owned()))]);
    let settings = binding.module.settle(&typo).expect("the host takes any text");
    *binding = Binding::new(binding.module.clone(), settings);

    let advance = fleet.advance_under(mistyped);
    let advanced = advance.workspace(&made.id, &cause, None).await.expect("answered");
    let Advanced::Held { decision, .. } = advanced else { panic!("a typo moved the row: {advanced:?}") };
    let Outcome::Held { denials } = &decision.outcome else { panic!("not held: {decision:?}") };
    let [denial] = denials.as_slice() else { panic!("{denials:?}") };
    assert_eq!(denial.reason.code, "bad-setting");
    assert!(denial.reason.detail.as_ref().is_some_and(|d| d.contains(setting) && d.contains("codex=2x")));
    assert_eq!(fleet.row(&made.id).await.workspace.status, status);

    let advanced = fleet.advance.workspace(&made.id, &cause, None).await.expect("answered");
    assert!(matches!(advanced, Advanced::Moved { .. }), "{advanced:?}");
}
