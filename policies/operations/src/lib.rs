//! The `operations` policy: what an operator may do to a workspace, and what
//! has to be said twice.
//!
//! A command is allowed unless it would not do what its sender expects. Of
//! several objections the first in this order is the verdict:
//!
//! | Code (deny) | Commands | When |
//! |---|---|---|
//! | `runtime-external` | restart, switch-provider, hibernate | the platform does not own the box |
//! | `ancestor-paused` | restart, switch-provider, resume, wake | some ancestor is paused: resume that one |
//! | `target-provider-missing` | switch-provider | the command names no provider |
//! | `same-provider` | switch-provider | it is there already; there is nothing to do |
//! | `confirm-data-loss` | switch-provider | a persistent volume would be left behind, unconfirmed |
//! | `active-tasks` | switch-provider, hibernate | online or degraded with tasks, not forced |
//! | `active-tasks` | restart | online with tasks, not forced |
//!
//! A restart is the cure of a degraded agent, so its tasks don't stand in the
//! way there; those of a row that is offline, failed or boots are only what its
//! last heartbeat said. Force answers `active-tasks` and nothing else. To pause and
//! to remove is always allowed: whoever wants a workspace stopped gets it
//! stopped.
//!
//! | Code (allow) | Command |
//! |---|---|
//! | `operator-removed` | remove |
//! | `operator-paused`, `operator-resumed` | pause, resume |
//! | `operator-hibernated`, `operator-woke` | hibernate, wake |
//! | `operator-switched-provider` | switch-provider |
//! | `operator-restarted`, `recovery-restarted` | restart, by a person or by the host itself |
//!
//! A candidate that is not the command's own target: abstain.

use sprag_policy::prelude::*;

/// The policy.
pub struct Operations;

impl Policy for Operations {
    const NAME: &'static str = "operations";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Commands are carried out, unless they would not do what is expected.";
    type Settings = ();
}

impl Guard for Operations {
    const INTERESTS: &'static [Interest] = &[Interest::EVERYWHERE.causes(&[CauseKind::Commanded])];

    fn decide(request: &Request, candidate: Status) -> Verdict {
        let Cause::Commanded(command) = &request.cause else { return Verdict::Abstain };
        if candidate != target(command.kind) {
            return Verdict::Abstain;
        }
        match objection(&request.workspace, command) {
            Some((code, words)) => Verdict::deny(code).detail(words),
            None => Verdict::allow(done(command)),
        }
    }
}

/// The one status that a command is meant to lead to.
fn target(kind: CommandKind) -> Status {
    match kind {
        CommandKind::Restart | CommandKind::SwitchProvider | CommandKind::Resume | CommandKind::Wake => {
            Status::Provisioning
        }
        CommandKind::Pause => Status::Paused,
        CommandKind::Hibernate => Status::Hibernated,
        CommandKind::Remove => Status::Removed,
    }
}

type Objection = (&'static str, &'static str);

/// The first reason why the command would not do what its sender expects.
fn objection(workspace: &Workspace, command: &Command) -> Option<Objection> {
    use CommandKind::*;

    match command.kind {
        Remove | Pause => None,
        Resume | Wake => below_a_paused_one(workspace),
        Hibernate => {
            not_ours(workspace).or_else(|| busy(workspace, command, &[Status::Online, Status::Degraded]))
        }
        Restart => not_ours(workspace)
            .or_else(|| below_a_paused_one(workspace))
            .or_else(|| busy(workspace, command, &[Status::Online])),
        SwitchProvider => not_ours(workspace)
            .or_else(|| below_a_paused_one(workspace))
            .or_else(|| pointless_or_lossy(workspace, command))
            .or_else(|| busy(workspace, command, &[Status::Online, Status::Degraded])),
    }
}

fn not_ours(workspace: &Workspace) -> Option<Objection> {
    (workspace.runtime == "external").then_some(("runtime-external", "the platform does not own this box"))
}

fn below_a_paused_one(workspace: &Workspace) -> Option<Objection> {
    workspace.ancestor_paused.then_some(("ancestor-paused", "an ancestor is paused; resume it first"))
}

fn pointless_or_lossy(workspace: &Workspace, command: &Command) -> Option<Objection> {
    if command.target_provider.is_none() {
        Some(("target-provider-missing", "the command names no provider to switch to"))
    } else if command.target_provider == workspace.provider {
        Some(("same-provider", "the workspace is with this provider already"))
    } else if workspace.persistent_volume && !command.confirm_data_loss {
        Some(("confirm-data-loss", "the box keeps data that the move would lose; confirm it"))
    } else {
        None
    }
}

/// Whether work in progress would be lost; `live` are the statuses in which
/// the count of tasks is to be believed and respected.
fn busy(workspace: &Workspace, command: &Command, live: &[Status]) -> Option<Objection> {
    (workspace.active_tasks > 0 && live.contains(&workspace.status) && !command.force)
        .then_some(("active-tasks", "the agent has tasks running; force it, or wait for them"))
}

fn done(command: &Command) -> &'static str {
    match command.kind {
        CommandKind::Restart if command.actor == "recovery" => "recovery-restarted",
        CommandKind::Restart => "operator-restarted",
        CommandKind::SwitchProvider => "operator-switched-provider",
        CommandKind::Pause => "operator-paused",
        CommandKind::Resume => "operator-resumed",
        CommandKind::Hibernate => "operator-hibernated",
        CommandKind::Wake => "operator-woke",
        CommandKind::Remove => "operator-removed",
    }
}

sprag_policy::export!(Operations);

#[cfg(test)]
mod tests;
