-- Claims: the sagas, their journals, and what they leave owed.

-- The open claim, if any; the fence of the next call to a provider is
-- (claim_epoch, fence_seq + 1).
ALTER TABLE workspaces ADD COLUMN claim_id TEXT;
ALTER TABLE workspaces ADD COLUMN claim_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN fence_seq INTEGER NOT NULL DEFAULT 0;

-- The box that a token was handed to; none: whoever the operator gave it to.
ALTER TABLE tokens ADD COLUMN instance_id TEXT;

CREATE TABLE claims (
    id TEXT NOT NULL PRIMARY KEY,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    parent_claim_id TEXT,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    prior_status TEXT NOT NULL,
    old_provider TEXT,
    old_instance_id TEXT,
    new_provider TEXT,
    new_instance_id TEXT,
    state TEXT NOT NULL,
    reason_code TEXT,
    reason_detail TEXT,
    decision_id TEXT,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    lease_until INTEGER NOT NULL,
    takeovers INTEGER NOT NULL DEFAULT 0,
    spoken TEXT,
    created_at INTEGER NOT NULL,
    ended_at INTEGER
);

CREATE UNIQUE INDEX claims_one_open ON claims (workspace_id) WHERE state = 'open';
CREATE INDEX claims_lapsing ON claims (lease_until) WHERE state = 'open';
CREATE INDEX claims_by_workspace ON claims (workspace_id, id);

CREATE TABLE claim_steps (
    claim_id TEXT NOT NULL REFERENCES claims (id),
    number INTEGER NOT NULL,
    step TEXT NOT NULL,
    state TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    detail TEXT,
    begun_at INTEGER NOT NULL,
    ended_at INTEGER,
    PRIMARY KEY (claim_id, number)
);

-- What a committed step owes the world.
CREATE TABLE outbox (
    -- The order in which one workspace's effects are delivered.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    last_error TEXT,
    created_at INTEGER NOT NULL,
    ended_at INTEGER
);

CREATE INDEX outbox_due ON outbox (due_at) WHERE state = 'due';
CREATE INDEX outbox_in_order ON outbox (workspace_id, seq) WHERE state = 'due';
CREATE INDEX outbox_by_state ON outbox (state, seq);

-- When each action last fired; shared by all hosts.
CREATE TABLE cooldowns (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    action TEXT NOT NULL,
    last_fired_at INTEGER NOT NULL,
    fired INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, action)
);

-- What each workspace should have installed.
CREATE TABLE declared_plugins (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    name TEXT NOT NULL,
    version TEXT,
    PRIMARY KEY (workspace_id, name)
);
