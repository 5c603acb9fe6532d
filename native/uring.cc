// See uring.h.
#include "uring.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

// The newer half of include/uapi/linux/io_uring.h (here: Linux 6.1), so that the headers of Linux 5.10 are enough to build.
constexpr unsigned kSetupCqSize = 1u << 3;         // IORING_SETUP_CQSIZE, 5.5
constexpr unsigned kSetupClamp = 1u << 4;          // IORING_SETUP_CLAMP, 5.6
constexpr unsigned kSetupSubmitAll = 1u << 7;      // IORING_SETUP_SUBMIT_ALL, 5.18
constexpr unsigned kSetupCoopTaskrun = 1u << 8;    // IORING_SETUP_COOP_TASKRUN, 5.19
constexpr unsigned kSetupTaskrunFlag = 1u << 9;    // IORING_SETUP_TASKRUN_FLAG, 5.19
constexpr unsigned kSetupSingleIssuer = 1u << 12;  // IORING_SETUP_SINGLE_ISSUER, 6.0
constexpr unsigned kSetupDeferTaskrun = 1u << 13;  // IORING_SETUP_DEFER_TASKRUN, 6.1
constexpr unsigned kEnterRegisteredRing = 1u << 4; // IORING_ENTER_REGISTERED_RING, 5.18
constexpr unsigned kRegisterBuffers2 = 15;         // IORING_REGISTER_BUFFERS2, 5.13
constexpr unsigned kRegisterBuffersUpdate = 16;    // IORING_REGISTER_BUFFERS_UPDATE, 5.13
constexpr unsigned kRegisterRingFds = 20;          // IORING_REGISTER_RING_FDS, 5.18
constexpr unsigned kUnregisterRingFds = 21;        // IORING_UNREGISTER_RING_FDS, 5.18
constexpr unsigned kRsrcRegisterSparse = 1u << 0;  // IORING_RSRC_REGISTER_SPARSE, 5.19
constexpr unsigned kCancelAll = 1u << 0;           // IORING_ASYNC_CANCEL_ALL, 5.19
constexpr unsigned kCancelAny = 1u << 2;           // IORING_ASYNC_CANCEL_ANY, 5.19

// struct io_uring_rsrc_register, 5.13; `flags` since 5.19.
struct RsrcRegister {
  uint32_t nr;
  uint32_t flags;
  uint64_t reserved;
  uint64_t data;
  uint64_t tags;
};

// struct io_uring_rsrc_update2, 5.13.
struct RsrcUpdate {
  uint32_t offset;
  uint32_t reserved;
  uint64_t data;
  uint64_t tags;
  uint32_t nr;
  uint32_t reserved2;
};

// struct io_uring_rsrc_update, 5.13.
struct RingUpdate {
  uint32_t offset;
  uint32_t reserved;
  uint64_t data;
};

// From best to plain. Deferred task running completes operations when asked for, in batches and on the thread that asks; cooperative task running at least
// interrupts nobody for it. A larger completion queue costs memory alone and is never full.
struct Setup {
  unsigned flags;
  const char* name;
};
constexpr Setup kSetups[] = {
    {kSetupSingleIssuer | kSetupDeferTaskrun | kSetupTaskrunFlag | kSetupSubmitAll | kSetupCqSize | kSetupClamp, "deferred task running"},
    {kSetupCoopTaskrun | kSetupTaskrunFlag | kSetupSubmitAll | kSetupCqSize | kSetupClamp, "cooperative task running"},
    {kSetupCqSize | kSetupClamp, "completion queue larger than the submission queue"},
    {0, "plain setup"},
};
constexpr unsigned kCompletionsPerEntry = 4;

// How often a refusal that may pass (no memory at the moment) is asked again within one Submit. More would hold up the event loop.
constexpr unsigned kSubmitAttempts = 3;

int MakeRing(unsigned entries, io_uring_params* params) {
  long result = syscall(SYS_io_uring_setup, entries, params);
  return result < 0 ? -errno : static_cast<int>(result);
}

int Register(int fd, unsigned operation, const void* argument, unsigned count) {
  long result = syscall(SYS_io_uring_register, fd, operation, argument, count);
  return result < 0 ? -errno : static_cast<int>(result);
}

// A ring on this machine has carried an operation before, so the next need not prove it.
std::atomic<bool> proved{false};

}  // namespace

std::string ErrorText(int error) {
  const char* name = nullptr;
  switch (error) {
    case EPERM: name = "EPERM"; break;
    case ENOSYS: name = "ENOSYS"; break;
    case ENOMEM: name = "ENOMEM"; break;
    case EINVAL: name = "EINVAL"; break;
    case EACCES: name = "EACCES"; break;
    case EFAULT: name = "EFAULT"; break;
    case EBUSY: name = "EBUSY"; break;
    case EAGAIN: name = "EAGAIN"; break;
    case EMFILE: name = "EMFILE"; break;
    case ENFILE: name = "ENFILE"; break;
    case EBADF: name = "EBADF"; break;
    case EOPNOTSUPP: name = "EOPNOTSUPP"; break;
  }
  std::string text = name != nullptr ? name : "errno " + std::to_string(error);
  return text + " (" + strerror(error) + ")";
}

Mapping::~Mapping() { munmap(base, bytes); }

std::unique_ptr<Uring> Uring::Open(unsigned depth, int eventfd, std::vector<Feature>& features, int* error) {
  std::unique_ptr<Uring> ring(new Uring);
  int status = -EINVAL;
  std::vector<Feature> setups;
  for (const Setup& setup : kSetups) {
    ring->params_ = {};
    ring->params_.flags = setup.flags;
    if (setup.flags & kSetupCqSize) ring->params_.cq_entries = depth * kCompletionsPerEntry;
    status = MakeRing(depth, &ring->params_);
    if (status >= 0) {
      setups.push_back({setup.name, true, "in use"});
      break;
    }
    setups.push_back({setup.name, false, "refused: " + ErrorText(-status) + (status == -EINVAL ? ": this kernel does not know it" : "")});
    // Only an unknown flag is a reason to ask for less.
    if (status != -EINVAL) break;
  }
  if (status >= 0) {
    ring->fd_ = ring->enterFd_ = status;
    status = ring->Map();
  }
  if (status >= 0) status = ring->Probe(depth);
  if (status < 0) {
    std::string why = ErrorText(-status);
    if (status == -EPERM || status == -EACCES) why = "EPERM (seccomp or kernel.io_uring_disabled)";
    if (status == -ENOSYS) why = "ENOSYS (this kernel has no io_uring, or seccomp hides it)";
    if (status == -ENOMEM) why = "ENOMEM (before Linux 5.12 rings count against the memlock limit)";
    features.push_back({"io_uring", false, "io_uring refused: " + why});
    *error = status;
    return nullptr;
  }
  features.push_back({"io_uring", true, "a probe of it works"});
  features.insert(features.end(), setups.begin(), setups.end());
  ring->RegisterTables(eventfd, features);
  *error = 0;
  return ring;
}

int Uring::Map() {
  const auto& sq = params_.sq_off;
  const auto& cq = params_.cq_off;
  size_t sqBytes = sq.array + params_.sq_entries * sizeof(unsigned);
  size_t cqBytes = cq.cqes + params_.cq_entries * sizeof(io_uring_cqe);
  size_t sqeBytes = params_.sq_entries * sizeof(io_uring_sqe);
  const bool single = (params_.features & IORING_FEAT_SINGLE_MMAP) != 0;
  if (single) sqBytes = cqBytes = sqBytes > cqBytes ? sqBytes : cqBytes;

  // A child that inherited a ring would share its heads and tails with us.
  auto map = [this](size_t bytes, int protection, unsigned long long offset) -> void* {
    void* base = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_POPULATE, fd_, static_cast<off_t>(offset));
    if (base == MAP_FAILED) return nullptr;
    madvise(base, bytes, MADV_DONTFORK);
    return base;
  };

  void* rings = map(sqBytes, PROT_READ | PROT_WRITE, IORING_OFF_SQ_RING);
  if (rings == nullptr) return -errno;
  rings_ = std::make_unique<Mapping>(rings, sqBytes);
  void* completions = rings;
  if (!single) {
    completions = map(cqBytes, PROT_READ | PROT_WRITE, IORING_OFF_CQ_RING);
    if (completions == nullptr) return -errno;
    completions_ = std::make_unique<Mapping>(completions, cqBytes);
  }
  void* entries = map(sqeBytes, PROT_READ | PROT_WRITE, IORING_OFF_SQES);
  if (entries == nullptr) return -errno;
  entries_ = std::make_unique<Mapping>(entries, sqeBytes);
  void* view = map(cqBytes, PROT_READ, IORING_OFF_CQ_RING);
  if (view == nullptr) view = map(cqBytes, PROT_READ | PROT_WRITE, IORING_OFF_CQ_RING);
  if (view == nullptr) return -errno;
  view_ = std::make_shared<Mapping>(view, cqBytes);

  auto word = [](void* base, unsigned offset) { return reinterpret_cast<unsigned*>(static_cast<char*>(base) + offset); };
  sqTail_ = word(rings, sq.tail);
  sqFlags_ = word(rings, sq.flags);
  sqMask_ = *word(rings, sq.ring_mask);
  cqHead_ = word(completions, cq.head);
  cqTail_ = word(completions, cq.tail);
  sqes_ = static_cast<io_uring_sqe*>(entries);
  tail_ = *sqTail_;
  // Entries are handed over in their own order, so the indirection is written once.
  unsigned* array = word(rings, sq.array);
  for (unsigned i = 0; i < params_.sq_entries; i++) array[i] = i;
  return 0;
}

// Does what the engine needs work here? A ring can be made where its operations are filtered.
int Uring::Probe(unsigned depth) {
  if (params_.sq_entries < depth) return -EINVAL;
  alignas(io_uring_probe) char memory[sizeof(io_uring_probe) + 256 * sizeof(io_uring_probe_op)] = {};
  auto* probe = reinterpret_cast<io_uring_probe*>(memory);
  int status = Register(fd_, IORING_REGISTER_PROBE, probe, 256);
  if (status < 0) return status;
  for (unsigned operation : {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_FSYNC}) {
    if (operation > probe->last_op || !(probe->ops[operation].flags & IO_URING_OP_SUPPORTED)) return -EOPNOTSUPP;
  }
  if (proved.load(std::memory_order_relaxed)) return 0;
  // Through a ring of its own: this one's queue starts at 0 for JavaScript.
  Uring trial;
  trial.params_.flags = params_.flags & ~kSetupCqSize;
  status = MakeRing(1, &trial.params_);
  if (status < 0) return status;
  trial.fd_ = trial.enterFd_ = status;
  status = trial.Map();
  if (status < 0) return status;
  trial.Next()->opcode = IORING_OP_NOP;
  int error = 0;
  if (trial.Submit(&error) != 0) return error;
  status = trial.Reap(1);
  if (status < 0) return status;
  if (trial.CompletionTail() == 0) return -EIO;
  proved.store(true, std::memory_order_relaxed);
  return 0;
}

void Uring::RegisterTables(int eventfd, std::vector<Feature>& features) {
  Register(fd_, IORING_REGISTER_EVENTFD, &eventfd, 1);

  int none[kFileSlots];
  for (int& slot : none) slot = -1;
  int status = Register(fd_, IORING_REGISTER_FILES, none, kFileSlots);
  files_ = status >= 0;
  features.push_back({"registered file", files_, files_ ? "in use" : "refused: " + ErrorText(-status)});

  RsrcRegister table{kBufferSlots, kRsrcRegisterSparse, 0, 0, 0};
  status = Register(fd_, kRegisterBuffers2, &table, sizeof table);
  buffers_ = status >= 0;
  buffersError_ = buffers_ ? 0 : -status;

  RingUpdate self{~0u, 0, static_cast<uint64_t>(fd_)};
  status = Register(fd_, kRegisterRingFds, &self, 1);
  if (status == 1) {
    enterFd_ = static_cast<int>(self.offset);
    enterFlags_ = kEnterRegisteredRing;
  }
  features.push_back({"registered ring", status == 1, status == 1 ? "in use" : "refused: " + ErrorText(-status)});
}

Uring::~Uring() {
  if (fd_ < 0) return;
  // Closing a ring only begins to end it, in a kernel worker. Files, pinned memory and its memlock account are given back here, so that a file system can be
  // unmounted and the next ring finds the limit as it was.
  // With operations in flight it would wait for them, without end on a device that hangs.
  if (rings_ != nullptr && InFlight() == 0) {
    if (buffers_) Register(fd_, IORING_UNREGISTER_BUFFERS, nullptr, 0);
    if (files_) Register(fd_, IORING_UNREGISTER_FILES, nullptr, 0);
  }
  Register(fd_, IORING_UNREGISTER_EVENTFD, nullptr, 0);
  if (enterFlags_ & kEnterRegisteredRing) {
    RingUpdate self{static_cast<uint32_t>(enterFd_), 0, 0};
    Register(fd_, kUnregisterRingFds, &self, 1);
  }
  // A mapping keeps the ring alive, and JavaScript may keep this one: put empty memory there.
  if (view_ != nullptr) {
    mmap(view_->base, view_->bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  close(fd_);
}

int Uring::Enter(unsigned submit, unsigned least, unsigned flags) {
  long result = syscall(SYS_io_uring_enter, enterFd_, submit, least, flags | enterFlags_, nullptr, 0);
  return result < 0 ? -errno : static_cast<int>(result);
}

io_uring_sqe* Uring::Next() {
  io_uring_sqe* entry = &sqes_[tail_ & sqMask_];
  tail_++;
  filled_++;
  memset(entry, 0, sizeof *entry);
  return entry;
}

unsigned Uring::Submit(int* error) {
  unsigned left = filled_;
  filled_ = 0;
  __atomic_store_n(sqTail_, tail_, __ATOMIC_RELEASE);
  unsigned flags = HoldsBack() ? IORING_ENTER_GETEVENTS : 0;
  unsigned attempts = 0;
  while (left > 0) {
    int taken = Enter(left, 0, flags);
    if (taken > 0) {
      // Fewer than asked: without IORING_SETUP_SUBMIT_ALL a bad entry (which completes with its error) stops the ones behind it.
      left -= static_cast<unsigned>(taken);
      submitted_ += static_cast<unsigned>(taken);
      attempts = 0;
    } else if (taken != -EINTR) {
      // EAGAIN: no memory for a request right now. EBUSY: completions overflowed, which asking for them mends.
      if ((taken == 0 || taken == -EAGAIN || taken == -EBUSY) && ++attempts < kSubmitAttempts) {
        flags |= IORING_ENTER_GETEVENTS;
        continue;
      }
      *error = taken == 0 ? -EAGAIN : taken;
      // Without a polling kernel thread the queue is read within Enter only, so what was not taken can be taken back.
      tail_ -= left;
      __atomic_store_n(sqTail_, tail_, __ATOMIC_RELEASE);
      return left;
    }
  }
  return 0;
}

int Uring::Reap(unsigned least) {
  for (;;) {
    int result = Enter(0, least, IORING_ENTER_GETEVENTS);
    if (result >= 0) return 0;
    if (result != -EINTR) return result;
  }
}

void Uring::CancelAll() {
  io_uring_sqe* entry = Next();
  entry->opcode = IORING_OP_ASYNC_CANCEL;
  entry->fd = -1;
  // The field that holds cancel_flags since 5.19 shares its place with rw_flags. An older kernel completes this with EINVAL.
  entry->rw_flags = static_cast<int>(kCancelAll | kCancelAny);
  int error;
  Submit(&error);
}

int Uring::RegisterFile(int fd) {
  if (!files_) return -EOPNOTSUPP;
  if (filesUsed_ == kFileSlots) return -EMFILE;
  io_uring_files_update update{};
  update.offset = filesUsed_;
  update.fds = reinterpret_cast<uint64_t>(&fd);
  int status = Register(fd_, IORING_REGISTER_FILES_UPDATE, &update, 1);
  if (status != 1) return status < 0 ? status : -EIO;
  return static_cast<int>(filesUsed_++);
}

bool Uring::RegisterBuffer(unsigned index, void* address, size_t bytes) {
  iovec memory{address, bytes};
  RsrcUpdate update{index, 0, reinterpret_cast<uint64_t>(&memory), 0, 1, 0};
  int status = Register(fd_, kRegisterBuffersUpdate, &update, sizeof update);
  if (status == 1) return true;
  buffersError_ = status < 0 ? -status : EIO;
  return false;
}

int Uring::UnregisterBuffer(unsigned index) {
  iovec none{nullptr, 0};
  RsrcUpdate update{index, 0, reinterpret_cast<uint64_t>(&none), 0, 1, 0};
  int status = Register(fd_, kRegisterBuffersUpdate, &update, sizeof update);
  if (status != 1) return status < 0 ? status : -EIO;
  // What the limit refused may have room now.
  if (buffersError_ == ENOMEM) buffersError_ = 0;
  return 0;
}
