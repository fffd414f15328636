-- What an agent reports beside what has columns of its own: a heartbeat that leaves
-- something out leaves it as it was. One number, since every heartbeat writes it: two bits
-- each (0 not said, 1 no, 2 yes) for mcp_server_present, model_present and status_mgmt,
-- and from the ninth on loaded_mcp_tools + 1 (0: not said).
ALTER TABLE workspaces ADD COLUMN reported INTEGER NOT NULL DEFAULT 0;

-- What of the last heartbeat, and of the last registration, was not taken as it was said: JSON, mostly none.
ALTER TABLE workspaces ADD COLUMN heartbeat_warnings TEXT;
ALTER TABLE workspaces ADD COLUMN registration_warnings TEXT;
