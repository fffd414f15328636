//! What a stop does once it is accepted.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::place::Place;
use super::{Process, blocking, unknown};
use crate::provision::{Call, ProviderError};

/// How long a box may take to be gone after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(3);
const NAP: Duration = Duration::from_millis(20);

impl Process {
    /// SIGTERM, and SIGKILL to what is still there after the grace.
    pub(super) async fn bring_down(&self, call: &Call, place: &Place) -> Result<(), ProviderError> {
        let began = Instant::now();
        let mut told: Option<(String, Instant)> = None;
        let last = self.0.stop_grace + KILL_PATIENCE;
        loop {
            let asked = place.clone();
            let run = blocking(move || match asked.is_held().map_err(unknown)? {
                true => Ok(Some(asked.run().map_err(unknown)?)),
                false => Ok(None),
            })
            .await?;
            match run {
                None => return Ok(()),
                // The box was started again by somebody newer, and is theirs.
                Some(Some(run)) if run.fence > call.fence => {
                    return Err(ProviderError::Stale { accepted: run.fence });
                }
                Some(Some(run)) => match &told {
                    Some((key, since)) if *key == run.key => {
                        if since.elapsed() >= self.0.stop_grace {
                            run.signal(Signal::KILL).map_err(unknown)?;
                        }
                    }
                    _ => {
                        run.signal(Signal::TERM).map_err(unknown)?;
                        told = Some((run.key, Instant::now()));
                    }
                },
                // A supervisor that has not decided yet; it will find that it is too late.
                Some(None) => {}
            }
            if began.elapsed() > last {
                let why = format!("the box still runs {} ms after it was to stop", last.as_millis());
                return Err(ProviderError::Unknown { why });
            }
            tokio::time::sleep(NAP).await;
        }
    }
}
