-- A heartbeat rewrites its row and needs a live token: it finds the one that was
-- made last in the row that it has anyway, and looks for others among `tokens`.
ALTER TABLE workspaces ADD COLUMN live_token BLOB;

UPDATE workspaces SET live_token = (
    SELECT hash FROM tokens WHERE workspace_id = workspaces.id AND revoked_at IS NULL
    ORDER BY created_at DESC, id DESC LIMIT 1
) WHERE EXISTS (SELECT 1 FROM tokens WHERE workspace_id = workspaces.id AND revoked_at IS NULL);

-- By triggers, so that a token which another release ends, or an operator by
-- hand, does not stay in the row.
CREATE TRIGGER tokens_made AFTER INSERT ON tokens BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = NEW.workspace_id AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id = NEW.workspace_id;
END;
CREATE TRIGGER tokens_changed AFTER UPDATE OF hash, workspace_id, revoked_at ON tokens BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = workspaces.id AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id IN (OLD.workspace_id, NEW.workspace_id);
END;
CREATE TRIGGER tokens_deleted AFTER DELETE ON tokens BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = OLD.workspace_id AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id = OLD.workspace_id;
END;
