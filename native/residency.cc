#include "residency.h"

#include <errno.h>
#include <fcntl.h>
#include <node_api.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "facilities.h"

namespace {

// linux/fs.h since 6.7, under names of our own: the headers to build with may be older, or newer.
struct ScannedRegion {
  uint64_t start;
  uint64_t end;
  uint64_t categories;
};

struct ScanArguments {
  uint64_t size;
  uint64_t flags;
  uint64_t start;
  uint64_t end;
  uint64_t walk_end;
  uint64_t vec;
  uint64_t vec_len;
  uint64_t max_pages;
  uint64_t category_inverted;
  uint64_t category_mask;
  uint64_t category_anyof_mask;
  uint64_t return_mask;
};

constexpr uint64_t kFile = 1 << 2;
constexpr uint64_t kPresent = 1 << 3;
constexpr uint64_t kSwapped = 1 << 4;
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanArguments);

// MADV_DONTNEED for mappings that are locked into memory (Linux 5.18).
constexpr int kDontNeedLocked = 24;

// Regions taken from one call: the kernel allocates a buffer for as many, so few, and scribbles are rare.
constexpr size_t kRegions = 16;

constexpr size_t kPage = 4096;

std::atomic<int> pagemap_fd{-1};

// The page table of this process. Opened once; -errno where it is refused (a process that changed its user is not "dumpable" and gets EACCES).
int Pagemap() {
  int fd = pagemap_fd.load(std::memory_order_acquire);
  if (fd >= 0) return fd;
  fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int nobodys = -1;
  if (pagemap_fd.compare_exchange_strong(nobodys, fd)) return fd;
  close(fd);
  return nobodys;
}

void Drop(uint64_t start, uint64_t end) {
  void* const pages = reinterpret_cast<void*>(start);
  if (madvise(pages, end - start, MADV_DONTNEED) != 0 && errno == EINVAL) madvise(pages, end - start, kDontNeedLocked);
}

// Regions found, or -errno. `arguments.start` moves on to where the next call has to begin.
int64_t ScanOn(int fd, ScanArguments& arguments) {
  const int found = ioctl(fd, kPagemapScan, &arguments);
  if (found < 0) return -errno;
  arguments.start = arguments.walk_end;
  return found;
}

ScanArguments Scan(unsigned char* start, size_t length, ScannedRegion* regions, size_t count) {
  ScanArguments arguments = {};
  arguments.size = sizeof arguments;
  arguments.start = reinterpret_cast<uint64_t>(start);
  arguments.end = arguments.start + length;
  arguments.vec = reinterpret_cast<uint64_t>(regions);
  arguments.vec_len = count;
  return arguments;
}

napi_value Number(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

napi_value PageSize(napi_env env, napi_callback_info) { return Number(env, sysconf(_SC_PAGESIZE)); }

// Asked by doing it, on a page of this stack: seccomp, an old kernel and a lost right all look different in a version number, and alike here.
napi_value PagemapScanWorks(napi_env env, napi_callback_info) {
  alignas(kPage) unsigned char page[kPage];
  const int64_t first = FirstMissing(page, kPage, false);
  return Number(env, first < -1 ? first + 1 : 0);
}

napi_value Cachestat(napi_env env, napi_callback_info info) {
  size_t argc = 4;
  napi_value argv[4];
  napi_get_cb_info(env, info, &argc, argv, nullptr, nullptr);
  int32_t fd = -1;
  int64_t offset = 0;
  int64_t length = 0;
  napi_get_value_int32(env, argv[0], &fd);
  napi_get_value_int64(env, argv[1], &offset);
  napi_get_value_int64(env, argv[2], &length);
  napi_typedarray_type type;
  size_t room = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, argv[3], &type, &room, &data, nullptr, nullptr) != napi_ok) return Number(env, -EINVAL);
  if (type != napi_float64_array || room < 5) return Number(env, -EINVAL);
  // linux/mman.h: struct cachestat_range, struct cachestat; 451 on every architecture.
  uint64_t range[2] = {static_cast<uint64_t>(offset), static_cast<uint64_t>(length)};
  uint64_t counts[5] = {};
  if (syscall(451, fd, range, counts, 0) != 0) return Number(env, -errno);
  for (int index = 0; index < 5; index++) static_cast<double*>(data)[index] = static_cast<double>(counts[index]);
  return Number(env, 0);
}

// Pages of [offset, offset+length) that mincore calls resident, through a mapping for the moment: the standing one may not reach there. Offset is a multiple of the
// page size. Only for those whom mincore tells the truth.
int64_t CountResident(int fd, int64_t offset, size_t length) {
  void* const mapped = mmap(nullptr, length, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, offset);
  if (mapped == MAP_FAILED) return -errno;
  unsigned char* const start = static_cast<unsigned char*>(mapped);
  unsigned char pages[1024];
  int64_t resident = 0;
  for (size_t at = 0; at < length && resident >= 0; at += sizeof pages * kPage) {
    const size_t bytes = std::min(length - at, sizeof pages * kPage);
    if (mincore(start + at, bytes, pages) != 0) {
      resident = -errno;
      break;
    }
    for (size_t page = 0; page < (bytes + kPage - 1) / kPage; page++) resident += pages[page] & 1;
  }
  munmap(mapped, length);
  return resident;
}

napi_value CountResidentPages(napi_env env, napi_callback_info info) {
  size_t argc = 3;
  napi_value argv[3];
  napi_get_cb_info(env, info, &argc, argv, nullptr, nullptr);
  int32_t fd = -1;
  int64_t offset = -1;
  int64_t length = -1;
  napi_get_value_int32(env, argv[0], &fd);
  napi_get_value_int64(env, argv[1], &offset);
  napi_get_value_int64(env, argv[2], &length);
  if (offset < 0 || length <= 0 || offset % static_cast<int64_t>(kPage) != 0) return Number(env, -EINVAL);
  return Number(env, CountResident(fd, offset, static_cast<size_t>(length)));
}

napi_value ProbeNowait(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2];
  napi_get_cb_info(env, info, &argc, argv, nullptr, nullptr);
  int32_t fd = -1;
  int64_t offset = 0;
  napi_get_value_int32(env, argv[0], &fd);
  napi_get_value_int64(env, argv[1], &offset);
  char byte;
  struct iovec vector = {&byte, 1};
  const ssize_t count = preadv2(fd, &vector, 1, offset, RWF_NOWAIT);
  return Number(env, count < 0 ? -errno : count);
}

}  // namespace

int64_t DropScribbled(unsigned char* start, size_t length) {
  ScannedRegion regions[kRegions];
  ScanArguments arguments = Scan(start, length, regions, kRegions);
  // Anonymous, whether in memory or swapped out. Nothing is asked back, so neighbours come as one region.
  arguments.category_inverted = kFile;
  arguments.category_mask = kFile;
  arguments.category_anyof_mask = kPresent | kSwapped;
  const int fd = Pagemap();
  int64_t pages = 0;
  do {
    const int64_t found = fd < 0 ? fd : ScanOn(fd, arguments);
    if (found < 0) {
      Drop(reinterpret_cast<uint64_t>(start), arguments.end);
      return 0;
    }
    for (int64_t index = 0; index < found; index++) {
      pages += static_cast<int64_t>((regions[index].end - regions[index].start) / kPage);
      Drop(regions[index].start, regions[index].end);
    }
  } while (arguments.start < arguments.end);
  return pages;
}

int64_t FirstMissing(unsigned char* start, size_t length, bool repair) {
  ScannedRegion regions[kRegions];
  // One region answers the question; the others matter only if there may be something to repair behind it.
  ScanArguments arguments = Scan(start, length, regions, repair ? kRegions : 1);
  // Any of: not present, not the file's.
  arguments.category_inverted = kPresent | kFile;
  arguments.category_anyof_mask = kPresent | kFile;
  arguments.return_mask = kPresent | kSwapped;
  const int fd = Pagemap();
  int64_t first = -1;
  do {
    const int64_t found = fd < 0 ? fd : ScanOn(fd, arguments);
    if (found < 0) {
      if (repair) Drop(reinterpret_cast<uint64_t>(start), arguments.end);
      return found - 1;
    }
    if (found > 0 && first < 0) first = static_cast<int64_t>(regions[0].start - reinterpret_cast<uint64_t>(start));
    if (!repair) return first;
    for (int64_t index = 0; index < found; index++) {
      if (regions[index].categories != kPresent && regions[index].categories != kSwapped) continue;
      Drop(regions[index].start, regions[index].end);
    }
  } while (arguments.start < arguments.end);
  return first;
}

int64_t CountPresent(unsigned char* start, size_t length) {
  ScannedRegion regions[kRegions];
  ScanArguments arguments = Scan(start, length, regions, kRegions);
  arguments.category_mask = kPresent;
  const int fd = Pagemap();
  int64_t pages = 0;
  do {
    const int64_t found = fd < 0 ? fd : ScanOn(fd, arguments);
    if (found < 0) return found;
    for (int64_t index = 0; index < found; index++) pages += static_cast<int64_t>((regions[index].end - regions[index].start) / kPage);
  } while (arguments.start < arguments.end);
  return pages;
}

void InitResidency(Napi::Env env, Napi::Object exports) {
  const napi_property_descriptor functions[] = {
      {"pageSize", nullptr, PageSize, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"pagemapScan", nullptr, PagemapScanWorks, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"countResident", nullptr, CountResidentPages, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"cachestat", nullptr, Cachestat, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"probeNowait", nullptr, ProbeNowait, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
