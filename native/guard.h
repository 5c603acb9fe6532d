// The guard: a SIGBUS inside one of our mappings costs the bytes, never the process.
//
// A touch of a page that can no longer be had (the file was made shorter, its device fails, a disk is full under a hole) is SIGBUS. The handler finds the cell by
// shifting the address, says in the cell's word why, and puts zero pages under it; the access goes on and reads zeros.
//
//   state of a cell    nothing of a file  ->  of a segment  ->  being repaired (by one handler)  ->  of a segment | nothing of a file
//                             any of them  ->  being re-pointed (by the segment's owner)          ->  of a segment | nothing of a file
//
// Guarantees: the handler takes no lock and uses no thread-local storage. One handler repairs a cell at a time. Whoever re-points a cell waits until every handler
// that may have seen its old state has left, so no handler ever maps zero pages over what was mapped later. Signals that are not ours reach whoever was there before.
// One handler in a process, also with several copies of this library in it.
// Leaves to others: what a word means (src/memory/validity.ts), telling JavaScript (whoever polls GuardEventFd), mapping files again (mapping.cc).
#pragma once
#include <cstddef>
#include <cstdint>

// What a handler has to know of a segment. Unchanged, and its descriptor open, for as long as a cell is its own.
struct GuardedSegment {
  unsigned char* start;
  size_t bytes;
  // Where in the file `start` is.
  int64_t position;
  // To ask the size of; a failure to ask counts as a page that could not be read.
  int fd;
  bool device;
};

// Installs the handler, or installs it again if somebody replaced it; they are next in the chain then. From any thread, at any time.
// 0, 1 if it had to be installed again, or -errno.
int GuardArm();

// Readable after every repair; one for this copy of the library, non-blocking, never closed. -errno if there is none. Nothing depends on anybody reading it.
int GuardEventFd();

// Cells of this copy of the library that were repaired so far.
uint64_t GuardFaults();

// The process may have no more mappings: gives some back that were kept for this moment, so that an mmap that leaves fewer of them is not refused. False if they are used up;
// GuardArm makes them anew. Safe in a signal handler.
bool GuardMakeRoom();

// The cells are about to be re-pointed: on return no handler looks at them or maps anything over them, until GuardEnd.
void GuardBegin(size_t first, size_t count);

// They are what they are to be. `segment` null: there is nothing of a file under them.
void GuardEnd(size_t first, size_t count, const GuardedSegment* segment);
