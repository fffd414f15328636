//! Whatever can happen to a row between a sweep's read and its write.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use sprag::advance::{Advance, Between, Removal};
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
    /// A host finds that nobody listened.
    Distrust,
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
                let removal = fleet.advance.remove(id, &Command::remove(), true).await.expect("removing");
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
            Rival::Distrust => {
                pass(fleet, 1).await;
                fleet.db.sql("UPDATE fleet SET trusted_from = (SELECT now FROM clock)").await;
            }
            Rival::Sleep(millis) => pass(fleet, millis).await,
        }
        seen(fleet, id).await
    }

    /// Makes the rows readable again.
    pub async fn undo(self, fleet: &Fleet, all: &[Made]) {
        for made in all.iter().filter(|_| self == Rival::Garble) {
            set(fleet, &made.id, "labels = '{}'").await;
        }
    }
}

/// The rows as the rival left them.
#[derive(Clone, Default)]
pub struct Left(Arc<Mutex<BTreeMap<String, Seen>>>);

impl Left {
    /// Holds the rows to it.
    pub async fn holds(&self, fleet: &Fleet, all: &[Made]) {
        for made in all {
            let before = self.0.lock().expect("the rows").get(&made.id).cloned();
            let before = before.expect("the rival was never called");
            assert_eq!(seen(fleet, &made.id).await, before);
        }
    }
}

type Done = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The rival, once it is his turn at one of the rows.
pub fn against(fleet: &Arc<Fleet>, all: &[Made], rival: Rival) -> (impl Fn(String) -> Done + use<>, Left) {
    let left = Left::default();
    let (fleet, all, told) = (fleet.clone(), all.to_vec(), left.clone());
    let act = move |id: String| -> Done {
        let (fleet, told) = (fleet.clone(), told.clone());
        let made = all.iter().find(|made| made.id == id).expect("one of the rows").clone();
        Box::pin(async move {
            let seen = rival.act(&fleet, &made).await;
            told.0.lock().expect("the rows").insert(id, seen);
        })
    };
    (act, left)
}

/// The path, with the rival between each judgement and its write.
pub fn outrun(fleet: &Arc<Fleet>, all: &[Made], rival: Rival) -> (Advance, Left) {
    let (act, left) = against(fleet, all, rival);
    (fleet.advance.clone().with_between(Arc::new(Act(act))), left)
}

struct Act<F>(F);

impl<F: Fn(String) -> Done + Send + Sync> Between for Act<F> {
    fn judged<'a>(&'a self, workspace_id: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        (self.0)(workspace_id.to_owned())
    }
}
