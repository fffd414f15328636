//! The one place that turns what went wrong into an HTTP answer: an RFC 9457
//! problem document with a stable `code`. What an operator must see besides
//! (a database's own words) goes to the log, not to the client.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::facts::{Decision, Reason};
use crate::heartbeats::HeartbeatError;
use crate::machine::Status;
use crate::revisions::RevisionError;
use crate::seldom::Seldom;
use crate::store::StoreError;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Seconds after which a client may try again what was refused for lack of room.
const RETRY_AFTER: &str = "1";

/// The code of what a call does not know.
const UNKNOWN_FIELD: &str = "UNKNOWN_FIELD";

/// The code of what says where a page begins, and is no such place.
pub(super) const BAD_CURSOR: &str = "BAD_CURSOR";

/// What handlers return.
pub type Answer<T> = Result<T, Problem>;

/// What went wrong, on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<ProblemBody>);

/// An RFC 9457 problem document. `type` is always `about:blank`: `code` tells
/// one problem from another.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    /// What happened to this request, for a person.
    detail: String,
    /// Stable and upper-case, for a program.
    code: &'static str,
    /// `detail` once more, for older clients.
    error: String,
    /// Which field or parameter was wrong,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// what it held,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// and what would have been right.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    /// The code of the reason that a policy gave, or of what is wrong with a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The decision that led here.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_id: Option<String>,
    /// Where the workspace stands after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    workspace_status: Option<Status>,
    /// How many hang below the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    descendants: Option<usize>,
    /// Whether trying again soon may help.
    #[serde(skip)]
    passing: bool,
}

fn status_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            error: detail.clone(),
            detail,
            code,
            field: None,
            value: None,
            expected: None,
            reason: None,
            decision_id: None,
            workspace_status: None,
            descendants: None,
            passing: false,
        }))
    }

    /// 503 that passes: the answer carries `Retry-After`.
    pub fn busy(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.0.passing = true;
        problem
    }

    /// 400: a field or parameter is not what it must be.
    pub fn field(field: impl Into<String>, value: Value, expected: impl Into<String>) -> Self {
        let (field, expected, value) = (field.into(), expected.into(), shortened(value));
        let detail = format!("{field} is {value}; expected {expected}");
        Self::new(StatusCode::BAD_REQUEST, "INVALID_FIELD", detail).about(field, value, expected)
    }

    /// 400: there is no such field or parameter. Told from one that is wrong:
    /// what was asked may be known to another version.
    pub fn unknown(field: impl Into<String>, value: Value, known: &str) -> Self {
        let (field, known, value) = (field.into(), known.to_owned(), shortened(value));
        let detail = format!("{field} is no field of this call; expected {known}");
        Self::new(StatusCode::BAD_REQUEST, UNKNOWN_FIELD, detail).about(field, value, known)
    }

    fn about(mut self, field: String, value: Value, expected: String) -> Self {
        self.0.field = Some(field);
        self.0.value = Some(value);
        self.0.expected = Some(expected);
        self
    }

    /// Replaces the code.
    #[must_use]
    pub fn of_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// 401. Says nothing about what was presented.
    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", detail)
    }

    pub fn no_workspace(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "WORKSPACE_NOT_FOUND", format!("there is no workspace {id:?}"))
    }

    /// 410: nothing leads out of `removed`.
    pub fn removed(id: &str) -> Self {
        let detail = format!("workspace {id} is removed, and that is final; create another one");
        Self::new(StatusCode::GONE, "WORKSPACE_REMOVED", detail).at(Status::Removed)
    }

    /// 409: a removal that would take others along, and was not told to.
    pub fn has_descendants(id: &str, descendants: usize) -> Self {
        let are = if descendants == 1 { "1 workspace is" } else { &format!("{descendants} workspaces are") };
        let detail = format!(
            "{are} below {id}; nothing was removed: `?cascade=true` (`--cascade`) removes all of them with it"
        );
        let mut problem = Self::new(StatusCode::CONFLICT, "HAS_DESCENDANTS", detail);
        problem.0.descendants = Some(descendants);
        problem
    }

    /// 503: others moved the row each time it was judged.
    pub fn outrun(id: &str) -> Self {
        Self::busy("OUTRUN", format!("workspace {id} changed each time it was judged; nothing was written"))
    }

    /// Names the decision that led here.
    #[must_use]
    pub fn decided(mut self, decision: &Decision) -> Self {
        self.0.decision_id = Some(decision.id.clone());
        self
    }

    /// Says where the workspace stands.
    #[must_use]
    pub fn at(mut self, status: Status) -> Self {
        self.0.workspace_status = Some(status);
        self
    }

    /// Gives a reason's code.
    #[must_use]
    pub fn because(mut self, code: impl Into<String>) -> Self {
        self.0.reason = Some(code.into());
        self
    }

    /// What a decision that denied comes to: the denial that matters to who
    /// asked for `wanted`. A policy that failed is no judgement: that is a 503.
    pub fn denied(
        decision: &Decision,
        wanted: Status,
        status: StatusCode,
        code: &'static str,
    ) -> Option<Self> {
        let denial = decision.outcome.denial_of(wanted)?;
        let detail = words(&denial.policy, &denial.reason);
        let problem = match denial.is_fault() {
            true => Self::busy("POLICY_ERROR", detail),
            false => Self::new(status, code, detail),
        };
        Some(problem.because(denial.reason.code.clone()).decided(decision))
    }
}

/// `POLICY: DETAIL`, or the reason's code where it has no words.
pub fn words(policy: &str, reason: &Reason) -> String {
    format!("{policy}: {}", reason.detail.as_deref().unwrap_or(&reason.code))
}

/// A wrong value is shown, but not all 64 KiB of it.
fn shortened(value: Value) -> Value {
    const SHOWN: usize = 100;
    let text = match &value {
        Value::String(text) if text.len() > SHOWN => text.clone(),
        Value::Array(_) | Value::Object(_) if value.to_string().len() > SHOWN => value.to_string(),
        _ => return value,
    };
    Value::String(text.chars().take(SHOWN).chain(['…']).collect())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Strings and numbers: this can't fail.
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.0.passing {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::BadCursor(_) = error {
            return Self::new(StatusCode::BAD_REQUEST, BAD_CURSOR, error.to_string());
        }
        static FAILED: Seldom = Seldom::new();
        if let Some(requests) = FAILED.due(1) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                requests,
                "the database failed requests"
            );
        }
        Self::of_store(&error)
    }
}

impl Problem {
    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) if error.nothing_was_sent() => {
                Self::busy("DATABASE_UNAVAILABLE", "the database did not answer; nothing was changed")
            }
            StoreError::Unavailable(_) => {
                let detail = "the database stopped answering; whether a change was stored is not known";
                Self::busy("DATABASE_UNAVAILABLE", detail)
            }
            _ => Self::busy("DATABASE_ERROR", "the database failed; the host's log says how"),
        }
    }
}

impl From<getrandom::Error> for Problem {
    fn from(error: getrandom::Error) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "no randomness for a token");
        Self::busy("NO_RANDOMNESS", "the system gave no random bytes for a token")
    }
}

impl From<HeartbeatError> for Problem {
    fn from(error: HeartbeatError) -> Self {
        match error {
            HeartbeatError::Busy => Self::busy("BUSY", error.to_string()),
            HeartbeatError::Stopping => Self::busy("STOPPING", error.to_string()),
            // The collector has logged it, once for the whole batch.
            HeartbeatError::Store(store) => Self::of_store(&store),
        }
    }
}

impl From<RevisionError> for Problem {
    fn from(error: RevisionError) -> Self {
        let refused = |detail: String| Self::new(StatusCode::UNPROCESSABLE_ENTITY, "POLICY_REFUSED", detail);
        let detail = error.to_string();
        match error {
            RevisionError::Module { error, .. } => refused(detail).because(error.code()),
            RevisionError::Directory { .. } => refused(detail).because("directory"),
            RevisionError::Count(_) => refused(detail).because("module_count"),
            RevisionError::SameName(..) => refused(detail).because("same_name"),
            RevisionError::NoSuchModule(_) => refused(detail).because("no_such_module"),
            RevisionError::NoSuchRevision(_) => {
                Self::new(StatusCode::NOT_FOUND, "REVISION_NOT_FOUND", detail)
            }
            RevisionError::NothingBefore => Self::new(StatusCode::CONFLICT, "NOTHING_BEFORE", detail),
            RevisionError::Store(store) => store.into(),
        }
    }
}
