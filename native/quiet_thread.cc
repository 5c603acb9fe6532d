#include "quiet_thread.h"

#include <csignal>
#include <cstddef>

#include "libuv.h"

namespace {

constexpr size_t kStackBytes = 256 * 1024;

}  // namespace

int StartQuietThread(void (*entry)(void*)) {
  // Signals are for the threads that JavaScript knows of. Faults stay deliverable: a blocked one ends the process without asking the guard.
  sigset_t blocked, before;
  sigfillset(&blocked);
  sigdelset(&blocked, SIGBUS);
  sigdelset(&blocked, SIGSEGV);
  sigdelset(&blocked, SIGFPE);
  sigdelset(&blocked, SIGILL);
  // sigprocmask is per thread on Linux, and unlike pthread_sigmask has the same version in every glibc.
  sigprocmask(SIG_SETMASK, &blocked, &before);
  uv_thread_options_s options{kUvThreadHasStackSize, kStackBytes};
  unsigned long thread;
  const int status = uv_thread_create_ex(&thread, &options, entry, nullptr);
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return status;
}
