//! Who a module says it is, and what of that is acceptable.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::bindings::about;
use super::{Limits, PolicyError, convert};
use crate::facts::{Cause, Question, Setting, Settings, Workspace};
use crate::machine::Status;

/// Which of the interface's hooks a module exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    pub guard: bool,
    pub cooldown: bool,
    pub recovery: bool,
}

/// One hook of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    Guard,
    Cooldown,
    Recovery,
}

/// Where a module has something to say. An empty list means all.
///
/// A module that exports a hook and lists no interest for it is asked
/// everywhere about that hook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interest {
    pub hook: Hook,
    /// The interface's cause kinds: `heartbeat`, `commanded`, …
    pub causes: Vec<String>,
    pub statuses: Vec<Status>,
    pub kinds: Vec<String>,
}

/// A setting a module declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingSpec {
    pub name: String,
    pub summary: String,
    pub default: Setting,
}

/// A value at which a policy changes its mind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    pub fact: String,
    pub setting: String,
}

/// Who a module says it is; asked once, when it is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub interests: Vec<Interest>,
    pub settings: Vec<SettingSpec>,
    pub thresholds: Vec<Threshold>,
}

impl Manifest {
    /// Takes a module's description over, if it is acceptable.
    ///
    /// # Errors
    /// [`PolicyError::BadManifest`] names the part that is not;
    /// [`PolicyError::OversizedAnswer`] what is too long.
    pub(super) fn lift(given: about::Manifest, hooks: Hooks, limits: &Limits) -> Result<Self, PolicyError> {
        let manifest = Self {
            name: given.name,
            version: given.version,
            summary: given.summary,
            interests: given.interests.into_iter().map(Interest::lift).collect(),
            settings: given.settings.into_iter().map(convert::lift_spec).collect(),
            thresholds: given.thresholds.into_iter().map(convert::lift_threshold).collect(),
        };
        manifest.check_sizes(limits)?;
        manifest.check_identity()?;
        manifest.check_settings()?;
        manifest.check_interests(hooks)?;
        Ok(manifest)
    }

    fn check_sizes(&self, limits: &Limits) -> Result<(), PolicyError> {
        let interests = self.interests.iter();
        let lists = [
            ("interests", self.interests.len()),
            ("settings", self.settings.len()),
            ("thresholds", self.thresholds.len()),
        ]
        .into_iter()
        .chain(interests.clone().map(|i| ("an interest's causes", i.causes.len())))
        .chain(interests.clone().map(|i| ("an interest's statuses", i.statuses.len())))
        .chain(interests.clone().map(|i| ("an interest's kinds", i.kinds.len())));
        for (what, len) in lists {
            bound_list(what, len, limits)?;
        }
        let strings = [
            ("the name", self.name.as_str()),
            ("the version", self.version.as_str()),
            ("the summary", self.summary.as_str()),
        ]
        .into_iter()
        .chain(interests.flat_map(|i| i.kinds.iter().map(|k| ("a kind", k.as_str()))))
        .chain(self.settings.iter().flat_map(|s| {
            let text = match &s.default {
                Setting::Text(text) => text.as_str(),
                Setting::Flag(_) | Setting::Number(_) | Setting::Duration(_) => "",
            };
            [
                ("a setting's name", s.name.as_str()),
                ("a setting's summary", s.summary.as_str()),
                ("a setting's default", text),
            ]
        }))
        .chain(self.thresholds.iter().flat_map(|t| {
            [("a threshold's fact", t.fact.as_str()), ("a threshold's setting", t.setting.as_str())]
        }));
        for (what, text) in strings {
            bound_string(what, text, limits)?;
        }
        Ok(())
    }

    fn check_identity(&self) -> Result<(), PolicyError> {
        if !is_kebab(&self.name) {
            return Err(bad(format!("the name {:?} is not in kebab-case", self.name)));
        }
        semver::Version::parse(&self.version)
            .map_err(|e| bad(format!("the version {:?} is not a semantic version: {e}", self.version)))?;
        Ok(())
    }

    fn check_settings(&self) -> Result<(), PolicyError> {
        let mut names = BTreeSet::new();
        for spec in &self.settings {
            if spec.name.is_empty() || spec.name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(bad(format!("the setting's name {:?} is empty or has blanks in it", spec.name)));
            }
            if !names.insert(spec.name.as_str()) {
                return Err(bad(format!("the setting {} is declared twice", spec.name)));
            }
            if let Setting::Number(n) = spec.default
                && !n.is_finite()
            {
                return Err(bad(format!("the default of setting {} is {n}, not a finite number", spec.name)));
            }
        }
        for threshold in &self.thresholds {
            if threshold.fact.is_empty() {
                return Err(bad("a threshold names no fact".to_owned()));
            }
            if !names.contains(threshold.setting.as_str()) {
                let Threshold { fact, setting } = threshold;
                return Err(bad(format!("the threshold of {fact} names {setting}, which is no setting")));
            }
        }
        Ok(())
    }

    fn check_interests(&self, hooks: Hooks) -> Result<(), PolicyError> {
        for interest in &self.interests {
            let (exported, name) = match interest.hook {
                Hook::Guard => (hooks.guard, "guard"),
                Hook::Cooldown => (hooks.cooldown, "cooldown"),
                Hook::Recovery => (hooks.recovery, "recovery"),
            };
            if !exported {
                return Err(bad(format!("it declares an interest for {name}, which it does not export")));
            }
        }
        Ok(())
    }

    /// Whether a guard that says this of itself is to be asked.
    pub(super) fn guards(&self, question: &Question) -> bool {
        self.admits(Hook::Guard, &question.workspace, &question.cause)
    }

    /// Whether a module that says this of itself is to be asked about this hook.
    pub(super) fn admits(&self, hook: Hook, workspace: &Workspace, cause: &Cause) -> bool {
        let mut declared = self.interests.iter().filter(|i| i.hook == hook).peekable();
        declared.peek().is_none() || declared.any(|i| i.admits(workspace, cause))
    }

    /// Checks given settings and fills in the defaults.
    pub(super) fn settle(&self, given: &Settings, limits: &Limits) -> Result<Settings, PolicyError> {
        for (name, value) in given {
            let Some(spec) = self.settings.iter().find(|s| s.name == *name) else {
                return Err(self.unknown_setting(name));
            };
            let wanted = type_name(&spec.default);
            let wrong = |why: String| Err(PolicyError::BadSetting { name: name.clone(), why });
            match (value, &spec.default) {
                (Setting::Number(n), Setting::Number(_)) if !n.is_finite() => {
                    return wrong(format!("{n} was given; a finite number is wanted"));
                }
                (Setting::Text(text), Setting::Text(_)) if text.len() > limits.string_bytes => {
                    let limit = limits.string_bytes;
                    return wrong(format!("{} bytes were given; at most {limit} are taken", text.len()));
                }
                (Setting::Flag(_), Setting::Flag(_))
                | (Setting::Number(_), Setting::Number(_))
                | (Setting::Text(_), Setting::Text(_))
                | (Setting::Duration(_), Setting::Duration(_)) => {}
                (given, default) => {
                    let (given, default) = (show(given), show(default));
                    return wrong(format!("{given} was given; {wanted} is wanted, such as {default}"));
                }
            }
        }
        let mut settled: Settings =
            self.settings.iter().map(|s| (s.name.clone(), s.default.clone())).collect();
        settled.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        Ok(settled)
    }

    fn unknown_setting(&self, name: &str) -> PolicyError {
        let known: Vec<_> = self.settings.iter().map(|s| s.name.as_str()).collect();
        let why = match known.as_slice() {
            [] => format!("{} has no settings", self.name),
            known => format!("{} has no such setting; it has {}", self.name, known.join(", ")),
        };
        PolicyError::BadSetting { name: name.to_owned(), why }
    }
}

impl Interest {
    fn lift(given: about::Interest) -> Self {
        Self {
            hook: convert::lift_hook(given.hook),
            causes: given.causes.into_iter().map(|c| convert::cause_name(c).to_owned()).collect(),
            statuses: given.statuses.into_iter().map(convert::lift_status).collect(),
            kinds: given.kinds,
        }
    }

    fn admits(&self, workspace: &Workspace, cause: &Cause) -> bool {
        (self.causes.is_empty() || self.causes.iter().any(|c| c == cause_name(cause)))
            && (self.statuses.is_empty() || self.statuses.contains(&workspace.status))
            && (self.kinds.is_empty() || self.kinds.contains(&workspace.kind))
    }
}

fn cause_name(cause: &Cause) -> &'static str {
    convert::cause_name(convert::cause_kind(cause))
}

fn bad(why: String) -> PolicyError {
    PolicyError::BadManifest { why }
}

fn type_name(setting: &Setting) -> &'static str {
    match setting {
        Setting::Flag(_) => "a flag",
        Setting::Number(_) => "a number",
        Setting::Text(_) => "a text",
        Setting::Duration(_) => "a length of time",
    }
}

fn show(setting: &Setting) -> String {
    match setting {
        Setting::Flag(v) => format!("the flag {v}"),
        Setting::Number(v) => format!("the number {v}"),
        Setting::Text(v) => super::classify::clip(format!("the text {v:?}")),
        Setting::Duration(v) => format!("the duration {v} ms"),
    }
}

/// `error-rate-high`: lower-case words of letters and digits, the first
/// beginning with a letter, joined by single hyphens.
pub(super) fn is_kebab(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.split('-').all(|word| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

pub(super) fn bound_string(what: &str, text: &str, limits: &Limits) -> Result<(), PolicyError> {
    if text.len() <= limits.string_bytes {
        return Ok(());
    }
    let limit = limits.string_bytes;
    let what = format!("{what} has {} bytes; at most {limit} are taken (limits.string_bytes)", text.len());
    Err(PolicyError::OversizedAnswer { what })
}

pub(super) fn bound_list(what: &str, len: usize, limits: &Limits) -> Result<(), PolicyError> {
    if len <= limits.list_items {
        return Ok(());
    }
    let limit = limits.list_items;
    let what = format!("{what}: {len} elements; at most {limit} are taken (limits.list_items)");
    Err(PolicyError::OversizedAnswer { what })
}
