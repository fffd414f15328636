//! What the registry finds out by itself: cases 2 and 5 of the design's cases,
//! line by line. Loops are ticked by hand, in a time that stands still.

mod case2;
mod case5;
mod clock;
mod idle;
mod provider;
mod race;
mod silence;
mod slow_provider;
mod strays;

use std::sync::Arc;

use sprag::advance::Advance;
use sprag::claims::{Claims, ClaimsConfig};
use sprag::effects::{Effects, EffectsConfig};
use sprag::facts::Heartbeat;
use sprag::heartbeats::Heard;
use sprag::loops::{BrakeConfig, Loops, LoopsConfig, Parts, Tally};
use sprag::machine::Status;
use sprag::metrics::Metrics;
use sprag::provision::{Dispatcher, ProvisioningConfig};
use sprag::store::{Backend, Effect, Event, WorkspaceView};

use crate::support::fleet::{Fleet, Made};
use crate::support::sandbox::shipped;
use provider::Provider;

/// Who serves the rows of [`Fleet::workspace`].
const PROVIDER: &str = "process";

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;

/// When every test begins, in the database's time.
const BEGINNING: u64 = 1_700_000_000_000;

/// A fleet whose database has a time of its own: it passes when a test says so.
async fn fleet(backend: Backend) -> Arc<Fleet> {
    let fleet = Fleet::new(backend, shipped().await).await;
    let clock = format!(
        "CREATE TABLE test_clock (now BIGINT NOT NULL); INSERT INTO test_clock VALUES ({BEGINNING});
         {} VIEW clock AS SELECT now FROM test_clock",
        match backend {
            Backend::Sqlite => "DROP VIEW clock; CREATE",
            Backend::Postgres => "CREATE OR REPLACE",
        }
    );
    fleet.db.sql(&clock).await;
    Arc::new(fleet)
}

/// A row in each status that is alive.
async fn both(fleet: &Fleet, runtime: &str) -> [Made; 2] {
    [boxed(fleet, runtime, Status::Online).await, boxed(fleet, runtime, Status::Degraded).await]
}

async fn pass(fleet: &Fleet, millis: u64) {
    fleet.db.sql(&format!("UPDATE test_clock SET now = now + {millis}")).await;
}

/// A row of this runtime in `status`, with a box, heard of just now.
async fn boxed(fleet: &Fleet, runtime: &str, status: Status) -> Made {
    let made = fleet.workspace("workspace", runtime, status).await;
    let heard = if status == Status::Provisioning { "NULL" } else { "(SELECT now FROM clock)" };
    set(fleet, &made.id, &format!("instance_id = 'box-1', last_heartbeat_at = {heard}")).await;
    made
}

/// Changes the row behind everybody's back.
async fn set(fleet: &Fleet, id: &str, columns: &str) {
    fleet.db.sql(&format!("UPDATE workspaces SET {columns} WHERE id = '{id}'")).await;
}

async fn status(fleet: &Fleet, made: &Made) -> Status {
    fleet.row(&made.id).await.workspace.status
}

/// A heartbeat of a healthy agent; the status after it.
async fn beat(fleet: &Fleet, made: &Made) -> Status {
    heard(fleet, made, Heartbeat::default()).await
}

async fn heard(fleet: &Fleet, made: &Made, heartbeat: Heartbeat) -> Status {
    match fleet.beat(&fleet.advance, made, heartbeat).await.expect("answered") {
        Heard::Stored { status, .. } => status,
        other => panic!("{other:?}"),
    }
}

/// All that a flip would change.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    row: WorkspaceView,
    events: Vec<Event>,
    owed: Vec<Effect>,
    decisions: usize,
}

async fn seen(fleet: &Fleet, id: &str) -> Seen {
    Seen {
        row: fleet.row(id).await,
        events: fleet.events(id).await,
        owed: fleet.store.effects(None, Some(id), None, 100).await.expect("reading the outbox"),
        decisions: fleet.decisions(id).await,
    }
}

/// The loops of one host.
struct Watch {
    provider: Arc<Provider>,
    claims: Claims,
    loops: Loops,
}

impl Watch {
    async fn over(fleet: &Fleet, advance: Advance) -> Self {
        let watch = Self::with(fleet, advance, Arc::default(), "host", LoopsConfig::default(), patient());
        watch.trusted(fleet).await;
        watch
    }

    fn with(
        fleet: &Fleet,
        advance: Advance,
        provider: Arc<Provider>,
        name: &str,
        config: LoopsConfig,
        brake: BrakeConfig,
    ) -> Self {
        let (store, metrics) = (fleet.store.clone(), Arc::new(Metrics::default()));
        let providers = [(PROVIDER.to_owned(), provider.clone() as _)].into();
        let dispatcher = Arc::new(Dispatcher::new(providers, ProvisioningConfig::default()));
        let claims = Claims::new(
            store.clone(),
            advance.clone(),
            dispatcher.clone(),
            metrics.clone(),
            ClaimsConfig::default(),
            String::new(),
        );
        let effects = Effects::new(
            store.clone(),
            dispatcher.clone(),
            claims.clone(),
            None,
            metrics.clone(),
            EffectsConfig::default(),
        );
        let name = name.to_owned();
        let parts = Parts { store, advance, claims: claims.clone(), effects, dispatcher, metrics, name };
        Self { provider, claims, loops: Loops::new(&parts, &config, &brake) }
    }

    /// The first pulse distrusts what was before it; here there was nothing to hear.
    async fn trusted(&self, fleet: &Fleet) {
        self.tick("pulse").await;
        fleet.db.sql("UPDATE fleet SET trusted_from = 0").await;
    }

    /// A tick of `idle`, over rows that were all heard of just now.
    async fn idle(&self, fleet: &Fleet) -> Tally {
        let heard = "UPDATE workspaces SET last_heartbeat_at = (SELECT now FROM clock)";
        fleet.db.sql(&format!("{heard} WHERE status IN ('online', 'degraded')")).await;
        self.tick("idle").await
    }

    async fn tick(&self, name: &str) -> Tally {
        self.loops.tick(name).await.expect("a loop of this name").expect("a tick")
    }
}

/// Neither the brake nor this host's doubts in itself are looked at here.
fn patient() -> BrakeConfig {
    let ever = 1_000_000 * SECOND;
    BrakeConfig { number: 1_000_000, stall_ms: ever, slow_ms: ever, jump_ms: ever, ..BrakeConfig::default() }
}

/// So many rows were looked at and left as they are.
fn left(rows: u64, why: &'static str) -> Tally {
    Tally { looked: rows, skipped: [(why, rows)].into(), ..Tally::default() }
}

fn flipped(rows: u64) -> Tally {
    Tally { looked: rows, flipped: rows, ..Tally::default() }
}

fn nothing() -> Tally {
    Tally::default()
}
