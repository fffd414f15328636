//! Run a policy natively, in an ordinary `#[test]`.
//!
//! [`Ask`] builds the question that the host would ask; each call changes one
//! fact and leaves the rest plausible. The answer comes from the same code that
//! runs in the sandbox. What a guard is asked, `held` and `moved` turn into what
//! a recovery policy is asked, and `action` into a question for a cooldown.

mod hooks;

use crate::bindings::guard::exports::sprag::policy::guard;
use crate::{
    Cause, Command, CommandKind, Guard, Heartbeat, Readiness, Setting, SettingValue, Status, Timestamp,
    Verdict, Workspace, policy,
};

pub use hooks::{AskCooldown, AskRecovery};

/// When every question is asked, unless [`Ask::now`] says otherwise.
pub const NOW: Timestamp = 1_800_000_000_000;

/// An agent that says that everything it needs is there.
pub fn ready() -> Readiness {
    Readiness { mcp_server_present: Some(true), model_present: Some(true), loaded_mcp_tools: Some(12) }
}

/// An agent too old to say anything of its readiness.
pub fn unreported() -> Readiness {
    Readiness { mcp_server_present: None, model_present: None, loaded_mcp_tools: None }
}

/// The heartbeat of a healthy, ready agent.
pub fn heartbeat() -> Heartbeat {
    Heartbeat {
        readiness: ready(),
        error_rate: 0.0,
        sample_error: String::new(),
        active_tasks: 0,
        uptime: 60_000,
        runtime_state: String::new(),
        native_status: false,
    }
}

impl Heartbeat {
    /// The same, with this share of failed operations.
    pub fn error_rate(self, error_rate: f64) -> Self {
        Self { error_rate, ..self }
    }

    /// The same, with a stuck runtime.
    pub fn wedged(self) -> Self {
        Self { runtime_state: "wedged".to_owned(), ..self }
    }

    /// The same, of an agent that reports its own status.
    pub fn native(self) -> Self {
        Self { native_status: true, ..self }
    }

    /// The same, with this readiness.
    pub fn readiness(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }
}

/// An operator's command, with nothing confirmed.
pub fn command(kind: CommandKind) -> Command {
    Command {
        kind,
        actor: "operator".to_owned(),
        target_provider: None,
        force: false,
        confirm_data_loss: false,
    }
}

impl Command {
    /// The same, towards this provider.
    pub fn to_provider(self, name: &str) -> Self {
        Self { target_provider: Some(name.to_owned()), ..self }
    }

    /// The same, forced.
    pub fn forced(self) -> Self {
        Self { force: true, ..self }
    }

    /// The same, with the loss of data confirmed.
    pub fn confirmed(self) -> Self {
        Self { confirm_data_loss: true, ..self }
    }
}

impl From<Heartbeat> for Cause {
    fn from(heartbeat: Heartbeat) -> Self {
        Cause::Heartbeat(heartbeat)
    }
}

/// A registration with this readiness.
impl From<Readiness> for Cause {
    fn from(readiness: Readiness) -> Self {
        Cause::Registered(readiness)
    }
}

impl From<Command> for Cause {
    fn from(command: Command) -> Self {
        Cause::Commanded(command)
    }
}

/// A question for a guard, and the row and the cause of every other question.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The row.
    pub workspace: Workspace,
    /// Why the host asks.
    pub cause: Cause,
    /// When it asks.
    pub now: Timestamp,
    /// Settings other than the defaults.
    pub settings: Vec<(String, Setting)>,
}

impl Ask {
    /// About an idle workspace with this status, because of a healthy
    /// heartbeat; kind `workspace`, runtime `claude-code`, provider `local`.
    pub fn at(status: Status) -> Self {
        Self {
            workspace: Workspace {
                id: "ws-1".to_owned(),
                kind: "workspace".to_owned(),
                runtime: "claude-code".to_owned(),
                provider: Some("local".to_owned()),
                instance_id: Some("i-1".to_owned()),
                status,
                status_since: NOW - 600_000,
                last_heartbeat_at: Some(NOW - 15_000),
                active_tasks: 0,
                ancestor_paused: false,
                persistent_volume: false,
                labels: Vec::new(),
            },
            cause: heartbeat().into(),
            now: NOW,
            settings: Vec::new(),
        }
    }

    /// Because of this: a [`Heartbeat`], a [`Readiness`] (registered), a
    /// [`Command`] or any other [`Cause`].
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = cause.into();
        self
    }

    /// About a workspace of this kind.
    pub fn kind(mut self, kind: &str) -> Self {
        self.workspace.kind = kind.to_owned();
        self
    }

    /// About a workspace of this runtime.
    pub fn runtime(mut self, runtime: &str) -> Self {
        self.workspace.runtime = runtime.to_owned();
        self
    }

    /// About a workspace with this many tasks running.
    pub fn tasks(mut self, tasks: u32) -> Self {
        self.workspace.active_tasks = tasks;
        self
    }

    /// About a workspace whose ancestor is paused.
    pub fn ancestor_paused(mut self) -> Self {
        self.workspace.ancestor_paused = true;
        self
    }

    /// About a workspace with data that moving would lose.
    pub fn persistent_volume(mut self) -> Self {
        self.workspace.persistent_volume = true;
        self
    }

    /// With any other fact of the row.
    pub fn workspace(mut self, change: impl FnOnce(&mut Workspace)) -> Self {
        change(&mut self.workspace);
        self
    }

    /// At this time.
    pub fn now(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// With this setting instead of its default.
    pub fn setting(mut self, name: &str, value: impl SettingValue) -> Self {
        self.settings.push((name.to_owned(), value.to_setting()));
        self
    }

    /// The policy's verdict on one candidate.
    pub fn of<P: Guard>(&self, candidate: Status) -> Verdict {
        self.all::<P>(&[candidate]).pop().unwrap_or(Verdict::Abstain)
    }

    /// The policy's verdicts on these candidates, in their order.
    pub fn all<P: Guard>(&self, candidates: &[Status]) -> Vec<Verdict> {
        policy::decide::<P>(guard::Request {
            now: self.now,
            workspace: self.workspace.clone(),
            cause: self.cause.clone(),
            settings: self.settings.clone(),
            candidates: candidates.to_vec(),
        })
    }
}
