// The kernel's ring, by raw system calls.
//
//   submission entries   filled here by ring.cc, mapped for nobody else: an entry holds addresses
//   completion queue     mapped a second time, read-only, for JavaScript; user_data is the handle, so the kernel's entry is a completion as it stands
//
// Setup goes from the best flags to none; what the kernel refuses is kept as a reason in plain words. Found out by doing, not by version: container runtimes
// forbid io_uring, or parts of it, on kernels that have it.
// Guarantees: no entry is lost: Submit says which it could not hand over. Used by the one thread that opened it (IORING_SETUP_SINGLE_ISSUER).
// Leaves to others: checking entries, and keeping alive what they point at (ring.cc).
#pragma once
#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct Feature {
  std::string name;
  bool used;
  std::string reason;
};

// "EPERM (Operation not permitted)". `error` is an errno, positive.
std::string ErrorText(int error);

// A mapping that is given back when the last holder is done; JavaScript's ArrayBuffers are among them.
struct Mapping {
  void* base;
  size_t bytes;
  Mapping(void* base, size_t bytes) : base(base), bytes(bytes) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();
};

class Uring {
 public:
  // Empty where the kernel refuses; then `error` is -errno and the reason is among `features`.
  static std::unique_ptr<Uring> Open(unsigned depth, int eventfd, std::vector<Feature>& features, int* error);
  ~Uring();

  // The next free submission entry, zeroed. There are as many as the depth asked for.
  io_uring_sqe* Next();
  // Hands all filled entries to the kernel. Answers with how many it did not take: the last ones, see Refused; `error` is -errno then.
  unsigned Submit(int* error);
  // The handle of refused entry `index`, right after Submit.
  uint32_t Refused(unsigned index) const { return static_cast<uint32_t>(sqes_[(tail_ + index) & sqMask_].user_data); }

  // True while the kernel holds completions back until it is entered.
  bool HoldsBack() const { return (__atomic_load_n(sqFlags_, __ATOMIC_ACQUIRE) & (kTaskRun | kOverflow)) != 0; }
  // Enters the kernel for its completions; returns once `least` of them are in the queue. 0 or -errno.
  int Reap(unsigned least);
  uint32_t CompletionTail() const { return __atomic_load_n(cqTail_, __ATOMIC_ACQUIRE); }
  // Completions before `head` were seen: their places may be written again.
  void PublishHead(uint32_t head) { __atomic_store_n(cqHead_, head, __ATOMIC_RELEASE); }
  // Entries that the kernel took and has not completed.
  uint32_t InFlight() const { return submitted_ - CompletionTail(); }
  // Asks the kernel to cancel all that can be. Itself completes once more.
  void CancelAll();

  // Index in the table of registered files, or -errno.
  int RegisterFile(int fd);
  bool TakesBuffers() const { return buffersError_ == 0; }
  // errno of the first refusal, 0 if there was none.
  int BuffersError() const { return buffersError_; }
  // Registers memory at `index` < kBufferSlots of the table.
  bool RegisterBuffer(unsigned index, void* address, size_t bytes);

  // Empties its place in the table: the kernel lets go of the memory, and of its memlock account. 0 or -errno.
  int UnregisterBuffer(unsigned index);

  const std::shared_ptr<Mapping>& CompletionView() const { return view_; }
  const io_cqring_offsets& CompletionOffsets() const { return params_.cq_off; }
  unsigned CompletionEntries() const { return params_.cq_entries; }

  static constexpr unsigned kFileSlots = 8;
  static constexpr unsigned kBufferSlots = 4096;

 private:
  Uring() = default;
  int Enter(unsigned submit, unsigned least, unsigned flags);
  int Map();
  int Probe(unsigned depth);
  void RegisterTables(int eventfd, std::vector<Feature>& features);

  static constexpr unsigned kOverflow = 1u << 1;  // IORING_SQ_CQ_OVERFLOW, Linux 5.8
  static constexpr unsigned kTaskRun = 1u << 2;   // IORING_SQ_TASKRUN, Linux 5.19

  int fd_ = -1;
  // What io_uring_enter is given: the descriptor, or its index among the thread's registered rings.
  int enterFd_ = -1;
  unsigned enterFlags_ = 0;
  io_uring_params params_{};
  std::unique_ptr<Mapping> rings_;
  std::unique_ptr<Mapping> completions_;
  std::unique_ptr<Mapping> entries_;
  std::shared_ptr<Mapping> view_;
  io_uring_sqe* sqes_ = nullptr;
  unsigned* sqTail_ = nullptr;
  unsigned* sqFlags_ = nullptr;
  unsigned* cqHead_ = nullptr;
  unsigned* cqTail_ = nullptr;
  unsigned sqMask_ = 0;
  unsigned tail_ = 0;
  unsigned filled_ = 0;
  uint32_t submitted_ = 0;
  bool files_ = false;
  unsigned filesUsed_ = 0;
  bool buffers_ = false;
  int buffersError_ = 0;
};
