//! `kill -9` of a real host at every moment of a claim, and what the next host
//! makes of it.

use std::time::{Duration, Instant};

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::claims::Point;
use sprag::claims::plan::{Planned, Step, Undo, plan};
use sprag::facts::CommandKind;
use sprag::store::{Backend, Filter};

use super::{BLUE, RED, unclaimed};
use crate::support::control_plane::{ControlPlane, Verb, What, Where};
use crate::support::db::TestDb;
use crate::support::process::{Launch, Process};

const LEASE_MS: u64 = 600;
const TICK_MS: u64 = 100;

/// What a host may take to start, and a busy machine to get to it.
const SLACK: Duration = Duration::from_secs(10);

/// The steps of a claim whose start works, or fails.
fn steps(command: Option<CommandKind>, start_works: bool) -> Vec<Step> {
    let forth: Vec<_> = plan(command).iter().map(|planned| planned.step).collect();
    if start_works || !forth.contains(&Step::StartNew) {
        return forth;
    }
    let back = plan(command).iter().rev().filter_map(|Planned { undo, .. }| match undo {
        Undo::By(step) => Some(*step),
        Undo::Nothing | Undo::Cannot => None,
    });
    back.collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_moment(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
    #[values(
        None,
        Some(CommandKind::Restart),
        Some(CommandKind::SwitchProvider),
        Some(CommandKind::Pause),
        Some(CommandKind::Resume),
        Some(CommandKind::Wake),
        Some(CommandKind::Hibernate)
    )]
    command: Option<CommandKind>,
    #[values(true, false)] start_works: bool,
) {
    let steps = steps(command, start_works);
    if !start_works && !steps.contains(&Step::StopNew) {
        return;
    }
    let db = TestDb::new(backend).await;
    let plane = ControlPlane::start(&[RED, BLUE]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = super::config(&plane, dir.path(), LEASE_MS, TICK_MS);
    let kind = command.map_or("create", |command| command.cause().as_str());
    let mut killed = 0;
    let bound = Duration::from_millis(LEASE_MS + 2 * TICK_MS) + SLACK;
    for point in Point::all(&steps) {
        let die_at = format!("{kind}:{point}");
        let env = &[("SPRAG_DIE_AT", die_at.as_str())];
        let host = Launch { config: &config, env, ..Launch::of(&db.url, dir.path()) }.start().await;
        let id = begin(&host, &db, &plane, command, start_works).await;
        host.died(&die_at).await;
        killed += 1;

        let since = Instant::now();
        let next = Process::start(&db.url, dir.path(), &config).await;
        unclaimed(&db, &id).await;
        while db.store.effect_counts().await.expect("reading the outbox") != (0, 0) {
            assert!(since.elapsed() < bound, "{die_at}: something is owed still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(since.elapsed() < bound, "{die_at}: it took {:?}", since.elapsed());
        let row = next.admin(Method::GET, &format!("workspaces/{id}"), None).await;
        let running = plane.running(&id);
        match (&row["instance_id"], running.as_slice()) {
            (Value::Null, []) => {}
            (Value::String(instance), [only]) => {
                assert_eq!((instance, &row["provider"]), (&only.instance, &json!(only.provider)), "{die_at}");
            }
            _ => panic!("{die_at}: {row:#}\n{running:#?}\n{:#?}", plane.journal.calls(&id)),
        }
        assert!(plane.journal.most_running_at_once(&id) <= 1, "{die_at}");
        plane.faults.clear();
        next.kill().await;
    }
    println!("{killed} hosts killed within {kind}, start works: {start_works}, {backend:?}");
}

/// Gives the command, whose host will not live to answer it.
async fn begin(
    host: &Process,
    db: &TestDb,
    plane: &ControlPlane,
    command: Option<CommandKind>,
    start_works: bool,
) -> String {
    let body = json!({ "name": "w", "provider": RED });
    let Some(command) = command else {
        if !start_works {
            plane.faults.always(Where::verb(Verb::Start), What::Refuse { status: 422, code: "NO_ROOM" });
        }
        let _ = post(host, "workspaces", body).await;
        // The answer may be lost with the host.
        let filter = Filter { limit: 500, ..Filter::default() };
        let all = db.store.list(&filter).await.expect("reading workspaces");
        return all.last().expect("it was created").workspace.id.clone();
    };
    let made = host.admin(Method::POST, "workspaces", Some(body)).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    unclaimed(db, &id).await;
    let token = plane.spec(RED, &plane.running(&id)[0].instance).expect("a box").token;
    crate::support::process::beat(&host.client, &host.url, &id, &token, 1, 0.0).await.expect("an answer");
    let before = match command {
        CommandKind::Resume => Some("pause"),
        CommandKind::Wake => Some("hibernate"),
        _ => None,
    };
    if let Some(before) = before {
        post(host, &format!("workspaces/{id}/{before}"), json!({ "force": true })).await.expect("an answer");
        unclaimed(db, &id).await;
    }
    if !start_works {
        plane.faults.always(Where::verb(Verb::Start), What::Refuse { status: 422, code: "NO_ROOM" });
    }
    let name = command.cause().as_str().replace('_', "-");
    let body = super::sent_with(&name);
    let _ = post(host, &format!("workspaces/{id}/{name}"), body).await;
    id
}

async fn post(host: &Process, path: &str, body: Value) -> Result<Value, reqwest::Error> {
    let request =
        host.client.post(format!("{}/{path}", host.url)).bearer_auth(crate::support::process::ADMIN);
    request.json(&body).send().await?.json().await
}
