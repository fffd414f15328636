//! The questions for the two hooks that come after the guards.

use std::time::Duration;

use super::Ask;
use crate::bindings::cooldown::exports::sprag::policy::cooldown as cooldown_wit;
use crate::bindings::recovery::exports::sprag::policy::recovery as recovery_wit;
use crate::{
    Action, Cooldown, Move, Outcome, Reason, Recovery, Ruling, Status, Timestamp, Trigger, cooldown, recovery,
};

/// A question for a recovery policy: [`Ask::held`], [`Ask::moved`].
#[derive(Clone, Debug, PartialEq)]
pub struct AskRecovery {
    /// The row, the cause, the time and the settings.
    pub ask: Ask,
    /// What became of the step.
    pub outcome: Outcome,
}

/// A question for a cooldown policy: [`Ask::action`].
#[derive(Clone, Debug, PartialEq)]
pub struct AskCooldown {
    /// The row, the time and the settings; a cooldown is told no cause.
    pub ask: Ask,
    /// What a recovery policy asks for.
    pub action: Action,
    /// When it last fired.
    pub last_fired_at: Option<Timestamp>,
    /// How often it fired since the workspace was last healthy.
    pub fired: u32,
}

impl Ask {
    /// What to set in motion when nothing changed: a code for each denial, none
    /// where nobody had a say.
    pub fn held<'a>(self, codes: impl IntoIterator<Item = &'a str>) -> AskRecovery {
        AskRecovery { ask: self, outcome: Outcome::Held(codes.into_iter().map(because).collect()) }
    }

    /// What to set in motion when the row moved to this status, for the reason
    /// of this code.
    pub fn moved(self, target: Status, code: &str) -> AskRecovery {
        let origin = self.workspace.status;
        AskRecovery { ask: self, outcome: Outcome::Moved(Move { origin, target, reason: because(code) }) }
    }

    /// Whether this action may fire, having never fired before.
    pub fn action(self, action: Action) -> AskCooldown {
        AskCooldown { ask: self, action, last_fired_at: None, fired: 0 }
    }
}

impl AskRecovery {
    /// What the policy asks for.
    pub fn plan<P: Recovery>(&self) -> Vec<Trigger> {
        recovery::plan::<P>(recovery_wit::Request {
            now: self.ask.now,
            workspace: self.ask.workspace.clone(),
            cause: self.ask.cause.clone(),
            outcome: self.outcome.clone(),
            settings: self.ask.settings.clone(),
        })
    }
}

impl AskCooldown {
    /// After it fired so often since the workspace was last healthy, the last
    /// time so long ago.
    pub fn fired(mut self, times: u32, ago: Duration) -> Self {
        let ago = Timestamp::try_from(ago.as_millis()).unwrap_or(Timestamp::MAX);
        self.last_fired_at = Some(self.ask.now.saturating_sub(ago));
        self.fired = times;
        self
    }

    /// The policy's ruling.
    pub fn check<P: Cooldown>(&self) -> Ruling {
        cooldown::check::<P>(cooldown_wit::Request {
            now: self.ask.now,
            workspace: self.ask.workspace.clone(),
            action: self.action.clone(),
            settings: self.ask.settings.clone(),
            last_fired_at: self.last_fired_at,
            fired: self.fired,
        })
    }
}

fn because(code: &str) -> Reason {
    Reason { code: code.to_owned(), detail: None }
}
