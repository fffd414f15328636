//! What comes in: bodies, queries, and the checks that both share. A wrong
//! value is answered with the field, what it held and what would be right.

use std::pin::pin;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{self, FromRef, FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::BytesMut;
use futures::FutureExt as _;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::Edge;
use super::error::{Answer, Problem};
use super::guard::Ticket;
use crate::facts::Readiness;

/// A JSON body, whatever its content type: agents don't always send one.
pub struct Payload<T>(pub T);

impl<S, T> FromRequest<S> for Payload<T>
where
    S: Sync,
    Arc<Edge>: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        parse(&small_body(request, state).await?).map(Self)
    }
}

/// An uploaded module.
pub struct Wasm(pub Bytes);

impl<S> FromRequest<S> for Wasm
where
    S: Sync,
    Arc<Edge>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let edge = Arc::<Edge>::from_ref(state);
        let (bytes, _) = whole_body(request, Room::of(edge.config.module_bytes), &edge).await?;
        Ok(Self(bytes))
    }
}

/// The body of an agent's call: it may be larger than others, and few large ones may be in
/// memory at once, since whoever sends one need not have a token that is good for anything.
pub struct AgentBody {
    pub bytes: Bytes,
    _large: Option<OwnedSemaphorePermit>,
}

impl AgentBody {
    pub fn parse<T: DeserializeOwned>(&self) -> Answer<T> {
        parse(&self.bytes)
    }
}

impl<S> FromRequest<S> for AgentBody
where
    S: Sync,
    Arc<Edge>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let edge = Arc::<Edge>::from_ref(state);
        let small = edge.config.body_bytes;
        let room = Room { small, limit: edge.config.agent_body_bytes.max(small) };
        let (bytes, _large) = whole_body(request, room, &edge).await?;
        Ok(Self { bytes, _large })
    }
}

/// How large a body may be, and from where on it needs one of the few places for large ones.
#[derive(Clone, Copy)]
struct Room {
    small: usize,
    limit: usize,
}

impl Room {
    fn of(limit: usize) -> Self {
        Self { small: limit, limit }
    }
}

/// Why there is no whole body.
enum Unread {
    TooLarge,
    Broken,
}

type Whole = (Bytes, Option<OwnedSemaphorePermit>);

/// The body of an ordinary call.
pub async fn small_body<S>(request: Request, state: &S) -> Answer<Bytes>
where
    Arc<Edge>: FromRef<S>,
{
    let edge = Arc::<Edge>::from_ref(state);
    let (bytes, _) = whole_body(request, Room::of(edge.config.body_bytes), &edge).await?;
    Ok(bytes)
}

/// The body, if there is room for it and it arrives in time.
async fn whole_body(request: Request, room: Room, edge: &Edge) -> Answer<Whole> {
    let (mut parts, body) = request.into_parts();
    let mut arrival = pin!(gather(body, room, edge.large.clone()));
    // Most come with their head, and then nobody waits.
    let arrived = match arrival.as_mut().now_or_never() {
        Some(arrived) => Ok(arrived),
        None => {
            let arrival = tokio::time::timeout(edge.config.body_read(), arrival);
            match parts.extensions.remove::<Ticket>() {
                Some(ticket) => ticket.step_out(arrival).await?,
                None => arrival.await,
            }
        }
    };
    match arrived {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(Unread::TooLarge)) => {
            let detail = format!("the body is larger than the {} bytes that this call takes", room.limit);
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", detail))
        }
        Ok(Err(Unread::Broken)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "BROKEN_BODY", "the body did not arrive whole"))
        }
        Err(_) => {
            let detail = "the body did not arrive in time";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW", detail))
        }
    }
}

async fn gather(mut body: Body, room: Room, places: Arc<Semaphore>) -> Result<Whole, Unread> {
    let mut place = None;
    let mut whole = Bytes::new();
    let mut longer = BytesMut::new();
    let mut expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    loop {
        if expected > room.limit {
            return Err(Unread::TooLarge);
        }
        if expected > room.small && place.is_none() {
            place = Some(places.clone().acquire_owned().await.map_err(|_| Unread::Broken)?);
        }
        let Some(frame) = body.frame().await else { break };
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if whole.is_empty() && longer.is_empty() {
            whole = data;
        } else {
            longer.extend_from_slice(&std::mem::take(&mut whole));
            longer.extend_from_slice(&data);
        }
        expected = expected.max(whole.len() + longer.len());
    }
    Ok((if longer.is_empty() { whole } else { longer.freeze() }, place))
}

/// Reads JSON.
///
/// # Errors
/// 400, which names the field that is not what it must be.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    serde_json::from_slice(bytes).map_err(|e| why_not::<T>(bytes, &e))
}

/// Reads a body that failed once more, to name the field that it failed at.
pub(super) fn why_not<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let not_json =
        || Problem::new(StatusCode::BAD_REQUEST, "BAD_JSON", format!("the body is no JSON: {error}"));
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let Err(located) = serde_path_to_error::deserialize::<_, T>(&mut reader) else { return not_json() };
    let path = located.path();
    // Well-formed, but no number of 64 bits: serde_json has no category for it.
    if error.to_string().starts_with(OUT_OF_RANGE) {
        let number = number_at(bytes, error.line(), error.column());
        let expected = "a number that 64 bits hold, as IEEE 754 has them";
        return Problem::field(path.to_string(), number.into(), expected);
    }
    let (true, Ok(body)) = (error.is_data(), serde_json::from_slice::<Value>(bytes)) else {
        return not_json();
    };
    match at(&body, path) {
        Some(value) if path.iter().len() > 0 => {
            let (field, told) = (path.to_string(), located.inner().to_string());
            if told.starts_with(UNKNOWN) {
                return Problem::unknown(field, value.clone(), &expectation(&told));
            }
            Problem::field(field, value.clone(), expectation(&told))
        }
        _ => {
            let expected = format!("an object with fields as documented ({})", located.inner());
            Problem::field("body", body, expected)
        }
    }
}

/// How serde begins to say that a type has no such field, where it says so at all.
const UNKNOWN: &str = "unknown field `";

/// What it says besides where the type has none.
const NO_FIELDS: &str = "there are no fields";

/// How serde_json begins to say that a number is too large.
const OUT_OF_RANGE: &str = "number out of range";

/// The value at `path`; a step may be any text, with dots and slashes.
pub fn at<'a>(body: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(body, |value, step| match step {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// The number that ends at or around a place of the body, as it was written.
fn number_at(bytes: &[u8], line: usize, column: usize) -> String {
    let text = bytes.split(|b| *b == b'\n').nth(line.saturating_sub(1)).unwrap_or_default();
    let of_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
    let (before, after) = text.split_at(column.min(text.len()));
    let begin = before.iter().rposition(|b| !of_number(b)).map_or(0, |other| other + 1);
    let end = after.iter().position(|b| !of_number(b)).unwrap_or(after.len());
    String::from_utf8_lossy(&text[begin..before.len() + end]).into_owned()
}

/// `invalid type: string "x", expected f64 at line 1 column 20` → `a number`.
fn expectation(message: &str) -> String {
    if message.contains(NO_FIELDS) {
        return "no field at all".to_owned();
    }
    let told = message.rsplit_once(", expected ").map_or(message, |(_, told)| told);
    let told = told.rsplit_once(" at line ").map_or(told, |(told, _)| told);
    match told {
        "f64" => "a number",
        "i64" | "u64" | "u32" => "a whole number",
        other => other,
    }
    .to_owned()
}

/// A query string. Of operators' calls it holds nothing that the call does not
/// know: [`super::access::Operator`] has seen to that.
pub struct Params<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        Query::try_from_uri(&parts.uri).map(|Query(params)| Self(params)).map_err(|rejection| {
            let detail = rejection.body_text();
            Problem::new(StatusCode::BAD_REQUEST, "BAD_QUERY", detail)
        })
    }
}

/// The one parameter of a path.
pub struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let extract::Path(id) = extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "BAD_PATH", e.body_text()))?;
        without_nul(&id)?;
        Ok(Self(id))
    }
}

/// The two parameters of a path.
pub struct IdAnd(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdAnd {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let extract::Path((id, other)) = extract::Path::<(String, String)>::from_request_parts(parts, state)
            .await
            .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "BAD_PATH", e.body_text()))?;
        without_nul(&id)?;
        Ok(Self(id, other))
    }
}

/// No database here keeps one, so nothing is called by it.
fn without_nul(id: &str) -> Answer<()> {
    if id.contains('\0') {
        let detail = format!("nothing is called {id:?}: an id holds no character U+0000");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "BAD_PATH", detail));
    }
    Ok(())
}

/// None: not said. Some(None): `null`, which clears it (as a JSON merge patch has it, RFC 7396).
pub(super) type Said<T> = Option<Option<T>>;

/// For a field that may be `null`: serde's own reading takes that for absent.
pub(super) fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Said<T>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// A number of the query, or `default` where it is left out.
pub fn bounded(field: &str, given: Option<&str>, default: u32, max: u32) -> Answer<u32> {
    let Some(given) = given else { return Ok(default) };
    match given.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(Problem::field(field, given.into(), format!("a whole number from 1 to {max}"))),
    }
}

/// A JSON number that must be whole and not negative; absent is zero.
pub fn whole(field: &str, given: Option<f64>, max: u64) -> Answer<u64> {
    let Some(number) = given else { return Ok(0) };
    if number >= 0.0 && number <= max as f64 && number.fract() == 0.0 {
        // In range and whole, so the cast is exact.
        Ok(number as u64)
    } else {
        Err(Problem::field(field, number.into(), format!("a whole number from 0 to {max}")))
    }
}

/// A string that must be there.
pub fn required(field: &str, given: Option<String>) -> Answer<String> {
    match given {
        Some(text) if !text.is_empty() => Ok(text),
        other => Err(Problem::field(field, other.into(), "a string that is not empty")),
    }
}

/// The loaded tools: their names, or how many there are.
#[derive(Clone, Debug, PartialEq, ToSchema)]
#[schema(value_type = Value, example = json!(["create_workspace", "list_workspaces"]))]
pub struct Tools(pub(super) f64);

impl<'de> Deserialize<'de> for Tools {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = Tools;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of tool names, or their number")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Tools, E> {
                Ok(Tools(number as f64))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Tools, E> {
                Ok(Tools(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Tools, E> {
                Ok(Tools(number))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Tools, A::Error> {
                let mut count = 0.0;
                while names.next_element::<String>()?.is_some() {
                    count += 1.0;
                }
                Ok(Tools(count))
            }
        }
        deserializer.deserialize_any(Count)
    }
}

/// Left out is not zero here: an agent too old to say is judged as such.
pub fn readiness(server: Option<bool>, model: Option<bool>, tools: Option<Tools>) -> Answer<Readiness> {
    let loaded = match tools {
        None => None,
        Some(Tools(number)) => {
            let number = whole("loaded_mcp_tools", Some(number), i32::MAX as u64)?;
            u32::try_from(number).ok()
        }
    };
    Ok(Readiness { mcp_server_present: server, model_present: model, loaded_mcp_tools: loaded })
}
