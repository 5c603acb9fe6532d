// See lock.h.
#include "lock.h"

#include <errno.h>
#include <linux/capability.h>
#include <node_api.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>

#include "facilities.h"

namespace {

// asm-generic/mman.h: MLOCK_ONFAULT (Linux 4.4), MADV_POPULATE_READ (5.14).
constexpr unsigned kLockOnFault = 1;
constexpr int kPopulateRead = 22;
// linux/capability.h: CAP_IPC_LOCK.
constexpr unsigned kIpcLock = 14;
constexpr size_t kPage = 4096;

// Of this library, all threads of the process.
std::atomic<int64_t> locked_bytes{0};

// Before Linux 5.14: the kernel reads a byte of each page for us, and answers EFAULT where a touch would be SIGBUS.
int PeekPages(unsigned char* start, size_t length) {
  constexpr size_t kAtOnce = 64;
  char bytes[kAtOnce];
  struct iovec pages[kAtOnce];
  for (size_t at = 0; at < length;) {
    size_t count = 0;
    for (; count < kAtOnce && at < length; count++, at += kPage) pages[count] = {start + at, 1};
    struct iovec into = {bytes, count};
    const ssize_t read = process_vm_readv(getpid(), &into, 1, pages, count, 0);
    if (read < 0) return -errno;
    if (static_cast<size_t>(read) < count) return -EFAULT;
  }
  return 0;
}

bool MayLockAll() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & 1u << kIpcLock) != 0;
}

napi_value Double(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

// { limit, locked }: bytes that the process may lock (Infinity for none or CAP_IPC_LOCK), and that this library has locked.
napi_value MemoryLocks(napi_env env, napi_callback_info) {
  struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool unlimited = limit.rlim_cur == RLIM_INFINITY || MayLockAll();
  napi_value result = nullptr;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "limit", Double(env, unlimited ? __builtin_inf() : static_cast<double>(limit.rlim_cur)));
  napi_set_named_property(env, result, "locked", Double(env, static_cast<double>(locked_bytes.load(std::memory_order_relaxed))));
  return result;
}

}  // namespace

int LockPages(unsigned char* start, size_t length) {
  if (syscall(SYS_mlock2, start, length, kLockOnFault) != 0) {
    const int refused = -errno;
    // It may have locked a part.
    munlock(start, length);
    return refused;
  }
  locked_bytes.fetch_add(static_cast<int64_t>(length), std::memory_order_relaxed);
  return 0;
}

void UnlockPages(unsigned char* start, size_t length) {
  munlock(start, length);
  LockedGone(length);
}

void LockedGone(size_t bytes) { locked_bytes.fetch_sub(static_cast<int64_t>(bytes), std::memory_order_relaxed); }

int PopulateRead(unsigned char* start, size_t length) {
  if (madvise(start, length, kPopulateRead) == 0) return 0;
  return errno == EINVAL ? PeekPages(start, length) : -errno;
}

void InitLock(Napi::Env env, Napi::Object exports) {
  const napi_property_descriptor function = {"memoryLocks", nullptr, MemoryLocks, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, exports, 1, &function);
}
