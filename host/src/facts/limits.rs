//! What one module may use, where that is not what every module may.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! module_limits {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Limits of one module, by the names that they have under `[limits]`. What
        /// is not given is what every module has.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct ModuleLimits {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<u64>,
            )+
        }

        impl ModuleLimits {
            /// Each of them the same.
            pub const fn all(value: u64) -> Self {
                Self { $($name: Some(value)),+ }
            }

            /// Those that are given, by name.
            pub fn given(&self) -> Vec<(&'static str, u64)> {
                [$((stringify!($name), self.$name)),+]
                    .into_iter()
                    .filter_map(|(name, value)| value.map(|value| (name, value)))
                    .collect()
            }
        }
    };
}

module_limits! {
    /// Units of fuel for one call.
    fuel,
    /// Wall-clock backstop for one call, in milliseconds.
    call_ms,
    /// Bytes of each linear memory.
    memory_bytes,
    /// Linear memories of the component.
    memories,
    /// Elements of each table.
    table_elements,
    /// Core instances within the component.
    instances,
    /// Bytes that one call may have lifted out of the guest.
    answer_bytes,
    /// Bytes of one string that comes back.
    string_bytes,
    /// Elements of one list that comes back.
    list_items,
    /// Bytes of the module as it is uploaded.
    module_bytes,
    /// Wall-clock limit for compiling it, in milliseconds.
    compile_ms,
    /// Address space that compiling it may take, in bytes.
    compile_memory_bytes,
}

impl ModuleLimits {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
