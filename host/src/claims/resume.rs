//! Resume: a new box starts, then the descendants are resumed, level by level.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[
    Planned { step: Step::StartNew, undo: Undo::By(Step::StopNew) },
    Planned { step: Step::ResumeChildren, undo: Undo::Nothing },
];
