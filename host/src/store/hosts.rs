//! Which hosts are alive, and since when silence means something.
//!
//! Every host writes a pulse. Where one finds that nobody could have been heard
//! for a while (it slept, the database was away, its clock jumped, another host
//! that agents may be talking to is gone), it says so here, in the database's
//! time, and every host reckons silence from then on.

use sqlx::AssertSqlSafe;

use super::clock;
use super::error::StoreError;
use super::events;
use super::pool::{Backend, Store, Tx};
use super::rows::{At, count, text};
use crate::facts::{Reason, Timestamp};

/// Distrust that goes on is one event.
const EPISODE_MS: i64 = 10_000;

const BEFORE: &str = "
    SELECT clock.now, fleet.trusted_from, fleet.clock_from, fleet.clock_seen, (SELECT MAX(seen_at) FROM hosts) AS newest,
        (SELECT name FROM hosts WHERE id <> $1 AND name <> $4
            AND seen_at < clock.now - $2 AND seen_at >= clock.now - $3
            ORDER BY seen_at DESC LIMIT 1) AS lost
    FROM clock, fleet";

const CLOCK: &str = "SELECT clock.now, fleet.clock_from, fleet.clock_seen FROM clock, fleet";

/// By one of the hosts, and not by each at every pulse.
const CLOCK_SEEN: &str = "UPDATE fleet SET clock_seen = $1 WHERE clock_seen < $1 - 500";

/// A copy that was restored, perhaps: no stray is stopped for a while.
const QUIET: &str = "UPDATE fleet SET quiet_from = $1";

/// A database that no host has used for so long may be an older one.
const FAR_BACK_MS: i64 = 3_600_000;

/// A host that starts is the one that it was before.
const NAMESAKES: &str = "DELETE FROM hosts WHERE id <> $1 AND name = $2";

/// Those that nobody waits for any more.
const FORGET: &str = "DELETE FROM hosts WHERE seen_at < (SELECT now FROM clock) - $1";

const SEEN: &str = "
    INSERT INTO hosts (id, name, started_at, seen_at) SELECT $1, $2, clock.now, clock.now FROM clock WHERE TRUE
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at";

/// What lies ahead by more than `$3` was written by a clock that has been set back since.
const DISTRUST: &str = "
    UPDATE fleet SET trusted_from = $1, distrust = $2 WHERE trusted_from < $1 OR trusted_from > $1 + $3";

const HOSTS: &str = "SELECT name, started_at, seen_at FROM hosts ORDER BY name, id";

const TRUSTED_FROM: &str = "SELECT trusted_from, distrust FROM fleet";

/// Who pulses.
#[derive(Clone, Debug)]
pub struct HostName {
    /// Of this run.
    pub id: String,
    /// The same after a restart.
    pub name: String,
}

/// When a host is missed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Without a pulse for this long, the fleet had nobody to listen.
    pub stall_ms: u64,
    /// Without a pulse for this long, a host is lost.
    pub lost_ms: u64,
    /// And after this long it is given up.
    pub forget_ms: u64,
    /// A clock that is off by more has jumped.
    pub jump_ms: u64,
    /// How long a claim is its holder's once a clock has jumped.
    pub lease_ms: u64,
}

/// What a host has found by itself, before it asks what the others did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// Why what was not heard proves nothing.
    pub reason: Option<Reason>,
    /// How far the clock has gone ahead, or back, of this host's own, if that is a jump.
    pub jump_ms: Option<i64>,
    /// Since when the clock ran evenly, as this host last saw it: a jump that
    /// somebody has found since is not found again.
    pub clock_from: Option<Timestamp>,
}

/// What a pulse found.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulse {
    /// The database's time.
    pub now: Timestamp,
    /// Silence before it proves nothing.
    pub trusted_from: Timestamp,
    /// Why this pulse moved it.
    pub distrust: Option<Reason>,
    /// No host ran before: trust begins, and nothing is the matter.
    pub first: bool,
    /// Since when the clock has run evenly.
    pub clock_from: Timestamp,
    /// The latest time that it has shown since.
    pub clock_seen: Timestamp,
}

/// A host, as its last pulse left it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenHost {
    pub name: String,
    pub started_at: Timestamp,
    pub seen_at: Timestamp,
}

impl Store {
    /// Says that this host is alive. With a reason of its own to distrust what
    /// was not heard, given the database's time, or one that it finds here,
    /// everybody reckons from now. Locks are taken in one order: the fleet's, then the hosts'.
    pub async fn pulse(
        &self,
        host: &HostName,
        starting: bool,
        own: impl FnOnce(Timestamp) -> Own,
        patience: &Patience,
    ) -> Result<Pulse, StoreError> {
        let mut tx = self.begin().await?;
        let (lost, forget) = (count(patience.lost_ms), count(patience.forget_ms));
        let namesakes = if starting { host.name.as_str() } else { "" };
        let before = fetch_optional!(tx.on(), Before, BEFORE, text(&host.id), lost, forget, text(namesakes))?;
        let mut before = before.ok_or(StoreError::Statement(sqlx::Error::RowNotFound))?;
        let at = At { table: "fleet", id: "1" };
        let own = own(at.number("now", before.now)?);
        let jump = match own.jump_ms.or_else(|| before.set_back(patience)) {
            Some(by) => reckon_anew(&mut tx, &mut before, by, &own, patience).await?,
            None => None,
        };
        let distrust = match jump {
            Some(reason) => Some(reason),
            None => {
                if starting && before.now - before.clock_seen > FAR_BACK_MS {
                    execute!(tx.on(), QUIET, before.now)?;
                }
                execute!(tx.on(), CLOCK_SEEN, before.now)?;
                let distrust = own.reason.or_else(|| before.reason(patience));
                if let Some(reason) = &distrust {
                    distrust_until_now(&mut tx, before.now, reason).await?;
                }
                distrust
            }
        };
        execute!(tx.on(), SEEN, text(&host.id), text(&host.name))?;
        tx.commit().await?;
        if starting {
            // By itself, so that two of one name never wait for each other.
            execute!(self.write(), NAMESAKES, text(&host.id), text(&host.name))?;
        }
        let trusted_from = if distrust.is_some() { before.now } else { before.trusted_from };
        Ok(Pulse {
            now: at.number("now", before.now)?,
            trusted_from: at.number("trusted_from", trusted_from)?,
            distrust,
            first: before.newest.is_none() && before.clock_from != before.now,
            clock_from: at.number("clock_from", before.clock_from)?,
            clock_seen: at.number("clock_seen", before.clock_seen.max(before.now))?,
        })
    }

    /// Forgets hosts that did not pulse for this long.
    pub async fn forget_hosts(&self, forget_ms: u64) -> Result<(), StoreError> {
        execute!(self.write(), FORGET, count(forget_ms)).map(drop)
    }

    /// This host stops, and is not missed.
    pub async fn leave(&self, host: &HostName) -> Result<(), StoreError> {
        execute!(self.write(), "DELETE FROM hosts WHERE id = $1", text(&host.id)).map(drop)
    }

    /// The hosts that pulsed lately.
    pub async fn hosts(&self) -> Result<Vec<SeenHost>, StoreError> {
        let rows = fetch_all!(self.read(), (String, i64, i64), HOSTS)?;
        let read = |(name, started, seen): (String, i64, i64)| {
            let at = At { table: "hosts", id: &name };
            let (started_at, seen_at) = (at.number("started_at", started)?, at.number("seen_at", seen)?);
            Ok(SeenHost { name, started_at, seen_at })
        };
        rows.into_iter().map(read).collect()
    }

    /// Since when silence means something, and the code of what was the matter before.
    pub async fn trusted_from(&self) -> Result<(Timestamp, Option<String>), StoreError> {
        let row = fetch_optional!(self.read(), (i64, Option<String>), TRUSTED_FROM)?;
        let (from, why) = row.unwrap_or((0, None));
        Ok((At { table: "fleet", id: "1" }.number("trusted_from", from)?, why))
    }
}

#[derive(sqlx::FromRow)]
struct Before {
    now: i64,
    trusted_from: i64,
    clock_from: i64,
    clock_seen: i64,
    newest: Option<i64>,
    lost: Option<String>,
}

impl Before {
    /// How far it is before what a pulse has seen, negative, if that is a jump.
    fn set_back(&self, patience: &Patience) -> Option<i64> {
        let by = self.now - self.clock_seen;
        (by < -count(patience.jump_ms)).then_some(by)
    }

    fn reason(&self, patience: &Patience) -> Option<Reason> {
        let silent = self.newest.map(|newest| self.now - newest);
        if let Some(lost) = &self.lost {
            let detail = format!("host {lost} does not pulse; agents may be talking to it");
            return Some(Reason::new("host-lost", detail));
        }
        match silent {
            Some(ms) if ms <= count(patience.stall_ms) => None,
            Some(ms) => Some(Reason::new("nobody-listened", format!("no host pulsed for {ms} ms"))),
            None => Some(Reason::new("nobody-listened", "no host ran before this one")),
        }
    }
}

/// Of all hosts that find a jump, one has all times reckoned anew; why, if it is this one.
async fn reckon_anew(
    tx: &mut Tx,
    before: &mut Before,
    by: i64,
    own: &Own,
    patience: &Patience,
) -> Result<Option<Reason>, StoreError> {
    let lock = match tx.backend() {
        Backend::Sqlite => CLOCK.to_owned(),
        Backend::Postgres => format!("{CLOCK} FOR UPDATE OF fleet"),
    };
    let clock = fetch_optional!(tx.on(), (i64, i64, i64), AssertSqlSafe(lock))?;
    (before.now, before.clock_from, before.clock_seen) =
        clock.ok_or(StoreError::Statement(sqlx::Error::RowNotFound))?;
    let news = match (own.jump_ms, own.clock_from) {
        (Some(_), Some(from)) => count(from) == before.clock_from,
        _ => before.set_back(patience).is_some(),
    };
    if !news {
        // Somebody has, and since then all hosts live.
        (before.newest, before.lost, before.trusted_from) = (Some(before.now), None, before.clock_from);
        return Ok(None);
    }
    let reason = clock::reason(by);
    clock::reckon_anew(tx, before.now, by, patience.lease_ms, &reason).await?;
    (before.clock_from, before.clock_seen) = (before.now, before.now);
    Ok(Some(reason))
}

async fn distrust_until_now(tx: &mut Tx, now: i64, reason: &Reason) -> Result<(), StoreError> {
    let lock = match tx.backend() {
        Backend::Sqlite => TRUSTED_FROM.to_owned(),
        Backend::Postgres => format!("{TRUSTED_FROM} FOR UPDATE"),
    };
    // Read under the lock: of hosts that all find it at once, one says so.
    let locked = fetch_optional!(tx.on(), (i64, Option<String>), AssertSqlSafe(lock))?;
    let last = locked.map_or(0, |(last, _)| last);
    let changed = execute!(tx.on(), DISTRUST, now, text(&reason.code), EPISODE_MS)?;
    let news = last > 0 && now.abs_diff(last) > EPISODE_MS.unsigned_abs();
    if changed == 1 && news {
        events::record_fleet(tx, events::DISTRUSTED, "distrust", reason).await?;
    }
    Ok(())
}
