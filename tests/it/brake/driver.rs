//! What runs a loop survives whatever the loop does.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rstest::rstest;
use serde_json::json;
use sprag::loops::{Driver, Tally, Tick};
use sprag::store::{Backend, StoreError};
use tokio_util::sync::CancellationToken;

use super::{Scene, until};

/// What a tick does; when there is no more of it, nothing.
#[derive(Clone, Copy)]
enum Act {
    Panic,
    Fail,
    Hang,
    More,
}

/// A loop that does as it is told.
struct Told {
    every: Duration,
    most_pause: Duration,
    acts: Mutex<VecDeque<Act>>,
    began: Mutex<Vec<Instant>>,
    cut_off: AtomicUsize,
}

impl Told {
    fn of(every: Duration, acts: &[Act]) -> Arc<Self> {
        Arc::new(Self {
            every,
            most_pause: Duration::from_secs(30),
            acts: Mutex::new(acts.iter().copied().collect()),
            began: Mutex::default(),
            cut_off: AtomicUsize::new(0),
        })
    }

    fn ticks(&self) -> usize {
        self.began.lock().expect("ticks").len()
    }

    /// From each tick's beginning to the next one's.
    fn gaps(&self) -> Vec<Duration> {
        self.began.lock().expect("ticks").windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// Counts that it was dropped.
struct CutOff<'a>(&'a AtomicUsize);

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Tick for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn every(&self) -> Duration {
        self.every
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(60)
    }

    fn most_pause(&self) -> Duration {
        self.most_pause
    }

    fn tick(&self) -> BoxFuture<'_, Result<Tally, StoreError>> {
        self.began.lock().expect("ticks").push(Instant::now());
        let act = self.acts.lock().expect("acts").pop_front();
        Box::pin(async move {
            match act {
                Some(Act::Panic) => panic!("told to"),
                Some(Act::Fail) => Err(StoreError::Statement(sqlx::Error::RowNotFound)),
                Some(Act::Hang) => {
                    let _cut_off = CutOff(&self.cut_off);
                    std::future::pending().await
                }
                Some(Act::More) => Ok(Tally { looked: 7, more: true, ..Tally::default() }),
                None => Ok(Tally::default()),
            }
        })
    }
}

fn driver(told: &Arc<Told>) -> Arc<Driver> {
    Arc::new(Driver::new(told.clone(), Arc::default()))
}

/// Runs it until it has ticked so often.
async fn run(driver: &Arc<Driver>, told: &Told, ticks: usize) {
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.clone().run(stop.clone()));
    until("it has ticked", async || told.ticks() >= ticks).await;
    stop.cancel();
    running.await.expect("it ends");
}

const EVERY: Duration = Duration::from_millis(40);

#[tokio::test]
async fn what_fails_is_counted_and_tried_again_after_a_pause_that_grows() {
    let told = Told::of(EVERY, &[Act::Panic, Act::Fail, Act::Hang]);
    let driver = driver(&told);
    // Whoever fails is not woken into failing faster.
    let (wake, over) = (driver.waker(), CancellationToken::new());
    let waking = tokio::spawn({
        let over = over.clone();
        async move {
            while !over.is_cancelled() {
                wake.notify_one();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    run(&driver, &told, 5).await;
    over.cancel();
    waking.await.expect("it ends");
    let gaps = told.gaps();
    assert!(gaps[0] >= EVERY * 2 && gaps[1] >= EVERY * 4 && gaps[2] >= EVERY * 8, "{gaps:?}");
    let report = driver.report();
    assert_eq!((report.failures, report.panics, report.failures_in_a_row), (3, 1, 0));
    assert_eq!((report.last_error, told.cut_off.load(Ordering::SeqCst)), (None, 1));
}

#[tokio::test]
async fn the_pause_has_an_end() {
    let told =
        Told { most_pause: EVERY * 2, ..Arc::into_inner(Told::of(EVERY, &[Act::Panic; 6])).expect("one") };
    let told = Arc::new(told);
    let begun = Instant::now();
    run(&driver(&told), &told, 7).await;
    // Were it doubled each time, the sixth alone would be of 64.
    assert!(begun.elapsed() < EVERY * 64, "{:?}", told.gaps());
}

#[rstest]
#[case::panics(Act::Panic, "panicked", 3)]
#[case::fails(Act::Fail, "no rows", 0)]
#[case::hangs(Act::Hang, "longer than 60 ms", 0)]
#[tokio::test]
async fn three_in_a_row_and_it_is_stuck(#[case] act: Act, #[case] error: &str, #[case] panics: u64) {
    let told = Told::of(EVERY, &[act; 3]);
    let driver = driver(&told);
    for failures in 1..=3 {
        assert_eq!(driver.report().stuck(), None);
        driver.once().await.expect_err("it fails");
        assert_eq!(driver.report().failures_in_a_row, failures);
    }
    let stuck = driver.report().stuck().expect("it is stuck");
    assert!(stuck == "told: 3 failures in a row", "{stuck}");
    assert!(driver.report().last_error.expect("an error").contains(error));
    assert_eq!(driver.report().panics, panics);
    driver.once().await.expect("it works");
    assert_eq!(driver.report().stuck(), None);
    assert_eq!((driver.report().ticks, driver.report().failures), (4, 3));
}

#[tokio::test]
async fn woken_it_ticks_now_and_the_same() {
    let told = Told::of(Duration::from_secs(3_600), &[]);
    let driver = driver(&told);
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.clone().run(stop.clone()));
    for ticks in 1..=3 {
        until("it has ticked", async || driver.report().ticks == ticks).await;
        driver.waker().notify_one();
    }
    until("it has ticked", async || driver.report().ticks == 4).await;
    stop.cancel();
    running.await.expect("it ends");
}

#[tokio::test]
async fn what_has_more_to_do_does_it_at_once() {
    let told = Told::of(Duration::from_secs(3_600), &[Act::More, Act::More]);
    let driver = driver(&told);
    run(&driver, &told, 3).await;
    assert_eq!(driver.report().last, Tally::default());
}

#[tokio::test]
async fn the_others_go_on() {
    let (bad, good) = (Told::of(EVERY, &[Act::Hang; 100]), Told::of(EVERY / 10, &[]));
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver(&bad).run(stop.clone()));
    run(&driver(&good), &good, 20).await;
    assert!(bad.ticks() < good.ticks());
    stop.cancel();
    running.await.expect("it ends, even in a tick that does not");
}

/// Its column is gone, as after a migration that went wrong.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_is_stuck_is_named_by_readyz_and_recovers(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let scene = Scene::of(backend, 1).await;
    let host = scene.host();
    let ready = async || host.get("/readyz").await.ok();
    assert_eq!(ready().await, json!({ "status": "ok" }));
    scene.db.sql("ALTER TABLE workspaces RENAME COLUMN silence_at TO hidden").await;
    for _ in 0..3 {
        assert_eq!(ready().await, json!({ "status": "ok" }));
        host.loops.tick("silence").await.expect("such a loop").expect_err("it fails");
    }
    let answer = host.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!("degraded")));
    let stuck = answer.body["stuck"][0].as_str().expect("a loop");
    assert!(stuck == "silence: 3 failures in a row", "{stuck}");
    scene.tick("pulse").await;
    scene.tick("provisioning").await;

    scene.db.sql("ALTER TABLE workspaces RENAME COLUMN hidden TO silence_at").await;
    scene.tick("silence").await;
    assert_eq!(ready().await, json!({ "status": "ok" }));
}
