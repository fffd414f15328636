//! What the host counts, in Prometheus terms. One registry per host, not a
//! global, so that tests run many hosts in one process.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::clock;
use crate::facts::{Asked, Bound, Fate, Outcome};
use crate::machine::{CauseKind, Move};

/// Modules and codes whose faults are counted for the log.
const FAULTS_OF_MODULES: usize = 4_096;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MovedLabels {
    from: &'static str,
    to: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecidedLabels {
    cause: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FaultLabels {
    policy: String,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EffectLabels {
    kind: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    fate: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClaimLabels {
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClaimEndLabels {
    kind: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LoopLabels {
    r#loop: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LoopOutcomeLabels {
    r#loop: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FieldLabels {
    call: &'static str,
    field: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BrakeLabels {
    scope: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StrayLabels {
    provider: String,
    registry: String,
}

/// All of the host's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Heartbeats answered.
    pub heartbeats: Counter,
    /// Heartbeats per statement.
    pub batch_size: Histogram,
    /// The number of the active policy revision.
    pub revision: Gauge,
    /// Revisions that were refused.
    pub revisions_refused: Counter,
    /// Connections open now.
    pub http_connections: Gauge,
    /// Bytes of answers that wait to be read; small ones are not counted.
    pub http_answer_bytes: Gauge,
    /// Connections that were ended because their clients overdid it.
    pub http_cut_off: Counter,
    not_taken: Family<FieldLabels, Counter>,
    moved: Family<MovedLabels, Counter>,
    outran: Family<CauseLabels, Counter>,
    decided: Family<DecidedLabels, Counter>,
    faults: Family<FaultLabels, Counter>,
    /// By digest and code, for the log alone: digests would be too many series.
    faults_of_modules: Mutex<HashMap<(String, String), u64>>,
    requests: Family<RequestLabels, Counter>,
    actions: Family<ActionLabels, Counter>,
    claims_opened: Family<ClaimLabels, Counter>,
    claims_ended: Family<ClaimEndLabels, Counter>,
    pub claims_taken_over: Counter,
    foreign_claims: Gauge,
    /// Open claims that were dropped and not ended: a bug that a test sees.
    pub claims_unspent: Counter,
    effects: Family<EffectLabels, Counter>,
    effects_due: Gauge,
    effects_parked: Gauge,
    last_tick: Family<LoopLabels, Gauge<f64, AtomicU64>>,
    tick_seconds: Family<LoopLabels, Gauge<f64, AtomicU64>>,
    ticks_failed: Family<LoopOutcomeLabels, Counter>,
    swept: Family<LoopOutcomeLabels, Counter>,
    distrusted: Family<ReasonLabels, Counter>,
    brake: Family<BrakeLabels, Gauge>,
    strays: Family<StrayLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sprag");
        let this = Self {
            heartbeats: Counter::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            revision: Gauge::default(),
            revisions_refused: Counter::default(),
            http_connections: Gauge::default(),
            http_answer_bytes: Gauge::default(),
            http_cut_off: Counter::default(),
            not_taken: Family::default(),
            moved: Family::default(),
            outran: Family::default(),
            decided: Family::default(),
            faults: Family::default(),
            faults_of_modules: Mutex::default(),
            requests: Family::default(),
            actions: Family::default(),
            claims_opened: Family::default(),
            claims_ended: Family::default(),
            claims_taken_over: Counter::default(),
            foreign_claims: Gauge::default(),
            claims_unspent: Counter::default(),
            effects: Family::default(),
            effects_due: Gauge::default(),
            effects_parked: Gauge::default(),
            last_tick: Family::default(),
            tick_seconds: Family::default(),
            ticks_failed: Family::default(),
            swept: Family::default(),
            distrusted: Family::default(),
            brake: Family::default(),
            strays: Family::default(),
            registry: Registry::default(),
        };
        registry.register("heartbeats", "Heartbeats answered", this.heartbeats.clone());
        registry.register(
            "heartbeat_batch_size",
            "Heartbeats stored by one statement",
            this.batch_size.clone(),
        );
        registry.register(
            "agent_fields_not_taken",
            "Fields of stored heartbeats and registrations that were clamped, cut or left out",
            this.not_taken.clone(),
        );
        registry.register("policy_revision", "Number of the active policy revision", this.revision.clone());
        registry.register("revisions_refused", "Policy revisions refused", this.revisions_refused.clone());
        registry.register("transitions", "Changes of status committed", this.moved.clone());
        registry.register(
            "outran",
            "Steps discarded because somebody else moved the row",
            this.outran.clone(),
        );
        registry.register("decisions", "Decisions made", this.decided.clone());
        registry.register(
            "policy_faults",
            "Policies that failed, each denying every candidate",
            this.faults.clone(),
        );
        registry.register("http_connections", "Connections open now", this.http_connections.clone());
        let unread = this.http_answer_bytes.clone();
        registry.register("http_answer_bytes", "Bytes of larger answers that wait to be read", unread);
        let cut_off = this.http_cut_off.clone();
        registry.register("http_cut_off", "Connections ended because their clients overdid it", cut_off);
        registry.register("http_requests", "Requests answered", this.requests.clone());
        registry.register("actions", "Actions that policies asked for", this.actions.clone());
        registry.register("claims_opened", "Claims opened", this.claims_opened.clone());
        registry.register("claims_ended", "Claims ended", this.claims_ended.clone());
        let taken_over = this.claims_taken_over.clone();
        registry.register("claims_taken_over", "Claims taken over after their lease lapsed", taken_over);
        let foreign = this.foreign_claims.clone();
        let about = "Open claims of a kind or with a step that this version does not know, left alone";
        registry.register("claims_unknown", about, foreign);
        let unspent = this.claims_unspent.clone();
        registry.register("claims_unspent", "Open claims dropped without an end: a bug", unspent);
        registry.register("effects", "Deliveries of owed effects", this.effects.clone());
        registry.register("effects_due", "Effects owed now", this.effects_due.clone());
        let parked = this.effects_parked.clone();
        registry.register("effects_parked", "Effects parked for a person to look at", parked);
        let last = this.last_tick.clone();
        registry.register("loop_last_tick_timestamp_seconds", "When the last tick ended", last);
        registry.register("loop_tick_seconds", "How long the last tick took", this.tick_seconds.clone());
        registry.register("loop_failures", "Ticks that failed", this.ticks_failed.clone());
        registry.register(
            "loop_rows",
            "Rows that ticks looked at, by what became of them",
            this.swept.clone(),
        );
        let distrusted = this.distrusted.clone();
        registry.register("distrusted", "Pulses after which silence was reckoned anew", distrusted);
        registry.register("brake", "1 for the state that each brake is in", this.brake.clone());
        let strays = this.strays.clone();
        registry.register("stray_instances", "Boxes that no row names, by the registry they are of", strays);
        Self { registry, ..this }
    }
}

impl Metrics {
    /// The text that `GET /metrics` answers.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }

    /// A field of an agent's call that was not taken as it was said.
    pub(crate) fn not_taken(&self, call: &'static str, field: &'static str) {
        self.not_taken.get_or_create(&FieldLabels { call, field }).inc();
    }

    pub(crate) fn moved(&self, step: Move) {
        let labels =
            MovedLabels { from: step.from().as_str(), to: step.to().as_str(), cause: step.cause().as_str() };
        self.moved.get_or_create(&labels).inc();
    }

    pub(crate) fn outran(&self, cause: CauseKind) {
        self.outran.get_or_create(&CauseLabels { cause: cause.as_str() }).inc();
    }

    pub(crate) fn decided(&self, cause: CauseKind, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Moved { .. } => "moved",
            Outcome::Held { denials } if denials.is_empty() => "unchanged",
            Outcome::Held { .. } => "denied",
        };
        self.decided.get_or_create(&DecidedLabels { cause: cause.as_str(), outcome }).inc();
    }

    /// Counts a failure; how many of its kind this very module has had: a new one begins at 1.
    pub(crate) fn policy_failed(&self, by: &Bound, code: &str) -> u64 {
        let labels = FaultLabels { policy: by.policy.clone(), code: code.to_owned() };
        self.faults.get_or_create(&labels).inc();
        let mut seen = self.faults_of_modules.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= FAULTS_OF_MODULES {
            seen.clear();
        }
        let count = seen.entry((by.digest.clone(), code.to_owned())).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn asked(&self, asked: &Asked) {
        let fate = match &asked.fate {
            Fate::Owed => "owed",
            Fate::Waits { .. } => "waits",
            Fate::NotNow { .. } => "not_now",
            Fate::NotEntitled { .. } => "not_entitled",
        };
        self.actions.get_or_create(&ActionLabels { action: asked.action.name(), fate }).inc();
    }

    pub(crate) fn effect_delivered(&self, kind: &str, outcome: &'static str) {
        self.effects.get_or_create(&EffectLabels { kind: kind.to_owned(), outcome }).inc();
    }

    pub(crate) fn effects_waiting(&self, due: u64, parked: u64) {
        self.effects_due.set(i64::try_from(due).unwrap_or(i64::MAX));
        self.effects_parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }

    pub(crate) fn ticked(&self, r#loop: &'static str, took: Duration) {
        let labels = LoopLabels { r#loop };
        self.last_tick.get_or_create(&labels).set(clock::now() as f64 / 1e3);
        self.tick_seconds.get_or_create(&labels).set(took.as_secs_f64());
    }

    pub(crate) fn tick_failed(&self, r#loop: &'static str, outcome: &'static str) {
        self.ticks_failed.get_or_create(&LoopOutcomeLabels { r#loop, outcome }).inc();
    }

    pub(crate) fn swept(&self, r#loop: &'static str, outcome: &'static str, rows: u64) {
        if rows > 0 {
            self.swept.get_or_create(&LoopOutcomeLabels { r#loop, outcome }).inc_by(rows);
        }
    }

    /// Counts one; how many of its kind there are now.
    pub(crate) fn distrusted(&self, reason: &str) -> u64 {
        self.distrusted.get_or_create(&ReasonLabels { reason: reason.to_owned() }).inc() + 1
    }

    /// `state` is the one of `states` that the brake is in.
    pub(crate) fn brake(&self, scope: &str, state: &'static str, states: &[&'static str]) {
        for each in states {
            let labels = BrakeLabels { scope: scope.to_owned(), state: each };
            self.brake.get_or_create(&labels).set(i64::from(*each == state));
        }
    }

    /// How many boxes there are that no row names, by provider and whose they are.
    pub(crate) fn strays(&self, counts: Vec<(String, String, i64)>) {
        self.strays.clear();
        for (provider, registry, n) in counts {
            self.strays.get_or_create(&StrayLabels { provider, registry }).set(n);
        }
    }

    /// How many there are now; how many there were.
    pub(crate) fn foreign_claims(&self, now: u64) -> u64 {
        let before = self.foreign_claims.set(i64::try_from(now).unwrap_or(i64::MAX));
        u64::try_from(before).unwrap_or(0)
    }

    pub(crate) fn claim_opened(&self, kind: &str) {
        self.claims_opened.get_or_create(&ClaimLabels { kind: kind.to_owned() }).inc();
    }

    pub(crate) fn claim_ended(&self, kind: &str, state: &'static str) {
        self.claims_ended.get_or_create(&ClaimEndLabels { kind: kind.to_owned(), state }).inc();
    }

    /// Counts an answered request by its route's pattern, never by its path.
    pub fn answered(&self, route: &str, status: u16) {
        let labels = RequestLabels { route: route.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
    }
}
