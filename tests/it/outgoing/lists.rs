//! The command line's lists: whole, and escaped; its patience; its colours.

use std::time::Instant;

use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::cli::{command, sprag};
use crate::support::db::TestDb;
use crate::support::host::TestHost;

/// A newline, an escape sequence, a C1 control, a bidi override, no width.
const HOSTILE: &str = "a\nforged\u{1b}[2J\u{9b}31m\u{202e}b\u{200b}c";
const SHOWN: &str = "a\\nforged\\u{1b}[2J\\u{9b}31m\\u{202e}b\\u{200b}c";

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_goes_through_all_its_pages(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let id = |n: u32| format!("00000000-0000-7000-8000-{n:012}");
    for n in 0..501 {
        db.workspace(&id(n)).await;
    }
    let all = sprag(&host.url, &["workspace", "list"]).await.exits(0);
    let ids: Vec<_> = all.out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let (first, last) = (id(0), id(500));
    assert_eq!((ids.len(), ids[0], ids[500]), (501, first.as_str(), last.as_str()), "{}", all.err);
    for (limit, lines) in [("0", 0), ("7", 7), ("501", 501), ("9000", 501)] {
        let some = sprag(&host.url, &["workspace", "list", "--limit", limit]).await.exits(0);
        assert_eq!(some.out.lines().count(), lines, "--limit {limit}");
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_say_is_shown_escaped(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, token) = host.create(json!({ "name": HOSTILE })).await;
    let card = json!({ "id": id, "url": "http://a.example:1", "agent_card": { "name": HOSTILE } });
    host.agent("/registry/register", Some(&token), card).await.ok();
    let mut beat = crate::support::host::healthy(&id);
    beat["sample_error"] = HOSTILE.into();
    beat["error_rate"] = 0.9.into();
    host.agent("/registry/heartbeat", Some(&token), beat).await.ok();
    for args in [
        &["workspace", "list"] as &[&str],
        &["workspace", "show", &id],
        &["claim", "list", &id],
        &["effects", "list"],
        &["policy", "revisions"],
        &["brake"],
        &["loops"],
        &["record", "--database-url", &db.url],
        &["claim", "show", HOSTILE],
    ] {
        let ran = sprag(&host.url, args).await;
        for text in [&ran.out, &ran.err] {
            let raw =
                text.chars().find(|c| (c.is_control() && *c != '\n') || "\u{202e}\u{200b}".contains(*c));
            assert_eq!(raw, None, "{args:?}: {text:?}");
            assert!(!text.lines().any(|line| line.starts_with("forged")), "{args:?}: {text}");
        }
        match args {
            ["workspace", "list"] => assert!(ran.out.contains(SHOWN), "{}", ran.out),
            ["workspace", "show", ..] => {
                let row: Value = serde_json::from_str(&ran.out).expect("JSON");
                assert_eq!((&row["name"], &row["agent_card"]["name"]), (&HOSTILE.into(), &HOSTILE.into()));
            }
            ["record", ..] => {
                let words = Value::from(HOSTILE).to_string();
                let says = |line: &str| serde_json::from_str::<Value>(line).expect("JSON").to_string();
                assert!(ran.out.lines().any(|line| says(line).contains(&words)), "{}", ran.out);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_does_not_answer_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let before = Instant::now();
    let ran = sprag(&url, &["workspace", "list", "--timeout", "300ms"]).await;
    assert!(before.elapsed() < std::time::Duration::from_secs(25), "the default, at least");
    ran.refused(&["no answer within 300ms (--timeout)", &url]);
    sprag(&url, &["workspace", "list", "--timeout", "0s"]).await.refused(&["no time"]);
    drop(listener);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activating_fewer_policies_needs_to_be_said() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let one = crate::support::policy_dir().join("heartbeat.wasm");
    let one = one.to_str().expect("a path");
    let active = async || host.get("/policies").await.ok()["number"].clone();
    let before = active().await;
    sprag(&host.url, &["policy", "activate", one]).await.refused(&[
        "no longer asked",
        "silence@",
        "--replace",
    ]);
    assert_eq!(active().await, before);
    let done = sprag(&host.url, &["policy", "activate", "--replace", one]).await.exits(0);
    assert!(done.out.starts_with('*') && done.err.contains("silence@"), "{}{}", done.out, done.err);
    // The same ones, or more, drop nothing.
    let all = crate::support::policy_dir();
    sprag(&host.url, &["policy", "activate", all.to_str().expect("a path")]).await.exits(0);
}

/// Neither colours nor a silent filter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_no_terminal_has_no_colours_and_a_bad_filter_is_refused() {
    let state = tempfile::tempdir().expect("a directory");
    let run = async |filter: &str| {
        let mut serve = command("http://127.0.0.1:1", &["serve", "--listen", "127.0.0.1:0", "--state-dir"]);
        serve
            .arg(state.path())
            .arg("--database-url")
            .arg(format!("sqlite:{}", state.path().join("db").display()));
        serve.env("SPRAG_LOG", filter).env_remove("NO_COLOR").stderr(std::process::Stdio::piped());
        let mut child = serve.spawn().expect("a host");
        let mut lines =
            tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stderr.take().expect("piped")));
        let mut text = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            text += &format!("{line}\n");
            if line.contains("serving") {
                child.kill().await.expect("killing it");
                return (None, text);
            }
        }
        (child.wait().await.expect("its end").code(), text)
    };
    let (code, text) = run("info").await;
    assert!(code.is_none() && text.contains(" INFO ") && !text.contains('\u{1b}'), "{text:?}");
    for bad in ["bogus==x", "inof"] {
        let (code, text) = run(bad).await;
        assert!(code == Some(2) && text.contains(bad) && text.contains("SPRAG_LOG"), "{text}");
    }
    assert!(run("").await.1.contains(" INFO "), "set but empty is not set");
}

/// One host's token must not be sent to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tokens_file_on_the_line_beats_a_token_in_the_environment() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!(" {}\r\n", crate::support::host::ADMIN)).expect("writing");
    let path = file.path().to_str().expect("a path");
    let list = |token: &'static str, args: &[&str]| {
        let args: Vec<_> = ["workspace", "list"].iter().chain(args).copied().collect();
        let mut command = command(&host.url, &args);
        command.env("SPRAG_ADMIN_TOKEN", token);
        async move { command.output().await.expect("running sprag") }
    };
    assert!(list("another-hosts-token", &["--admin-token-file", path]).await.status.success());
    assert!(list("an-admin-token-for-tests\n", &[]).await.status.success(), "a last newline");
    assert!(list("", &["--admin-token-file", path]).await.status.success(), "empty is absent");
    let both = list("", &["--admin-token-file", path, "--admin-token", "x"]).await;
    assert_eq!(both.status.code(), Some(2));
    let bad = list("tö-ken", &[]).await;
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(
        said.contains("SPRAG_ADMIN_TOKEN") && said.contains("no header") && !said.contains("tö"),
        "{said}"
    );
}
