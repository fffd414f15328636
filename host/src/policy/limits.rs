//! What a sandbox may use: every limit with its name and its default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PolicyError;
use crate::facts::ModuleLimits;

/// What a sandbox may use. Every limit has a name, a default and a config key
/// of the same name under `[limits]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Units of fuel for one call; deterministic.
    pub fuel: u64,
    /// Wall-clock backstop for one call, in milliseconds.
    pub call_ms: u64,
    /// Bytes of each linear memory.
    pub memory_bytes: usize,
    /// Linear memories of one component.
    pub memories: usize,
    /// Elements of each table.
    pub table_elements: usize,
    /// Core instances within one component.
    pub instances: usize,
    /// Sandboxes that may live at once, in the whole host.
    pub concurrency: u32,
    /// Bytes of the guest's stack that the host enforces.
    pub stack_bytes: usize,
    /// Bytes that one call may have lifted out of the guest.
    pub answer_bytes: usize,
    /// Bytes of one string that comes back.
    pub string_bytes: usize,
    /// Elements of one list that comes back.
    pub list_items: usize,
    /// Bytes of a module as it is uploaded.
    pub module_bytes: usize,
    /// Wall-clock limit for compiling one module, in milliseconds.
    pub compile_ms: u64,
    /// Address space that compiling one module may take, in bytes.
    pub compile_memory_bytes: u64,
    /// What one module may be given instead, at most, where a revision says so.
    pub max: ModuleLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 10_000_000,
            call_ms: 100,
            memory_bytes: 4 << 20,
            memories: 1,
            table_elements: 1_000,
            instances: 8,
            concurrency: 256,
            stack_bytes: 256 << 10,
            answer_bytes: 256 << 10,
            string_bytes: 4 << 10,
            list_items: 256,
            module_bytes: 2 << 20,
            compile_ms: 20_000,
            compile_memory_bytes: 4 << 30,
            max: ModuleLimits::default(),
        }
    }
}

impl Limits {
    /// Refuses limits under which nothing could ever run.
    ///
    /// # Errors
    /// [`PolicyError::Host`] names the limit that is zero, or a maximum that is less.
    pub fn check(&self) -> Result<(), PolicyError> {
        let zero = [
            ("fuel", self.fuel == 0),
            ("call_ms", self.call_ms == 0),
            ("memory_bytes", self.memory_bytes == 0),
            ("memories", self.memories == 0),
            ("instances", self.instances == 0),
            ("concurrency", self.concurrency == 0),
            ("stack_bytes", self.stack_bytes == 0),
            ("answer_bytes", self.answer_bytes == 0),
            ("string_bytes", self.string_bytes == 0),
            ("list_items", self.list_items == 0),
            ("module_bytes", self.module_bytes == 0),
            ("compile_ms", self.compile_ms == 0),
            ("compile_memory_bytes", self.compile_memory_bytes == 0),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(PolicyError::Host { why: format!("limits.{name} is 0") });
        }
        let less = |((name, plain), (_, most)): &((_, u64), (_, u64))| {
            (most < plain).then_some((*name, *plain, *most))
        };
        match self.plain().into_iter().zip(self.most().plain()).find_map(|pair| less(&pair)) {
            Some((name, plain, most)) => Err(PolicyError::Host {
                why: format!("limits.max.{name} is {most}, less than limits.{name}, {plain}"),
            }),
            None => Ok(()),
        }
    }

    /// The limits of a module that was given some of its own.
    ///
    /// # Errors
    /// [`PolicyError::BadLimit`] with the limit, what was asked for and what may be.
    pub fn of_module(&self, own: &ModuleLimits) -> Result<Self, PolicyError> {
        let most: BTreeMap<_, _> = self.most().plain().into_iter().collect();
        for (name, asked) in own.given() {
            let most = most.get(name).copied().unwrap_or_default();
            if asked == 0 || asked > most {
                return Err(PolicyError::BadLimit { name: name.to_owned(), asked, most });
            }
        }
        Ok(self.with(own))
    }

    /// The most that any module may be given.
    pub fn most(&self) -> Self {
        self.with(&self.max)
    }

    fn with(&self, own: &ModuleLimits) -> Self {
        let size =
            |own: Option<u64>, plain: usize| own.map_or(plain, |n| usize::try_from(n).unwrap_or(usize::MAX));
        Self {
            fuel: own.fuel.unwrap_or(self.fuel),
            call_ms: own.call_ms.unwrap_or(self.call_ms),
            memory_bytes: size(own.memory_bytes, self.memory_bytes),
            memories: size(own.memories, self.memories),
            table_elements: size(own.table_elements, self.table_elements),
            instances: size(own.instances, self.instances),
            answer_bytes: size(own.answer_bytes, self.answer_bytes),
            string_bytes: size(own.string_bytes, self.string_bytes),
            list_items: size(own.list_items, self.list_items),
            module_bytes: size(own.module_bytes, self.module_bytes),
            compile_ms: own.compile_ms.unwrap_or(self.compile_ms),
            compile_memory_bytes: own.compile_memory_bytes.unwrap_or(self.compile_memory_bytes),
            ..self.clone()
        }
    }

    /// All that a module may be given of its own, by name, as they stand here.
    fn plain(&self) -> Vec<(&'static str, u64)> {
        let size = |n: usize| Some(u64::try_from(n).unwrap_or(u64::MAX));
        let named = ModuleLimits {
            fuel: Some(self.fuel),
            call_ms: Some(self.call_ms),
            memory_bytes: size(self.memory_bytes),
            memories: size(self.memories),
            table_elements: size(self.table_elements),
            instances: size(self.instances),
            answer_bytes: size(self.answer_bytes),
            string_bytes: size(self.string_bytes),
            list_items: size(self.list_items),
            module_bytes: size(self.module_bytes),
            compile_ms: Some(self.compile_ms),
            compile_memory_bytes: Some(self.compile_memory_bytes),
        };
        named.given()
    }

    pub fn call(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }
}
