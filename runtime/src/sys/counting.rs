//! Counts what tests allocate, thread by thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Bytes held now, and the most since [`peak_from_here`]. Negative in a thread that frees what others made.
    static LIVE: Cell<[isize; 2]> = const { Cell::new([0; 2]) };
}

fn count(grown: usize, freed: usize) {
    // A thread that ends has no count any more.
    let _ = COUNT.try_with(|n| n.set(n.get() + usize::from(grown > 0)));
    let _ = LIVE.try_with(|live| {
        let [now, most] = live.get();
        let now = now.saturating_add_unsigned(grown).saturating_sub_unsigned(freed);
        live.set([now, most.max(now)]);
    });
}

// SAFETY: everything is the system allocator's, which keeps the contract; counting allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of this thread, so far.
pub(crate) fn allocations() -> usize {
    COUNT.with(Cell::get)
}

/// Bytes this thread holds.
pub(crate) fn held() -> isize {
    LIVE.with(|live| live.get()[0])
}

/// From now on [`peak`] counts what is held beyond what is held now.
pub(crate) fn peak_from_here() -> isize {
    LIVE.with(|live| live.set([live.get()[0]; 2]));
    held()
}

/// The most this thread held at once since [`peak_from_here`].
pub(crate) fn peak() -> isize {
    LIVE.with(|live| live.get()[1])
}
