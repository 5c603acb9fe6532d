// Slabs: memory that frames are cut from. What ring.cc needs to know of one.
#pragma once
#include <napi.h>

#include <cstddef>
#include <memory>

// Where the pages of a retired slab are mapped until they are given back; nullptr where they are gone already.
struct SlabRemains {
  void* shared = nullptr;
  void* priv = nullptr;
  size_t bytes = 0;
};

// The memory itself. Shared between the JavaScript object and every ring it was added to: it is given back when the last of them is done with it,
// so an operation that outlives its environment never writes into memory that is somebody else's by then. Views of it read zeros from then on.
struct SlabMemory {
  int fd = -1;
  size_t bytes = 0;
  unsigned char* shared = nullptr;
  unsigned char* priv = nullptr;
  // The address space of both mappings, which outlives the memory for as long as JavaScript has a view of it.
  std::shared_ptr<void> space;
  // Set by Retire.
  SlabRemains remains;
  ~SlabMemory();
  // Zero pages under both mappings. The memory itself stays, for operations that are in flight over registered buffers.
  void Retire();
  // Gives pages back to the system: both mappings read zeros until they are stored into. Nothing may be in flight over them, nor may they be registered with a ring: the
  // kernel would go on with the old pages, which nobody sees. 0 or -errno.
  int Punch(size_t offset, size_t length);
  // Has the kernel put huge pages under the range (of whole ones, else nothing is done), which nothing is in flight over: one entry of the page table, one segment of a request, where there were 512. 0 or -errno;
  // whatever it says, the memory is as usable as before. Takes about as long as touching every page would.
  int MakeHuge(size_t offset, size_t length);
};

// The memory of the object that createSlab answered with; empty if it is something else.
std::shared_ptr<SlabMemory> SlabMemoryOf(Napi::Value object);
