//! The mass-failure brake, where all hosts see it: how many rows went down
//! lately, how many there are, and whether any more may.
//!
//! A downward flip is counted in the transaction that makes it, under the lock
//! of its scope, so that any number of hosts together keep to one bound. There is
//! a scope for the whole fleet and one for each provider.

use std::collections::BTreeSet;

use super::error::StoreError;
use super::events;
use super::pool::{Backend, Store, Tx};
use super::rows::{At, count, text};
use super::sweeps::ByProvider;
use crate::facts::{Reason, Timestamp};

/// The scope of everything.
pub const FLEET: &str = "fleet";

/// The scope of boxes that no row names: no row goes down with them, so they are
/// counted by themselves, but where rows are held they are, too.
pub const STRAYS: &str = "strays";

/// A released brake counts by the minute.
const MINUTE_MS: i64 = 60_000;

const LOCK: &str = "SELECT scope, state, since, live, wanted, over_at FROM brakes WHERE scope = $1";

const MAKE: &str = "
    INSERT INTO brakes (scope, state, since) SELECT $1, 'free', clock.now FROM clock WHERE TRUE
    ON CONFLICT (scope) DO NOTHING";

const FLIPPED: &str = "
    INSERT INTO brake_flips (scope, second, flips) SELECT $1, clock.now / 1000, 1 FROM clock WHERE TRUE
    ON CONFLICT (scope, second) DO UPDATE SET flips = brake_flips.flips + 1";

/// Since the second of `$2`, in the database's time: a second too many, or a
/// release would be without a bound in its own.
const FLIPS: &str = "
    SELECT CAST(COALESCE(SUM(flips), 0) AS BIGINT) FROM brake_flips WHERE scope = $1 AND second >= $2 / 1000";

const NOW: &str = "SELECT now FROM clock";

const WANTED: &str = "
    UPDATE brakes SET wanted = $2, over_at = CASE WHEN $3 THEN (SELECT now FROM clock) ELSE over_at END
    WHERE scope = $1";

const SET: &str = "UPDATE brakes SET state = $2, since = (SELECT now FROM clock) WHERE scope = $1";

const ALL: &str = "SELECT scope, state, since, live, wanted, over_at FROM brakes ORDER BY scope";

const COUNT_DUE: &str = "
    UPDATE fleet SET counted_at = (SELECT now FROM clock)
    WHERE counted_at <= (SELECT now FROM clock) - $1 OR counted_at > (SELECT now FROM clock)
    RETURNING counted_at";

const LIVE: &str = "
    SELECT provider, COUNT(*) FROM workspaces WHERE status IN ('online', 'degraded') GROUP BY provider";

const COUNTED: &str = "
    INSERT INTO brakes (scope, state, since, live) SELECT $1, 'free', clock.now, $2 FROM clock WHERE TRUE
    ON CONFLICT (scope) DO UPDATE SET live = excluded.live";

/// Those before `$1`, and those that a clock that was set back since put after `$2`.
const FORGET: &str = "DELETE FROM brake_flips WHERE second < $1 / 1000 OR second > $2 / 1000";

/// How a brake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrakeState {
    /// Rows may go down, up to the bound.
    Free,
    /// No row goes down.
    Held,
    /// Released by hand: so many a minute.
    Easing,
}

impl BrakeState {
    pub const ALL: [BrakeState; 3] = [BrakeState::Free, BrakeState::Held, BrakeState::Easing];

    /// The one string form.
    pub const fn as_str(self) -> &'static str {
        match self {
            BrakeState::Free => "free",
            BrakeState::Held => "held",
            BrakeState::Easing => "easing",
        }
    }
}

impl std::str::FromStr for BrakeState {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        BrakeState::ALL.into_iter().find(|state| state.as_str() == name).ok_or(())
    }
}

/// How much may go down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrakeLimits {
    /// Of the live rows of a scope, within the window: 0.0 to 1.0.
    pub share: f64,
    /// As many may always go down within the window.
    pub number: u64,
    pub window_ms: u64,
    /// Once released by hand.
    pub per_minute: u64,
}

impl BrakeLimits {
    /// How many of `live` rows may go down within the window.
    pub fn bound(&self, live: u64) -> u64 {
        self.number.max((self.share * live as f64) as u64)
    }
}

/// One scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Brake {
    /// [`FLEET`], `provider:NAME`, or [`STRAYS`].
    pub scope: String,
    pub state: BrakeState,
    /// Since when it stands so.
    pub since: Timestamp,
    /// Live rows, as last counted.
    pub live: u64,
    /// Rows that went down within the window.
    pub flips: u64,
    /// Rows that would go down now, as last asked.
    pub wanted: u64,
    /// When too many would have gone down, last: more than the bound, or while it
    /// does not stand free more than the number that always may.
    pub over_at: Timestamp,
}

/// The scope of one provider.
pub fn provider_scope(provider: &str) -> String {
    format!("provider:{provider}")
}

/// Counts one downward flip; the scope that forbids it, and then nothing is counted.
pub(super) async fn take(
    tx: &mut Tx,
    provider: Option<&str>,
    limits: &BrakeLimits,
) -> Result<Option<String>, StoreError> {
    // Always the fleet first: two flips take their locks in one order.
    let scopes: Vec<_> =
        [Some(FLEET.to_owned()), provider.map(provider_scope)].into_iter().flatten().collect();
    for scope in &scopes {
        let brake = locked(tx, scope, limits).await?;
        if !brake.allows(limits) {
            return Ok(Some(scope.clone()));
        }
    }
    for scope in &scopes {
        execute!(tx.on(), FLIPPED, text(scope))?;
    }
    Ok(None)
}

/// Counts one stray of this provider that is stopped; the scope that forbids it, and
/// then nothing is counted.
pub(super) async fn take_stray(
    tx: &mut Tx,
    provider: &str,
    limits: &BrakeLimits,
) -> Result<Option<String>, StoreError> {
    for scope in [FLEET.to_owned(), provider_scope(provider)] {
        if locked(tx, &scope, limits).await?.state == BrakeState::Held {
            return Ok(Some(scope));
        }
    }
    if !locked(tx, STRAYS, limits).await?.allows(limits) {
        return Ok(Some(STRAYS.to_owned()));
    }
    execute!(tx.on(), FLIPPED, STRAYS)?;
    Ok(None)
}

/// Says how many strays would be stopped now. Where that is more than the bound none is.
pub(super) async fn ask_for_strays(tx: &mut Tx, wanted: u64, limits: &BrakeLimits) -> Result<(), StoreError> {
    ask(tx, STRAYS, wanted, limits).await.map(drop)
}

/// Asks one scope; whether it is held from now on.
async fn ask(tx: &mut Tx, scope: &str, n: u64, limits: &BrakeLimits) -> Result<bool, StoreError> {
    let brake = locked(tx, scope, limits).await?;
    let bound = limits.bound(brake.live);
    let over = match brake.state {
        BrakeState::Free => brake.flips.saturating_add(n) > bound,
        // Each host asks about what it took: together they may be over the bound all the same.
        BrakeState::Held | BrakeState::Easing => n > limits.number,
    };
    execute!(tx.on(), WANTED, text(scope), count(n), over)?;
    if brake.state == BrakeState::Free && over {
        execute!(tx.on(), SET, text(scope), BrakeState::Held.as_str())?;
        let BrakeLimits { window_ms, .. } = limits;
        let detail = match scope {
            STRAYS => format!(
                "{scope}: {n} boxes that no row names would be stopped and {} were; at most {bound} in {window_ms} ms",
                brake.flips
            ),
            _ => format!(
                "{scope}: {n} rows would go down and {} did, of {} live ones; at most {bound} in {window_ms} ms",
                brake.flips, brake.live
            ),
        };
        let reason = Reason::new("mass-failure", detail);
        events::record_fleet(tx, events::BRAKE_HELD, "brake", &reason).await?;
    }
    Ok(brake.state == BrakeState::Held || (brake.state == BrakeState::Free && over))
}

/// The brake of a scope; nobody else changes or counts it until the transaction ends.
async fn locked(tx: &mut Tx, scope: &str, limits: &BrakeLimits) -> Result<Brake, StoreError> {
    execute!(tx.on(), MAKE, text(scope))?;
    let lock = match tx.backend() {
        Backend::Sqlite => LOCK.to_owned(),
        Backend::Postgres => format!("{LOCK} FOR UPDATE"),
    };
    let row = fetch_optional!(tx.on(), BrakeRow, sqlx::AssertSqlSafe(lock), text(scope))?;
    let row = row.ok_or(StoreError::Statement(sqlx::Error::RowNotFound))?;
    let mut brake = Brake::try_from(row)?;
    // Counted after the lock was taken, or what others did before is not seen.
    let now = fetch_optional!(tx.on(), (i64,), NOW)?.map_or(0, |(now,)| now);
    let from = brake.counts_from(now, limits);
    let flips = fetch_optional!(tx.on(), (i64,), FLIPS, text(scope), from)?.map_or(0, |(flips,)| flips);
    brake.flips = u64::try_from(flips).unwrap_or(0);
    Ok(brake)
}

impl Brake {
    /// Whether one more may go down.
    fn allows(&self, limits: &BrakeLimits) -> bool {
        match self.state {
            BrakeState::Held => false,
            BrakeState::Free => self.flips < limits.bound(self.live),
            BrakeState::Easing => self.flips < limits.per_minute,
        }
    }

    /// From when on flips count, in the database's time.
    fn counts_from(&self, now: i64, limits: &BrakeLimits) -> i64 {
        match self.state {
            BrakeState::Easing => (now - MINUTE_MS).max(count(self.since)),
            BrakeState::Free | BrakeState::Held => now - count(limits.window_ms),
        }
    }
}

#[derive(sqlx::FromRow)]
struct BrakeRow {
    scope: String,
    state: String,
    since: i64,
    live: i64,
    wanted: i64,
    over_at: i64,
}

impl TryFrom<BrakeRow> for Brake {
    type Error = StoreError;

    /// Its flips are yet to be counted.
    fn try_from(row: BrakeRow) -> Result<Self, StoreError> {
        let at = At { table: "brakes", id: &row.scope };
        Ok(Self {
            state: at.parse("state", &row.state, "free, held or easing")?,
            since: at.number("since", row.since)?,
            live: at.number("live", row.live)?,
            flips: 0,
            wanted: at.number("wanted", row.wanted)?,
            over_at: at.number("over_at", row.over_at)?,
            scope: row.scope,
        })
    }
}

impl Store {
    /// Says how many rows would go down now, by provider; the scopes in which
    /// none may. A scope where that is more than the bound is held from now on.
    pub async fn ask_brake(
        &self,
        wanted: &ByProvider,
        limits: &BrakeLimits,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut scopes = vec![(FLEET.to_owned(), wanted.values().sum())];
        scopes.extend(
            wanted.iter().filter_map(|(provider, n)| Some((provider_scope(provider.as_deref()?), *n))),
        );
        let mut held = BTreeSet::new();
        let mut tx = self.begin().await?;
        for (scope, n) in scopes {
            if ask(&mut tx, &scope, n, limits).await? {
                held.insert(scope);
            }
        }
        tx.commit().await?;
        Ok(held)
    }

    /// Every scope, with what went down within its window.
    pub async fn brakes(&self, limits: &BrakeLimits) -> Result<Vec<Brake>, StoreError> {
        let rows = fetch_all!(self.read(), BrakeRow, ALL)?;
        let now = fetch_optional!(self.read(), (i64,), NOW)?.map_or(0, |(now,)| now);
        let mut brakes = Vec::with_capacity(rows.len());
        for row in rows {
            let mut brake = Brake::try_from(row)?;
            let from = brake.counts_from(now, limits);
            let flips = fetch_optional!(self.read(), (i64,), FLIPS, text(&brake.scope), from)?;
            let flips = flips.map_or(0, |(flips,)| flips);
            brake.flips = u64::try_from(flips).unwrap_or(0);
            brakes.push(brake);
        }
        Ok(brakes)
    }

    /// How every scope stands.
    pub async fn brake_states(&self) -> Result<Vec<(String, BrakeState)>, StoreError> {
        let rows =
            fetch_all!(self.read(), (String, String), "SELECT scope, state FROM brakes ORDER BY scope")?;
        let read = |(scope, state): (String, String)| {
            let state = At { table: "brakes", id: &scope }.parse("state", &state, "free, held or easing")?;
            Ok((scope, state))
        };
        rows.into_iter().map(read).collect()
    }

    /// Releases what is held, one scope or all; from now on rows go down at the
    /// easing rate. The scopes that were held.
    pub async fn release_brake(&self, scope: Option<&str>, actor: &str) -> Result<Vec<String>, StoreError> {
        let mut tx = self.begin().await?;
        let rows = fetch_all!(tx.on(), BrakeRow, ALL)?;
        let held = rows.into_iter().filter(|row| row.state == BrakeState::Held.as_str()).map(|row| row.scope);
        let released: Vec<_> = held.filter(|held| scope.is_none_or(|scope| scope == held)).collect();
        for scope in &released {
            execute!(tx.on(), SET, text(scope), BrakeState::Easing.as_str())?;
            let reason = Reason::new("released-by-hand", format!("{scope}, by {actor}"));
            events::record_fleet(&mut tx, events::BRAKE_RELEASED, "brake", &reason).await?;
        }
        tx.commit().await?;
        Ok(released)
    }

    /// Counts the live rows, unless somebody has within `every_ms`; and lets go
    /// of what has had nothing above its bound for a whole window. False: it was
    /// not time yet.
    pub async fn count_live(&self, every_ms: u64, limits: &BrakeLimits) -> Result<bool, StoreError> {
        let Some((now,)) = fetch_optional!(self.write(), (i64,), COUNT_DUE, count(every_ms))? else {
            return Ok(false);
        };
        let live = fetch_all!(self.read(), (Option<String>, i64), LIVE)?;
        let mut tx = self.begin().await?;
        let all = live.iter().map(|(_, n)| n).sum::<i64>();
        let mut counts = vec![(FLEET.to_owned(), all)];
        counts.extend(live.into_iter().filter_map(|(provider, n)| Some((provider_scope(&provider?), n))));
        for BrakeRow { scope, .. } in fetch_all!(tx.on(), BrakeRow, ALL)? {
            if !counts.iter().any(|(counted, _)| *counted == scope) {
                counts.push((scope, 0));
            }
        }
        counts.sort_by_key(|(scope, _)| (scope != FLEET, scope.clone()));
        for (scope, live) in counts {
            execute!(tx.on(), COUNTED, text(&scope), live)?;
            let brake = locked(&mut tx, &scope, limits).await?;
            let calm_from = now - count(limits.window_ms);
            let calm = count(brake.over_at) < calm_from && count(brake.since) < calm_from;
            if brake.state != BrakeState::Free && calm {
                execute!(tx.on(), SET, text(&scope), BrakeState::Free.as_str())?;
                let reason = Reason::new("calm", format!("{scope}: nothing above the bound for a window"));
                events::record_fleet(&mut tx, events::BRAKE_FREE, "brake", &reason).await?;
            }
        }
        execute!(tx.on(), FORGET, now - count(limits.window_ms).max(MINUTE_MS), now + MINUTE_MS)?;
        tx.commit().await?;
        Ok(true)
    }
}
