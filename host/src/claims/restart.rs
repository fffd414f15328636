//! Restart: the old box stops, a new one starts at the same provider.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[
    Planned { step: Step::StopOld, undo: Undo::Cannot },
    Planned { step: Step::StartNew, undo: Undo::By(Step::StopNew) },
];
