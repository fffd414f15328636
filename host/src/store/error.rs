//! What can go wrong below, sorted by what the caller can do about it. No
//! message holds a token, and none holds more of a Postgres URL than its scheme.

use sqlx::error::DatabaseError;

/// What went wrong below. Never says what a token or a URL's password was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again later: nothing answered, or not in time.
    #[error("the database did not answer")]
    Unavailable(#[source] sqlx::Error),
    /// The database answered, and the answer was no.
    #[error("the database refused a statement")]
    Statement(#[source] sqlx::Error),
    /// No such user, password or database; or it takes nobody.
    #[error("the database refused the connection")]
    Refused(#[source] sqlx::Error),
    #[error("{table}.{column} of {id}: {found:?} is not {expected}")]
    BadRow { table: &'static str, column: &'static str, id: String, found: String, expected: &'static str },
    #[error("{0:?} is no id of this list")]
    BadCursor(String),
    #[error("a migration failed")]
    Migration(#[source] sqlx::migrate::MigrateError),
    #[error("{url}: {why}")]
    BadUrl { url: String, why: &'static str },
}

impl StoreError {
    /// Whether the same call may succeed once the database is back.
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }

    /// What came of opening a connection.
    pub(super) fn refused(error: sqlx::Error) -> Self {
        if is_unavailable(&error) { StoreError::Unavailable(error) } else { StoreError::Refused(error) }
    }

    /// Whether another process has just what this one wanted of the SQLite file.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            StoreError::Unavailable(sqlx::Error::Database(e)) => of_sqlite(e.as_ref()) == Some(SQLITE_BUSY),
            _ => false,
        }
    }

    /// Whether a connection that was open when this happened may be in a state that
    /// nobody knows. What is an ordinary answer leaves it as it was: a row that is
    /// there already, a lock that was not granted, another transaction that won.
    pub(super) fn casts_doubt(&self) -> bool {
        use sqlx::Error::{
            BeginFailed, Database, InvalidSavePointStatement, Io, Protocol, Tls, WorkerCrashed,
        };
        let (StoreError::Unavailable(error) | StoreError::Statement(error)) = self else { return false };
        match error {
            Database(e) => match of_sqlite(e.as_ref()) {
                Some(code) => code != SQLITE_CONSTRAINT,
                None => {
                    let code = e.code().unwrap_or_default();
                    ["08", "25", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
                }
            },
            Io(_) | Tls(_) | Protocol(_) | WorkerCrashed | BeginFailed | InvalidSavePointStatement => true,
            _ => false,
        }
    }

    /// Why no write will succeed until somebody does something about the database.
    /// These words are for everybody: they name no file and no host.
    pub(super) fn stops_writes(&self) -> Option<&'static str> {
        let (StoreError::Unavailable(sqlx::Error::Database(e))
        | StoreError::Statement(sqlx::Error::Database(e))) = self
        else {
            return None;
        };
        if let Some(code) = of_sqlite(e.as_ref()) {
            return match code {
                SQLITE_BUSY => Some("another process does not let go of it"),
                7 => Some("there is no memory left"),
                8 => Some("it is read-only"),
                10 => Some("its disk fails"),
                11 | 26 => Some("its file is damaged"),
                13 => Some("its disk is full"),
                14 => Some("its file can't be opened"),
                _ => None,
            };
        }
        match e.code().as_deref()? {
            "53100" => Some("its disk is full"),
            "53200" => Some("there is no memory left"),
            "25006" => Some("it is read-only"),
            "XX001" | "XX002" => Some("it is damaged"),
            code if code.starts_with("58") => Some("its disk fails"),
            _ => None,
        }
    }

    /// Whether it is certain that nothing was changed: no statement was sent.
    /// Where a connection broke, a commit may have been carried out all the same.
    pub const fn nothing_was_sent(&self) -> bool {
        use sqlx::Error::{BeginFailed, PoolClosed, PoolTimedOut};
        matches!(self, StoreError::Unavailable(BeginFailed | PoolClosed | PoolTimedOut))
    }

    /// Whether Postgres ended this transaction in favour of another one:
    /// a deadlock or a serialization failure. Nothing of it was stored.
    pub(super) fn lost_to_another(&self) -> bool {
        match self {
            StoreError::Statement(sqlx::Error::Database(e)) => {
                matches!(e.code().as_deref(), Some("40P01" | "40001"))
            }
            _ => false,
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_unavailable(&error) { StoreError::Unavailable(error) } else { StoreError::Statement(error) }
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
        match error {
            Execute(e) | ExecuteMigration(e, _) if is_unavailable(&e) => StoreError::Unavailable(e),
            other => StoreError::Migration(other),
        }
    }
}

fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(e) => match of_sqlite(e.as_ref()) {
            Some(code) => sqlite_unavailable(code),
            None => e.code().is_some_and(|code| postgres_unavailable(&code)),
        },
        _ => false,
    }
}

/// Busy, locked, out of memory, read-only, I/O error, full, can't open, locking protocol.
const fn sqlite_unavailable(code: i32) -> bool {
    matches!(code, SQLITE_BUSY | 6 | 7 | 8 | 10 | 13 | 14 | 15)
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_CONSTRAINT: i32 = 19;

/// SQLite's result code, if it is SQLite's: of the extended one the lowest byte.
fn of_sqlite(error: &(dyn DatabaseError + 'static)) -> Option<i32> {
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    error.code()?.parse::<i32>().ok().map(|code| code & 0xff)
}

/// SQLSTATE classes: 08 connection, 53 insufficient resources, 57P shutdown and
/// crash, 58 system error; 25006 is a standby that takes no writes, 55P03 a lock
/// that was not granted in time, 57014 a statement that took too long.
fn postgres_unavailable(code: &str) -> bool {
    ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
        || matches!(code, "25006" | "55P03" | "57014")
}
