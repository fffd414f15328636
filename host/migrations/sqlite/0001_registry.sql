-- The registry: workspaces, their tokens, the log, the decisions, the policies.
-- Times are milliseconds since the Unix epoch by the database's own clock.

-- The one place that says what time it is; Postgres has a view of the same name.
CREATE VIEW clock AS
    SELECT CAST(unixepoch('subsec') * 1000 + 0.5 AS INTEGER) AS now;

CREATE TABLE workspaces (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    runtime TEXT NOT NULL,
    provider TEXT,
    instance_id TEXT,
    parent_id TEXT REFERENCES workspaces (id),
    tier TEXT,
    labels TEXT NOT NULL,
    persistent_volume BOOLEAN NOT NULL,
    hibernation_idle_minutes INTEGER,
    url TEXT,
    created_at INTEGER NOT NULL,
    status TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    version INTEGER NOT NULL,
    last_heartbeat_at INTEGER,
    error_rate REAL NOT NULL DEFAULT 0,
    sample_error TEXT NOT NULL DEFAULT '',
    active_tasks INTEGER NOT NULL DEFAULT 0,
    uptime_seconds INTEGER NOT NULL DEFAULT 0,
    current_task TEXT NOT NULL DEFAULT '',
    runtime_state TEXT NOT NULL DEFAULT ''
);

CREATE INDEX workspaces_parent ON workspaces (parent_id) WHERE parent_id IS NOT NULL;

-- The operators' lists; a heartbeat changes neither column.
CREATE INDEX workspaces_by_status ON workspaces (status, id);
CREATE INDEX workspaces_standing ON workspaces (id) WHERE status <> 'removed';

-- Apart from the row, because a card can be long and a heartbeat rewrites the row.
CREATE TABLE agent_cards (
    workspace_id TEXT NOT NULL PRIMARY KEY REFERENCES workspaces (id),
    card TEXT NOT NULL
);

CREATE TABLE tokens (
    hash BLOB NOT NULL PRIMARY KEY,
    id TEXT NOT NULL,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) WITHOUT ROWID;

CREATE INDEX tokens_live ON tokens (workspace_id) WHERE revoked_at IS NULL;

-- One writer at a time: `seq` is the order in which transactions committed.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    from_status TEXT,
    to_status TEXT,
    cause TEXT NOT NULL,
    reason_code TEXT,
    reason_detail TEXT,
    decision_id TEXT,
    at INTEGER NOT NULL
);

CREATE UNIQUE INDEX events_one_per_version ON events (workspace_id, version) WHERE to_status IS NOT NULL;
CREATE INDEX events_by_workspace ON events (workspace_id, seq);

CREATE TABLE decisions (
    id TEXT NOT NULL PRIMARY KEY,
    workspace_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    body TEXT NOT NULL
);

CREATE TABLE policy_modules (
    digest TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    bytes BLOB NOT NULL
);

CREATE TABLE policy_revisions (
    number INTEGER PRIMARY KEY,
    created_at INTEGER NOT NULL,
    source TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    modules TEXT NOT NULL
);

-- The newest line names the active revision; the ones before it, where to roll back to.
CREATE TABLE policy_activations (
    seq INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL REFERENCES policy_revisions (number),
    at INTEGER NOT NULL
);
