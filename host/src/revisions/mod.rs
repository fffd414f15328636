//! Which modules decide. A revision is compiled and probed as a whole before
//! one pointer is swapped; a decision takes the pointer once and uses what it
//! got from beginning to end. What can't be loaded leaves the old one in charge.
//!
//! Lives above `store` (which keeps bytes and numbers) and `policy` (which
//! compiles), because those two never see each other.

mod bind;
mod dir;
mod files;
mod pauses;
mod settings;
pub mod watch;

use bind::{bind, fingerprint, load};
use dir::{Look, contents, read_dir_aside};
pub use dir::{Wanted, answers, limits_beside, read_dir, read_file};
use files::Aside;
use pauses::Pauses;
pub use settings::{WrittenSetting, WrittenSettings};

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::facts::ModuleLimits;
use crate::metrics::Metrics;
use crate::policy::{Binding, Manifest, Module, PolicyError, Revision, Sandbox};
use crate::store::{BoundModule, RevisionRow, Store, StoreError, StoredModule};

/// The source of a revision that the policy directory made.
pub const FROM_DIR: &str = "dir";

/// The source of a revision that was asked for over HTTP.
pub const FROM_API: &str = "api";

/// Modules that one revision may bind.
pub const MAX_MODULES: usize = 64;

/// The revision in charge. Cheap to clone; reading it never waits.
#[derive(Clone)]
pub struct Active(Arc<ArcSwap<Revision>>);

impl Active {
    /// None in charge yet: every candidate is denied.
    pub fn none() -> Self {
        Self::of(Revision { number: 0, bindings: Vec::new() })
    }

    /// `revision` in charge.
    pub fn of(revision: Revision) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(revision)))
    }

    pub fn get(&self) -> Arc<Revision> {
        self.0.load_full()
    }

    fn swap(&self, revision: Revision) {
        self.0.store(Arc::new(revision));
    }
}

/// A module that the host has and can run.
#[derive(Clone, Debug, Serialize)]
pub struct ModuleInfo {
    pub digest: String,
    pub hooks: crate::policy::Hooks,
    pub manifest: Manifest,
}

/// A module that was uploaded, at its place in a revision that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Uploaded {
    pub digest: String,
    /// The file that it was, for errors.
    pub file: Option<String>,
    pub settings: WrittenSettings,
    pub limits: ModuleLimits,
}

/// Why a revision was refused. The old one stays in charge.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    #[error("{module}: {error}")]
    Module { module: String, error: PolicyError },
    #[error("{path}: {why}")]
    Directory { path: String, why: String },
    #[error("a revision binds 1 to {MAX_MODULES} modules, not {0}")]
    Count(usize),
    #[error("{0} and {1} both call themselves {2:?}")]
    SameName(String, String, String),
    #[error("there is no module {0}; upload it first")]
    NoSuchModule(String),
    #[error("there is no revision {0}")]
    NoSuchRevision(i64),
    #[error("no revision was active before the active one")]
    NothingBefore,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RevisionError {
    /// Whether the same revision may load another time.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            RevisionError::Store(_) => true,
            RevisionError::Module { error, .. } => matches!(
                error,
                PolicyError::CompileTimeout { .. } | PolicyError::Busy { .. } | PolicyError::Host { .. }
            ),
            _ => false,
        }
    }
}

/// Loads, activates and rolls back revisions, one at a time.
pub struct Revisions {
    store: Store,
    sandbox: Sandbox,
    active: Active,
    metrics: Arc<Metrics>,
    /// Held while one is loaded; what the directory held when this host last read it.
    one_at_a_time: Mutex<Option<String>>,
    /// Reads the directory.
    aside: Aside,
    /// When the active revision may be loaded again that could not be.
    pauses: Mutex<Pauses<i64>>,
    /// The same for what the directory held.
    dir_pauses: Mutex<Pauses<String>>,
}

impl Revisions {
    pub fn new(store: Store, sandbox: Sandbox, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            sandbox,
            active: Active::none(),
            metrics,
            one_at_a_time: Mutex::new(None),
            aside: Aside::default(),
            pauses: Mutex::new(Pauses::default()),
            dir_pauses: Mutex::new(Pauses::default()),
        }
    }

    /// The handle that decisions read.
    pub fn active(&self) -> Active {
        self.active.clone()
    }

    /// Checks, compiles and keeps a module; it decides nothing until a revision binds it.
    ///
    /// # Errors
    /// [`RevisionError::Module`] where it is refused.
    pub async fn upload(&self, bytes: Bytes) -> Result<ModuleInfo, RevisionError> {
        // Which limits it gets is said when it is bound.
        let refused = |error| RevisionError::Module { module: "the upload".to_owned(), error };
        let module = self.sandbox.load_at_most(bytes.clone()).await.map_err(refused)?;
        self.keep(&module, bytes).await?;
        Ok(ModuleInfo {
            digest: module.digest().to_owned(),
            hooks: module.hooks(),
            manifest: module.manifest().clone(),
        })
    }

    /// Activates a new revision of `wanted`, in that order.
    ///
    /// # Errors
    /// Whatever keeps one of them from deciding; the old revision stays then.
    pub async fn activate(&self, source: &str, wanted: Vec<Wanted>) -> Result<RevisionRow, RevisionError> {
        let _one = self.one_at_a_time.lock().await;
        self.refused(self.install(source, wanted).await)
    }

    /// Activates a new revision of modules that were uploaded before.
    ///
    /// # Errors
    /// [`RevisionError::NoSuchModule`], or what keeps one from deciding.
    pub async fn activate_uploaded(&self, modules: Vec<Uploaded>) -> Result<RevisionRow, RevisionError> {
        let mut wanted = Vec::with_capacity(modules.len());
        for Uploaded { digest, file, settings, limits } in modules {
            let Some(module) = self.store.module(&digest).await? else {
                return Err(RevisionError::NoSuchModule(
                    file.map_or(digest.clone(), |f| format!("{digest} ({f})")),
                ));
            };
            let label = file.unwrap_or_else(|| format!("{}@{} ({digest})", module.name, module.version));
            wanted.push(Wanted { label, bytes: module.bytes, settings, limits });
        }
        self.activate(FROM_API, wanted).await
    }

    /// Loads a directory as a revision, unless it holds what it held when it
    /// was last loaded: then whatever is in charge (a rollback, or another
    /// host's revision) stays.
    ///
    /// # Errors
    /// Whatever keeps one of its modules from deciding; the old revision stays
    /// then, and the directory is not tried again until it changes.
    pub async fn activate_dir(&self, dir: &Path) -> Result<Option<RevisionRow>, RevisionError> {
        // Before the turn is taken: a file system that hangs keeps nobody else from activating.
        let wanted = match read_dir_aside(&self.aside, dir, self.sandbox.limits()).await {
            Ok(wanted) => wanted,
            Err(error) => return self.refused(Err(error)),
        };
        let mut held = self.one_at_a_time.lock().await;
        let holds = contents(&wanted);
        if held.as_ref() == Some(&holds) || self.dir_pauses.lock().await.rests(&holds, Instant::now()) {
            return Ok(None);
        }
        let result = match held.is_none() {
            true => self.install_if_new(wanted).await,
            false => self.install(FROM_DIR, wanted).await.map(Some),
        };
        let try_again = result.as_ref().is_err_and(RevisionError::may_pass);
        if try_again && !matches!(result, Err(RevisionError::Store(_))) {
            self.dir_pauses.lock().await.failed(holds.clone(), Instant::now());
        }
        *held = (!try_again).then_some(holds);
        self.refused(result)
    }

    /// What the directory looks like now.
    async fn look(&self, dir: &Path) -> Look {
        Look::at(&self.aside, dir).await
    }

    /// Makes an older revision active again.
    ///
    /// # Errors
    /// [`RevisionError::NoSuchRevision`], or what keeps it from loading.
    pub async fn reactivate(&self, number: i64) -> Result<RevisionRow, RevisionError> {
        let _one = self.one_at_a_time.lock().await;
        let all = self.store.revisions().await?;
        let row =
            all.into_iter().find(|r| r.number == number).ok_or(RevisionError::NoSuchRevision(number))?;
        let revision = self.rebuild(&row).await?;
        if !self.store.activate(number).await? {
            return Err(RevisionError::NoSuchRevision(number));
        }
        self.put_in_charge(revision);
        self.row(number).await
    }

    /// Makes the revision active that was active before the active one.
    ///
    /// # Errors
    /// [`RevisionError::NothingBefore`], or what keeps it from loading.
    pub async fn roll_back(&self) -> Result<RevisionRow, RevisionError> {
        let before = self.store.previous_revision().await?.ok_or(RevisionError::NothingBefore)?;
        self.reactivate(before.number).await
    }

    /// Follows the database: at start, and when another host activated a revision.
    ///
    /// # Errors
    /// What keeps the active revision from loading here; the old one stays then.
    pub async fn follow(&self) -> Result<(), RevisionError> {
        let _one = self.one_at_a_time.lock().await;
        let Some(row) = self.store.active_revision().await? else { return Ok(()) };
        let mut pauses = self.pauses.lock().await;
        if row.number == self.active.get().number || pauses.rests(&row.number, Instant::now()) {
            return Ok(());
        }
        match self.rebuild(&row).await {
            Ok(revision) => {
                *pauses = Pauses::default();
                self.put_in_charge(revision);
                Ok(())
            }
            Err(error) => {
                if !matches!(error, RevisionError::Store(_)) {
                    pauses.failed(row.number, Instant::now());
                }
                Err(error)
            }
        }
    }

    /// All revisions, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self) -> Result<Vec<RevisionRow>, StoreError> {
        self.store.revisions().await
    }

    async fn row(&self, number: i64) -> Result<RevisionRow, RevisionError> {
        let all = self.store.revisions().await?;
        all.into_iter().find(|r| r.number == number).ok_or(RevisionError::NoSuchRevision(number))
    }

    async fn keep(&self, module: &Module, bytes: Bytes) -> Result<(), StoreError> {
        let manifest = module.manifest();
        self.store
            .put_module(&StoredModule {
                digest: module.digest().to_owned(),
                name: manifest.name.clone(),
                version: manifest.version.clone(),
                bytes,
            })
            .await
    }

    async fn install(&self, source: &str, wanted: Vec<Wanted>) -> Result<RevisionRow, RevisionError> {
        let (bindings, rows) = bind(&self.sandbox, &wanted).await?;
        self.store_and_swap(source, wanted, bindings, rows).await
    }

    async fn install_if_new(&self, wanted: Vec<Wanted>) -> Result<Option<RevisionRow>, RevisionError> {
        let (bindings, rows) = bind(&self.sandbox, &wanted).await?;
        let last = self.store.newest_revision_from(FROM_DIR).await?;
        if last.is_some_and(|last| last.fingerprint == fingerprint(&rows)) {
            return Ok(None);
        }
        self.store_and_swap(FROM_DIR, wanted, bindings, rows).await.map(Some)
    }

    async fn store_and_swap(
        &self,
        source: &str,
        wanted: Vec<Wanted>,
        bindings: Vec<Binding>,
        rows: Vec<BoundModule>,
    ) -> Result<RevisionRow, RevisionError> {
        for (binding, one) in bindings.iter().zip(wanted) {
            self.keep(&binding.module, one.bytes).await?;
        }
        let number = self.store.activate_new(source, &fingerprint(&rows), &rows).await?;
        self.put_in_charge(Revision { number, bindings });
        self.row(number).await
    }

    /// Loads a stored revision again.
    async fn rebuild(&self, row: &RevisionRow) -> Result<Revision, RevisionError> {
        let mut bindings = Vec::with_capacity(row.modules.len());
        for bound in &row.modules {
            let refused = |error| RevisionError::Module { module: bound.name.clone(), error };
            let Some(stored) = self.store.module(&bound.digest).await? else {
                return Err(RevisionError::NoSuchModule(bound.digest.clone()));
            };
            let module = load(&self.sandbox, &bound.name, stored.bytes, &bound.limits).await?;
            let settings = module.settle(&bound.settings).map_err(refused)?;
            bindings.push(Binding::new(module, settings));
        }
        Ok(Revision { number: row.number, bindings })
    }

    fn put_in_charge(&self, revision: Revision) {
        let policies: Vec<_> = revision.bindings.iter().map(|b| b.module.manifest().name.as_str()).collect();
        tracing::info!(
            policy.revision = revision.number,
            policies = policies.join(","),
            "revision in charge"
        );
        self.metrics.revision.set(revision.number);
        self.active.swap(revision);
    }

    fn refused<T>(&self, result: Result<T, RevisionError>) -> Result<T, RevisionError> {
        if result.is_err() {
            self.metrics.revisions_refused.inc();
        }
        result
    }
}

/// Loads `dir` without a database, as `sprag replay --policy-dir` does.
///
/// # Errors
/// Whatever keeps one of its modules from deciding.
pub async fn load_dir(sandbox: &Sandbox, dir: &Path) -> Result<Revision, RevisionError> {
    let (bindings, _) = bind(sandbox, &read_dir(dir, sandbox.limits()).await?).await?;
    // Any number but 0, which means that nobody decides.
    Ok(Revision { number: -1, bindings })
}
