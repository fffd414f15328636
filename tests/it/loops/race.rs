//! Whatever can happen to a row between a sweep's read and its write.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use sprag::advance::Removal;
use sprag::facts::{Command, Heartbeat};
use sprag::machine::Status;

use super::{Seen, beat, heard, pass, seen, set};
use crate::support::fleet::{Fleet, Made};

/// Somebody who is faster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rival {
    Remove,
    /// A command.
    Claim,
    /// A claim, and the status stays.
    Hold,
    /// Its instance, and nothing else.
    Clear,
    Empty,
    Replace,
    SwitchProvider,
    Move(Status),
    Heartbeat,
    /// A heartbeat with a task.
    Task,
    /// Nobody can read the row any more.
    Garble,
    /// Nobody acts; but this much time passes.
    Sleep(u64),
}

impl Rival {
    /// Acts, and says how the row is then.
    async fn act(self, fleet: &Fleet, made: &Made) -> Seen {
        let id = &made.id;
        let before = seen(fleet, id).await;
        match self {
            Rival::Remove => {
                let removal = fleet.advance.remove(id, &Command::remove()).await.expect("removing");
                assert!(matches!(removal, Removal::Done(_)), "{removal:?}");
            }
            Rival::Claim => {
                set(fleet, id, "claim_id = 'c', status = 'provisioning', version = version + 1").await;
            }
            Rival::Hold => set(fleet, id, "claim_id = 'c'").await,
            Rival::Clear => set(fleet, id, "instance_id = NULL").await,
            Rival::Empty => set(fleet, id, "instance_id = ''").await,
            Rival::Replace => set(fleet, id, "instance_id = 'box-2'").await,
            // Its claim is over, and the new box has the old one's name.
            Rival::SwitchProvider => set(fleet, id, "provider = 'elsewhere', version = version + 2").await,
            Rival::Move(to) => set(fleet, id, &format!("status = '{to}', version = version + 1")).await,
            Rival::Heartbeat => {
                pass(fleet, 1).await;
                beat(fleet, made).await;
            }
            Rival::Task => {
                pass(fleet, 1).await;
                heard(fleet, made, Heartbeat { active_tasks: 1, ..Heartbeat::default() }).await;
            }
            Rival::Garble => {
                set(fleet, id, "labels = 'garbage'").await;
                return before;
            }
            Rival::Sleep(millis) => pass(fleet, millis).await,
        }
        seen(fleet, id).await
    }

    /// Makes the row readable again.
    pub async fn undo(self, fleet: &Fleet, made: &Made) {
        if self == Rival::Garble {
            set(fleet, &made.id, "labels = '{}'").await;
        }
    }
}

/// The row as the rival left it.
#[derive(Clone, Default)]
pub struct Left(Arc<Mutex<Option<Seen>>>);

impl Left {
    pub fn row(&self) -> Seen {
        self.0.lock().expect("the row").clone().expect("the rival was never called")
    }
}

/// What a test calls when it is the rival's turn.
pub type Act = Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The rival against this row.
pub fn against(fleet: &Arc<Fleet>, made: &Made, rival: Rival) -> (Act, Left) {
    let left = Left::default();
    let (fleet, made, told) = (fleet.clone(), made.clone(), left.clone());
    let act = move |_| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (fleet, made, told) = (fleet.clone(), made.clone(), told.clone());
        Box::pin(async move {
            let seen = rival.act(&fleet, &made).await;
            *told.0.lock().expect("the row") = Some(seen);
        })
    };
    (Box::new(act), left)
}
