//! platform-gate
