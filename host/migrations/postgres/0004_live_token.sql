-- A heartbeat rewrites its row and needs a live token: it finds the one that was
-- made last in the row that it has anyway, and looks for others among `tokens`.
ALTER TABLE workspaces ADD COLUMN live_token BYTEA;

UPDATE workspaces SET live_token = live.hash FROM (
    SELECT DISTINCT ON (workspace_id) workspace_id, hash FROM tokens WHERE revoked_at IS NULL
    ORDER BY workspace_id, created_at DESC, id DESC
) AS live WHERE workspaces.id = live.workspace_id;

-- By triggers, so that no way to end a token leaves it in the row: another
-- release's, or an operator's by hand.
CREATE FUNCTION keep_live_token() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whose TEXT := COALESCE(NEW.workspace_id, OLD.workspace_id);
BEGIN
    UPDATE workspaces SET live_token = (
        SELECT hash FROM tokens WHERE workspace_id = whose AND revoked_at IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1
    ) WHERE id = whose;
    RETURN NULL;
END $$;

CREATE TRIGGER tokens_made AFTER INSERT ON tokens FOR EACH ROW EXECUTE FUNCTION keep_live_token();
CREATE TRIGGER tokens_ended AFTER UPDATE OF revoked_at OR DELETE ON tokens
    FOR EACH ROW EXECUTE FUNCTION keep_live_token();
