//! One look at what a provider runs: what no row names is kept, and what is no
//! stray any more is forgotten.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::types::{SeenBox, Sighted, Stray, StrayRow, Whose};
use super::{CATCH_UP, FORGET, OF_PROVIDER};
use crate::store::claims::OwedStop;
use crate::store::error::StoreError;
use crate::store::events::{self, StrayEvent};
use crate::store::pool::{Executor, On, Store, Tx};
use crate::store::rows::{count, text};

/// Strays of one provider that are kept, of this registry and of others: those of
/// others leave room for ours.
const MOST: usize = 10_000;

/// Rows that one statement looks for.
const AT_ONCE: usize = 500;

/// Strays that one transaction writes; heartbeats wait for it in SQLite.
const WRITTEN_AT_ONCE: usize = 100;

const SQLITE_NAMED: &str = "
    SELECT id, CASE WHEN status <> 'removed' THEN instance_id END, claim_id, claim_epoch
    FROM workspaces WHERE id IN (SELECT value FROM json_each($1))";

const POSTGRES_NAMED: &str = "
    SELECT id, CASE WHEN status <> 'removed' THEN instance_id END, claim_id, claim_epoch
    FROM workspaces WHERE id = ANY($1)";

const OWED: &str = "SELECT workspace_id, body FROM outbox WHERE state = 'due' AND kind = 'stop'";

const FOUND: &str = "
    INSERT INTO strays (provider, workspace_id, instance_id, id, registry_id, epoch, why, found_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, clock.now FROM clock WHERE TRUE
    ON CONFLICT (provider, workspace_id, instance_id) DO NOTHING";

const SAYS_NOW: &str = "
    UPDATE strays SET registry_id = $2, found_at = (SELECT now FROM clock), stopping = FALSE WHERE id = $1";

/// The database is older than what this registry has started.
const QUIET: &str = "UPDATE fleet SET quiet_from = (SELECT now FROM clock)";

/// Of the reasons why a box is a stray the one that does not say that the database is
/// older than the box.
const NOT_NAMED: &str = "not-named";

/// What rows say of the boxes of one workspace.
struct Row {
    instance_id: Option<String>,
    claimed: bool,
    epoch: i64,
}

type NamedRow = (String, Option<String>, Option<String>, i64);

/// A workspace and its box, as the database writes them.
type Key = (String, String);

/// A box that no row names, and why.
pub struct Unnamed {
    key: Key,
    seen: SeenBox,
    why: &'static str,
}

impl Unnamed {
    /// Its workspace's and its own.
    pub fn names(&self) -> (&str, &str) {
        (&self.seen.workspace_id, &self.seen.instance_id)
    }
}

impl Store {
    /// Holds a provider's list, all that it runs, to the rows as they are after it: forgets
    /// what is no stray any more. What may be a new one is returned. It is one if it
    /// still runs: a box that was stopped meanwhile, and then unnamed, was listed, too.
    pub async fn sighted(
        &self,
        provider: &str,
        listed: &[SeenBox],
    ) -> Result<(Sighted, Vec<Unnamed>), StoreError> {
        let mut sighted = Sighted::default();
        let unnamed = self.unnamed(listed, &mut sighted).await?;
        let mut known = self.known(provider).await?;
        let seen: HashSet<_> = unnamed.iter().map(|one| &one.key).collect();
        let gone: Vec<_> =
            known.extract_if(|key, _| !seen.contains(key)).map(|(_, stray)| stray.id).collect();
        sighted.gone = gone.len();
        for some in gone.chunks(WRITTEN_AT_ONCE) {
            let mut tx = self.begin().await?;
            for id in some {
                execute!(tx.on(), FORGET, id.as_str())?;
            }
            tx.commit().await?;
        }
        let mut new = Vec::new();
        for one in unnamed {
            let says = clipped(one.seen.registry_id.as_deref());
            match known.get(&one.key) {
                None => new.push(one),
                Some(stray) if stray.registry_id != says => {
                    execute!(self.write(), SAYS_NOW, stray.id.as_str(), says)?;
                }
                Some(_) => {}
            }
        }
        Ok((sighted, new))
    }

    /// Keeps new strays, those of this registry before others.
    pub async fn keep_strays(
        &self,
        provider: &str,
        mut new: Vec<Unnamed>,
        sighted: &mut Sighted,
    ) -> Result<(), StoreError> {
        let own = self.registry_id().await?;
        let known = self.known(provider).await?;
        let ours = |one: &Unnamed| one.seen.registry_id.as_ref() == Some(&own);
        // In one order: two hosts may be at it.
        new.sort_by(|a, b| (!ours(a), &a.key).cmp(&(!ours(b), &b.key)));
        let known_ours = known.values().filter(|stray| stray.whose == Whose::Own).count();
        let (mut kept_ours, mut kept_others) = (known_ours, known.len() - known_ours);
        new.retain(|one| {
            let kept = if ours(one) { &mut kept_ours } else { &mut kept_others };
            let room = *kept < MOST;
            *kept += usize::from(room);
            sighted.too_many += usize::from(!room);
            room
        });
        for some in new.chunks(WRITTEN_AT_ONCE) {
            let mut tx = self.begin().await?;
            let mut restored = false;
            for one in some {
                restored |= keep(&mut tx, provider, one, ours(one), sighted).await?;
            }
            if restored {
                execute!(tx.on(), QUIET)?;
            }
            tx.commit().await?;
            sighted.restored |= restored;
        }
        Ok(())
    }

    async fn known(&self, provider: &str) -> Result<HashMap<Key, Stray>, StoreError> {
        let mut known = HashMap::new();
        for row in fetch_all!(self.read(), StrayRow, OF_PROVIDER, text(provider))? {
            let stray = Stray::try_from(row)?;
            known.insert((stray.workspace_id.clone(), stray.instance_id.clone()), stray);
        }
        Ok(known)
    }

    /// What of a list no row names, each box once.
    async fn unnamed(&self, listed: &[SeenBox], sighted: &mut Sighted) -> Result<Vec<Unnamed>, StoreError> {
        let rows = self.rows_of(listed).await?;
        // After the rows: what a claim leaves owed is written as it ends.
        let owed = self.owed_stops().await?;
        let (mut unnamed, mut seen) = (Vec::new(), HashSet::new());
        for one in listed {
            let key = (text(&one.workspace_id).into_owned(), text(&one.instance_id).into_owned());
            let row = rows.get(&key.0);
            // At whatever provider: two names may stand for one place, and a box's name for one box.
            let named = row.is_some_and(|row| row.claimed || row.instance_id.as_ref() == Some(&key.1));
            if named {
                sighted.named += 1;
            } else if owed.contains(&key) {
                sighted.owed += 1;
            } else if seen.insert(key.clone()) {
                unnamed.push(Unnamed { key, seen: one.clone(), why: why(row, one) });
            }
        }
        Ok(unnamed)
    }

    async fn rows_of(&self, listed: &[SeenBox]) -> Result<HashMap<String, Row>, StoreError> {
        let ids: HashSet<_> = listed.iter().map(|one| text(&one.workspace_id).into_owned()).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let mut rows = HashMap::new();
        for some in ids.chunks(AT_ONCE) {
            let Executor { db, outcome } = self.read();
            let read: Result<Vec<NamedRow>, _> = match db {
                On::Sqlite(db) => {
                    let ids = serde_json::to_string(some).unwrap_or_default();
                    sqlx::query_as(SQLITE_NAMED).bind(ids).fetch_all(db).await
                }
                On::Postgres(db) => sqlx::query_as(POSTGRES_NAMED).bind(some).fetch_all(db).await,
            };
            for (id, instance_id, claim_id, epoch) in outcome.of(read, |_| false)? {
                rows.insert(id, Row { instance_id, claimed: claim_id.is_some(), epoch });
            }
        }
        Ok(rows)
    }

    /// Boxes whose stop is owed already.
    async fn owed_stops(&self) -> Result<HashSet<Key>, StoreError> {
        let rows = fetch_all!(self.read(), (String, String), OWED)?;
        let of = |(workspace_id, body): (String, String)| {
            let owed: OwedStop = serde_json::from_str(&body).ok()?;
            Some((workspace_id, owed.instance_id))
        };
        Ok(rows.into_iter().filter_map(of).collect())
    }
}

/// Keeps a stray, unless somebody has; whether it says that the database is older than it is.
async fn keep(
    tx: &mut Tx,
    provider: &str,
    one: &Unnamed,
    ours: bool,
    sighted: &mut Sighted,
) -> Result<bool, StoreError> {
    let Unnamed { key: (workspace_id, instance_id), seen, why } = one;
    let epoch = seen.epoch.map(count);
    let inserted = execute!(
        tx.on(),
        FOUND,
        text(provider),
        workspace_id.as_str(),
        instance_id.as_str(),
        Uuid::now_v7().to_string(),
        clipped(seen.registry_id.as_deref()),
        epoch,
        *why,
    )?;
    if inserted == 0 {
        return Ok(false);
    }
    sighted.found += 1;
    if !ours {
        return Ok(false);
    }
    let event = StrayEvent { workspace_id, instance_id, provider, why };
    events::record_stray(tx, events::STRAY_FOUND, &event).await?;
    let Some(epoch) = epoch.filter(|_| *why != NOT_NAMED) else { return Ok(false) };
    execute!(tx.on(), CATCH_UP, workspace_id.as_str(), epoch, 0_i64)?;
    Ok(true)
}

/// Why a box is a stray.
fn why(row: Option<&Row>, one: &SeenBox) -> &'static str {
    match row {
        None => "unknown-workspace",
        Some(row) if one.epoch.is_some_and(|epoch| count(epoch) > row.epoch) => "newer-than-row",
        Some(_) => NOT_NAMED,
    }
}

/// What a box says of itself is kept within bounds.
fn clipped(words: Option<&str>) -> Option<String> {
    const MOST_BYTES: usize = 64;
    words.map(|words| text(&words[..words.floor_char_boundary(MOST_BYTES)]).into_owned())
}
