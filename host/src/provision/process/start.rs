//! What a start does once it is accepted.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::journal::Journal;
use super::place::{MARK, Place, TOKEN};
use super::supervisor::{Job, VERB, Word};
use super::{Process, blocking, boxes_that_run, files, names, unknown};
use crate::provision::{BoxSpec, BoxState, Call, ProviderError};

impl Process {
    pub(super) async fn bring_up(
        &self,
        call: &Call,
        id: &str,
        place: &Place,
        spec: &BoxSpec,
    ) -> Result<BoxState, ProviderError> {
        let workspace = self.workspace(&call.workspace_id)?;
        let volume = spec.persistent_volume.then(|| workspace.join("volume"));
        let dirs: Vec<_> = [Some(place.dir.clone()), volume.clone()].into_iter().flatten().collect();
        let (own, kept, fence) = (id.to_owned(), self.0.kept_boxes, call.fence);
        let running = blocking(move || {
            for dir in dirs {
                files::make_dir(&dir).map_err(unknown)?;
            }
            prune(&workspace, kept, &own);
            let running = in_the_way(&workspace)?;
            // What runs may be a newer call's, and then it is that, not the box, that stands in the way.
            match Journal::in_dir(&workspace).newest().map_err(unknown)? {
                Some(newest) if newest.fence > fence => Err(ProviderError::Stale { accepted: newest.fence }),
                _ => Ok(running),
            }
        })
        .await?;
        if running.iter().any(|other| other == id) {
            return Ok(BoxState::Running);
        }
        if let Some(other) = running.first() {
            let detail = format!("box {other:?} of this workspace runs; stop it first");
            return Err(ProviderError::Refused { code: "already_running".to_owned(), detail });
        }
        match self.spawn(place, &self.job(call, id, place, spec, volume)).await? {
            Word::Started => Ok(BoxState::Running),
            Word::Already | Word::Held => self.state(place).await,
            Word::Overtaken { accepted } => Err(ProviderError::Stale { accepted }),
            Word::Failed { why } => {
                Err(ProviderError::Refused { code: "spawn_failed".to_owned(), detail: why })
            }
        }
    }

    /// The agent sees what the host says of the box, and of the host's own environment nothing.
    fn job(&self, call: &Call, id: &str, place: &Place, spec: &BoxSpec, volume: Option<PathBuf>) -> Job {
        let text = |path: &Path| path.display().to_string();
        let mut env = self.0.env.clone();
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        set("SPRAG_REGISTRY_ID", spec.registry_id.clone());
        set("SPRAG_URL", spec.registry_url.clone());
        set(TOKEN, spec.token.0.clone());
        set("SPRAG_WORKSPACE_ID", call.workspace_id.clone());
        set("SPRAG_INSTANCE_ID", id.to_owned());
        set("SPRAG_KIND", spec.kind.clone());
        set("SPRAG_RUNTIME", spec.runtime.clone());
        set(MARK, text(&place.control()));
        set("SPRAG_PLUGINS_FILE", text(&place.plugins()));
        if let Some(tier) = &spec.tier {
            set("SPRAG_TIER", tier.clone());
        }
        if let Some(volume) = volume {
            set("SPRAG_VOLUME", text(&volume));
        }
        // As agents of the field call them; the operator's own word goes first.
        // They look for `.auth_token` in the directory that the last one names.
        for (name, value) in [
            ("WORKSPACE_ID", call.workspace_id.clone()),
            ("PLATFORM_URL", spec.registry_url.clone()),
            ("CONFIGS_DIR", text(&place.dir)),
        ] {
            env.entry(name.to_owned()).or_insert(value);
        }
        let (program, args) = match self.0.command.split_first() {
            Some((program, args)) => (program.clone(), args.to_vec()),
            None => (text(&self.0.sprag), vec!["agent".to_owned()]),
        };
        let (key, registry_id) = (call.key.clone(), Some(spec.registry_id.clone()));
        Job { fence: call.fence, key, registry_id, program, args, env }
    }

    async fn spawn(&self, place: &Place, job: &Job) -> Result<Word, ProviderError> {
        let log = files::log(&place.log()).map_err(unknown)?;
        let mut child = Command::new(&self.0.sprag)
            .arg(VERB)
            .arg(&place.dir)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(unknown)?;
        if let Some(mut stdin) = child.stdin.take() {
            let text = serde_json::to_vec(job).map_err(|e| unknown(e.into()))?;
            stdin.write_all(&text).await.map_err(unknown)?;
            stdin.shutdown().await.map_err(unknown)?;
        }
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).await.map_err(unknown)?;
        }
        // Not waited for: the runtime reaps it whenever it ends.
        serde_json::from_str(&line).map_err(|_| {
            let why = format!("the supervisor ended without a word; see {}", place.log().display());
            ProviderError::Unknown { why }
        })
    }
}

/// The instances of a workspace that keep another from starting: those that run,
/// unless they were killed. What is left of the others goes first. Blocks.
fn in_the_way(workspace: &Path) -> Result<Vec<String>, ProviderError> {
    let mut running = boxes_that_run(workspace)?;
    for name in files::names(&workspace.join("boxes")).map_err(unknown)? {
        let place = Place::of(workspace, &name);
        let Some(id) = names::decode(&name) else { continue };
        if running.contains(&id) {
            if place.is_given_up().map_err(unknown)? {
                running.retain(|other| *other != id);
            }
        } else if let Err(error) = place.sweep() {
            // It was killed, and whenever it goes it does nothing more: nobody waits for it.
            tracing::warn!(workspace = %workspace.display(), instance.id = id, %error, "starting another box");
        }
    }
    Ok(running)
}

/// Removes the directories of boxes that ended, but for the newest. Blocks.
/// What can't be removed stays: it is a log that nobody asked for.
fn prune(workspace: &Path, kept: usize, own: &str) {
    let mut ended: Vec<_> = files::names(&workspace.join("boxes"))
        .unwrap_or_default()
        .into_iter()
        .filter(|name| names::decode(name).is_some_and(|id| id != own))
        .map(|name| Place::of(workspace, &name))
        // What is left of a box can't be found any more without its directory.
        .filter(|place| place.sweep().unwrap_or(false))
        .filter_map(|place| Some((place.dir.metadata().ok()?.modified().ok()?, place.dir)))
        .collect();
    ended.sort();
    let too_many = ended.len().saturating_sub(kept);
    for (_, dir) in ended.into_iter().take(too_many) {
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "an ended box's directory can't be removed");
        }
    }
}
