//! What a stop does once it is accepted.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::place::{GivenUp, Place};
use super::{Process, blocking, files, unknown};
use crate::provision::{Call, ProviderError};

/// How long a box may take to be gone after SIGKILL; and when that was not enough
/// once, how long it is looked at again.
const KILL_PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);
const NAP: Duration = Duration::from_millis(20);

impl Process {
    /// SIGTERM, and SIGKILL to what is still there after the grace. What does not go
    /// even then is given up: it may be left, and keeps nobody from starting another.
    pub(super) async fn bring_down(&self, call: &Call, place: &Place) -> Result<(), ProviderError> {
        let began = Instant::now();
        let mut told: Option<(String, Instant)> = None;
        let asked = place.clone();
        let given_up = blocking(move || asked.is_given_up().map_err(unknown)).await?;
        let (grace, patience) =
            if given_up { (Duration::ZERO, LOOK) } else { (self.0.stop_grace, KILL_PATIENCE) };
        loop {
            let asked = place.clone();
            let run = blocking(move || match asked.sweep().map_err(unknown)? {
                false => Ok(Some(asked.run().map_err(unknown)?)),
                true => Ok(None),
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
                        if since.elapsed() >= grace {
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
            if began.elapsed() > grace + patience {
                if let Some((key, _)) = told {
                    let place = place.clone();
                    let given_up = move || files::write(&place.given_up_file(), &GivenUp { key });
                    blocking(move || given_up().map_err(unknown)).await?;
                }
                let why = "the box was killed, and something of it is still there".to_owned();
                return Err(ProviderError::Unknown { why });
            }
            tokio::time::sleep(NAP).await;
        }
    }
}
