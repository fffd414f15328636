//! The one way to the providers: by name, with a time-out and a bounded number
//! of attempts. A repeat goes out under the fence and key of the first attempt,
//! so it is safe however the first one ended.

#[cfg(test)]
mod tests;
mod turns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{
    Answer, BoxSpec, BoxStatus, Call, Fence, ListedBox, Plugin, ProviderError, Provisioner,
    ProvisioningConfig,
};
use turns::Turns;

/// A name that no configured provider has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no provider {name:?}; configured: {}", listed(.configured))]
pub struct UnknownProvider {
    pub name: String,
    pub configured: Vec<String>,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// Somebody newer has spoken for this workspace: give way.
    #[error("overtaken: the provider has accepted fence {accepted}")]
    Stale { accepted: Fence },
    /// The provider will never do this, and has done nothing.
    #[error("refused ({code}): {detail}")]
    Refused { code: String, detail: String },
    /// Nobody knows whether it was done, or will be.
    #[error("no answer after {attempts} attempts; the last: {why}")]
    Exhausted { attempts: u32, why: String },
    #[error(transparent)]
    UnknownProvider(#[from] UnknownProvider),
}

/// What a dispatched call comes to.
pub type Dispatched<T> = Result<T, DispatchError>;

/// The configured providers, and how patient we are with them.
pub struct Dispatcher {
    providers: BTreeMap<String, Arc<dyn Provisioner>>,
    config: ProvisioningConfig,
    turns: Turns,
}

impl Dispatcher {
    pub fn new(providers: BTreeMap<String, Arc<dyn Provisioner>>, config: ProvisioningConfig) -> Self {
        Self { providers, config, turns: Turns::default() }
    }

    /// The configured providers, in the order of the alphabet.
    pub fn names(&self) -> Vec<String> {
        self.providers.keys().cloned().collect()
    }

    /// Whether there is such a provider.
    ///
    /// # Errors
    /// There is none; the error names those that there are.
    pub fn check(&self, name: &str) -> Result<(), UnknownProvider> {
        self.provider(name).map(|_| ())
    }

    /// [`Provisioner::start`]; one start or stop at a time for each workspace.
    ///
    /// # Errors
    /// As [`DispatchError`] says; the same goes for all that follow.
    pub async fn start(
        &self,
        provider: &str,
        call: &Call,
        instance_id: &str,
        spec: &BoxSpec,
    ) -> Dispatched<BoxStatus> {
        let to = self.provider(provider)?;
        let turn = Some(call.workspace_id.as_str());
        self.repeat(self.config.attempts, turn, || to.start(call, instance_id, spec)).await
    }

    /// [`Provisioner::stop`], with more attempts: a box that is left over costs money.
    pub async fn stop(&self, provider: &str, call: &Call, instance_id: &str) -> Dispatched<BoxStatus> {
        let to = self.provider(provider)?;
        let turn = Some(call.workspace_id.as_str());
        self.repeat(self.config.stop_attempts, turn, || to.stop(call, instance_id)).await
    }

    /// [`Dispatcher::stop`], once: whoever sweeps comes again.
    pub async fn stop_once(&self, provider: &str, call: &Call, instance_id: &str) -> Dispatched<BoxStatus> {
        let to = self.provider(provider)?;
        let turn = Some(call.workspace_id.as_str());
        self.repeat(1, turn, || to.stop(call, instance_id)).await
    }

    /// [`Provisioner::fence`]. It waits for nobody's turn: it is there to overtake.
    pub async fn fence(&self, provider: &str, call: &Call) -> Dispatched<Vec<BoxStatus>> {
        let to = self.provider(provider)?;
        self.repeat(self.config.attempts, None, || to.fence(call)).await
    }

    /// [`Provisioner::deliver`].
    pub async fn deliver(
        &self,
        provider: &str,
        call: &Call,
        instance_id: &str,
        plugins: &[Plugin],
    ) -> Dispatched<()> {
        let to = self.provider(provider)?;
        self.repeat(self.config.attempts, None, || to.deliver(call, instance_id, plugins)).await
    }

    /// [`Provisioner::status`], once: whoever sweeps comes again.
    pub async fn status(
        &self,
        provider: &str,
        workspace_id: &str,
        instance_id: &str,
    ) -> Dispatched<BoxStatus> {
        let to = self.provider(provider)?;
        self.repeat(1, None, || to.status(workspace_id, instance_id)).await
    }

    /// [`Provisioner::list`], once.
    pub async fn list(&self, provider: &str) -> Dispatched<Vec<ListedBox>> {
        let to = self.provider(provider)?;
        self.repeat(1, None, || to.list()).await
    }

    fn provider(&self, name: &str) -> Result<&dyn Provisioner, UnknownProvider> {
        let found = self.providers.get(name).map(|provider| &**provider);
        found.ok_or_else(|| UnknownProvider { name: name.to_owned(), configured: self.names() })
    }

    /// The turn is taken for an attempt, not for the pauses between: a newer call
    /// may go first meanwhile, and then this one is stale.
    async fn repeat<'a, T>(
        &self,
        attempts: u32,
        turn: Option<&str>,
        call: impl Fn() -> Answer<'a, T>,
    ) -> Dispatched<T> {
        let attempts = attempts.max(1);
        let mut made = 0;
        loop {
            made += 1;
            let why = match self.attempt(turn, call()).await {
                Ok(done) => return Ok(done),
                Err(ProviderError::Stale { accepted }) => return Err(DispatchError::Stale { accepted }),
                Err(ProviderError::Refused { code, detail }) => {
                    return Err(DispatchError::Refused { code, detail });
                }
                Err(ProviderError::Unknown { why }) => why,
            };
            if made == attempts {
                return Err(DispatchError::Exhausted { attempts, why });
            }
            tracing::debug!(attempt = made, why, "a provider did not answer; it is asked again");
            tokio::time::sleep(self.pause(made)).await;
        }
    }

    async fn attempt<T>(&self, turn: Option<&str>, call: Answer<'_, T>) -> Result<T, ProviderError> {
        let _turn = match turn {
            Some(workspace_id) => Some(self.turns.take(workspace_id).await),
            None => None,
        };
        let limit = Duration::from_millis(self.config.call_timeout_ms);
        let timed_out = |_| {
            let why = format!("none within {} ms", limit.as_millis());
            Err(ProviderError::Unknown { why })
        };
        tokio::time::timeout(limit, call).await.unwrap_or_else(timed_out)
    }

    /// Twice as long every time, up to a bound; half of it is left to chance, so
    /// that hosts which failed together don't come back together.
    fn pause(&self, made: u32) -> Duration {
        let doubled = self.config.backoff_ms.saturating_mul(1 << (made - 1).min(20));
        let most = doubled.min(self.config.backoff_max_ms);
        let chance = getrandom::u64().unwrap_or(u64::MAX) % (most / 2 + 1);
        Duration::from_millis(most - chance)
    }
}
