//! What is owed: written with the step that owes it, delivered in the order of
//! each workspace, taken by one host at a time; and the stamps that keep an
//! action from firing too often.

use serde_json::json;
use uuid::Uuid;

use super::claims::OwedStop;
use super::error::StoreError;
use super::pool::{Backend, Store, Tx};
use super::rows::{At, count, text};
use super::types::{Effect, EffectState, Owe, Retried};
#[cfg(test)]
use crate::facts::Action;
use crate::facts::Timestamp;

/// The kind of an [`OwedStop`]; of an action it is the action's name.
pub const STOP: &str = "stop";

const OWE: &str = "
    INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
    SELECT $1, $2, $3, $4, 'due', clock.now, clock.now FROM clock";

/// The stamp, if nobody has set it since it was read. `$4` is -1 where there was none.
const STAMP: &str = "
    INSERT INTO cooldowns (workspace_id, action, last_fired_at, fired)
    SELECT $1, $2, clock.now, $3 FROM clock WHERE TRUE
    ON CONFLICT (workspace_id, action) DO UPDATE
    SET last_fired_at = excluded.last_fired_at, fired = excluded.fired
    WHERE cooldowns.last_fired_at = $4";

const COOLDOWN: &str = "
    SELECT last_fired_at, fired, clock.now FROM cooldowns, clock WHERE workspace_id = $1 AND action = $2";

/// By a clock that was set back since. How long ago that was, nobody knows: it counts from now, once.
const STAMP_AHEAD: &str = "
    UPDATE cooldowns SET last_fired_at = $3 WHERE workspace_id = $1 AND action = $2 AND last_fired_at = $4";

macro_rules! effect {
    () => {
        "seq, id, workspace_id, kind, body, state, attempts, due_at, last_error, created_at, ended_at"
    };
}

/// The kinds that this version delivers: an [`OwedStop`], and each action's name.
macro_rules! kinds {
    () => {
        "('stop', 'reconcile_plugins', 'restart', 'stop_instance', 'notify')"
    };
}

/// Whoever takes a row makes it due again after his lease, should he not come
/// back. An owed stop waits for nobody; the actions of a workspace come one by one.
/// A later version's kinds are left to hosts that know them, and in nobody's way.
macro_rules! take {
    ($skip:literal) => {
        concat!(
            "UPDATE outbox SET due_at = (SELECT now FROM clock) + $1, attempts = attempts + 1 WHERE seq IN (
                SELECT o.seq FROM outbox AS o WHERE o.state = 'due' AND o.due_at <= (SELECT now FROM clock)
                AND o.kind IN ",
            kinds!(),
            " AND (o.kind = 'stop' OR NOT EXISTS (
                    SELECT 1 FROM outbox AS before WHERE before.workspace_id = o.workspace_id
                    AND before.state = 'due' AND before.kind <> 'stop' AND before.seq < o.seq
                    AND before.kind IN ",
            kinds!(),
            "
                ))
                ORDER BY o.due_at LIMIT $2",
            $skip,
            ") RETURNING ",
            effect!()
        )
    };
}

const SQLITE_TAKE: &str = take!("");
const POSTGRES_TAKE: &str = take!(" FOR UPDATE SKIP LOCKED");

const DONE: &str = "
    UPDATE outbox SET state = 'done', ended_at = (SELECT now FROM clock), last_error = $2
    WHERE id = $1 AND state = 'due'";

const LATER: &str = "
    UPDATE outbox SET due_at = (SELECT now FROM clock) + $2, last_error = $3,
        state = CASE WHEN $4 THEN 'parked' ELSE state END,
        ended_at = CASE WHEN $4 THEN (SELECT now FROM clock) ELSE ended_at END
    WHERE id = $1 AND state = 'due'";

const RETRY: &str = "
    UPDATE outbox SET state = 'due', attempts = 0, due_at = (SELECT now FROM clock)
    WHERE id = $1 AND state = 'parked'";

const DROP: &str = "
    UPDATE outbox SET state = 'dropped', ended_at = (SELECT now FROM clock)
    WHERE id = $1 AND state IN ('due', 'parked')";

const ONE: &str = concat!("SELECT ", effect!(), " FROM outbox WHERE id = $1");

const PAGE: &str = concat!(
    "SELECT ",
    effect!(),
    " FROM outbox WHERE seq < $1 AND ($2 = '' OR state = $2) AND ($3 = '' OR workspace_id = $3)
    ORDER BY seq DESC LIMIT $4"
);

const COUNTS: &str = "SELECT state, COUNT(*) FROM outbox WHERE state IN ('due', 'parked') GROUP BY state";

type Row = (i64, String, String, String, String, String, i64, i64, Option<String>, i64, Option<i64>);

impl Store {
    /// Takes up to `limit` effects that are due, for `lease_ms`.
    pub async fn due_effects(&self, limit: u32, lease_ms: u64) -> Result<Vec<Effect>, StoreError> {
        let sql = match self.backend() {
            Backend::Sqlite => SQLITE_TAKE,
            Backend::Postgres => POSTGRES_TAKE,
        };
        let mut rows = fetch_all!(self.write(), Row, sql, count(lease_ms), i64::from(limit))?;
        rows.sort_by_key(|row| row.0);
        // One that can't be read is left to its lease, and keeps back no other.
        let unreadable = |error: &StoreError| tracing::error!("an effect that is due can't be read: {error}");
        Ok(rows.into_iter().filter_map(|row| read(row).inspect_err(unreadable).ok()).collect())
    }

    /// Ends an effect; `note` says what became of it, where that is not plain.
    pub async fn effect_done(&self, id: &str, note: Option<&str>) -> Result<(), StoreError> {
        execute!(self.write(), DONE, text(id), note.map(text)).map(drop)
    }

    /// Due again after `delay_ms`; or, where its attempts are spent, parked for a person to see.
    pub async fn effect_failed(
        &self,
        id: &str,
        delay_ms: u64,
        error: &str,
        parked: bool,
    ) -> Result<(), StoreError> {
        execute!(self.write(), LATER, text(id), count(delay_ms), text(error), parked).map(drop)
    }

    /// Makes a parked effect due at once, with all its attempts.
    pub async fn retry_effect(&self, id: &str) -> Result<Retried, StoreError> {
        self.change_effect(id, RETRY).await
    }

    /// Gives an effect up for good.
    pub async fn drop_effect(&self, id: &str) -> Result<Retried, StoreError> {
        self.change_effect(id, DROP).await
    }

    async fn change_effect(&self, id: &str, sql: &'static str) -> Result<Retried, StoreError> {
        let changed = execute!(self.write(), sql, text(id))? == 1;
        let row = fetch_optional!(self.read(), Row, ONE, text(id))?;
        Ok(match (row.map(read).transpose()?, changed) {
            (None, _) => Retried::Unknown,
            (Some(effect), true) => Retried::Done(effect),
            (Some(effect), false) => Retried::Not(effect),
        })
    }

    /// Effects, newest first, of one state and one workspace where they are
    /// named; `before` is the last `seq` of the page before.
    pub async fn effects(
        &self,
        state: Option<EffectState>,
        workspace_id: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Effect>, StoreError> {
        let state = state.map_or("", EffectState::as_str);
        let workspace_id = text(workspace_id.unwrap_or_default());
        let before = before.unwrap_or(i64::MAX);
        let rows = fetch_all!(self.read(), Row, PAGE, before, state, workspace_id, i64::from(limit))?;
        rows.into_iter().map(read).collect()
    }

    /// How many effects are due, and how many parked.
    pub async fn effect_counts(&self) -> Result<(u64, u64), StoreError> {
        let rows = fetch_all!(self.read(), (String, i64), COUNTS)?;
        let of = |state: &str| {
            let found = rows.iter().find(|(name, _)| name == state).map_or(0, |(_, n)| *n);
            At { table: "outbox", id: state }.number("count", found)
        };
        Ok((of("due")?, of("parked")?))
    }

    /// When an action last fired for a workspace, and how often since it was healthy.
    pub async fn cooldown(
        &self,
        workspace_id: &str,
        action: &str,
    ) -> Result<Option<(Timestamp, u32)>, StoreError> {
        let (id, action) = (text(workspace_id), text(action));
        let row = fetch_optional!(self.read(), (i64, i64, i64), COOLDOWN, id.as_ref(), action.as_ref())?;
        let Some((mut last, fired, now)) = row else { return Ok(None) };
        if last > now {
            execute!(self.write(), STAMP_AHEAD, id.as_ref(), action.as_ref(), now, last)?;
            last = now;
        }
        let at = At { table: "cooldowns", id: workspace_id };
        Ok(Some((at.number("last_fired_at", last)?, at.number("fired", fired)?)))
    }
}

/// Writes that `stop` is owed.
pub(super) async fn owe_stop(tx: &mut Tx, workspace_id: &str, stop: &OwedStop) -> Result<(), StoreError> {
    let body = serde_json::to_value(stop).unwrap_or_default();
    owe(tx, workspace_id, STOP, &body).await
}

/// Stamps an action's cooldown and writes that it is owed for the row as it is
/// at `version`, both or neither;
/// false: somebody else has fired it since it was ruled on.
pub(super) async fn owe_action(
    tx: &mut Tx,
    workspace_id: &str,
    version: i64,
    owes: &Owe,
    decision_id: Option<&str>,
) -> Result<bool, StoreError> {
    let last = owes.last_fired_at.map_or(-1, count);
    let key = owes.action.key();
    let stamped = execute!(tx.on(), STAMP, text(workspace_id), text(&key), i64::from(owes.fired), last)? == 1;
    if stamped {
        let body = json!({
            "action": owes.action,
            "reason": owes.reason,
            "decision_id": decision_id,
            "version": version,
        });
        owe(tx, workspace_id, owes.action.name(), &body).await?;
    }
    Ok(stamped)
}

/// Writes that an effect is owed that no policy asked for.
pub(super) async fn owe(
    tx: &mut Tx,
    workspace_id: &str,
    kind: &str,
    body: &serde_json::Value,
) -> Result<(), StoreError> {
    let id = Uuid::now_v7().to_string();
    execute!(tx.on(), OWE, id, text(workspace_id), kind, body.to_string()).map(drop)
}

fn read(row: Row) -> Result<Effect, StoreError> {
    let (seq, id, workspace_id, kind, body, state, attempts, due_at, last_error, created_at, ended_at) = row;
    let at = At { table: "outbox", id: &id };
    Ok(Effect {
        seq,
        body: at.json("body", &body, "JSON")?,
        state: at.parse("state", &state, "a state of an effect")?,
        attempts: at.number("attempts", attempts)?,
        due_at: at.number("due_at", due_at)?,
        created_at: at.number("created_at", created_at)?,
        ended_at: ended_at.map(|t| at.number("ended_at", t)).transpose()?,
        workspace_id,
        kind,
        last_error,
        id,
    })
}

#[cfg(test)]
#[test]
fn every_action_is_of_a_kind_that_is_delivered() {
    let actions =
        [Action::ReconcilePlugins, Action::Restart, Action::StopInstance, Action::Notify("x".to_owned())];
    for kind in actions.iter().map(Action::name).chain([STOP]) {
        assert!(kinds!().contains(&format!("'{kind}'")), "{kind}");
    }
    // Another action is another kind.
    let all = |action: &Action| match action {
        Action::ReconcilePlugins | Action::Restart | Action::StopInstance | Action::Notify(_) => true,
    };
    assert!(actions.iter().all(all));
    assert_eq!(kinds!().split(',').count(), actions.len() + 1);
}
