//! Hibernate: the box stops; the row waits to be woken.

use super::plan::{Plan, Planned, Step, Undo};

pub const PLAN: Plan = &[Planned { step: Step::StopOld, undo: Undo::Cannot }];
