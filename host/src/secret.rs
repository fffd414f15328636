//! Secrets, whoever needs one and wherever it comes from: a variable, a file or
//! standard input. Each loses the white space at its ends (the last newline that
//! every editor and `echo` leaves), and is refused if no header could carry it.
//! Errors name the source and never what it held.

use std::fmt;
use std::io::{self, Read as _};
use std::path::PathBuf;

/// Bytes of a secret; more is no token but some other file.
const MOST: u64 = 16 << 10;

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Variable(String),
    File(PathBuf),
    /// Standard input, to its end.
    Stdin,
    /// Already read by somebody else, who calls it this.
    Given(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Variable(name) => write!(f, "the variable {name}"),
            Source::File(path) => write!(f, "the file {}", path.display()),
            Source::Stdin => f.write_str("standard input"),
            Source::Given(name) => f.write_str(name),
        }
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{from} can't be read")]
    Unreadable {
        from: Source,
        #[source]
        error: io::Error,
    },
    #[error("{from} is not set, or empty")]
    Absent { from: Source },
    #[error("{from} is empty")]
    Empty { from: Source },
    #[error("{from} holds more than {MOST} bytes; that is no secret of ours")]
    TooLong { from: Source },
    #[error("{from} holds what no header can carry; expected visible ASCII characters in one line")]
    Unsendable { from: Source },
}

/// A secret that a header can carry. Shows itself to nobody but [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Source {
    /// A file, or standard input where `-` stands for it.
    pub fn file_or_stdin(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Source::Stdin } else { Source::File(path) }
    }

    /// The secret that lies there now.
    ///
    /// # Errors
    /// There is none, or one that could not be sent.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let bytes = match self {
            Source::Variable(name) => std::env::var_os(name).unwrap_or_default().into_encoded_bytes(),
            Source::File(path) => self.bounded(std::fs::File::open(path))?,
            Source::Stdin => self.bounded(Ok(io::stdin()))?,
            Source::Given(_) => Vec::new(),
        };
        self.secret(&bytes)
    }

    /// The secret that these bytes of it hold.
    ///
    /// # Errors
    /// As [`Source::read`].
    pub fn secret(&self, bytes: &[u8]) -> Result<Secret, SecretError> {
        let from = self.clone();
        let trimmed = bytes.trim_ascii();
        if trimmed.is_empty() {
            return Err(match self {
                Source::Variable(_) => SecretError::Absent { from },
                _ => SecretError::Empty { from },
            });
        }
        if bytes.len() as u64 > MOST {
            return Err(SecretError::TooLong { from });
        }
        match std::str::from_utf8(trimmed) {
            Ok(text) if text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) => {
                Ok(Secret(text.to_owned()))
            }
            _ => Err(SecretError::Unsendable { from }),
        }
    }

    fn bounded(&self, reader: io::Result<impl io::Read>) -> Result<Vec<u8>, SecretError> {
        let mut bytes = Vec::new();
        let read = reader.and_then(|reader| reader.take(MOST + 1).read_to_end(&mut bytes));
        read.map_err(|error| SecretError::Unreadable { from: self.clone(), error })?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
