//! Policy modules by their digest, the revisions made of them, and the log of
//! which revision was active when. The newest line of that log is the active
//! one; hosts that activate at the same time do so one after the other.

use super::error::StoreError;
use super::pool::{Lock, Store, Tx};
use super::rows::{At, text};
use super::types::{BoundModule, RevisionRow, StoredModule};

const PUT_MODULE: &str = "
    INSERT INTO policy_modules (digest, name, version, bytes) VALUES ($1, $2, $3, $4)
    ON CONFLICT (digest) DO NOTHING";
const MODULE: &str = "SELECT digest, name, version, bytes FROM policy_modules WHERE digest = $1";

const ADD_REVISION: &str = "
    INSERT INTO policy_revisions (number, created_at, source, fingerprint, modules)
    SELECT COALESCE((SELECT MAX(number) FROM policy_revisions), 0) + 1, clock.now, $1, $2, $3 FROM clock
    RETURNING number";
const ACTIVATE: &str = "
    INSERT INTO policy_activations (seq, revision, at)
    SELECT COALESCE((SELECT MAX(seq) FROM policy_activations), 0) + 1, r.number, clock.now
    FROM policy_revisions AS r CROSS JOIN clock WHERE r.number = $1";

macro_rules! revisions {
    ($condition:literal) => {
        concat!(
            "SELECT r.number, r.created_at, r.source, r.fingerprint, r.modules, ",
            "COALESCE(r.number = (SELECT revision FROM policy_activations ORDER BY seq DESC LIMIT 1), FALSE)
                AS active, ",
            "(SELECT MAX(at) FROM policy_activations WHERE revision = r.number) AS activated_at
            FROM policy_revisions AS r ",
            $condition
        )
    };
}

const REVISIONS: &str = revisions!("ORDER BY r.number DESC");
const ACTIVE: &str =
    revisions!("WHERE r.number = (SELECT revision FROM policy_activations ORDER BY seq DESC LIMIT 1)");
const PREVIOUS: &str = revisions!(
    "WHERE r.number = (
        SELECT revision FROM policy_activations WHERE seq < (
            SELECT MIN(seq) FROM policy_activations WHERE revision = (
                SELECT revision FROM policy_activations ORDER BY seq DESC LIMIT 1
            )
        ) ORDER BY seq DESC LIMIT 1
    )"
);
const NEWEST_FROM: &str = revisions!("WHERE r.source = $1 ORDER BY r.number DESC LIMIT 1");

impl Store {
    /// Keeps a module. One with the same digest is the same module.
    pub async fn put_module(&self, module: &StoredModule) -> Result<(), StoreError> {
        execute!(
            self.write(),
            PUT_MODULE,
            text(&module.digest),
            text(&module.name),
            text(&module.version),
            module.bytes.as_ref()
        )
        .map(drop)
    }

    pub async fn module(&self, digest: &str) -> Result<Option<StoredModule>, StoreError> {
        let row = fetch_optional!(self.read(), (String, String, String, Vec<u8>), MODULE, text(digest))?;
        Ok(row.map(|(digest, name, version, bytes)| StoredModule {
            digest,
            name,
            version,
            bytes: bytes.into(),
        }))
    }

    /// Adds a revision (whose modules are already put) and makes it active; its
    /// number. Where the active one has the same source and fingerprint, as when
    /// several hosts start on one directory, that one stays and nothing is added.
    pub async fn activate_new(
        &self,
        source: &str,
        fingerprint: &str,
        modules: &[BoundModule],
    ) -> Result<i64, StoreError> {
        let modules = serde_json::to_string(modules)
            .map_err(|e| StoreError::Statement(sqlx::Error::Encode(e.into())))?;
        let mut tx = self.begin().await?;
        tx.lock(Lock::Activations).await?;
        if let Some(active) = active(&mut tx).await?
            && active.source == source
            && active.fingerprint == fingerprint
        {
            return Ok(active.number);
        }
        let added = fetch_optional!(tx.on(), (i64,), ADD_REVISION, text(source), text(fingerprint), modules)?;
        let (number,) = added.ok_or(StoreError::Statement(sqlx::Error::RowNotFound))?;
        execute!(tx.on(), ACTIVATE, number)?;
        tx.commit().await?;
        Ok(number)
    }

    /// Makes an existing revision active again. False: there is none of that number.
    pub async fn activate(&self, number: i64) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        tx.lock(Lock::Activations).await?;
        if active(&mut tx).await?.is_some_and(|active| active.number == number) {
            return Ok(true);
        }
        let activated = execute!(tx.on(), ACTIVATE, number)?;
        tx.commit().await?;
        Ok(activated == 1)
    }

    pub async fn active_revision(&self) -> Result<Option<RevisionRow>, StoreError> {
        fetch_optional!(self.read(), StoredRevision, ACTIVE)?.map(RevisionRow::try_from).transpose()
    }

    /// The revision that was active before the active one.
    pub async fn previous_revision(&self) -> Result<Option<RevisionRow>, StoreError> {
        fetch_optional!(self.read(), StoredRevision, PREVIOUS)?.map(RevisionRow::try_from).transpose()
    }

    /// The newest revision whose source is `source`.
    pub async fn newest_revision_from(&self, source: &str) -> Result<Option<RevisionRow>, StoreError> {
        let row = fetch_optional!(self.read(), StoredRevision, NEWEST_FROM, text(source))?;
        row.map(RevisionRow::try_from).transpose()
    }

    /// All revisions, newest first.
    pub async fn revisions(&self) -> Result<Vec<RevisionRow>, StoreError> {
        let rows = fetch_all!(self.read(), StoredRevision, REVISIONS)?;
        rows.into_iter().map(RevisionRow::try_from).collect()
    }
}

async fn active(tx: &mut Tx) -> Result<Option<StoredRevision>, StoreError> {
    fetch_optional!(tx.on(), StoredRevision, ACTIVE)
}

#[derive(sqlx::FromRow)]
struct StoredRevision {
    number: i64,
    created_at: i64,
    source: String,
    fingerprint: String,
    modules: String,
    active: bool,
    activated_at: Option<i64>,
}

impl TryFrom<StoredRevision> for RevisionRow {
    type Error = StoreError;

    fn try_from(row: StoredRevision) -> Result<Self, StoreError> {
        let id = row.number.to_string();
        let at = At { table: "policy_revisions", id: &id };
        Ok(RevisionRow {
            number: row.number,
            created_at: at.number("created_at", row.created_at)?,
            source: row.source,
            fingerprint: row.fingerprint,
            modules: at.json("modules", &row.modules, "a JSON array of bound modules")?,
            active: row.active,
            activated_at: row.activated_at.map(|t| at.number("activated_at", t)).transpose()?,
        })
    }
}
