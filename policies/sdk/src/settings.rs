//! Typed settings: declared once, with their defaults, and used in the
//! manifest, in WebAssembly and natively.

use std::time::Duration;

use crate::{Setting, SettingSpec};

/// A type that a setting can have: `f64`, `bool`, `String`, [`Duration`],
/// [`NamedDurations`](crate::NamedDurations).
pub trait SettingValue: Sized {
    /// As it stands in the manifest and in `policies.toml`.
    fn to_setting(&self) -> Setting;
    /// None where the value has another type, or is no finite number.
    fn from_setting(setting: &Setting) -> Option<Self>;
}

impl SettingValue for f64 {
    fn to_setting(&self) -> Setting {
        Setting::Number(*self)
    }

    fn from_setting(setting: &Setting) -> Option<Self> {
        match setting {
            Setting::Number(value) if value.is_finite() => Some(*value),
            _ => None,
        }
    }
}

impl SettingValue for bool {
    fn to_setting(&self) -> Setting {
        Setting::Flag(*self)
    }

    fn from_setting(setting: &Setting) -> Option<Self> {
        match setting {
            Setting::Flag(value) => Some(*value),
            _ => None,
        }
    }
}

impl SettingValue for String {
    fn to_setting(&self) -> Setting {
        Setting::Text(self.clone())
    }

    fn from_setting(setting: &Setting) -> Option<Self> {
        match setting {
            Setting::Text(value) => Some(value.clone()),
            _ => None,
        }
    }
}

/// To the millisecond.
impl SettingValue for Duration {
    fn to_setting(&self) -> Setting {
        Setting::Duration(u64::try_from(self.as_millis()).unwrap_or(u64::MAX))
    }

    fn from_setting(setting: &Setting) -> Option<Self> {
        match setting {
            Setting::Duration(millis) => Some(Duration::from_millis(*millis)),
            _ => None,
        }
    }
}

/// All the settings of a policy. [`settings!`](crate::settings) implements it;
/// `()` is a policy that has none.
pub trait Settings: Default {
    /// As the manifest declares them.
    fn specs() -> Vec<SettingSpec>;
    /// The given values. One that is missing or has the wrong type keeps its
    /// default; the host refuses such values when a revision is activated.
    fn read(given: &[(String, Setting)]) -> Self;
}

impl Settings for () {
    fn specs() -> Vec<SettingSpec> {
        Vec::new()
    }

    fn read(_given: &[(String, Setting)]) -> Self {}
}

/// `degrade_at` as `degrade-at`, reckoned at compile time.
#[doc(hidden)]
pub const fn kebab<const N: usize>(field: &str) -> [u8; N] {
    let mut name = [0; N];
    let mut i = 0;
    while i < N {
        let byte = field.as_bytes()[i];
        name[i] = if byte == b'_' { b'-' } else { byte };
        i += 1;
    }
    name
}

/// The name of a setting, from its field.
#[doc(hidden)]
#[macro_export]
macro_rules! setting_name {
    ($field:ident) => {{
        const FIELD: &str = ::std::stringify!($field);
        const BYTES: [u8; FIELD.len()] = $crate::kebab(FIELD);
        const NAME: &str = match ::std::str::from_utf8(&BYTES) {
            ::std::result::Result::Ok(name) => name,
            ::std::result::Result::Err(_) => ::std::panic!("a field's name is UTF-8"),
        };
        NAME
    }};
}

/// Declares a policy's settings: a struct with a typed field for each, whose
/// doc comment is the summary in the manifest, and its default.
///
/// ```
/// use std::time::Duration;
///
/// sprag_policy::settings! {
///     /// What this policy can be told.
///     pub struct Settings {
///         /// Error rate from which an online agent counts as degraded.
///         pub degrade_at: f64 = 0.5,
///         /// How long a new agent is left alone.
///         pub grace: Duration = Duration::from_secs(60),
///     }
/// }
///
/// let settings = Settings::default();
/// assert_eq!(settings.degrade_at, 0.5);
/// // In the manifest and in `policies.toml` it is called `degrade-at`.
/// assert_eq!(<Settings as sprag_policy::Settings>::specs()[0].name, "degrade-at");
/// ```
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[doc = $summary:literal])+ $field_vis:vis $field:ident : $type:ty = $default:expr ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $summary])+ $field_vis $field: $type, )*
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        impl $crate::Settings for $name {
            fn specs() -> ::std::vec::Vec<$crate::SettingSpec> {
                let default = <Self as ::std::default::Default>::default();
                ::std::vec![$(
                    $crate::SettingSpec {
                        name: $crate::setting_name!($field).into(),
                        summary: ::std::concat!($($summary),+).trim().into(),
                        default: $crate::SettingValue::to_setting(&default.$field),
                    },
                )*]
            }

            fn read(given: &[(::std::string::String, $crate::Setting)]) -> Self {
                let mut settings = <Self as ::std::default::Default>::default();
                for (name, value) in given {
                    $( if name == $crate::setting_name!($field) {
                        if let ::std::option::Option::Some(value) = $crate::SettingValue::from_setting(value) {
                            settings.$field = value;
                        }
                    } )*
                }
                settings
            }
        }
    };
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
