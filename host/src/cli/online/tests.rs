//! What the events of a boot come to.

use serde_json::{Value, json};

use super::*;

/// Events as the host lists them, the newest first: `FROM TO` each, the first with the claim's decision.
fn listed(moves: &[(&str, &str)]) -> Value {
    let event = |(n, (from, to)): (usize, &(&str, &str))| {
        let from = if from.is_empty() { Value::Null } else { json!(from) };
        let decision = if n == 1 { json!("the-claim's") } else { json!(format!("d{n}")) };
        json!({ "version": n + 1, "from": from, "to": to, "decision_id": decision,
            "reason": { "code": format!("why-{to}") } })
    };
    moves.iter().enumerate().map(event).rev().collect()
}

fn outcome(claim: &Value, moves: &[(&str, &str)]) -> String {
    let listed = listed(moves);
    match moves_since(claim, &listed).map(|moves| became(&moves)) {
        None => "not there".to_owned(),
        Some(Boot::Goes) => "goes".to_owned(),
        Some(Boot::Up(how)) => format!("up {how}"),
        Some(Boot::Over(how)) => format!("over {how}"),
    }
}

#[test]
fn the_first_thing_that_is_no_boot_is_what_it_came_to() {
    let claim = json!({ "decision_id": "the-claim's" });
    let begun = [("", "provisioning"), ("online", "provisioning")];
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], "goes"),
        (&[("provisioning", "online")], "up online"),
        (&[("provisioning", "online"), ("online", "offline")], "up online"),
        (&[("provisioning", "failed"), ("failed", "provisioning")], "over failed, why-failed"),
        (&[("provisioning", "provisioning"), ("provisioning", "online")], "up online"),
        (&[("provisioning", "removed")], "over removed, why-removed"),
    ];
    for (then, expected) in cases {
        assert_eq!(outcome(&claim, &[&begun[..], then].concat()), expected, "{then:?}");
    }
}

#[test]
fn a_creation_is_the_first_event_of_all() {
    let claim = json!({ "kind": "create" });
    assert_eq!(outcome(&claim, &[("", "provisioning")]), "goes");
    assert_eq!(outcome(&claim, &[("", "provisioning"), ("provisioning", "online")]), "up online");
    assert_eq!(outcome(&claim, &[("online", "degraded")]), "not there");
}

#[test]
fn who_is_heard_and_not_let_up_is_told_apart() {
    let row = |heard: Value| json!({ "status": "provisioning", "status_since": "2026-01-02", "last_heartbeat_at": heard });
    assert!(why(&row(json!("2026-01-03"))).contains("a policy keeps it so"));
    assert!(why(&row(json!("2026-01-01"))).contains("nothing was heard"));
    assert!(why(&row(Value::Null)).contains("nothing was heard"));
}
