//! What answers mean, as tables; the client against a server is in `tests/it/provision`.

use reqwest::StatusCode;

use super::answer::refusal;
use super::{ControlPlane, Secret, quoted};
use crate::provision::{Fence, ProviderError};

/// `stale EPOCH.SEQ`, `refused CODE` or `unknown`.
fn meaning(error: &ProviderError) -> String {
    match error {
        ProviderError::Stale { accepted } => format!("stale {accepted}"),
        ProviderError::Refused { code, .. } => format!("refused {code}"),
        ProviderError::Unknown { .. } => "unknown".to_owned(),
    }
}

#[test]
fn what_is_no_success_means() {
    let cases = [
        (412, r#"{"code":"STALE_FENCE","accepted":"3.2"}"#, "stale 3.2"),
        (412, r#"{"code":"STALE_FENCE"}"#, "unknown"),
        (412, r#"{"code":"STALE_FENCE","accepted":"soon"}"#, "unknown"),
        (412, r#"{"code":"OTHER","accepted":"3.2"}"#, "refused OTHER"),
        (409, r#"{"code":"STALE_FENCE","accepted":"3.2"}"#, "refused STALE_FENCE"),
        (409, r#"{"code":"ALREADY_RUNNING"}"#, "refused ALREADY_RUNNING"),
        (404, "<html>", "refused HTTP_404"),
        (401, "", "refused HTTP_401"),
        (408, "", "unknown"),
        (425, r#"{"code":"IN_PROGRESS"}"#, "unknown"),
        (429, r#"{"code":"SLOW_DOWN"}"#, "unknown"),
        (500, r#"{"code":"STALE_FENCE","accepted":"3.2"}"#, "unknown"),
        (503, "", "unknown"),
        (302, "", "unknown"),
    ];
    for (status, body, expected) in cases {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(meaning(&refusal(status, body.as_bytes())), expected, "{status} {body}");
    }
}

#[test]
fn a_service_may_not_flood_our_log() {
    let body = format!(r#"{{"code":"X","detail":"{}"}}"#, "ü".repeat(10_000));
    let ProviderError::Refused { detail, .. } = refusal(StatusCode::BAD_REQUEST, body.as_bytes()) else {
        panic!("not refused");
    };
    assert!(detail.len() <= 500, "{}", detail.len());
}

#[test]
fn names_are_encoded_and_directions_refused() {
    let plane = ControlPlane::new("http://cp/base/", Secret::Value("t".to_owned())).expect("a client");
    let url = plane.url(&["workspaces", "a/../b", "boxes", "ü?#"]).expect("a URL");
    assert_eq!(url.as_str(), "http://cp/base/v1/workspaces/a%2F..%2Fb/boxes/%C3%BC%3F%23");
    for lost in ["", ".", ".."] {
        let refused = plane.url(&["workspaces", lost]).expect_err("a direction");
        assert_eq!(meaning(&refused), "refused bad_name", "{lost:?}");
    }
}

#[test]
fn keys_are_quoted_or_refused() {
    assert_eq!(quoted("a-1").expect("a key"), "\"a-1\"");
    assert_eq!(quoted("a\"b\\c").expect("a key"), "\"a\\\"b\\\\c\"");
    for bad in ["", "a b", "ü", "a\n", &"x".repeat(256)] {
        assert_eq!(meaning(&quoted(bad).expect_err("no key")), "refused bad_key", "{bad:?}");
    }
}

#[test]
fn a_token_is_never_shown() {
    let plane = ControlPlane::new("http://cp", Secret::Value("hunter2".to_owned())).expect("a client");
    assert!(!format!("{plane:?}").contains("hunter2"));
    for base in ["http://u:hunter2@cp", "http://cp?token=hunter2", "ftp://cp", "cp"] {
        let error = ControlPlane::new(base, Secret::Value("hunter2".to_owned())).expect_err(base);
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn fences_come_back() {
    let fence = Fence { epoch: u64::MAX, seq: 0 };
    assert_eq!(fence.to_string().parse(), Ok(fence));
    for bad in ["", "1", "1.", ".1", "1.2.3", "-1.2", "1.x", "18446744073709551616.0"] {
        assert!(bad.parse::<Fence>().is_err(), "{bad}");
    }
    let order = ["1.9", "2.0", "2.1", "10.0"].map(|text| text.parse::<Fence>().expect("a fence"));
    assert!(order.is_sorted());
}
