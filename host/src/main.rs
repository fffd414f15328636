//! The `sprag` binary.

use anyhow::Context;
use sprag::policy;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(policy::COMPILE_VERB) {
        let limits = arguments.next().context("the limits are missing")?;
        return policy::compile_child(&serde_json::from_str(&limits).context("reading the limits")?);
    }
    Ok(())
}
