//! The shipped heartbeat policy in a new sandbox for each decision, with the
//! default limits: fuel and epoch on.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result, bail};
use sprag::facts::Verdict;
use sprag::policy::{Limits, Module, Sandbox, SandboxConfig};

use super::inputs::Case;
use super::{Engine, SPRAG, Word};
use crate::required;

pub struct Sprag {
    module: Arc<Module>,
}

impl Sprag {
    pub fn load() -> Result<Self> {
        let file = Path::new(&required("SPRAG_TEST_POLICY_DIR")?).join("heartbeat.wasm");
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let sandbox = Sandbox::new(SandboxConfig {
            limits: Limits::default(),
            compiler: required("SPRAG_TEST_BIN")?.into(),
            cache_dir: None,
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let module = runtime.block_on(sandbox.load(bytes.into()))?;
        Ok(Self { module })
    }
}

impl Engine for Sprag {
    fn name(&self) -> &'static str {
        SPRAG
    }

    fn decide(&mut self, case: &Case) -> Result<Vec<Word>> {
        let mut decision = pin!(self.module.decide(&case.question, &case.settings));
        let mut context = Context::from_waker(Waker::noop());
        let verdicts = loop {
            // Pending is a yield at a tick of the epoch.
            if let Poll::Ready(verdicts) = decision.as_mut().poll(&mut context) {
                break verdicts?;
            }
        };
        verdicts
            .into_iter()
            .map(|verdict| match verdict {
                Verdict::Allow(reason) => Ok(Word::Allow(reason.code)),
                Verdict::Abstain => Ok(Word::Abstain),
                Verdict::Deny(reason) => bail!("the heartbeat policy denied: {reason:?}"),
            })
            .collect()
    }
}
