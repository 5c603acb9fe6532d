// See wakeup.h.
#include "wakeup.h"

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <sys/eventfd.h>
#include <unistd.h>

// The part that libuv refers to; it lives until libuv's close callback, which may be after the Wakeup is gone.
struct Wakeup::Watching {
  uv_poll_s* poll;
  Wakeup* owner;
  void (*ready)(void*);
  void* context;
  void (*stopped)(void*);
  void* stoppedContext;
  uv_handle_s* handle() { return reinterpret_cast<uv_handle_s*>(poll); }
};

Wakeup::~Wakeup() {
  if (fd_ >= 0) close(fd_);
}

int Wakeup::Open() {
  fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd_ < 0 ? -errno : 0;
}

int Wakeup::Watch(uv_loop_s* loop, void (*ready)(void*), void* context) {
  auto* poll = static_cast<uv_poll_s*>(malloc(uv_handle_size(kUvPoll)));
  if (poll == nullptr) return -ENOMEM;
  int status = uv_poll_init(loop, poll, fd_);
  if (status != 0) {
    free(poll);
    return status;
  }
  watching_ = new Watching{poll, this, ready, context, nullptr, nullptr};
  uv_handle_set_data(watching_->handle(), watching_);
  uv_unref(watching_->handle());
  return uv_poll_start(poll, kUvReadable, [](uv_poll_s* handle, int, int) {
    auto* watching = static_cast<Watching*>(uv_handle_get_data(reinterpret_cast<uv_handle_s*>(handle)));
    // libuv polls level-triggered: a signal that is not taken comes again at once.
    watching->owner->Drain();
    watching->ready(watching->context);
  });
}

void Wakeup::Stop(void (*stopped)(void*), void* context) {
  Watching* watching = watching_;
  watching_ = nullptr;
  if (watching == nullptr) {
    stopped(context);
    return;
  }
  watching->stopped = stopped;
  watching->stoppedContext = context;
  uv_poll_stop(watching->poll);
  uv_close(watching->handle(), [](uv_handle_s* handle) {
    auto* closed = static_cast<Watching*>(uv_handle_get_data(handle));
    closed->stopped(closed->stoppedContext);
    free(closed->poll);
    delete closed;
  });
}

void Wakeup::Ref() {
  if (watching_ != nullptr) uv_ref(watching_->handle());
}

void Wakeup::Unref() {
  if (watching_ != nullptr) uv_unref(watching_->handle());
}

void Wakeup::Signal() {
  const uint64_t one = 1;
  while (write(fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Wakeup::Drain() {
  uint64_t count;
  while (read(fd_, &count, sizeof count) < 0 && errno == EINTR) {
  }
}
