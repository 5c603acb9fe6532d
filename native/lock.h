// Pages that reclaim may not take: mlock2 of parts of the arena, and what of it counts against the limit of the process.
//
// Guarantees: locking reads nothing and copies nothing (MLOCK_ONFAULT): plain mlock would fault each page in with write intent, which makes a copy of every page
// of a private writable mapping. Only pages in the page table are locked by it; others are when they come in, which `PopulateRead` does.
// Leaves to others: which pages are locked how often (mlock does not nest), and that a range given back was taken before.
#pragma once
#include <cstddef>
#include <cstdint>

// 0 or -errno: ENOMEM beyond RLIMIT_MEMLOCK (or beyond vm.max_map_count), EPERM where that is 0, EAGAIN.
int LockPages(unsigned char* start, size_t length);
void UnlockPages(unsigned char* start, size_t length);
// Bytes of LockPages went away with their mapping.
void LockedGone(size_t bytes);

// Brings the pages into the page table for reading, waiting for the device where one is not in memory. 0 or -errno: EFAULT where touching one would be SIGBUS.
int PopulateRead(unsigned char* start, size_t length);
