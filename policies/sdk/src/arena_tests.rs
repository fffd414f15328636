//! The arena, natively: alignment, growth in place, exhaustion.

#![allow(unsafe_code)]

use super::*;

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

#[test]
fn blocks_are_aligned_and_disjoint() {
    let arena = Box::new(Arena::new());
    let mut end = 0;
    for (size, align) in [(1, 1), (8, 8), (3, 1), (16, 16), (5, 2), (0, 4)] {
        // SAFETY: one thread.
        let ptr = unsafe { arena.alloc(layout(size, align)) } as usize;
        assert_eq!(ptr % align, 0);
        assert!(ptr >= end);
        end = ptr + size;
    }
}

#[test]
fn the_last_block_grows_where_it_is_and_another_is_copied() {
    let arena = Box::new(Arena::new());
    // SAFETY: one thread; the blocks are written within their sizes.
    unsafe {
        let first = arena.alloc(layout(4, 1));
        first.copy_from(b"abcd".as_ptr(), 4);
        assert_eq!(arena.realloc(first, layout(4, 1), 8), first);
        let second = arena.alloc(layout(4, 1));
        let moved = arena.realloc(first, layout(8, 1), 16);
        assert!(moved > second);
        assert_eq!(std::slice::from_raw_parts(moved, 4), b"abcd");
        assert_eq!(arena.realloc(second, layout(4, 1), 2), second, "shrinking never moves");
    }
}

#[test]
fn only_the_last_block_is_given_back() {
    let arena = Box::new(Arena::new());
    // SAFETY: one thread; no block is used after it is given back.
    unsafe {
        let first = arena.alloc(layout(8, 1));
        let second = arena.alloc(layout(8, 1));
        arena.dealloc(first, layout(8, 1));
        let third = arena.alloc(layout(8, 1));
        assert!(third > second);
        arena.dealloc(third, layout(8, 1));
        assert_eq!(arena.alloc(layout(8, 1)), third);
    }
}

#[test]
fn the_arena_holds_its_size_and_not_a_byte_more() {
    let arena = Box::new(Arena::new());
    // SAFETY: one thread.
    unsafe {
        assert!(arena.alloc(layout(SIZE + 1, 1)).is_null());
        let all = arena.alloc(layout(SIZE, 1));
        assert!(!all.is_null());
        assert!(arena.alloc(layout(1, 1)).is_null());
        assert!(arena.realloc(all, layout(SIZE, 1), SIZE + 1).is_null());
        assert!(arena.alloc(layout(usize::MAX / 2, 1)).is_null());
    }
}
