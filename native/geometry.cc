// What the kernel says about an open file: its sizes and alignments, where its bytes lie on the device, who else has it.
//
// Every function answers with numbers; a negative one is -errno. Questions that can block on the device (FIEMAP of a fragmented file, fallocate)
// have a twin that runs on libuv's pool and answers with a promise.
// Guarantees: an inode is claimed once in the process, however many environments or copies of the addon ask, and an environment that dies gives its
// claims back. Leaves to others: what the numbers mean (src/geometry/), who may open what (src/file.ts).
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "facilities.h"

namespace {

// ---- statx ------------------------------------------------------------------------------------------------------------------------------------

// struct statx of include/uapi/linux/stat.h (Linux 6.14), by offset: the headers of the oldest system that we are built on know neither field group.
constexpr unsigned kStatxDioAlign = 0x2000;       // STATX_DIOALIGN, Linux 6.1
constexpr unsigned kStatxDioReadAlign = 0x20000;  // STATX_DIO_READ_ALIGN, Linux 6.14
struct StatxAnswer {
  uint32_t mask;
  unsigned char before[0x98 - 4];
  uint32_t dioMemAlign;     // 0x98
  uint32_t dioOffsetAlign;  // 0x9c
  unsigned char between[0xb4 - 0xa0];
  uint32_t dioReadOffsetAlign;  // 0xb4
  unsigned char after[0x100 - 0xb8];
};
static_assert(sizeof(StatxAnswer) == 256, "the kernel writes 256 bytes");

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, __u64)  // include/uapi/linux/fs.h, Linux 5.15
#endif

// BTRFS_IOC_FS_INFO and the head of its 1024-byte argument: include/uapi/linux/btrfs.h. The only unprivileged way from a file to the devices under it.
struct BtrfsInfo {
  uint64_t maxId;
  uint64_t devices;
  unsigned char fsid[16];
  unsigned char rest[1024 - 32];
};
constexpr unsigned long kBtrfsFsInfo = _IOR(0x94, 31, BtrfsInfo);

constexpr uint32_t kXfsMagic = 0x58465342;  // XFS_SUPER_MAGIC, newer than some linux/magic.h

template <typename T>
double Ask(int fd, unsigned long request) {
  T value = 0;
  if (ioctl(fd, request, &value) < 0) return -errno;
  return static_cast<double>(value);
}

std::string Numbers(dev_t device) { return std::to_string(major(device)) + ":" + std::to_string(minor(device)); }

std::string BtrfsId(int fd) {
  BtrfsInfo info;
  memset(&info, 0, sizeof info);
  if (ioctl(fd, kBtrfsFsInfo, &info) < 0) return "";
  char text[37];
  char* to = text;
  for (int i = 0; i < 16; i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *to++ = '-';
    snprintf(to, 3, "%02x", info.fsid[i]);
    to += 2;
  }
  return text;
}

Napi::Value Probe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object answer = Napi::Object::New(env);
  int fd = info[0].As<Napi::Number>().Int32Value();

  struct stat st;
  memset(&st, 0, sizeof st);
  int failed = fstat(fd, &st) < 0 ? -errno : 0;
  answer.Set("mode", failed ? static_cast<double>(failed) : static_cast<double>(st.st_mode));
  answer.Set("size", static_cast<double>(st.st_size));
  answer.Set("dev", Numbers(st.st_dev));
  answer.Set("rdev", Numbers(st.st_rdev));
  answer.Set("ino", std::to_string(st.st_ino));

  struct statfs fs;
  memset(&fs, 0, sizeof fs);
  if (fstatfs(fd, &fs) < 0) memset(&fs, 0, sizeof fs);
  uint32_t type = static_cast<uint32_t>(fs.f_type);
  answer.Set("fsType", static_cast<double>(type));
  answer.Set("fsBlockSize", static_cast<double>(fs.f_bsize));
  answer.Set("fsid", type == BTRFS_SUPER_MAGIC ? BtrfsId(fd) : std::string());

  // The data of a realtime inode (XFS) lies on another device than st_dev names.
  struct fsxattr attributes;
  memset(&attributes, 0, sizeof attributes);
  bool realtime = type == kXfsMagic && S_ISREG(st.st_mode) && ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0 && (attributes.fsx_xflags & FS_XFLAG_REALTIME) != 0;
  answer.Set("realtime", Napi::Boolean::New(env, realtime));

  StatxAnswer direct;
  memset(&direct, 0, sizeof direct);
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, kStatxDioAlign | kStatxDioReadAlign, &direct) < 0) memset(&direct, 0, sizeof direct);
  bool reported = (direct.mask & kStatxDioAlign) != 0;
  bool readReported = (direct.mask & kStatxDioReadAlign) != 0;
  answer.Set("dioMemAlign", reported ? direct.dioMemAlign : 0);
  answer.Set("dioOffsetAlign", reported ? direct.dioOffsetAlign : 0);
  answer.Set("dioReadOffsetAlign", readReported ? direct.dioReadOffsetAlign : 0);
  answer.Set("dioReported", Napi::Boolean::New(env, reported));
  answer.Set("dioReadReported", Napi::Boolean::New(env, readReported));

  // Only a block device is asked: the same request numbers may mean something else to a file system or a character device.
  bool device = S_ISBLK(st.st_mode);
  auto ask = [&](const char* name, double (*question)(int, unsigned long), unsigned long request) {
    answer.Set(name, device ? question(fd, request) : static_cast<double>(-ENOTTY));
  };
  ask("logical", Ask<int>, BLKSSZGET);
  ask("physical", Ask<unsigned>, BLKPBSZGET);
  ask("ioMin", Ask<unsigned>, BLKIOMIN);
  ask("ioOpt", Ask<unsigned>, BLKIOOPT);
  ask("alignOff", Ask<int>, BLKALIGNOFF);
  ask("deviceSize", Ask<uint64_t>, BLKGETSIZE64);
  ask("rotational", Ask<unsigned short>, BLKROTATIONAL);
  ask("maxSectors", Ask<unsigned short>, BLKSECTGET);
  ask("readOnly", Ask<int>, BLKROGET);
  ask("diskSeq", Ask<uint64_t>, BLKGETDISKSEQ);
  return answer;
}

// ---- O_DIRECT by doing ------------------------------------------------------------------------------------------------------------------------

constexpr size_t kProbePage = 4096;
constexpr size_t kProbeMax = 1 << 20;

// probeDirect(fd, position, length): the memory is aligned to the lowest set bit of length and to no more, so that the answer speaks of that alignment.
napi_value ProbeDirect(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value args[3];
  int32_t fd = -1;
  double position = 0, length = 0;
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  napi_get_value_int32(env, args[0], &fd);
  napi_get_value_double(env, args[1], &position);
  napi_get_value_double(env, args[2], &length);

  double result;
  if (!(length > 0 && length <= kProbeMax)) {
    result = -EINVAL;
  } else {
    size_t bytes = static_cast<size_t>(length);
    size_t alignment = bytes & (~bytes + 1);
    size_t shift = alignment < kProbePage ? alignment : 0;
    void* memory = mmap(nullptr, bytes + kProbePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      result = -errno;
    } else {
      ssize_t n;
      do n = pread(fd, static_cast<char*>(memory) + shift, bytes, static_cast<off_t>(position));
      while (n < 0 && errno == EINTR);
      result = n < 0 ? -errno : static_cast<double>(n);
      munmap(memory, bytes + kProbePage);
    }
  }
  napi_value value = nullptr;
  napi_create_double(env, result, &value);
  return value;
}

// ---- FIEMAP -----------------------------------------------------------------------------------------------------------------------------------

constexpr unsigned kBatch = 512;
constexpr size_t kExtentsMax = 1000000;
constexpr size_t kWords = 4;

struct Extents {
  int status = 0;
  bool complete = false;
  std::vector<double> values;
};

void ReadExtents(int fd, uint64_t offset, uint64_t length, bool sync, Extents* out) {
  constexpr size_t bytes = sizeof(struct fiemap) + kBatch * sizeof(struct fiemap_extent);
  auto* map = static_cast<struct fiemap*>(malloc(bytes));
  if (map == nullptr) {
    out->status = -ENOMEM;
    return;
  }
  uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
  while (offset < end && !out->complete) {
    memset(map, 0, bytes);
    map->fm_start = offset;
    map->fm_length = end - offset;
    map->fm_flags = sync ? FIEMAP_FLAG_SYNC : 0;
    map->fm_extent_count = kBatch;
    if (ioctl(fd, FS_IOC_FIEMAP, map) < 0) {
      if (errno == EINTR) continue;
      out->status = -errno;
      out->values.clear();
      break;
    }
    // What was dirty when we came has its place now; a second flush for a later batch would chase a writer for ever.
    sync = false;
    unsigned mapped = map->fm_mapped_extents;
    uint64_t reached = offset;
    for (unsigned i = 0; i < mapped; i++) {
      const struct fiemap_extent& extent = map->fm_extents[i];
      out->values.push_back(static_cast<double>(extent.fe_logical));
      out->values.push_back(static_cast<double>(extent.fe_physical));
      out->values.push_back(static_cast<double>(extent.fe_length));
      out->values.push_back(static_cast<double>(extent.fe_flags));
      reached = extent.fe_logical + extent.fe_length;
      if (extent.fe_flags & FIEMAP_EXTENT_LAST) out->complete = true;
    }
    // Fewer than asked for: the range is covered. No progress: the file changes under us, and what we have is as good as it gets.
    if (mapped < kBatch || reached <= offset || out->values.size() / kWords >= kExtentsMax) break;
    offset = reached;
  }
  free(map);
}

napi_value ExtentsValue(napi_env env, const Extents& extents) {
  napi_value object = nullptr, status = nullptr, complete = nullptr, buffer = nullptr, values = nullptr;
  void* data = nullptr;
  size_t bytes = extents.values.size() * sizeof(double);
  napi_create_object(env, &object);
  napi_create_int32(env, extents.status, &status);
  napi_get_boolean(env, extents.complete, &complete);
  if (napi_create_arraybuffer(env, bytes, &data, &buffer) != napi_ok) return nullptr;
  if (bytes > 0) memcpy(data, extents.values.data(), bytes);
  napi_create_typedarray(env, napi_float64_array, extents.values.size(), buffer, 0, &values);
  napi_set_named_property(env, object, "status", status);
  napi_set_named_property(env, object, "values", values);
  napi_set_named_property(env, object, "complete", complete);
  return object;
}

struct Range {
  int32_t fd = -1;
  double offset = 0;
  double length = 0;
  bool sync = false;
};

Range RangeOf(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value args[4];
  Range range;
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  napi_get_value_int32(env, args[0], &range.fd);
  napi_get_value_double(env, args[1], &range.offset);
  napi_get_value_double(env, args[2], &range.length);
  if (count > 3) napi_get_value_bool(env, args[3], &range.sync);
  return range;
}

napi_value Fiemap(napi_env env, napi_callback_info info) {
  Range range = RangeOf(env, info);
  Extents extents;
  ReadExtents(range.fd, static_cast<uint64_t>(range.offset), static_cast<uint64_t>(range.length), range.sync, &extents);
  return ExtentsValue(env, extents);
}

int Allocate(const Range& range) {
  int result;
  do result = fallocate(range.fd, 0, static_cast<off_t>(range.offset), static_cast<off_t>(range.length));
  while (result < 0 && errno == EINTR);
  return result < 0 ? -errno : 0;
}

napi_value Fallocate(napi_env env, napi_callback_info info) {
  napi_value value = nullptr;
  napi_create_int32(env, Allocate(RangeOf(env, info)), &value);
  return value;
}

// ---- off the main thread ------------------------------------------------------------------------------------------------------------------------

struct Task {
  Range range;
  bool allocate = false;
  int result = 0;
  Extents extents;
  napi_deferred deferred = nullptr;
  napi_async_work work = nullptr;
};

void RunTask(napi_env, void* data) {
  auto* task = static_cast<Task*>(data);
  if (task->allocate) {
    task->result = Allocate(task->range);
  } else {
    ReadExtents(task->range.fd, static_cast<uint64_t>(task->range.offset), static_cast<uint64_t>(task->range.length), task->range.sync, &task->extents);
  }
}

// Results of the calls into JavaScript are not looked at: they fail only while the environment is being torn down, when nobody waits any more.
void EndTask(napi_env env, napi_status status, void* data) {
  auto* task = static_cast<Task*>(data);
  if (status != napi_ok) task->result = task->extents.status = -ECANCELED;
  napi_value value = nullptr;
  if (task->allocate) {
    napi_create_int32(env, task->result, &value);
  } else {
    value = ExtentsValue(env, task->extents);
  }
  if (value != nullptr) napi_resolve_deferred(env, task->deferred, value);
  napi_delete_async_work(env, task->work);
  delete task;
}

napi_value StartTask(napi_env env, napi_callback_info info, bool allocate) {
  auto* task = new Task;
  task->range = RangeOf(env, info);
  task->allocate = allocate;
  napi_value promise = nullptr, name = nullptr;
  if (napi_create_promise(env, &task->deferred, &promise) != napi_ok ||
      napi_create_string_utf8(env, allocate ? "sectorwise:allocate" : "sectorwise:fiemap", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, nullptr, name, RunTask, EndTask, task, &task->work) != napi_ok) {
    delete task;
    return nullptr;
  }
  if (napi_queue_async_work(env, task->work) != napi_ok) {
    napi_delete_async_work(env, task->work);
    delete task;
    return nullptr;
  }
  return promise;
}

napi_value FiemapAsync(napi_env env, napi_callback_info info) { return StartTask(env, info, false); }
napi_value AllocateAsync(napi_env env, napi_callback_info info) { return StartTask(env, info, true); }

// ---- locks and claims ---------------------------------------------------------------------------------------------------------------------------

// lock(fd, exclusive): flock belongs to the open file description, so it ends with the last descriptor of it.
napi_value Lock(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value args[2];
  int32_t fd = -1;
  bool exclusive = false;
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  napi_get_value_int32(env, args[0], &fd);
  napi_get_value_bool(env, args[1], &exclusive);
  int result;
  do result = flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB);
  while (result < 0 && errno == EINTR);
  napi_value value = nullptr;
  napi_create_int32(env, result < 0 ? -errno : 0, &value);
  return value;
}

// unlock(fd): at once, whoever else has a descriptor of it, as a process that was forked a moment ago and has not yet begun its program.
napi_value Unlock(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  int32_t fd = -1;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_int32(env, argument, &fd);
  int result;
  do result = flock(fd, LOCK_UN);
  while (result < 0 && errno == EINTR);
  return nullptr;
}

struct Claim {
  Claim* next;
  const void* owner;
  char key[];
};

}  // namespace

// One list for the process. An inline variable of default visibility is a unique symbol (STB_GNU_UNIQUE), which glibc's loader binds to one definition
// for all copies of the addon, also when they were loaded apart from each other; elsewhere each copy has its own list.
// The layout is plain C and carries its version in the name, because copies of different releases share it.
struct __attribute__((visibility("default"))) SectorwiseClaimsV1 {
  pthread_mutex_t mutex;
  void* first;
};
__attribute__((visibility("default"))) inline SectorwiseClaimsV1 sectorwise_claims_v1 = {PTHREAD_MUTEX_INITIALIZER, nullptr};

namespace {

// Takes out what `matches`.
template <typename Matches>
void RemoveClaims(Matches matches) {
  pthread_mutex_lock(&sectorwise_claims_v1.mutex);
  Claim* kept = nullptr;
  for (auto* claim = static_cast<Claim*>(sectorwise_claims_v1.first); claim != nullptr;) {
    Claim* next = claim->next;
    if (matches(claim)) {
      free(claim);
    } else {
      claim->next = kept;
      kept = claim;
    }
    claim = next;
  }
  sectorwise_claims_v1.first = kept;
  pthread_mutex_unlock(&sectorwise_claims_v1.mutex);
}

Napi::Value ClaimInode(const Napi::CallbackInfo& info) {
  std::string key = info[0].As<Napi::String>();
  auto* claim = static_cast<Claim*>(malloc(sizeof(Claim) + key.size() + 1));
  if (claim == nullptr) return Napi::Boolean::New(info.Env(), false);
  memcpy(claim->key, key.c_str(), key.size() + 1);
  claim->owner = static_cast<napi_env>(info.Env());

  pthread_mutex_lock(&sectorwise_claims_v1.mutex);
  bool taken = false;
  for (auto* other = static_cast<Claim*>(sectorwise_claims_v1.first); other != nullptr && !taken; other = other->next) taken = strcmp(other->key, claim->key) == 0;
  if (!taken) {
    claim->next = static_cast<Claim*>(sectorwise_claims_v1.first);
    sectorwise_claims_v1.first = claim;
  }
  pthread_mutex_unlock(&sectorwise_claims_v1.mutex);
  if (taken) free(claim);
  return Napi::Boolean::New(info.Env(), !taken);
}

// Only the environment that made a claim can give it back: a second close in another one must not free what is not its own.
void FreeInode(const Napi::CallbackInfo& info) {
  std::string key = info[0].As<Napi::String>();
  const void* owner = static_cast<napi_env>(info.Env());
  RemoveClaims([&](const Claim* claim) { return claim->owner == owner && key == claim->key; });
}

void FreeClaimsOfEnvironment(void* owner) {
  RemoveClaims([owner](const Claim* claim) { return claim->owner == owner; });
}

void Export(napi_env env, napi_value exports, const char* name, napi_callback callback) {
  napi_value function = nullptr;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function) == napi_ok) napi_set_named_property(env, exports, name, function);
}

}  // namespace

void InitGeometry(Napi::Env env, Napi::Object exports) {
  exports.Set("probe", Napi::Function::New<Probe>(env, "probe"));
  exports.Set("claimInode", Napi::Function::New<ClaimInode>(env, "claimInode"));
  exports.Set("freeInode", Napi::Function::New<FreeInode>(env, "freeInode"));
  Export(env, exports, "probeDirect", ProbeDirect);
  Export(env, exports, "fiemap", Fiemap);
  Export(env, exports, "fiemapAsync", FiemapAsync);
  Export(env, exports, "fallocate", Fallocate);
  Export(env, exports, "allocateAsync", AllocateAsync);
  Export(env, exports, "lock", Lock);
  Export(env, exports, "unlock", Unlock);
  napi_add_env_cleanup_hook(env, FreeClaimsOfEnvironment, static_cast<napi_env>(env));
}
