//! Create: the first box of a workspace that names a provider.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[Planned { step: Step::StartNew, undo: Undo::By(Step::StopNew) }];
