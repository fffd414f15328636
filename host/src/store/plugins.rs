//! Declared plugins: replaced whole, read when they are delivered.

use serde_json::json;

use super::error::StoreError;
use super::outbox::owe;
use super::pool::Store;
use super::rows::{optional_text, text};
use super::types::DeclaredPlugin;
use super::workspaces::TOUCH;
use crate::facts::Action;

const CLEAR: &str = "DELETE FROM declared_plugins WHERE workspace_id = $1";
const DECLARE: &str = "INSERT INTO declared_plugins (workspace_id, name, version) VALUES ($1, $2, $3)";
const DECLARED: &str = "SELECT name, version FROM declared_plugins WHERE workspace_id = $1 ORDER BY name";

impl Store {
    /// Replaces what a workspace should have; with `deliver`, its delivery is
    /// owed as well. False: the workspace is gone or removed, and nothing is written.
    pub async fn declare_plugins(
        &self,
        workspace_id: &str,
        plugins: &[DeclaredPlugin],
        deliver: bool,
    ) -> Result<bool, StoreError> {
        let id = text(workspace_id);
        let mut tx = self.begin().await?;
        if fetch_optional!(tx.on(), (i64,), TOUCH, id.as_ref())?.is_none() {
            return Ok(false);
        }
        execute!(tx.on(), CLEAR, id.as_ref())?;
        for plugin in plugins {
            execute!(tx.on(), DECLARE, id.as_ref(), text(&plugin.name), optional_text(&plugin.version))?;
        }
        if deliver {
            let reason = json!({ "code": "plugins-declared" });
            let body = json!({ "action": Action::ReconcilePlugins, "reason": reason });
            owe(&mut tx, &id, Action::ReconcilePlugins.name(), &body).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// What a workspace should have, by name.
    pub async fn declared_plugins(&self, workspace_id: &str) -> Result<Vec<DeclaredPlugin>, StoreError> {
        let rows = fetch_all!(self.read(), (String, Option<String>), DECLARED, text(workspace_id))?;
        Ok(rows.into_iter().map(|(name, version)| DeclaredPlugin { name, version }).collect())
    }
}
