//! What many calls answer alike when they can't do what was asked: each said
//! once, for `GET /openapi.json`.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::error::PROBLEM_JSON;

/// Any call.
pub(super) struct Anyone;

/// Any call of an operator.
pub(super) struct Operators;

/// Any call of an agent.
pub(super) struct Agents;

/// Any call with a body.
pub(super) struct WithBody;

/// Any call about one workspace.
pub(super) struct OfWorkspace;

/// Any call about one workspace that is refused once it is removed.
pub(super) struct OfLiveWorkspace;

const BUSY: (StatusCode, &str) = (
    StatusCode::SERVICE_UNAVAILABLE,
    "`BUSY`, `TIMED_OUT`, `DATABASE_UNAVAILABLE`, `OUTRUN`, …: not now; where it passes soon there is a `Retry-After`",
);
const NO_WORKSPACE: (StatusCode, &str) = (StatusCode::NOT_FOUND, "`WORKSPACE_NOT_FOUND`");
const REMOVED: (StatusCode, &str) = (StatusCode::GONE, "`WORKSPACE_REMOVED`, which is final");

impl IntoResponses for Anyone {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[BUSY])
    }
}

impl IntoResponses for Operators {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (
                StatusCode::BAD_REQUEST,
                "`UNKNOWN_FIELD`, `INVALID_FIELD`, `BAD_JSON`, `BAD_QUERY`, …: `field` names a field or parameter, \
                 `expected` says what would be right",
            ),
            (StatusCode::UNAUTHORIZED, "`UNAUTHORIZED`: the admin token is needed"),
            BUSY,
        ])
    }
}

impl IntoResponses for Agents {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (StatusCode::BAD_REQUEST, "`INVALID_FIELD` (`field` names it), `BAD_JSON`"),
            (StatusCode::UNAUTHORIZED, "`UNAUTHORIZED`: a live token of this workspace is needed"),
            BUSY,
        ])
    }
}

impl IntoResponses for WithBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (StatusCode::REQUEST_TIMEOUT, "`BODY_TOO_SLOW`"),
            (StatusCode::PAYLOAD_TOO_LARGE, "`BODY_TOO_LARGE`"),
        ])
    }
}

impl IntoResponses for OfWorkspace {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[NO_WORKSPACE])
    }
}

impl IntoResponses for OfLiveWorkspace {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[NO_WORKSPACE, REMOVED])
    }
}

fn problems(all: &[(StatusCode, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let described = all.iter().map(|(status, words)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(*words).content(PROBLEM_JSON, content);
        (status.as_str().to_owned(), RefOr::T(response.build()))
    });
    described.collect()
}
