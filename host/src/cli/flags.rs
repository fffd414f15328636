//! Flags and their variables. What stands on the command line wins over what
//! stands in the environment, also between two flags that answer the same
//! question; a variable that is set and empty is not set.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error, Parser};

/// Flags of which one is enough, by verb (none: of every verb that has them). Of
/// two on the command line neither is taken for meant; of two variables the first is.
const EITHER: [(Option<&str>, [&str; 2]); 2] =
    [(None, ["admin_token", "admin_token_file"]), (Some("replay"), ["policy_dir", "database_url"])];

/// Parses this process's arguments; ends it where they are not to be understood.
pub(super) fn parse<C: Parser>() -> C {
    parsed(std::env::args_os().collect()).unwrap_or_else(|error| error.exit())
}

/// # Errors
/// Arguments that are not to be understood, or answer one question twice.
pub(super) fn parsed<C: Parser>(arguments: Vec<OsString>) -> Result<C, Error> {
    let mut command = without_blank(C::command());
    let mut matches = command.clone().try_get_matches_from(&arguments)?;
    let beaten = beaten(&mut command, &matches)?;
    if !beaten.is_empty() {
        let (verbs, ids) = (verbs(&matches), beaten);
        command = without_variables(command, &verbs, &ids);
        matches = command.clone().try_get_matches_from(&arguments)?;
    }
    C::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// A variable that holds nothing counts as one that is not there.
fn without_blank(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let value = argument.get_env().and_then(std::env::var_os);
        let blank = value.is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()));
        if blank { argument.env(None) } else { argument }
    });
    command.mut_subcommands(without_blank)
}

/// The flags that stand in the environment while another, which answers the same
/// question, stands on the command line.
fn beaten(command: &mut Command, matches: &ArgMatches) -> Result<Vec<&'static str>, Error> {
    let (mut here, mut found, mut verb) = (matches, Vec::new(), None::<&str>);
    loop {
        for (only, ids) in EITHER {
            let has = |id: &str| here.try_contains_id(id).is_ok();
            if only.is_some_and(|only| verb != Some(only)) || !ids.into_iter().all(has) {
                continue;
            }
            let written = |id: &&str| here.value_source(id) == Some(ValueSource::CommandLine);
            match ids.into_iter().filter(written).count() {
                0 => {}
                1 => found.extend(ids.into_iter().filter(|id| !written(id))),
                _ => {
                    let flags = ids.map(|id| format!("--{}", id.replace('_', "-")));
                    let message = format!("{} and {} answer the same; say one of them", flags[0], flags[1]);
                    return Err(command.error(ErrorKind::ArgumentConflict, message));
                }
            }
        }
        let Some((name, below)) = here.subcommand() else { return Ok(found) };
        (verb, here) = (Some(name), below);
    }
}

fn verbs(matches: &ArgMatches) -> Vec<String> {
    let below = matches.subcommand().map(|(name, below)| (name.to_owned(), verbs(below)));
    below.map_or(Vec::new(), |(name, rest)| std::iter::once(name).chain(rest).collect())
}

/// These flags of these verbs are read from the command line alone.
fn without_variables(command: Command, verbs: &[String], ids: &[&str]) -> Command {
    let command = command.mut_args(|argument| {
        if ids.contains(&argument.get_id().as_str()) { argument.env(None) } else { argument }
    });
    match verbs.split_first() {
        Some((verb, rest)) => command.mut_subcommand(verb, |below| without_variables(below, rest, ids)),
        None => command,
    }
}

#[cfg(test)]
mod tests;
