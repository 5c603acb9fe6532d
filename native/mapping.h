// The arena: one reservation of address space for every mapping of a file, cut into cells of 2 MiB.
//
//   base
//   | cell 0 | cell 1 | cell 2 | cell 3 | …      reserved once, PROT_NONE
//   [ segment of a file: 5 MiB      |··]        mapped over its cells; the rest of the last one stays PROT_NONE
//
// Guarantees: an address in the arena is never given to anybody else. Memory behind an ArrayBuffer is a file's bytes or zero pages until the buffer was collected,
// and only then are its cells handed out again. Safe for several environments at once.
// Leaves to others: which part of a file to map (src/memory/mapping.ts), and what to do about a fault.
#pragma once
#include <cstddef>

constexpr size_t kCellBytes = size_t{2} << 20;
constexpr size_t kArenaCellsMax = (size_t{4} << 40) / kCellBytes;

struct Arena {
  unsigned char* base;
  size_t cells;
};

// The one arena of the process, reserved when first asked for. Without cells where the kernel grants no address space.
const Arena& TheArena();
