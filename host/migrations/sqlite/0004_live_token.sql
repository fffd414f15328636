-- A heartbeat rewrites its row and needs a live token: it finds the one that was
-- made last in the row that it has anyway, and looks for others among `tokens`.
ALTER TABLE workspaces ADD COLUMN live_token BLOB;

UPDATE workspaces SET live_token = (
    SELECT hash FROM tokens WHERE workspace_id = workspaces.id AND revoked_at IS NULL
    ORDER BY created_at DESC, id DESC LIMIT 1
);

-- By triggers, so that no way to end a token leaves it in the row: another
-- release's, or an operator's by hand.
CREATE TRIGGER tokens_made AFTER INSERT ON tokens BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = NEW.workspace_id AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id = NEW.workspace_id;
END;
CREATE TRIGGER tokens_ended AFTER UPDATE OF revoked_at ON tokens BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = NEW.workspace_id AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id = NEW.workspace_id;
END;
CREATE TRIGGER tokens_deleted AFTER DELETE ON tokens BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = OLD.workspace_id AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id = OLD.workspace_id;
END;
