//! Agents as local processes. Everything lies in one directory, so that a host
//! that was killed, or another host on the same directory, finds what there is:
//!
//! ```text
//! DIR/WORKSPACE/journal.json        the accepted fence, the finished keys
//! DIR/WORKSPACE/lock                held while the journal is read and written
//! DIR/WORKSPACE/volume/             for workspaces with a persistent volume
//! DIR/WORKSPACE/boxes/INSTANCE/     one box:
//!     lock                          held while it runs
//!     run.json, exit.json           its start, registry and process group; how it ended
//!     given-up.json                 there where a stop could not end it
//!     agent.log                     what the agent printed
//!     .auth_token                   its token, while it runs
//!     plugins.json, control.json    what was delivered; what `sprag agent` obeys
//! ```
//!
//! A box is run by a supervisor, a process of its own that the host's end does
//! not touch, and by the box's init below it. The two alone hold the lock, and they
//! hold it until nothing of the box is left. Between a call's acceptance and its deed the host may be killed or
//! outrun; so the supervisor looks at the journal once more when it has the
//! box's lock, and starts nothing that was overtaken.

mod files;
mod init;
mod journal;
mod names;
mod place;
mod proc;
mod start;
mod stop;
mod supervisor;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Answer, BoxSpec, BoxState, BoxStatus, Call, ListedBox, Plugin, ProviderError, Provisioner, check_key,
};
use crate::modes;
use journal::{Admission, Journal, Open, Outcome};
use place::Place;

pub use init::{VERB as INIT, init};
pub use supervisor::{VERB, supervise};

/// How boxes are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Absolute; made when it is needed.
    pub dir: PathBuf,
    /// The `sprag` binary, which supervises.
    pub sprag: PathBuf,
    /// Program and arguments of the agent. Empty: `sprag agent`.
    pub command: Vec<String>,
    /// What the agent's environment has besides what the host says.
    pub env: BTreeMap<String, String>,
    /// How long an agent has between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// Directories of ended boxes that are kept, by workspace.
    pub kept_boxes: usize,
}

/// The provider.
#[derive(Clone)]
pub struct Process(Arc<Settings>);

impl Process {
    pub fn new(settings: Settings) -> Self {
        tighten(&settings.dir);
        Self(Arc::new(settings))
    }

    fn workspace(&self, id: &str) -> Result<PathBuf, ProviderError> {
        Ok(self.0.dir.join(name_of(id)?))
    }

    fn place(&self, workspace_id: &str, instance_id: &str) -> Result<Place, ProviderError> {
        Ok(Place::of(&self.workspace(workspace_id)?, &name_of(instance_id)?))
    }

    async fn admit(&self, call: &Call, what: &str) -> Result<Admission, ProviderError> {
        let what = what.to_owned();
        self.journaled(call, move |journal, call| journal.admit(call, &what)).await
    }

    async fn finish<T: Serialize>(
        &self,
        call: &Call,
        what: &str,
        result: Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        if let Some(outcome) = outcome(&result)? {
            let what = what.to_owned();
            self.journaled(call, move |journal, call| {
                journal.finish(&call.key, &what, outcome).map_err(unknown)
            })
            .await?;
        }
        result
    }

    async fn journaled<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl FnOnce(&mut Open, &Call) -> Result<T, ProviderError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let (journal, call) = (Journal::in_dir(&self.workspace(&call.workspace_id)?), call.clone());
        blocking(move || work(&mut journal.open().map_err(unknown)?, &call)).await
    }

    async fn started(self, call: Call, id: String, spec: BoxSpec) -> Result<BoxStatus, ProviderError> {
        let what = format!("start {id}");
        check_key(&call.key)?;
        let place = self.place(&call.workspace_id, &id)?;
        if let Admission::Replay(outcome) = self.admit(&call, &what).await? {
            return replayed(outcome);
        }
        let state = self.bring_up(&call, &id, &place, &spec).await;
        let status = state.map(|state| status(&call.workspace_id, &id, state));
        self.finish(&call, &what, status).await
    }

    async fn stopped(self, call: Call, id: String) -> Result<BoxStatus, ProviderError> {
        let what = format!("stop {id}");
        check_key(&call.key)?;
        let place = self.place(&call.workspace_id, &id)?;
        if let Admission::Replay(outcome) = self.admit(&call, &what).await? {
            return replayed(outcome);
        }
        let ended = self.bring_down(&call, &place).await;
        let status = ended.map(|()| status(&call.workspace_id, &id, BoxState::Stopped));
        self.finish(&call, &what, status).await
    }

    async fn fenced(self, call: Call) -> Result<Vec<BoxStatus>, ProviderError> {
        check_key(&call.key)?;
        let workspace = self.workspace(&call.workspace_id)?;
        if let Admission::Replay(outcome) = self.admit(&call, "fence").await? {
            return replayed(outcome);
        }
        let id = call.workspace_id.clone();
        let boxes = blocking(move || {
            let running = boxes_that_run(&workspace)?;
            Ok(running.into_iter().map(|instance| status(&id, &instance, BoxState::Running)).collect())
        })
        .await;
        self.finish(&call, "fence", boxes).await
    }

    /// Under the journal's lock from beginning to end: of two deliveries, the
    /// newer one must be the one that stays.
    async fn delivered(self, call: Call, id: String, plugins: Vec<Plugin>) -> Result<(), ProviderError> {
        check_key(&call.key)?;
        let place = self.place(&call.workspace_id, &id)?;
        let what = format!("deliver to {id}");
        self.journaled(&call, move |journal, call| {
            if let Admission::Replay(outcome) = journal.admit(call, &what)? {
                return replayed(outcome);
            }
            let result = match place.runs().map_err(unknown)? {
                true => files::write(&place.plugins(), &plugins).map_err(unknown),
                false => {
                    let detail = format!("box {id:?} does not run");
                    Err(ProviderError::Refused { code: "not_running".to_owned(), detail })
                }
            };
            if let Some(outcome) = outcome(&result)? {
                journal.finish(&call.key, &what, outcome).map_err(unknown)?;
            }
            result
        })
        .await
    }

    async fn state(&self, place: &Place) -> Result<BoxState, ProviderError> {
        let place = place.clone();
        blocking(move || match place.runs().map_err(unknown)? {
            true => Ok(BoxState::Running),
            false => Ok(BoxState::Stopped),
        })
        .await
    }

    async fn all(&self) -> Result<Vec<ListedBox>, ProviderError> {
        let dir = self.0.dir.clone();
        blocking(move || {
            let mut all = Vec::new();
            for name in files::names(&dir).map_err(unknown)? {
                let Some(id) = names::decode(&name) else { continue };
                let workspace = dir.join(name);
                for instance in boxes_that_run(&workspace)? {
                    let run = Place::of(&workspace, &name_of(&instance)?).run().map_err(unknown)?;
                    all.push(ListedBox {
                        workspace_id: id.clone(),
                        instance_id: instance,
                        state: BoxState::Running,
                        registry_id: run.and_then(|run| run.registry_id),
                    });
                }
            }
            all.sort_by(|a, b| (&a.workspace_id, &a.instance_id).cmp(&(&b.workspace_id, &b.instance_id)));
            Ok(all)
        })
        .await
    }
}

impl Provisioner for Process {
    fn start<'a>(&'a self, call: &'a Call, instance_id: &'a str, spec: &'a BoxSpec) -> Answer<'a, BoxStatus> {
        Box::pin(carried(self.clone().started(call.clone(), instance_id.to_owned(), spec.clone())))
    }

    fn stop<'a>(&'a self, call: &'a Call, instance_id: &'a str) -> Answer<'a, BoxStatus> {
        Box::pin(carried(self.clone().stopped(call.clone(), instance_id.to_owned())))
    }

    fn fence<'a>(&'a self, call: &'a Call) -> Answer<'a, Vec<BoxStatus>> {
        Box::pin(carried(self.clone().fenced(call.clone())))
    }

    fn deliver<'a>(&'a self, call: &'a Call, instance_id: &'a str, plugins: &'a [Plugin]) -> Answer<'a, ()> {
        Box::pin(carried(self.clone().delivered(call.clone(), instance_id.to_owned(), plugins.to_vec())))
    }

    fn status<'a>(&'a self, workspace_id: &'a str, instance_id: &'a str) -> Answer<'a, BoxStatus> {
        Box::pin(async move {
            let state = self.state(&self.place(workspace_id, instance_id)?).await?;
            Ok(status(workspace_id, instance_id, state))
        })
    }

    fn list(&self) -> Answer<'_, Vec<ListedBox>> {
        Box::pin(self.all())
    }
}

/// A call that was begun is carried through, even when its caller no longer
/// waits: between SIGTERM and SIGKILL lies more than some would wait for.
async fn carried<T: Send + 'static>(
    work: impl Future<Output = Result<T, ProviderError>> + Send + 'static,
) -> Result<T, ProviderError> {
    tokio::spawn(work).await.unwrap_or_else(|e| Err(ProviderError::Unknown { why: e.to_string() }))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(ProviderError::Unknown { why: e.to_string() }))
}

/// A failing disk says nothing about the box.
fn unknown(error: std::io::Error) -> ProviderError {
    ProviderError::Unknown { why: error.to_string() }
}

fn name_of(id: &str) -> Result<String, ProviderError> {
    names::encode(id).ok_or_else(|| {
        let detail = format!("{id:?} makes no file name");
        ProviderError::Refused { code: "bad_name".to_owned(), detail }
    })
}

fn status(workspace_id: &str, instance_id: &str, state: BoxState) -> BoxStatus {
    BoxStatus { workspace_id: workspace_id.to_owned(), instance_id: instance_id.to_owned(), state }
}

/// What of a result is final. None: a repeat shall try again.
fn outcome<T: Serialize>(result: &Result<T, ProviderError>) -> Result<Option<Outcome>, ProviderError> {
    Ok(match result {
        Ok(done) => Some(Outcome::Done(serde_json::to_value(done).map_err(|e| unknown(e.into()))?)),
        Err(ProviderError::Refused { code, detail }) => {
            Some(Outcome::Refused { code: code.clone(), detail: detail.clone() })
        }
        Err(_) => None,
    })
}

fn replayed<T: DeserializeOwned>(outcome: Outcome) -> Result<T, ProviderError> {
    match outcome {
        Outcome::Done(value) => serde_json::from_value(value).map_err(|e| unknown(e.into())),
        Outcome::Refused { code, detail } => Err(ProviderError::Refused { code, detail }),
    }
}

/// Mends what everybody could read: the workspaces' directories, and in them what
/// an older version made. Not DIR itself, which may hold other things.
fn tighten(dir: &Path) {
    let workspaces = files::names(dir).unwrap_or_default();
    for workspace in workspaces.into_iter().filter(|name| names::decode(name).is_some()) {
        let workspace = dir.join(workspace);
        modes::tighten(&workspace);
        modes::tighten(&workspace.join("lock"));
        for name in files::names(&workspace.join("boxes")).unwrap_or_default() {
            let place = Place::of(&workspace, &name);
            [place.dir.clone(), place.log(), place.lock()].iter().for_each(|path| modes::tighten(path));
        }
    }
}

/// The instances of a workspace that run. Blocks.
fn boxes_that_run(workspace: &Path) -> Result<Vec<String>, ProviderError> {
    let mut running = Vec::new();
    for name in files::names(&workspace.join("boxes")).map_err(unknown)? {
        let Some(id) = names::decode(&name) else { continue };
        if Place::of(workspace, &name).runs().map_err(unknown)? {
            running.push(id);
        }
    }
    running.sort();
    Ok(running)
}
