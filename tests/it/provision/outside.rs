//! The providers that the suite runs over. A new value of one is another host.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sprag::provision::Provisioner;
use sprag::provision::control_plane::{ControlPlane as Client, Secret};
use sprag::provision::process::{Process, Settings};
use tempfile::TempDir;

use super::{call, soon};
use crate::support::control_plane::{ControlPlane, TOKEN};
use crate::support::sprag_bin;

/// Which provider.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Process,
    ControlPlane,
}

/// The name of the provider at the control plane.
const AT: &str = "blue";

/// A provider's outside: where its boxes are.
pub struct Outside {
    /// Of the kind `process`.
    pub dir: TempDir,
    plane: Option<ControlPlane>,
}

/// An agent that ends well at SIGTERM, and with 3 when there is a file `end` beside it.
pub const AGENT: &str = "trap 'exit 0' TERM; while [ ! -e end ]; do sleep 0.02; done; exit 3";

impl Outside {
    pub async fn new(kind: Kind) -> Self {
        let plane = match kind {
            Kind::Process => None,
            Kind::ControlPlane => Some(ControlPlane::start(&[AT]).await),
        };
        Self { dir: tempfile::tempdir().expect("a directory"), plane }
    }

    pub fn provider(&self) -> Arc<dyn Provisioner> {
        let Some(plane) = &self.plane else { return self.process(|_| {}) };
        let token = Secret::Value(TOKEN.to_owned());
        Arc::new(Client::new(&plane.base(AT), token).expect("a client"))
    }

    /// A provider `process` that differs.
    pub fn process(&self, change: impl FnOnce(&mut Settings)) -> Arc<dyn Provisioner> {
        let mut settings = Settings {
            dir: self.dir.path().to_owned(),
            sprag: sprag_bin(),
            command: shell(AGENT),
            env: [("PATH".to_owned(), std::env::var("PATH").expect("PATH"))].into(),
            stop_grace: Duration::from_secs(3),
            kept_boxes: 3,
        };
        change(&mut settings);
        Arc::new(Process::new(settings))
    }

    /// The box ends by itself.
    pub async fn end(&self, workspace: &str, instance: &str) {
        if let Some(plane) = &self.plane {
            return plane.end(AT, workspace, instance);
        }
        std::fs::write(self.place(workspace, instance).join("end"), "").expect("writing");
        let provider = self.provider();
        soon("the box has ended", async || {
            let status = provider.status(workspace, instance).await.expect("a status");
            status == super::stopped(workspace, instance)
        })
        .await;
    }

    /// The names of the plugins that were delivered.
    pub fn plugins(&self, workspace: &str, instance: &str) -> Vec<String> {
        if let Some(plane) = &self.plane {
            return plane.plugins(AT, instance).expect("a running box");
        }
        let bytes = std::fs::read(self.place(workspace, instance).join("plugins.json"));
        let plugins: Vec<sprag::provision::Plugin> =
            serde_json::from_slice(&bytes.expect("the plugins")).expect("JSON");
        plugins.into_iter().map(|plugin| plugin.name).collect()
    }

    /// The directory of a box of `process`.
    pub fn place(&self, workspace: &str, instance: &str) -> PathBuf {
        self.dir.path().join(workspace).join("boxes").join(instance)
    }
}

/// No test leaves a process behind.
impl Drop for Outside {
    fn drop(&mut self) {
        stop_all(self.process(|settings| settings.stop_grace = Duration::from_millis(100)));
    }
}

/// Stops every box of a provider, and lets nobody start another.
pub fn stop_all(provider: Arc<dyn Provisioner>) {
    let clean = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for left in provider.list().await? {
                let last = call(&left.workspace_id, "18446744073709551615.0", "the-end");
                provider.stop(&last, &left.instance_id).await?;
            }
            anyhow::Ok(())
        })
    })
    .join();
    if !std::thread::panicking() {
        clean.expect("the thread that stops boxes").expect("stopping what is left");
    }
}

pub fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}
