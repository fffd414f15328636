-- A workspace's claims in the order in which they were opened, which is that of their
-- epochs: ids are made by the clocks of hosts.
DROP INDEX claims_by_workspace;
CREATE INDEX claims_by_epoch ON claims (workspace_id, epoch);
