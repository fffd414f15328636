//! Bearer tokens, of which only the SHA-256 is stored.
//!
//! A token is found by its hash, in its workspace's row (`live_token`, a copy of
//! the newest live one, which triggers keep) or through an ordinary index, and that
//! leaks nothing usable: how long the look-up takes may tell how much of a *digest*
//! agrees with a stored one, but whoever sends a token can't choose its
//! digest's first bytes without trying that many tokens, and a digest that is
//! nearly right says nothing about the 128 random bits it came from. Where
//! single hashes are compared outside SQL, they are compared in constant time.

use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::error::StoreError;
use super::pool::{Store, Tx};
use super::rows::{At, text};
use super::types::{Credential, TokenHash};
use super::workspaces::TOUCH;

const INSERT: &str = "
    INSERT INTO tokens (hash, id, workspace_id, created_at)
    SELECT $1, $2, $3, clock.now FROM clock";

/// The caller holds the workspace's row, so that of two first tokens one comes first.
const INSERT_FIRST: &str = "
    INSERT INTO tokens (hash, id, workspace_id, created_at)
    SELECT $1, $2, $3, clock.now FROM clock
    WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE workspace_id = $3 AND revoked_at IS NULL)";

/// Once more is once: a step that is repeated hands out the same token.
const INSERT_FOR_BOX: &str = "
    INSERT INTO tokens (hash, id, workspace_id, instance_id, created_at)
    SELECT $1, $2, $3, $4, clock.now FROM clock WHERE TRUE ON CONFLICT (hash) DO NOTHING";

const LIVE: &str = "SELECT id, hash FROM tokens WHERE workspace_id = $1 AND revoked_at IS NULL";

const IS_LIVE: &str = "SELECT id FROM tokens WHERE hash = $1 AND workspace_id = $2 AND revoked_at IS NULL";

/// Nobody has a live token of it, and the one presented is of nobody.
const IS_UNCLAIMED: &str = "
    SELECT id FROM workspaces WHERE id = $2
    AND NOT EXISTS (SELECT 1 FROM tokens WHERE workspace_id = $2 AND revoked_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM tokens WHERE hash = $1)";

const IS_KNOWN: &str = "SELECT id FROM tokens WHERE hash = $1";

/// Of a removed workspace, too.
const HOLD: &str = "UPDATE workspaces SET version = version WHERE id = $1";

const REVOKE: &str = "
    UPDATE tokens SET revoked_at = (SELECT now FROM clock) WHERE workspace_id = $1 AND revoked_at IS NULL";

impl TokenHash {
    /// Compares in a time that does not depend on where the two differ.
    pub fn matches(&self, other: &TokenHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Store {
    /// The hashes of a workspace's live tokens.
    pub async fn tokens(&self, workspace_id: &str) -> Result<Vec<TokenHash>, StoreError> {
        let rows = fetch_all!(self.read(), (String, Vec<u8>), LIVE, text(workspace_id))?;
        rows.into_iter().map(|(id, hash)| hash_of(&id, &hash)).collect()
    }

    /// Whether it is a token of some workspace, live or ended.
    pub async fn knows_token(&self, hash: &TokenHash) -> Result<bool, StoreError> {
        Ok(fetch_optional!(self.read(), (String,), IS_KNOWN, hash.0.as_slice())?.is_some())
    }

    /// Ends all live tokens of a workspace; how many there were.
    pub async fn revoke_tokens(&self, workspace_id: &str) -> Result<u64, StoreError> {
        let id = text(workspace_id);
        let mut tx = self.begin().await?;
        // The row before its tokens, like whoever else holds both.
        execute!(tx.on(), HOLD, id.as_ref())?;
        let ended = execute!(tx.on(), REVOKE, id.as_ref())?;
        tx.commit().await?;
        Ok(ended)
    }

    /// Ends all live tokens of a workspace and makes `hash` its only one, both
    /// or neither. False: the workspace is gone or removed.
    pub async fn replace_tokens(&self, workspace_id: &str, hash: &TokenHash) -> Result<bool, StoreError> {
        let id = text(workspace_id);
        let mut tx = self.begin().await?;
        // Holds the row: of two that replace at once, and of one that hands out
        // a first token, the later sees what the earlier did.
        if fetch_optional!(tx.on(), (i64,), TOUCH, id.as_ref())?.is_none() {
            return Ok(false);
        }
        execute!(tx.on(), REVOKE, id.as_ref())?;
        insert(&mut tx, &id, hash).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Whether the workspace takes the word of who presents this.
pub(super) async fn may_speak(
    tx: &mut Tx,
    workspace_id: &str,
    credential: Credential,
) -> Result<bool, StoreError> {
    let Credential { token, open } = credential;
    let live = fetch_optional!(tx.on(), (String,), IS_LIVE, token.0.as_slice(), text(workspace_id))?;
    if live.is_some() || !open {
        return Ok(live.is_some());
    }
    let unclaimed =
        fetch_optional!(tx.on(), (String,), IS_UNCLAIMED, token.0.as_slice(), text(workspace_id))?;
    Ok(unclaimed.is_some())
}

/// Adds a token beside those that there are.
pub(super) async fn insert(tx: &mut Tx, workspace_id: &str, hash: &TokenHash) -> Result<(), StoreError> {
    execute!(tx.on(), INSERT, hash.0.as_slice(), new_id(), text(workspace_id)).map(drop)
}

/// Adds the token of a box that is about to be started.
pub(super) async fn insert_for_box(
    tx: &mut Tx,
    workspace_id: &str,
    hash: &TokenHash,
    instance_id: &str,
) -> Result<(), StoreError> {
    let hash = hash.0.as_slice();
    execute!(tx.on(), INSERT_FOR_BOX, hash, new_id(), text(workspace_id), text(instance_id)).map(drop)
}

/// Adds a token unless there is a live one; whether it did.
pub(super) async fn insert_first(
    tx: &mut Tx,
    workspace_id: &str,
    hash: &TokenHash,
) -> Result<bool, StoreError> {
    let inserted = execute!(tx.on(), INSERT_FIRST, hash.0.as_slice(), new_id(), text(workspace_id))?;
    Ok(inserted == 1)
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The error says how long the hash is, never what it is.
fn hash_of(id: &str, hash: &[u8]) -> Result<TokenHash, StoreError> {
    let hash = <[u8; 32]>::try_from(hash).map_err(|_| {
        At { table: "tokens", id }.bad("hash", format!("{} bytes", hash.len()), "the 32 bytes of a SHA-256")
    })?;
    Ok(TokenHash(hash))
}
