-- A heartbeat rewrites its row and needs a live token: it finds the one that was
-- made last in the row that it has anyway, and looks for others among `tokens`.
ALTER TABLE workspaces ADD COLUMN live_token BYTEA;

-- By triggers, so that a token which another release ends, or an operator by
-- hand, does not stay in the row.
CREATE FUNCTION keep_live_token() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    whose TEXT;
BEGIN
    FOR whose IN SELECT DISTINCT id FROM (VALUES (OLD.workspace_id), (NEW.workspace_id)) AS w (id)
        WHERE id IS NOT NULL ORDER BY id
    LOOP
        -- By itself: what is then looked for is seen as it is once the row is held,
        -- and another's token that has ended meanwhile is no live one.
        PERFORM 1 FROM workspaces WHERE id = whose FOR NO KEY UPDATE;
        UPDATE workspaces SET live_token = (
            SELECT hash FROM tokens WHERE workspace_id = whose AND revoked_at IS NULL
            ORDER BY created_at DESC, id DESC LIMIT 1
        ) WHERE id = whose;
    END LOOP;
    RETURN NULL;
END $$;

CREATE FUNCTION forget_live_tokens() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE workspaces SET live_token = NULL WHERE live_token IS NOT NULL;
    RETURN NULL;
END $$;

CREATE TRIGGER tokens_made AFTER INSERT ON tokens FOR EACH ROW EXECUTE FUNCTION keep_live_token();
CREATE TRIGGER tokens_changed AFTER UPDATE OF hash, workspace_id, revoked_at OR DELETE ON tokens
    FOR EACH ROW EXECUTE FUNCTION keep_live_token();
CREATE TRIGGER tokens_emptied AFTER TRUNCATE ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION forget_live_tokens();

-- After the triggers, which waited for whoever was just changing a token.
UPDATE workspaces SET live_token = live.hash FROM (
    SELECT DISTINCT ON (workspace_id) workspace_id, hash FROM tokens WHERE revoked_at IS NULL
    ORDER BY workspace_id, created_at DESC, id DESC
) AS live WHERE workspaces.id = live.workspace_id;
