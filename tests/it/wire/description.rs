//! What everybody may ask, and that the description and the router agree.

use std::collections::BTreeSet;

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use crate::support::db::TestDb;
use crate::support::host::{ADMIN, TestHost};

/// How OpenAPI 3.1 describes a description.
const OPENAPI_3_1: &str = include_str!("../../openapi/schema-3.1.json");

/// What the host answers: a route more or less is a change of the wire.
const ROUTES: &[(&str, &str)] = &[
    ("post", "/registry/register"),
    ("post", "/registry/heartbeat"),
    ("post", "/registry/update-card"),
    ("post", "/workspaces"),
    ("get", "/workspaces"),
    ("get", "/workspaces/{id}"),
    ("patch", "/workspaces/{id}"),
    ("delete", "/workspaces/{id}"),
    ("post", "/workspaces/{id}/token"),
    ("post", "/workspaces/{id}/{command}"),
    ("get", "/workspaces/{id}/claims"),
    ("get", "/claims/{id}"),
    ("get", "/workspaces/{id}/plugins"),
    ("put", "/workspaces/{id}/plugins"),
    ("get", "/effects"),
    ("post", "/effects/{id}/retry"),
    ("delete", "/effects/{id}"),
    ("get", "/instances"),
    ("get", "/brake"),
    ("post", "/brake/release"),
    ("get", "/loops"),
    ("get", "/events"),
    ("get", "/events/{workspace}"),
    ("get", "/events/stream"),
    ("get", "/decisions"),
    ("get", "/decisions/{id}"),
    ("get", "/policies"),
    ("post", "/policies/modules"),
    ("get", "/policies/revisions"),
    ("post", "/policies/revisions"),
    ("post", "/policies/revisions/{number}/activate"),
    ("post", "/policies/rollback"),
    ("get", "/brake"),
    ("post", "/brake/release"),
    ("get", "/loops"),
    ("get", "/health"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/openapi.json"),
];

#[tokio::test]
async fn every_route_is_described_and_every_described_route_answers() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let document = host.call(Method::GET, "/openapi.json", None, None).await.ok();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            described.insert((method.clone(), path.clone()));
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            answers_as_described(&host, &document, method, path, operation).await;
        }
    }
    let routes: BTreeSet<_> = ROUTES.iter().map(|(m, p)| ((*m).to_owned(), (*p).to_owned())).collect();
    assert_eq!(described, routes);
    assert!(document["components"]["schemas"]["Problem"].is_object());
}

/// By OpenAPI's own schema (`tests/openapi/`), and by what that does not say.
#[tokio::test]
async fn the_description_is_valid() {
    let db = TestDb::new(Backend::Sqlite).await;
    let host = TestHost::plain(&db).await;
    let document = host.call(Method::GET, "/openapi.json", None, None).await.ok();
    let schema = serde_json::from_str(OPENAPI_3_1).expect("OpenAPI's schema");
    let validator = jsonschema::validator_for(&schema).expect("a validator");
    let wrong: Vec<_> =
        validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{} faults, such as\n{}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));

    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no id"));
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} is another one's id");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let words = response["description"].as_str().unwrap_or_default();
                assert!(!words.trim().is_empty(), "{method} {path} {status} says nothing");
            }
            let named: BTreeSet<_> = path.split('/').filter_map(|part| part.strip_prefix('{')).collect();
            let given = operation["parameters"].as_array().into_iter().flatten();
            let given = given.filter(|parameter| parameter["in"] == "path");
            let given: BTreeSet<_> =
                given.map(|p| format!("{}}}", p["name"].as_str().expect("a name"))).collect();
            assert_eq!(given, named.iter().map(|&name| name.to_owned()).collect(), "{method} {path}");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        jsonschema::validator_for(&with_components(schema, &document))
            .unwrap_or_else(|e| panic!("the schema {name}: {e}"));
    }
}

/// A schema of the document, with what its references lead to.
fn with_components(schema: &Value, document: &Value) -> Value {
    json!({ "allOf": [schema], "components": document["components"] })
}

/// Asks with the admin token and `{}`: whatever comes back must be described.
async fn answers_as_described(
    host: &TestHost,
    document: &Value,
    method: &str,
    path: &str,
    operation: &Value,
) {
    if path == "/events/stream" {
        return;
    }
    let asked = [("{id}", "x"), ("{workspace}", "x"), ("{number}", "7"), ("{command}", "restart")];
    let asked = asked.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
    let verb = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
    for token in [Some(ADMIN), None] {
        let body = (verb != Method::GET).then(|| json!({}));
        let answer = host.call(verb.clone(), &asked, token, body).await;
        let status = answer.status.as_u16().to_string();
        assert_ne!(answer.body["code"], "NO_SUCH_ROUTE", "{method} {path}");
        let described = &operation["responses"][&status];
        assert!(
            described.is_object(),
            "{method} {path} answered {status}, which is not described: {answer:?}"
        );
        let kind = answer.header("content-type").split(';').next().unwrap_or_default();
        assert!(described["content"][kind].is_object(), "{method} {path} {status} answered {kind}");
        let schema = with_components(&described["content"][kind]["schema"], document);
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        if let Err(error) = validator.validate(&answer.body) {
            panic!("{method} {path} {status} is not as described: {error} at {}", error.instance_path());
        }
    }
}

#[rstest]
#[tokio::test]
async fn everybody_may_ask(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(host.call(Method::GET, path, None, None).await.ok(), json!({ "status": "ok" }), "{path}");
    }
    let (id, token) = host.create(json!({ "name": "one" })).await;
    host.beat(&id, &token).await.ok();
    let metrics = host.call(Method::GET, "/metrics", None, None).await;
    let text = metrics.body.as_str().expect("text");
    for line in [
        "sprag_heartbeats_total 1",
        "sprag_http_requests_total{route=\"/registry/heartbeat\",status=\"200\"} 1",
        "sprag_transitions_total{from=\"provisioning\",to=\"online\",cause=\"heartbeat\"} 1",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    assert!(!text.contains(&id) && !text.contains("sprag_sprag"), "{text}");
}
