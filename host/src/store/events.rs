//! The log: one line for each version of each workspace, in an order that a
//! reader may rely on.
//!
//! In SQLite that is `seq`, since there is one writer. In Postgres a `seq` is
//! drawn before its transaction commits, so one can appear after a higher one
//! was read. There the order is (`xact`, `seq`), and [`Store::events_after`]
//! stops before the oldest transaction that is still open anywhere in the
//! cluster: an event comes late, but none is ever skipped. A dump that is
//! restored into another cluster, whose transactions count from elsewhere, needs
//! `UPDATE events SET xact = 0`.

use super::claims::OwedStop;
use super::error::StoreError;
use super::pool::{Backend, Store, Tx};
use super::rows::{At, text};
use super::types::Event;
use crate::facts::Reason;
use crate::machine::{Move, Status};

const INSERT: &str = "
    INSERT INTO events (workspace_id, version, type, from_status, to_status, cause,
        reason_code, reason_detail, decision_id, at)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, clock.now FROM clock";

/// The workspace, if there is such a row, and its version.
const INSERT_STRAY: &str = "
    INSERT INTO events (workspace_id, version, type, cause, reason_code, reason_detail, at)
    SELECT (SELECT id FROM workspaces WHERE id = $1),
        COALESCE((SELECT version FROM workspaces WHERE id = $1), 0), $2, 'strays', $3, $4, clock.now FROM clock";

const CARD_UPDATED: &str = "AGENT_CARD_UPDATED";
const BOX_MAY_BE_LEFT: &str = "BOX_MAY_BE_LEFT";

pub(super) const STRAY_FOUND: &str = "STRAY_FOUND";
pub(super) const STRAY_STOPPED: &str = "STRAY_STOPPED";

/// Of the whole fleet.
pub(super) const DISTRUSTED: &str = "REGISTRY_DISTRUSTED";
pub(super) const BRAKE_HELD: &str = "BRAKE_HELD";
pub(super) const BRAKE_RELEASED: &str = "BRAKE_RELEASED";
pub(super) const BRAKE_FREE: &str = "BRAKE_FREE";

macro_rules! columns {
    () => {
        "seq, workspace_id, version, type, from_status, to_status, cause, reason_code, reason_detail,
        decision_id, at"
    };
}

/// `$1` and `$2` are a cursor; SQLite has no use for the first.
const SQLITE_AFTER: &str = concat!(
    "SELECT 0 AS xact, ",
    columns!(),
    " FROM events WHERE seq > $2 AND $1 >= 0 ORDER BY seq LIMIT $3"
);
const POSTGRES_AFTER: &str = concat!(
    "SELECT xact, ",
    columns!(),
    " FROM events WHERE (xact, seq) > ($1, $2)
    AND xact < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)
    ORDER BY xact, seq LIMIT $3"
);

const SQLITE_BEFORE: &str = concat!(
    "SELECT 0 AS xact, ",
    columns!(),
    " FROM events WHERE seq < $2 AND $1 >= 0 ORDER BY seq DESC LIMIT $3"
);
const POSTGRES_BEFORE: &str = concat!(
    "SELECT xact, ",
    columns!(),
    " FROM events WHERE (xact, seq) < ($1, $2) ORDER BY xact DESC, seq DESC LIMIT $3"
);

const SQLITE_BEFORE_OF: &str = concat!(
    "SELECT 0 AS xact, ",
    columns!(),
    " FROM events WHERE seq < $2 AND $1 >= 0 AND workspace_id = $4 ORDER BY seq DESC LIMIT $3"
);
const POSTGRES_BEFORE_OF: &str = concat!(
    "SELECT xact, ",
    columns!(),
    " FROM events WHERE (xact, seq) < ($1, $2) AND workspace_id = $4
    ORDER BY xact DESC, seq DESC LIMIT $3"
);

const SQLITE_NEWEST: &str = "SELECT CAST(0 AS BIGINT), seq FROM events ORDER BY seq DESC LIMIT 1";
/// The newest that [`POSTGRES_AFTER`] has shown or would show by now.
const POSTGRES_NEWEST: &str = "
    SELECT xact, seq FROM events
    WHERE xact < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT)
    ORDER BY xact DESC, seq DESC LIMIT 1";

impl Store {
    /// Events, newest first, of one workspace or of all; `before` is the last id of the page before.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`] where `before` is no event's id.
    pub async fn events(
        &self,
        workspace_id: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let Cursor { xact, seq } = self.cursor(before)?.unwrap_or(Cursor { xact: i64::MAX, seq: i64::MAX });
        let limit = i64::from(limit);
        let rows = match workspace_id {
            None => {
                let sql = self.dialect(SQLITE_BEFORE, POSTGRES_BEFORE);
                fetch_all!(self.read(), EventRow, sql, xact, seq, limit)?
            }
            Some(id) => {
                let sql = self.dialect(SQLITE_BEFORE_OF, POSTGRES_BEFORE_OF);
                fetch_all!(self.read(), EventRow, sql, xact, seq, limit, text(id))?
            }
        };
        self.shown(rows)
    }

    /// Events after `after` (None: from the beginning), oldest first. Never
    /// shows an event while an older one may still become visible.
    ///
    /// # Errors
    /// [`StoreError::BadCursor`] where `after` is no event's id.
    pub async fn events_after(&self, after: Option<&str>, limit: u32) -> Result<Vec<Event>, StoreError> {
        let Cursor { xact, seq } = self.cursor(after)?.unwrap_or(Cursor { xact: 0, seq: 0 });
        let sql = self.dialect(SQLITE_AFTER, POSTGRES_AFTER);
        let rows = fetch_all!(self.read(), EventRow, sql, xact, seq, i64::from(limit))?;
        self.shown(rows)
    }

    /// The id of the newest event, where a stream without `Last-Event-ID` begins.
    pub async fn newest_event(&self) -> Result<Option<String>, StoreError> {
        let newest = fetch_optional!(self.read(), (i64, i64), self.dialect(SQLITE_NEWEST, POSTGRES_NEWEST))?;
        Ok(newest.map(|(xact, seq)| self.event_id(Cursor { xact, seq })))
    }

    fn dialect(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self.backend() {
            Backend::Sqlite => sqlite,
            Backend::Postgres => postgres,
        }
    }

    /// `SEQ` in SQLite, `XACT-SEQ` in Postgres; of both, `0` is before the first.
    fn cursor(&self, id: Option<&str>) -> Result<Option<Cursor>, StoreError> {
        let Some(id) = id else { return Ok(None) };
        if matches!(id, "0" | "0-0") {
            return Ok(Some(Cursor { xact: 0, seq: 0 }));
        }
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<i64>().ok(),
            false => None,
        };
        let cursor = match self.backend() {
            Backend::Sqlite => number(id).map(|seq| Cursor { xact: 0, seq }),
            Backend::Postgres => id
                .split_once('-')
                .and_then(|(xact, seq)| Some(Cursor { xact: number(xact)?, seq: number(seq)? })),
        };
        cursor.map(Some).ok_or_else(|| StoreError::BadCursor(id.to_owned()))
    }

    fn event_id(&self, at: Cursor) -> String {
        match self.backend() {
            Backend::Sqlite => at.seq.to_string(),
            Backend::Postgres => format!("{}-{}", at.xact, at.seq),
        }
    }

    fn shown(&self, rows: Vec<EventRow>) -> Result<Vec<Event>, StoreError> {
        rows.into_iter()
            .map(|row| {
                let id = self.event_id(Cursor { xact: row.xact, seq: row.seq });
                row.into_event(id)
            })
            .collect()
    }
}

/// A place in the log.
struct Cursor {
    xact: i64,
    seq: i64,
}

#[derive(sqlx::FromRow)]
struct EventRow {
    xact: i64,
    seq: i64,
    workspace_id: Option<String>,
    version: i64,
    r#type: String,
    from_status: Option<String>,
    to_status: Option<String>,
    cause: String,
    reason_code: Option<String>,
    reason_detail: Option<String>,
    decision_id: Option<String>,
    at: i64,
}

impl EventRow {
    fn into_event(self, id: String) -> Result<Event, StoreError> {
        let at = At { table: "events", id: &id };
        let from = at.status("from_status", self.from_status.as_deref())?;
        let to = at.status("to_status", self.to_status.as_deref())?;
        let when = at.number("at", self.at)?;
        Ok(Event {
            id,
            event_type: self.r#type,
            workspace_id: self.workspace_id,
            version: self.version,
            from,
            to,
            cause: self.cause,
            reason: self.reason_code.map(|code| Reason { code, detail: self.reason_detail }),
            decision_id: self.decision_id,
            at: when,
        })
    }
}

/// What a line of the log is to say.
struct Line<'a> {
    workspace_id: Option<&'a str>,
    version: i64,
    event_type: &'static str,
    from: Option<Status>,
    to: Option<Status>,
    cause: &'static str,
    reason: Option<&'a Reason>,
    decision_id: Option<&'a str>,
}

pub(super) async fn record_creation(tx: &mut Tx, workspace_id: &str) -> Result<(), StoreError> {
    let line = Line {
        workspace_id: Some(workspace_id),
        version: 1,
        event_type: Status::Provisioning.event_type(),
        from: None,
        to: Some(Status::Provisioning),
        cause: "created",
        reason: None,
        decision_id: None,
    };
    record(tx, line).await
}

/// The card changed; the status and the version did not.
pub(super) async fn record_card(tx: &mut Tx, workspace_id: &str, version: i64) -> Result<(), StoreError> {
    let line = Line {
        workspace_id: Some(workspace_id),
        version,
        event_type: CARD_UPDATED,
        from: None,
        to: None,
        cause: "card_updated",
        reason: None,
        decision_id: None,
    };
    record(tx, line).await
}

/// A box may still run that nobody could stop. Names what a person has to look for.
pub(super) async fn record_left_box(
    tx: &mut Tx,
    workspace_id: &str,
    version: i64,
    left: &OwedStop,
) -> Result<(), StoreError> {
    let detail = format!("instance {} at provider {} could not be stopped", left.instance_id, left.provider);
    let line = Line {
        workspace_id: Some(workspace_id),
        version,
        event_type: BOX_MAY_BE_LEFT,
        from: None,
        to: None,
        cause: "stop_exhausted",
        reason: Some(&Reason::new("stop-exhausted", detail)),
        decision_id: None,
    };
    record(tx, line).await
}

/// A box that no row names.
pub(super) struct StrayEvent<'a> {
    pub workspace_id: &'a str,
    pub instance_id: &'a str,
    pub provider: &'a str,
    /// The code of why it is one.
    pub why: &'a str,
}

/// A stray was found, or stopped. It is its workspace's event where there is such a row.
pub(super) async fn record_stray(
    tx: &mut Tx,
    event_type: &'static str,
    stray: &StrayEvent<'_>,
) -> Result<(), StoreError> {
    let StrayEvent { workspace_id, instance_id, provider, why } = stray;
    let detail = format!("instance {instance_id} of workspace {workspace_id} at provider {provider}");
    execute!(tx.on(), INSERT_STRAY, text(workspace_id), event_type, *why, text(&detail)).map(drop)
}

/// Something happened that is no one workspace's.
pub(super) async fn record_fleet(
    tx: &mut Tx,
    event_type: &'static str,
    cause: &'static str,
    reason: &Reason,
) -> Result<(), StoreError> {
    let line = Line {
        workspace_id: None,
        version: 0,
        event_type,
        from: None,
        to: None,
        cause,
        reason: Some(reason),
        decision_id: None,
    };
    record(tx, line).await
}

/// The row went to `version` by `moved`.
pub(super) async fn record_move(
    tx: &mut Tx,
    workspace_id: &str,
    version: i64,
    (moved, reason): &(Move, Reason),
    decision_id: Option<&str>,
) -> Result<(), StoreError> {
    let line = Line {
        workspace_id: Some(workspace_id),
        version,
        event_type: moved.to().event_type(),
        from: Some(moved.from()),
        to: Some(moved.to()),
        cause: moved.cause().as_str(),
        reason: Some(reason),
        decision_id,
    };
    record(tx, line).await
}

async fn record(tx: &mut Tx, line: Line<'_>) -> Result<(), StoreError> {
    execute!(
        tx.on(),
        INSERT,
        line.workspace_id.map(text),
        line.version,
        line.event_type,
        line.from.map(Status::as_str),
        line.to.map(Status::as_str),
        line.cause,
        line.reason.map(|reason| text(&reason.code)),
        line.reason.and_then(|reason| reason.detail.as_deref()).map(text),
        line.decision_id.map(text),
    )
    .map(drop)
}
