//! Settings as people write them, and what they are by the types that a module
//! declares.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::facts::{Setting, Settings};
use crate::policy::{Manifest, PolicyError};

/// A setting as people write it: a duration is a string such as `5m`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum WrittenSetting {
    Flag(bool),
    Number(f64),
    Text(String),
}

impl fmt::Display for WrittenSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "the flag {flag}"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
        }
    }
}

/// By hand, so that what is none of these is told what would be.
impl<'de> Deserialize<'de> for WrittenSetting {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(OneSetting)
    }
}

struct OneSetting;

impl Visitor<'_> for OneSetting {
    type Value = WrittenSetting;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a setting: true or false, a number, or a string (a length of time is one, such as \"5m\")",
        )
    }

    fn visit_bool<E>(self, flag: bool) -> Result<WrittenSetting, E> {
        Ok(WrittenSetting::Flag(flag))
    }

    fn visit_f64<E>(self, number: f64) -> Result<WrittenSetting, E> {
        Ok(WrittenSetting::Number(number))
    }

    // As far as a policy's numbers reach.
    #[allow(clippy::cast_precision_loss)]
    fn visit_i64<E>(self, number: i64) -> Result<WrittenSetting, E> {
        Ok(WrittenSetting::Number(number as f64))
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E>(self, number: u64) -> Result<WrittenSetting, E> {
        Ok(WrittenSetting::Number(number as f64))
    }

    fn visit_str<E>(self, text: &str) -> Result<WrittenSetting, E> {
        Ok(WrittenSetting::Text(text.to_owned()))
    }
}

/// Settings as people write them, by name.
pub type WrittenSettings = BTreeMap<String, WrittenSetting>;

/// Reads written settings by the types that the module declares.
pub(super) fn read_settings(manifest: &Manifest, written: &WrittenSettings) -> Result<Settings, PolicyError> {
    let mut settings = Settings::new();
    for (name, value) in written {
        let declared = manifest.settings.iter().find(|s| s.name == *name).map(|s| &s.default);
        let setting = match (value, declared) {
            (WrittenSetting::Flag(_) | WrittenSetting::Number(_), Some(Setting::Duration(default))) => {
                let default = humantime::format_duration(Duration::from_millis(*default));
                let why = format!(
                    "{value} was given; a length of time is wanted, as a string such as \"5m\" \
                     (its default is \"{default}\")"
                );
                return Err(PolicyError::BadSetting { name: name.clone(), why });
            }
            (WrittenSetting::Flag(flag), _) => Setting::Flag(*flag),
            (WrittenSetting::Number(number), _) => Setting::Number(*number),
            (WrittenSetting::Text(text), Some(Setting::Duration(_))) => Setting::Duration(
                duration_ms(text).map_err(|why| PolicyError::BadSetting { name: name.clone(), why })?,
            ),
            (WrittenSetting::Text(text), _) => Setting::Text(text.clone()),
        };
        settings.insert(name.clone(), setting);
    }
    Ok(settings)
}

/// `90s`, `5m`, `1h 30m` … in milliseconds.
fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time; write one such as 30s, 5m or 1h 30m");
    let duration = humantime::parse_duration(text).map_err(|_| wrong())?;
    u64::try_from(duration.as_millis()).map_err(|_| wrong())
}
