//! Attempts, pauses and turns, against a provider that answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;

use super::turns::Turns;
use super::{DispatchError, Dispatcher};
use crate::provision::{
    Answer, BoxSpec, BoxState, BoxStatus, BoxToken, Call, Fence, ListedBox, Plugin, ProviderError,
    Provisioner, ProvisioningConfig,
};

/// Answers what it was told to, in order, and then that it is done.
#[derive(Default)]
struct Told {
    answers: Mutex<VecDeque<ProviderError>>,
    /// Fence and key of every call.
    heard: Mutex<Vec<(Fence, String)>>,
    /// Never answers.
    deaf: bool,
    /// Calls at work now, and the most there ever were.
    at_work: AtomicUsize,
    most: AtomicUsize,
}

impl Told {
    async fn hear(&self, call: Option<&Call>) -> Result<(), ProviderError> {
        if let Some(call) = call {
            self.heard.lock().expect("calls").push((call.fence, call.key.clone()));
        }
        let now = self.at_work.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let nap = if self.deaf { Duration::from_secs(3600) } else { Duration::from_millis(5) };
        tokio::time::sleep(nap).await;
        self.at_work.fetch_sub(1, Ordering::SeqCst);
        self.answers.lock().expect("answers").pop_front().map_or(Ok(()), Err)
    }

    fn calls(&self) -> usize {
        self.heard.lock().expect("calls").len()
    }
}

fn stopped(workspace_id: &str, instance_id: &str) -> BoxStatus {
    BoxStatus {
        workspace_id: workspace_id.to_owned(),
        instance_id: instance_id.to_owned(),
        state: BoxState::Stopped,
    }
}

impl Provisioner for Told {
    fn start<'a>(&'a self, call: &'a Call, id: &'a str, _: &'a BoxSpec) -> Answer<'a, BoxStatus> {
        self.stop(call, id)
    }

    fn stop<'a>(&'a self, call: &'a Call, id: &'a str) -> Answer<'a, BoxStatus> {
        Box::pin(async move { self.hear(Some(call)).await.map(|()| stopped(&call.workspace_id, id)) })
    }

    fn fence<'a>(&'a self, call: &'a Call) -> Answer<'a, Vec<BoxStatus>> {
        Box::pin(async move { self.hear(Some(call)).await.map(|()| Vec::new()) })
    }

    fn deliver<'a>(&'a self, call: &'a Call, _: &'a str, _: &'a [Plugin]) -> Answer<'a, ()> {
        Box::pin(self.hear(Some(call)))
    }

    fn status<'a>(&'a self, workspace_id: &'a str, id: &'a str) -> Answer<'a, BoxStatus> {
        Box::pin(async move { self.hear(None).await.map(|()| stopped(workspace_id, id)) })
    }

    fn list(&self) -> Answer<'_, Vec<ListedBox>> {
        Box::pin(async move { self.hear(None).await.map(|()| Vec::new()) })
    }
}

fn dispatcher(told: Arc<Told>) -> Dispatcher {
    let config = ProvisioningConfig {
        call_timeout_ms: 100,
        attempts: 3,
        stop_attempts: 5,
        backoff_ms: 1,
        backoff_max_ms: 4,
        ..ProvisioningConfig::default()
    };
    Dispatcher::new(BTreeMap::from([("told".to_owned(), told as Arc<dyn Provisioner>)]), config)
}

fn told(answers: &[ProviderError]) -> Arc<Told> {
    Arc::new(Told { answers: Mutex::new(answers.iter().cloned().collect()), ..Told::default() })
}

fn unknown() -> ProviderError {
    ProviderError::Unknown { why: "a crash".to_owned() }
}

fn call(workspace_id: &str) -> Call {
    Call { workspace_id: workspace_id.to_owned(), fence: Fence { epoch: 1, seq: 2 }, key: "k".to_owned() }
}

fn spec() -> BoxSpec {
    BoxSpec {
        kind: "workspace".to_owned(),
        runtime: "claude-code".to_owned(),
        tier: None,
        labels: BTreeMap::new(),
        persistent_volume: false,
        registry_id: "5b1c7a52".to_owned(),
        registry_url: "http://127.0.0.1:9".to_owned(),
        token: BoxToken("t".to_owned()),
    }
}

#[tokio::test]
async fn unknown_is_tried_again_under_the_same_fence_and_key() {
    let told = told(&[unknown(), unknown()]);
    let done = dispatcher(told.clone()).start("told", &call("w"), "i", &spec()).await;
    assert_eq!(done, Ok(stopped("w", "i")));
    let fence = Fence { epoch: 1, seq: 2 };
    assert_eq!(*told.heard.lock().expect("calls"), vec![(fence, "k".to_owned()); 3]);
}

#[tokio::test]
async fn attempts_are_bounded_and_a_stop_has_its_own() {
    let exhausted = |attempts| DispatchError::Exhausted { attempts, why: "a crash".to_owned() };
    let never = told(&vec![unknown(); 100]);
    let dispatcher = dispatcher(never.clone());
    assert_eq!(dispatcher.start("told", &call("w"), "i", &spec()).await, Err(exhausted(3)));
    assert_eq!(dispatcher.stop("told", &call("w"), "i").await, Err(exhausted(5)));
    assert_eq!(dispatcher.fence("told", &call("w")).await, Err(exhausted(3)));
    assert_eq!(dispatcher.deliver("told", &call("w"), "i", &[]).await, Err(exhausted(3)));
    assert_eq!(never.calls(), 14);
    assert_eq!(dispatcher.status("told", "w", "i").await, Err(exhausted(1)));
    assert_eq!(dispatcher.list("told").await, Err(exhausted(1)));
}

#[tokio::test]
async fn what_is_final_is_not_tried_again() {
    let accepted = Fence { epoch: 9, seq: 0 };
    let stale = told(&[ProviderError::Stale { accepted }]);
    let result = dispatcher(stale.clone()).stop("told", &call("w"), "i").await;
    assert_eq!((result, stale.calls()), (Err(DispatchError::Stale { accepted }), 1));

    let (code, detail) = ("no".to_owned(), "never".to_owned());
    let refused = told(&[ProviderError::Refused { code: code.clone(), detail: detail.clone() }]);
    let result = dispatcher(refused.clone()).stop("told", &call("w"), "i").await;
    assert_eq!((result, refused.calls()), (Err(DispatchError::Refused { code, detail }), 1));
}

#[tokio::test]
async fn a_provider_that_never_answers_is_given_up() {
    let deaf = Arc::new(Told { deaf: true, ..Told::default() });
    let result = dispatcher(deaf.clone()).start("told", &call("w"), "i", &spec()).await;
    assert!(matches!(result, Err(DispatchError::Exhausted { attempts: 3, .. })), "{result:?}");
    assert_eq!(deaf.calls(), 3);
}

#[tokio::test]
async fn an_unknown_name_is_told_the_known_ones() {
    let dispatcher = dispatcher(told(&[]));
    assert_eq!(dispatcher.names(), ["told"]);
    assert_eq!(dispatcher.check("told"), Ok(()));
    let error = dispatcher.check("nobody").expect_err("no such provider");
    assert_eq!(error.to_string(), "there is no provider \"nobody\"; configured: told");
    let result = dispatcher.stop("nobody", &call("w"), "i").await;
    assert_eq!(result, Err(DispatchError::UnknownProvider(error)));
}

#[tokio::test]
async fn starts_and_stops_of_a_workspace_take_turns() {
    let same = told(&[]);
    let of_one = dispatcher(same.clone());
    let w = call("w");
    join_all((0..5).map(|_| of_one.stop("told", &w, "i"))).await;
    assert_eq!(same.most.load(Ordering::SeqCst), 1);
    assert_eq!(of_one.turns.len(), 0, "nothing is left behind");

    let other = told(&[]);
    let of_many = dispatcher(other.clone());
    let calls: Vec<_> = (0..5).map(|n| call(&format!("w{n}"))).collect();
    join_all(calls.iter().map(|call| of_many.stop("told", call, "i"))).await;
    assert_eq!(other.most.load(Ordering::SeqCst), 5, "workspaces don't wait for each other");
}

#[tokio::test]
async fn a_fence_waits_for_no_turn() {
    let deaf = Arc::new(Told { deaf: true, ..Told::default() });
    let dispatcher = dispatcher(deaf.clone());
    let (w, spec) = (call("w"), spec());
    let fence = async {
        while deaf.calls() == 0 {
            tokio::task::yield_now().await;
        }
        let _ = tokio::time::timeout(Duration::from_millis(20), dispatcher.fence("told", &w)).await;
        deaf.most.load(Ordering::SeqCst)
    };
    let (_, at_once) = futures::join!(dispatcher.start("told", &w, "i", &spec), fence);
    assert_eq!(at_once, 2);
}

#[tokio::test]
async fn a_wait_that_is_given_up_leaves_nothing_behind() {
    let turns = Turns::default();
    let held = turns.take("k").await;
    let waiting = tokio::time::timeout(Duration::from_millis(5), turns.take("k"));
    assert!(waiting.await.is_err());
    assert_eq!(turns.len(), 1);
    drop(held);
    assert_eq!(turns.len(), 0);
}

#[test]
fn pauses_double_up_to_a_bound_and_vary() {
    let config = ProvisioningConfig { backoff_ms: 100, backoff_max_ms: 1_000, ..Default::default() };
    let dispatcher = Dispatcher::new(BTreeMap::new(), config);
    for (made, most) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (60, 1_000)] {
        let pauses: Vec<_> = (0..50).map(|_| dispatcher.pause(made).as_millis()).collect();
        assert!(pauses.iter().all(|pause| (most / 2..=most).contains(pause)), "{made}: {pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{made}: {pauses:?}");
    }
}
