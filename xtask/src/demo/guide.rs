//! What a person is told: lines to read when the demo starts, and a file for
//! their shell that knows where this demo's host is, whatever port it got.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The file that a shell reads, in the demo's folder.
pub const ENV: &str = "env";

/// Writes [`ENV`]: `sprag`, `admin` and `group` for a shell, and the host's address.
pub fn write_env(home: &Path, url: &str, program: &Path) -> Result<()> {
    let text = format!(
        "# For a shell: `. {shown}`\n\
         export SPRAG_URL={url}\n\
         export SPRAG_ADMIN_TOKEN_FILE={home}\n\
         unset SPRAG_ADMIN_TOKEN\n\
         # The host's command line.\n\
         sprag() {{ {program} \"$@\"; }}\n\
         # curl, as an operator.\n\
         admin() {{ curl -sS -w '\\n' -H \"authorization: Bearer $(cat \"$SPRAG_ADMIN_TOKEN_FILE\")\" \"$@\"; }}\n\
         # The process group of the instance that an agent of this name runs in.\n\
         group() {{ sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/' {agents}/\"$1\"/run.json; }}\n",
        shown = shown(&home.join(ENV)),
        home = quoted(&home.join("admin-token")),
        program = quoted(program),
        agents = quoted(&home.join("agents")),
    );
    fs::write(home.join(ENV), text).context("cannot write the file for your shell")
}

/// Where things are, and what to try.
pub fn print(home: &Path) {
    let home = shown(home);
    println!(
        "\nThe host is up. Its log is {home}/host.log, its configuration {home}/sprag.toml.\n\n\
         In another shell, at this place:\n  \
         . {home}/{ENV}                            # sprag, admin, and where the host is\n  \
         sprag workspace list\n  \
         sprag workspace restart ID --wait             # stop, start, every step of it\n  \
         sprag workspace switch-provider ID --to other --wait\n  \
         sprag workspace pause ID --wait; sprag workspace resume ID --wait\n  \
         sprag claim list ID\n  \
         sprag workspace create mine --provider local --wait\n  \
         admin -N $SPRAG_URL/events/stream\n  \
         admin $SPRAG_URL/decisions/ID                 # an ID from the lines below\n\n\
         What an agent says of itself is its control file. Nobody touches steady-eddie: it is yours.\n  \
         echo '{{\"error_rate\": 0.9}}' > {home}/agents/steady-eddie/control.json\n\
         {home}/agents/NAME is the instance that an agent runs in now; its log is agent.log there.\n\n\
         Or kill it, as often as you like:\n  \
         kill -9 -- -$(group steady-eddie)\n\
         Within seconds the host finds out that the instance is not running, and starts it again in a\n\
         new one. Not twice within 3 s: that is the cooldown of restarts, and it stays offline so long.\n\
         Kill all of them at once, and the brake holds the last ones:\n  \
         for a in {home}/agents/*; do kill -9 -- -$(group $(basename $a)); done\n  \
         sprag brake; sprag brake release; sprag loops\n\n\
         Or change a threshold in {home}/policies/policies.toml: the host takes it over as it runs.\n\
         Ctrl-C ends it all, the agents too. Below, * is what the demo does; the rest is what the host\n\
         says.\n",
    );
}

/// For a shell, whatever is in it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Relative to where one stands, when it lies below.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
