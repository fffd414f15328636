//! What an operator can set: a TOML file, `SPRAG_…` variables, flags; the later
//! of these wins. Every bound of the host has its name and default here or in
//! the section's own type.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::claims::ClaimsConfig;
use crate::effects::{EffectsConfig, NotifyConfig};
use crate::heartbeats::BatchConfig;
use crate::http::{HttpConfig, Registration};
use crate::loops::{BrakeConfig, LoopsConfig};
use crate::policy::Limits;
use crate::provision::{ProvidersConfig, ProvisioningConfig};
use crate::store::PoolOptions;
use crate::written;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// `sqlite:PATH` or `postgres://…`.
    pub database_url: String,
    /// Every `*.wasm` here is loaded at start and when the directory changes.
    pub policy_dir: Option<PathBuf>,
    /// Who may register a workspace that has no live token yet.
    pub registration: Registration,
    /// Allows `registration = "open"` on an address that others can reach.
    pub open_registration_to_everyone: bool,
    /// The admin token's file and compiled code lie here. Default: beside the
    /// SQLite file, otherwise `.sprag`.
    pub state_dir: Option<PathBuf>,
    pub log_format: LogFormat,
    /// One in this many decisions that moved and denied nothing is kept; 0: none.
    pub decision_sample: u64,
    /// How often the host looks whether another one activated a revision, in milliseconds.
    pub follow_revisions_ms: u64,
    pub database: PoolOptions,
    pub heartbeats: BatchConfig,
    pub claims: ClaimsConfig,
    pub effects: EffectsConfig,
    pub notify: NotifyConfig,
    pub loops: LoopsConfig,
    pub brake: BrakeConfig,
    pub http: HttpConfig,
    pub limits: Limits,
    pub provisioning: ProvisioningConfig,
    pub providers: ProvidersConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7171)),
            database_url: "sqlite:sprag.db".to_owned(),
            policy_dir: None,
            registration: Registration::Token,
            open_registration_to_everyone: false,
            state_dir: None,
            log_format: LogFormat::Text,
            decision_sample: 1_000,
            follow_revisions_ms: 1_000,
            database: PoolOptions::default(),
            heartbeats: BatchConfig::default(),
            claims: ClaimsConfig::default(),
            effects: EffectsConfig::default(),
            notify: NotifyConfig::default(),
            loops: LoopsConfig::default(),
            brake: BrakeConfig::default(),
            http: HttpConfig::default(),
            limits: Limits::default(),
            provisioning: ProvisioningConfig::default(),
            providers: ProvidersConfig::default(),
        }
    }
}

/// The flags of `sprag serve`, each also an environment variable.
#[derive(Args, Clone, Debug, Default)]
pub struct Flags {
    /// A TOML file that may hold all of this and more (docs/operating.md)
    #[arg(long, env = "SPRAG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:7171]
    #[arg(long, env = "SPRAG_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// sqlite:PATH or postgres://… [default: sqlite:sprag.db]
    #[arg(long, env = "SPRAG_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Load every *.wasm here, now and when the directory changes
    #[arg(long, env = "SPRAG_POLICY_DIR", value_name = "DIR")]
    pub policy_dir: Option<PathBuf>,
    /// Who may register a workspace that has no live token [default: token]
    #[arg(long, env = "SPRAG_REGISTRATION")]
    pub registration: Option<Registration>,
    /// Allow open registration on an address that others can reach
    #[arg(
        long, env = "SPRAG_OPEN_REGISTRATION_TO_EVERYONE", value_name = "true|false", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub open_registration_to_everyone: Option<bool>,
    /// Where the admin token's file and compiled code lie
    #[arg(long, env = "SPRAG_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// How log lines on standard error look [default: text]
    #[arg(long, env = "SPRAG_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// File, then variables and flags, then the checks that need the whole.
    ///
    /// # Errors
    /// A file that can't be read, names an unknown key or breaks a rule.
    pub fn load(flags: &Flags) -> anyhow::Result<Self> {
        let mut config = match &flags.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        if let Some(listen) = flags.listen {
            config.listen = listen;
        }
        if let Some(url) = &flags.database_url {
            config.database_url.clone_from(url);
        }
        if let Some(dir) = &flags.policy_dir {
            config.policy_dir = Some(dir.clone());
        }
        if let Some(registration) = flags.registration {
            config.registration = registration;
        }
        if let Some(dir) = &flags.state_dir {
            config.state_dir = Some(dir.clone());
        }
        if let Some(format) = flags.log_format {
            config.log_format = format;
        }
        if let Some(open) = flags.open_registration_to_everyone {
            config.open_registration_to_everyone = open;
        }
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let read = toml::from_str(&text).map_err(|error| anyhow::Error::msg(written::why_not(&text, &error)));
        read.with_context(|| format!("reading {}", path.display()))
    }

    fn check(&self) -> anyhow::Result<()> {
        let open = self.registration == Registration::Open;
        if open && !self.listen.ip().is_loopback() && !self.open_registration_to_everyone {
            bail!(
                "registration \"open\" on {} would hand a token to anybody who can reach it; \
                 listen on a loopback address, use registration \"token\", \
                 or say open_registration_to_everyone = true",
                self.listen
            );
        }
        self.providers.check(&self.provisioning)?;
        self.claims.check().map_err(anyhow::Error::msg)?;
        self.loops.check().map_err(anyhow::Error::msg)?;
        self.brake.check().map_err(anyhow::Error::msg)?;
        if self.loops.silent_after_ms <= self.brake.lost_ms {
            bail!(
                "loops.silent_after_ms is {}; more than brake.lost_ms, {}: \
                 the agents of a host that is lost would count as silent before it does",
                self.loops.silent_after_ms,
                self.brake.lost_ms
            );
        }
        self.effects.check(&self.provisioning).map_err(anyhow::Error::msg)?;
        let nowhere = self.listen.ip().is_unspecified() && self.provisioning.registry_url.is_none();
        if nowhere && !self.providers.0.is_empty() {
            bail!(
                "boxes can't reach the host at {}; say where they can: provisioning.registry_url",
                self.listen
            );
        }
        Ok(())
    }

    /// Where boxes reach this host; without a slash at its end.
    pub fn registry_url(&self) -> String {
        let url = self.provisioning.registry_url.clone();
        url.unwrap_or_else(|| format!("http://{}", self.listen)).trim_end_matches('/').to_owned()
    }

    /// What verbs beside `serve` need of a host's configuration: its limits, and
    /// where it keeps its files. Nothing that is given: the defaults.
    ///
    /// # Errors
    /// A file that can't be read or names an unknown key.
    pub fn of_verb(
        file: Option<&Path>,
        database_url: Option<&str>,
        state_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut config = file.map_or_else(|| Ok(Self::default()), Self::read)?;
        if let Some(url) = database_url {
            url.clone_into(&mut config.database_url);
        }
        if let Some(dir) = state_dir {
            config.state_dir = Some(dir.to_owned());
        }
        Ok(config)
    }

    /// Where this host keeps compiled code.
    pub fn compiled_dir(&self) -> PathBuf {
        self.state_dir().join("compiled")
    }

    /// The same for a verb that is no host: where `asked` for, or where a host
    /// has made it.
    pub fn compiled_before(&self, asked: Option<&Path>) -> Option<PathBuf> {
        let dir = self.compiled_dir();
        (asked.is_some() || (*self != Self::default() && dir.is_dir())).then_some(dir)
    }

    /// Where this host keeps its own files.
    pub fn state_dir(&self) -> PathBuf {
        if let Some(dir) = &self.state_dir {
            return dir.clone();
        }
        let file = self.database_url.strip_prefix("sqlite:").map(|rest| {
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            Path::new(rest.split('?').next().unwrap_or(rest))
        });
        match file.and_then(Path::parent) {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            Some(_) => PathBuf::from("."),
            None => PathBuf::from(".sprag"),
        }
    }
}
