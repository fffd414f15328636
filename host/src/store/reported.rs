//! What an agent reports, as heartbeats store it: a heartbeat that leaves a field out
//! leaves it as it was, so what is judged is what the row then holds. Its readiness is
//! packed into one number (`workspaces.reported`), because every heartbeat writes it.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use super::error::StoreError;
use super::rows::{FACTS, FactsRow};
use super::types::{Beat, Snapshot};
use crate::facts::{Heartbeat, Readiness};

/// What a row holds of a box that has said nothing yet, but for `reported`.
macro_rules! nothing_said {
    () => {
        "error_rate = 0, sample_error = '', active_tasks = 0, uptime_seconds = 0, current_task = '',
        runtime_state = '', heartbeat_warnings = NULL"
    };
}

/// What a heartbeat reports beside texts and numbers; what it leaves out stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The bits that stay.
    pub(super) keep: i64,
    pub(super) said: i64,
}

/// The bits of one field.
#[derive(Clone, Copy)]
struct Place {
    shift: u32,
    mask: i64,
}

const SERVER: Place = Place { shift: 0, mask: 0b11 };
const MODEL: Place = Place { shift: 2, mask: 0b11 };
const NATIVE: Place = Place { shift: 4, mask: 0b11 };
const TOOLS: Place = Place { shift: 8, mask: 0x1_ffff_ffff };

impl Default for Reported {
    /// Says nothing.
    fn default() -> Self {
        Self { keep: -1, said: 0 }
    }
}

impl From<&Readiness> for Reported {
    /// Says all of it: what is None is cleared.
    fn from(readiness: &Readiness) -> Self {
        Self::default()
            .mcp_server_present(Some(readiness.mcp_server_present))
            .model_present(Some(readiness.model_present))
            .loaded_mcp_tools(Some(readiness.loaded_mcp_tools))
    }
}

/// Each takes None where nothing is said, and Some(None) to clear it.
impl Reported {
    #[must_use]
    pub fn mcp_server_present(self, said: Option<Option<bool>>) -> Self {
        self.with(SERVER, said.map(flag))
    }

    #[must_use]
    pub fn model_present(self, said: Option<Option<bool>>) -> Self {
        self.with(MODEL, said.map(flag))
    }

    #[must_use]
    pub fn native_status(self, said: Option<Option<bool>>) -> Self {
        self.with(NATIVE, said.map(flag))
    }

    #[must_use]
    pub fn loaded_mcp_tools(self, said: Option<Option<u32>>) -> Self {
        self.with(TOOLS, said.map(|tools| tools.map_or(0, |number| i64::from(number) + 1)))
    }

    fn with(self, place: Place, said: Option<i64>) -> Self {
        let Some(said) = said else { return self };
        Self { keep: self.keep & !(place.mask << place.shift), said: self.said | said << place.shift }
    }
}

fn flag(said: Option<bool>) -> i64 {
    said.map_or(0, |yes| if yes { 2 } else { 1 })
}

impl Place {
    fn of(self, reported: i64) -> i64 {
        reported >> self.shift & self.mask
    }

    fn flag(self, reported: i64) -> Option<bool> {
        match self.of(reported) {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        }
    }
}

/// As a row has it: the readiness, and whether the agent reports its own status.
fn unpacked(reported: i64) -> (Readiness, bool) {
    let tools = TOOLS.of(reported) - 1;
    let readiness = Readiness {
        mcp_server_present: SERVER.flag(reported),
        model_present: MODEL.flag(reported),
        loaded_mcp_tools: u32::try_from(tools).ok(),
    };
    (readiness, NATIVE.flag(reported).unwrap_or_default())
}

impl Beat {
    /// Whether it leaves out what is judged: then the row must say it.
    pub(super) fn leaves_out(&self) -> bool {
        self.error_rate.is_none()
            || self.sample_error.is_none()
            || self.uptime_seconds.is_none()
            || self.runtime_state.is_none()
    }

    /// What it says by itself.
    pub fn alone(&self) -> Heartbeat {
        let (readiness, native_status) = unpacked(self.reported.said);
        Heartbeat {
            readiness,
            error_rate: self.error_rate.unwrap_or_default(),
            sample_error: self.sample_error.clone().unwrap_or_default(),
            active_tasks: self.active_tasks.unwrap_or_default(),
            uptime: self.uptime_seconds.unwrap_or_default().saturating_mul(1_000),
            runtime_state: self.runtime_state.clone().unwrap_or_default(),
            native_status,
        }
    }
}

/// A row as a heartbeat left it.
pub(super) struct BeatRow {
    pub(super) facts: FactsRow,
    reported: i64,
    /// Where some heartbeat of the batch left something out.
    rest: Option<Rest>,
}

struct Rest {
    error_rate: f64,
    sample_error: String,
    uptime_seconds: i64,
    runtime_state: String,
}

impl BeatRow {
    /// The row, and what is judged: all that the agent has said so far.
    pub(super) fn heard(self, beat: &Beat) -> Result<(Snapshot, Heartbeat), StoreError> {
        let facts = Snapshot::try_from(self.facts)?;
        let (readiness, native_status) = unpacked(self.reported);
        let mut heartbeat = beat.alone();
        (heartbeat.readiness, heartbeat.native_status) = (readiness, native_status);
        heartbeat.active_tasks = facts.workspace.active_tasks;
        if let Some(rest) = self.rest.filter(|_| beat.leaves_out()) {
            heartbeat.error_rate = rest.error_rate;
            heartbeat.sample_error = rest.sample_error;
            heartbeat.uptime = u64::try_from(rest.uptime_seconds).unwrap_or_default().saturating_mul(1_000);
            heartbeat.runtime_state = rest.runtime_state;
        }
        Ok((facts, heartbeat))
    }
}

impl<'r> FromRow<'r, PgRow> for BeatRow {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        let rest = match row.len() > FACTS + 1 {
            true => Some(Rest {
                error_rate: row.try_get(FACTS + 1)?,
                sample_error: row.try_get(FACTS + 2)?,
                uptime_seconds: row.try_get(FACTS + 3)?,
                runtime_state: row.try_get(FACTS + 4)?,
            }),
            false => None,
        };
        Ok(Self { facts: FactsRow::from_row(row)?, reported: row.try_get(FACTS)?, rest })
    }
}

/// From a JSON array, as SQLite answers.
impl<'de> Deserialize<'de> for BeatRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = BeatRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the columns of a row")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut columns: A) -> Result<BeatRow, A::Error> {
                let facts = FactsRow::deserialize(SeqAccessDeserializer::new(&mut columns))?;
                let reported = next(&mut columns)?;
                let rest = match columns.next_element()? {
                    Some(error_rate) => Some(Rest {
                        error_rate,
                        sample_error: next(&mut columns)?,
                        uptime_seconds: next(&mut columns)?,
                        runtime_state: next(&mut columns)?,
                    }),
                    None => None,
                };
                Ok(BeatRow { facts, reported, rest })
            }
        }
        deserializer.deserialize_seq(Columns)
    }
}

fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(columns: &mut A) -> Result<T, A::Error> {
    columns.next_element()?.ok_or_else(|| A::Error::custom("a column is missing"))
}

#[cfg(test)]
mod tests;
