//! What operators send: understood whole, or refused by name. Agents are of
//! many versions, so what they say besides is ignored (see `body`); an operator
//! who misspells a field must not believe that it was done.
//!
//! Bodies are checked by their types, which `deny_unknown_fields`; queries by
//! the description of the call, see [`Queries`].

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequest, MatchedPath, Query, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::Edge;
use super::body::{at, parse, small_body};
use super::error::{Answer, Problem};

/// What no database here keeps in a text.
const NUL: char = '\0';

/// What a text must be that holds one.
const NO_NUL: &str = "text without the character U+0000";

/// What a field must be that is there more than once.
const ONCE: &str = "the field once";

/// A JSON body of which every field is known, and none is there twice.
pub struct Exact<T>(pub T);

impl<S, T> FromRequest<S> for Exact<T>
where
    S: Sync,
    Arc<Edge>: FromRef<S>,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        read(&small_body(request, state).await?).map(Self)
    }
}

/// [`Exact`], or no body, or `null`: then every field is left out.
pub struct ExactOrNone<T>(pub T);

impl<S, T> FromRequest<S> for ExactOrNone<T>
where
    S: Sync,
    Arc<Edge>: FromRef<S>,
    T: DeserializeOwned + Default,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let bytes = small_body(request, state).await?;
        if matches!(bytes.trim_ascii(), b"" | b"null") {
            Ok(Self(T::default()))
        } else {
            read(&bytes).map(Self)
        }
    }
}

/// Of a call that takes no body: an object without fields says nothing, too.
pub type NoBody = ExactOrNone<NoFields>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, Faultless>(&mut reader) {
        Err(found) if found.inner().is_data() => {
            let body: Value = parse(bytes)?;
            let value = at(&body, found.path()).cloned().unwrap_or_default();
            let twice = found.inner().to_string().starts_with(TWICE);
            Err(Problem::field(found.path().to_string(), value, if twice { ONCE } else { NO_NUL }))
        }
        // What is no JSON is said below.
        Ok(_) | Err(_) => parse(bytes),
    }
}

/// How [`Faultless`] says that a field is there more than once.
const TWICE: &str = "twice";

/// How [`Faultless`] says that a text holds a NUL.
const HOLDS_NUL: &str = "nul";

/// JSON without a text that can't be kept, and without a field that is there twice.
struct Faultless;

impl<'de> Deserialize<'de> for Faultless {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Faultless {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self, E> {
        if text.contains(NUL) { Err(E::custom(HOLDS_NUL)) } else { Ok(self) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            let fault =
                if name.contains(NUL) { Some(HOLDS_NUL) } else { (!seen.insert(name)).then_some(TWICE) };
            // Within the field's value: there the error's path ends with the field.
            match fault {
                Some(fault) => fields.next_value_seed(Fault(fault))?,
                None => fields.next_value::<Self>().map(|_| ())?,
            }
        }
        Ok(self)
    }
}

/// Instead of a value that follows a faulty name.
struct Fault(&'static str);

impl<'de> DeserializeSeed<'de> for Fault {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(de::Error::custom(self.0))
    }
}

/// The parameters that each call's query may hold, as the description has them.
pub struct Queries(HashMap<String, HashMap<Method, Vec<String>>>);

impl Queries {
    /// Reads an OpenAPI document.
    pub fn of(document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        Self(paths.map(|(route, item)| (route.clone(), of_route(item))).collect())
    }

    /// Whether the query of a call holds what the call knows, each once, and
    /// nothing else.
    ///
    /// # Errors
    /// 400, which names the parameter.
    pub fn check(&self, parts: &Parts) -> Answer<()> {
        if parts.uri.query().is_none_or(str::is_empty) {
            return Ok(());
        }
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        let known = self.0.get(route).and_then(|calls| calls.get(method)).map_or(&[][..], Vec::as_slice);
        for pair in parts.uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // What is read below has other characters instead, which nobody has asked with.
            if [name, value].into_iter().any(|text| percent_decode_str(text).decode_utf8().is_err()) {
                let name = percent_decode_str(name).decode_utf8_lossy();
                return Err(Problem::field(name, value.into(), "percent-encoded UTF-8"));
            }
        }
        let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "BAD_QUERY", e.body_text()))?;
        let mut seen = BTreeSet::new();
        for (name, value) in &given {
            if !known.contains(name) {
                return Err(Problem::unknown(name, value.as_str().into(), &listed(known)));
            }
            if !seen.insert(name) {
                let twice = Problem::field(name, value.as_str().into(), ONCE);
                return Err(twice.of_code("BAD_QUERY"));
            }
            if value.contains(NUL) {
                return Err(Problem::field(name, value.as_str().into(), NO_NUL));
            }
        }
        Ok(())
    }
}

/// As serde lists the fields of a type.
fn listed(known: &[String]) -> String {
    match known {
        [] => "no parameter at all".to_owned(),
        [one] => format!("`{one}`"),
        many => format!("one of `{}`", many.join("`, `")),
    }
}

fn of_route(item: &Value) -> HashMap<Method, Vec<String>> {
    let calls = item.as_object().into_iter().flatten();
    let calls = calls.filter_map(|(method, operation)| {
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok()?;
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let queries = parameters.filter(|parameter| parameter["in"] == "query");
        Some((method, queries.filter_map(|parameter| Some(parameter["name"].as_str()?.to_owned())).collect()))
    });
    calls.collect()
}
