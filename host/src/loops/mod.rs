//! What happens without anybody asking: the registry finds out by itself what
//! went silent, died, hangs or idles, and finishes what it owes.
//!
//! One driver runs every loop. A tick takes no input: it takes rows that are due
//! from the store, so that any number of hosts share the work without a leader.
//! Every row is judged by `advance`, like anything else that changes a status;
//! before rows go down, the brake is asked.
//!
//! | File | Every | Does |
//! |---|---|---|
//! | `driver` | | runs a tick, timed or woken; survives its panic; keeps its report |
//! | `sweep` | | what the sweeps share: take, judge, ask the brake, write |
//! | `silence` | 15 s | no heartbeat for the runtime's window |
//! | `instances` | 60 s | the provider says that the box is not running |
//! | `provisioning` | 30 s | provisioning for longer than it may take |
//! | `idle` | 120 s | no task for the workspace's own limit |
//! | `down` | 60 s | what is down and stays so: recovery is asked again |
//! | `strays` | 60 s | boxes that providers run and no row names |
//! | `claims` | 5 s | leases that lapsed |
//! | `outbox` | 1 s, and woken | effects that are due |
//! | `pulse` | 1 s | whether this host can be trusted to have heard its agents |
//! | `census` | 30 s | how many rows live, for the brake |
//! | `trust`, `brake`, `config` | | when this host suspects itself; what may go down; what can be set |

mod brake;
mod census;
mod claims;
mod config;
mod down;
mod driver;
mod idle;
mod instances;
mod outbox;
mod provisioning;
mod pulse;
mod silence;
mod strays;
mod sweep;
mod trust;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use brake::BrakeConfig;
pub use config::LoopsConfig;
pub use driver::{Driver, Report, Tally, Tick};
pub use trust::Trust;

use crate::advance::Advance;
use crate::claims::Claims;
use crate::effects::Effects;
use crate::metrics::Metrics;
use crate::provision::Dispatcher;
use crate::store::{HostName, Store};
use census::Census;
use down::Down;
use idle::Idle;
use instances::Instances;
use provisioning::Provisioning;
use pulse::Pulses;
use silence::Silence;
use strays::Strays;
use sweep::Sweeper;

/// What the loops work on.
pub struct Parts {
    pub store: Store,
    pub advance: Advance,
    pub claims: Claims,
    pub effects: Effects,
    pub dispatcher: Arc<Dispatcher>,
    pub metrics: Arc<Metrics>,
    /// What the host goes by among the others, the same after a restart.
    pub name: String,
}

/// Every loop of a host.
pub struct Loops {
    drivers: Vec<Arc<Driver>>,
    pulse: Arc<Driver>,
    census: Arc<Driver>,
    store: Store,
    host: HostName,
    brake: BrakeConfig,
    config: LoopsConfig,
}

impl Loops {
    pub fn new(parts: &Parts, config: &LoopsConfig, brake: &BrakeConfig) -> Self {
        let host = HostName { id: uuid::Uuid::now_v7().to_string(), name: parts.name.clone() };
        let trust = Arc::new(Trust::new(brake));
        let sweeper = Arc::new(Sweeper {
            store: parts.store.clone(),
            advance: parts.advance.clone(),
            trust: trust.clone(),
            limits: brake.limits(),
            rows: config.rows,
        });
        let driver = |what: Arc<dyn Tick>| Arc::new(Driver::new(what, parts.metrics.clone()));
        let pulse = driver(Arc::new(Pulses {
            store: parts.store.clone(),
            host: host.clone(),
            trust: trust.clone(),
            config: brake.clone(),
            lease_ms: parts.claims.lease_ms(),
            metrics: parts.metrics.clone(),
            starting: true.into(),
        }));
        let census = driver(Arc::new(Census {
            store: parts.store.clone(),
            config: brake.clone(),
            trust: trust.clone(),
        }));
        let outbox = driver(Arc::new(outbox::Outbox(parts.effects.clone())));
        let drivers = vec![
            pulse.clone(),
            census.clone(),
            driver(Arc::new(Silence { sweeper: sweeper.clone(), config: config.clone() })),
            driver(Arc::new(Instances {
                sweeper: sweeper.clone(),
                dispatcher: parts.dispatcher.clone(),
                config: config.clone(),
            })),
            driver(Arc::new(Strays {
                store: parts.store.clone(),
                dispatcher: parts.dispatcher.clone(),
                trust: trust.clone(),
                metrics: parts.metrics.clone(),
                config: config.clone(),
                limits: brake.limits(),
            })),
            driver(Arc::new(Provisioning { sweeper: sweeper.clone(), config: config.clone() })),
            driver(Arc::new(Down { sweeper: sweeper.clone(), config: config.clone() })),
            driver(Arc::new(Idle { sweeper, claims: parts.claims.clone(), config: config.clone() })),
            driver(Arc::new(claims::TakeOver {
                store: parts.store.clone(),
                claims: parts.claims.clone(),
                trust,
            })),
            outbox.clone(),
        ];
        parts.effects.wakes(outbox.waker());
        parts.advance.owed_wakes(outbox.waker());
        let (store, brake, config) = (parts.store.clone(), brake.clone(), config.clone());
        Self { drivers, pulse, census, store, host, brake, config }
    }

    /// Runs them until `stop`. The first pulse comes before everything else: what
    /// was not heard before it proves nothing; and the first census, without which
    /// the brake would take any fleet for a small one.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Those that fail are logged, and tried again by their loops.
        let _ = self.pulse.once().await;
        let _ = self.census.once().await;
        let running = TaskTracker::new();
        for driver in &self.drivers {
            running.spawn(driver.clone().run(stop.clone()));
        }
        running.close();
        running.wait().await;
        if let Err(error) = self.store.leave(&self.host).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "this host will be missed for a while");
        }
    }

    /// One tick of the loop of this name, as its timer would run it. None: there is none.
    pub async fn tick(&self, name: &str) -> Option<Result<Tally, String>> {
        Some(self.drivers.iter().find(|driver| driver.name() == name)?.once().await)
    }

    /// How each loop stands.
    pub fn reports(&self) -> Vec<Report> {
        self.drivers.iter().map(|driver| driver.report()).collect()
    }

    /// How often they tick, and how much they do.
    pub fn config(&self) -> &LoopsConfig {
        &self.config
    }

    /// The bounds of the brake.
    pub fn brake(&self) -> &BrakeConfig {
        &self.brake
    }
}
