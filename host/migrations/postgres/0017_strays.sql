-- Strays: boxes that a provider lists and that no row names. And the registry's
-- own identity, which every box carries that it has started.
ALTER TABLE fleet ADD COLUMN registry_id TEXT;
-- Since when the database has been what it is: made then, or found to be older
-- than what its boxes know of it.
ALTER TABLE fleet ADD COLUMN quiet_from BIGINT NOT NULL DEFAULT 0;
-- When a host last looked for strays.
ALTER TABLE fleet ADD COLUMN strays_at BIGINT NOT NULL DEFAULT 0;

-- Without a reference: its workspace may be none of this database.
CREATE TABLE strays (
    provider TEXT COLLATE "C" NOT NULL,
    workspace_id TEXT COLLATE "C" NOT NULL,
    instance_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    -- The identity that it carries, and the epoch that its name does.
    registry_id TEXT,
    epoch BIGINT,
    why TEXT NOT NULL,
    found_at BIGINT NOT NULL,
    stopping BOOLEAN NOT NULL DEFAULT FALSE,
    attempts BIGINT NOT NULL DEFAULT 0,
    try_at BIGINT NOT NULL DEFAULT 0,
    last_error TEXT,
    PRIMARY KEY (provider, workspace_id, instance_id)
);
