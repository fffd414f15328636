//! Lists: a JSON array, and the next page's address in `Link` (RFC 8288).

use axum::Json;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Most items of one page.
pub(super) const MAX: u32 = 500;

/// Items of a page where nothing else is asked for.
pub(super) const DEFAULT: u32 = 100;

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

/// RFC 3986: everything but the unreserved characters.
pub(super) fn percent_encode(into: &mut String, text: &str) {
    use std::fmt::Write;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}
