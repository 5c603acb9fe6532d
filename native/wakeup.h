// One eventfd watched by the environment's event loop: how a completion reaches JavaScript that is not looking.
//
// Written by the kernel's ring (IORING_REGISTER_EVENTFD) and by pool threads. Guarantees: `ready` runs on the environment's thread, never after Stop.
// The descriptor outlives the watching: a pool thread may still be about to write when the ring is closed, and a number that was closed and reused by
// then would be written into somebody else's file. So it is closed by the destructor, when the last thread let go.
#pragma once
#include "libuv.h"

class Wakeup {
 public:
  ~Wakeup();
  // 0 or -errno.
  int Open();
  // Starts unreferenced: watching alone keeps no process alive. 0 or -errno.
  int Watch(uv_loop_s* loop, void (*ready)(void*), void* context);
  // `stopped(context)` runs from the loop once libuv let go of the handle. Without a Watch before, at once.
  void Stop(void (*stopped)(void*), void* context);
  void Ref();
  void Unref();
  int fd() const { return fd_; }
  // From any thread.
  void Signal();
  // Takes all signals so far.
  void Drain();

 private:
  struct Watching;
  int fd_ = -1;
  Watching* watching_ = nullptr;
};
