//! What operators set of a workspace: each field, what it may hold, and what is
//! said where it holds something else.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::error::{Answer, Problem};
use crate::facts::KINDS;

const MAX_NAME: usize = 200;
const MAX_WORD: usize = 64;
const MAX_LABELS: usize = 64;
const MAX_LABEL_VALUE: usize = 256;
const MAX_IDLE_MINUTES: u32 = 366 * 24 * 60;

/// A tier: its name, or a number, which is kept as it is written.
#[derive(Debug)]
pub(super) struct Tier(String);

impl<'de> Deserialize<'de> for Tier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(name) => Ok(Self(name)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(D::Error::custom("no tier, expected a string or a number")),
        }
    }
}

impl PartialSchema for Tier {
    fn schema() -> RefOr<Schema> {
        let either = [Type::String, Type::Number].into_iter().map(Object::with_type);
        either.fold(OneOfBuilder::new(), OneOfBuilder::item).into()
    }
}

impl ToSchema for Tier {}

pub(super) fn name(given: Option<String>) -> Answer<String> {
    match given {
        Some(name) if !name.trim().is_empty() && name.chars().count() <= MAX_NAME => Ok(name),
        other => Err(Problem::field("name", other.into(), format!("1 to {MAX_NAME} characters"))),
    }
}

/// A kebab-case word, as kinds, runtimes and providers are.
pub(super) fn word(field: &str, given: Option<String>) -> Answer<Option<String>> {
    let Some(word) = given else { return Ok(None) };
    let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=MAX_WORD).contains(&word.len()) && word.bytes().all(kebab) && !word.starts_with('-') {
        return Ok(Some(word));
    }
    let expected = format!("1 to {MAX_WORD} lower-case letters, digits and hyphens");
    Err(Problem::field(field, word.into(), expected))
}

/// One of those that there are.
pub(super) fn kind(given: Option<String>) -> Answer<Option<String>> {
    match given {
        Some(kind) if !KINDS.contains(&kind.as_str()) => {
            Err(Problem::field("kind", kind.into(), format!("one of {}", KINDS.join(", "))))
        }
        known => Ok(known),
    }
}

pub(super) fn tier(given: Option<Tier>) -> Answer<Option<String>> {
    match given {
        Some(Tier(text)) if text.is_empty() || text.len() > MAX_WORD => {
            Err(Problem::field("tier", text.into(), format!("1 to {MAX_WORD} bytes")))
        }
        other => Ok(other.map(|Tier(text)| text)),
    }
}

pub(super) fn labels(given: BTreeMap<String, String>) -> Answer<BTreeMap<String, String>> {
    if given.len() > MAX_LABELS {
        return Err(Problem::field("labels", given.len().into(), format!("at most {MAX_LABELS} labels")));
    }
    let wrong = given.iter().find(|(k, v)| k.is_empty() || k.len() > MAX_WORD || v.len() > MAX_LABEL_VALUE);
    match wrong {
        Some((key, value)) => Err(Problem::field(
            format!("labels.{key}"),
            value.as_str().into(),
            format!("a name of 1 to {MAX_WORD} bytes and a value of at most {MAX_LABEL_VALUE}"),
        )),
        None => Ok(given),
    }
}

pub(super) fn minutes(given: f64) -> Answer<u32> {
    if (1.0..=f64::from(MAX_IDLE_MINUTES)).contains(&given) && given.fract() == 0.0 {
        // In range and whole, so the cast is exact.
        return Ok(given as u32);
    }
    let expected = format!("a whole number from 1 to {MAX_IDLE_MINUTES}, or null for never");
    Err(Problem::field("hibernation_idle_minutes", given.into(), expected))
}

pub(super) fn flag(field: &str, given: Option<&str>) -> Answer<bool> {
    match given {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(other) => Err(Problem::field(field, other.into(), "true or false")),
    }
}

/// Left out or a value: `null`, which a merge patch takes away, can't be taken away.
pub(super) fn value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}
