//! Where a claim can be when its host dies: `SPRAG_DIE_AT=KIND:POINT` (see
//! [`crate::die_at`]).

use std::fmt;

use super::plan::Step;
use crate::die_at;

/// A moment in the life of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// It is open, and nobody carries it out yet.
    Opened,
    /// The step is journaled and not done.
    Begun(Step),
    /// It is done, and that is not journaled.
    Called(Step),
    /// That is journaled.
    Finished(Step),
    /// All is done, and the end is not written.
    Ending,
    /// The end is written.
    Ended,
}

impl Point {
    /// Every moment of a claim that takes these steps.
    pub fn all(steps: &[Step]) -> Vec<Point> {
        let of_steps = steps.iter().flat_map(|s| [Point::Begun(*s), Point::Called(*s), Point::Finished(*s)]);
        [Point::Opened].into_iter().chain(of_steps).chain([Point::Ending, Point::Ended]).collect()
    }

    /// Ends this process here, if it was told to.
    pub(super) fn reached(self, kind: &str) {
        die_at::reached(format_args!("{kind}:{self}"));
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Point::Opened => f.write_str("opened"),
            Point::Begun(step) => write!(f, "begun.{step}"),
            Point::Called(step) => write!(f, "called.{step}"),
            Point::Finished(step) => write!(f, "finished.{step}"),
            Point::Ending => f.write_str("ending"),
            Point::Ended => f.write_str("ended"),
        }
    }
}
