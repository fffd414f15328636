//! The address that an agent registers. Others will call it, so it must be one that can
//! be called, and none at which a cloud tells a machine its secrets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use super::error::{Answer, Problem};

/// Bytes of an agent's address.
const MAX_URL: usize = 2 << 10;

/// Names and addresses of clouds' metadata services that are not link-local.
const METADATA_NAMES: [&str; 3] = ["metadata", "metadata.google.internal", "instance-data"];
const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The address as it was given, where it may be one. An empty one clears it.
///
/// # Errors
/// `INVALID_FIELD`, saying what would be right.
pub(super) fn checked(url: String, link_local: bool) -> Answer<String> {
    let refused = |url: String, expected: &str| Err(Problem::field("url", url.into(), expected));
    if url.is_empty() {
        return Ok(url);
    }
    if url.len() > MAX_URL {
        return refused(url, "at most 2048 bytes");
    }
    // A browser leaves some out and writes others in another way, so it would call another address.
    if url.contains(char::is_control) {
        return refused(url, "an address without control characters");
    }
    // As browsers read it: of 0xa9fea9fe, 2852039166 and 169.254.169.254 it makes one address.
    let parsed = Url::parse(&url).ok().filter(|parsed| ["http", "https"].contains(&parsed.scheme()));
    let Some(host) = parsed.as_ref().and_then(Url::host_str) else {
        return refused(url, "an http or https address with a host");
    };
    if !link_local && is_link_local(host) {
        return refused(url, "no link-local or metadata address (http.link_local_urls allows them)");
    }
    Ok(url)
}

fn is_link_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address == METADATA_V4,
        Ok(IpAddr::V6(address)) => address.is_unicast_link_local() || address == METADATA_V6,
        Err(_) => METADATA_NAMES.contains(&host.to_ascii_lowercase().as_str()),
    }
}

#[cfg(test)]
mod tests;
