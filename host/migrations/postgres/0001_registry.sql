-- The registry: workspaces, their tokens, the log, the decisions, the policies.
-- Times are milliseconds since the Unix epoch by the database's own clock.

-- The one place that says what time it is; SQLite has a view of the same name.
CREATE VIEW clock AS
    SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS now;

-- Heartbeats rewrite a row many times an hour. What they change is in no index
-- and every page keeps room, so that such an update stays on its page (HOT).
CREATE TABLE workspaces (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    runtime TEXT NOT NULL,
    provider TEXT,
    instance_id TEXT,
    parent_id TEXT COLLATE "C" REFERENCES workspaces (id),
    tier TEXT,
    labels TEXT NOT NULL,
    persistent_volume BOOLEAN NOT NULL,
    hibernation_idle_minutes BIGINT,
    url TEXT,
    created_at BIGINT NOT NULL,
    status TEXT NOT NULL,
    status_since BIGINT NOT NULL,
    version BIGINT NOT NULL,
    last_heartbeat_at BIGINT,
    error_rate DOUBLE PRECISION NOT NULL DEFAULT 0,
    sample_error TEXT NOT NULL DEFAULT '',
    active_tasks BIGINT NOT NULL DEFAULT 0,
    uptime_seconds BIGINT NOT NULL DEFAULT 0,
    current_task TEXT NOT NULL DEFAULT '',
    runtime_state TEXT NOT NULL DEFAULT ''
) WITH (fillfactor = 70);

CREATE INDEX workspaces_parent ON workspaces (parent_id) WHERE parent_id IS NOT NULL;

-- The operators' lists; a heartbeat changes neither column.
CREATE INDEX workspaces_by_status ON workspaces (status, id);
CREATE INDEX workspaces_standing ON workspaces (id) WHERE status <> 'removed';

-- Apart from the row, because a card can be long and a heartbeat rewrites the row.
CREATE TABLE agent_cards (
    workspace_id TEXT COLLATE "C" PRIMARY KEY REFERENCES workspaces (id),
    card TEXT NOT NULL
);

CREATE TABLE tokens (
    hash BYTEA PRIMARY KEY,
    id TEXT NOT NULL,
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id),
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE INDEX tokens_live ON tokens (workspace_id) WHERE revoked_at IS NULL;

-- `seq` is drawn before its transaction commits, so a reader that remembered
-- only the highest `seq` could skip one that commits late. `xact` lets it stop
-- before the oldest transaction that is still open.
CREATE TABLE events (
    xact BIGINT NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id),
    version BIGINT NOT NULL,
    type TEXT NOT NULL,
    from_status TEXT,
    to_status TEXT,
    cause TEXT NOT NULL,
    reason_code TEXT,
    reason_detail TEXT,
    decision_id TEXT,
    at BIGINT NOT NULL,
    PRIMARY KEY (xact, seq)
);

CREATE UNIQUE INDEX events_one_per_version ON events (workspace_id, version) WHERE to_status IS NOT NULL;
CREATE INDEX events_by_workspace ON events (workspace_id, xact, seq);

CREATE TABLE decisions (
    id TEXT COLLATE "C" PRIMARY KEY,
    workspace_id TEXT COLLATE "C" NOT NULL,
    revision BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    body TEXT NOT NULL
);

CREATE TABLE policy_modules (
    digest TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    bytes BYTEA NOT NULL
);

CREATE TABLE policy_revisions (
    number BIGINT PRIMARY KEY,
    created_at BIGINT NOT NULL,
    source TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    modules TEXT NOT NULL
);

-- The newest line names the active revision; the ones before it, where to roll back to.
CREATE TABLE policy_activations (
    seq BIGINT PRIMARY KEY,
    revision BIGINT NOT NULL REFERENCES policy_revisions (number),
    at BIGINT NOT NULL
);
