//! Without its database the host answers 503 and writes nothing.

use std::sync::Arc;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::heartbeats::HeartbeatError;
use sprag::http::Problem;
use sprag::http::Registration;
use sprag::store::{Backend, StoreError};

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Setup, TestHost, healthy};

#[rstest]
#[tokio::test]
async fn the_database_is_away(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::start(&db, Setup { registration: Registration::Open, ..Setup::default() }).await;
    let (id, token) = host.create(json!({ "name": "one" })).await;
    db.store.close().await;
    let agent = [
        ("/registry/register", json!({ "id": id })),
        ("/registry/heartbeat", healthy(&id)),
        ("/registry/update-card", json!({ "workspace_id": id, "agent_card": { "new": 1 } })),
    ];
    for (path, body) in agent {
        for token in [token.as_str(), "stranger"] {
            let answer = host.agent(path, Some(token), body.clone()).await;
            assert_eq!(answer.problem(), (503, "DATABASE_UNAVAILABLE"), "{path}");
            assert_eq!(answer.header("retry-after"), "1");
        }
    }
    let workspace = format!("/workspaces/{id}");
    let lost = format!("/workspaces/{id}/token");
    let operator = [
        (Method::POST, "/workspaces", json!({ "name": "two" })),
        (Method::GET, "/workspaces", Value::Null),
        (Method::GET, &workspace, Value::Null),
        (Method::PATCH, &workspace, json!({ "name": "new" })),
        (Method::DELETE, &workspace, Value::Null),
        (Method::POST, &lost, Value::Null),
        (Method::GET, "/events", Value::Null),
        (Method::GET, "/events/stream", Value::Null),
        (Method::GET, "/decisions", Value::Null),
        (Method::GET, "/policies", Value::Null),
        (Method::POST, "/policies/rollback", Value::Null),
    ];
    for (method, path, body) in operator {
        let answer = host.call(method, path, Some(ADMIN), Some(body)).await;
        assert_eq!(answer.problem(), (503, "DATABASE_UNAVAILABLE"), "{path}");
    }
    assert_eq!(host.call(Method::GET, "/readyz", None, None).await.problem(), (503, "NOT_SERVING"));
    assert_eq!(host.call(Method::GET, "/health", None, None).await.ok(), json!({ "status": "ok" }));

    let again = sprag::store::Store::connect(&db.url).await.expect("the database is back");
    let row = again.view(&id).await.expect("reading").expect("the row");
    assert_eq!((row.version, row.name.as_str(), row.workspace.last_heartbeat_at), (1, "one", None));
    assert_eq!(again.events(None, None, 100).await.expect("reading").len(), 1);
    again.close().await;
}

/// A connection that broke in a commit leaves it open whether it was carried out.
#[test]
fn nothing_is_claimed_that_nobody_knows() {
    let broken = || sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into());
    let says = |error: sqlx::Error| format!("{:?}", Problem::from(StoreError::from(error)));
    assert!(says(sqlx::Error::PoolTimedOut).contains("nothing was changed"));
    let unknown = says(broken());
    assert!(unknown.contains("DATABASE_UNAVAILABLE") && unknown.contains("is not known"), "{unknown}");
    let heartbeat = HeartbeatError::Store(Arc::new(StoreError::from(broken())));
    let unknown = format!("{:?}", Problem::from(heartbeat));
    assert!(unknown.contains("is not known") && !unknown.contains("nothing was"), "{unknown}");
}
