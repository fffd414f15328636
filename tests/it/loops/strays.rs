//! Boxes that run and that no row names: which are shown, which are stopped, when,
//! how many, and which never.

mod holds;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use rstest::rstest;
use sprag::loops::{BrakeConfig, LoopsConfig, Tally};
use sprag::machine::Status;
use sprag::provision::Fence;
use sprag::store::{Backend, BrakeState, STRAYS, Stray, StrayTaken, Whose};

use super::provider::Provider;
use super::{MINUTE, PROVIDER, SECOND, Watch, fleet, pass, patient, set};
use crate::support::fleet::{Fleet, Made};

const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// As they are by default.
const GRACE: u64 = HOUR;
const QUIET: u64 = 6 * HOUR;

/// A registry, its hosts, and what its provider runs.
struct Stage {
    fleet: Arc<Fleet>,
    provider: Arc<Provider>,
    hosts: Vec<Watch>,
    /// The registry's identity.
    own: String,
}

impl Stage {
    async fn new(backend: Backend) -> Self {
        Self::of(backend, 1, &LoopsConfig::default(), &patient()).await
    }

    async fn of(backend: Backend, hosts: usize, config: &LoopsConfig, brake: &BrakeConfig) -> Self {
        let (fleet, provider) = (fleet(backend).await, Arc::new(Provider::default()));
        let own = fleet.store.registry_id().await.expect("an identity");
        let mut stage = Self { fleet, provider, hosts: Vec::new(), own };
        for n in 0..hosts {
            stage.host(&format!("host-{n}"), config, brake).await;
        }
        stage
    }

    /// One more host, that has pulsed.
    async fn host(&mut self, name: &str, config: &LoopsConfig, brake: &BrakeConfig) {
        let (path, provider) = (self.fleet.advance.clone(), self.provider.clone());
        let watch = Watch::with(&self.fleet, path, provider, name, config.clone(), brake.clone());
        watch.tick("pulse").await;
        self.hosts.push(watch);
    }

    /// A row whose newest claim was the `epoch`th, and which names that one's box.
    async fn row(&self, epoch: u64) -> Made {
        let made = self.fleet.workspace("workspace", "claude-code", Status::Online).await;
        let instance = named(&made, epoch);
        set(&self.fleet, &made.id, &format!("instance_id = '{instance}', claim_epoch = {epoch}")).await;
        made
    }

    /// It runs the box that this epoch's claim of the row has started.
    fn runs(&self, made: &Made, epoch: u64) -> String {
        let instance = named(made, epoch);
        self.provider.runs(&made.id, &instance, Some(&self.own));
        instance
    }

    async fn tick(&self) -> Tally {
        self.hosts[0].tick("strays").await
    }

    /// So much time passes, its hosts live on, and then the loop ticks.
    async fn after(&self, millis: u64) -> Tally {
        pass(&self.fleet, millis).await;
        self.hosts[0].tick("pulse").await;
        let tally = self.tick().await;
        assert!(!tally.skipped.contains_key("clock-jumped"), "{tally:?}");
        tally
    }

    async fn strays(&self) -> Vec<Stray> {
        self.fleet.store.strays("", 1_000).await.expect("reading")
    }

    async fn events(&self, kind: &str) -> i64 {
        self.fleet.db.number(&format!("SELECT COUNT(*) FROM events WHERE type = '{kind}'")).await
    }

    async fn brake(&self, scope: &str) -> Option<(BrakeState, u64)> {
        let brakes = self.fleet.store.brakes(&patient().limits()).await.expect("reading");
        brakes.into_iter().find(|brake| brake.scope == scope).map(|brake| (brake.state, brake.flips))
    }
}

fn named(made: &Made, epoch: u64) -> String {
    format!("{}-e{epoch}", made.id)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_ours_is_stopped_and_only_after_its_grace(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    pass(&stage.fleet, QUIET).await;
    let made = stage.row(5).await;
    stage.runs(&made, 5);
    let stray = stage.runs(&made, 3);
    let others = [("x-e1", Some("another-registry")), ("y-e1", None)];
    for (instance, registry) in others {
        stage.provider.runs(&instance[..1], instance, registry);
    }
    // It carries our identity, and a name that we never give.
    stage.provider.runs(&made.id, "box-1", Some(&stage.own));
    let tally = stage.tick().await;
    assert_eq!((tally.looked, tally.flipped, tally.skipped["named"], tally.skipped["found"]), (5, 0, 1, 4));
    let found = stage.strays().await;
    let shown: Vec<_> = found.iter().map(|s| (&*s.instance_id, s.whose, &*s.why)).collect();
    let expected = [
        (&*stray, Whose::Own, "not-named"),
        ("box-1", Whose::Own, "not-named"),
        ("x-e1", Whose::Other, "unknown-workspace"),
        ("y-e1", Whose::None, "unknown-workspace"),
    ];
    assert_eq!(shown.iter().collect::<BTreeSet<_>>(), expected.iter().collect::<BTreeSet<_>>());
    let stops = found.iter().filter(|s| s.stops_at(GRACE, QUIET).is_some()).count();
    assert_eq!(stops, 1, "one of them may ever be stopped");

    assert_eq!(stage.after(GRACE - SECOND).await.flipped, 0);
    assert_eq!(stage.provider.stopped(), Vec::<String>::new());
    assert_eq!(stage.after(MINUTE).await.flipped, 1);
    assert_eq!(stage.provider.stopped(), [&*stray]);
    assert_eq!((stage.events("STRAY_FOUND").await, stage.events("STRAY_STOPPED").await), (2, 1));
    let of_row = stage.fleet.events(&made.id).await;
    assert!(of_row.iter().any(|event| event.event_type == "STRAY_STOPPED"), "{of_row:#?}");

    for _ in 0..3 {
        assert_eq!(stage.after(WEEK).await.flipped, 0);
    }
    assert_eq!(stage.provider.stopped(), [stray], "the others are only shown");
    assert_eq!(stage.strays().await.len(), 3);
    assert_eq!(stage.fleet.row(&made.id).await.workspace.instance_id, Some(named(&made, 5)));
}

/// A new database beside boxes of one that was lost: they are another registry's, or
/// nobody's, and stay. Its own it stops only when its first hours are over.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_stops_nothing_in_its_first_hours(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    for n in 0..20 {
        let registry = (n % 2 == 0).then_some("the-one-that-was-lost");
        stage.provider.runs(&format!("lost-{n}"), &format!("lost-{n}-e1"), registry);
    }
    let made = stage.row(2).await;
    let stray = stage.runs(&made, 1);
    assert_eq!(stage.tick().await.skipped["found"], 21);
    for _ in 0..5 {
        assert_eq!(stage.after(HOUR).await.flipped, 0);
    }
    assert_eq!(stage.after(HOUR - SECOND).await.flipped, 0, "its grace is over, the first hours are not");
    assert_eq!(stage.after(MINUTE).await.flipped, 1);
    assert_eq!(stage.after(WEEK).await.flipped, 0);
    assert_eq!(stage.provider.stopped(), [stray]);
    assert_eq!(stage.events("STRAY_FOUND").await, 1, "of what is another's there is no event");
}

/// An older copy of the database: its boxes are newer than its rows, or of workspaces
/// that it has never seen.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_stops_nothing_for_hours(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    pass(&stage.fleet, WEEK).await;
    let made = stage.row(2).await;
    let newer = stage.runs(&made, 5);
    let unknown = Made { id: uuid::Uuid::now_v7().to_string(), token: made.token };
    let lost = stage.runs(&unknown, 1);
    stage.provider.accepted(&made.id, Fence { epoch: 5, seq: 9 });
    stage.provider.accepted(&unknown.id, Fence { epoch: 1, seq: 7 });
    stage.tick().await;
    let mut why: Vec<_> = stage.strays().await.into_iter().map(|stray| stray.why).collect();
    why.sort();
    assert_eq!(why, ["newer-than-row", "unknown-workspace"]);
    let epoch = format!("SELECT claim_epoch FROM workspaces WHERE id = '{}'", made.id);
    assert_eq!(stage.fleet.db.number(&epoch).await, 5, "what it starts next has a name that is not taken");

    assert_eq!(stage.after(5 * HOUR).await.flipped, 0);
    // Somebody goes on with our identity: it is a copy, and theirs is newer.
    let theirs = stage.runs(&made, 6);
    assert_eq!(stage.after(MINUTE).await.skipped["found"], 1);
    assert_eq!(stage.after(5 * HOUR).await.flipped, 0, "it counts from there");
    assert_eq!(stage.after(HOUR - SECOND).await.flipped, 0);
    assert_eq!(stage.after(MINUTE).await.flipped, 3);
    let mut stopped = stage.provider.stopped();
    stopped.sort();
    let mut all = [lost, newer, theirs];
    all.sort();
    assert_eq!(stopped, all);
    let fenced: Vec<_> =
        stage.provider.stop_calls().into_iter().map(|call| (call.workspace_id, call.fence)).collect();
    let last = fenced.iter().rev().find(|(id, _)| *id == unknown.id).expect("a call");
    assert_eq!(last.1, Fence { epoch: 1, seq: 8 }, "newer than what was accepted, and no more");
}

/// A host that starts on a database that nobody has used for long does not know
/// whether it is an older copy.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_times_lie_far_back_may_be_a_copy(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(30 * MINUTE, DAY)] off: u64,
) {
    let mut stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    stage.tick().await;
    pass(&stage.fleet, QUIET).await;
    stage.hosts[0].tick("pulse").await;
    stage.hosts.clear();
    pass(&stage.fleet, off).await;
    stage.host("host-1", &LoopsConfig::default(), &patient()).await;
    let stopped = stage.tick().await.flipped;
    assert_eq!(stopped, u64::from(off < HOUR));
    if off > HOUR {
        assert_eq!(stage.after(QUIET - SECOND).await.flipped, 0);
        assert_eq!(stage.after(MINUTE).await.flipped, 1);
    }
}

/// Hours in which a stray may be stopped, from the beginning.
async fn soon(stage: &Stage) {
    pass(&stage.fleet, QUIET).await;
    stage.tick().await;
    pass(&stage.fleet, GRACE).await;
}

/// What is let pass is stopped however long that takes, and counted once.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_fails_is_tried_again(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    let stray = stage.runs(&made, 1);
    soon(&stage).await;
    stage.provider.stops(false);
    for attempts in 1..=3 {
        assert_eq!(stage.after(MINUTE).await.skipped["not-stopped"], 1);
        let known = stage.strays().await;
        assert_eq!((known[0].attempts, known[0].stopping), (attempts, true));
        assert!(known[0].last_error.as_deref().is_some_and(|error| error.contains("told to")), "{known:?}");
    }
    stage.provider.stops(true);
    assert_eq!(stage.after(MINUTE).await.flipped, 1);
    assert_eq!(stage.provider.stopped(), [stray]);
    assert_eq!(stage.brake(STRAYS).await, Some((BrakeState::Free, 1)));
    let mut keys: Vec<_> = stage.provider.stop_calls().into_iter().map(|call| call.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 4, "a refusal finishes its key, and must not be the last word");
}

/// A provider that does not say what it runs is no evidence: nothing is found by it,
/// nothing forgotten, and nothing stopped.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_no_evidence(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    soon(&stage).await;
    let lists = stage.provider.lists(None);
    let tally = stage.tick().await;
    assert_eq!((tally.flipped, tally.skipped["provider-error"]), (0, 1));
    assert_eq!(stage.strays().await.len(), 1);
    stage.provider.lists(lists);
    assert_eq!(stage.after(MINUTE).await.flipped, 1);
}

/// One that is gone from its list and comes back has its whole grace again.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_that_is_gone_is_forgotten(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    soon(&stage).await;
    let lists = stage.provider.lists(Some(Vec::new()));
    assert_eq!(stage.tick().await.skipped["gone"], 1);
    assert_eq!(stage.strays().await, []);
    stage.provider.lists(lists);
    assert_eq!(stage.after(MINUTE).await.skipped["found"], 1);
    assert_eq!(stage.after(GRACE - SECOND).await.flipped, 0);
    assert_eq!(stage.after(MINUTE).await.flipped, 1);
}

/// Two names for one place, as where a provider was given another name: what rows of
/// the one name, the other lists as well.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_its_row_s_at_whatever_provider(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let (made, left) = (stage.row(2).await, stage.row(2).await);
    for made in [&made, &left] {
        set(&stage.fleet, &made.id, "provider = 'as-it-was-called'").await;
        stage.runs(made, 2);
    }
    let owed = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
        SELECT 'owed', '{0}', 'stop', '{{\"provider\": \"as-it-was-called\", \"instance_id\": \"{1}\"}}',
            'due', now + 1000000, now FROM clock",
        left.id,
        named(&left, 2)
    );
    stage.fleet.db.sql(&owed).await;
    set(&stage.fleet, &left.id, "instance_id = NULL").await;
    let tally = stage.tick().await;
    assert_eq!((tally.skipped["named"], tally.skipped["owed"]), (1, 1));
    assert_eq!(stage.strays().await, []);
}

/// However much another registry runs here, ours has room.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_others_hides_none_of_ours(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    for n in 0..10_050 {
        stage.provider.runs(&format!("theirs-{n}"), &format!("theirs-{n}-e1"), Some("another"));
    }
    let made = stage.row(2).await;
    let tally = stage.tick().await;
    assert_eq!((tally.skipped["found"], tally.skipped["too-many"]), (10_000, 50));
    stage.runs(&made, 1);
    assert_eq!(stage.after(MINUTE).await.skipped["found"], 1);
}

/// Whose stop is owed is no stray, until somebody drops what is owed.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_owed_a_stop_is_no_stray(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    let left = stage.runs(&made, 1);
    let owed = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
        SELECT 'owed', '{}', 'stop', '{{\"provider\": \"{PROVIDER}\", \"instance_id\": \"{left}\"}}', 'due',
            now + 1000000, now FROM clock",
        made.id
    );
    stage.fleet.db.sql(&owed).await;
    assert_eq!(stage.tick().await.skipped["owed"], 1);
    assert_eq!(stage.strays().await, []);
    stage.fleet.store.drop_effect("owed").await.expect("dropping");
    assert_eq!(stage.after(MINUTE).await.skipped["found"], 1);
}

/// A claim that is open may name any of its boxes, and so may its end.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_start_under_way_is_no_stray(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let made = stage.row(1).await;
    soon(&stage).await;
    stage.runs(&made, 2);
    stage.fleet.db.sql("UPDATE fleet SET strays_at = 0").await;
    set(&stage.fleet, &made.id, "claim_id = 'open', claim_epoch = 2, instance_id = NULL").await;
    assert_eq!(stage.tick().await.skipped.get("found"), None, "its claim is open");
    // It ends while the provider answers.
    let (fleet, id, instance) = (stage.fleet.clone(), made.id.clone(), named(&made, 2));
    stage.provider.whilst(move |_| {
        let (fleet, id, instance) = (fleet.clone(), id.clone(), instance.clone());
        async move { set(&fleet, &id, &format!("claim_id = NULL, instance_id = '{instance}'")).await }
    });
    assert_eq!(stage.after(MINUTE).await.skipped.get("found"), None, "its row names it");
    assert_eq!(stage.strays().await, []);
}

/// A box that a command stops while the provider answers was listed, and has no name when
/// the rows are read.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_way_is_no_stray(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    stage.runs(&made, 2);
    let (fleet, provider, id) = (stage.fleet.clone(), Arc::downgrade(&stage.provider), made.id.clone());
    stage.provider.whilst(move |_| {
        let (fleet, provider, id) = (fleet.clone(), provider.clone(), id.clone());
        async move {
            set(&fleet, &id, "instance_id = NULL").await;
            provider.upgrade().expect("a provider").lists(Some(Vec::new()));
        }
    });
    assert_eq!(stage.tick().await.skipped.get("found"), None);
    assert_eq!((stage.strays().await, stage.events("STRAY_FOUND").await), (Vec::new(), 0));
}

/// What was found is looked at once more when it is its turn.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_opens_meanwhile_keeps_it(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let stage = Stage::new(backend).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    soon(&stage).await;
    let due = stage.fleet.store.due_strays(GRACE, QUIET, 10).await.expect("reading");
    set(&stage.fleet, &made.id, "claim_id = 'open'").await;
    let limits = patient().limits();
    let taken = stage.fleet.store.take_stray(&due[0], GRACE, QUIET, &limits).await.expect("taking");
    assert_eq!(taken, StrayTaken::No);
}

/// Shown, and nothing more, where that is wanted.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn stopping_can_be_left_to_people(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let config = LoopsConfig { strays_stop: false, ..LoopsConfig::default() };
    let stage = Stage::of(backend, 1, &config, &patient()).await;
    let made = stage.row(2).await;
    stage.runs(&made, 1);
    soon(&stage).await;
    assert_eq!(stage.after(WEEK).await.flipped, 0);
    assert_eq!(stage.strays().await.len(), 1);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_identity_is_made_once(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let fleet = fleet(backend).await;
    let stores: Vec<_> = (0..8).map(|_| fleet.store.clone()).collect();
    let made = join_all(stores.iter().map(|store| store.registry_id())).await;
    let made: BTreeSet<_> = made.into_iter().map(|id| id.expect("an identity")).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let other = super::fleet(backend).await;
    assert!(!made.contains(&other.store.registry_id().await.expect("an identity")));
}
