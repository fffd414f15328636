//! The only place that knows sqlx. SQLite (one file, one host) and Postgres
//! (any number of hosts) behind one type; `tests/it/store` holds both to one
//! conformance suite.
//!
//! Every write that depends on something read names the version it read and
//! counts the rows it changed. Zero rows is an ordinary answer ([`Commit::Outran`]),
//! and then nothing of the step is kept: no event, no decision, no token.
//!
//! A statement is written once where both backends take the same text (SQLite
//! understands `$1`; the view `clock` is the database's time in both), and twice
//! where they differ. No transaction is open while anything but the database is
//! waited for.
//!
//! | File | Holds |
//! |---|---|
//! | `types` | what goes in and what comes out |
//! | `error` | what can go wrong |
//! | `pool` | the two backends, transactions, migrations |
//! | `connect` | how each is opened, and which connection is used again |
//! | `sole` | one SQLite file, one host |
//! | `condition` | what errors of late say: connections in doubt, writes that fail |
//! | `rows` | from columns to facts, saying where one broke |
//! | `workspaces` | create, read, list, patch, the row to be judged |
//! | `beats` | the hot path: a batch of heartbeats in one statement |
//! | `reported` | what an agent has said so far, and what a heartbeat leaves as it was |
//! | `checkpoint` | SQLite's log folded into its file beside the heartbeats |
//! | `commit` | the guarded step: status, event, decision, registration |
//! | `outbox` | what committed steps owe, and the stamps of cooldowns |
//! | `plugins` | what each workspace should have installed |
//! | `claims` | the sagas, their journals, and what they leave owed |
//! | `sweeps` | what the loops look at next |
//! | `brakes`, `hosts` | how many went down lately; which hosts are alive |
//! | `strays` | boxes that no row names, and the registry's identity |
//! | `clock` | a clock that jumped: what is reckoned anew |
//! | `events`, `decisions`, `tokens`, `policies` | their tables |

#[macro_use]
mod pool;
#[macro_use]
mod reported;
#[macro_use]
mod rows;

mod beats;
mod brakes;
mod checkpoint;
mod claims;
mod clock;
mod commit;
mod condition;
mod connect;
mod decisions;
mod error;
mod events;
mod hosts;
mod outbox;
mod plugins;
mod policies;
mod sole;
mod strays;
mod sweeps;
mod tokens;
mod types;
mod workspaces;

pub use brakes::{Brake, BrakeLimits, BrakeState, FLEET, STRAYS, provider_scope};
pub use claims::{
    Begin, Begun, Claim, ClaimKind, ClaimState, Effects, Ended, Ending, Hold, JournaledStep, NewClaim,
    OwedStop, StepState, UnknownState,
};
pub use clock::JUMPED;
pub use error::StoreError;
pub use hosts::{HostName, Own, Patience, Pulse, SeenHost};
pub use outbox::STOP;
pub use pool::{Backend, PoolOptions, Store};
pub use reported::Reported;
pub use sole::{Sole, SoleError};
pub use strays::{Instance as NamedInstance, SeenBox, Sighted, Stray, Taken as StrayTaken, Unnamed, Whose};
pub use sweeps::{ByProvider, Due, Sweep, Taken};
pub use types::{
    Beat, Beaten, BoundModule, Commit, Credential, DeclaredPlugin, Down, Effect, EffectState, Event, Filter,
    NewWorkspace, Owe, Patch, Placed, Registration, Retried, RevisionRow, Snapshot, Step, Still,
    StoredModule, TokenHash, WorkspaceView,
};
