//! The reference control plane: several named providers behind one address,
//! with one journal over all of them, and told by a test what to get wrong.
//!
//! It follows the three rules of `sprag::provision` to the letter and nothing
//! beyond them: it starts a second box of a workspace as readily as the first,
//! because that is what the tests look for. Calls about one workspace are done
//! one after the other at each provider, so that a fence that is accepted comes
//! after all that was accepted before it.

mod agents;
mod faults;
mod journal;
mod rules;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sprag::provision::Provisioner;
use sprag::provision::control_plane::{ControlPlane as Client, Secret};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use faults::{Faults, What, Where};
pub use journal::{BoxName, Entry, Journal, Outcome};
pub use rules::{StartBody, Verb};

use rules::{Admitted, Incoming, Reply, World};

/// What every caller must bear.
pub const TOKEN: &str = "a-control-plane-token-for-tests";

/// A running control plane. Stops, with its boxes, when dropped.
pub struct ControlPlane {
    url: String,
    pub journal: Journal,
    pub faults: Faults,
    shared: Arc<Shared>,
}

/// What the connections share.
struct Shared {
    world: Mutex<World>,
    faults: Faults,
    stop: CancellationToken,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("the control plane's world")
    }
}

impl ControlPlane {
    /// Serves `providers` on a free port.
    pub async fn start(providers: &[&str]) -> Self {
        Self::serve(providers, None).await
    }

    /// The same, and every box has an agent in it that heartbeats this often.
    pub async fn with_agents(providers: &[&str], every: Duration) -> Self {
        Self::serve(providers, Some(every)).await
    }

    async fn serve(providers: &[&str], agents: Option<Duration>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let world = World::new(providers, agents);
        let journal = world.journal.clone();
        let faults = Faults::default();
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared { world: Mutex::new(world), faults: faults.clone(), stop });
        tokio::spawn(wire::serve(listener, shared.clone()));
        Self { url, journal, faults, shared }
    }

    /// The base of one provider's URL; `/v1/…` follows.
    pub fn base(&self, provider: &str) -> String {
        format!("{}/{provider}", self.url)
    }

    /// A client of each provider, by name.
    pub fn clients(&self) -> BTreeMap<String, Arc<dyn Provisioner>> {
        let names = self.shared.world().names();
        let client = |name: &String| {
            let secret = Secret::Value(TOKEN.to_owned());
            Client::new(&self.base(name), secret).expect("a client")
        };
        names.into_iter().map(|name| (name.clone(), Arc::new(client(&name)) as _)).collect()
    }

    /// The boxes of a workspace that run, at whatever provider.
    pub fn running(&self, workspace: &str) -> Vec<BoxName> {
        self.shared.world().running(workspace)
    }

    /// What that box was started with, while it runs.
    pub fn spec(&self, provider: &str, instance: &str) -> Option<StartBody> {
        self.shared.world().find(provider, instance).map(|found| found.spec.clone())
    }

    /// The plugins last delivered to that box, while it runs.
    pub fn plugins(&self, provider: &str, instance: &str) -> Option<Vec<String>> {
        self.shared.world().find(provider, instance).map(|found| found.plugins.clone())
    }

    /// How many answers the agents got, by status; 0 where none came.
    pub fn agents_heard(&self) -> BTreeMap<u16, u64> {
        self.shared.world().heard.lock().expect("the agents' answers").clone()
    }

    /// The box ends by itself, as one that crashed.
    pub fn end(&self, provider: &str, workspace: &str, instance: &str) {
        self.shared.world().end(&BoxName::new(provider, workspace, instance));
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.world().end_all();
    }
}

/// Takes one call through its fault and the rules; None: the connection is
/// closed without an answer.
async fn arrive(shared: &Arc<Shared>, call: Incoming) -> Option<Reply> {
    let Some(fault) = shared.faults.strike(&call) else {
        return Some(perform(shared, &call, None, true).await);
    };
    let tell = |outcome| shared.world().tell(&call, outcome, outcome != Outcome::HungUp);
    match fault {
        What::Before(delay) => {
            sleep(delay).await;
            Some(perform(shared, &call, None, true).await)
        }
        What::After(delay) => {
            let reply = perform(shared, &call, None, true).await;
            sleep(delay).await;
            Some(reply)
        }
        What::Doing(_) | What::FailAccepted | What::Refuse { .. } => {
            Some(perform(shared, &call, Some(fault), true).await)
        }
        What::Fail => {
            tell(Outcome::Failed);
            Some(Reply::problem(500, "FAILED", "told to fail"))
        }
        What::Lose => {
            perform(shared, &call, None, false).await;
            None
        }
        What::HangUp => {
            tell(Outcome::HungUp);
            None
        }
        What::Late { by, answer } => {
            shared.world().tell(&call, Outcome::HeldBack, answer.is_some());
            let shared = shared.clone();
            tokio::spawn(async move {
                sleep(by).await;
                perform(&shared, &call, None, false).await;
            });
            answer.map(|status| Reply::problem(status, "HELD_BACK", "told to answer before it is done"))
        }
    }
}

/// Does what the rules let it do, when it is the call's turn.
async fn perform(shared: &Arc<Shared>, call: &Incoming, fault: Option<What>, answered: bool) -> Reply {
    let turn = shared.world().turn(call);
    let _turn = turn.lock().await;
    let admitted = shared.world().admit(call);
    if let Admitted::Not(outcome, reply) = admitted {
        shared.world().tell(call, outcome, answered);
        return reply;
    }
    match fault {
        Some(What::FailAccepted) => {
            shared.world().tell(call, Outcome::Failed, answered);
            return Reply::problem(500, "FAILED", "told to fail once the fence was accepted");
        }
        Some(What::Refuse { status, code }) => {
            return shared.world().refuse(call, Reply::problem(status, code, "told to refuse"), answered);
        }
        Some(What::Doing(time)) => {
            shared.world().begin(call);
            sleep(time).await;
        }
        _ => shared.world().begin(call),
    }
    shared.world().complete(call, answered)
}
