// A slab is a memfd mapped twice: shared for the engine, private for read windows, so that a stray store stays out of the cache.
//
// Three lifetimes, each ending after the one before:
//   the JavaScript object   until close(), or until it and both buffers were collected
//   SlabMemory              … and every ring is done with it: then the memory goes back to the system and zero pages stand in for it
//   SlabSpace               … and both buffers were collected: only then may an address mean something else
// Leaves to others: which bytes of it mean what.
#include "slab.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <node_api.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "facilities.h"
#include "quiet_thread.h"
#include "residency.h"

namespace {

// linux/memfd.h; older kernels answer EINVAL, newer ones may refuse or complain about a memfd without it.
constexpr unsigned kNoExecSeal = 0x8;
// What one ArrayBuffer takes on Node 20.
constexpr int64_t kSlabMax = int64_t{4} << 30;
constexpr int64_t kPage = 4096;
// MADV_COLLAPSE, 6.1; older headers lack it, older kernels answer EINVAL. It does what it says where huge pages for shared memory are off by default (shmem_enabled = never), as they are nearly everywhere.
constexpr int kCollapse = 25;

// Tells a slab from any other object.
constexpr napi_type_tag kSlabTag = {0x5ec708153514b000, 0x9a1d40c2b6f3e871};

// What the object and both buffers keep.
struct SlabHold {
  std::shared_ptr<SlabMemory> memory;
  std::shared_ptr<void> space;
};

using Hold = std::shared_ptr<SlabHold>;

constexpr size_t kTable = size_t{2} << 20;

// Address space that begins where a table of the page table does, so that whole tables can be moved, and huge pages used. MAP_FAILED where there is none.
void* Reserve(size_t bytes) {
  unsigned char* const found = static_cast<unsigned char*>(mmap(nullptr, bytes + kTable, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (found == MAP_FAILED) return MAP_FAILED;
  const size_t before = (kTable - reinterpret_cast<size_t>(found) % kTable) % kTable;
  if (before > 0) munmap(found, before);
  munmap(found + before + bytes, kTable - before);
  return found + before;
}

// Zero pages under `start`. Answers with where its pages are now, for whoever has the time to give them back: unmapping takes some 100 ns for each page that is in the page table, moving
// the page table itself next to nothing. nullptr where the kernel does not move it (before Linux 5.13 not a shared mapping): then they are gone already.
void* PutZeroPages(unsigned char* start, size_t bytes) {
  void* const place = Reserve(bytes);
  // Not unmapped meanwhile: a hole could be filled by somebody else's mapping before ours.
  void* moved = place == MAP_FAILED ? MAP_FAILED : mremap(start, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, place);
  if (moved == MAP_FAILED && place != MAP_FAILED) munmap(place, bytes);
  mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return moved == MAP_FAILED ? nullptr : moved;
}

// Less than this is unmapped where it is dropped: waking a thread costs as much.
constexpr size_t kUnmapElsewhere = size_t{16} << 20;

void Unmap(void* shared, void* priv, size_t bytes) {
  if (shared != nullptr) munmap(shared, bytes);
  if (priv != nullptr) munmap(priv, bytes);
}

// What waits to be unmapped, and whether its thread runs. Never destroyed: the thread is never joined.
struct Later {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work = PTHREAD_COND_INITIALIZER;
  std::vector<SlabRemains> waiting;
  bool running = false;
};

Later& TheLater() {
  static Later* const later = new Later();
  return *later;
}

void UnmapLoop(void*) {
  Later& later = TheLater();
  pthread_mutex_lock(&later.mutex);
  for (;;) {
    while (later.waiting.empty()) pthread_cond_wait(&later.work, &later.mutex);
    const SlabRemains remains = later.waiting.back();
    later.waiting.pop_back();
    pthread_mutex_unlock(&later.mutex);
    Unmap(remains.shared, remains.priv, remains.bytes);
    pthread_mutex_lock(&later.mutex);
  }
}

// The last of the memory: freed when nothing maps it. Not on the caller's time where there is much of it.
void UnmapLater(const SlabRemains& remains) {
  if (remains.bytes >= kUnmapElsewhere) {
    Later& later = TheLater();
    pthread_mutex_lock(&later.mutex);
    if (!later.running) later.running = StartQuietThread(UnmapLoop) == 0;
    const bool taken = later.running;
    if (taken) {
      later.waiting.push_back(remains);
      pthread_cond_signal(&later.work);
    }
    pthread_mutex_unlock(&later.mutex);
    if (taken) return;
  }
  Unmap(remains.shared, remains.priv, remains.bytes);
}

int MakeMemfd() {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int fd = memfd_create("sectorwise-slab", flags | kNoExecSeal);
  if (fd < 0 && errno == EINVAL) fd = memfd_create("sectorwise-slab", flags);
  return fd;
}

void* Map(size_t bytes, int flags, int fd) {
  void* const place = Reserve(bytes);
  if (place == MAP_FAILED) return MAP_FAILED;
  void* const mapped = mmap(place, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    const int refused = errno;
    munmap(place, bytes);
    errno = refused;
  }
  return mapped;
}

// 0 or -errno; what was made until then is released by `memory`.
int MapTwice(SlabMemory& memory, size_t bytes) {
  memory.fd = MakeMemfd();
  if (memory.fd < 0) return -errno;
  if (ftruncate(memory.fd, static_cast<off_t>(bytes)) != 0) return -errno;
  // Nobody who gets hold of the descriptor can take memory from under the engine.
  if (fcntl(memory.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) return -errno;
  void* const shared = Map(bytes, MAP_SHARED, memory.fd);
  if (shared == MAP_FAILED) return -errno;
  void* const priv = Map(bytes, MAP_PRIVATE | MAP_NORESERVE, memory.fd);
  if (priv == MAP_FAILED) {
    const int refused = -errno;
    munmap(shared, bytes);
    return refused;
  }
  madvise(shared, bytes, MADV_DONTFORK);
  madvise(priv, bytes, MADV_DONTFORK);
  memory.bytes = bytes;
  memory.shared = static_cast<unsigned char*>(shared);
  memory.priv = static_cast<unsigned char*>(priv);
  memory.space = std::shared_ptr<void>(nullptr, [shared, priv, bytes](void*) {
    munmap(shared, bytes);
    munmap(priv, bytes);
  });
  return 0;
}

napi_value Number(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

void DropHold(napi_env, void*, void* hold) { delete static_cast<Hold*>(hold); }

// Methods are bound to the class by a signature: V8 refuses any other receiver.
SlabHold* Unwrap(napi_env env, napi_value self) {
  void* hold = nullptr;
  return napi_unwrap(env, self, &hold) == napi_ok ? static_cast<Hold*>(hold)->get() : nullptr;
}

napi_value SlabRepair(napi_env env, napi_callback_info info) {
  size_t argc = 2;
  napi_value argv[2];
  napi_value self = nullptr;
  napi_get_cb_info(env, info, &argc, argv, &self, nullptr);
  SlabHold* const slab = Unwrap(env, self);
  if (slab == nullptr) return Number(env, -EINVAL);
  if (slab->memory == nullptr) return Number(env, 0);
  int64_t offset = -1;
  int64_t length = -1;
  napi_get_value_int64(env, argv[0], &offset);
  napi_get_value_int64(env, argv[1], &length);
  const int64_t bytes = static_cast<int64_t>(slab->memory->bytes);
  if (offset < 0 || length < 0 || offset > bytes || length > bytes - offset || offset % kPage != 0 || length % kPage != 0) return Number(env, -EINVAL);
  if (length == 0) return Number(env, 0);
  return Number(env, DropScribbled(slab->memory->priv + offset, static_cast<size_t>(length)));
}

// Views read zeros from here on. The memfd stays, for DMA into registered buffers that is still under way: the kernel holds its pages, not these addresses.
napi_value SlabRetire(napi_env env, napi_callback_info info) {
  napi_value self = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
  SlabHold* const slab = Unwrap(env, self);
  if (slab != nullptr && slab->memory != nullptr) slab->memory->Retire();
  return nullptr;
}

napi_value SlabClose(napi_env env, napi_callback_info info) {
  napi_value self = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
  SlabHold* const slab = Unwrap(env, self);
  if (slab != nullptr) slab->memory.reset();
  return nullptr;
}

napi_value ConstructSlab(napi_env env, napi_callback_info info) {
  napi_value self = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, &self, nullptr);
  return self;
}

// The buffer over one of the two mappings, or null where the runtime allows no memory but its own (Electron).
napi_value BufferOver(napi_env env, const Hold& hold, unsigned char* memory) {
  Hold* const kept = new Hold(hold);
  napi_value buffer = nullptr;
  if (napi_create_external_arraybuffer(env, memory, hold->memory->bytes, DropHold, kept, &buffer) == napi_ok) return buffer;
  delete kept;
  napi_value ignored = nullptr;
  napi_get_and_clear_last_exception(env, &ignored);
  return nullptr;
}

napi_value CreateSlab(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argument = nullptr;
  void* data = nullptr;
  napi_get_cb_info(env, info, &argc, &argument, nullptr, &data);
  int64_t bytes = -1;
  napi_get_value_int64(env, argument, &bytes);
  if (bytes <= 0 || bytes > kSlabMax || bytes % kPage != 0) return Number(env, -EINVAL);

  const Hold hold = std::make_shared<SlabHold>();
  hold->memory = std::make_shared<SlabMemory>();
  const int refused = MapTwice(*hold->memory, static_cast<size_t>(bytes));
  if (refused < 0) return Number(env, refused);
  hold->space = hold->memory->space;
  const napi_value shared = BufferOver(env, hold, hold->memory->shared);
  const napi_value priv = shared == nullptr ? nullptr : BufferOver(env, hold, hold->memory->priv);
  if (priv == nullptr) return Number(env, -EOPNOTSUPP);

  napi_value constructor = nullptr;
  napi_value object = nullptr;
  napi_get_reference_value(env, static_cast<napi_ref>(data), &constructor);
  if (napi_new_instance(env, constructor, 0, nullptr, &object) != napi_ok) return nullptr;
  napi_wrap(env, object, new Hold(hold), [](napi_env, void* kept, void*) { delete static_cast<Hold*>(kept); }, nullptr, nullptr);
  napi_type_tag_object(env, object, &kSlabTag);
  const napi_property_descriptor properties[] = {
      {"bytes", nullptr, nullptr, nullptr, nullptr, Number(env, bytes), napi_enumerable, nullptr},
      {"shared", nullptr, nullptr, nullptr, nullptr, shared, napi_enumerable, nullptr},
      {"private", nullptr, nullptr, nullptr, nullptr, priv, napi_enumerable, nullptr},
  };
  napi_define_properties(env, object, sizeof(properties) / sizeof(properties[0]), properties);
  return object;
}

}  // namespace

SlabMemory::~SlabMemory() {
  // Views may be left: they keep their addresses and read zeros from here on. The pages themselves are free once nothing maps them.
  if (shared != nullptr) Retire();
  if (fd >= 0) close(fd);
  UnmapLater(remains);
}

void SlabMemory::Retire() {
  if (remains.bytes != 0) {
    // Again, for what an operation stored there that had not begun the first time.
    Unmap(PutZeroPages(shared, bytes), PutZeroPages(priv, bytes), bytes);
    return;
  }
  remains = {PutZeroPages(shared, bytes), PutZeroPages(priv, bytes), bytes};
}

int SlabMemory::Punch(size_t offset, size_t length) {
  // Copies that stores made in the private mapping are not the memfd's to free.
  if (madvise(priv + offset, length, MADV_DONTNEED) != 0) return -errno;
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0 ? 0 : -errno;
}

int SlabMemory::MakeHuge(size_t offset, size_t length) {
  if (offset % kTable != 0 || length % kTable != 0) return -EINVAL;
  // Nothing is collapsed where there is no page at all.
  for (size_t at = offset; at < offset + length; at += kTable) {
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(at), kPage) != 0) return -errno;
  }
  return madvise(shared + offset, length, kCollapse) == 0 ? 0 : -errno;
}

std::shared_ptr<SlabMemory> SlabMemoryOf(Napi::Value object) {
  if (!object.IsObject()) return {};
  bool is_slab = false;
  if (napi_check_object_type_tag(object.Env(), object, &kSlabTag, &is_slab) != napi_ok || !is_slab) return {};
  SlabHold* const slab = Unwrap(object.Env(), object);
  return slab == nullptr ? nullptr : slab->memory;
}

void InitSlab(Napi::Env env, Napi::Object exports) {
  const napi_property_descriptor methods[] = {
      {"repair", nullptr, SlabRepair, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"retire", nullptr, SlabRetire, nullptr, nullptr, nullptr, napi_default_method, nullptr},
      {"close", nullptr, SlabClose, nullptr, nullptr, nullptr, napi_default_method, nullptr},
  };
  napi_value constructor = nullptr;
  napi_ref kept = nullptr;
  napi_define_class(env, "Slab", NAPI_AUTO_LENGTH, ConstructSlab, nullptr, sizeof(methods) / sizeof(methods[0]), methods, &constructor);
  napi_create_reference(env, constructor, 1, &kept);
  const napi_property_descriptor createSlab = {"createSlab", nullptr, CreateSlab, nullptr, nullptr, nullptr, napi_enumerable, kept};
  napi_define_properties(env, exports, 1, &createSlab);
}
