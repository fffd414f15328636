//! The recorded decisions, in the recorded form: what `sprag record` exports
//! and `sprag replay` reads.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Registry;
use super::access::Operator;
use super::body::{Id, Params, bounded};
use super::error::{Answer, Problem, ProblemBody};
use super::page::{self, Page, address};
use super::problems::Operators;
use crate::facts::Decision;

/// Read a decision
#[utoipa::path(
    get, path = "/decisions/{id}", tag = "decisions", operation_id = "read_decision",
    params(("id" = String, Path,)),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Decision, description = "The question, every verdict and what became of it"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`DECISION_NOT_FOUND`: of those that moved and denied nothing only a sample is kept"),
    )
)]
pub(super) async fn read(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
) -> Answer<Json<Decision>> {
    let kept = registry.store.decision(&id).await?;
    kept.map(Json).ok_or_else(|| {
        let detail =
            format!("no decision {id:?} is kept; of those that moved and denied nothing only a sample is");
        Problem::new(StatusCode::NOT_FOUND, "DECISION_NOT_FOUND", detail)
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// 1 to 500; 100 where it is left out.
    limit: Option<String>,
    /// The id of the last one of the page before.
    after: Option<String>,
}

/// List decisions, oldest first
#[utoipa::path(
    get, path = "/decisions", tag = "decisions", operation_id = "list_decisions",
    params(ListParams),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<Decision>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn list(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Params(params): Params<ListParams>,
) -> Answer<Page<Decision>> {
    let limit = bounded("limit", params.limit.as_deref(), page::DEFAULT, page::MAX)?;
    let after = page::cursor("after", params.after)?;
    let kept = registry.store.decisions(after.as_deref(), limit + 1).await?;
    Ok(Page::new(kept, limit, |last: &Decision| {
        address("/decisions", &[("limit", Some(&limit.to_string())), ("after", Some(&last.id))])
    }))
}
