// Memory that only this process needs: a child does not inherit it.
//
// fork(2) copies the page table of anonymous memory entry by entry, and so does whatever starts a program by it, as libuv does. V8 keeps its own heap out of that; what malloc hands out,
// and with it the memory of every typed array, is copied.
#pragma once

#include <cstddef>

// Zeroed, MADV_DONTFORK; where there is room for huge pages it begins at one, and the kernel is asked for them. nullptr with errno set.
void* MapOwn(size_t bytes);
