#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <node_api.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>

#include "facilities.h"
#include "guard.h"
#include "lock.h"
#include "residency.h"
#include "validity.h"
#include "watcher.h"

namespace {

constexpr size_t kArenaMin = size_t{8} << 30;
// What one ArrayBuffer takes on Node 20.
constexpr size_t kSegmentMax = size_t{4} << 30;
constexpr size_t kPage = 4096;

Arena Reserve() {
  for (size_t bytes = kArenaCellsMax * kCellBytes; bytes >= kArenaMin; bytes /= 2) {
    // One cell more than needed, so that a run that begins at a cell's alignment lies within.
    void* const found = mmap(nullptr, bytes + kCellBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) continue;
    unsigned char* const start = static_cast<unsigned char*>(found);
    const size_t before = (kCellBytes - reinterpret_cast<size_t>(start) % kCellBytes) % kCellBytes;
    if (before > 0) munmap(start, before);
    munmap(start + before + bytes, kCellBytes - before);
    return {start + before, bytes / kCellBytes};
  }
  return {nullptr, 0};
}

// Which cells are free: runs by their first cell, never touching each other.
class Cells {
 public:
  explicit Cells(size_t count) {
    if (count > 0) free_[0] = count;
  }

  // First fit. The first cell of the run, or -1.
  int64_t Take(size_t count) {
    std::lock_guard<std::mutex> hold(lock_);
    for (auto run = free_.begin(); run != free_.end(); ++run) {
      if (run->second < count) continue;
      const size_t first = run->first;
      const size_t left = run->second - count;
      free_.erase(run);
      if (left > 0) free_[first + count] = left;
      return static_cast<int64_t>(first);
    }
    return -1;
  }

  void Give(size_t first, size_t count) {
    std::lock_guard<std::mutex> hold(lock_);
    auto run = free_.emplace(first, count).first;
    const auto next = std::next(run);
    if (next != free_.end() && first + count == next->first) {
      run->second += next->second;
      free_.erase(next);
    }
    if (run == free_.begin()) return;
    const auto previous = std::prev(run);
    if (previous->first + previous->second != first) return;
    previous->second += run->second;
    free_.erase(run);
  }

 private:
  std::mutex lock_;
  std::map<size_t, size_t> free_;
};

// Never destroyed: environments may end after static destructors ran.
Cells& FreeCells() {
  static Cells* const cells = new Cells(TheArena().cells);
  return *cells;
}

// Writable, so that a stray store neither crashes nor needs a check; private, so that it stays in this process.
int MapZeroPages(unsigned char* start, size_t length) {
  void* const mapped = mmap(start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return mapped == MAP_FAILED ? -errno : 0;
}

// As MapZeroPages, or PROT_NONE, over all of a segment: that never takes more mappings, so the kernel's limit is no reason to leave a file mapped.
int Replace(unsigned char* start, size_t length, int protection) {
  for (;;) {
    void* const mapped = mmap(start, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (mapped != MAP_FAILED) return 0;
    const int refused = -errno;
    if (refused != -ENOMEM || !GuardMakeRoom()) return refused;
  }
}

int MapFile(unsigned char* start, size_t length, bool shared, int fd, int64_t position) {
  const int flags = shared ? MAP_SHARED : MAP_PRIVATE | MAP_NORESERVE;
  if (mmap(start, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, position) == MAP_FAILED) {
    const int refused = -errno;
    // Older kernels unmap what was there before they refuse: never leave a hole that somebody else's mapping could fall into.
    MapZeroPages(start, length);
    return refused;
  }
  // A fault would read the whole read-ahead window while JavaScript stands still: what is needed is read beforehand, elsewhere.
  madvise(start, length, MADV_RANDOM);
  madvise(start, length, MADV_DONTFORK);
  return 0;
}

// A part of a file in the arena. Kept by its JavaScript object and by its ArrayBuffer; the cells go back when both are gone.
struct Segment {
  unsigned char* start = nullptr;
  size_t bytes = 0;
  int64_t position = 0;
  size_t first_cell = 0;
  size_t cells = 0;
  bool shared = false;
  bool open = true;
  // Its descriptor is this segment's own: a handler may need it after the file's owner closed theirs.
  GuardedSegment guarded = {nullptr, 0, 0, -1, false};

  // 0 or -errno.
  int Own(int fd) {
    struct stat about;
    guarded = {start, bytes, position, fcntl(fd, F_DUPFD_CLOEXEC, 0), false};
    if (guarded.fd < 0 || fstat(guarded.fd, &about) != 0) return -errno;
    guarded.device = S_ISBLK(about.st_mode);
    return 0;
  }

  // Only while no handler looks at the cells. It shares the lock and the mount of the file's own, so it does not outlive `close`.
  void Disown() {
    if (guarded.fd >= 0) close(guarded.fd);
    guarded.fd = -1;
  }

  // Bytes that are locked into memory.
  size_t locked = 0;

  ~Segment() {
    LockedGone(locked);
    GuardBegin(first_cell, cells);
    // Where even that is refused, the cells are lost rather than handed out with a file still behind them.
    const int refused = Replace(start, cells * kCellBytes, PROT_NONE);
    Disown();
    GuardEnd(first_cell, cells, nullptr);
    if (refused == 0) FreeCells().Give(first_cell, cells);
  }
};

// Re-points [start, start+length) of a segment while no handler of the guard looks at its cells.
class Repointing {
 public:
  Repointing(const Segment& segment, const unsigned char* start, size_t length)
      : segment_(segment),
        begin_(static_cast<size_t>(start - segment.start)),
        end_(begin_ + length),
        first_(begin_ / kCellBytes),
        count_((end_ + kCellBytes - 1) / kCellBytes - first_) {
    GuardBegin(segment.first_cell + first_, count_);
  }

  // Zero pages are there now, and nothing of the file in cells of which that was all.
  void Zero() {
    const size_t whole_first = (begin_ + kCellBytes - 1) / kCellBytes;
    const size_t whole_past = end_ == segment_.bytes ? first_ + count_ : end_ / kCellBytes;
    File();
    if (whole_past > whole_first) GuardEnd(segment_.first_cell + whole_first, whole_past - whole_first, nullptr);
  }

  // Pages of the file are there now, at least in part.
  void File() { GuardEnd(segment_.first_cell + first_, count_, &segment_.guarded); }

 private:
  const Segment& segment_;
  const size_t begin_;
  const size_t end_;
  const size_t first_;
  const size_t count_;
};

using SegmentHold = std::shared_ptr<Segment>;

void DropHold(napi_env, void*, void* hold) { delete static_cast<SegmentHold*>(hold); }

napi_value Number(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

// One call of a method: the segment, and its first two arguments as a page range that lies within it.
struct Call {
  Segment* segment = nullptr;
  napi_value argv[3] = {};
  unsigned char* start = nullptr;
  int64_t offset = 0;
  size_t length = 0;

  bool Read(napi_env env, napi_callback_info info) {
    size_t argc = 3;
    napi_value self = nullptr;
    napi_get_cb_info(env, info, &argc, argv, &self, nullptr);
    void* hold = nullptr;
    if (napi_unwrap(env, self, &hold) != napi_ok) return false;
    segment = static_cast<SegmentHold*>(hold)->get();
    return ReadRange(env);
  }

  bool ReadRange(napi_env env) {
    int64_t begin = -1;
    int64_t count = -1;
    napi_get_value_int64(env, argv[0], &begin);
    napi_get_value_int64(env, argv[1], &count);
    const int64_t bytes = static_cast<int64_t>(segment->bytes);
    if (begin < 0 || count <= 0 || begin > bytes || count > bytes - begin) return false;
    offset = begin & ~static_cast<int64_t>(kPage - 1);
    length = static_cast<size_t>(((begin + count + kPage - 1) & ~static_cast<int64_t>(kPage - 1)) - offset);
    start = segment->start + offset;
    return true;
  }
};

// A function of its own segment, which is its data: unwrapping the object costs as much again as the rest of the call, and this is asked before every window.
napi_value SegmentScan(napi_env env, napi_callback_info info) {
  Call call;
  void* data = nullptr;
  size_t argc = 3;
  napi_get_cb_info(env, info, &argc, call.argv, nullptr, &data);
  call.segment = static_cast<SegmentHold*>(data)->get();
  if (!call.ReadRange(env)) return Number(env, -EINVAL - 1);
  if (!call.segment->open) return Number(env, -EBADF - 1);
  return Number(env, FirstMissing(call.start, call.length, !call.segment->shared));
}

napi_value SegmentMincore(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  napi_typedarray_type type;
  size_t room = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, call.argv[2], &type, &room, &data, nullptr, nullptr) != napi_ok) return Number(env, -EINVAL);
  if (type != napi_uint8_array || room < call.length / kPage) return Number(env, -EINVAL);
  return Number(env, mincore(call.start, call.length, static_cast<unsigned char*>(data)) == 0 ? 0 : -errno);
}

napi_value SegmentRepoint(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, 0);
  Repointing repointing(*call.segment, call.start, call.length);
  const int refused = MapZeroPages(call.start, call.length);
  if (refused < 0) repointing.File();
  else repointing.Zero();
  return Number(env, refused);
}

napi_value SegmentRestore(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, -EBADF);
  int32_t fd = -1;
  napi_get_value_int32(env, call.argv[2], &fd);
  Repointing repointing(*call.segment, call.start, call.length);
  const int refused = MapFile(call.start, call.length, call.segment->shared, fd, call.segment->position + call.offset);
  repointing.File();
  return Number(env, refused);
}

// Empties the page table over a range and drops what was stored into private pages; the next touch finds the file's bytes again.
napi_value SegmentDrop(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, -EBADF);
  return Number(env, madvise(call.start, call.length, MADV_DONTNEED) == 0 ? 0 : -errno);
}

// The caller keeps count: a page is locked once and unlocked once.
napi_value SegmentLock(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, -EBADF);
  const int status = LockPages(call.start, call.length);
  if (status == 0) call.segment->locked += call.length;
  return Number(env, status);
}

napi_value SegmentUnlock(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, 0);
  UnlockPages(call.start, call.length);
  call.segment->locked -= call.length;
  return Number(env, 0);
}

napi_value SegmentPopulate(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, -EBADF);
  return Number(env, PopulateRead(call.start, call.length));
}

napi_value SegmentPresent(napi_env env, napi_callback_info info) {
  Call call;
  if (!call.Read(env, info)) return Number(env, -EINVAL);
  if (!call.segment->open) return Number(env, -EBADF);
  return Number(env, CountPresent(call.start, call.length));
}

napi_value SegmentClose(napi_env env, napi_callback_info info) {
  napi_value self = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
  void* hold = nullptr;
  if (napi_unwrap(env, self, &hold) != napi_ok) return nullptr;
  Segment* const segment = static_cast<SegmentHold*>(hold)->get();
  if (!segment->open) return nullptr;
  segment->open = false;
  // Mapping anew unlocks.
  LockedGone(segment->locked);
  segment->locked = 0;
  Repointing repointing(*segment, segment->start, segment->bytes);
  const int refused = Replace(segment->start, segment->bytes, PROT_READ | PROT_WRITE);
  segment->Disown();
  if (refused < 0) repointing.File();
  else repointing.Zero();
  return nullptr;
}

// Methods of regions (MapRegion). Whoever asks checked that the range lies within the mapping; what the kernel thinks of it is the answer.
struct RegionCall {
  Segment* segment = nullptr;
  int64_t offset = 0;
  int64_t length = 0;
  int32_t argument = 0;

  // False if the range is not within the mapping, or there is none any more.
  bool Read(napi_env env, napi_callback_info info) {
    size_t argc = 3;
    napi_value self = nullptr;
    napi_value argv[3];
    napi_get_cb_info(env, info, &argc, argv, &self, nullptr);
    void* hold = nullptr;
    if (napi_unwrap(env, self, &hold) != napi_ok) return false;
    segment = static_cast<SegmentHold*>(hold)->get();
    napi_get_value_int64(env, argv[0], &offset);
    napi_get_value_int64(env, argv[1], &length);
    if (argc > 2) napi_get_value_int32(env, argv[2], &argument);
    const int64_t bytes = static_cast<int64_t>(segment->bytes);
    return segment->open && offset >= 0 && length >= 0 && offset <= bytes && length <= bytes - offset;
  }

  unsigned char* Start() const { return segment->start + offset; }
};

napi_value SegmentAdvise(napi_env env, napi_callback_info info) {
  RegionCall call;
  if (!call.Read(env, info)) return Number(env, -ENOMEM);
  return Number(env, madvise(call.Start(), static_cast<size_t>(call.length), call.argument) == 0 ? 0 : -errno);
}

napi_value SegmentSync(napi_env env, napi_callback_info info) {
  RegionCall call;
  if (!call.Read(env, info)) return Number(env, -ENOMEM);
  return Number(env, msync(call.Start(), static_cast<size_t>(call.length), call.argument) == 0 ? 0 : -errno);
}

napi_value SegmentInCore(napi_env env, napi_callback_info info) {
  RegionCall call;
  if (!call.Read(env, info)) return Number(env, -ENOMEM);
  unsigned char pages[1024];
  int64_t resident = 0;
  for (int64_t at = 0; at < call.length;) {
    const int64_t bytes = std::min(call.length - at, static_cast<int64_t>(sizeof pages * kPage));
    if (mincore(call.Start() + at, static_cast<size_t>(bytes), pages) != 0) return Number(env, -errno);
    const int64_t count = (bytes + static_cast<int64_t>(kPage) - 1) / static_cast<int64_t>(kPage);
    for (int64_t page = 0; page < count; page++) resident += pages[page] & 1;
    at += bytes;
  }
  return Number(env, resident);
}

// Methods are bound to the class by a signature: V8 refuses any other receiver, so what `napi_unwrap` finds is a segment.
napi_value ConstructSegment(napi_env env, napi_callback_info info) {
  napi_value self = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
  return self;
}

// A segment over cells of its own, nothing of a file in them yet. Null when the arena is full.
SegmentHold TakeCells(size_t bytes, int64_t position, bool shared) {
  const size_t cells = (bytes + kCellBytes - 1) / kCellBytes;
  const int64_t first = FreeCells().Take(cells);
  if (first < 0) return nullptr;
  SegmentHold segment = std::make_shared<Segment>();
  segment->start = TheArena().base + static_cast<size_t>(first) * kCellBytes;
  segment->bytes = bytes;
  segment->position = position;
  segment->first_cell = static_cast<size_t>(first);
  segment->cells = cells;
  segment->shared = shared;
  return segment;
}

// Before a file is mapped: the guard is there, and has what it must know. 0 or -errno.
int Prepare(Segment& segment, int fd) {
  // From here on somebody can fault: whoever watches is told, and keeps the guard in its place.
  static std::once_flag watched;
  std::call_once(watched, [] { WatcherAlso(GuardEventFd(), GuardArm); });
  const int refused = GuardArm();
  return refused < 0 ? refused : segment.Own(fd);
}

// The file is mapped: its cells are valid and guarded, and JavaScript has an object over its first `bytes`. Null where no ArrayBuffer can be made of them.
napi_value Publish(napi_env env, napi_ref kept, const SegmentHold& segment, size_t bytes) {
  ValidateCells(segment->first_cell, segment->cells);
  GuardEnd(segment->first_cell, segment->cells, &segment->guarded);

  napi_value buffer = nullptr;
  SegmentHold* const buffers_hold = new SegmentHold(segment);
  if (napi_create_external_arraybuffer(env, segment->start, bytes, DropHold, buffers_hold, &buffer) != napi_ok) {
    // A runtime that allows no memory but its own (Electron), or a size it does not take.
    delete buffers_hold;
    napi_value ignored = nullptr;
    napi_get_and_clear_last_exception(env, &ignored);
    return nullptr;
  }
  napi_value constructor = nullptr;
  napi_value object = nullptr;
  napi_get_reference_value(env, kept, &constructor);
  if (napi_new_instance(env, constructor, 0, nullptr, &object) != napi_ok) return nullptr;
  napi_wrap(env, object, new SegmentHold(segment), [](napi_env, void* hold, void*) { delete static_cast<SegmentHold*>(hold); }, nullptr, nullptr);
  const napi_property_descriptor properties[] = {
      {"buffer", nullptr, nullptr, nullptr, nullptr, buffer, napi_enumerable, nullptr},
      {"firstCell", nullptr, nullptr, nullptr, nullptr, Number(env, static_cast<int64_t>(segment->first_cell)), napi_enumerable, nullptr},
      {"cells", nullptr, nullptr, nullptr, nullptr, Number(env, static_cast<int64_t>(segment->cells)), napi_enumerable, nullptr},
  };
  napi_define_properties(env, object, sizeof(properties) / sizeof(properties[0]), properties);
  return object;
}

napi_value MapSegment(napi_env env, napi_callback_info info) {
  size_t argc = 4;
  napi_value argv[4];
  void* data = nullptr;
  napi_get_cb_info(env, info, &argc, argv, nullptr, &data);
  int32_t fd = -1;
  int64_t position = -1;
  int64_t length = -1;
  bool shared = false;
  napi_get_value_int32(env, argv[0], &fd);
  napi_get_value_int64(env, argv[1], &position);
  napi_get_value_int64(env, argv[2], &length);
  napi_get_value_bool(env, argv[3], &shared);
  if (length <= 0 || static_cast<size_t>(length) > kSegmentMax || length % kPage != 0 || position < 0) return Number(env, -EINVAL);

  const SegmentHold segment = TakeCells(static_cast<size_t>(length), position, shared);
  if (segment == nullptr) return Number(env, -ENOMEM);
  int refused = Prepare(*segment, fd);
  if (refused >= 0) refused = MapFile(segment->start, segment->bytes, shared, fd, position);
  if (refused < 0) return Number(env, refused);
  const napi_value object = Publish(env, static_cast<napi_ref>(data), segment, segment->bytes);
  if (object == nullptr) return Number(env, -EOPNOTSUPP);
  napi_value scan = nullptr;
  SegmentHold* const scans_hold = new SegmentHold(segment);
  if (napi_create_function(env, "scan", NAPI_AUTO_LENGTH, SegmentScan, scans_hold, &scan) != napi_ok) {
    delete scans_hold;
    return nullptr;
  }
  napi_add_finalizer(env, scan, scans_hold, [](napi_env, void* hold, void*) { delete static_cast<SegmentHold*>(hold); }, nullptr, nullptr);
  const napi_property_descriptor property = {"scan", nullptr, nullptr, nullptr, nullptr, scan, napi_enumerable, nullptr};
  napi_define_properties(env, object, 1, &property);
  return object;
}

// The kernel rounds mappings of such a file to its huge pages, over whatever lies behind in the arena, and takes no zero page under a part of one.
bool OfHugePages(int fd) {
  struct statfs about;
  return fstatfs(fd, &about) == 0 && static_cast<unsigned long>(about.f_type) == HUGETLBFS_MAGIC;
}

// Bytes of a file as somebody else's interface wants them mapped: protection and flags are mmap's, and say what happens; the buffer is as long as was asked.
napi_value MapRegion(napi_env env, napi_callback_info info) {
  size_t argc = 5;
  napi_value argv[5];
  void* data = nullptr;
  napi_get_cb_info(env, info, &argc, argv, nullptr, &data);
  int32_t fd = -1;
  int64_t position = -1;
  int64_t length = -1;
  int32_t protection = 0;
  int32_t flags = 0;
  napi_get_value_int32(env, argv[0], &fd);
  napi_get_value_int64(env, argv[1], &position);
  napi_get_value_int64(env, argv[2], &length);
  napi_get_value_int32(env, argv[3], &protection);
  napi_get_value_int32(env, argv[4], &flags);
  if (length <= 0 || position < 0 || position % kPage != 0) return Number(env, -EINVAL);
  if (static_cast<size_t>(length) > kArenaCellsMax * kCellBytes) return Number(env, -ENOMEM);
  if (OfHugePages(fd)) return Number(env, -EOPNOTSUPP);

  const SegmentHold segment = TakeCells((static_cast<size_t>(length) + kPage - 1) & ~(kPage - 1), position, (flags & MAP_TYPE) != MAP_PRIVATE);
  if (segment == nullptr) return Number(env, -ENOMEM);
  int refused = Prepare(*segment, fd);
  if (refused >= 0 && mmap(segment->start, segment->bytes, protection, flags | MAP_FIXED, fd, position) == MAP_FAILED) {
    refused = -errno;
    // As in MapFile.
    MapZeroPages(segment->start, segment->bytes);
  }
  if (refused < 0) return Number(env, refused);
  madvise(segment->start, segment->bytes, MADV_DONTFORK);
  const napi_value object = Publish(env, static_cast<napi_ref>(data), segment, static_cast<size_t>(length));
  return object == nullptr ? Number(env, -EOPNOTSUPP) : object;
}

}  // namespace

const Arena& TheArena() {
  static const Arena arena = Reserve();
  return arena;
}

void InitMapping(Napi::Env env, Napi::Object exports) {
  const napi_property_descriptor methods[] = {
      {"mincore", nullptr, SegmentMincore, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"repoint", nullptr, SegmentRepoint, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"restore", nullptr, SegmentRestore, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"drop", nullptr, SegmentDrop, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"lock", nullptr, SegmentLock, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"unlock", nullptr, SegmentUnlock, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"populate", nullptr, SegmentPopulate, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"present", nullptr, SegmentPresent, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"advise", nullptr, SegmentAdvise, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"sync", nullptr, SegmentSync, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"inCore", nullptr, SegmentInCore, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"close", nullptr, SegmentClose, nullptr, nullptr, nullptr, napi_default_method, nullptr},
  };
  napi_value constructor = nullptr;
  napi_ref kept = nullptr;
  napi_define_class(env, "Segment", NAPI_AUTO_LENGTH, ConstructSegment, nullptr, sizeof(methods) / sizeof(methods[0]), methods, &constructor);
  napi_create_reference(env, constructor, 1, &kept);
  const napi_property_descriptor functions[] = {
      {"mapSegment", nullptr, MapSegment, nullptr, nullptr, nullptr, napi_enumerable, kept},
      {"mapRegion", nullptr, MapRegion, nullptr, nullptr, nullptr, napi_enumerable, kept},
  };
  napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
  InitValidity(env, exports);
}
