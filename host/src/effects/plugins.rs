//! Who may have which plugin. Every path that declares or delivers one asks here.

use crate::store::DeclaredPlugin;

/// The kind of workspace that manages the others.
const PLATFORM: &str = "platform";

/// A plugin that a workspace of this kind must not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin} is privileged: only a workspace of kind platform may have it, and this is {kind:?}")]
pub struct NotPrivileged {
    pub plugin: String,
    pub kind: String,
}

/// # Errors
/// The first of `plugins` that is `privileged` where `kind` is not `platform`.
pub fn check(kind: &str, plugins: &[DeclaredPlugin], privileged: &[String]) -> Result<(), NotPrivileged> {
    let forbidden = plugins.iter().find(|plugin| kind != PLATFORM && privileged.contains(&plugin.name));
    match forbidden {
        Some(plugin) => Err(NotPrivileged { plugin: plugin.name.clone(), kind: kind.to_owned() }),
        None => Ok(()),
    }
}
