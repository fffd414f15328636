//! The maker of sandboxes: one engine, its pool, its epoch thread, and the way
//! a module comes in.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::cache::Cache;
use super::classify::why;
use super::engine::Ticker;
use super::{Limits, Module, PolicyError, SandboxConfig, compile, engine};
use crate::facts::ModuleLimits;

/// Children that compile at once. Each may take a whole core.
const COMPILERS: usize = 1;

/// Makes sandboxes: one engine, its pool and its epoch thread.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

/// What modules keep of the sandbox that loaded them. The epoch thread ends
/// with the last of them.
pub struct Inner {
    pub engine: Engine,
    pub limits: Limits,
    compiler: std::path::PathBuf,
    cache: Option<Cache>,
    pooled: bool,
    slots: Semaphore,
    compilers: Semaphore,
    _ticker: Ticker,
}

impl Sandbox {
    /// # Errors
    /// [`PolicyError::Host`] where the limits fit no engine, or no thread can
    /// be started for its epoch.
    pub fn new(config: SandboxConfig) -> Result<Self, PolicyError> {
        let SandboxConfig { limits, compiler, cache_dir } = config;
        limits.check()?;
        let (engine, pooled) = engine::engine(&limits)?;
        let inner = Inner {
            cache: cache_dir.as_deref().and_then(|dir| Cache::open(dir, &engine)),
            _ticker: Ticker::start(&engine, &limits)?,
            slots: Semaphore::new(limits.concurrency as usize),
            compilers: Semaphore::new(COMPILERS),
            engine,
            limits,
            compiler,
            pooled,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks, wraps (a core module), compiles in a child process and probes.
    /// Does not block the caller's thread.
    ///
    /// # Errors
    /// Any [`PolicyError`] that says why these bytes are no policy here.
    pub async fn load(&self, bytes: Bytes) -> Result<Arc<Module>, PolicyError> {
        self.load_within(bytes, self.inner.limits.clone()).await
    }

    /// [`Sandbox::load`] of a module with limits of its own.
    ///
    /// # Errors
    /// [`PolicyError::BadLimit`] as well.
    pub async fn load_with(&self, bytes: Bytes, own: &ModuleLimits) -> Result<Arc<Module>, PolicyError> {
        self.load_within(bytes, self.inner.limits.of_module(own)?).await
    }

    /// [`Sandbox::load`] under the most that any module may be given: whether
    /// there are limits here under which it loads.
    ///
    /// # Errors
    /// As [`Sandbox::load`].
    pub async fn load_at_most(&self, bytes: Bytes) -> Result<Arc<Module>, PolicyError> {
        self.load_within(bytes, self.inner.limits.most()).await
    }

    async fn load_within(&self, bytes: Bytes, limits: Limits) -> Result<Arc<Module>, PolicyError> {
        let (found, limit) = (bytes.len(), limits.module_bytes);
        if found > limit {
            return Err(PolicyError::ModuleTooLarge { found, limit });
        }
        let digest = format!("sha256:{:x}", HexDigest(Sha256::digest(&bytes).into()));
        let component = match self.cached(digest.clone()).await? {
            Some(component) => component,
            None => self.compiled(&digest, &bytes, &limits).await?,
        };
        let pre = Linker::new(&self.inner.engine)
            .instantiate_pre(&component)
            .map_err(|e| PolicyError::Import { import: why(&e) })?;
        Module::probe(Arc::clone(&self.inner), limits, digest, pre).await.map(Arc::new)
    }

    /// What every module here is held to that has no limits of its own.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Whether the pooling allocator could be had.
    pub fn pooled(&self) -> bool {
        self.inner.pooled
    }

    async fn cached(&self, digest: String) -> Result<Option<Component>, PolicyError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let code = inner.cache.as_ref()?.get(&digest)?;
            inner.read_back(&code).ok()
        })
        .await
    }

    async fn compiled(&self, digest: &str, bytes: &Bytes, limits: &Limits) -> Result<Component, PolicyError> {
        let code = {
            let _turn = self.inner.compilers.acquire().await.map_err(closed)?;
            compile::in_child(&self.inner.compiler, limits, bytes).await?
        };
        let (inner, digest) = (Arc::clone(&self.inner), digest.to_owned());
        blocking(move || {
            let component = inner.read_back(&code).map_err(|e| PolicyError::Instantiate { why: why(&e) })?;
            if let Some(cache) = &inner.cache {
                cache.put(&digest, &code);
            }
            Ok(component)
        })
        .await?
    }
}

impl Inner {
    /// A turn to hold one sandbox; waits for it no longer than a call may take.
    pub async fn slot(&self, limits: &Limits) -> Result<SemaphorePermit<'_>, PolicyError> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        match tokio::time::timeout(limits.call(), self.slots.acquire()).await {
            Ok(slot) => slot.map_err(closed),
            Err(_) => Err(PolicyError::Busy { limit: self.limits.concurrency }),
        }
    }

    /// Native code as a component, with its image ready to be mapped.
    #[allow(unsafe_code)]
    fn read_back(&self, code: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: this is what our own child compiled: it comes straight from
        // its pipe, or from a file that only this user can write and whose
        // hash fits. Version and configuration are checked by wasmtime.
        let component = unsafe { Component::deserialize(&self.engine, code)? };
        component.initialize_copy_on_write_image()?;
        Ok(component)
    }
}

fn closed(_: tokio::sync::AcquireError) -> PolicyError {
    PolicyError::Host { why: "the sandbox is shut".to_owned() }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PolicyError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| PolicyError::Host { why: e.to_string() })
}

struct HexDigest([u8; 32]);

impl std::fmt::LowerHex for HexDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
