#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <node_api.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

#include "facilities.h"
#include "mapping.h"
#include "validity.h"

namespace {

constexpr uintptr_t kPage = 4096;

// States of a cell that are no segment.
constexpr uintptr_t kNothing = 0;
constexpr uintptr_t kRepairing = 1;
constexpr uintptr_t kChanging = 2;

std::atomic<uintptr_t> states[kArenaCellsMax];

// The arena, where a handler can read it: asking TheArena() may take the lock of a static's construction.
std::atomic<uintptr_t> arena_start{0};
std::atomic<size_t> arena_cells{0};

// Handlers inside, counted by thread id. Several counts rather than one: who waits must see each at 0 once, and a single one may never be 0 while many threads fault.
constexpr size_t kCounts = 64;
struct alignas(64) Count {
  std::atomic<uint32_t> inside;
  // Where one of these threads faulted last without anything of a file there.
  std::atomic<uintptr_t> retried;
};
Count counts[kCounts];

std::atomic<uint64_t> faults{0};
// -1 until made.
std::atomic<int> event_fd{-1};

static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free, "used in a signal handler");

// ---- what a handler does ------------------------------------------------------------------------------------------------------------------------

int ThisThread() { return static_cast<int>(syscall(SYS_gettid)); }

// The system call itself: tools that put themselves between a program and libc's mmap are not made for signal handlers.
bool PutZeroPages(uintptr_t start, size_t length) {
  const long mapped = syscall(SYS_mmap, start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return mapped == static_cast<long>(start);
}

// Bytes in the file now, or -1. Never waits for a server: of a file system in user space it is what the kernel was told last.
int64_t SizeOf(const GuardedSegment& segment) {
  if (segment.device) {
    uint64_t bytes = 0;
    // A device that is gone says 0: its bytes were not cut off, they cannot be read.
    return ioctl(segment.fd, BLKGETSIZE64, &bytes) == 0 && bytes > 0 ? static_cast<int64_t>(bytes) : -1;
  }
  struct statx about;
  if (syscall(SYS_statx, segment.fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &about) == 0) return static_cast<int64_t>(about.stx_size);
  struct stat plain;
  // A container that does not know statx.
  return fstat(segment.fd, &plain) == 0 ? static_cast<int64_t>(plain.st_size) : -1;
}

// Mappings kept to be given back when the process may have no more: the kernel then refuses any mmap, also one that would leave fewer. Pages that are readable and
// pages that are not take turns, so that each is a mapping of its own.
constexpr size_t kReservePages = 16;
std::atomic<uintptr_t> reserve{0};

void MakeReserve() {
  if (reserve.load(std::memory_order_relaxed) != 0) return;
  void* const made = mmap(nullptr, kReservePages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (made == MAP_FAILED) return;
  for (size_t page = 1; page < kReservePages; page += 2) mprotect(static_cast<unsigned char*>(made) + page * kPage, kPage, PROT_READ);
  madvise(made, kReservePages * kPage, MADV_DONTFORK);
  uintptr_t none = 0;
  if (!reserve.compare_exchange_strong(none, reinterpret_cast<uintptr_t>(made))) munmap(made, kReservePages * kPage);
}

// Replacing one cell may take two more mappings than the process is allowed. Replacing all of the segment takes none more.
bool GiveUpSegment(const GuardedSegment& segment, size_t arena_first) {
  const size_t cells = (segment.bytes + kCellBytes - 1) / kCellBytes;
  for (size_t cell = arena_first; cell < arena_first + cells; cell++) {
    MarkCell(cell, kCauseFault);
    uintptr_t own = reinterpret_cast<uintptr_t>(&segment);
    // A cell that somebody else is at work on is theirs to leave in a state: their mapping comes after this one.
    states[cell].compare_exchange_strong(own, kNothing);
  }
  const uintptr_t start = reinterpret_cast<uintptr_t>(segment.start);
  return PutZeroPages(start, segment.bytes) || (GuardMakeRoom() && PutZeroPages(start, segment.bytes));
}

// Puts zero pages under what is gone of a cell. True if the access can go on; `next` is the cell's state then.
bool Replace(const GuardedSegment& segment, size_t cell, uintptr_t cell_start, uintptr_t page, uintptr_t& next) {
  const uintptr_t start = reinterpret_cast<uintptr_t>(segment.start);
  uintptr_t begin = std::max(cell_start, start);
  const uintptr_t end = std::min(cell_start + kCellBytes, start + segment.bytes);
  const int64_t size = SizeOf(segment);
  int32_t word = kCauseFault;
  next = kNothing;
  if (size >= 0 && segment.position + static_cast<int64_t>(page - start) >= size) {
    // The first page without a byte of the file: the one that the end lies in stays.
    const int64_t first_gone = (size + static_cast<int64_t>(kPage) - 1) & ~static_cast<int64_t>(kPage - 1);
    if (first_gone > segment.position) begin = std::max(begin, start + static_cast<uintptr_t>(first_gone - segment.position));
    word = kCauseTruncate | static_cast<int32_t>((begin - cell_start) / kPage) << kWordPageShift;
    if (begin > cell_start) next = reinterpret_cast<uintptr_t>(&segment);
  }
  // Before the bytes change: who reads zeros and asks then, learns why.
  MarkCell(cell, word);
  if (PutZeroPages(begin, end - begin)) return true;
  next = kNothing;
  return GiveUpSegment(segment, (start - arena_start.load(std::memory_order_relaxed)) / kCellBytes);
}

void Tell() {
  faults.fetch_add(1);
  const int fd = event_fd.load(std::memory_order_relaxed);
  const uint64_t one = 1;
  // Full means that it was not read for long, and is readable.
  if (fd >= 0 && write(fd, &one, sizeof one) < 0) return;
}

enum class Outcome { kRepaired, kRetry, kHopeless };

Outcome RepairCell(size_t cell, uintptr_t address, int code, Count& count) {
  const uintptr_t cell_start = arena_start.load(std::memory_order_relaxed) + cell * kCellBytes;
  const uintptr_t page = address & ~(kPage - 1);
  uintptr_t seen = states[cell].load();
  if (code == BUS_MCEERR_AO) {
    // Memory that failed, and that nobody touched yet: a later touch faults by itself.
    if (seen > kChanging) {
      MarkCell(cell, kCauseFault);
      Tell();
    }
    return Outcome::kRepaired;
  }
  if (seen == kRepairing || seen == kChanging) return Outcome::kRetry;
  if (seen == kNothing && count.retried.exchange(page) != page) {
    // It was a segment's when the access faulted, and is zero pages by now.
    return Outcome::kRetry;
  }
  if (!states[cell].compare_exchange_strong(seen, kRepairing)) return Outcome::kRetry;
  uintptr_t next = kNothing;
  // With nothing of a file there it was the memory itself that failed.
  const bool done = seen == kNothing ? PutZeroPages(page, kPage) : Replace(*reinterpret_cast<const GuardedSegment*>(seen), cell, cell_start, page, next);
  uintptr_t own = kRepairing;
  // Unless the owner waits for us to re-point it.
  states[cell].compare_exchange_strong(own, next);
  if (!done) return Outcome::kHopeless;
  Tell();
  return Outcome::kRepaired;
}

// 1 if the fault was in this copy's arena and the access can go on.
int Repair(siginfo_t* info) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  const uintptr_t start = arena_start.load(std::memory_order_acquire);
  if (start == 0 || address < start) return 0;
  const size_t cell = (address - start) / kCellBytes;
  if (cell >= arena_cells.load(std::memory_order_relaxed)) return 0;
  Count& count = counts[static_cast<size_t>(ThisThread()) % kCounts];
  count.inside.fetch_add(1);
  const Outcome outcome = RepairCell(cell, address, info->si_code, count);
  count.inside.fetch_sub(1);
  if (outcome == Outcome::kRetry) {
    // Somebody else is at it: let them, rather than fault in a circle.
    const struct timespec moment = {0, 10000};
    nanosleep(&moment, nullptr);
  }
  return outcome == Outcome::kHopeless ? 0 : 1;
}

// ---- one handler in a process -------------------------------------------------------------------------------------------------------------------

constexpr size_t kCopiesMax = 64;

}  // namespace

// Shared by all copies of this library in the process: an inline variable of default visibility is a unique symbol (STB_GNU_UNIQUE), which glibc's loader binds to
// one definition, also for copies that were loaded apart. The layout is plain and carries its version in the name. Where the loader knows no unique symbols each copy
// installs a handler of its own, and they are each other's chain. (Promoting this library to the global scope instead needs dlopen, whose symbol would tie it to a new glibc.)
struct __attribute__((visibility("default"))) SectorwiseGuardV1 {
  // Of the copy that installs the handler: the first.
  std::atomic<int (*)()> arm;
  std::atomic<uint32_t> copies;
  std::atomic<int (*)(siginfo_t*)> repair[kCopiesMax];
};
__attribute__((visibility("default"))) inline SectorwiseGuardV1 sectorwise_guard_v1 = {};

namespace {

// Who was there before us; the last in `previous` that was written. Enough of them that one is not written again while a handler copies it.
constexpr size_t kPreviousMax = 64;
struct sigaction previous[kPreviousMax];
// 0 is always the default action.
std::atomic<size_t> chained{0};
std::mutex arming;
size_t previous_used = 0;

bool IsSpecial(const struct sigaction& action, void (*special)(int)) { return (action.sa_flags & SA_SIGINFO) == 0 && action.sa_handler == special; }

// Threads in a handler that we called. Who saved us and calls us back must not be called again.
struct Calling {
  std::atomic<int> thread;
  const void* info;
  const void* frame;
};
Calling calling[64];

// The entry of this thread, or null if all are taken. `again`: this call came out of a handler that we called for the same signal.
Calling* Enter(int thread, const siginfo_t* info, const void* frame, bool& again) {
  again = false;
  for (Calling& each : calling) {
    if (each.thread.load(std::memory_order_relaxed) != thread) continue;
    // The stack grows downwards, and the siginfo of a call from within is older than the frame that we called from. An entry that a handler left by longjmp is no call.
    again = frame < each.frame && (info == each.info || static_cast<const void*>(info) > each.frame);
    if (again) return &each;
    each.info = info;
    each.frame = frame;
    return &each;
  }
  for (Calling& each : calling) {
    int nobody = 0;
    if (!each.thread.compare_exchange_strong(nobody, thread)) continue;
    each.info = info;
    each.frame = frame;
    return &each;
  }
  return nullptr;
}

// As if we had never been there: with the right signal, at the right instruction.
void Die(int signal, bool fault) {
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(signal, &standard, nullptr);
  // The access that faulted faults again. A signal that was sent comes again, when this handler has returned.
  if (!fault) syscall(SYS_tgkill, getpid(), ThisThread(), signal);
}

// Never inlined: its frame stands for the call.
__attribute__((noinline)) void Chain(int signal, siginfo_t* info, void* context) {
  const bool fault = info->si_code > 0 && info->si_code != BUS_MCEERR_AO;
  const size_t slot = chained.load(std::memory_order_acquire);
  const struct sigaction action = previous[slot];
  const void* const frame = __builtin_frame_address(0);
  bool again = false;
  Calling* const entry = Enter(ThisThread(), info, frame, again);
  if (again) {
    Die(signal, fault);
    return;
  }
  if (IsSpecial(action, SIG_DFL) || IsSpecial(action, SIG_IGN)) {
    // The kernel does not let a fault be ignored either.
    if (fault || IsSpecial(action, SIG_DFL)) Die(signal, fault);
  } else {
    if ((action.sa_flags & SA_RESETHAND) != 0) {
      size_t own = slot;
      chained.compare_exchange_strong(own, 0);
    }
    // With the signals blocked that they asked for. libuv's handler takes a lock and must not be interrupted by another of its own. The kernel's mask is 64 bits.
    uint64_t blocked = 0;
    uint64_t asked = 0;
    memcpy(&blocked, &static_cast<const ucontext_t*>(context)->uc_sigmask, sizeof blocked);
    memcpy(&asked, &action.sa_mask, sizeof asked);
    blocked |= asked;
    if ((action.sa_flags & SA_NODEFER) == 0) blocked |= uint64_t{1} << (signal - 1);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, nullptr, sizeof blocked);
    if ((action.sa_flags & SA_SIGINFO) != 0) action.sa_sigaction(signal, info, context);
    else action.sa_handler(signal);
  }
  if (entry != nullptr) entry->thread.store(0, std::memory_order_release);
}

void Handle(int signal, siginfo_t* info, void* context) {
  const int saved = errno;
  bool repaired = false;
  if (info->si_code == BUS_ADRERR || info->si_code == BUS_MCEERR_AR || info->si_code == BUS_MCEERR_AO) {
    const size_t copies = std::min<size_t>(sectorwise_guard_v1.copies.load(std::memory_order_acquire), kCopiesMax);
    for (size_t copy = 0; copy < copies && !repaired; copy++) {
      int (*const repair)(siginfo_t*) = sectorwise_guard_v1.repair[copy].load(std::memory_order_acquire);
      repaired = repair != nullptr && repair(info) != 0;
    }
  }
  if (!repaired) Chain(signal, info, context);
  errno = saved;
}

bool IsOurs(const struct sigaction& action) { return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == Handle; }

bool Same(const struct sigaction& one, const struct sigaction& other) {
  const bool same_handler = (one.sa_flags & SA_SIGINFO) != 0 ? one.sa_sigaction == other.sa_sigaction : one.sa_handler == other.sa_handler;
  return same_handler && one.sa_flags == other.sa_flags && memcmp(&one.sa_mask, &other.sa_mask, sizeof(uint64_t)) == 0;
}

void Remember(const struct sigaction& action) {
  if (IsSpecial(action, SIG_DFL)) {
    chained.store(0, std::memory_order_release);
    return;
  }
  const size_t now = chained.load(std::memory_order_relaxed);
  if (now != 0 && Same(previous[now], action)) return;
  previous_used = previous_used % (kPreviousMax - 1) + 1;
  previous[previous_used] = action;
  chained.store(previous_used, std::memory_order_release);
}

// Of the copy that installs: see GuardArm.
int Arm() {
  struct sigaction current;
  if (sigaction(SIGBUS, nullptr, &current) != 0) return -errno;
  if (IsOurs(current)) return 0;
  std::lock_guard<std::mutex> hold(arming);
  static bool armed_before = false;
  if (sigaction(SIGBUS, nullptr, &current) != 0) return -errno;
  if (IsOurs(current)) return 0;
  struct sigaction ours = {};
  ours.sa_sigaction = Handle;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  // No other handler runs while this one is inside: one that never returns would make re-pointing wait for ever.
  sigfillset(&ours.sa_mask);
  // Remembered first: from the moment ours is there it may have to chain.
  Remember(current);
  struct sigaction replaced;
  if (sigaction(SIGBUS, &ours, &replaced) != 0) return -errno;
  if (!IsOurs(replaced) && !Same(replaced, current)) Remember(replaced);
  const bool again = armed_before;
  armed_before = true;
  return again ? 1 : 0;
}

// Once for each copy: its arena, its event, its place in the record.
bool Join() {
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  event_fd.store(fd < 0 ? -errno : fd);
  const Arena& arena = TheArena();
  arena_cells.store(arena.cells, std::memory_order_relaxed);
  arena_start.store(reinterpret_cast<uintptr_t>(arena.base), std::memory_order_release);
  int (*nobody)() = nullptr;
  sectorwise_guard_v1.arm.compare_exchange_strong(nobody, Arm);
  uint32_t copies = sectorwise_guard_v1.copies.load();
  do {
    if (copies >= kCopiesMax) return false;
  } while (!sectorwise_guard_v1.copies.compare_exchange_weak(copies, copies + 1));
  sectorwise_guard_v1.repair[copies].store(Repair, std::memory_order_release);
  return true;
}

bool Joined() {
  static const bool joined = Join();
  return joined;
}

napi_value GuardArmCall(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  uint64_t blocked = 0;
  // The kernel ends a thread that faults with the signal blocked, whoever wanted to handle it.
  const bool refused = syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, &blocked, sizeof blocked) == 0 && (blocked >> (SIGBUS - 1) & 1) != 0;
  napi_create_int32(env, refused ? -EPERM : GuardArm(), &result);
  return result;
}

napi_value GuardFaultsCall(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_create_double(env, static_cast<double>(GuardFaults()), &result);
  return result;
}

}  // namespace

int GuardArm() {
  if (!Joined()) return -ENOSPC;
  MakeReserve();
  return sectorwise_guard_v1.arm.load()();
}

int GuardEventFd() {
  Joined();
  return event_fd.load();
}

bool GuardMakeRoom() {
  const uintptr_t kept = reserve.exchange(0);
  return kept != 0 && syscall(SYS_munmap, kept, kReservePages * kPage) == 0;
}

uint64_t GuardFaults() { return faults.load(std::memory_order_relaxed); }

void GuardBegin(size_t first, size_t count) {
  for (size_t cell = first; cell < first + count; cell++) states[cell].store(kChanging);
  // A handler that counts itself in from here on sees that. Those inside now may have seen a segment: each must be seen out once.
  for (Count& each : counts) {
    // Not by spinning alone: the thread that is inside may need this processor.
    for (int round = 0; each.inside.load() != 0; round++) {
      if (round < 64) {
        syscall(SYS_sched_yield);
        continue;
      }
      const struct timespec moment = {0, 50000};
      nanosleep(&moment, nullptr);
    }
  }
}

void GuardEnd(size_t first, size_t count, const GuardedSegment* segment) {
  for (size_t cell = first; cell < first + count; cell++) states[cell].store(reinterpret_cast<uintptr_t>(segment));
}

void InitGuard(Napi::Env env, Napi::Object exports) {
  const napi_property_descriptor functions[] = {
      {"guardArm", nullptr, GuardArmCall, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"guardFaults", nullptr, GuardFaultsCall, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
