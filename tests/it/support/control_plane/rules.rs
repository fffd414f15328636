//! The providers' own state: accepted fences, finished keys, running boxes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sprag::provision::{BoxState, BoxStatus, Fence, ListedBox, Plugin};
use tokio::task::AbortHandle;

use super::agents;
use super::journal::{BoxName, Journal, Outcome};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Deliver,
    Fence,
    Status,
    List,
}

/// What a box is started with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StartBody {
    pub kind: String,
    pub runtime: String,
    #[serde(default)]
    pub tier: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub persistent_volume: bool,
    pub registry_id: String,
    pub registry_url: String,
    pub token: String,
}

/// What `PUT …/plugins` says.
#[derive(Debug, Deserialize)]
pub(super) struct Delivery {
    pub plugins: Vec<Plugin>,
}

/// A call that was understood. Those that change nothing have no fence, and an empty key.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    pub provider: String,
    pub workspace: String,
    pub instance: String,
    pub verb: Verb,
    pub fence: Option<Fence>,
    pub key: String,
    pub start: Option<StartBody>,
    pub plugins: Vec<String>,
}

impl Incoming {
    fn name(&self) -> BoxName {
        BoxName::new(&self.provider, &self.workspace, &self.instance)
    }
}

/// An answer. A status of 400 or more goes out as a problem document.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub body: Value,
}

impl Reply {
    pub fn problem(status: u16, code: &str, detail: &str) -> Self {
        Self { status, body: json!({ "code": code, "detail": detail }) }
    }

    fn stale(accepted: Fence) -> Self {
        let detail = format!("the last accepted fence is {accepted}");
        let body = json!({ "code": "STALE_FENCE", "detail": detail, "accepted": accepted.to_string() });
        Self { status: 412, body }
    }
}

/// What the rules say about a call.
pub(super) enum Admitted {
    Go,
    Not(Outcome, Reply),
}

/// What one provider remembers of one workspace.
#[derive(Default)]
struct Ledger {
    accepted: Option<(Fence, String)>,
    finished: HashMap<String, Finished>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Finished {
    verb: Verb,
    instance: String,
    reply: Reply,
}

/// A box that runs.
pub(super) struct Running {
    pub spec: StartBody,
    pub plugins: Vec<String>,
    agent: Option<AbortHandle>,
}

/// Everything behind the address.
pub(super) struct World {
    providers: BTreeSet<String>,
    ledgers: HashMap<(String, String), Ledger>,
    boxes: BTreeMap<BoxName, Running>,
    /// How many boxes of each workspace run.
    counts: HashMap<String, usize>,
    agents: Option<Duration>,
    pub heard: Arc<Mutex<BTreeMap<u16, u64>>>,
    pub journal: Journal,
}

impl World {
    pub fn new(providers: &[&str], agents: Option<Duration>) -> Self {
        Self {
            providers: providers.iter().map(|name| (*name).to_owned()).collect(),
            ledgers: HashMap::new(),
            boxes: BTreeMap::new(),
            counts: HashMap::new(),
            agents,
            heard: Arc::default(),
            journal: Journal::new(),
        }
    }

    pub fn names(&self) -> BTreeSet<String> {
        self.providers.clone()
    }

    pub fn serves(&self, provider: &str) -> bool {
        self.providers.contains(provider)
    }

    /// What calls about the workspace at this provider wait for.
    pub fn turn(&mut self, call: &Incoming) -> Arc<tokio::sync::Mutex<()>> {
        match call.fence {
            Some(_) => self.ledger(call).turn.clone(),
            // Reads wait for nobody.
            None => Arc::default(),
        }
    }

    /// The three rules.
    pub fn admit(&mut self, call: &Incoming) -> Admitted {
        let Some(fence) = call.fence else { return Admitted::Go };
        let ledger = self.ledger(call);
        if let Some(finished) = ledger.finished.get(&call.key) {
            // A key names one call; under another, an answer would be a lie.
            if finished.verb != call.verb || finished.instance != call.instance {
                let reply = Reply::problem(422, "KEY_REUSED", "this key was another call's");
                return Admitted::Not(Outcome::Refused, reply);
            }
            return Admitted::Not(Outcome::Replayed, finished.reply.clone());
        }
        if let Some((accepted, key)) = &ledger.accepted
            && (fence < *accepted || fence == *accepted && call.key != *key)
        {
            return Admitted::Not(Outcome::Stale, Reply::stale(*accepted));
        }
        ledger.accepted = Some((fence, call.key.clone()));
        Admitted::Go
    }

    /// A box that is starting runs; all else waits for [`World::complete`].
    pub fn begin(&mut self, call: &Incoming) {
        let name = call.name();
        let Some(spec) = call.start.clone().filter(|_| !self.boxes.contains_key(&name)) else { return };
        let agent = self.agents.map(|every| agents::spawn(&name, &spec, every, self.heard.clone()));
        self.boxes.insert(name, Running { spec, plugins: Vec::new(), agent });
        let count = self.counts.entry(call.workspace.clone()).or_default();
        *count += 1;
        self.journal.count(&call.workspace, *count);
    }

    /// Does the rest, and finishes the key.
    pub fn complete(&mut self, call: &Incoming, answered: bool) -> Reply {
        let name = call.name();
        let reply = match call.verb {
            Verb::Start | Verb::Status => Reply { status: 200, body: self.status(&name) },
            Verb::Stop => {
                self.end(&name);
                Reply { status: 200, body: self.status(&name) }
            }
            Verb::Deliver => match self.boxes.get_mut(&name) {
                None => {
                    return self.refuse(
                        call,
                        Reply::problem(409, "NOT_RUNNING", "no such box runs"),
                        answered,
                    );
                }
                Some(running) => {
                    running.plugins.clone_from(&call.plugins);
                    Reply { status: 204, body: Value::Null }
                }
            },
            Verb::Fence => {
                let meant =
                    |name: &&BoxName| name.workspace == call.workspace && name.provider == call.provider;
                let names = self.boxes.keys().filter(meant);
                Reply { status: 200, body: names.map(|name| status_of(name, BoxState::Running)).collect() }
            }
            Verb::List => self.listed(&call.provider),
        };
        self.finish(call, &reply);
        self.tell(call, Outcome::Done, answered);
        reply
    }

    /// Finishes the key with a refusal.
    pub fn refuse(&mut self, call: &Incoming, reply: Reply, answered: bool) -> Reply {
        self.finish(call, &reply);
        self.tell(call, Outcome::Refused, answered);
        reply
    }

    /// Writes the call into the journal.
    pub fn tell(&self, call: &Incoming, outcome: Outcome, answered: bool) {
        self.journal.tell(call, outcome, answered, self.running(&call.workspace));
    }

    pub fn running(&self, workspace: &str) -> Vec<BoxName> {
        if self.counts.get(workspace).is_none_or(|count| *count == 0) {
            return Vec::new();
        }
        let from = |provider: &String| BoxName::new(provider, workspace, "");
        let at = |provider| self.boxes.range(from(provider)..).map(|(name, _)| name);
        let of = |provider| {
            at(provider).take_while(move |name| name.provider == *provider && name.workspace == workspace)
        };
        self.providers.iter().flat_map(of).cloned().collect()
    }

    pub fn find(&self, provider: &str, instance: &str) -> Option<&Running> {
        let found =
            self.boxes.iter().find(|(name, _)| name.provider == provider && name.instance == instance);
        found.map(|(_, running)| running)
    }

    pub fn end(&mut self, name: &BoxName) {
        let Some(ended) = self.boxes.remove(name) else { return };
        if let Some(agent) = ended.agent {
            agent.abort();
        }
        *self.counts.entry(name.workspace.clone()).or_default() -= 1;
    }

    pub fn end_all(&mut self) {
        let names: Vec<_> = self.boxes.keys().cloned().collect();
        for name in &names {
            self.end(name);
        }
    }

    fn ledger(&mut self, call: &Incoming) -> &mut Ledger {
        self.ledgers.entry((call.provider.clone(), call.workspace.clone())).or_default()
    }

    fn finish(&mut self, call: &Incoming, reply: &Reply) {
        if call.fence.is_some() {
            let finished =
                Finished { verb: call.verb, instance: call.instance.clone(), reply: reply.clone() };
            self.ledger(call).finished.insert(call.key.clone(), finished);
        }
    }

    fn status(&self, name: &BoxName) -> Value {
        let state = if self.boxes.contains_key(name) { BoxState::Running } else { BoxState::Stopped };
        status_of(name, state)
    }

    fn listed(&self, provider: &str) -> Reply {
        let boxes = self.boxes.iter().filter(|(name, _)| name.provider == provider);
        let listed = boxes.map(|(name, running)| {
            let listed = ListedBox {
                workspace_id: name.workspace.clone(),
                instance_id: name.instance.clone(),
                state: BoxState::Running,
                registry_id: Some(running.spec.registry_id.clone()),
            };
            serde_json::to_value(listed).expect("a box is JSON")
        });
        Reply { status: 200, body: listed.collect() }
    }
}

fn status_of(name: &BoxName, state: BoxState) -> Value {
    let status =
        BoxStatus { workspace_id: name.workspace.clone(), instance_id: name.instance.clone(), state };
    serde_json::to_value(status).expect("a status is JSON")
}
