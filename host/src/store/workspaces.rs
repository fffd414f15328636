//! Workspaces as operators make, see and change them, and the row to be judged.
//! Nothing here changes a status: that is `commit`'s alone.

use std::borrow::Cow;

use serde_json::Value;

use super::error::StoreError;
use super::pool::{Backend, Executor, Lock, Store, Tx};
use super::rows::{FactsRow, ViewRow, optional_text, text};
use super::types::{Filter, NewWorkspace, Patch, Placed, Snapshot, WorkspaceView};
use super::{claims, events, tokens};
use crate::facts::Workspace;
use crate::machine::Status;

const CREATE: &str = "
    INSERT INTO workspaces (id, name, kind, runtime, provider, parent_id, tier, labels, persistent_volume,
        hibernation_idle_minutes, status, version, status_since, created_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, clock.now, clock.now FROM clock";

const SNAPSHOT: &str =
    concat!("SELECT ", facts!("(SELECT now FROM clock)"), " FROM workspaces WHERE workspaces.id = $1");

const SUBTREE: &str = concat!(
    "WITH RECURSIVE down (id, depth) AS (
        SELECT id, 0 FROM workspaces WHERE id = $1 AND status <> 'removed'
        UNION ALL
        SELECT child.id, down.depth + 1 FROM workspaces AS child JOIN down ON child.parent_id = down.id
        WHERE child.status <> 'removed'
    )
    SELECT ",
    facts!("(SELECT now FROM clock)"),
    " FROM down JOIN workspaces ON workspaces.id = down.id
    ORDER BY down.depth, workspaces.id"
);

const VIEW: &str = concat!(
    "SELECT ",
    view!(),
    " FROM workspaces LEFT JOIN agent_cards AS c ON c.workspace_id = workspaces.id WHERE workspaces.id = $1"
);

const VIEWS: &str = concat!(
    "SELECT ",
    view!(),
    " FROM workspaces LEFT JOIN agent_cards AS c ON c.workspace_id = workspaces.id WHERE TRUE"
);

const PATCH: &str = "
    UPDATE workspaces SET
        name = COALESCE($2, name),
        labels = COALESCE($3, labels),
        parent_id = CASE WHEN $4 THEN $5 ELSE parent_id END,
        tier = CASE WHEN $6 THEN $7 ELSE tier END,
        hibernation_idle_minutes = CASE WHEN $8 THEN $9 ELSE hibernation_idle_minutes END,
        idle_at = CASE WHEN $8 THEN 0 ELSE idle_at END
    WHERE id = $1 AND status <> 'removed'";

/// Whether `$2` is `$1` or one of its descendants.
const IS_BELOW: &str = "
    WITH RECURSIVE up (id, parent_id) AS (
        SELECT id, parent_id FROM workspaces WHERE id = $2
        UNION
        SELECT a.id, a.parent_id FROM workspaces AS a JOIN up ON a.id = up.parent_id
    )
    SELECT id FROM up WHERE id = $1";

/// Postgres: nobody removes the row, and nobody moves it, until this commits.
const STATUS_LOCKED: &str = "SELECT status FROM workspaces WHERE id = $1 FOR SHARE";
/// SQLite: there is no other writer.
const STATUS: &str = "SELECT status FROM workspaces WHERE id = $1";

pub(super) const PUT_CARD: &str = "
    INSERT INTO agent_cards (workspace_id, card) VALUES ($1, $2)
    ON CONFLICT (workspace_id) DO UPDATE SET card = excluded.card";

/// Locks the row against a change of status, and says which one it has.
pub(super) const TOUCH: &str =
    "UPDATE workspaces SET version = version WHERE id = $1 AND status <> 'removed' RETURNING version";

impl Store {
    /// Creates the row in `provisioning` at version 1, its first event and its token.
    pub async fn create(&self, new: &NewWorkspace) -> Result<Placed, StoreError> {
        let mut tx = self.begin().await?;
        if let Some(parent) = &new.parent_id {
            match status_locked(&mut tx, parent).await?.as_deref() {
                None => return Ok(Placed::NoSuchParent),
                Some("removed") => return Ok(Placed::ParentRemoved),
                Some(_) => {}
            }
        }
        execute!(
            tx.on(),
            CREATE,
            text(&new.id),
            text(&new.name),
            text(&new.kind),
            text(&new.runtime),
            optional_text(&new.provider),
            optional_text(&new.parent_id),
            optional_text(&new.tier),
            json(&new.labels)?,
            new.persistent_volume,
            new.hibernation_idle_minutes.map(i64::from),
            Status::Provisioning.as_str(),
        )?;
        events::record_creation(&mut tx, &new.id).await?;
        if let Some(token) = &new.token {
            tokens::insert(&mut tx, &new.id, token).await?;
        }
        if let Some(claim) = &new.claim {
            claims::open(&mut tx, claim, &created(new), None).await?;
        }
        tx.commit().await?;
        Ok(Placed::Done)
    }

    pub async fn view(&self, id: &str) -> Result<Option<WorkspaceView>, StoreError> {
        let row = fetch_optional!(self.read(), ViewRow, VIEW, text(id))?;
        row.map(WorkspaceView::try_from).transpose()
    }

    pub async fn list(&self, filter: &Filter) -> Result<Vec<WorkspaceView>, StoreError> {
        // The text differs with the filter, so that a status can use its index.
        let Executor { db, outcome } = self.read();
        let rows: Result<Vec<ViewRow>, _> = on!(db, db => {
            let mut query = sqlx::QueryBuilder::new(VIEWS);
            let wanted = [
                (" AND workspaces.status = ", filter.status.map(|status| Cow::Borrowed(status.as_str()))),
                (" AND workspaces.kind = ", optional_text(&filter.kind)),
                (" AND workspaces.runtime = ", optional_text(&filter.runtime)),
                (" AND workspaces.provider = ", optional_text(&filter.provider)),
                (" AND workspaces.parent_id = ", optional_text(&filter.parent_id)),
                (" AND workspaces.id > ", optional_text(&filter.after)),
            ];
            for (condition, value) in wanted {
                if let Some(value) = value {
                    query.push(condition).push_bind(value);
                }
            }
            if !filter.include_removed && filter.status != Some(Status::Removed) {
                query.push(" AND workspaces.status <> 'removed'");
            }
            query.push(" ORDER BY workspaces.id LIMIT ").push_bind(i64::from(filter.limit));
            query.build_query_as().fetch_all(db).await
        });
        let rows = outcome.of(rows, |_| false)?;
        rows.into_iter().map(WorkspaceView::try_from).collect()
    }

    /// Never changes a status or a version; refuses removed rows.
    pub async fn patch(&self, id: &str, patch: &Patch) -> Result<Placed, StoreError> {
        let id = text(id);
        let labels = patch.labels.as_ref().map(json).transpose()?;
        let mut tx = self.begin().await?;
        if let Some(Some(parent)) = &patch.parent_id {
            let placed = place(&mut tx, &id, &text(parent)).await?;
            if placed != Placed::Done {
                return Ok(placed);
            }
        }
        let changed = execute!(
            tx.on(),
            PATCH,
            id.as_ref(),
            optional_text(&patch.name),
            labels.as_deref(),
            patch.parent_id.is_some(),
            patch.parent_id.as_ref().and_then(optional_text),
            patch.tier.is_some(),
            patch.tier.as_ref().and_then(optional_text),
            patch.hibernation_idle_minutes.is_some(),
            patch.hibernation_idle_minutes.flatten().map(i64::from),
        )?;
        if changed == 0 {
            return Ok(match status_locked(&mut tx, &id).await? {
                None => Placed::NoSuchWorkspace,
                Some(_) => Placed::Removed,
            });
        }
        tx.commit().await?;
        Ok(Placed::Done)
    }

    /// The row to be judged.
    pub async fn snapshot(&self, id: &str) -> Result<Option<Snapshot>, StoreError> {
        let row = fetch_optional!(self.read(), FactsRow, SNAPSHOT, text(id))?;
        row.map(Snapshot::try_from).transpose()
    }

    /// The row and all its descendants that are not removed, parents first.
    pub async fn subtree(&self, id: &str) -> Result<Vec<Snapshot>, StoreError> {
        let rows = fetch_all!(self.read(), FactsRow, SUBTREE, text(id))?;
        rows.into_iter().map(Snapshot::try_from).collect()
    }

    /// Stores the card and its event. False: the workspace is gone or removed.
    pub async fn update_card(&self, id: &str, card: &Value) -> Result<bool, StoreError> {
        let id = text(id);
        let mut tx = self.begin().await?;
        let Some((version,)) = fetch_optional!(tx.on(), (i64,), TOUCH, id.as_ref())? else {
            return Ok(false);
        };
        execute!(tx.on(), PUT_CARD, id.as_ref(), card.to_string())?;
        events::record_card(&mut tx, &id, version).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Whether `id` may be put under `parent`; both stay where they are until `tx` ends.
async fn place(tx: &mut Tx, id: &str, parent: &str) -> Result<Placed, StoreError> {
    tx.lock(Lock::Tree).await?;
    // In the order of their ids, like every transaction that locks several rows.
    let (of_id, of_parent) = if id < parent {
        (status_locked(tx, id).await?, status_locked(tx, parent).await?)
    } else {
        let of_parent = status_locked(tx, parent).await?;
        (status_locked(tx, id).await?, of_parent)
    };
    Ok(match (of_id.as_deref(), of_parent.as_deref()) {
        (None, _) => Placed::NoSuchWorkspace,
        (Some("removed"), _) => Placed::Removed,
        (_, None) => Placed::NoSuchParent,
        (_, Some("removed")) => Placed::ParentRemoved,
        _ if fetch_optional!(tx.on(), (String,), IS_BELOW, id, parent)?.is_some() => Placed::Cycle,
        _ => Placed::Done,
    })
}

/// The row's status, which stays so until `tx` ends.
async fn status_locked(tx: &mut Tx, id: &str) -> Result<Option<String>, StoreError> {
    let sql = match tx.backend() {
        Backend::Sqlite => STATUS,
        Backend::Postgres => STATUS_LOCKED,
    };
    let status = fetch_optional!(tx.on(), (String,), sql, text(id))?;
    Ok(status.map(|(status,)| status))
}

/// What a claim reads of the row that was just made.
fn created(new: &NewWorkspace) -> Workspace {
    Workspace {
        id: new.id.clone(),
        kind: new.kind.clone(),
        runtime: new.runtime.clone(),
        provider: new.provider.clone(),
        instance_id: None,
        status: Status::Provisioning,
        status_since: 0,
        last_heartbeat_at: None,
        active_tasks: 0,
        ancestor_paused: false,
        persistent_volume: new.persistent_volume,
        labels: new.labels.clone(),
    }
}

fn json(labels: &std::collections::BTreeMap<String, String>) -> Result<String, StoreError> {
    serde_json::to_string(labels).map_err(|e| StoreError::Statement(sqlx::Error::Encode(e.into())))
}
