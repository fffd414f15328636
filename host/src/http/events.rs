//! The log of what happened: pages, newest first, and a stream of Server-Sent
//! Events that resumes where a client left off.
//!
//! The stream reads the database, never memory: other hosts commit too, and
//! what a client was sent is what it can come back to. A write of this host
//! wakes it at once; for those of others it looks every [`POLL`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::Stream;
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;
use utoipa::IntoParams;

use super::access::Operator;
use super::body::{Id, Params, bounded};
use super::error::{Answer, Problem, ProblemBody};
use super::page::{self, Page, address, percent_encode};
use super::problems::{OfWorkspace, Operators};
use super::views::EventBody;
use super::{Edge, Registry};
use crate::store::{Event, StoreError};

/// How often a stream looks for what other hosts committed.
const POLL: Duration = Duration::from_secs(1);

/// How long a woken stream waits for more, so that a busy host costs it few reads.
const GATHER: Duration = Duration::from_millis(20);

/// How often a silent stream shows that it lives, and learns whether its client
/// does, which nothing else tells it: at most this, and at least thrice within
/// `idle_ms`. The place of one that is gone is free after two such lines.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Events of one read of a stream.
const BATCH: u32 = 256;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// 1 to 500; 100 where it is left out.
    limit: Option<String>,
    /// The id of the last one of the page before.
    before: Option<String>,
}

/// All events, newest first
#[utoipa::path(
    get, path = "/events", tag = "events", operation_id = "list_events",
    params(ListParams),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = Vec<EventBody>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn all(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Params(params): Params<ListParams>,
) -> Answer<Page<EventBody>> {
    newest(&registry, None, &params).await
}

/// The events of one workspace, newest first
#[utoipa::path(
    get, path = "/events/{workspace}", tag = "events", operation_id = "list_workspace_events",
    params(("workspace" = String, Path,), ListParams),
    security(("operator" = [])),
    responses(
        Operators, OfWorkspace,
        (status = 200, body = Vec<EventBody>, description = "A page", headers(("link" = String, description = "the next page"))),
    )
)]
pub(super) async fn of_workspace(
    State(registry): State<Arc<Registry>>,
    _: Operator,
    Id(id): Id,
    Params(params): Params<ListParams>,
) -> Answer<Page<EventBody>> {
    let page = newest(&registry, Some(&id), &params).await?;
    // Every workspace has at least the event of its creation.
    if page.is_empty() && params.before.is_none() && registry.store.view(&id).await?.is_none() {
        return Err(Problem::no_workspace(&id));
    }
    Ok(page)
}

async fn newest(
    registry: &Registry,
    workspace: Option<&str>,
    params: &ListParams,
) -> Answer<Page<EventBody>> {
    let limit = bounded("limit", params.limit.as_deref(), page::DEFAULT, page::MAX)?;
    let events = registry.store.events(workspace, params.before.as_deref(), limit + 1).await;
    let events = events.map_err(|e| page::no_place("before", params.before.as_deref(), page::LAST, e))?;
    let mut path = "/events".to_owned();
    if let Some(id) = workspace {
        path.push('/');
        percent_encode(&mut path, id);
    }
    Ok(Page::new(events, limit, |last: &Event| {
        address(&path, &[("limit", Some(&limit.to_string())), ("before", Some(&last.id))])
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// Only the events of this workspace.
    workspace: Option<String>,
}

/// Events as they happen
///
/// Server-Sent Events. `Last-Event-ID` resumes after that event; without it the
/// stream begins now.
#[utoipa::path(
    get, path = "/events/stream", tag = "events", operation_id = "stream_events",
    params(StreamParams, ("last-event-id" = Option<String>, Header,)),
    security(("operator" = [])),
    responses(
        Operators,
        (status = 200, body = EventBody, content_type = "text/event-stream", description = "Events without an end, each with its `id`"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json",
            description = "`BUSY`: too many streams are open"),
    )
)]
pub(super) async fn stream(
    State(registry): State<Arc<Registry>>,
    State(edge): State<Arc<Edge>>,
    _: Operator,
    headers: HeaderMap,
    Params(params): Params<StreamParams>,
) -> Answer<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>> {
    let permit = edge.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("BUSY", "too many event streams are open"))?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let (after, unsent) = match resumed {
        Some(id) => {
            let unsent = registry.store.events_after(Some(id), BATCH).await;
            let expected = "the id of an event";
            (Some(id.to_owned()), unsent.map_err(|e| page::no_place("Last-Event-ID", Some(id), expected, e))?)
        }
        None => (registry.store.newest_event().await?, Vec::new()),
    };
    let keep_alive = (edge.config.idle() / 3).clamp(KEEP_ALIVE.0, KEEP_ALIVE.1);
    let tail =
        Tail { registry, edge, workspace: params.workspace, after, unsent: unsent.into(), _permit: permit };
    let lines = futures::stream::unfold(tail, Tail::next);
    Ok(Sse::new(lines).keep_alive(KeepAlive::new().interval(keep_alive)))
}

/// One client's place in the log.
struct Tail {
    registry: Arc<Registry>,
    edge: Arc<Edge>,
    workspace: Option<String>,
    after: Option<String>,
    unsent: VecDeque<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    /// The next line; None when the host stops.
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        let changed = self.registry.advance.changed();
        while !self.edge.shutdown.is_cancelled() {
            while let Some(event) = self.unsent.pop_front() {
                self.after = Some(event.id.clone());
                if self.workspace.as_ref().is_none_or(|id| event.workspace_id.as_ref() == Some(id)) {
                    return Some((Ok(line(event)), self));
                }
            }
            // Listening before looking: what is committed in between still wakes.
            let mut woken = std::pin::pin!(changed.notified());
            woken.as_mut().enable();
            if self.look().await {
                continue;
            }
            tokio::select! {
                () = woken => sleep(GATHER).await,
                () = sleep(POLL) => {}
                () = self.edge.shutdown.cancelled() => {}
            }
        }
        None
    }

    /// Reads on in the log; whether there was something.
    async fn look(&mut self) -> bool {
        let read: Result<_, StoreError> =
            self.registry.store.events_after(self.after.as_deref(), BATCH).await;
        match read {
            Ok(events) => self.unsent = events.into(),
            // The client loses nothing: it is looked for again.
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an event stream can't read the log"
                );
            }
        }
        !self.unsent.is_empty()
    }
}

fn line(event: Event) -> sse::Event {
    let body = EventBody::from(event);
    // Strings and numbers: this can't fail.
    let data = serde_json::to_string(&body).unwrap_or_default();
    sse::Event::default().id(&body.id).event(&body.event_type).data(data)
}
