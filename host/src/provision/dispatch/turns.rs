//! A lock for each key in use. A key that nobody holds or waits for takes no room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Locks = Mutex<HashMap<String, Arc<AsyncMutex<()>>>>;

#[derive(Default)]
pub struct Turns {
    locks: Locks,
}

impl Turns {
    /// Waits until the key is ours.
    pub async fn take(&self, key: &str) -> Turn<'_> {
        let lock = with(&self.locks, |locks| locks.entry(key.to_owned()).or_default().clone());
        // Made before the wait, so that a wait that is given up cleans up as well.
        let mut turn = Turn { locks: &self.locks, key: key.to_owned(), lock: Some(lock.clone()), held: None };
        turn.held = Some(lock.lock_owned().await);
        turn
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        with(&self.locks, |locks| locks.len())
    }
}

/// Held until dropped.
pub struct Turn<'a> {
    locks: &'a Locks,
    key: String,
    lock: Option<Arc<AsyncMutex<()>>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        with(self.locks, |locks| {
            self.held = None;
            self.lock = None;
            // Copies are made under this mutex alone: a single one is the map's own.
            if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
                locks.remove(&self.key);
            }
        });
    }
}

/// No code of ours can panic while it holds the map.
fn with<T>(locks: &Locks, act: impl FnOnce(&mut HashMap<String, Arc<AsyncMutex<()>>>) -> T) -> T {
    act(&mut locks.lock().unwrap_or_else(PoisonError::into_inner))
}
