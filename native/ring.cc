// See ring.h.
#include "ring.h"

#include <node_api.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <pthread.h>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <vector>

#include "facilities.h"
#include "slab.h"
#include "threads.h"
#include "uring.h"
#include "wakeup.h"

namespace {

// IORING_MAX_ENTRIES of io_uring/io_uring.h.
constexpr uint32_t kDepthMax = 32768;
// Completions that were announced and not yet read, at most: TypeScript may hand over the next entries before it published that it read the last.
constexpr uint32_t kQueuePerDepth = 2;
// A registered buffer is a piece of a slab of this size: small enough that the first touch costs well under a millisecond a piece, and that what a
// memlock limit leaves is used.
constexpr uint64_t kChunkBytes = 4 << 20;
// How long the end of an environment waits for operations in flight.
constexpr int kDrainMs = 2000;

// What one entry of a page directory maps (x86-64, and arm64 with 4 KiB pages).
constexpr uint64_t kHugePage = 2 << 20;
// Chunks in a row that may be without huge pages, or take longer than so many milliseconds to get them, before no more is tried.
constexpr int kHugeTries = 4;
constexpr int64_t kHugeMs = 12;

constexpr size_t kLine = 64;
constexpr size_t kPage = 4096;

uint32_t PowerOfTwo(uint32_t least) {
  uint32_t size = 1;
  while (size < least) size <<= 1;
  return size;
}

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

struct File {
  int fd;
  // Index among the kernel's registered files, negative where it is not.
  int slot;
  bool blockDevice;
  // O_DIRECT: reads go past the page cache, so nothing can be filled.
  bool direct;
};

struct RegisteredSlab {
  std::shared_ptr<SlabMemory> memory;
  // Index of its first chunk in the kernel's table of buffers.
  uint64_t firstChunk;
  // Registered with the kernel.
  std::vector<bool> chunks;
  // Used since it was made or given back: it has huge pages where there are any to be had.
  std::vector<bool> touched;
  std::vector<bool> huge;
};

class RingCore final : public JobOwner {
 public:
  ~RingCore() override { pthread_mutex_destroy(&publishing); }

  int Open(uint32_t depth) {
    queueEntries = PowerOfTwo(depth * kQueuePerDepth);
    const size_t queueBytes = kLine + queueEntries * COMPLETION_WORDS * 4;
    const size_t entriesBytes = depth * ENTRY_WORDS * 4;
    const size_t bytes = (kLine + queueBytes + entriesBytes + kPage - 1) / kPage * kPage;
    void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (base == MAP_FAILED) return -errno;
    memory = std::make_shared<Mapping>(base, bytes);
    madvise(base, bytes, MADV_DONTFORK);
    char* place = static_cast<char*>(base);
    control = reinterpret_cast<int32_t*>(place);
    tail = reinterpret_cast<uint32_t*>(place + kLine);
    completions = reinterpret_cast<uint32_t*>(place + 2 * kLine);
    entries = reinterpret_cast<uint32_t*>(place + kLine + queueBytes);
    jobs.resize(queueEntries);
    for (Job& job : jobs) {
      job.next = free_;
      free_ = &job;
    }
    return wakeup.Open();
  }

  // A free job, from the ring's own thread. There are as many as completions can be outstanding, and a job is given back before it is completed; null
  // only where TypeScript published a head that never was.
  Job* TakeJob() {
    if (free_ == nullptr) free_ = returned_.exchange(nullptr, std::memory_order_acquire);
    Job* job = free_;
    if (job != nullptr) free_ = job->next;
    return job;
  }

  void Finish(Job* job, int result) override {
    const uint32_t handle = job->handle;
    Job* head = returned_.load(std::memory_order_relaxed);
    do {
      job->next = head;
    } while (!returned_.compare_exchange_weak(head, job, std::memory_order_release, std::memory_order_relaxed));
    Complete(handle, result);
    outstanding.fetch_sub(1, std::memory_order_release);
  }

  // From any thread.
  void Complete(uint32_t handle, int result) {
    pthread_mutex_lock(&publishing);
    const uint32_t at = *tail;
    uint32_t* completion = completions + (at & (queueEntries - 1)) * COMPLETION_WORDS;
    completion[0] = handle;
    completion[1] = 0;
    completion[2] = static_cast<uint32_t>(result);
    completion[3] = 0;
    // Sequentially consistent, as the load below and the two accesses in TypeScript (arm, then look at the tail): one of the two sides sees the other.
    __atomic_store_n(tail, at + 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&publishing);
    if (__atomic_load_n(&control[CONTROL_ARMED], __ATOMIC_SEQ_CST) == 1 && __atomic_exchange_n(&control[CONTROL_ARMED], 0, __ATOMIC_SEQ_CST) == 1) wakeup.Signal();
  }

  uint32_t Tail() const { return __atomic_load_n(tail, __ATOMIC_ACQUIRE); }

  std::shared_ptr<Mapping> memory;
  int32_t* control = nullptr;
  uint32_t* tail = nullptr;
  uint32_t* completions = nullptr;
  uint32_t* entries = nullptr;
  uint32_t queueEntries = 0;
  Wakeup wakeup;
  // Jobs that were pushed and whose completion is not yet announced.
  std::atomic<uint32_t> outstanding{0};
  std::vector<File> files;
  std::vector<RegisteredSlab> slabs;

 private:
  pthread_mutex_t publishing = PTHREAD_MUTEX_INITIALIZER;
  std::vector<Job> jobs;
  Job* free_ = nullptr;
  std::atomic<Job*> returned_{nullptr};
};

class Ring : public std::enable_shared_from_this<Ring> {
 public:
  // 0 or -errno; the reasons are in `features` either way.
  int Open(napi_env env, const std::string& engine, uint32_t depth);
  int Start();

  int Submit(uint32_t count);
  int Collect();
  int Wait();
  void Listen(napi_value onWake, napi_value onSettled);
  void Ref() {
    if (!closed_) core_->wakeup.Ref();
  }
  void Unref() {
    if (!closed_) core_->wakeup.Unref();
  }
  int AddFile(int fd);
  int AddSlab(std::shared_ptr<SlabMemory> memory);
  int GiveBack(uint32_t slab, uint64_t offset, uint64_t length);
  void Close();
  std::vector<Feature> Features() const;
  Feature HugePages() const;
  bool IsHuge() const;

  const char* engine() const { return uring_ != nullptr ? "io_uring" : "threads"; }
  uint32_t depth() const { return depth_; }
  RingCore& core() { return *core_; }
  const Uring* uring() const { return uring_.get(); }
  std::vector<Feature> features;

 private:
  // Words of control: the heads of queue 0 and queue 1. The kernel's queue is queue 0 where there is one.
  uint32_t KernelHead() const { return Head(1); }
  uint32_t OwnHead() const { return Head(uring_ != nullptr ? 2 : 1); }
  uint32_t Head(unsigned word) const { return static_cast<uint32_t>(__atomic_load_n(&core_->control[word], __ATOMIC_ACQUIRE)); }
  // A completion that TypeScript has not said it saw.
  bool Unseen() const { return core_->Tail() != OwnHead() || (uring_ != nullptr && uring_->CompletionTail() != KernelHead()); }

  int Check(const uint32_t* entry, Job* job, int64_t* chunk);
  void Touch(uint32_t slab, uint64_t offset, uint64_t length);
  bool Registered(uint32_t slab, uint64_t offset, uint64_t length, int64_t* chunk);
  void Push(const Job& filled, Job** first, Job** last, uint32_t* count);
  void Woken();
  bool Call(napi_ref function);
  bool Drain();
  void Release();
  void Stop();
  static void EndOfEnvironment(napi_async_cleanup_hook_handle handle, void* data);

  napi_env env_ = nullptr;
  uint32_t depth_ = 0;
  std::shared_ptr<RingCore> core_;
  std::unique_ptr<Uring> uring_;
  bool closed_ = false;
  uint32_t accepted_ = 0;
  uint64_t slabBytes_ = 0;
  uint64_t registeredBytes_ = 0;
  uint64_t touchedBytes_ = 0;
  uint64_t hugeBytes_ = 0;
  // Why the last chunk has no huge pages, 0 where it has, and how many in a row had none or took too long; after kHugeTries no more is tried.
  int hugeError_ = 0;
  int hugeFailures_ = 0;
  napi_ref onWake_ = nullptr;
  napi_ref onSettled_ = nullptr;
  napi_async_cleanup_hook_handle cleanup_ = nullptr;
  // The environment's hold: from Start to the end of closing.
  std::shared_ptr<Ring> self_;
};

int Ring::Open(napi_env env, const std::string& engine, uint32_t depth) {
  env_ = env;
  if (depth < 1 || depth > kDepthMax) return -EINVAL;
  depth_ = depth;
  core_ = std::make_shared<RingCore>();
  int status = core_->Open(depth);
  if (status < 0) return status;
  if (engine == "threads") {
    features.push_back({"io_uring", false, "not tried: the engine 'threads' was asked for"});
    return 0;
  }
  uring_ = Uring::Open(depth, core_->wakeup.fd(), features, &status);
  return uring_ == nullptr && engine == "io_uring" ? status : 0;
}

int Ring::Start() {
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -EINVAL;
  int status = core_->wakeup.Watch(loop, [](void* context) { static_cast<Ring*>(context)->Woken(); }, this);
  if (status < 0) {
    core_->wakeup.Stop([](void*) {}, nullptr);
    return status;
  }
  self_ = shared_from_this();
  napi_add_async_cleanup_hook(env_, EndOfEnvironment, this, &cleanup_);
  return 0;
}

// Everything that memory safety and the files' safety ask of an entry. Fills `job`; `chunk` is the registered buffer to use, or -1.
int Ring::Check(const uint32_t* entry, Job* job, int64_t* chunk) {
  job->operation = entry[ENTRY_OPERATION] & 0xff;
  if ((entry[ENTRY_OPERATION] & ~(0xffu | FLAG_ASYNC | FLAG_DURABLE)) != 0) return -EINVAL;
  job->durable = (entry[ENTRY_OPERATION] & FLAG_DURABLE) != 0;
  if (job->durable && job->operation != OP_WRITE) return -EINVAL;
  const uint32_t file = entry[ENTRY_FILE];
  if (file >= core_->files.size()) return -EINVAL;
  job->fd = core_->files[file].fd;
  job->blockDevice = core_->files[file].blockDevice;
  job->position = static_cast<int64_t>(uint64_t{entry[ENTRY_POSITION_HIGH]} << 32 | entry[ENTRY_POSITION_LOW]);
  if (job->position < 0) return -EINVAL;
  *chunk = -1;
  switch (job->operation) {
    case OP_READ:
    case OP_WRITE: {
      const uint32_t slab = entry[ENTRY_SLAB];
      if (slab >= core_->slabs.size()) return -EINVAL;
      const uint64_t offset = entry[ENTRY_SLAB_OFFSET];
      job->length = entry[ENTRY_LENGTH];
      const SlabMemory& memory = *core_->slabs[slab].memory;
      if (job->length == 0 || offset + job->length > memory.bytes) return -EINVAL;
      if (job->length > static_cast<uint64_t>(INT64_MAX - job->position)) return -EINVAL;
      job->address = memory.shared + offset;
      Touch(slab, offset, job->length);
      if (uring_ != nullptr) Registered(slab, offset, job->length, chunk);
      return 0;
    }
    case OP_SYNC:
    case OP_TRUNCATE:
      return 0;
    case OP_FILL:
      job->length = entry[ENTRY_LENGTH];
      // The answer is a count of bytes in 31 bits.
      if (job->length == 0 || job->length > INT32_MAX || job->length > static_cast<uint64_t>(INT64_MAX - job->position)) return -EINVAL;
      return core_->files[file].direct ? -EINVAL : 0;
    case OP_ALLOCATE:
    case OP_DISCARD:
    case OP_EVICT:
      job->length = uint64_t{entry[ENTRY_SLAB_OFFSET]} << 32 | entry[ENTRY_LENGTH];
      if (job->length == 0 || job->length > static_cast<uint64_t>(INT64_MAX - job->position)) return -EINVAL;
      return 0;
  }
  return -EINVAL;
}

// Memory is about to be used: what of it nobody used before gets huge pages first, because registering it or DMA into it would pin small ones.
void Ring::Touch(uint32_t index, uint64_t offset, uint64_t length) {
  RegisteredSlab& slab = core_->slabs[index];
  for (uint64_t chunk = offset / kChunkBytes; chunk * kChunkBytes < offset + length; chunk++) {
    if (slab.touched[chunk]) continue;
    slab.touched[chunk] = true;
    const uint64_t start = chunk * kChunkBytes;
    const uint64_t bytes = std::min(kChunkBytes, slab.memory->bytes - start);
    touchedBytes_ += bytes;
    const uint64_t whole = bytes / kHugePage * kHugePage;
    if (whole == 0 || hugeFailures_ >= kHugeTries) continue;
    const int64_t began = NowMs();
    const int status = slab.memory->MakeHuge(start, whole);
    hugeError_ = -status;
    slab.huge[chunk] = status == 0;
    if (status == 0) hugeBytes_ += whole;
    // A machine whose memory is in pieces looks for a long time: the event loop is worth more than huge pages.
    hugeFailures_ = status < 0 || NowMs() - began > kHugeMs ? hugeFailures_ + 1 : 0;
  }
}

// Is the range inside one registered buffer? Registers the one it is in, unless the kernel refused one before.
bool Ring::Registered(uint32_t index, uint64_t offset, uint64_t length, int64_t* chunk) {
  RegisteredSlab& slab = core_->slabs[index];
  const uint64_t within = offset / kChunkBytes;
  if ((offset + length - 1) / kChunkBytes != within) return false;
  const uint64_t slot = slab.firstChunk + within;
  if (!slab.chunks[within]) {
    if (slot >= Uring::kBufferSlots || !uring_->TakesBuffers()) return false;
    const uint64_t start = within * kChunkBytes;
    const uint64_t bytes = std::min(kChunkBytes, slab.memory->bytes - start);
    if (!uring_->RegisterBuffer(static_cast<unsigned>(slot), slab.memory->shared + start, bytes)) return false;
    slab.chunks[within] = true;
    registeredBytes_ += bytes;
  }
  *chunk = static_cast<int64_t>(slot);
  return true;
}

void Ring::Push(const Job& filled, Job** first, Job** last, uint32_t* count) {
  Job* job = core_->TakeJob();
  if (job == nullptr) {
    core_->Complete(filled.handle, -EBUSY);
    return;
  }
  *job = filled;
  job->owner = core_;
  job->next = nullptr;
  if (*first == nullptr) {
    *first = job;
  } else {
    (*last)->next = job;
  }
  *last = job;
  ++*count;
}

int Ring::Submit(uint32_t count) {
  if (closed_) return -EBADF;
  if (count > depth_) return -EINVAL;
  uint32_t seen = OwnHead();
  if (uring_ != nullptr) {
    const uint32_t head = KernelHead();
    uring_->PublishHead(head);
    seen += head;
  }
  // More than the queues hold would overwrite completions: the caller broke its word, nothing is taken.
  if (accepted_ + count - seen > core_->queueEntries) return -EBUSY;
  accepted_ += count;

  Job* first = nullptr;
  Job* last = nullptr;
  uint32_t pushed = 0;
  bool kernel = false;
  const uint32_t* entry = core_->entries;
  for (uint32_t i = 0; i < count; i++, entry += ENTRY_WORDS) {
    Job job{};
    int64_t chunk;
    job.handle = entry[ENTRY_HANDLE];
    const int status = Check(entry, &job, &chunk);
    if (status < 0) {
      core_->Complete(job.handle, status);
      continue;
    }
    if (uring_ == nullptr || job.operation > OP_SYNC) {
      Push(job, &first, &last, &pushed);
      continue;
    }
    io_uring_sqe* sqe = uring_->Next();
    const File& file = core_->files[entry[ENTRY_FILE]];
    sqe->user_data = job.handle;
    sqe->fd = file.slot >= 0 ? file.slot : file.fd;
    sqe->flags = static_cast<uint8_t>((file.slot >= 0 ? IOSQE_FIXED_FILE : 0) | (entry[ENTRY_OPERATION] & FLAG_ASYNC ? IOSQE_ASYNC : 0));
    if (job.operation == OP_SYNC) {
      sqe->opcode = IORING_OP_FSYNC;
      sqe->fsync_flags = IORING_FSYNC_DATASYNC;
    } else {
      const bool read = job.operation == OP_READ;
      if (chunk >= 0) {
        sqe->opcode = read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
        sqe->buf_index = static_cast<uint16_t>(chunk);
      } else {
        sqe->opcode = read ? IORING_OP_READ : IORING_OP_WRITE;
      }
      sqe->addr = reinterpret_cast<uint64_t>(job.address);
      sqe->len = static_cast<uint32_t>(job.length);
      sqe->off = static_cast<uint64_t>(job.position);
      if (job.durable) sqe->rw_flags = RWF_DSYNC;
    }
    kernel = true;
  }
  if (pushed > 0) {
    core_->outstanding.fetch_add(pushed, std::memory_order_relaxed);
    PushJobs(first, last);
  }
  if (kernel) {
    int error = 0;
    const unsigned refused = uring_->Submit(&error);
    for (unsigned i = 0; i < refused; i++) core_->Complete(uring_->Refused(i), error);
  }
  return static_cast<int>(count);
}

int Ring::Collect() {
  if (closed_ || uring_ == nullptr) return 0;
  uring_->PublishHead(KernelHead());
  return uring_->HoldsBack() ? uring_->Reap(0) : 0;
}

int Ring::Wait() {
  if (closed_) return -EBADF;
  if (uring_ != nullptr) uring_->PublishHead(KernelHead());
  if (Unseen()) return 0;
  if (core_->outstanding.load(std::memory_order_acquire) == 0) {
    // A job that ended just now announced itself before it was counted off.
    if (Unseen()) return 0;
    if (uring_ == nullptr || uring_->InFlight() == 0) return -ENOENT;
    return uring_->Reap(1);
  }
  // Both kinds are outstanding, or the pool's alone: the eventfd speaks for all. TypeScript's wish to be woken is put back as it was, and a signal that was
  // meant for the loop is given back, so that nobody waits for it in vain.
  int32_t* armed = &core_->control[CONTROL_ARMED];
  const int32_t before = __atomic_load_n(armed, __ATOMIC_SEQ_CST);
  bool taken = false;
  int status = 0;
  for (;;) {
    __atomic_store_n(armed, 1, __ATOMIC_SEQ_CST);
    if (uring_ != nullptr && uring_->HoldsBack()) status = uring_->Reap(0);
    if (status < 0 || Unseen()) break;
    pollfd ready{core_->wakeup.fd(), POLLIN, 0};
    if (poll(&ready, 1, -1) == 1) {
      core_->wakeup.Drain();
      taken = true;
    }
  }
  __atomic_store_n(armed, before, __ATOMIC_SEQ_CST);
  if (taken && before == 0) core_->wakeup.Signal();
  return status;
}

void Ring::Listen(napi_value onWake, napi_value onSettled) {
  if (closed_) return;
  if (onWake_ != nullptr) napi_delete_reference(env_, onWake_);
  if (onSettled_ != nullptr) napi_delete_reference(env_, onSettled_);
  napi_create_reference(env_, onWake, 1, &onWake_);
  napi_create_reference(env_, onSettled, 1, &onSettled_);
}

int Ring::AddFile(int fd) {
  if (closed_) return -EBADF;
  struct statx about;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &about) < 0) return -errno;
  const int slot = uring_ != nullptr ? uring_->RegisterFile(fd) : -EOPNOTSUPP;
  const int flags = fcntl(fd, F_GETFL);
  core_->files.push_back({fd, slot, S_ISBLK(about.stx_mode), flags >= 0 && (flags & O_DIRECT) != 0});
  return static_cast<int>(core_->files.size() - 1);
}

int Ring::AddSlab(std::shared_ptr<SlabMemory> memory) {
  if (closed_) return -EBADF;
  if (memory == nullptr || memory->shared == nullptr) return -EINVAL;
  uint64_t first = 0;
  if (!core_->slabs.empty()) first = core_->slabs.back().firstChunk + core_->slabs.back().chunks.size();
  slabBytes_ += memory->bytes;
  const uint64_t chunks = (memory->bytes + kChunkBytes - 1) / kChunkBytes;
  core_->slabs.push_back({std::move(memory), first, std::vector<bool>(chunks), std::vector<bool>(chunks), std::vector<bool>(chunks)});
  return static_cast<int>(core_->slabs.size() - 1);
}

// The caller says that nothing is in flight over the range. Registered again with the next operation on it.
int Ring::GiveBack(uint32_t index, uint64_t offset, uint64_t length) {
  if (closed_) return -EBADF;
  if (index >= core_->slabs.size()) return -EINVAL;
  RegisteredSlab& slab = core_->slabs[index];
  const uint64_t bytes = slab.memory->bytes;
  if (offset > bytes || length == 0 || length > bytes - offset) return -EINVAL;
  if (offset % kChunkBytes != 0 || (length % kChunkBytes != 0 && offset + length != bytes)) return -EINVAL;
  for (uint64_t chunk = offset / kChunkBytes; chunk * kChunkBytes < offset + length; chunk++) {
    const uint64_t chunkBytes = std::min(kChunkBytes, bytes - chunk * kChunkBytes);
    if (slab.chunks[chunk]) {
      const int status = uring_->UnregisterBuffer(static_cast<unsigned>(slab.firstChunk + chunk));
      if (status < 0) return status;
      slab.chunks[chunk] = false;
      registeredBytes_ -= chunkBytes;
    }
    if (slab.touched[chunk]) touchedBytes_ -= chunkBytes;
    if (slab.huge[chunk]) hugeBytes_ -= chunkBytes / kHugePage * kHugePage;
    slab.touched[chunk] = false;
    slab.huge[chunk] = false;
  }
  return slab.memory->Punch(offset, length);
}

// Calls into JavaScript with a callback scope of its own, so that microtasks run when it returned. False where JavaScript is over.
bool Ring::Call(napi_ref function) {
  napi_value callback = nullptr;
  napi_value global;
  napi_get_reference_value(env_, function, &callback);
  napi_get_global(env_, &global);
  const napi_status status = napi_make_callback(env_, nullptr, global, callback, 0, nullptr, nullptr);
  if (status == napi_ok) return true;
  bool pending = false;
  napi_is_exception_pending(env_, &pending);
  // A worker that is being terminated: nothing of it may run any more.
  if (!pending) return false;
  // Nobody below us on the stack would ever see it.
  napi_value error;
  napi_get_and_clear_last_exception(env_, &error);
  return napi_fatal_exception(env_, error) == napi_ok;
}

void Ring::Woken() {
  if (closed_ || onWake_ == nullptr) return;
  int32_t* armed = &core_->control[CONTROL_ARMED];
  if (uring_ != nullptr) {
    uring_->PublishHead(KernelHead());
    if (uring_->HoldsBack()) uring_->Reap(0);
  }
  // The kernel signals for completions that TypeScript has long seen, too. Where it still waits for the next, there is nothing to tell.
  if (__atomic_load_n(armed, __ATOMIC_SEQ_CST) == 1 && !Unseen()) return;
  __atomic_store_n(armed, 0, __ATOMIC_SEQ_CST);
  // The callback may close the ring.
  const std::shared_ptr<Ring> keep = shared_from_this();
  napi_handle_scope scope;
  if (napi_open_handle_scope(env_, &scope) != napi_ok) return;
  if (Call(onWake_) && !closed_) Call(onSettled_);
  napi_close_handle_scope(env_, scope);
}

// Cancels and waits for what is in flight. False if something is still running when the time is over. (A thread that submitted to the kernel's ring
// is kept by the kernel itself at its very end, in do_exit, until its workers are out of the system calls that cannot be cancelled.)
bool Ring::Drain() {
  const bool kernelBusy = uring_ != nullptr && uring_->InFlight() > 0;
  if (core_->outstanding.load(std::memory_order_acquire) > 0) CancelJobs(core_.get());
  if (kernelBusy) uring_->CancelAll();
  const int64_t end = NowMs() + kDrainMs;
  for (;;) {
    bool busy = core_->outstanding.load(std::memory_order_acquire) > 0;
    if (uring_ != nullptr && uring_->InFlight() > 0) {
      uring_->PublishHead(uring_->CompletionTail());
      uring_->Reap(0);
      busy = busy || uring_->InFlight() > 0;
    }
    if (!busy) return true;
    if (NowMs() >= end) return false;
    // A pool thread signals only where TypeScript is armed; a short nap instead of a second protocol for the last milliseconds of a ring.
    pollfd ready{core_->wakeup.fd(), POLLIN, 0};
    if (poll(&ready, 1, 1) == 1) core_->wakeup.Drain();
  }
}

void Ring::Release() {
  closed_ = true;
  const bool idle = Drain();
  if (!idle) {
    // The kernel's workers copy through this process's address space until their operation ends, whenever that is, and a pool thread does too. What they
    // write to must not become somebody else's memory: this slab stays for as long as the process does.
    new std::vector<RegisteredSlab>(core_->slabs);
  }
  uring_.reset();
  // A job that hangs holds the core; it needs the queue and the wake-up of it, not the slabs and files.
  core_->slabs.clear();
  core_->files.clear();
}

void Ring::Close() {
  if (closed_) return;
  Release();
  if (onWake_ != nullptr) napi_delete_reference(env_, onWake_);
  if (onSettled_ != nullptr) napi_delete_reference(env_, onSettled_);
  onWake_ = onSettled_ = nullptr;
  Stop();
}

// The hook stays until libuv let go of the handle: an environment that ends in between must wait for it.
void Ring::Stop() {
  core_->wakeup.Stop(
      [](void* context) {
        auto* ring = static_cast<Ring*>(context);
        napi_remove_async_cleanup_hook(ring->cleanup_);
        // JavaScript may keep the methods of a closed ring for long: the eventfd and the memory are not theirs to keep.
        ring->core_.reset();
        ring->self_.reset();
      },
      this);
}

// The environment ends (worker.terminate(), the end of the loop) with the ring open, or closed and libuv not yet done with it.
void Ring::EndOfEnvironment(napi_async_cleanup_hook_handle, void* data) {
  auto* ring = static_cast<Ring*>(data);
  if (ring->closed_) return;
  ring->Release();
  // The references to the callbacks belong to an environment that drops them itself.
  ring->Stop();
}

std::string Megabytes(uint64_t bytes) {
  char text[32];
  snprintf(text, sizeof text, "%.4g MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

// Most of what was used lies in huge pages: then a look at all the pages of one costs what a look at a single page does.
bool Ring::IsHuge() const { return hugeBytes_ > 0 && hugeBytes_ >= touchedBytes_ / 2; }

Feature Ring::HugePages() const {
  if (slabBytes_ < kHugePage) return {"huge pages", false, "there is less memory than one, " + Megabytes(slabBytes_)};
  std::string reason = "under " + Megabytes(hugeBytes_) + " of " + Megabytes(touchedBytes_);
  if (hugeFailures_ >= kHugeTries) {
    reason += hugeError_ == EINVAL  ? "; not tried any more: the kernel makes none of shared memory on demand (Linux 6.1 does)"
              : hugeError_ != 0     ? "; not tried any more: " + ErrorText(hugeError_)
                                    : "; not tried any more: they took too long";
  } else if (touchedBytes_ < slabBytes_) {
    reason += "; the rest when it is first touched";
  }
  return {"huge pages", hugeBytes_ > 0 || hugeFailures_ < kHugeTries, reason};
}

std::vector<Feature> Ring::Features() const {
  std::vector<Feature> all = features;
  all.push_back(HugePages());
  if (uring_ == nullptr) return all;
  const int error = uring_->BuffersError();
  std::string reason = "used for " + Megabytes(registeredBytes_) + " of " + Megabytes(slabBytes_);
  if (error == ENOMEM) {
    reason += "; refused beyond because ENOMEM: memlock limit (RLIMIT_MEMLOCK)";
  } else if (error != 0) {
    reason += "; refused because " + ErrorText(error);
  } else if (registeredBytes_ < slabBytes_) {
    reason += "; the rest when it is first touched";
  }
  all.push_back({"registered buffers", registeredBytes_ > 0 || error == 0, reason});
  size_t registered = 0;
  for (const File& file : core_->files) registered += file.slot >= 0;
  if (registered < core_->files.size()) {
    all.push_back({"registered file for every file", false, std::to_string(registered) + " of " + std::to_string(core_->files.size()) + " files"});
  }
  return all;
}

// --- JavaScript's side ---

napi_value Integer(napi_env env, int32_t value) {
  napi_value result;
  napi_create_int32(env, value, &result);
  return result;
}

napi_value Text(napi_env env, const std::string& value) {
  napi_value result;
  napi_create_string_utf8(env, value.data(), value.size(), &result);
  return result;
}

napi_value FeatureList(napi_env env, const std::vector<Feature>& features) {
  napi_value list;
  napi_create_array_with_length(env, features.size(), &list);
  uint32_t index = 0;
  for (const Feature& feature : features) {
    napi_value object, used;
    napi_create_object(env, &object);
    napi_set_named_property(env, object, "name", Text(env, feature.name));
    napi_get_boolean(env, feature.used, &used);
    napi_set_named_property(env, object, "used", used);
    napi_set_named_property(env, object, "reason", Text(env, feature.reason));
    napi_set_element(env, list, index++, object);
  }
  return list;
}

// Each method is a function of its own ring with the ring as its data: no unwrapping of `this` on the hot path. The data holds the ring until the function
// was collected, so a method that was kept beyond the object finds a closed ring, not freed memory.
using Hold = std::shared_ptr<Ring>;

template <size_t count>
Ring* RingOf(napi_env env, napi_callback_info info, napi_value* arguments) {
  size_t given = count;
  void* data;
  napi_get_cb_info(env, info, &given, arguments, nullptr, &data);
  return static_cast<Hold*>(data)->get();
}

napi_value SubmitMethod(napi_env env, napi_callback_info info) {
  napi_value argument;
  Ring* ring = RingOf<1>(env, info, &argument);
  uint32_t count = 0;
  napi_get_value_uint32(env, argument, &count);
  return Integer(env, ring->Submit(count));
}

napi_value CollectMethod(napi_env env, napi_callback_info info) { return Integer(env, RingOf<0>(env, info, nullptr)->Collect()); }

napi_value WaitMethod(napi_env env, napi_callback_info info) { return Integer(env, RingOf<0>(env, info, nullptr)->Wait()); }

napi_value ListenMethod(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  RingOf<2>(env, info, arguments)->Listen(arguments[0], arguments[1]);
  return nullptr;
}

napi_value IsHugeMethod(napi_env env, napi_callback_info info) { return Integer(env, RingOf<0>(env, info, nullptr)->IsHuge() ? 1 : 0); }

napi_value RefMethod(napi_env env, napi_callback_info info) {
  RingOf<0>(env, info, nullptr)->Ref();
  return nullptr;
}

napi_value UnrefMethod(napi_env env, napi_callback_info info) {
  RingOf<0>(env, info, nullptr)->Unref();
  return nullptr;
}

napi_value AddFileMethod(napi_env env, napi_callback_info info) {
  napi_value argument;
  Ring* ring = RingOf<1>(env, info, &argument);
  int32_t fd = -1;
  napi_get_value_int32(env, argument, &fd);
  return Integer(env, ring->AddFile(fd));
}

napi_value AddSlabMethod(napi_env env, napi_callback_info info) {
  napi_value argument;
  Ring* ring = RingOf<1>(env, info, &argument);
  return Integer(env, ring->AddSlab(SlabMemoryOf(Napi::Value(env, argument))));
}

napi_value GiveBackMethod(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  Ring* ring = RingOf<3>(env, info, arguments);
  uint32_t slab = UINT32_MAX;
  int64_t offset = -1;
  int64_t length = -1;
  napi_get_value_uint32(env, arguments[0], &slab);
  napi_get_value_int64(env, arguments[1], &offset);
  napi_get_value_int64(env, arguments[2], &length);
  if (offset < 0 || length < 0) return Integer(env, -EINVAL);
  return Integer(env, ring->GiveBack(slab, static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
}

napi_value CloseMethod(napi_env env, napi_callback_info info) {
  RingOf<0>(env, info, nullptr)->Close();
  return nullptr;
}

napi_value FeaturesMethod(napi_env env, napi_callback_info info) { return FeatureList(env, RingOf<0>(env, info, nullptr)->Features()); }

void Method(napi_env env, napi_value object, const char* name, napi_callback callback, const Hold& ring) {
  auto* hold = new Hold(ring);
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, hold, &function);
  napi_add_finalizer(env, function, hold, [](napi_env, void* data, void*) { delete static_cast<Hold*>(data); }, nullptr, nullptr);
  napi_set_named_property(env, object, name, function);
}

// Memory as JavaScript sees it; mapped until the buffer was collected, whatever becomes of the ring. Null where external buffers are not to be had.
napi_value Buffer(napi_env env, const std::shared_ptr<Mapping>& mapping, void* start, size_t bytes) {
  auto* hold = new std::shared_ptr<Mapping>(mapping);
  napi_value buffer = nullptr;
  napi_status status = napi_create_external_arraybuffer(
      env, start, bytes, [](napi_env, void*, void* data) { delete static_cast<std::shared_ptr<Mapping>*>(data); }, hold, &buffer);
  if (status != napi_ok) {
    delete hold;
    return nullptr;
  }
  return buffer;
}

napi_value Queue(napi_env env, napi_value buffer, uint32_t tail, uint32_t first, uint32_t entries, uint32_t head) {
  napi_value queue;
  napi_create_object(env, &queue);
  napi_set_named_property(env, queue, "buffer", buffer);
  napi_set_named_property(env, queue, "tail", Integer(env, static_cast<int32_t>(tail)));
  napi_set_named_property(env, queue, "first", Integer(env, static_cast<int32_t>(first)));
  napi_set_named_property(env, queue, "mask", Integer(env, static_cast<int32_t>(entries - 1)));
  napi_set_named_property(env, queue, "head", Integer(env, static_cast<int32_t>(head)));
  return queue;
}

napi_value Refusal(napi_env env, int error, const std::vector<Feature>& features) {
  napi_value object;
  napi_create_object(env, &object);
  napi_set_named_property(env, object, "error", Integer(env, error));
  napi_set_named_property(env, object, "features", FeatureList(env, features));
  return object;
}

napi_value CreateRing(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value options, value;
  napi_get_cb_info(env, info, &count, &options, nullptr, nullptr);
  char engine[16] = "";
  size_t length = 0;
  uint32_t depth = 0;
  napi_get_named_property(env, options, "engine", &value);
  napi_get_value_string_utf8(env, value, engine, sizeof engine, &length);
  napi_get_named_property(env, options, "depth", &value);
  napi_get_value_uint32(env, value, &depth);

  auto ring = std::make_shared<Ring>();
  int status = ring->Open(env, std::string(engine, length), depth);
  if (status < 0) return Refusal(env, status, ring->features);
  RingCore& core = ring->core();
  const Uring* uring = ring->uring();

  napi_value object, queues;
  napi_create_object(env, &object);
  napi_create_array(env, &queues);
  napi_value entries = Buffer(env, core.memory, core.entries, depth * ENTRY_WORDS * 4);
  napi_value control = Buffer(env, core.memory, core.control, kLine);
  napi_value own = Buffer(env, core.memory, core.tail, kLine + core.queueEntries * COMPLETION_WORDS * 4);
  napi_value kernel = uring == nullptr ? nullptr : Buffer(env, uring->CompletionView(), uring->CompletionView()->base, uring->CompletionView()->bytes);
  if (entries == nullptr || control == nullptr || own == nullptr || (uring != nullptr && kernel == nullptr)) {
    return Refusal(env, -EOPNOTSUPP, {{"external buffers", false, "this JavaScript engine does not let an addon lend it memory"}});
  }
  uint32_t index = 0;
  if (uring != nullptr) {
    const auto& offsets = uring->CompletionOffsets();
    napi_set_element(env, queues, index, Queue(env, kernel, offsets.tail / 4, offsets.cqes / 4, uring->CompletionEntries(), index + 1));
    index++;
  }
  napi_set_element(env, queues, index, Queue(env, own, 0, kLine / 4, core.queueEntries, index + 1));

  status = ring->Start();
  if (status < 0) return Refusal(env, status, ring->features);

  napi_set_named_property(env, object, "engine", Text(env, ring->engine()));
  napi_set_named_property(env, object, "depth", Integer(env, static_cast<int32_t>(depth)));
  napi_set_named_property(env, object, "entries", entries);
  napi_set_named_property(env, object, "control", control);
  napi_set_named_property(env, object, "queues", queues);
  Method(env, object, "submit", SubmitMethod, ring);
  Method(env, object, "collect", CollectMethod, ring);
  Method(env, object, "wait", WaitMethod, ring);
  Method(env, object, "listen", ListenMethod, ring);
  Method(env, object, "ref", RefMethod, ring);
  Method(env, object, "unref", UnrefMethod, ring);
  Method(env, object, "addFile", AddFileMethod, ring);
  Method(env, object, "addSlab", AddSlabMethod, ring);
  Method(env, object, "giveBack", GiveBackMethod, ring);
  Method(env, object, "isHuge", IsHugeMethod, ring);
  Method(env, object, "close", CloseMethod, ring);
  Method(env, object, "features", FeaturesMethod, ring);
  return object;
}

}  // namespace

void InitRing(Napi::Env env, Napi::Object exports) {
  napi_value function;
  napi_create_function(env, "createRing", NAPI_AUTO_LENGTH, CreateRing, nullptr, &function);
  napi_set_named_property(env, exports, "createRing", function);
}
