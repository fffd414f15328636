//! The reference control plane itself: its rules, its faults, its journal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use reqwest::{Method, RequestBuilder};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::support::control_plane::{
    BoxName, ControlPlane, Entry, Outcome, StartBody, TOKEN, Verb, What, Where,
};

/// Long enough to be seen, short enough to wait for.
const A_WHILE: Duration = Duration::from_millis(150);

/// A control plane and somebody who calls it.
struct Caller {
    plane: ControlPlane,
    client: reqwest::Client,
}

impl Caller {
    async fn new() -> Self {
        Self { plane: ControlPlane::start(&["blue", "green"]).await, client: crate::support::client() }
    }

    fn request(&self, method: Method, provider: &str, path: &str) -> RequestBuilder {
        let url = format!("{}/v1/{path}", self.plane.base(provider));
        self.client.request(method, url).bearer_auth(TOKEN)
    }

    /// One call about workspace `w`; a status of 0 where no answer came.
    async fn call(&self, provider: &str, call: &str, fence: &str, key: &str) -> (u16, Value) {
        let (verb, instance) = call.split_once(' ').unwrap_or((call, ""));
        let at = format!("workspaces/w/boxes/{instance}");
        let request = match verb {
            "start" => self.request(Method::PUT, provider, &at).json(&spec("http://127.0.0.1:9")),
            "stop" => self.request(Method::DELETE, provider, &at),
            "status" => return sent(self.request(Method::GET, provider, &at)).await,
            "list" => return sent(self.request(Method::GET, provider, "boxes")).await,
            "deliver" => {
                let plugins = json!({ "plugins": [{ "name": "tools" }] });
                self.request(Method::PUT, provider, &format!("{at}/plugins")).json(&plugins)
            }
            "fence" => self.request(Method::POST, provider, "workspaces/w/fence"),
            other => panic!("no such verb: {other}"),
        };
        sent(request.header("sprag-fence", fence).header("idempotency-key", key)).await
    }

    fn running(&self) -> Vec<String> {
        self.plane
            .running("w")
            .into_iter()
            .map(|name| format!("{}/{}", name.provider, name.instance))
            .collect()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        self.plane.journal.calls("w").iter().map(|entry: &Entry| entry.outcome).collect()
    }
}

async fn sent(request: RequestBuilder) -> (u16, Value) {
    let Ok(response) = request.send().await else { return (0, Value::Null) };
    let status = response.status().as_u16();
    let problem =
        response.headers().get("content-type").is_some_and(|kind| kind == "application/problem+json");
    assert_eq!(problem, status >= 400, "{response:?}");
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

fn spec(registry_url: &str) -> Value {
    json!({
        "kind": "workspace", "runtime": "claude", "tier": null, "labels": {}, "persistent_volume": false,
        "registry_id": "5b1c7a52", "registry_url": registry_url, "token": "a-box-token",
    })
}

/// A call, its fence and key; the status it gets.
type Line = (&'static str, &'static str, &'static str, u16);

#[rstest]
#[case::a_finished_key_is_replayed(&[("start a", "1.1", "k1", 200), ("stop a", "1.2", "k2", 200), ("start a", "1.1", "k1", 200)], &[])]
#[case::an_older_fence_is_stale(&[("start a", "2.1", "k1", 200), ("stop a", "1.9", "k2", 412)], &["blue/a"])]
#[case::the_seq_counts_within_an_epoch(&[("start a", "1.2", "k1", 200), ("stop a", "1.1", "k2", 412)], &["blue/a"])]
#[case::an_equal_fence_needs_its_key(&[("start a", "1.1", "k1", 200), ("stop a", "1.1", "k2", 412)], &["blue/a"])]
#[case::a_fence_fences(&[("fence", "2.0", "k1", 200), ("start a", "1.5", "k2", 412), ("start a", "2.1", "k3", 200)], &["blue/a"])]
#[case::a_stop_stops_its_own_box(&[("start a", "1.1", "k1", 200), ("stop b", "1.2", "k2", 200)], &["blue/a"])]
#[case::nothing_prevents_two(&[("start a", "1.1", "k1", 200), ("start b", "1.2", "k2", 200)], &["blue/a", "blue/b"])]
#[case::a_key_names_one_call(&[("start a", "1.1", "k1", 200), ("stop a", "1.2", "k1", 422)], &["blue/a"])]
#[case::no_box_takes_no_plugins(&[("deliver a", "1.1", "k1", 409), ("start a", "1.2", "k2", 200), ("deliver a", "1.3", "k3", 204)], &["blue/a"])]
#[case::bad_headers(&[("start a", "1", "k1", 400), ("start a", "1.1", "a key", 400)], &[])]
#[tokio::test]
async fn the_rules(#[case] lines: &[Line], #[case] running: &[&str]) {
    let caller = Caller::new().await;
    for (call, fence, key, status) in lines {
        let (got, body) = caller.call("blue", call, fence, key).await;
        assert_eq!(got, *status, "{call} {fence} {key}: {body}");
        if got == 412 {
            assert_eq!(body["code"], "STALE_FENCE");
            assert_eq!(body["accepted"], lines[0].1);
        }
    }
    assert_eq!(caller.running(), running);
}

#[tokio::test]
async fn fences_and_keys_are_each_providers_own() {
    let caller = Caller::new().await;
    assert_eq!(caller.call("blue", "fence", "5.0", "k").await.0, 200);
    assert_eq!(caller.call("green", "start a", "1.1", "k").await.0, 200);
    assert_eq!(caller.call("red", "start a", "1.1", "k").await.0, 404);
    let a = json!({ "workspace_id": "w", "instance_id": "a", "state": "running" });
    assert_eq!(caller.call("green", "status a", "", "").await.1, a);
    assert_eq!(caller.call("blue", "status a", "", "").await.1["state"], "stopped");
    let mut listed = a.clone();
    listed["registry_id"] = "5b1c7a52".into();
    assert_eq!(caller.call("green", "list", "", "").await.1, json!([listed]));
    assert_eq!(caller.call("green", "fence", "1.2", "k2").await.1, json!([a]));
    assert_eq!(caller.call("blue", "list", "", "").await.1, json!([]));
    let given: StartBody = serde_json::from_value(spec("http://127.0.0.1:9")).expect("a start's body");
    assert_eq!(caller.plane.spec("green", "a"), Some(given));
    assert_eq!(caller.plane.plugins("green", "a"), Some(Vec::new()));
    let url = format!("{}/v1/boxes", caller.plane.base("green"));
    assert_eq!(sent(caller.client.get(url).bearer_auth("another")).await.0, 401);
    caller.plane.end("green", "w", "a");
    assert_eq!(caller.running(), [""; 0]);
}

/// What a start under a fault gets, what its repeat under the same key gets,
/// and the outcomes of both.
#[rstest]
#[case::slow_to_arrive(What::Before(A_WHILE), 200, 200, &[Outcome::Done, Outcome::Replayed])]
#[case::slow(What::Doing(A_WHILE), 200, 200, &[Outcome::Done, Outcome::Replayed])]
#[case::slow_to_answer(What::After(A_WHILE), 200, 200, &[Outcome::Done, Outcome::Replayed])]
#[case::fails(What::Fail, 500, 200, &[Outcome::Failed, Outcome::Done])]
#[case::fails_once_accepted(What::FailAccepted, 500, 200, &[Outcome::Failed, Outcome::Done])]
#[case::loses_the_answer(What::Lose, 0, 200, &[Outcome::Done, Outcome::Replayed])]
#[case::hangs_up(What::HangUp, 0, 200, &[Outcome::HungUp, Outcome::Done])]
#[case::comes_late(What::Late { by: A_WHILE, answer: None }, 0, 200, &[Outcome::HeldBack, Outcome::Done, Outcome::Replayed])]
#[case::comes_late_after_an_answer(What::Late { by: A_WHILE, answer: Some(504) }, 504, 200, &[Outcome::HeldBack, Outcome::Done, Outcome::Replayed])]
#[case::refuses(What::Refuse { status: 403, code: "NO_QUOTA" }, 403, 403, &[Outcome::Refused, Outcome::Replayed])]
#[tokio::test]
async fn the_faults(
    #[case] what: What,
    #[case] first: u16,
    #[case] again: u16,
    #[case] outcomes: &[Outcome],
) {
    let caller = Caller::new().await;
    caller.plane.faults.next(1, Where::provider("blue").only(Verb::Start), what);
    let began = Instant::now();
    assert_eq!(caller.call("blue", "start a", "1.1", "k1").await.0, first);
    let slow = matches!(what, What::Before(_) | What::Doing(_) | What::After(_));
    assert_eq!(began.elapsed() >= A_WHILE, slow, "{:?}", began.elapsed());
    assert_eq!(caller.call("blue", "start a", "1.1", "k1").await.0, again);
    if matches!(what, What::Late { .. }) {
        sleep(A_WHILE * 2).await;
    }
    assert_eq!(caller.outcomes(), outcomes);
    assert_eq!(caller.running().len(), usize::from(again == 200));
}

#[tokio::test]
async fn a_fault_strikes_where_and_as_often_as_it_is_told() {
    let caller = Caller::new().await;
    caller.plane.faults.next(2, Where::workspace("w"), What::Fail);
    caller.plane.faults.next(1, Where::workspace("another"), What::HangUp);
    caller.plane.faults.always(Where::verb(Verb::Stop), What::HangUp);
    for status in [500, 500, 200] {
        assert_eq!(caller.call("blue", "start a", "1.1", "k1").await.0, status);
    }
    for _ in 0..3 {
        assert_eq!(caller.call("blue", "stop a", "1.2", "k2").await.0, 0);
    }
    caller.plane.faults.clear();
    assert_eq!(caller.call("blue", "stop a", "1.2", "k2").await.0, 200);
}

/// The case that fences are for: a start that comes after its owner was fenced off.
#[tokio::test]
async fn a_late_start_is_stale_after_a_fence() {
    let caller = Caller::new().await;
    caller.plane.faults.next(1, Where::verb(Verb::Start), What::Late { by: A_WHILE, answer: None });
    assert_eq!(caller.call("blue", "start a", "1.1", "k1").await.0, 0);
    assert_eq!(caller.call("blue", "fence", "2.0", "k2").await, (200, json!([])));
    sleep(A_WHILE * 2).await;
    assert_eq!(caller.outcomes(), [Outcome::HeldBack, Outcome::Done, Outcome::Stale]);
    assert_eq!(caller.running(), [""; 0]);
}

/// A fence that is accepted during a start answers what the start came to.
#[tokio::test]
async fn a_fence_waits_for_what_was_accepted_before_it() {
    let caller = Caller::new().await;
    caller.plane.faults.next(1, Where::verb(Verb::Start), What::Doing(A_WHILE));
    let start = caller.call("blue", "start a", "1.1", "k1");
    let fence = async {
        while caller.running().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        caller.call("blue", "fence", "2.0", "k2").await
    };
    let (start, fence) = tokio::join!(start, fence);
    assert_eq!((start.0, fence.1[0]["instance_id"].as_str()), (200, Some("a")));
    assert_eq!(caller.plane.journal.calls("w").last().expect("a call").verb, Verb::Fence);
}

#[tokio::test]
async fn the_journal_counts_over_all_providers() {
    let caller = Caller::new().await;
    caller.call("blue", "start a", "1.1", "k1").await;
    caller.call("blue", "stop a", "1.2", "k2").await;
    caller.call("green", "start b", "1.3", "k3").await;
    let journal = &caller.plane.journal;
    assert_eq!((journal.most_running_at_once("w"), journal.overlaps().len()), (1, 0));
    caller.call("blue", "start c", "1.4", "k4").await;
    caller.call("green", "stop b", "1.5", "k5").await;
    assert_eq!((journal.most_running_at_once("w"), journal.overlaps()), (2, vec!["w".to_owned()]));
    let (all, calls) = (journal.all(), journal.calls("w"));
    assert_eq!((all.len(), calls.len()), (5, 5));
    let [b, c] = [BoxName::new("green", "w", "b"), BoxName::new("blue", "w", "c")];
    let ran: Vec<_> = calls.iter().map(|entry| entry.running.clone()).collect();
    assert_eq!(ran[1..], [vec![], vec![b.clone()], vec![c.clone(), b], vec![c]]);
    let last = calls.last().expect("a call");
    assert_eq!((last.provider.as_str(), last.instance.as_str(), last.key.as_str()), ("green", "b", "k5"));
    assert_eq!(last.fence.map(|fence| fence.to_string()).as_deref(), Some("1.5"));
    assert!(last.answered && last.at >= calls[0].at);
}

#[tokio::test]
async fn an_agent_lives_as_long_as_its_box() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let hear = async |State(said): State<Arc<Mutex<Vec<String>>>>, request: Request| {
        said.lock().expect("what was said").push(request.uri().path().to_owned());
    };
    let registry = Router::new().fallback(hear).with_state(said.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(axum::serve(listener, registry).into_future());

    let plane = ControlPlane::with_agents(&["blue"], Duration::from_millis(5)).await;
    let caller = Caller { plane, client: crate::support::client() };
    let start = caller.request(Method::PUT, "blue", "workspaces/w/boxes/a").json(&spec(&url));
    assert_eq!(sent(start.header("sprag-fence", "1.1").header("idempotency-key", "k1")).await.0, 200);
    let heard = || said.lock().expect("what was said").clone();
    while heard().len() < 4 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(heard()[..2], ["/registry/register", "/registry/heartbeat"]);
    assert!(caller.plane.agents_heard()[&200] >= 3);
    assert_eq!(caller.call("blue", "stop a", "1.2", "k2").await.0, 200);
    sleep(Duration::from_millis(50)).await;
    let before = heard().len();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(heard().len(), before);
}
