//! A provider whose boxes are as a test says, with a journal of its questions.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sprag::provision::{
    Answer, BoxSpec, BoxState, BoxStatus, Call, Fence, ListedBox, Plugin, ProviderError, Provisioner,
};

/// What it says of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Says {
    Is(BoxState),
    /// Nothing that is an answer.
    Nothing,
    /// That it will never answer.
    Refuses,
    /// That it is stopped, later than anybody waits.
    Late,
}

/// One question, when it arrived.
#[derive(Clone, Debug)]
pub struct Question {
    pub workspace: String,
    pub at: Instant,
}

type Whilst = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Says of every box that it is stopped, at once, until it is told otherwise.
#[derive(Default)]
pub struct Provider(Mutex<Script>);

impl Default for Script {
    fn default() -> Self {
        Self {
            says: None,
            says_of: BTreeMap::new(),
            takes: Duration::ZERO,
            whilst: None,
            asked: Vec::new(),
            stopped: Vec::new(),
            tokens: Vec::new(),
            runs: Some(Vec::new()),
            accepted: BTreeMap::new(),
            stops_nothing: false,
            calls: Vec::new(),
        }
    }
}

struct Script {
    says: Option<Says>,
    /// Of one workspace's box.
    says_of: BTreeMap<String, Says>,
    takes: Duration,
    whilst: Option<Whilst>,
    asked: Vec<Question>,
    stopped: Vec<String>,
    /// Of the boxes that were started, the last one last.
    tokens: Vec<String>,
    /// What it lists. None: it lists nothing that is an answer.
    runs: Option<Vec<ListedBox>>,
    /// Fences that it has accepted, of these workspaces; of others it takes any.
    accepted: BTreeMap<String, Fence>,
    stops_nothing: bool,
    /// The stops that it was asked for.
    calls: Vec<Call>,
}

impl Provider {
    pub fn says(&self, says: Says) {
        self.script().says = Some(says);
    }

    pub fn says_of(&self, workspace: &str, says: Says) {
        self.script().says_of.insert(workspace.to_owned(), says);
    }

    /// How long each answer takes.
    pub fn takes(&self, takes: Duration) {
        self.script().takes = takes;
    }

    /// What happens while it is asked.
    pub fn whilst<F, Done>(&self, act: F)
    where
        F: Fn(String) -> Done + Send + Sync + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        self.script().whilst = Some(Arc::new(move |id| Box::pin(act(id))));
    }

    pub fn asked(&self) -> Vec<Question> {
        self.script().asked.clone()
    }

    /// The boxes that it was told to stop.
    pub fn stopped(&self) -> Vec<String> {
        self.script().stopped.clone()
    }

    /// It runs this box, as started by this registry.
    pub fn runs(&self, workspace: &str, instance: &str, registry: Option<&str>) {
        let listed = ListedBox {
            workspace_id: workspace.to_owned(),
            instance_id: instance.to_owned(),
            state: BoxState::Running,
            registry_id: registry.map(str::to_owned),
        };
        self.script().runs.get_or_insert_default().push(listed);
    }

    /// What it lists; None is no answer. What it was before.
    pub fn lists(&self, runs: Option<Vec<ListedBox>>) -> Option<Vec<ListedBox>> {
        std::mem::replace(&mut self.script().runs, runs)
    }

    /// It has accepted this fence of that workspace.
    pub fn accepted(&self, workspace: &str, fence: Fence) {
        self.script().accepted.insert(workspace.to_owned(), fence);
    }

    /// Whether it answers stops.
    pub fn stops(&self, stops: bool) {
        self.script().stops_nothing = !stops;
    }

    /// The stops that it was asked for.
    pub fn stop_calls(&self) -> Vec<Call> {
        self.script().calls.clone()
    }

    /// The token of the box that was started last.
    pub fn token(&self) -> String {
        self.script().tokens.last().expect("a box was started").clone()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().expect("the script")
    }
}

fn of(workspace: &str, instance: &str, state: BoxState) -> BoxStatus {
    BoxStatus { workspace_id: workspace.to_owned(), instance_id: instance.to_owned(), state }
}

impl Provisioner for Provider {
    fn start<'a>(&'a self, call: &'a Call, instance_id: &'a str, spec: &'a BoxSpec) -> Answer<'a, BoxStatus> {
        self.script().tokens.push(spec.token.0.clone());
        Box::pin(async { Ok(of(&call.workspace_id, instance_id, BoxState::Running)) })
    }

    fn stop<'a>(&'a self, call: &'a Call, instance_id: &'a str) -> Answer<'a, BoxStatus> {
        let mut script = self.script();
        script.calls.push(call.clone());
        let accepted = script.accepted.get(&call.workspace_id).copied();
        if let Some(accepted) = accepted.filter(|accepted| call.fence <= *accepted) {
            return Box::pin(async move { Err(ProviderError::Stale { accepted }) });
        }
        if script.stops_nothing {
            return Box::pin(async { Err(ProviderError::Unknown { why: "told to".to_owned() }) });
        }
        script.stopped.push(instance_id.to_owned());
        if let Some(runs) = &mut script.runs {
            runs.retain(|one| one.workspace_id != call.workspace_id || one.instance_id != instance_id);
        }
        Box::pin(async { Ok(of(&call.workspace_id, instance_id, BoxState::Stopped)) })
    }

    fn fence<'a>(&'a self, _call: &'a Call) -> Answer<'a, Vec<BoxStatus>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn deliver<'a>(&'a self, _: &'a Call, _: &'a str, _: &'a [Plugin]) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn status<'a>(&'a self, workspace_id: &'a str, instance_id: &'a str) -> Answer<'a, BoxStatus> {
        let (says, takes, whilst) = {
            let mut script = self.script();
            script.asked.push(Question { workspace: workspace_id.to_owned(), at: Instant::now() });
            let says = script.says_of.get(workspace_id).copied().or(script.says);
            (says.unwrap_or(Says::Is(BoxState::Stopped)), script.takes, script.whilst.clone())
        };
        Box::pin(async move {
            if let Some(whilst) = whilst {
                whilst(workspace_id.to_owned()).await;
            }
            tokio::time::sleep(takes).await;
            match says {
                Says::Is(state) => Ok(of(workspace_id, instance_id, state)),
                Says::Nothing => Err(ProviderError::Unknown { why: "told to".to_owned() }),
                Says::Late => {
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    Ok(of(workspace_id, instance_id, BoxState::Stopped))
                }
                Says::Refuses => {
                    let (code, detail) = ("NO".to_owned(), "told to".to_owned());
                    Err(ProviderError::Refused { code, detail })
                }
            }
        })
    }

    fn list(&self) -> Answer<'_, Vec<ListedBox>> {
        let (runs, whilst) = {
            let script = self.script();
            (script.runs.clone(), script.whilst.clone())
        };
        Box::pin(async move {
            if let Some(whilst) = whilst {
                whilst(String::new()).await;
            }
            runs.ok_or_else(|| ProviderError::Unknown { why: "told to".to_owned() })
        })
    }
}
