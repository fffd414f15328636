//! Strays: boxes that a provider lists and that no row names. What is found is kept
//! here with when that was, until it is gone, named, or stopped.
//!
//! Whoever looks lists first and reads the rows then: a box that was listed had been
//! started before, so the claim that started it was open before, and is seen here
//! open, or in what it has left: a row that names its box, or a stop that is owed.
//! A box that once was named, and is no more, never is again, because names hold the
//! epoch of their claim and epochs only grow. That is also what tells a database that
//! was restored from an older copy: its boxes are newer than its rows.

mod sighted;
mod types;

pub use sighted::Unnamed;
pub use types::{Instance, SeenBox, Sighted, Stray, Taken, Whose};

use uuid::Uuid;

use super::brakes::{self, BrakeLimits};
use super::error::StoreError;
use super::events::{self, StrayEvent};
use super::pool::Store;
use super::rows::{count, text};
use types::StrayRow;

/// A host that has not said by then what became of its stop is not waited for.
const TRY_MS: i64 = 120_000;

const REGISTRY_ID: &str = "SELECT registry_id FROM fleet WHERE registry_id IS NOT NULL";

const MAKE_REGISTRY_ID: &str = "
    UPDATE fleet SET registry_id = $1, quiet_from = (SELECT now FROM clock) WHERE registry_id IS NULL";

/// By one of the hosts. A clock that was set back must not put it off.
const TURN: &str = "
    UPDATE fleet SET strays_at = (SELECT now FROM clock)
    WHERE strays_at <= (SELECT now FROM clock) - $1 OR strays_at > (SELECT now FROM clock)";

macro_rules! stray {
    () => {
        "SELECT strays.id, strays.provider, strays.workspace_id, strays.instance_id, strays.registry_id,
            strays.epoch, strays.why, strays.found_at, strays.stopping, strays.attempts, strays.last_error,
            fleet.registry_id, fleet.clock_from, fleet.quiet_from,
            (SELECT status FROM workspaces WHERE workspaces.id = strays.workspace_id)
        FROM strays, fleet "
    };
}

const OF_PROVIDER: &str = concat!(stray!(), "WHERE strays.provider = $1");
const PAGE: &str = concat!(stray!(), "WHERE strays.id > $1 ORDER BY strays.id LIMIT $2");

/// It is ours, its grace is over, `$1`, the database is no longer young, `$2`, and nobody
/// is trying to stop it just now, `$3`. After a clock was set the grace counts anew; one
/// that was set back puts nothing off.
macro_rules! due {
    () => {
        "strays.epoch IS NOT NULL AND strays.registry_id = (SELECT registry_id FROM fleet)
        AND strays.found_at <= (SELECT now FROM clock) - $1
        AND (SELECT clock_from FROM fleet) <= (SELECT now FROM clock) - $1
        AND (SELECT quiet_from FROM fleet) <= (SELECT now FROM clock) - $2
        AND (strays.try_at <= (SELECT now FROM clock) OR strays.try_at > (SELECT now FROM clock) + $3)"
    };
}

const DUE: &str = concat!(stray!(), "WHERE ", due!(), " ORDER BY strays.found_at, strays.id LIMIT $4");

/// How many are due that the brake has yet to let pass.
const WANTED: &str = concat!("SELECT COUNT(*) FROM strays WHERE NOT stopping AND ", due!());

/// If it is still so.
const TAKE: &str = concat!(
    "UPDATE strays SET stopping = TRUE, attempts = attempts + 1, try_at = (SELECT now FROM clock) + $3
    WHERE strays.id = $4 AND ",
    due!(),
    " AND NOT EXISTS (
        SELECT 1 FROM workspaces AS w WHERE w.id = strays.workspace_id AND (
            w.claim_id IS NOT NULL OR w.claim_epoch < strays.epoch
            OR (w.status <> 'removed' AND w.instance_id = strays.instance_id)
        )
    ) RETURNING attempts"
);

const FORGET: &str = "DELETE FROM strays WHERE id = $1";

const NOT_STOPPED: &str = "UPDATE strays SET try_at = 0, last_error = $2 WHERE id = $1";

/// Whatever the row starts from now on has a newer name.
const CATCH_UP: &str = "
    UPDATE workspaces SET claim_epoch = $2, fence_seq = $3 WHERE id = $1 AND claim_id IS NULL
    AND (claim_epoch < $2 OR (claim_epoch = $2 AND fence_seq < $3))";

const PROVIDERS: &str = "SELECT DISTINCT provider FROM strays";

const OF_UNKNOWN_PROVIDER: &str = "DELETE FROM strays WHERE provider = $1";

const COUNTS: &str = "
    SELECT strays.provider, CASE WHEN strays.registry_id IS NULL THEN 'none'
        WHEN strays.registry_id = fleet.registry_id THEN 'own' ELSE 'other' END AS whose, COUNT(*)
    FROM strays, fleet GROUP BY 1, 2 ORDER BY 1, 2";

const INSTANCES: &str = "
    SELECT id, provider, instance_id, status FROM workspaces
    WHERE id > $1 AND instance_id IS NOT NULL AND instance_id <> '' AND status <> 'removed'
    ORDER BY id LIMIT $2";

impl Store {
    /// This registry's identity: made once, and kept for good.
    pub async fn registry_id(&self) -> Result<String, StoreError> {
        for _ in 0..2 {
            if let Some((id,)) = fetch_optional!(self.read(), (String,), REGISTRY_ID)? {
                return Ok(id);
            }
            execute!(self.write(), MAKE_REGISTRY_ID, Uuid::now_v7().to_string())?;
        }
        Err(StoreError::Statement(sqlx::Error::RowNotFound))
    }

    /// Takes the turn to look for strays, unless somebody has within `every_ms`.
    pub async fn strays_turn(&self, every_ms: u64) -> Result<bool, StoreError> {
        Ok(execute!(self.write(), TURN, count(every_ms))? == 1)
    }

    /// Forgets what providers had that are none of these.
    pub async fn forget_strays_beside(&self, providers: &[String]) -> Result<(), StoreError> {
        for (provider,) in fetch_all!(self.read(), (String,), PROVIDERS)? {
            if !providers.contains(&provider) {
                execute!(self.write(), OF_UNKNOWN_PROVIDER, provider)?;
            }
        }
        Ok(())
    }

    /// Strays that are to be stopped, the longest known first.
    pub async fn due_strays(
        &self,
        grace_ms: u64,
        quiet_ms: u64,
        limit: u32,
    ) -> Result<Vec<Stray>, StoreError> {
        let (grace, quiet) = (count(grace_ms), count(quiet_ms));
        let rows = fetch_all!(self.read(), StrayRow, DUE, grace, quiet, TRY_MS, i64::from(limit))?;
        rows.into_iter().map(Stray::try_from).collect()
    }

    /// Asks the brake about all that are to be stopped.
    pub async fn ask_brake_for_strays(
        &self,
        grace_ms: u64,
        quiet_ms: u64,
        limits: &BrakeLimits,
    ) -> Result<(), StoreError> {
        let (grace, quiet) = (count(grace_ms), count(quiet_ms));
        let wanted = fetch_optional!(self.read(), (i64,), WANTED, grace, quiet, TRY_MS)?;
        let wanted = wanted.and_then(|(n,)| u64::try_from(n).ok()).unwrap_or(0);
        if wanted == 0 {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        brakes::ask_for_strays(&mut tx, wanted, limits).await?;
        tx.commit().await
    }

    /// Takes a stray to stop it, if it still is one, and counts it as the brake does.
    pub async fn take_stray(
        &self,
        stray: &Stray,
        grace_ms: u64,
        quiet_ms: u64,
        limits: &BrakeLimits,
    ) -> Result<Taken, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(epoch) = stray.epoch {
            // It could not be done when it was found, where a claim was open.
            execute!(tx.on(), CATCH_UP, stray.workspace_id.as_str(), count(epoch), 0_i64)?;
        }
        let (grace, quiet) = (count(grace_ms), count(quiet_ms));
        let taken = fetch_optional!(tx.on(), (i64,), TAKE, grace, quiet, TRY_MS, stray.id.as_str())?;
        let Some((attempts,)) = taken else {
            tx.roll_back().await?;
            return Ok(Taken::No);
        };
        if !stray.stopping
            && let Some(scope) = brakes::take_stray(&mut tx, &stray.provider, limits).await?
        {
            tx.roll_back().await?;
            return Ok(Taken::Held(scope));
        }
        tx.commit().await?;
        Ok(Taken::Yes(u32::try_from(attempts).unwrap_or(u32::MAX)))
    }

    /// It is stopped.
    pub async fn stray_stopped(&self, stray: &Stray) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if execute!(tx.on(), FORGET, stray.id.as_str())? == 1 {
            let Stray { workspace_id, instance_id, provider, why, .. } = stray;
            let event = StrayEvent { workspace_id, instance_id, provider, why };
            events::record_stray(&mut tx, events::STRAY_STOPPED, &event).await?;
        }
        tx.commit().await
    }

    /// It may run still; it is tried again.
    pub async fn stray_not_stopped(&self, stray: &Stray, error: &str) -> Result<(), StoreError> {
        execute!(self.write(), NOT_STOPPED, stray.id.as_str(), text(error)).map(drop)
    }

    /// Brings a row that is older than what its provider has accepted up to that.
    pub async fn catch_up(&self, workspace_id: &str, epoch: u64, seq: u64) -> Result<bool, StoreError> {
        let (epoch, seq) = (count(epoch), count(seq));
        Ok(execute!(self.write(), CATCH_UP, text(workspace_id), epoch, seq)? == 1)
    }

    /// How many strays there are, by provider and whose they are.
    pub async fn stray_counts(&self) -> Result<Vec<(String, String, i64)>, StoreError> {
        fetch_all!(self.read(), (String, String, i64), COUNTS)
    }

    /// Strays, the longest known first; `after` is the last one's id of the page before.
    pub async fn strays(&self, after: &str, limit: u32) -> Result<Vec<Stray>, StoreError> {
        let rows = fetch_all!(self.read(), StrayRow, PAGE, text(after), i64::from(limit))?;
        rows.into_iter().map(Stray::try_from).collect()
    }

    /// Boxes that rows name; `after` is the last one's workspace of the page before.
    pub async fn instances(&self, after: &str, limit: u32) -> Result<Vec<Instance>, StoreError> {
        type InstanceRow = (String, Option<String>, String, String);
        let rows = fetch_all!(self.read(), InstanceRow, INSTANCES, text(after), i64::from(limit))?;
        let of = |(workspace_id, provider, instance_id, status)| Instance {
            workspace_id,
            provider,
            instance_id,
            status,
        };
        Ok(rows.into_iter().map(of).collect())
    }
}
