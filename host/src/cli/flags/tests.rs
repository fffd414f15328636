//! Every flag that has a variable, as clap itself knows them. Variables are set
//! in a child, this very test binary: a process must not change its own.

use std::ffi::OsString;
use std::process::Command as Child;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory as _};

use super::super::Cli;
use super::{parsed, without_blank};

/// What tells the child which variables it has.
const PART: &str = "SPRAG_TEST_FLAGS";

/// A flag with a variable, and what leads to it.
struct Flag {
    verbs: Vec<String>,
    id: String,
    long: String,
    variable: String,
    is_switch: bool,
}

fn flags(command: &Command, verbs: &[String]) -> Vec<Flag> {
    let of = |argument: &Arg| {
        Some(Flag {
            verbs: verbs.to_vec(),
            id: argument.get_id().to_string(),
            long: format!("--{}", argument.get_long()?),
            variable: argument.get_env()?.to_str()?.to_owned(),
            is_switch: matches!(argument.get_action(), ArgAction::SetTrue),
        })
    };
    let mut found: Vec<_> = command.get_arguments().filter_map(of).collect();
    for below in command.get_subcommands() {
        let path: Vec<_> = verbs.iter().cloned().chain([below.get_name().to_owned()]).collect();
        found.extend(flags(below, &path));
    }
    found
}

/// What a flag takes: in the variable, and on the command line.
fn samples(id: &str) -> [&'static str; 2] {
    match id {
        "listen" => ["127.0.0.1:1", "127.0.0.1:2"],
        "registration" => ["open", "token"],
        "log_format" => ["json", "text"],
        "open_registration_to_everyone" => ["true", "false"],
        "heartbeat_ms" => ["1", "2"],
        _ => ["from-the-variable", "from-the-line"],
    }
}

/// The verbs, all that they can't do without but `left_out`, and `rest`.
fn line(flag: &Flag, left_out: &str, rest: &[String]) -> Vec<OsString> {
    let mut command = Cli::command();
    let mut here = &mut command;
    for verb in &flag.verbs {
        here = here.find_subcommand_mut(verb).expect("a verb");
    }
    let mut words = vec!["sprag".to_owned()];
    words.extend(flag.verbs.iter().cloned());
    for argument in here.get_arguments().filter(|a| a.is_required_set() && a.get_id() != left_out) {
        words.extend(argument.get_long().map(|long| format!("--{long}")));
        words.push("x".to_owned());
    }
    words.extend(rest.iter().cloned());
    words.into_iter().map(OsString::from).collect()
}

fn matches(line: Vec<OsString>) -> ArgMatches {
    let command = without_blank(Cli::command());
    let mut found = command.try_get_matches_from(line).unwrap_or_else(|error| panic!("{error}"));
    while let Some((_, below)) = found.subcommand() {
        found = below.clone();
    }
    found
}

fn raw(matches: &ArgMatches, id: &str) -> Option<String> {
    let mut values = matches.get_raw(id)?;
    Some(values.next()?.to_str()?.to_owned())
}

fn all() -> Vec<Flag> {
    flags(&Cli::command(), &[])
}

/// In the child alone, whose every variable holds its sample.
#[test]
fn child_with_all_variables() {
    if std::env::var(PART).as_deref() != Ok("set") {
        return;
    }
    for flag in all() {
        let [variable, written] = samples(&flag.id);
        let name = format!("{} {}", flag.verbs.join(" "), flag.long);
        let found = matches(line(&flag, &flag.id, &[]));
        assert_eq!(found.value_source(&flag.id), Some(ValueSource::EnvVariable), "{name}");
        assert_eq!(raw(&found, &flag.id).as_deref(), Some(variable), "{name}");
        assert!(!flag.is_switch, "{name} can't be switched off again; give it a value");
        let found = matches(line(&flag, &flag.id, &[format!("{}={written}", flag.long)]));
        assert_eq!(found.value_source(&flag.id), Some(ValueSource::CommandLine), "{name}");
        assert_eq!(raw(&found, &flag.id).as_deref(), Some(written), "{name}");
    }
    the_line_beats_the_other_flags_variable();
}

/// Both variables are set: see `child_with_all_variables`.
fn the_line_beats_the_other_flags_variable() {
    let token = |rest: &[&str]| {
        let words = ["sprag", "workspace", "list"].iter().chain(rest);
        let cli: Result<Cli, _> = parsed(words.map(OsString::from).collect());
        let super::super::Verb::Workspace(args) = cli.map_err(|error| error.to_string())?.verb else {
            panic!("another verb")
        };
        let (token, file) = args.host().expect("it asks a host").token_sources();
        Ok::<_, String>((token.map(str::to_owned), file.map(|file| file.display().to_string())))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(token(&["--admin-token-file", "f"]), Ok((None, some("f"))));
    assert_eq!(token(&["--admin-token", "t"]), Ok((some("t"), None)));
    assert_eq!(token(&[]), Ok((some("from-the-variable"), some("from-the-variable"))));
    let both = token(&["--admin-token", "t", "--admin-token-file", "f"]).expect_err("two at once");
    assert!(both.contains("--admin-token and --admin-token-file"), "{both}");

    let replay = |rest: &[&str]| {
        let words = ["sprag", "replay"].iter().chain(rest);
        let cli: Result<Cli, _> = parsed(words.map(OsString::from).collect());
        let super::super::Verb::Replay(args) = cli.map_err(|error| error.to_string())?.verb else {
            panic!("another verb")
        };
        let (dir, url) = args.policies();
        Ok::<_, String>((dir.map(|dir| dir.display().to_string()), url.map(str::to_owned)))
    };
    assert_eq!(replay(&["--database-url", "u"]), Ok((None, some("u"))));
    assert_eq!(replay(&["--policy-dir", "d"]), Ok((some("d"), None)));
    assert!(replay(&["--policy-dir", "d", "--database-url", "u"]).is_err());
}

/// In the child alone, whose every variable is set and empty.
#[test]
fn child_with_empty_variables() {
    if std::env::var(PART).as_deref() != Ok("empty") {
        return;
    }
    for flag in all() {
        let name = format!("{} {}", flag.verbs.join(" "), flag.long);
        let command = without_blank(Cli::command());
        let found = command.try_get_matches_from(line(&flag, &flag.id, &[]));
        // Without it the verb can't do: then it says so.
        let Ok(mut found) = found else {
            let said = found.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains("required") && said.contains(&flag.long), "{name}: {said}");
            continue;
        };
        while let Some((_, below)) = found.subcommand() {
            found = below.clone();
        }
        let source = found.value_source(&flag.id);
        assert!(matches!(source, None | Some(ValueSource::DefaultValue)), "{name}: {source:?}");
    }
}

fn child(test: &str, part: &str, value: impl Fn(&Flag) -> &'static str) {
    let all = all();
    assert!(all.len() > 20, "only {} flags have variables", all.len());
    let mut child = Child::new(std::env::current_exe().expect("this binary"));
    child.args([&format!("cli::flags::tests::{test}"), "--exact", "--nocapture"]).env(PART, part);
    child.envs(all.iter().map(|flag| (flag.variable.clone(), value(flag))));
    let ran = child.output().expect("a child");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn what_stands_on_the_command_line_wins() {
    child("child_with_all_variables", "set", |flag| samples(&flag.id)[0]);
}

#[test]
fn a_variable_that_is_set_and_empty_is_not_set() {
    child("child_with_empty_variables", "empty", |_| "");
    child("child_with_empty_variables", "empty", |_| " \n");
}
