//! A database's clock that is set, in either direction, by seconds or a month, while
//! a host runs or while none does. Nothing that was under way then is found later
//! than one window and one tick after it, and nobody goes down who lives.

mod killed;

use std::sync::Arc;

use futures::future::join_all;
use rstest::rstest;
use sprag::advance::Advanced;
use sprag::facts::{Command, CommandKind};
use sprag::loops::{BrakeConfig, LoopsConfig, Tally};
use sprag::machine::Status;
use sprag::provision::BoxState;
use sprag::store::{Backend, ClaimKind, Hold, NewClaim};

use super::provider::{Provider, Says};
use super::{MINUTE, SECOND, Watch, beat, boxed, fleet, set, status};
use crate::support::fleet::{Fleet, Made};

const HOUR: u64 = 60 * MINUTE;
const MONTH: u64 = 30 * 24 * HOUR;

/// A clock that is off by more has jumped; time passes in smaller steps.
const JUMP: u64 = 9 * SECOND;
const STEP: u64 = 8 * SECOND;

/// How far each thing had come when the clock was set.
const BEFORE: u64 = 56 * SECOND;

/// After this long loops tick at longer strides: only what takes minutes is left.
const SOON: u64 = 2 * MINUTE + STEP;
const STRIDE: u64 = 8 * STEP;

/// What the longest may take.
const LONGEST: u64 = 16 * MINUTE;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Back,
    Ahead,
    /// And right again, half a minute later.
    AheadAndBack,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Host {
    Runs,
    /// It was killed before, and there is another after.
    IsAnother,
    /// It stopped in good order before, and there is another after.
    Left,
}

/// Restarts that are owed are put away before the outbox's turn.
const LOOPS: [&str; 8] =
    ["outbox", "census", "silence", "instances", "provisioning", "idle", "claims", "down"];

/// A fleet in the middle of everything.
struct World {
    fleet: Arc<Fleet>,
    provider: Arc<Provider>,
    watch: Watch,
    /// It lives, and says so.
    alive: Made,
    silent: Made,
    booting: Made,
    idles: Made,
    down: Made,
    claimed: Made,
    /// Milliseconds since the clock was set first.
    since: u64,
    /// Questions to the provider until then.
    asked: usize,
}

impl World {
    async fn new(backend: Backend) -> Self {
        let fleet = fleet(backend).await;
        let [silent, idles, alive, claimed] = [
            boxed(&fleet, "claude-code", Status::Online).await,
            boxed(&fleet, "claude-code", Status::Online).await,
            boxed(&fleet, "claude-code", Status::Online).await,
            boxed(&fleet, "claude-code", Status::Online).await,
        ];
        let booting = boxed(&fleet, "claude-code", Status::Provisioning).await;
        let down = boxed(&fleet, "claude-code", Status::Offline).await;
        let provider = Arc::new(Provider::default());
        provider.says(Says::Is(BoxState::Running));
        let watch = host(&fleet, &provider).await;
        let (since, asked) = (0, 0);
        let world =
            Self { fleet, provider, watch, alive, silent, booting, idles, down, claimed, since, asked };
        world.begin().await
    }

    /// Everything is under way for a while.
    async fn begin(mut self) -> Self {
        let now = "(SELECT now FROM clock)";
        set(&self.fleet, &self.idles.id, &format!("hibernation_idle_minutes = 10, busy_at = {now}")).await;
        // No box that an instances loop could ask about.
        set(&self.fleet, &self.booting.id, "instance_id = NULL").await;
        let ago = format!("{now} - {}", 2 * MINUTE);
        let long = format!("status_since = {ago}, last_heartbeat_at = {ago}");
        set(&self.fleet, &self.down.id, &long).await;
        // What was before the first pulse is no matter here.
        self.fleet.db.sql("UPDATE fleet SET trusted_from = 0").await;
        for _ in 0..BEFORE / STEP {
            self.step(true).await;
        }
        assert_eq!(self.restarts().await, 1, "recovery has asked for the one that is down");
        self.owe().await;
        (self.since, self.asked) = (0, self.provider.asked().len());
        self
    }

    /// A claim whose holder is dead, a stop that is owed, a brake that holds, and a host that is lost.
    async fn owe(&self) {
        let claim = NewClaim {
            id: "0192-dead".to_owned(),
            kind: ClaimKind::Restart,
            actor: "operator".to_owned(),
            parent: None,
            owner: "dead".to_owned(),
            lease_ms: 2 * SECOND,
            target_provider: None,
        };
        let restart = Command { command: CommandKind::Restart, ..Command::remove() };
        let opened = self.fleet.advance.command(&self.claimed.id, &restart, &claim, None, &|_| Ok(())).await;
        assert!(matches!(opened, Ok(Advanced::Moved { .. })), "{opened:?}");
        let body = r#"{"provider": "process", "instance_id": "box-left"}"#;
        let owed = format!(
            "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
            SELECT 'owed', '{}', 'stop', '{body}', 'due', now, now FROM clock;
            INSERT INTO brakes (scope, state, since, over_at)
            SELECT 'provider:black', 'held', now, now FROM clock;
            INSERT INTO hosts (id, name, started_at, seen_at) SELECT 'lost', 'lost', now, now FROM clock",
            self.alive.id
        );
        self.fleet.db.sql(&owed).await;
    }

    /// One step of time, in which every loop ticks, or only the host's heart beats.
    async fn step(&mut self, ticks: bool) {
        self.fleet.db.sql(&format!("UPDATE test_clock SET now = now + {STEP}")).await;
        self.since += STEP;
        self.watch.tick("pulse").await;
        if ticks {
            self.tick().await;
        }
    }

    /// Whoever lives says so, and every loop ticks.
    async fn tick(&self) {
        beat(&self.fleet, &self.alive).await;
        if status(&self.fleet, &self.idles).await == Status::Online {
            beat(&self.fleet, &self.idles).await;
        }
        // What is asked for is enough here: it stays down.
        self.fleet.db.sql("UPDATE outbox SET state = 'parked' WHERE kind = 'restart'").await;
        for name in LOOPS {
            self.watch.tick(name).await;
        }
    }

    /// Sets the clock. A host that runs has its loops tick before its heart beats, at the worst.
    async fn jump(&mut self, ms: i64, became: Host) {
        if became == Host::Left {
            self.fleet.db.sql("DELETE FROM hosts").await;
        }
        self.fleet.db.sql(&format!("UPDATE test_clock SET now = now + {ms}")).await;
        match became {
            Host::Runs => {
                self.tick().await;
                self.watch.tick("pulse").await;
            }
            Host::IsAnother | Host::Left => self.watch = host(&self.fleet, &self.provider).await,
        }
    }

    async fn restarts(&self) -> i64 {
        let restarts = "SELECT COUNT(*) FROM outbox WHERE kind = 'restart' AND workspace_id";
        self.fleet.db.number(&format!("{restarts} = '{}'", self.down.id)).await
    }

    /// Whether the thing that this loop is there for has happened.
    async fn seen(&self, of: &str) -> bool {
        let fleet = &self.fleet;
        match of {
            "silence" => status(fleet, &self.silent).await == Status::Offline,
            "provisioning" => status(fleet, &self.booting).await == Status::Failed,
            "idle" => status(fleet, &self.idles).await == Status::Hibernated,
            "instances" => {
                let asked = self.provider.asked();
                asked.iter().skip(self.asked).any(|question| question.workspace == self.alive.id)
            }
            "down" => self.restarts().await > 1,
            "claims" => fleet.row(&self.claimed.id).await.claim_id.is_none(),
            "outbox" => self.provider.stopped().iter().any(|stopped| stopped == "box-left"),
            "brake" => {
                let held = "SELECT COUNT(*) FROM brakes WHERE scope = 'provider:black' AND state = 'held'";
                fleet.db.number(held).await == 0
            }
            "hosts" => fleet.db.number("SELECT COUNT(*) FROM hosts WHERE id = 'lost'").await == 0,
            other => panic!("{other}"),
        }
    }
}

/// A host that has pulsed once.
async fn host(fleet: &Fleet, provider: &Arc<Provider>) -> Watch {
    let brake = BrakeConfig {
        number: 1_000_000,
        slow_ms: HOUR,
        stall_ms: JUMP,
        jump_ms: JUMP,
        // It is forgotten as soon as it is missed: here it makes for no distrust.
        lost_ms: 30 * SECOND,
        forget_ms: 30 * SECOND,
        ..BrakeConfig::default()
    };
    let (path, config) = (fleet.advance.clone(), LoopsConfig::default());
    let watch = Watch::with(fleet, path, provider.clone(), "host", config, brake);
    watch.tick("pulse").await;
    watch
}

/// When it must happen, in milliseconds after the clock was set: not before, and not after.
struct Bound {
    of: &'static str,
    earliest: u64,
    latest: u64,
}

/// What each loop may take, all of them: its window from the jump, its own interval, and a stride.
fn bounds(way: Way, by_ms: u64, became: Host) -> Vec<Bound> {
    let twice = if way == Way::AheadAndBack { 4 * STEP } else { 0 };
    let bound = |of, earliest, latest| Bound { of, earliest, latest: latest + twice };
    // A clock that nobody watched while it was set ahead is one that ran: as if it had been so long.
    let unseen = way == Way::Ahead && became != Host::Runs;
    let (since, grace) = (10 * MINUTE - BEFORE, if unseen { MINUTE } else { 10 * MINUTE - BEFORE });
    let window = 5 * MINUTE;
    let mut all = vec![
        bound("silence", if unseen { 0 } else { 90 * SECOND - BEFORE }, 90 * SECOND + 15 * SECOND + 2 * STEP),
        bound("provisioning", since.min(grace), 10 * MINUTE + 30 * SECOND + 2 * STRIDE),
        bound("idle", since.min(grace), 10 * MINUTE + 2 * MINUTE + 2 * STRIDE),
        bound("instances", 0, MINUTE + MINUTE + 2 * STRIDE),
        bound("claims", 0, 15 * SECOND + 2 * STEP),
        bound("outbox", 0, STEP),
        bound(
            "brake",
            if way != Way::Back && became != Host::Runs { 0 } else { window - STEP },
            window + 30 * SECOND + 2 * STRIDE,
        ),
        bound("hosts", 0, 30 * SECOND + 15 * SECOND + 2 * STEP),
    ];
    // After a day recovery gives it up, and so long it has been as far as anybody knows.
    if !(unseen && by_ms >= MONTH) {
        all.push(bound("down", 0, MINUTE + MINUTE + MINUTE + 2 * STRIDE));
    }
    all
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_is_found_within_one_window(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(Way::Back, Way::Ahead)] way: Way,
    #[values(10 * SECOND, HOUR, MONTH)] by_ms: u64,
) {
    holds(backend, way, by_ms, Host::Runs).await;
}

#[rstest]
#[case::there_and_back(Way::AheadAndBack, MONTH, Host::Runs)]
#[case::there_and_back_unseen(Way::AheadAndBack, MONTH, Host::IsAnother)]
#[case::nobody_ran(Way::Back, HOUR, Host::Left)]
#[case::back_unseen_a_little(Way::Back, 10 * SECOND, Host::IsAnother)]
#[case::back_unseen(Way::Back, MONTH, Host::IsAnother)]
#[case::ahead_unseen(Way::Ahead, MONTH, Host::IsAnother)]
#[tokio::test(flavor = "multi_thread")]
async fn and_so_it_is_when(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[case] way: Way,
    #[case] by_ms: u64,
    #[case] host: Host,
) {
    holds(backend, way, by_ms, host).await;
}

async fn holds(backend: Backend, way: Way, by_ms: u64, became: Host) {
    let mut world = World::new(backend).await;
    let by = by_ms.cast_signed();
    world.jump(if way == Way::Back { -by } else { by }, became).await;
    let (mut waits, mut wrong) = (bounds(way, by_ms, became), Vec::new());
    while world.since <= LONGEST && !waits.is_empty() {
        if way == Way::AheadAndBack && world.since == 4 * STEP {
            world.jump(-by, became).await;
        }
        world.step(world.since < SOON || world.since.is_multiple_of(STRIDE)).await;
        let mut still = Vec::new();
        for bound in waits {
            if !world.seen(bound.of).await {
                still.push(bound);
            } else if !(bound.earliest..=bound.latest).contains(&world.since) {
                let Bound { of, earliest, latest } = bound;
                wrong.push(format!("{of}: after {} ms, not {earliest} to {latest}", world.since));
            }
        }
        waits = still;
    }
    wrong.extend(waits.iter().map(|bound| format!("{}: never, in {LONGEST} ms", bound.of)));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(status(&world.fleet, &world.alive).await, Status::Online, "whoever lives stays up");
}

/// A host that lives keeps its claim when the clock is set ahead: no other takes it over,
/// before its heart beats and after, and it renews its lease.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_ahead_ends_no_lease_of_who_lives(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(10 * SECOND, MONTH)] by_ms: u64,
) {
    let world = World::new(backend).await;
    world.fleet.db.sql(&format!("UPDATE test_clock SET now = now + {by_ms}")).await;
    let taken = world.watch.tick("claims").await;
    assert_eq!((taken.looked, taken.skipped.get("clock-jumped")), (0, Some(&1)), "{taken:?}");
    world.watch.tick("pulse").await;
    assert_eq!(world.watch.tick("claims").await, Tally::default());
    let claim = world.fleet.store.claim("0192-dead").await.expect("reading").expect("a claim");
    let hold = Hold { claim_id: claim.id, workspace_id: claim.workspace_id, epoch: claim.epoch };
    assert!(
        world.fleet.store.renew_claim(&hold, 15 * SECOND).await.expect("renewing"),
        "it is still its own"
    );
}

/// Of hosts that all find it, one has times reckoned anew: one event, and a stop that is
/// owed later keeps its distance.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_jump_is_reckoned_with_once(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(-1, 1)] sign: i64,
) {
    let fleet = fleet(backend).await;
    let made = boxed(&fleet, "claude-code", Status::Paused).await;
    let provider = Arc::new(Provider::default());
    let mut hosts = Vec::new();
    for name in ["one", "two", "three", "four"] {
        let brake = BrakeConfig { slow_ms: HOUR, stall_ms: HOUR, jump_ms: JUMP, ..BrakeConfig::default() };
        let (path, config) = (fleet.advance.clone(), LoopsConfig::default());
        let watch = Watch::with(&fleet, path, provider.clone(), name, config, brake);
        watch.tick("pulse").await;
        hosts.push(watch);
    }
    let later = 20 * MINUTE;
    let owed = format!(
        "INSERT INTO outbox (id, workspace_id, kind, body, state, due_at, created_at)
        SELECT 'owed', '{}', 'stop', '{{}}', 'due', now + {later}, now FROM clock",
        made.id
    );
    fleet.db.sql(&owed).await;
    let by = sign * HOUR.cast_signed();
    fleet.db.sql(&format!("UPDATE test_clock SET now = now + {by}")).await;
    for _ in 0..2 {
        join_all(hosts.iter().map(|host| host.tick("pulse"))).await;
    }
    let events =
        "SELECT COUNT(*) FROM events WHERE type = 'REGISTRY_DISTRUSTED' AND reason_code = 'clock-jumped'";
    assert_eq!(fleet.db.number(events).await, 1);
    let due = "SELECT due_at - (SELECT now FROM clock) FROM outbox WHERE id = 'owed'";
    let due = fleet.db.number(due).await;
    let off = (due - later.cast_signed()).abs();
    // Set ahead it is due at once; set back it is shifted, to what a pulse may take.
    assert!(if sign > 0 { due < 0 } else { off < 60 * SECOND.cast_signed() }, "{due} ms from now");
}

/// A clock that says something else by less than a jump makes no row old and none new.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_small_step_back_takes_nobody_down(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let mut world = World::new(backend).await;
    let long = format!("status_since = (SELECT now FROM clock) - {HOUR}");
    set(&world.fleet, &world.alive.id, &long).await;
    for _ in 0..3 {
        world.fleet.db.sql("UPDATE test_clock SET now = now - 5000").await;
        set(&world.fleet, &world.alive.id, "silence_at = 0").await;
        world.watch.tick("silence").await;
        world.watch.tick("pulse").await;
        let row = world.fleet.row(&world.alive.id).await.workspace;
        let now = u64::try_from(world.fleet.db.number("SELECT now FROM clock").await).expect("a time");
        assert!(row.last_heartbeat_at.is_some_and(|at| at <= now), "{row:?} at {now}");
        assert_eq!(row.status, Status::Online);
    }
    // Together they are one.
    assert!(world.fleet.db.number("SELECT clock_from FROM fleet").await > 0);
    world.step(true).await;
    assert_eq!(status(&world.fleet, &world.alive).await, Status::Online);
}
