// Memory that only this process needs: a child does not inherit it.
//
// fork(2) copies the page table of anonymous memory entry by entry, and so does whatever starts a program by it, as libuv does. V8 keeps its own heap out of that; what malloc hands out,
// and with it the memory of every typed array, is copied.
#pragma once

#include <cstddef>

// Zeroed, MADV_DONTFORK. nullptr with errno set. Huge pages are not asked for: the kernel would look for them while JavaScript stands still, and look-ups were no faster.
void* MapOwn(size_t bytes);
