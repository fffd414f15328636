-- The loops: when each looks at a row next, which hosts are alive, and the brake.

-- When each loop looks at the row next. A heartbeat changes none of them: the
-- loop itself moves a row that was heard of meanwhile to a later place.
ALTER TABLE workspaces ADD COLUMN silence_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN probe_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN provisioning_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN idle_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN down_at BIGINT NOT NULL DEFAULT 0;

-- When it last had a task, or came to life.
ALTER TABLE workspaces ADD COLUMN busy_at BIGINT;

CREATE INDEX workspaces_silence ON workspaces (silence_at)
    WHERE status IN ('online', 'degraded') AND claim_id IS NULL;
CREATE INDEX workspaces_probe ON workspaces (probe_at)
    WHERE status IN ('online', 'degraded') AND claim_id IS NULL
    AND provider IS NOT NULL AND instance_id IS NOT NULL AND runtime <> 'external';
CREATE INDEX workspaces_provisioning ON workspaces (provisioning_at)
    WHERE status = 'provisioning' AND claim_id IS NULL;
-- Without a look at the tasks: a column that a heartbeat changes may be in no index.
CREATE INDEX workspaces_idle ON workspaces (idle_at)
    WHERE status IN ('online', 'degraded') AND claim_id IS NULL AND hibernation_idle_minutes IS NOT NULL;
CREATE INDEX workspaces_down ON workspaces (down_at)
    WHERE status IN ('offline', 'failed') AND claim_id IS NULL
    AND provider IS NOT NULL AND runtime <> 'external';
CREATE INDEX workspaces_live ON workspaces (provider) WHERE status IN ('online', 'degraded');

-- One row: since when silence means something, and when the live rows were last counted.
CREATE TABLE fleet (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    trusted_from BIGINT NOT NULL,
    distrust TEXT,
    counted_at BIGINT NOT NULL
);
INSERT INTO fleet (one, trusted_from, counted_at) VALUES (1, 0, 0);

CREATE TABLE hosts (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- One row for the whole fleet, one for each provider.
CREATE TABLE brakes (
    scope TEXT COLLATE "C" PRIMARY KEY,
    state TEXT NOT NULL,
    since BIGINT NOT NULL,
    live BIGINT NOT NULL DEFAULT 0,
    wanted BIGINT NOT NULL DEFAULT 0,
    over_at BIGINT NOT NULL DEFAULT 0
);

-- Downward flips, by second.
CREATE TABLE brake_flips (
    scope TEXT COLLATE "C" NOT NULL,
    second BIGINT NOT NULL,
    flips BIGINT NOT NULL,
    PRIMARY KEY (scope, second)
);

-- What concerns the whole fleet has no workspace.
ALTER TABLE events ALTER COLUMN workspace_id DROP NOT NULL;
