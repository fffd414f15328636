//! The door to the boxes: what a provider can be asked, and the fence that
//! makes it safe to ask.
//!
//! A box is named by whoever starts it: `instance_id` is chosen before the
//! provider is asked, so that a box whose start was never answered can still be
//! asked about and stopped. Every call that changes something carries a fence,
//! `(epoch, seq)`, and an idempotency key. The rule of every provider, by
//! workspace:
//!
//! 1. a key it has finished before is answered as it was then, and nothing is done;
//! 2. otherwise a fence older than the last accepted one, or equal to it under
//!    another key, is [`ProviderError::Stale`], and nothing is done;
//! 3. otherwise the fence is accepted, durably, before anything is done.
//!
//! A key names one verb and one box; under another it is refused (`key_reused`).
//! What else a repeat says is not compared: whoever completes another's start
//! does not know its token.
//!
//! So a call may be repeated under its fence and key as often as it takes, and
//! one that was overtaken can do no harm however late it lands.

mod config;
pub mod control_plane;
mod dispatch;
pub mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub use config::{
    ConfigError, ControlPlaneConfig, ProcessConfig, ProviderConfig, ProvidersConfig, ProvisioningConfig,
};
pub use dispatch::{DispatchError, Dispatched, Dispatcher, UnknownProvider};

/// What orders the calls about one workspace: the epoch of the claim that
/// makes them, and a number that grows within it. Written `EPOCH.SEQ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    pub epoch: u64,
    pub seq: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

/// Text that is no fence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fence; expected EPOCH.SEQ, two whole numbers")]
pub struct NoFence(pub String);

impl FromStr for Fence {
    type Err = NoFence;

    fn from_str(text: &str) -> Result<Self, NoFence> {
        let parts =
            text.split_once('.').and_then(|(epoch, seq)| Some((epoch.parse().ok()?, seq.parse().ok()?)));
        parts.map(|(epoch, seq)| Self { epoch, seq }).ok_or_else(|| NoFence(text.to_owned()))
    }
}

/// Who is meant, and where this call stands among the others about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub workspace_id: String,
    pub fence: Fence,
    /// Under which a repeat is known as one. At most 255 visible ASCII characters.
    pub key: String,
}

/// Whether a key may be one; providers look before they do anything.
fn check_key(key: &str) -> Result<(), ProviderError> {
    if (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let detail = "a key has 1 to 255 visible ASCII characters".to_owned();
    Err(ProviderError::Refused { code: "bad_key".to_owned(), detail })
}

/// How a token of ours begins, so that scanners for leaked secrets can find one.
pub const TOKEN_PREFIX: &str = "sprag_";

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;

/// A bearer token in the clear, on its way into a box. Never shown.
#[derive(Clone)]
pub struct BoxToken(pub String);

impl BoxToken {
    /// 256 bits from the system's generator, in hexadecimal behind [`TOKEN_PREFIX`].
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn mint() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        let mut token = String::with_capacity(TOKEN_PREFIX.len() + 2 * TOKEN_BYTES);
        token.push_str(TOKEN_PREFIX);
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                token.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        Ok(Self(token))
    }
}

impl fmt::Debug for BoxToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxToken(..)")
    }
}

/// What a box is started with.
#[derive(Clone, Debug)]
pub struct BoxSpec {
    pub kind: String,
    pub runtime: String,
    pub tier: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub persistent_volume: bool,
    /// The registry whose box it is, for its provider to list it with.
    pub registry_id: String,
    /// Where its agent registers: the base of the host's own URL.
    pub registry_url: String,
    /// What its agent registers and heartbeats with.
    pub token: BoxToken,
}

/// Whether a box runs. One that is still starting runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxState {
    Running,
    /// It ended, was stopped, or never was.
    Stopped,
}

/// One box, as its provider sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxStatus {
    pub workspace_id: String,
    pub instance_id: String,
    pub state: BoxState,
}

/// A box in a provider's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedBox {
    pub workspace_id: String,
    pub instance_id: String,
    pub state: BoxState,
    /// The registry that had it started. None: the box doesn't say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_id: Option<String>,
}

/// A plugin that a box should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Why a provider did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Somebody newer has spoken for this workspace. Nothing was done.
    #[error("overtaken: the provider has accepted fence {accepted}")]
    Stale { accepted: Fence },
    /// It will never do this. Nothing was done.
    #[error("refused ({code}): {detail}")]
    Refused { code: String, detail: String },
    /// No answer, or one that says nothing: it may have been done, be done
    /// later, or never.
    #[error("no answer: {why}")]
    Unknown { why: String },
}

/// A provider of boxes. Each call is made once; repeats, time-outs and their
/// bounds are the dispatcher's.
pub trait Provisioner: Send + Sync {
    /// Starts the box `instance_id`. Done when the provider answers for it, not
    /// when its agent has spoken. One that runs already is left as it is, with
    /// the token that it has.
    fn start<'a>(&'a self, call: &'a Call, instance_id: &'a str, spec: &'a BoxSpec) -> Answer<'a, BoxStatus>;

    /// Stops that box and no other; one that does not run is stopped already.
    /// Answered when it no longer runs.
    fn stop<'a>(&'a self, call: &'a Call, instance_id: &'a str) -> Answer<'a, BoxStatus>;

    /// Accepts the fence, so that nothing older can happen any more, and then
    /// lists the workspace's boxes that run. What was accepted before it is over,
    /// done or never to be done, before it is answered.
    fn fence<'a>(&'a self, call: &'a Call) -> Answer<'a, Vec<BoxStatus>>;

    /// Makes `plugins` what the box has. A box that does not run is [`ProviderError::Refused`].
    fn deliver<'a>(&'a self, call: &'a Call, instance_id: &'a str, plugins: &'a [Plugin]) -> Answer<'a, ()>;

    /// Whether that box runs. Changes nothing, so it has no fence.
    fn status<'a>(&'a self, workspace_id: &'a str, instance_id: &'a str) -> Answer<'a, BoxStatus>;

    /// Every box that runs here, by workspace, and whose it is. Changes nothing, so it has no fence.
    fn list(&self) -> Answer<'_, Vec<ListedBox>>;
}

/// What a call comes to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ProviderError>>;
