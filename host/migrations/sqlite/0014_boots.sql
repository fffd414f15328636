-- The instances loop asks about boots as well.
DROP INDEX workspaces_probe;
CREATE INDEX workspaces_probe ON workspaces (probe_at)
    WHERE status IN ('provisioning', 'online', 'degraded') AND claim_id IS NULL
    AND provider IS NOT NULL AND instance_id IS NOT NULL AND runtime <> 'external';

-- A resume finds what the pause took along, wherever it is in the tree by now.
CREATE INDEX claims_taken_along ON claims (parent_claim_id) WHERE parent_claim_id IS NOT NULL;
