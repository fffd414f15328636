//! Has cargo look again when a migration is added: `sqlx::migrate!` embeds the
//! files that it finds, and cargo alone sees only those that were there before.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
