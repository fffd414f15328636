-- The clock, as the hosts watch it: since when it has run evenly, by how much it
-- went ahead then, and the latest time that a pulse has read from it. An earlier
-- one means that it was set back.
ALTER TABLE fleet ADD COLUMN clock_from BIGINT NOT NULL DEFAULT 0;
ALTER TABLE fleet ADD COLUMN clock_ahead BIGINT NOT NULL DEFAULT 0;
ALTER TABLE fleet ADD COLUMN clock_seen BIGINT NOT NULL DEFAULT 0;
