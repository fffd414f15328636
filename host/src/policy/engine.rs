//! The engine: which WebAssembly we speak, the pool, and the clock that ends
//! what runs too long.
//!
//! Calls run on a fiber (async) and yield to the executor at every tick of the
//! epoch, so a policy that loops cannot keep a worker thread from everybody
//! else for longer than a tick. The fiber comes from the pool and costs 0.6 µs
//! of a decision's 9 (heartbeat policy, measured against the same calls made
//! synchronously).

use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, ResourceLimiter,
    Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline,
};

use super::{Limits, PolicyError, fault};

/// What host code may use of a fiber's stack beyond the guest's share. An
/// overflow there would abort the process.
const HOST_STACK_BYTES: usize = 512 << 10;

/// How much of a used memory or table is reset in place instead of unmapped.
/// Where the kernel can say which pages were touched (`PAGEMAP_SCAN`), only
/// those cost anything; elsewhere every byte is copied, so there it is small.
const KEEP_RESIDENT_SCANNED: usize = 512 << 10;
const KEEP_RESIDENT_COPIED: usize = 64 << 10;

/// Bytes of the host's own bookkeeping for one instance.
const INSTANCE_BYTES: usize = 1 << 20;

const WASM_PAGE: usize = 64 << 10;

/// What decides how code is compiled, alike in the host and in its compiling child.
pub fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .gc_support(false)
        .concurrency_support(false)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(fault::FRAMES))
        // Handles alone, no copies: the way to the memory that a panic left its words in.
        .coredump_on_trap(true)
        .max_wasm_stack(limits.stack_bytes)
        .async_stack_size(limits.stack_bytes.saturating_add(HOST_STACK_BYTES));
    config
}

/// Places for as many sandboxes as may live at once, each as large as any may be.
fn pool(limits: &Limits) -> PoolingAllocationConfig {
    let limits = limits.most();
    let mut pool = PoolingAllocationConfig::new();
    let instances = u32::try_from(limits.instances).unwrap_or(u32::MAX);
    let memories = u32::try_from(limits.memories).unwrap_or(u32::MAX);
    let total = limits.concurrency.saturating_mul(instances);
    let scan = PoolingAllocationConfig::is_pagemap_scan_available();
    let resident = if scan { KEEP_RESIDENT_SCANNED } else { KEEP_RESIDENT_COPIED };
    pool.total_component_instances(limits.concurrency)
        .total_core_instances(total)
        .total_memories(limits.concurrency.saturating_mul(memories))
        .total_tables(total)
        .total_stacks(limits.concurrency)
        .total_gc_heaps(0)
        .max_core_instances_per_component(instances)
        .max_memories_per_component(memories)
        .max_tables_per_component(instances)
        .max_memories_per_module(memories)
        .max_tables_per_module(instances)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_memory_size(limits.memory_bytes.checked_next_multiple_of(WASM_PAGE).unwrap_or(usize::MAX))
        .table_elements(limits.table_elements)
        .linear_memory_keep_resident(resident)
        .table_keep_resident(resident)
        .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No });
    pool
}

/// The engine, and whether the pool could be had: it reserves address space
/// for every sandbox that may live at once, which a host can lack.
pub fn engine(limits: &Limits) -> Result<(Engine, bool), PolicyError> {
    let mut pooled = config(limits);
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
    let refused = match Engine::new(&pooled) {
        Ok(engine) => return Ok((engine, true)),
        Err(refused) => refused,
    };
    tracing::warn!(
        error = format!("{refused:#}"),
        "no pool of sandboxes can be had; each is allocated on demand, which is slower"
    );
    let engine = Engine::new(&config(limits)).map_err(|e| PolicyError::Host { why: format!("{e:#}") })?;
    Ok((engine, false))
}

/// Advances the engine's epoch until it is dropped, on a thread of its own, so
/// that no guest can hold it up.
pub struct Ticker {
    _alive: mpsc::Sender<()>,
}

impl Ticker {
    /// # Errors
    /// [`PolicyError::Host`] where no thread can be started.
    pub fn start(engine: &Engine, limits: &Limits) -> Result<Self, PolicyError> {
        let (alive, dropped) = mpsc::channel();
        let engine = engine.clone();
        // A call ends within a tick of its limit.
        let tick = Duration::from_millis((limits.call_ms / 10).clamp(1, 10));
        std::thread::Builder::new()
            .name("sprag-epoch".to_owned())
            .spawn(move || {
                while dropped.recv_timeout(tick) == Err(mpsc::RecvTimeoutError::Timeout) {
                    engine.increment_epoch();
                }
            })
            .map_err(|e| PolicyError::Host { why: format!("no thread for the epoch: {e}") })?;
        Ok(Self { _alive: alive })
    }
}

/// What was not allowed to grow, as the meter saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A memory, over the host's limit.
    Memory,
    /// A table, over the host's limit.
    Table,
    /// Either for a reason other than our limit: the module's own maximum, or a
    /// system that has no more to give.
    Other,
}

/// One call's limits, and which of them it ran into.
pub struct Meter {
    limits: StoreLimits,
    memory_bytes: usize,
    table_elements: usize,
    /// None: later than this machine can count.
    deadline: Option<Instant>,
    pub refused: Option<Refused>,
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grows = self.limits.memory_growing(current, desired, maximum);
        if !matches!(grows, Ok(true)) {
            let ours = desired > self.memory_bytes;
            self.refused = Some(if ours { Refused::Memory } else { Refused::Other });
        }
        grows
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = Some(Refused::Other);
        self.limits.memory_grow_failed(error)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grows = self.limits.table_growing(current, desired, maximum);
        if !matches!(grows, Ok(true)) {
            let ours = desired > self.table_elements;
            self.refused = Some(if ours { Refused::Table } else { Refused::Other });
        }
        grows
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = Some(Refused::Other);
        self.limits.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}

/// A store for one call, with every limit set.
///
/// # Errors
/// [`PolicyError::Host`] where wasmtime can't make one.
pub fn store(engine: &Engine, limits: &Limits) -> Result<Store<Meter>, PolicyError> {
    let host = |e: wasmtime::Error| PolicyError::Host { why: format!("{e:#}") };
    let meter = Meter {
        limits: StoreLimitsBuilder::new()
            .memory_size(limits.memory_bytes)
            .table_elements(limits.table_elements)
            .instances(limits.instances)
            .tables(limits.instances)
            .memories(limits.memories)
            .trap_on_grow_failure(true)
            .build(),
        memory_bytes: limits.memory_bytes,
        table_elements: limits.table_elements,
        deadline: Instant::now().checked_add(limits.call()),
        refused: None,
    };
    let mut store = Store::try_new(engine, meter).map_err(host)?;
    store.limiter(|meter| meter);
    store.set_fuel(limits.fuel).map_err(host)?;
    store.set_hostcall_fuel(limits.answer_bytes);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        let late = store.data().deadline.is_some_and(|deadline| Instant::now() >= deadline);
        Ok(if late { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
    });
    Ok(store)
}
