//! Operators' commands on workspaces, and the claims that carry them out.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Operator;
use super::body::{Id, IdAnd, Params, bounded};
use super::error::{Answer, Problem, ProblemBody};
use super::exact::ExactOrNone;
use super::page::{self, Page, address};
use super::problems::{OfLiveWorkspace, OfWorkspace, Operators, WithBody};
use super::views::ClaimBody;
use super::{Edge, Registry};
use crate::claims::{CommandError, Commanded};
use crate::facts::{Command, CommandKind, Decision, Outcome};
use crate::machine::{NoSuchEdge, Status};
use crate::provision::UnknownProvider;
use crate::store::Claim;

/// RFC 7240, which the `http` crate does not name.
const PREFER: &str = "prefer";
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How much sooner than a request's own end a wait ends, so that it is answered.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// The commands of `POST /workspaces/{id}/{command}`.
const COMMANDS: [(&str, CommandKind); 6] = [
    ("restart", CommandKind::Restart),
    ("pause", CommandKind::Pause),
    ("resume", CommandKind::Resume),
    ("wake", CommandKind::Wake),
    ("hibernate", CommandKind::Hibernate),
    ("switch-provider", CommandKind::SwitchProvider),
];

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CommandBody {
    /// Of `switch-provider`: a configured provider's name.
    #[serde(alias = "target_provider")]
    provider: Option<String>,
    /// Goes on although the agent has tasks running, or its instance can't be stopped here.
    force: Option<bool>,
    /// Of `switch-provider`: what a persistent volume holds may be lost.
    confirm_data_loss: Option<bool>,
}

impl CommandBody {
    /// What would be no switch must not look like one that was carried out.
    fn of_no_switch(&self, command: &str) -> Answer<()> {
        let provider = self.provider.as_deref().map(|given| ("provider", given.into()));
        let confirmed = self.confirm_data_loss.map(|given| ("confirm_data_loss", given.into()));
        match provider.or(confirmed) {
            Some((field, given)) => {
                Err(Problem::unknown(field, given, &format!("`force`, which is all that {command} takes")))
            }
            None => Ok(()),
        }
    }
}

/// A workspace and a command. Of a word that is no command there is nothing, whoever asks.
pub(super) struct Asked {
    id: String,
    name: &'static str,
    kind: CommandKind,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let IdAnd(id, word) = IdAnd::from_request_parts(parts, state).await?;
        let (name, kind) = command_of(&word).ok_or_else(|| no_such_command(&word))?;
        Ok(Self { id, name, kind })
    }
}

/// A command that changes nothing, because it is so already.
#[derive(Debug, Serialize, ToSchema)]
struct Unchanged {
    #[schema(example = "unchanged")]
    status: &'static str,
    /// `SAME_PROVIDER`
    code: &'static str,
    detail: String,
    decision_id: String,
}

/// Command a workspace
///
/// `command` is `restart`, `pause`, `resume`, `wake`, `hibernate` or
/// `switch-provider`. The answer names the claim that carries the command out,
/// which goes on whatever becomes of this request. `Prefer: wait=N` holds the
/// answer until the claim has ended, for up to N seconds.
#[utoipa::path(
    post, path = "/workspaces/{id}/{command}", tag = "claims", operation_id = "command_workspace",
    params(("id" = String, Path,), ("command" = String, Path,),
        ("prefer" = Option<String>, Header, description = "`wait=N`, seconds")),
    request_body = Option<CommandBody>,
    security(("operator" = [])),
    responses(
        Operators, WithBody, OfLiveWorkspace,
        (status = 202, body = ClaimBody, description = "The claim that carries it out", headers(("location" = String, description = "the claim's address"))),
        (status = 200, body = Unchanged, description = "It is so already (`SAME_PROVIDER`): nothing is done"),
        (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`INVALID_FIELD`: no such provider, `expected` names those that there are; or no such wait"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
            description = "`ALREADY_SWITCHING`, `CLAIM_OPEN`, `NO_SUCH_EDGE`, `PROVIDER_NOT_CONFIGURED`, `ANCESTOR_PAUSED`, `CONFIRM_DATA_LOSS`, `DENIED_BY_POLICY`"),
    )
)]
pub(super) async fn command(
    State(registry): State<Arc<Registry>>,
    State(edge): State<Arc<Edge>>,
    Asked { id, name, kind }: Asked,
    _: Operator,
    headers: HeaderMap,
    ExactOrNone(body): ExactOrNone<CommandBody>,
) -> Answer<Response> {
    let wait = wait_of(&headers)?.map(|wait| wait.min(edge.config.request().saturating_sub(ANSWER_TIME)));
    let switches = kind == CommandKind::SwitchProvider;
    if !switches {
        body.of_no_switch(name)?;
    }
    if switches && body.provider.is_none() {
        return Err(no_such_provider(None, &registry.claims.providers()));
    }
    let command = Command {
        command: kind,
        actor: "operator".to_owned(),
        target_provider: body.provider.filter(|_| switches),
        force: body.force.unwrap_or_default(),
        confirm_data_loss: body.confirm_data_loss.unwrap_or_default(),
    };
    let target = command.target_provider.clone();
    let asked = registry.claims.command(&id, command).await;
    let claim = match asked.map_err(|e| not_asked(target.as_deref(), e))? {
        Commanded::Claimed(claim) => *claim,
        Commanded::Denied { status, decision } => return denied(kind, status, &decision),
        Commanded::NoEdge(none) => return Err(no_edge(&id, none)),
        Commanded::Busy { status, claim_id } => {
            return Err(busy(&registry, kind, &claim_id).await?.at(status));
        }
        Commanded::NoProvider { status, unknown } => return Err(no_provider(&id, &unknown).at(status)),
        Commanded::Unknown => return Err(Problem::no_workspace(&id)),
        Commanded::Outran => return Err(Problem::outrun(&id)),
    };
    let claim = match wait {
        Some(wait) => registry.claims.wait(&claim.id, wait).await?.unwrap_or(claim),
        None => claim,
    };
    Ok(accepted(claim, wait))
}

fn accepted(claim: Claim, waited: Option<Duration>) -> Response {
    let location = [(header::LOCATION, format!("/claims/{}", claim.id))];
    let mut response = (StatusCode::ACCEPTED, location, Json(ClaimBody::from(claim))).into_response();
    let applied = waited.and_then(|w| HeaderValue::try_from(format!("wait={}", w.as_secs())).ok());
    if let Some(applied) = applied {
        response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    }
    response
}

/// The `wait` of `Prefer`, if there is one.
fn wait_of(headers: &HeaderMap) -> Answer<Option<Duration>> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    // RFC 7240: names in any case, values plain or quoted, what is not known is ignored.
    let wait = preferences.flat_map(|value| value.split(',')).find_map(|one| {
        let (name, value) = one.split(';').next().unwrap_or(one).split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').to_owned())
    });
    let Some(wait) = wait else { return Ok(None) };
    match wait.parse::<u64>() {
        Ok(seconds) => Ok(Some(Duration::from_secs(seconds))),
        Err(_) => Err(Problem::field("Prefer", format!("wait={wait}").into(), "wait=N, whole seconds")),
    }
}

/// The command of this word, if it is one.
pub(super) fn command_of(word: &str) -> Option<(&'static str, CommandKind)> {
    COMMANDS.into_iter().find(|(name, _)| *name == word)
}

fn no_such_command(name: &str) -> Problem {
    let names: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
    let detail = format!("there is no command {name:?}; there are {}", names.join(", "));
    Problem::new(StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", detail)
}

/// 400: the field, and the providers that there are.
fn no_such_provider(given: Option<&str>, configured: &[String]) -> Problem {
    let expected = match configured {
        [] => "the name of a configured provider; none is configured".to_owned(),
        names => format!("the name of a configured provider: {}", names.join(", ")),
    };
    Problem::field("provider", given.into(), expected)
}

pub(super) fn not_asked(target: Option<&str>, error: CommandError) -> Problem {
    match error {
        CommandError::UnknownProvider(unknown) => no_such_provider(target, &unknown.configured),
        CommandError::Store(error) => error.into(),
        CommandError::Stopping => Problem::busy("STOPPING", "the host is stopping"),
        CommandError::NoClaim => Problem::new(StatusCode::NOT_FOUND, "NO_SUCH_ROUTE", error.to_string()),
    }
}

fn denied(kind: CommandKind, status: Status, decision: &Decision) -> Answer<Response> {
    let Outcome::Held { denials } = &decision.outcome else {
        return Err(Problem::new(StatusCode::CONFLICT, "DENIED_BY_POLICY", "denied").decided(decision));
    };
    let reason = denials.first().map_or("", |denial| denial.reason.code.as_str());
    if kind == CommandKind::SwitchProvider && reason == "same-provider" {
        let detail = "the workspace is with this provider already; nothing is done".to_owned();
        let decision_id = decision.id.clone();
        let body = Unchanged { status: "unchanged", code: "SAME_PROVIDER", detail, decision_id };
        return Ok(Json(body).into_response());
    }
    let code = match reason {
        "ancestor-paused" => "ANCESTOR_PAUSED",
        "confirm-data-loss" => "CONFIRM_DATA_LOSS",
        _ => "DENIED_BY_POLICY",
    };
    let wanted = decision.question.candidates.first().copied().unwrap_or(status);
    let problem = Problem::denied(decision, wanted, StatusCode::CONFLICT, code).unwrap_or_else(|| {
        // Nobody objected, but nobody allowed it either.
        let nobody = Problem::new(StatusCode::CONFLICT, code, "no policy allows it");
        nobody.because("nobody-allows").decided(decision)
    });
    Err(problem.at(status))
}

/// 409: the provider that the workspace is at, or was, is not configured here.
fn no_provider(id: &str, unknown: &UnknownProvider) -> Problem {
    let detail = format!(
        "{unknown}; workspace {id} needs it for this, and nothing was done (`force` leaves the stop of its \
         instance owed, where nothing is to be started there)"
    );
    Problem::new(StatusCode::CONFLICT, "PROVIDER_NOT_CONFIGURED", detail)
}

fn no_edge(id: &str, none: NoSuchEdge) -> Problem {
    if none.from == Status::Removed {
        return Problem::removed(id);
    }
    let detail = format!("workspace {id} is {}: {none}", none.from);
    Problem::new(StatusCode::CONFLICT, "NO_SUCH_EDGE", detail).at(none.from)
}

async fn busy(registry: &Registry, kind: CommandKind, claim_id: &str) -> Answer<Problem> {
    let open = registry.store.claim(claim_id).await?.map_or_else(|| "command".to_owned(), |claim| claim.kind);
    let both = kind == CommandKind::SwitchProvider && open == kind.cause().as_str();
    let code = if both { "ALREADY_SWITCHING" } else { "CLAIM_OPEN" };
    let detail = format!("a {open} is under way, claim {claim_id}; nothing was done");
    Ok(Problem::new(StatusCode::CONFLICT, code, detail))
}

/// Read a claim: its steps so far
#[utoipa::path(
    get, path = "/claims/{id}", tag = "claims", operation_id = "read_claim",
    params(("id" = String, Path,),
        ("prefer" = Option<String>, Header, description = "`wait=N`, seconds: until it has ended")),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = ClaimBody, description = "The claim, with its steps so far"),
        (status = 400, body = ProblemBody, content_type = "application/problem+json",
            description = "`INVALID_FIELD`: no such wait"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`CLAIM_NOT_FOUND`"),
    )
)]
pub(super) async fn read(
    State(registry): State<Arc<Registry>>,
    State(edge): State<Arc<Edge>>,
    _: Operator,
    Id(id): Id,
    headers: HeaderMap,
) -> Answer<Json<ClaimBody>> {
    let wait = wait_of(&headers)?.unwrap_or_default();
    let wait = wait.min(edge.config.request().saturating_sub(ANSWER_TIME));
    let claim = registry.claims.wait(&id, wait).await?;
    claim.map(|claim| Json(claim.into())).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "CLAIM_NOT_FOUND", format!("there is no claim {id:?}"))
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// 1 to 500; 100 where it is left out.
    limit: Option<String>,
    /// The id of the last one of the page before.
    before: Option<String>,
}

/// List a workspace's claims, newest first
#[utoipa::path(
    get, path = "/workspaces/{id}/claims", tag = "claims", operation_id = "list_claims",
    params(("id" = String, Path,), ListParams),
    security(("operator" = [])),
    responses(
        Operators, OfWorkspace,
        (status = 200, body = Vec<ClaimBody>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn of_workspace(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    Params(params): Params<ListParams>,
) -> Answer<Page<ClaimBody>> {
    let limit = bounded("limit", params.limit.as_deref(), page::DEFAULT, page::MAX)?;
    let before = page::cursor("before", params.before)?;
    let claims = registry.store.claims_of(&id, before.as_deref(), limit + 1).await;
    let claims = claims.map_err(|e| page::no_place("before", before.as_deref(), page::LAST, e))?;
    if claims.is_empty() && registry.store.snapshot(&id).await?.is_none() {
        return Err(Problem::no_workspace(&id));
    }
    Ok(Page::new(claims, limit, |last: &Claim| {
        let path = format!("/workspaces/{id}/claims");
        address(&path, &[("limit", Some(&limit.to_string())), ("before", Some(&last.id))])
    }))
}
