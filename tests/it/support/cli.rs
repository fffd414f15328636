//! `sprag` as scripts use it, against a test host: what it prints and how it exits.

use tokio::process::Command;

use super::host::ADMIN;
use super::sprag_bin;

/// What a run printed, and its exit code.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Words that stand in this order, in one line each.
    pub fn shows(&self, lines: &[&[&str]]) {
        let mut rest = self.out.lines();
        for words in lines {
            let found = rest.any(|line| words.iter().all(|word| line.split_whitespace().any(|w| w == *word)));
            assert!(found, "no line of {words:?} in its place in\n{}{}", self.out, self.err);
        }
    }

    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }

    /// It could not be asked; the error says all of these.
    pub fn refused(self, says: &[&str]) {
        let ran = self.exits(2);
        assert_eq!(ran.out, "");
        for what in says {
            assert!(ran.err.contains(what), "no {what:?} in {}", ran.err);
        }
    }
}

/// `sprag` with these arguments, as an operator of the host at `url`.
pub fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(sprag_bin());
    command.args(args).env("SPRAG_URL", url).env("SPRAG_ADMIN_TOKEN", ADMIN);
    command.kill_on_drop(true);
    command
}

/// Runs it to its end.
pub async fn sprag(url: &str, args: &[&str]) -> Ran {
    let ran = command(url, args).output().await.expect("running sprag");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: ran.status.code(), out: text(ran.stdout), err: text(ran.stderr) }
}
