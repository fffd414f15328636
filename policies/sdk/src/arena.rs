//! The allocator of a policy module: a fixed arena inside its memory image.
//!
//! A sandbox lives for one decision, so nothing needs to be given back, and
//! `memory.grow` costs the host a change of page protection on the way in and
//! on the way out. The arena never grows: when it is spent, the module traps,
//! which the host counts as a denial.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;

/// Bytes of the arena. A request is a few hundred bytes and the host bounds
/// its strings; what a policy makes of it in addition is its own to count.
pub const SIZE: usize = 128 * 1024;

/// A bump allocator over [`SIZE`] bytes. [`export!`](crate::export) installs it
/// in WebAssembly only.
///
/// The cursor stands in front of the bytes, on the page that the first
/// allocation touches anyway.
#[repr(C, align(16))]
pub struct Arena {
    used: UnsafeCell<usize>,
    bytes: UnsafeCell<[u8; SIZE]>,
}

impl Arena {
    /// An empty arena; all zeros, so that it takes no room in the module.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { used: UnsafeCell::new(0), bytes: UnsafeCell::new([0; SIZE]) }
    }

    fn base(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// The start of `layout.size()` free bytes, or None when they aren't there.
    ///
    /// # Safety
    /// No two calls at the same time.
    unsafe fn take(&self, layout: Layout) -> Option<*mut u8> {
        // SAFETY: the caller promises that nobody else is here.
        let used = unsafe { &mut *self.used.get() };
        let base = self.base() as usize;
        let start = (base + *used).checked_next_multiple_of(layout.align())? - base;
        let end = start.checked_add(layout.size())?;
        if end > SIZE {
            return None;
        }
        *used = end;
        // SAFETY: start <= end <= SIZE, within `bytes`.
        Some(unsafe { self.base().add(start) })
    }

    /// Whether the block of `size` bytes at `ptr` is the last that was taken.
    ///
    /// # Safety
    /// No two calls at the same time; `ptr` came from [`Arena::take`].
    unsafe fn is_last(&self, ptr: *mut u8, size: usize) -> bool {
        // SAFETY: the caller promises that nobody else is here.
        let used = unsafe { *self.used.get() };
        ptr as usize + size == self.base() as usize + used
    }
}

// SAFETY: a policy module is WebAssembly without threads (the host switches
// them off), so there is only ever one caller. `export!` installs the arena
// for wasm32 alone; the native tests of this file keep theirs to one thread.
unsafe impl Sync for Arena {}

// SAFETY: `take` hands out disjoint, aligned ranges of `bytes`; a range is used
// again only after it was given back, and then only if nothing lies behind it.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, see `Sync`.
        match unsafe { self.take(layout) } {
            Some(ptr) => ptr,
            None => spent(),
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: one thread, see `Sync`; `ptr` is a block of ours.
        unsafe {
            if self.is_last(ptr, layout.size()) {
                *self.used.get() -= layout.size();
            }
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: one thread, see `Sync`; the last block may grow or shrink
        // where it is; another is copied into a new one, which does not
        // overlap it.
        unsafe {
            if self.is_last(ptr, layout.size()) {
                let start = ptr as usize - self.base() as usize;
                return match start.checked_add(new_size) {
                    Some(end) if end <= SIZE => {
                        *self.used.get() = end;
                        ptr
                    }
                    _ => spent(),
                };
            }
            if new_size <= layout.size() {
                return ptr;
            }
            let Ok(wanted) = Layout::from_size_align(new_size, layout.align()) else { return spent() };
            match self.take(wanted) {
                Some(new) => {
                    std::ptr::copy_nonoverlapping(ptr, new, layout.size());
                    new
                }
                None => spent(),
            }
        }
    }
}

/// Traps at once: a null pointer would lead through the standard library's
/// message for it, which needs memory and tens of kilobytes of code. A function
/// of its own, since the host knows by its name what the trap means.
#[cfg(target_arch = "wasm32")]
#[cold]
#[inline(never)]
fn spent() -> *mut u8 {
    std::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn spent() -> *mut u8 {
    std::ptr::null_mut()
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
