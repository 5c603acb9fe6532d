// The ring of one opened file: entries that TypeScript writes, checked here and handed to the kernel's ring or to the pool of threads.
//
//   memory, one mapping of our own, refcounted (JavaScript's ArrayBuffers hold it too):
//   [ control | queue: tail … completions … | entries ]
//
//   Ring            what JavaScript's methods reach; the environment holds it until close()
//     └ RingCore    what pool threads reach: the memory, our queue, the wake-up, files and slabs; lives until the last job let go
//
// Guarantees: an entry names nothing that was not registered, so no entry can touch other memory or files; each entry of an accepted submission
// completes exactly once; memory under DMA is never given to anybody else, whatever ends first: ring, worker or process.
// Leaves to others: how many entries are in flight (the caller keeps to the depth), and what the bytes mean.
#pragma once

// The words and codes of src/io/engine.ts.
constexpr unsigned ENTRY_WORDS = 8;
constexpr unsigned ENTRY_OPERATION = 0;
constexpr unsigned ENTRY_FILE = 1;
constexpr unsigned ENTRY_SLAB = 2;
constexpr unsigned ENTRY_SLAB_OFFSET = 3;
constexpr unsigned ENTRY_LENGTH = 4;
constexpr unsigned ENTRY_POSITION_LOW = 5;
constexpr unsigned ENTRY_POSITION_HIGH = 6;
constexpr unsigned ENTRY_HANDLE = 7;

constexpr unsigned OP_READ = 1;
constexpr unsigned OP_WRITE = 2;
constexpr unsigned OP_SYNC = 3;
constexpr unsigned OP_TRUNCATE = 4;
constexpr unsigned OP_ALLOCATE = 5;
constexpr unsigned OP_DISCARD = 6;
constexpr unsigned OP_EVICT = 7;
constexpr unsigned OP_FILL = 8;
constexpr unsigned FLAG_ASYNC = 1u << 8;
constexpr unsigned FLAG_DURABLE = 1u << 9;

constexpr unsigned CONTROL_ARMED = 0;
constexpr unsigned COMPLETION_WORDS = 4;
