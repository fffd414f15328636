//! `sprag migrate`: the schema alone, for those who don't let a host do it.

use std::process::ExitCode;

use anyhow::Context;

use crate::store::Store;

#[derive(clap::Args)]
pub struct Args {
    /// sqlite:PATH or postgres://…
    #[arg(long, env = "SPRAG_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: String,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let _sole = super::sole(&args.database_url, "sprag migrate").context("opening the database")?;
    let store = Store::connect(&args.database_url).await.context("opening the database")?;
    store.migrate().await.context("migrating the database")?;
    store.close().await;
    Ok(ExitCode::SUCCESS)
}
