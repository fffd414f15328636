//! The HTTP of it: paths, headers, problem documents, and connections that
//! close without an answer.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::{any, get, post, put};
use hyper::Request;
use hyper::body::Incoming as Received;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};

use super::rules::{Delivery, Incoming, Reply, Verb};
use super::{Shared, TOKEN, arrive};

/// Marks an answer that must not go out.
#[derive(Clone)]
struct HangUp;

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/{provider}/v1/workspaces/{workspace}/boxes/{instance}", any(a_box))
        .route("/{provider}/v1/workspaces/{workspace}/boxes/{instance}/plugins", put(plugins))
        .route("/{provider}/v1/workspaces/{workspace}/fence", post(fence))
        .route("/{provider}/v1/boxes", get(list))
        .with_state(shared.clone());
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let served = connection(stream, router.clone());
                tokio::spawn(shared.stop.clone().run_until_cancelled_owned(served));
            }
        }
    }
}

/// hyper closes the connection at once where a service fails; axum's never does.
async fn connection(stream: TcpStream, router: Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Received>| {
        let answer = router.call(request);
        async move {
            let Ok(response) = answer.await;
            match response.extensions().get::<HangUp>() {
                Some(HangUp) => Err(io::Error::other("told to hang up")),
                None => Ok(response),
            }
        }
    });
    // Errors here are clients that left, and those that were hung up on.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn a_box(
    State(shared): State<Arc<Shared>>,
    Path((provider, workspace, instance)): Path<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let verb = match method {
        Method::PUT => Verb::Start,
        Method::DELETE => Verb::Stop,
        Method::GET => Verb::Status,
        _ => return answer(Reply::problem(405, "METHOD_NOT_ALLOWED", "PUT, DELETE or GET")),
    };
    take(shared, [provider, workspace, instance], verb, &headers, &body).await
}

async fn plugins(
    State(shared): State<Arc<Shared>>,
    Path((provider, workspace, instance)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    take(shared, [provider, workspace, instance], Verb::Deliver, &headers, &body).await
}

async fn fence(
    State(shared): State<Arc<Shared>>,
    Path((provider, workspace)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    take(shared, [provider, workspace, String::new()], Verb::Fence, &headers, &Bytes::new()).await
}

async fn list(
    State(shared): State<Arc<Shared>>,
    Path(provider): Path<String>,
    headers: HeaderMap,
) -> Response {
    take(shared, [provider, String::new(), String::new()], Verb::List, &headers, &Bytes::new()).await
}

/// Understands a call and lets it arrive. What was begun is ended though the
/// caller hangs up.
async fn take(
    shared: Arc<Shared>,
    names: [String; 3],
    verb: Verb,
    headers: &HeaderMap,
    body: &Bytes,
) -> Response {
    let call = match understand(&shared, names, verb, headers, body) {
        Ok(call) => call,
        Err(problem) => return answer(problem),
    };
    let arrived = tokio::spawn(async move { arrive(&shared, call).await });
    match arrived.await.expect("a call that was taken") {
        Some(reply) => answer(reply),
        None => {
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(HangUp);
            response
        }
    }
}

fn understand(
    shared: &Shared,
    [provider, workspace, instance]: [String; 3],
    verb: Verb,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Incoming, Reply> {
    if text(headers, "authorization") != Some(&format!("Bearer {TOKEN}")) {
        return Err(Reply::problem(401, "UNAUTHORIZED", "another bearer token is needed"));
    }
    if !shared.world().serves(&provider) {
        return Err(Reply::problem(404, "NO_SUCH_PROVIDER", &format!("there is no {provider:?}")));
    }
    let (mut fence, mut key) = (None, String::new());
    if !matches!(verb, Verb::Status | Verb::List) {
        let given = text(headers, "sprag-fence").and_then(|text| text.parse().ok());
        fence =
            Some(given.ok_or_else(|| Reply::problem(400, "BAD_FENCE", "Sprag-Fence: EPOCH.SEQ is needed"))?);
        let given = text(headers, "idempotency-key")
            .filter(|key| (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
        let given = given.ok_or_else(|| Reply::problem(400, "BAD_KEY", "Idempotency-Key is needed"))?;
        key = given.to_owned();
    }
    let start = if verb == Verb::Start { Some(json(body)?) } else { None };
    let plugins = if verb == Verb::Deliver { json::<Delivery>(body)?.plugins } else { Vec::new() };
    let plugins = plugins.into_iter().map(|plugin| plugin.name).collect();
    Ok(Incoming { provider, workspace, instance, verb, fence, key, start, plugins })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| Reply::problem(400, "BAD_JSON", &error.to_string()))
}

fn answer(reply: Reply) -> Response {
    let problem = reply.status >= 400;
    let kind = if problem { "application/problem+json" } else { "application/json" };
    let empty = reply.body.is_null();
    let body = if empty { Body::empty() } else { Body::from(reply.body.to_string()) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).expect("a status");
    if !empty {
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    }
    response
}
