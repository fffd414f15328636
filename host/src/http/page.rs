//! Lists: a JSON array, and the next page's address in `Link` (RFC 8288).

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use uuid::Uuid;

use super::error::{Answer, BAD_CURSOR, Problem};
use crate::store::StoreError;

/// Most items of one page.
pub(super) const MAX: u32 = 500;

/// Items of a page where nothing else is asked for.
pub(super) const DEFAULT: u32 = 100;

/// What says where a page begins.
pub(super) const LAST: &str = "the id of the last item of the page before, as its Link has it";

/// One page, and where the next one begins.
pub(super) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// `items` holds up to one more than `limit`, which tells whether a page
    /// follows; `link` makes its address from the last item of this one.
    pub(super) fn new<R>(mut items: Vec<R>, limit: u32, link: impl FnOnce(&R) -> String) -> Self
    where
        T: From<R>,
    {
        let limit = limit as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(link);
        Self { items: items.into_iter().map(T::from).collect(), next }
    }

    /// A list that has no second page.
    pub(super) fn all<R>(items: Vec<R>) -> Self
    where
        T: From<R>,
    {
        Self { items: items.into_iter().map(T::from).collect(), next: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.items).into_response();
        let link = self.next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok());
        if let Some(link) = link {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

/// `PATH?NAME=VALUE&…`, of those that have a value.
pub(super) fn address(path: &str, params: &[(&str, Option<&str>)]) -> String {
    let mut address = path.to_owned();
    let mut separator = '?';
    for (name, value) in params {
        if let Some(value) = value {
            address.push(separator);
            address.push_str(name);
            address.push('=');
            percent_encode(&mut address, value);
            separator = '&';
        }
    }
    address
}

/// RFC 3986: all but these is encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn percent_encode(into: &mut String, text: &str) {
    into.extend(utf8_percent_encode(text, RESERVED));
}

/// Where a page begins: the id of an item, which need not be there any more.
///
/// # Errors
/// What is no id: compared with ids it would list anything or nothing.
pub(super) fn cursor(field: &str, given: Option<String>) -> Answer<Option<String>> {
    let is_id = |text: &str| Uuid::try_parse(text).is_ok_and(|id| id.to_string() == text);
    match given {
        Some(text) if !is_id(&text) => Err(Problem::field(field, text.into(), LAST).of_code(BAD_CURSOR)),
        given => Ok(given),
    }
}

/// Names what was to say where to begin, and is no such place.
pub(super) fn no_place(field: &str, given: Option<&str>, expected: &str, error: StoreError) -> Problem {
    match error {
        StoreError::BadCursor(_) => Problem::field(field, given.into(), expected).of_code(BAD_CURSOR),
        other => other.into(),
    }
}
