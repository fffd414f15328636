-- The loops: when each looks at a row next, which hosts are alive, and the brake.

-- When each loop looks at the row next. A heartbeat changes none of them: the
-- loop itself moves a row that was heard of meanwhile to a later place.
ALTER TABLE workspaces ADD COLUMN silence_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN probe_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN provisioning_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN idle_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN down_at INTEGER NOT NULL DEFAULT 0;

-- When it last had a task, or came to life.
ALTER TABLE workspaces ADD COLUMN busy_at INTEGER;

CREATE INDEX workspaces_silence ON workspaces (silence_at)
    WHERE status IN ('online', 'degraded') AND claim_id IS NULL;
CREATE INDEX workspaces_probe ON workspaces (probe_at)
    WHERE status IN ('online', 'degraded') AND claim_id IS NULL
    AND provider IS NOT NULL AND instance_id IS NOT NULL AND runtime <> 'external';
CREATE INDEX workspaces_provisioning ON workspaces (provisioning_at)
    WHERE status = 'provisioning' AND claim_id IS NULL;
-- Without a look at the tasks: a column that a heartbeat changes is in no index.
CREATE INDEX workspaces_idle ON workspaces (idle_at)
    WHERE status IN ('online', 'degraded') AND claim_id IS NULL AND hibernation_idle_minutes IS NOT NULL;
CREATE INDEX workspaces_down ON workspaces (down_at)
    WHERE status IN ('offline', 'failed') AND claim_id IS NULL
    AND provider IS NOT NULL AND runtime <> 'external';
CREATE INDEX workspaces_live ON workspaces (provider) WHERE status IN ('online', 'degraded');

-- One row: since when silence means something, and when the live rows were last counted.
CREATE TABLE fleet (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    trusted_from INTEGER NOT NULL,
    distrust TEXT,
    counted_at INTEGER NOT NULL
);
INSERT INTO fleet (one, trusted_from, counted_at) VALUES (1, 0, 0);

CREATE TABLE hosts (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
);

-- One row for the whole fleet, one for each provider.
CREATE TABLE brakes (
    scope TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    live INTEGER NOT NULL DEFAULT 0,
    wanted INTEGER NOT NULL DEFAULT 0,
    over_at INTEGER NOT NULL DEFAULT 0
);

-- Downward flips, by second.
CREATE TABLE brake_flips (
    scope TEXT NOT NULL,
    second INTEGER NOT NULL,
    flips INTEGER NOT NULL,
    PRIMARY KEY (scope, second)
) WITHOUT ROWID;

-- What concerns the whole fleet has no workspace.
CREATE TABLE events_of_all (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace_id TEXT REFERENCES workspaces (id),
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
INSERT INTO events_of_all SELECT * FROM events;
DROP TABLE events;
ALTER TABLE events_of_all RENAME TO events;
CREATE UNIQUE INDEX events_one_per_version ON events (workspace_id, version) WHERE to_status IS NOT NULL;
CREATE INDEX events_by_workspace ON events (workspace_id, seq);
