//! Operators' calls on policies: what decides, upload, activate, go back.
//!
//! Each change runs in a task of its own: an operator who hangs up must not
//! leave a revision active in the database and not in this host.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Registry;
use super::access::Operator;
use super::body::{Id, Wasm};
use super::error::{Answer, Problem, ProblemBody};
use super::exact::{Exact, NoBody};
use super::page::Page;
use super::problems::{Operators, WithBody};
use super::views::RevisionBody;
use crate::facts::{ModuleLimits, Setting};
use crate::revisions::{ModuleInfo, RevisionError, Revisions, Uploaded, WrittenSettings};

/// The revision that decides
#[utoipa::path(
    get, path = "/policies", tag = "policies", operation_id = "read_active_revision",
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = RevisionBody, description = "The revision that decides"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json",
            description = "`NO_ACTIVE_REVISION`: every transition is denied"),
    )
)]
pub(super) async fn active(State(registry): State<Arc<Registry>>, _: Operator) -> Answer<Json<RevisionBody>> {
    let active = registry.store.active_revision().await?;
    active.map(|row| Json(row.into())).ok_or_else(|| {
        let detail = "no policy revision is active, so every transition is denied";
        Problem::new(StatusCode::NOT_FOUND, "NO_ACTIVE_REVISION", detail)
    })
}

/// All revisions, newest first
#[utoipa::path(
    get, path = "/policies/revisions", tag = "policies", operation_id = "list_revisions",
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<RevisionBody>, description = "All of them"),
    )
)]
pub(super) async fn list(State(revisions): State<Arc<Revisions>>, _: Operator) -> Answer<Page<RevisionBody>> {
    Ok(Page::all(revisions.list().await?))
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModuleBody {
    /// `sha256:` and 64 hexadecimal digits.
    digest: String,
    name: String,
    version: String,
    summary: String,
    /// What it answers: `guard`, `cooldown`, `recovery`.
    hooks: Vec<&'static str>,
    settings: Vec<SettingBody>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettingBody {
    name: String,
    summary: String,
    default: Setting,
}

impl From<ModuleInfo> for ModuleBody {
    fn from(info: ModuleInfo) -> Self {
        let hooks = [
            (info.hooks.guard, "guard"),
            (info.hooks.cooldown, "cooldown"),
            (info.hooks.recovery, "recovery"),
        ];
        let settings = info.manifest.settings.into_iter();
        Self {
            digest: info.digest,
            name: info.manifest.name,
            version: info.manifest.version,
            summary: info.manifest.summary,
            hooks: hooks.into_iter().filter_map(|(has, hook)| has.then_some(hook)).collect(),
            settings: settings
                .map(|s| SettingBody { name: s.name, summary: s.summary, default: s.default })
                .collect(),
        }
    }
}

/// Upload a module
///
/// It is compiled and probed, and decides nothing until a revision binds it.
#[utoipa::path(
    post, path = "/policies/modules", tag = "policies", operation_id = "upload_module",
    request_body(content = Value, content_type = "application/wasm", description = "The module's bytes"),
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 201, body = ModuleBody, description = "The module, as it was probed"),
        (status = 422, body = ProblemBody, content_type = "application/problem+json",
            description = "`POLICY_REFUSED`: `reason` is the sandbox's code"),
    )
)]
pub(super) async fn upload(
    State(revisions): State<Arc<Revisions>>,
    _: Operator,
    Wasm(bytes): Wasm,
) -> Answer<(StatusCode, Json<ModuleBody>)> {
    let info = to_its_end(async move { revisions.upload(bytes).await }).await?;
    Ok((StatusCode::CREATED, Json(info.into())))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionRequest {
    /// In the order in which they are to be asked.
    #[schema(required, nullable = false)]
    modules: Option<Vec<WantedModule>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedModule {
    /// Of a module that was uploaded.
    digest: String,
    /// How errors call it.
    file: Option<String>,
    /// Those that differ from the module's defaults; a duration is a string such as `5m`.
    #[schema(value_type = Option<HashMap<String, Value>>)]
    settings: Option<WrittenSettings>,
    /// Its own limits, within what `[limits.max]` allows.
    limits: Option<ModuleLimits>,
}

impl WantedModule {
    fn uploaded(self) -> Uploaded {
        Uploaded {
            digest: self.digest,
            file: self.file,
            settings: self.settings.unwrap_or_default(),
            limits: self.limits.unwrap_or_default(),
        }
    }
}

/// Activate a new revision
#[utoipa::path(
    post, path = "/policies/revisions", tag = "policies", operation_id = "activate_modules",
    request_body = RevisionRequest,
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 201, body = RevisionBody, description = "The new revision, which decides from now on"),
        (status = 422, body = ProblemBody, content_type = "application/problem+json",
            description = "`POLICY_REFUSED`: the old revision stays"),
    )
)]
pub(super) async fn activate(
    State(revisions): State<Arc<Revisions>>,
    _: Operator,
    Exact(body): Exact<RevisionRequest>,
) -> Answer<(StatusCode, Json<RevisionBody>)> {
    let Some(wanted) = body.modules else {
        return Err(Problem::field("modules", Value::Null, "a list of {digest, file?, settings?, limits?}"));
    };
    let wanted = wanted.into_iter().map(WantedModule::uploaded).collect();
    let row = to_its_end(async move { revisions.activate_uploaded(wanted).await }).await?;
    Ok((StatusCode::CREATED, Json(row.into())))
}

/// Make an older revision active again
#[utoipa::path(
    post, path = "/policies/revisions/{number}/activate", tag = "policies", operation_id = "activate_revision",
    params(("number" = i64, Path,)),
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 200, body = RevisionBody, description = "The revision, which decides from now on"),
        (status = 404, body = ProblemBody, content_type = "application/problem+json", description = "`REVISION_NOT_FOUND`"),
        (status = 422, body = ProblemBody, content_type = "application/problem+json",
            description = "`POLICY_REFUSED`: the old revision stays"),
    )
)]
pub(super) async fn reactivate(
    State(revisions): State<Arc<Revisions>>,
    _: Operator,
    Id(number): Id,
    _: NoBody,
) -> Answer<Json<RevisionBody>> {
    let number: i64 =
        number.parse().map_err(|_| Problem::field("number", number.into(), "a revision's number"))?;
    let row = to_its_end(async move { revisions.reactivate(number).await }).await?;
    Ok(Json(row.into()))
}

/// Go back to the revision that was active before
#[utoipa::path(
    post, path = "/policies/rollback", tag = "policies", operation_id = "roll_back",
    security(("operator" = [])),
    responses(
        Operators, WithBody,
        (status = 200, body = RevisionBody, description = "The revision, which decides from now on"),
        (status = 409, body = ProblemBody, content_type = "application/problem+json", description = "`NOTHING_BEFORE`"),
        (status = 422, body = ProblemBody, content_type = "application/problem+json",
            description = "`POLICY_REFUSED`: the old revision stays"),
    )
)]
pub(super) async fn roll_back(
    State(revisions): State<Arc<Revisions>>,
    _: Operator,
    _: NoBody,
) -> Answer<Json<RevisionBody>> {
    let row = to_its_end(async move { revisions.roll_back().await }).await?;
    Ok(Json(row.into()))
}

/// Runs `change` whether or not the client waits for it.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, RevisionError>> + Send + 'static,
) -> Answer<T> {
    match tokio::spawn(change).await {
        Ok(result) => result.map_err(Problem::from),
        Err(_) => {
            let detail = "the host failed; its log says how";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail))
        }
    }
}
