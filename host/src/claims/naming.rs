//! How boxes are called. A name holds the epoch of the claim that has the box
//! started, so it never comes again, and it tells what is older than a row and
//! what is newer.

/// The box that a workspace's claim starts in `epoch`.
pub fn instance_of(workspace_id: &str, epoch: u64) -> String {
    format!("{workspace_id}-e{epoch}")
}

/// The epoch in a name that [`instance_of`] has made. None: it is no such name.
pub fn epoch_of(workspace_id: &str, instance_id: &str) -> Option<u64> {
    let epoch = instance_id.strip_prefix(workspace_id)?.strip_prefix("-e")?;
    // A claim raises it by one: what is larger than this was never any claim's.
    let read = epoch.parse::<u32>().ok().map(u64::from)?;
    (instance_of(workspace_id, read) == instance_id).then_some(read)
}

#[cfg(test)]
#[test]
fn only_our_own_names_have_an_epoch() {
    assert_eq!(epoch_of("w", &instance_of("w", 7)), Some(7));
    assert_eq!(epoch_of("w-e1", "w-e1-e2"), Some(2));
    for strange in ["", "w", "w-e", "w-e-1", "w-e+1", "w-e01", "v-e1", "w-e1x", "w-e4294967296", "-e1"] {
        assert_eq!(epoch_of("w", strange), None, "{strange:?}");
    }
}
