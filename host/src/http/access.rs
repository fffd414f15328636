//! Who may ask what: an agent by its workspace's token, an operator by the
//! admin token. Of every token only the SHA-256 is kept, and hashes are
//! compared in constant time.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::{HeaderMap, header, request::Parts};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use subtle::{Choice, ConstantTimeEq};

use super::Edge;
use super::error::{Answer, Problem};
use crate::provision::BoxToken;
pub use crate::provision::TOKEN_PREFIX;
use crate::store::{Credential, TokenHash};

/// Who may register a workspace that has no live token yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Registration {
    /// The first caller gets a token. For a loopback address.
    Open,
    /// Only with the token that `POST /workspaces` returned.
    Token,
}

/// The host's own side of every check.
pub struct Access {
    admin: TokenHash,
    registration: Registration,
}

impl Access {
    /// Keeps no more of `admin_token` than its hash.
    pub fn new(admin_token: &str, registration: Registration) -> Self {
        Self { admin: hash_token(admin_token), registration }
    }

    pub fn registration(&self) -> Registration {
        self.registration
    }

    /// What an agent presents, as this host's mode of registration has it.
    pub(super) fn credential(&self, presented: Option<TokenHash>) -> Credential {
        Credential {
            token: presented.unwrap_or(TokenHash::NONE),
            open: self.registration == Registration::Open,
        }
    }
}

/// A token as it is handed out, once. Shows itself to nobody but [`Token::reveal`].
pub(super) struct Token(BoxToken);

impl Token {
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn mint() -> Result<Self, getrandom::Error> {
        BoxToken::mint().map(Self)
    }

    pub fn hash(&self) -> TokenHash {
        hash_token(&self.0.0)
    }

    /// The token itself, for the answer that hands it out.
    pub fn reveal(self) -> String {
        self.0.0
    }
}

/// A token for whoever starts a host without one.
///
/// # Errors
/// Where the system has no randomness to give.
pub fn new_token() -> anyhow::Result<String> {
    Ok(Token::mint()?.reveal())
}

/// What is kept of a token.
pub fn hash_token(token: &str) -> TokenHash {
    TokenHash::of(token)
}

/// Whether `presented` is one of `live`; looks at all of them either way.
pub fn is_one_of(presented: &TokenHash, live: &[TokenHash]) -> bool {
    let none = Choice::from(0);
    live.iter().fold(none, |found, hash| found | hash.0.ct_eq(&presented.0)).into()
}

/// The hash of the bearer token of a request, if it has a well-formed one.
pub fn bearer(headers: &HeaderMap) -> Option<TokenHash> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| hash_token(token))
}

/// What an agent presents: a bearer token, or nothing where registration is open.
pub struct Agent(pub Credential);

impl<S> FromRequestParts<S> for Agent
where
    S: Sync,
    Arc<Access>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let presented = bearer(&parts.headers);
        let credential = Arc::<Access>::from_ref(state).credential(presented);
        if presented.is_some() || credential.open { Ok(Self(credential)) } else { Err(no_token()) }
    }
}

/// The proof that the admin token was presented, with a query of which the
/// call knows every parameter. Both here, so that no call of an operator can be
/// without either.
pub struct Operator(());

impl<S> FromRequestParts<S> for Operator
where
    S: Sync,
    Arc<Access>: FromRef<S>,
    Arc<Edge>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        match Reader::from_request_parts(parts, state).await? {
            Reader::Operator(operator) => Ok(operator),
            Reader::Agent(_) => Err(Problem::unauthorized("the token is not the admin token")),
        }
    }
}

/// Who reads about one workspace: an operator, or an agent about itself.
pub enum Reader {
    Operator(Operator),
    /// Of this token, which may be anybody's.
    Agent(TokenHash),
}

impl<S> FromRequestParts<S> for Reader
where
    S: Sync,
    Arc<Access>: FromRef<S>,
    Arc<Edge>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let presented = bearer(&parts.headers).ok_or_else(no_token)?;
        if !is_one_of(&presented, &[Arc::<Access>::from_ref(state).admin]) {
            return Ok(Self::Agent(presented));
        }
        Arc::<Edge>::from_ref(state).queries.check(parts)?;
        Ok(Self::Operator(Operator(())))
    }
}

fn no_token() -> Problem {
    Problem::unauthorized("this call needs the header `Authorization: Bearer TOKEN`")
}
