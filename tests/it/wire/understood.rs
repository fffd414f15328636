//! What an operator sends is understood whole, or refused by name: every body
//! and every query that the host describes, and so a call that is new as well.

use reqwest::Method;
use rstest::rstest;
use serde_json::{Value, json};
use sprag::store::Backend;

use super::described::{Call, Document};
use crate::support::db::TestDb;
use crate::support::host::{ADMIN, Answer, TestHost};

const BOGUS: &str = "statuss";

struct Scene {
    _db: TestDb,
    host: TestHost,
    /// Of a workspace.
    id: String,
    token: String,
    document: Document,
}

impl Scene {
    async fn new() -> Self {
        let db = TestDb::new(Backend::Sqlite).await;
        let host = TestHost::plain(&db).await;
        let (id, token) = host.create(json!({ "name": "one" })).await;
        let document = Document::of(&host).await;
        Self { _db: db, host, id, token, document }
    }

    fn operators(&self) -> Vec<Call> {
        self.document.calls().into_iter().filter(Call::is_operators).collect()
    }

    async fn ask(&self, call: &Call, query: &str, body: Option<Value>) -> Answer {
        let token = if call.is_operators() { ADMIN } else { &self.token };
        let path = format!("{}{query}", call.path(&self.id));
        self.host.call(call.method.clone(), &path, Some(token), body).await
    }
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_by_name() {
    let scene = Scene::new().await;
    let calls = scene.operators();
    assert!(calls.len() > 20, "{} calls", calls.len());
    for call in calls {
        let named = format!("{} {}", call.method, call.route);
        let body = (call.method != Method::GET).then(|| json!({}));
        let answer = scene.ask(&call, &format!("?{BOGUS}=online"), body.clone()).await;
        assert_eq!(answer.problem(), (400, "UNKNOWN_FIELD"), "{named}");
        assert_eq!(
            (&answer.body["field"], &answer.body["value"]),
            (&json!(BOGUS), &json!("online")),
            "{named}"
        );
        let known = answer.body["expected"].as_str().expect("what is known");
        for parameter in call.parameters("query") {
            assert!(known.contains(&format!("`{parameter}`")), "{named} hides {parameter}: {known}");
            let answer = scene.ask(&call, &format!("?{parameter}=1&{parameter}=1"), body.clone()).await;
            assert_eq!(answer.problem(), (400, "BAD_QUERY"), "{named} {parameter}");
            assert_eq!(answer.body["field"], parameter, "{named}");
        }
    }
    // Who may not ask at all learns nothing of it.
    let answer = scene.host.call(Method::GET, "/workspaces?statuss=x", None, None).await;
    assert_eq!(answer.problem(), (401, "UNAUTHORIZED"));
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name() {
    let scene = Scene::new().await;
    let mut bodies = 0;
    for call in scene.operators() {
        if call.method == Method::GET || call.takes_bytes() {
            continue;
        }
        let named = format!("{} {}", call.method, call.route);
        let mut asked = vec![(BOGUS.to_owned(), json!({ BOGUS: 1 }), Vec::new())];
        for place in call.body().map(|schema| scene.document.objects(schema)).unwrap_or_default() {
            let known = place.fields.keys().cloned().collect();
            asked.push((place.field(BOGUS), place.with(BOGUS, json!(1)), known));
        }
        for (field, body, known) in asked {
            bodies += 1;
            let answer = scene.ask(&call, "", Some(body.clone())).await;
            assert_eq!(answer.problem(), (400, "UNKNOWN_FIELD"), "{named} {body}");
            assert_eq!((&answer.body["field"], &answer.body["value"]), (&json!(field), &json!(1)), "{named}");
            let said = answer.body["expected"].as_str().expect("what is known").to_owned();
            for name in known {
                assert!(said.contains(&format!("`{name}`")), "{named} hides {name}: {said}");
            }
        }
    }
    assert!(bodies > 15, "{bodies} bodies");
    let row = scene.host.get(&format!("/workspaces/{}", scene.id)).await.ok();
    assert_eq!(row["status"], "provisioning", "nothing was done");
}

/// Where `null` is described it is taken, and elsewhere it is refused.
#[tokio::test]
async fn null_is_taken_where_it_is_described() {
    let scene = Scene::new().await;
    let mut fields = 0;
    for call in scene.document.calls() {
        for place in call.body().map(|schema| scene.document.objects(schema)).unwrap_or_default() {
            for (name, schema) in &place.fields {
                fields += 1;
                let body = place.with(name, Value::Null);
                let answer = scene.ask(&call, "", Some(body.clone())).await;
                let refused = answer.status == 400 && answer.body["field"] == place.field(name);
                let described = scene.document.takes_null(schema);
                assert_eq!(!refused, described, "{} {} {body}: {answer:?}", call.method, call.route);
            }
        }
    }
    assert!(fields > 30, "{fields} fields");
}

#[rstest]
#[tokio::test]
async fn a_patch_that_it_can_not_do_does_nothing(
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, _) = host.create(json!({ "name": "one", "labels": { "a": "b" } })).await;
    let path = format!("/workspaces/{id}");
    let before = host.get(&path).await.ok();
    for (body, field, code) in [
        (json!({ "name": "two", "runtime": "hermes" }), "runtime", "UNKNOWN_FIELD"),
        (json!({ "name": "two", "status": "online" }), "status", "UNKNOWN_FIELD"),
        (json!({ "name": null }), "name", "INVALID_FIELD"),
        (json!({ "name": "two", "labels": null }), "labels", "INVALID_FIELD"),
    ] {
        let answer = host.admin(Method::PATCH, &path, body).await;
        assert_eq!(answer.problem(), (400, code));
        assert_eq!(answer.body["field"], field);
    }
    assert_eq!(host.get(&path).await.ok(), before);
}

#[rstest]
#[tokio::test]
async fn kinds_are_those_that_there_are(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    for kind in ["workspace", "platform"] {
        let (id, _) = host.create(json!({ "name": "one", "kind": kind })).await;
        assert_eq!(host.get(&format!("/workspaces/{id}")).await.ok()["kind"], kind);
    }
    let created = host.admin(Method::POST, "/workspaces", json!({ "name": "x", "kind": "bogus" })).await;
    let listed = host.get("/workspaces?kind=bogus").await;
    for answer in [created, listed] {
        assert_eq!(answer.problem(), (400, "INVALID_FIELD"));
        assert_eq!((&answer.body["field"], &answer.body["value"]), (&json!("kind"), &json!("bogus")));
        let expected = answer.body["expected"].as_str().expect("those that there are");
        assert!(expected.contains("workspace") && expected.contains("platform"), "{expected}");
    }
    assert_eq!(host.get("/workspaces").await.ok().as_array().expect("a list").len(), 2);
}

/// The field's clients send a number.
#[rstest]
#[case(json!(2), "2")]
#[case(json!(1.5), "1.5")]
#[case(json!(-3), "-3")]
#[case(json!("gold"), "gold")]
#[tokio::test]
async fn a_tier_is_a_number_or_a_string(
    #[case] tier: Value,
    #[case] shown: &str,
    #[values(Backend::Sqlite, Backend::Postgres)] backend: Backend,
) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, _) = host.create(json!({ "name": "one", "tier": tier })).await;
    let path = format!("/workspaces/{id}");
    assert_eq!(host.get(&path).await.ok()["tier"], shown);
    let row = host.admin(Method::PATCH, &path, json!({ "tier": null })).await.ok();
    assert_eq!(row["tier"], Value::Null);
    let row = host.admin(Method::PATCH, &path, json!({ "tier": tier })).await.ok();
    assert_eq!(row["tier"], shown);
    let wrong = host.admin(Method::PATCH, &path, json!({ "tier": [] })).await;
    assert_eq!(wrong.problem(), (400, "INVALID_FIELD"));
    assert_eq!(wrong.body["expected"], "a string or a number");
}

/// `provider` with a restart would have been no switch.
#[rstest]
#[case("provider", json!("blue"))]
#[case("target_provider", json!("blue"))]
#[case("confirm_data_loss", json!(true))]
#[tokio::test]
async fn a_command_takes_its_own_fields_only(#[case] field: &str, #[case] value: Value) {
    let scene = Scene::new().await;
    for command in ["restart", "pause", "resume", "wake", "hibernate"] {
        let path = format!("/workspaces/{}/{command}", scene.id);
        let answer = scene.host.admin(Method::POST, &path, json!({ field: value })).await;
        assert_eq!(answer.problem(), (400, "UNKNOWN_FIELD"), "{command}");
        let detail = answer.body["detail"].as_str().expect("words");
        assert!(detail.contains(command) && detail.contains("`force`"), "{detail}");
    }
}

/// No database here keeps a NUL in a text; it would have been another character.
#[rstest]
#[tokio::test]
async fn a_nul_is_refused_where_it_stands(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, _) = host.create(json!({ "name": "one" })).await;
    let path = format!("/workspaces/{id}");
    let before = host.get(&path).await.ok();
    let text = "a\0b";
    let cases = [
        (Method::POST, "/workspaces", json!({ "name": text }), "name"),
        (Method::POST, "/workspaces", json!({ "name": "x", "tier": text }), "tier"),
        (Method::POST, "/workspaces", json!({ "name": "x", "parent_id": text }), "parent_id"),
        (Method::PATCH, &path, json!({ "name": text }), "name"),
        (Method::PATCH, &path, json!({ "labels": { "k": text } }), "labels.k"),
        (Method::PATCH, &path, json!({ "labels": { text: "v" } }), "labels.a\0b"),
        (
            Method::PUT,
            &format!("{path}/plugins"),
            json!({ "plugins": [{ "name": text }] }),
            "plugins[0].name",
        ),
        (Method::POST, "/brake/release", json!({ "scope": text }), "scope"),
        (Method::GET, "/workspaces?runtime=a%00b", Value::Null, "runtime"),
        (Method::GET, "/workspaces?after=%00", Value::Null, "after"),
        (Method::GET, "/events?before=%00", Value::Null, "before"),
        (Method::GET, "/effects?workspace_id=%00", Value::Null, "workspace_id"),
    ];
    for (method, path, body, field) in cases {
        let body = (method != Method::GET).then_some(body);
        let answer = host.call(method.clone(), path, Some(ADMIN), body).await;
        assert_eq!(answer.problem(), (400, "INVALID_FIELD"), "{method} {path} {field}");
        assert_eq!(answer.body["field"], field);
        assert!(answer.body["expected"].as_str().expect("words").contains("U+0000"), "{answer:?}");
    }
    for path in ["/workspaces/%00", "/events/a%00", "/claims/%00", "/decisions/%00", "/workspaces/%00/claims"]
    {
        assert_eq!(host.get(path).await.problem(), (400, "BAD_PATH"), "{path}");
    }
    assert_eq!(host.get(&path).await.ok(), before);
    assert_eq!(host.get("/workspaces").await.ok().as_array().expect("a list").len(), 1);
}

/// What is said twice is not understood either.
#[tokio::test]
async fn a_field_that_comes_twice_is_refused() {
    let scene = Scene::new().await;
    let path = format!("{}/workspaces/{}", scene.host.url, scene.id);
    for (body, field) in
        [(r#"{ "name": "a", "name": "b" }"#, "name"), (r#"{ "labels": { "a": "1", "a": "2" } }"#, "labels.a")]
    {
        let request = scene.host.client.patch(&path).bearer_auth(ADMIN).body(body);
        let answer = crate::support::host::read(request.send().await.expect("an answer")).await;
        assert_eq!(answer.problem(), (400, "INVALID_FIELD"), "{body}");
        assert_eq!(answer.body["field"], field);
        assert!(answer.body["expected"].as_str().expect("words").contains("once"), "{answer:?}");
    }
}

/// A page begins behind an item; what is no id of one was compared with ids, and
/// listed anything or nothing.
#[rstest]
#[tokio::test]
async fn a_page_begins_at_an_id(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let db = TestDb::new(backend).await;
    let host = TestHost::plain(&db).await;
    let (id, _) = host.create(json!({ "name": "one" })).await;
    let (second, _) = host.create(json!({ "name": "two" })).await;
    for list in [
        "/workspaces?after=".to_owned(),
        "/decisions?after=".to_owned(),
        format!("/workspaces/{id}/claims?before="),
        "/events?before=".to_owned(),
        format!("/events/{id}?before="),
        "/effects?before=".to_owned(),
    ] {
        let field = if list.contains("after") { "after" } else { "before" };
        for no_id in ["", "yesterday", "1x", "-", &id.to_uppercase(), &id.replace('-', ""), "0-0-0"] {
            let refused = host.get(&format!("{list}{no_id}")).await;
            assert_eq!(refused.problem(), (400, "BAD_CURSOR"), "{list}{no_id}");
            assert_eq!((&refused.body["field"], &refused.body["value"]), (&json!(field), &json!(no_id)));
        }
    }
    let refused = host.client.get(format!("{}/events/stream", host.url)).bearer_auth(ADMIN);
    let refused = refused.header("last-event-id", "yesterday").send().await.expect("an answer");
    let refused = crate::support::host::read(refused).await;
    assert_eq!((refused.problem(), &refused.body["field"]), ((400, "BAD_CURSOR"), &json!("Last-Event-ID")));
    // A workspace need not be there any more.
    let listed = host.get(&format!("/workspaces?after={id}")).await.ok();
    assert_eq!(listed[0]["id"], second);
    let nobodys = "01a21320-1c1f-72bd-b251-0207dd38ffb6";
    host.get(&format!("/workspaces?after={nobodys}")).await.ok();
    // A claim is, for good.
    let refused = host.get(&format!("/workspaces/{id}/claims?before={nobodys}")).await;
    assert_eq!((refused.problem(), &refused.body["field"]), ((400, "BAD_CURSOR"), &json!("before")));
}

/// What is no text would have been read as another one.
#[tokio::test]
async fn a_query_is_text() {
    let scene = Scene::new().await;
    let mut asked = 0;
    for call in scene.operators() {
        let body = (call.method != Method::GET).then(|| json!({}));
        for name in call.parameters("query").into_iter().chain(["%ff"]) {
            for value in ["%ff", "a%C3", "%ED%A0%80"] {
                asked += 1;
                let answer = scene.ask(&call, &format!("?{name}={value}"), body.clone()).await;
                assert_eq!(answer.problem(), (400, "INVALID_FIELD"), "{} {}", call.method, call.route);
                let named = if name == "%ff" { "\u{fffd}" } else { name };
                assert_eq!((&answer.body["field"], &answer.body["value"]), (&json!(named), &json!(value)));
            }
        }
    }
    assert!(asked > 80, "{asked} queries");
    let taken = scene.host.get("/workspaces?runtime=%C3%A9+%F0%9F%90%88").await.ok();
    assert_eq!(taken, json!([]));
}
