-- Claims: the sagas, their journals, and what they leave owed.

-- The open claim, if any; the fence of the next call to a provider is
-- (claim_epoch, fence_seq + 1).
ALTER TABLE workspaces ADD COLUMN claim_id TEXT;
ALTER TABLE workspaces ADD COLUMN claim_epoch BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workspaces ADD COLUMN fence_seq BIGINT NOT NULL DEFAULT 0;

-- The box that a token was handed to; none: whoever the operator gave it to.
ALTER TABLE tokens ADD COLUMN instance_id TEXT;

CREATE TABLE claims (
    id TEXT COLLATE "C" PRIMARY KEY,
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id),
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
    epoch BIGINT NOT NULL,
    owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    takeovers BIGINT NOT NULL DEFAULT 0,
    spoken TEXT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);

CREATE UNIQUE INDEX claims_one_open ON claims (workspace_id) WHERE state = 'open';
CREATE INDEX claims_lapsing ON claims (lease_until) WHERE state = 'open';
CREATE INDEX claims_by_workspace ON claims (workspace_id, id);

CREATE TABLE claim_steps (
    claim_id TEXT COLLATE "C" NOT NULL REFERENCES claims (id),
    number BIGINT NOT NULL,
    step TEXT NOT NULL,
    state TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    detail TEXT,
    begun_at BIGINT NOT NULL,
    ended_at BIGINT,
    PRIMARY KEY (claim_id, number)
);

-- What a committed step owes the world.
CREATE TABLE outbox (
    -- The order in which one workspace's effects are delivered.
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id),
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    due_at BIGINT NOT NULL,
    last_error TEXT,
    created_at BIGINT NOT NULL,
    ended_at BIGINT
);

CREATE INDEX outbox_due ON outbox (due_at) WHERE state = 'due';
CREATE INDEX outbox_in_order ON outbox (workspace_id, seq) WHERE state = 'due';
CREATE INDEX outbox_by_state ON outbox (state, seq);

-- When each action last fired; shared by all hosts.
CREATE TABLE cooldowns (
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id),
    action TEXT NOT NULL,
    last_fired_at BIGINT NOT NULL,
    fired BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, action)
);

-- What each workspace should have installed.
CREATE TABLE declared_plugins (
    workspace_id TEXT COLLATE "C" NOT NULL REFERENCES workspaces (id),
    name TEXT COLLATE "C" NOT NULL,
    version TEXT,
    PRIMARY KEY (workspace_id, name)
);
