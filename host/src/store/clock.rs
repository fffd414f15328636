//! A clock that jumped. Every planned time and every "since" in the database is
//! reckoned from a clock that may be set, in either direction, also while no host runs.
//!
//! Hosts watch it by their pulses: against their own monotonic clock, and against
//! the latest time that any pulse has read (`fleet.clock_seen`), which survives them
//! all. Whoever finds a jump takes the fleet's row, and of all that find it one
//! reckons anew, in one transaction: `fleet.clock_from` says since when the clock
//! has run evenly, and what there is little of (hosts, leases, effects that wait, the
//! brake) is written as the new clock has it. Rows of workspaces are many, and are
//! not touched here. The sweeps hold them to `clock_from` as they come to them.

use super::error::StoreError;
use super::events;
use super::pool::{Store, Tx};
use super::rows::{At, count, text};
use crate::die_at;
use crate::facts::{Reason, Timestamp};

/// The code of it, of a distrust and of what is left out meanwhile.
pub const JUMPED: &str = "clock-jumped";

const NOW: &str = "SELECT now FROM clock";

/// Silence, provisioning and idling count from now on, and the live rows are counted again.
/// The hours in which no stray is stopped are as many as they were.
const FLEET: &str = "
    UPDATE fleet SET trusted_from = $1, distrust = $2, clock_from = $1, clock_seen = $1,
        clock_ahead = $3, counted_at = 0, strays_at = 0,
        quiet_from = CASE WHEN quiet_from + $4 > $1 THEN $1 ELSE quiet_from + $4 END";

/// All of them live until they are missed for long enough by this clock.
const HOSTS: &str = "
    UPDATE hosts SET seen_at = $1, started_at = CASE WHEN started_at > $1 THEN $1 ELSE started_at END";

/// Whoever lives renews it sooner, and a dead one's claim is taken over when it is out.
const LEASES: &str = "UPDATE claims SET lease_until = $1 + $2 WHERE state = 'open'";

/// Set back, they wait no longer than they would have; set ahead, they are due sooner.
const EFFECTS: &str = "
    UPDATE outbox SET due_at = CASE WHEN due_at + $2 > $1 THEN due_at + $2 ELSE $1 END
    WHERE state = 'due' AND due_at > $1 AND $2 < 0";

/// What is not free stays so for a window from now.
const BRAKES: &str = "
    UPDATE brakes SET since = CASE WHEN state <> 'free' OR since > $1 THEN $1 ELSE since END,
        over_at = CASE WHEN state <> 'free' OR over_at > $1 THEN $1 ELSE over_at END";

/// Their grace counts from now on, anyway.
const STRAYS: &str = "UPDATE strays SET found_at = $1 WHERE found_at > $1";

/// What went down within the window counts for another one.
const FLIPS: [&str; 3] = [
    "INSERT INTO brake_flips (scope, second, flips)
        SELECT scope, -1, CAST(SUM(flips) AS BIGINT) FROM brake_flips GROUP BY scope",
    "DELETE FROM brake_flips WHERE second <> -1",
    "UPDATE brake_flips SET second = $1 / 1000 WHERE second = -1",
];

impl Store {
    /// The database's time.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let now = fetch_optional!(self.read(), (i64,), NOW)?.map_or(0, |(now,)| now);
        At { table: "clock", id: "1" }.number("now", now)
    }
}

/// Reckons all of it anew: the clock, which says that it is `now`, went `by` milliseconds
/// ahead (or, negative, back). The caller holds the fleet's row.
pub(super) async fn reckon_anew(
    tx: &mut Tx,
    now: i64,
    by: i64,
    lease_ms: u64,
    reason: &Reason,
) -> Result<(), StoreError> {
    execute!(tx.on(), FLEET, now, text(&reason.code), by.max(0), by)?;
    execute!(tx.on(), HOSTS, now)?;
    execute!(tx.on(), LEASES, now, count(lease_ms))?;
    execute!(tx.on(), EFFECTS, now, by)?;
    execute!(tx.on(), BRAKES, now)?;
    execute!(tx.on(), STRAYS, now)?;
    let [add_up, forget, put] = FLIPS;
    execute!(tx.on(), add_up)?;
    execute!(tx.on(), forget)?;
    execute!(tx.on(), put, now)?;
    die_at::reached(format_args!("clock:reckoned"));
    events::record_fleet(tx, events::DISTRUSTED, "distrust", reason).await
}

/// Why what was before a jump by so many milliseconds proves nothing.
pub(super) fn reason(by: i64) -> Reason {
    let (ms, whither) = (by.unsigned_abs(), if by < 0 { "back" } else { "ahead" });
    Reason::new(JUMPED, format!("the database's clock was set {whither} by {ms} ms"))
}
