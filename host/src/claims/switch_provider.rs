//! Switch-provider: the old box stops at the old provider, and only then the row
//! names the new one, where a new box starts.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[
    Planned { step: Step::StopOld, undo: Undo::Cannot },
    Planned { step: Step::WriteProvider, undo: Undo::By(Step::RestoreProvider) },
    Planned { step: Step::StartNew, undo: Undo::By(Step::StopNew) },
];
