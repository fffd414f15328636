//! Wake: a new box starts.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[Planned { step: Step::StartNew, undo: Undo::By(Step::StopNew) }];
