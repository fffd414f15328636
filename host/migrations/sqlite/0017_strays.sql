-- Strays: boxes that a provider lists and that no row names. And the registry's
-- own identity, which every box carries that it has started.
ALTER TABLE fleet ADD COLUMN registry_id TEXT;
-- Since when the database has been what it is: made then, or found to be older
-- than what its boxes know of it.
ALTER TABLE fleet ADD COLUMN quiet_from INTEGER NOT NULL DEFAULT 0;
-- When a host last looked for strays.
ALTER TABLE fleet ADD COLUMN strays_at INTEGER NOT NULL DEFAULT 0;

-- Without a reference: its workspace may be none of this database.
CREATE TABLE strays (
    provider TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    -- The identity that it carries, and the epoch that its name does.
    registry_id TEXT,
    epoch INTEGER,
    why TEXT NOT NULL,
    found_at INTEGER NOT NULL,
    stopping BOOLEAN NOT NULL DEFAULT FALSE,
    attempts INTEGER NOT NULL DEFAULT 0,
    try_at INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    PRIMARY KEY (provider, workspace_id, instance_id)
) WITHOUT ROWID;
