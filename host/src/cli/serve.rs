//! `sprag serve`: puts the host together, runs it until it is told to stop,
//! and takes it apart in the order that keeps what was answered.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::advance::Advance;
use crate::claims::Claims;
use crate::config::{Config, Flags};
use crate::effects::{Effects, Webhook};
use crate::heartbeats::Heartbeats;
use crate::http::{self, Access, Api, Registry};
use crate::loops::{Loops, Parts};
use crate::metrics::Metrics;
use crate::provision::Dispatcher;
use crate::revisions::{self, Revisions, watch};
use crate::secret::{SecretError, Source};
use crate::store::Store;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    /// The admin token; without it one is made at first start and its file printed
    #[arg(long, env = "SPRAG_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.flags)?;
    super::log::start(config.log_format)?;
    let admin_token = args.admin_token.as_deref().map(given).transpose()?;
    host(config, admin_token, Router::new()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a host until SIGINT or SIGTERM; `also` are routes beside its own. Without an
/// `admin_token` that of the state directory serves, and is made where there is none.
/// A host that can't start has changed nothing: what is asked for is looked at first,
/// then the database is opened, and last come files of its own.
///
/// # Errors
/// What it could not start, or could not end, cleanly.
pub async fn host(mut config: Config, admin_token: Option<String>, also: Router) -> anyhow::Result<()> {
    config.http.module_bytes = config.limits.most().module_bytes;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
    config.listen = listener.local_addr()?;
    let providers = config
        .providers
        .build(&config.provisioning, &super::this_binary()?)
        .context("setting the providers up")?;
    let dispatcher = Arc::new(Dispatcher::new(providers, config.provisioning.clone()));

    let mut answers = true;
    if let Some(dir) = &config.policy_dir {
        let reading = || format!("reading the policy directory {}", dir.display());
        answers = revisions::answers(dir).await.with_context(reading)?;
    }
    let webhook = Webhook::of(&config.notify).context("setting notices up")?;
    let _sole = super::sole(&config.database_url, &format!("the host at {}", config.listen))
        .context("opening the database")?;
    let store =
        Store::connect_with(&config.database_url, &config.database).await.context("opening the database")?;
    store.migrate().await.context("migrating the database")?;
    let admin_token = admin_token.map_or_else(|| kept_token(&config.state_dir()), Ok)?;
    let metrics = Arc::new(Metrics::default());
    let sandbox = super::sandbox(config.limits.clone(), Some(config.compiled_dir()))?;
    let revisions = Arc::new(Revisions::new(store.clone(), sandbox, metrics.clone()));
    if let Err(error) = revisions.follow().await {
        tracing::error!(error = &error as &dyn std::error::Error, "the active revision can't be loaded");
    }

    let stop = CancellationToken::new();
    let background = TaskTracker::new();
    if let Some(dir) = config.policy_dir.clone() {
        let mut directory = watch::Directory::new(revisions.clone(), dir);
        match answers {
            true => directory.load().await,
            false => tracing::error!("the policy directory does not answer; it is loaded once it does"),
        }
        background.spawn(directory.follow(stop.clone()));
    }
    let every = Duration::from_millis(config.follow_revisions_ms.max(10));
    background.spawn(watch::database(revisions.clone(), every, stop.clone()));
    let advance = Advance::new(store.clone(), revisions.active(), metrics.clone(), config.decision_sample);
    let claims = Claims::new(
        store.clone(),
        advance.clone(),
        dispatcher.clone(),
        metrics.clone(),
        config.claims.clone(),
        config.registry_url(),
    );
    let effects = Effects::new(
        store.clone(),
        dispatcher.clone(),
        claims.clone(),
        webhook,
        metrics.clone(),
        config.effects.clone(),
    );
    let parts = Parts {
        store: store.clone(),
        advance: advance.clone(),
        claims: claims.clone(),
        effects: effects.clone(),
        dispatcher,
        metrics: metrics.clone(),
        name: name(config.listen),
    };
    let loops = Arc::new(Loops::new(&parts, &config.loops, &config.brake));
    let looping = tokio::spawn(loops.clone().run(stop.clone()));
    background.close();
    let (heartbeats, collector) =
        Heartbeats::start(store.clone(), advance.clone(), metrics.clone(), &config.heartbeats);
    let api = Api {
        registry: Arc::new(Registry {
            store: store.clone(),
            advance,
            claims: claims.clone(),
            heartbeats,
            loops,
            privileged_plugins: config.effects.privileged_plugins.clone(),
            metrics,
        }),
        revisions,
        access: Arc::new(Access::new(&admin_token, config.registration)),
    };
    stop_on_signal(stop.clone()).context("listening for signals")?;
    tracing::info!(listen = %listener.local_addr()?, "serving");
    let mut collector = collector;
    tokio::select! {
        served = http::serve_also(listener, api, &config.http, stop.clone(), also) => served?,
        // It ends after the last request. Before that, a host that stores no heartbeats is none.
        ended = &mut collector => {
            ended.context("collecting heartbeats")?;
            anyhow::bail!("the collector of heartbeats ended while the host was serving");
        }
    }

    // Every request is answered, so every handle to the queue is gone; what it held is stored.
    stop.cancel();
    // First those who hand out work, then those who do it.
    looping.await.context("ending the loops")?;
    claims.shut_down().await;
    effects.shut_down().await;
    collector.await.context("storing the last heartbeats")?;
    background.wait().await;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// What this host goes by among the others: after a restart it is the same one.
fn name(listen: SocketAddr) -> String {
    let machine = rustix::system::uname();
    format!("{}:{}", machine.nodename().to_string_lossy(), listen.port())
}

/// From when this returns a signal stops the host and does not kill it.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: no new requests, those under way are answered");
        stop.cancel();
    });
    Ok(())
}

/// The token of the command line or its variable.
fn given(token: &str) -> anyhow::Result<String> {
    let token = Source::Given("--admin-token (SPRAG_ADMIN_TOKEN)").secret(token.as_bytes())?;
    let length = token.reveal().len();
    anyhow::ensure!(length >= 16, "the admin token has {length} characters; use 16 or more");
    Ok(token.reveal().to_owned())
}

/// The one in the state directory, made at first start.
fn kept_token(state_dir: &Path) -> anyhow::Result<String> {
    // Its own, where it is new. One that is there may be anything, the working directory say;
    // what is put into it is private by itself.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    made.with_context(|| format!("making {}", state_dir.display()))?;
    let path = state_dir.join("admin-token");
    match Source::File(path.clone()).read() {
        Ok(token) => {
            let mode = std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
            anyhow::ensure!(
                mode.permissions().mode() & 0o077 == 0,
                "others can read {}; have a new token made (delete it), or chmod 600 it",
                path.display()
            );
            return Ok(token.reveal().to_owned());
        }
        Err(SecretError::Empty { .. }) => {
            anyhow::bail!("{} is empty; delete it and start again to have a new one made", path.display())
        }
        Err(SecretError::Unreadable { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let token = http::new_token().context("making the admin token")?;
    // Whole or not at all, and of mode 0600 from its first byte.
    let write = || -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
        writeln!(file, "{token}")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&path)?;
        Ok(())
    };
    write().with_context(|| format!("making {}", path.display()))?;
    super::say(&format!("made an admin token; it lies in {}", path.display()));
    Ok(token)
}
