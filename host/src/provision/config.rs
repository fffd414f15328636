//! `[provisioning]`, how patient the host is with providers, and
//! `[providers.NAME]`, which there are. None is configured by default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Provisioner;
use super::control_plane::{ControlPlane, Secret};
use super::process::{Process, Settings};
use crate::outgoing::{How, OutgoingError, Proxy};
use crate::secret::{SecretError, Source};

/// What holds for every provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProvisioningConfig {
    /// Where boxes reach this host. Default: the address that it listens on.
    pub registry_url: Option<String>,
    /// How long one attempt may take, in milliseconds.
    pub call_timeout_ms: u64,
    /// Attempts of a start, a fence or a delivery.
    pub attempts: u32,
    /// Attempts of a stop.
    pub stop_attempts: u32,
    /// The pause after the first attempt, in milliseconds; it doubles from one to the next.
    pub backoff_ms: u64,
    /// The longest pause, in milliseconds.
    pub backoff_max_ms: u64,
    /// PEM certificates that providers' are checked against, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// What calls to providers go through. Without it they go straight there,
    /// whatever the environment says.
    pub proxy: Option<String>,
}

impl Default for ProvisioningConfig {
    fn default() -> Self {
        Self {
            registry_url: None,
            call_timeout_ms: 15_000,
            attempts: 4,
            stop_attempts: 8,
            backoff_ms: 250,
            backoff_max_ms: 10_000,
            ca_file: None,
            proxy: None,
        }
    }
}

/// The configured providers by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProvidersConfig(pub BTreeMap<String, ProviderConfig>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ProviderConfig {
    Process(ProcessConfig),
    ControlPlane(ControlPlaneConfig),
}

/// Agents as local processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessConfig {
    /// Where everything about the boxes lies; on a local file system.
    pub dir: PathBuf,
    /// Program and arguments of the agent. Empty: `sprag agent`.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables of the agent, besides those that the host sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables that the agent gets as the host has them; no others.
    #[serde(default = "pass_env")]
    pub pass_env: Vec<String>,
    /// How long an agent has between SIGTERM and SIGKILL, in milliseconds.
    #[serde(default = "stop_grace_ms")]
    pub stop_grace_ms: u64,
    /// Directories of ended boxes that are kept, by workspace.
    #[serde(default = "kept_boxes")]
    pub kept_boxes: usize,
}

fn pass_env() -> Vec<String> {
    ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"].map(str::to_owned).to_vec()
}

fn stop_grace_ms() -> u64 {
    5_000
}

fn kept_boxes() -> usize {
    8
}

/// A service that owns the boxes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlaneConfig {
    /// What stands before `/v1/…`.
    pub url: String,
    /// A file that holds the bearer token; it may be replaced while the host runs.
    pub token_file: Option<PathBuf>,
    /// The name of the variable that holds it, instead of a file.
    pub token_env: Option<String>,
    /// Instead of `provisioning.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// Instead of `provisioning.proxy`; empty: none.
    pub proxy: Option<String>,
}

/// What is wrong with the configuration of a provider.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{name:?} is no name of a provider; expected 1 to 64 of a-z, 0-9, - and _")]
    Name { name: String },
    #[error("provisioning.{key} must not be 0")]
    Zero { key: &'static str },
    #[error(
        "providers.{name}.stop_grace_ms is {grace_ms}; \
         within provisioning.call_timeout_ms ({timeout_ms}) no stop could be answered"
    )]
    Grace { name: String, grace_ms: u64, timeout_ms: u64 },
    #[error("providers.{name}.kept_boxes is 0; at least 1, or a box that is starting could be cleared away")]
    Kept { name: String },
    #[error("providers.{name} needs one of token_file and token_env")]
    Token { name: String },
    #[error("providers.{name}: no token")]
    NoToken {
        name: String,
        #[source]
        source: SecretError,
    },
    #[error("providers.{name}: the file {} is not to be read", path.display())]
    File {
        name: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("providers.{name}")]
    Client {
        name: String,
        #[source]
        source: OutgoingError,
    },
}

impl ProvidersConfig {
    /// The rules that need no look at the world.
    ///
    /// # Errors
    /// The first that is broken.
    pub fn check(&self, common: &ProvisioningConfig) -> Result<(), ConfigError> {
        let counts = [
            ("call_timeout_ms", common.call_timeout_ms),
            ("attempts", common.attempts.into()),
            ("stop_attempts", common.stop_attempts.into()),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(ConfigError::Zero { key });
        }
        for (name, provider) in &self.0 {
            let usable = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
            if !(1..=64).contains(&name.len()) || !name.bytes().all(usable) {
                return Err(ConfigError::Name { name: name.clone() });
            }
            match provider {
                ProviderConfig::Process(process) if process.stop_grace_ms >= common.call_timeout_ms => {
                    return Err(ConfigError::Grace {
                        name: name.clone(),
                        grace_ms: process.stop_grace_ms,
                        timeout_ms: common.call_timeout_ms,
                    });
                }
                ProviderConfig::Process(process) if process.kept_boxes == 0 => {
                    return Err(ConfigError::Kept { name: name.clone() });
                }
                ProviderConfig::ControlPlane(plane)
                    if plane.token_file.is_some() == plane.token_env.is_some() =>
                {
                    return Err(ConfigError::Token { name: name.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The providers themselves. `sprag` is this binary, which runs boxes of `process`.
    ///
    /// # Errors
    /// A token that is not there, a URL that is none.
    pub fn build(
        &self,
        common: &ProvisioningConfig,
        sprag: &Path,
    ) -> Result<BTreeMap<String, Arc<dyn Provisioner>>, ConfigError> {
        let mut built: BTreeMap<String, Arc<dyn Provisioner>> = BTreeMap::new();
        for (name, provider) in &self.0 {
            let provider: Arc<dyn Provisioner> = match provider {
                ProviderConfig::Process(process) => Arc::new(Process::new(process.settings(name, sprag)?)),
                ProviderConfig::ControlPlane(plane) => {
                    let client = ControlPlane::with(&plane.url, plane.secret(name)?, &plane.how(common));
                    let bad = |source| ConfigError::Client { name: name.clone(), source };
                    Arc::new(client.map_err(bad)?)
                }
            };
            built.insert(name.clone(), provider);
        }
        Ok(built)
    }
}

impl ProcessConfig {
    fn settings(&self, name: &str, sprag: &Path) -> Result<Settings, ConfigError> {
        let bad = |source| ConfigError::File { name: name.to_owned(), path: self.dir.clone(), source };
        let passed = self.pass_env.iter().filter_map(|key| Some((key.clone(), std::env::var(key).ok()?)));
        let mut env: BTreeMap<_, _> = passed.collect();
        env.extend(self.env.clone());
        Ok(Settings {
            dir: std::path::absolute(&self.dir).map_err(bad)?,
            sprag: sprag.to_owned(),
            command: self.command.clone(),
            env,
            stop_grace: Duration::from_millis(self.stop_grace_ms),
            kept_boxes: self.kept_boxes,
        })
    }
}

impl ControlPlaneConfig {
    fn how<'a>(&'a self, common: &'a ProvisioningConfig) -> How<'a> {
        let proxy = self.proxy.as_deref().or(common.proxy.as_deref());
        How {
            ca_file: self.ca_file.as_deref().or(common.ca_file.as_deref()),
            proxy: Proxy::Configured(proxy.filter(|proxy| !proxy.is_empty())),
            timeout: None,
        }
    }

    /// A file is read now as well, so that a host without its token does not start.
    fn secret(&self, name: &str) -> Result<Secret, ConfigError> {
        let source = match (&self.token_file, &self.token_env) {
            (Some(path), _) => Source::File(path.clone()),
            (None, variable) => Source::Variable(variable.clone().unwrap_or_default()),
        };
        let token = source.read().map_err(|source| ConfigError::NoToken { name: name.to_owned(), source })?;
        Ok(match source {
            Source::File(path) => Secret::File(path),
            _ => Secret::Value(token.reveal().to_owned()),
        })
    }
}
