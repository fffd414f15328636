//! Who may register, and what a registration leaves behind: every mode, every
//! token, both ways of the gate, every status.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::http::Registration;
use sprag::machine::Status;
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{Answer, Setup, TestHost};

/// What the workspace has, and what its agent sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    /// It has one, and its agent sends that.
    Own,
    /// It has one, and its agent sends none.
    Kept,
    /// It has one, and its agent sends another.
    Wrong,
    /// It has none.
    Unclaimed,
    /// It has none, and its agent sends one all the same.
    Strange,
    /// Its token has ended, that of a box that was stopped, say, and its agent sends that.
    Ended,
}

impl Token {
    fn issued(self) -> bool {
        !matches!(self, Token::Unclaimed | Token::Strange)
    }

    fn lives(self) -> bool {
        self.issued() && self != Token::Ended
    }

    fn admitted(self, mode: Registration) -> bool {
        self == Token::Own || (mode == Registration::Open && !self.issued())
    }
}

#[rstest]
#[tokio::test]
async fn what_becomes_of_a_registration(
    #[values(Registration::Open, Registration::Token)] mode: Registration,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::start(&db, Setup { registration: mode, timed: false, ..Setup::default() }).await;
    for token in [Token::Unclaimed, Token::Strange, Token::Own, Token::Kept, Token::Wrong, Token::Ended] {
        for ready in [true, false] {
            for status in Status::ALL {
                let of = format!("{mode:?} {token:?} ready={ready} {status}");
                let body = json!({ "name": "one", "kind": "platform", "issue_token": token.issued() });
                let made = host.admin(Method::POST, "/workspaces", body).await.ok();
                let id = made["id"].as_str().expect("an id");
                db.sql(&format!("UPDATE workspaces SET status = '{status}' WHERE id = '{id}'")).await;
                if token == Token::Ended {
                    db.store.revoke_tokens(id).await.expect("ending it");
                }
                let moves = transitions(&host).await;
                let sent = match token {
                    Token::Own | Token::Ended => made["auth_token"].as_str(),
                    Token::Kept | Token::Unclaimed => None,
                    Token::Wrong | Token::Strange => Some("sprag_of_nobody"),
                };
                let answer = host.agent("/registry/register", sent, body_of(id, ready)).await;

                let became = expected(status, token.admitted(mode), ready);
                assert_eq!(said(&answer), became.said, "{of}: {answer:?}");
                let row = host.get(&format!("/workspaces/{id}")).await.ok();
                assert_eq!(row["status"], became.status.as_str(), "{of}");
                let stored = (row["url"].as_str(), row["agent_card"]["name"].as_str());
                let whole = became.stored.then_some(("http://agent:8000", "a"));
                assert_eq!(stored, (whole.map(|w| w.0), whole.map(|w| w.1)), "{of}");
                let minted = became.said.0 == 200 && !token.issued();
                assert_eq!(answer.body["auth_token"].is_string(), minted, "{of}");
                let live = db.store.tokens(id).await.expect("tokens").len();
                assert_eq!(live, usize::from(minted || token.lives()), "{of}");
                let moved = u64::from(became.status != status);
                assert_eq!(
                    transitions(&host).await - moves,
                    moved,
                    "{of}: the metrics count what was written"
                );
                if minted {
                    let token = answer.body["auth_token"].as_str();
                    let beat = json!({ "workspace_id": id, "loaded_mcp_tools": 1 });
                    host.agent("/registry/heartbeat", token, beat).await.ok();
                }
            }
        }
    }
}

struct Became {
    said: (u16, &'static str),
    status: Status,
    stored: bool,
}

fn expected(status: Status, admitted: bool, ready: bool) -> Became {
    let as_it_was = |said| Became { said, status, stored: false };
    match status {
        _ if !admitted => as_it_was((401, "UNAUTHORIZED")),
        Status::Removed => as_it_was((410, "WORKSPACE_REMOVED")),
        Status::Paused => as_it_was((409, "WORKSPACE_PAUSED")),
        Status::Hibernated => as_it_was((409, "WORKSPACE_HIBERNATED")),
        _ if ready => Became { said: (200, "registered"), status: Status::Online, stored: true },
        _ => Became { said: (400, "NOT_READY"), status: Status::Failed, stored: true },
    }
}

fn said(answer: &Answer) -> (u16, &str) {
    let code = answer.body["code"].as_str().or(answer.body["status"].as_str());
    (answer.status.as_u16(), code.unwrap_or_default())
}

fn body_of(id: &str, ready: bool) -> Value {
    let tools = if ready { json!(["create_workspace"]) } else { json!([]) };
    json!({ "id": id, "url": "http://agent:8000", "agent_card": { "name": "a" }, "mcp_server_present": true,
        "model_present": true, "loaded_mcp_tools": tools })
}

/// Changes of status that a registration made, as the metrics have it.
async fn transitions(host: &TestHost) -> u64 {
    let metrics = host.call(Method::GET, "/metrics", None, None).await;
    let text = metrics.body.as_str().expect("text");
    let lines =
        text.lines().filter(|l| l.starts_with("sprag_transitions_total") && l.contains("\"registered\""));
    lines.map(|l| l.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")).sum()
}
