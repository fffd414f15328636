//! Durations by name as a setting, for what differs from runtime to runtime;
//! and durations in words, for a reason's detail.

use std::time::Duration;

use crate::{Setting, SettingValue, Verdict};

/// A setting that holds a duration for each of some names, as text:
/// `"codex=2m, aider=45s"`. Whole numbers of `ms`, `s`, `m` or `h`; a name
/// stands once, without blanks, 64 at most; `""` is none.
///
/// The host takes any text when a revision is activated, so a typo is found
/// here: [`get`](NamedDurations::get) refuses the whole text, whichever name is
/// asked for, and a guard answers with [`Unreadable::deny`].
///
/// ```
/// use std::time::Duration;
/// use sprag_policy::NamedDurations;
/// use sprag_policy::prelude::*;
///
/// sprag_policy::settings! {
///     pub struct Settings {
///         /// How long each runtime may be silent.
///         pub windows: NamedDurations = NamedDurations::none(),
///     }
/// }
///
/// fn may_go_offline(request: &Request<Settings>, silent: Duration) -> Verdict {
///     match request.settings.windows.get(&request.workspace.runtime) {
///         Ok(Some(window)) if silent >= window => Verdict::allow("too-silent"),
///         Ok(_) => Verdict::Abstain,
///         Err(unreadable) => unreadable.deny("windows"),
///     }
/// }
///
/// let windows = NamedDurations::from("codex=2m, aider=45s");
/// assert_eq!(windows.get("codex"), Ok(Some(Duration::from_secs(120))));
/// assert_eq!(windows.get("hermes"), Ok(None));
/// assert!(NamedDurations::from("codex=2m; aider=45s").get("hermes").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDurations(String);

impl NamedDurations {
    /// As many names as a text may have: reading it costs fuel, each time.
    const MOST: usize = 64;

    /// No name has one.
    pub const fn none() -> Self {
        Self(String::new())
    }

    /// The duration of this name, where the text has one.
    ///
    /// # Errors
    /// [`Unreadable`] where any entry of the text is.
    pub fn get(&self, name: &str) -> Result<Option<Duration>, Unreadable> {
        let mut found = None;
        let mut names = Vec::new();
        if self.0.trim().is_empty() {
            return Ok(None);
        }
        // Lists of one: a search for a single character brings formatting along.
        for text in self.0.split([',']) {
            let (entry, duration) = read_entry(text).ok_or_else(|| Unreadable::new(text, "can't be read"))?;
            if names.contains(&entry) {
                return Err(Unreadable::new(text, "has a name that stood there before"));
            }
            if names.len() == Self::MOST {
                return Err(Unreadable::new(text, "is one too many"));
            }
            names.push(entry);
            if entry == name {
                found = Some(duration);
            }
        }
        Ok(found)
    }
}

impl From<&str> for NamedDurations {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// As text; it is read when it is needed, because a setting that could not be
/// read would keep its default.
impl SettingValue for NamedDurations {
    fn to_setting(&self) -> Setting {
        self.0.to_setting()
    }

    fn from_setting(setting: &Setting) -> Option<Self> {
        String::from_setting(setting).map(Self)
    }
}

fn read_entry(text: &str) -> Option<(&str, Duration)> {
    let (name, duration) = text.split_once(['='])?;
    let name = name.trim();
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    Some((name, read_duration(duration.trim())?))
}

fn read_duration(text: &str) -> Option<Duration> {
    let in_unit = |(unit, millis)| read_number(text.strip_suffix(unit)?)?.checked_mul(millis);
    UNITS.into_iter().find_map(in_unit).map(Duration::from_millis)
}

/// Digits and nothing else, so that `+2m` is none.
fn read_number(text: &str) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let more = |sum: u64, byte| sum.checked_mul(10)?.checked_add(digit(byte)?);
    if text.is_empty() { None } else { text.bytes().try_fold(0, more) }
}

/// The units and their milliseconds, the longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// An entry of [`NamedDurations`] that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    entry: String,
    why: &'static str,
}

impl Unreadable {
    /// As much of an entry as is shown; a reason has a length.
    const SHOWN: usize = 80;

    fn new(entry: &str, why: &'static str) -> Self {
        Self { entry: entry.trim().chars().take(Self::SHOWN).collect(), why }
    }

    /// `deny`, with the code `bad-setting` and a detail that names the setting,
    /// what is wrong in it and what would be right: a typo moves nothing.
    pub fn deny(&self, setting: &str) -> Verdict {
        let said = [setting, " has \"", &self.entry, "\", which ", self.why, EXPECTED];
        Verdict::deny("bad-setting").detail(String::from_iter(said))
    }
}

const EXPECTED: &str =
    "; write name=duration, each name once, in whole ms, s, m or h: \"codex=2m, aider=45s\"";

/// A duration for a person: `1h 30m`, `45s`, `1s 500ms`. Milliseconds show
/// under a minute only.
pub fn in_words(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left >= 60_000 {
        left -= left % 1_000;
    }
    let mut words = String::new();
    for (unit, millis) in UNITS {
        if left >= millis {
            if !words.is_empty() {
                words.push(' ');
            }
            push_number(&mut words, left / millis);
            words.push_str(unit);
            left %= millis;
        }
    }
    if words.is_empty() { "0s".to_owned() } else { words }
}

/// By hand: the standard library's formatting is larger than most policies.
fn push_number(words: &mut String, number: u64) {
    if number >= 10 {
        push_number(words, number / 10);
    }
    words.push(char::from(b'0' + (number % 10) as u8));
}

#[cfg(test)]
#[path = "durations_tests.rs"]
mod tests;
