//! Pause: the descendants first, level by level, then the box stops.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[
    Planned { step: Step::PauseChildren, undo: Undo::Nothing },
    Planned { step: Step::StopOld, undo: Undo::Cannot },
];
