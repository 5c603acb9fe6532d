// Is it really there: questions to a file or device that may block on it, asked on threads of their own.
//
// The page cache answers for a device that is long gone. So one block is read past it at up to three places of the file, and, when those fail and the
// node of the device may be opened, at three places of the device itself: only that tells a dead device from a file system that refuses, or from a file
// that lies on bad sectors.
//
// Guarantees: a job that was begun is reported once, on a thread of the pool; the descriptor of a job is closed by the time it is reported, or by Cancel
// where it was not begun. A hung device keeps one thread busy, and there are kProbersMax. Leaves to others: when to ask (watcher.cc).
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

constexpr unsigned kProbersMax = 8;
constexpr int kPlacesMax = 3;

enum class Presence : int { kUnknown = 0, kAlive = 1, kDead = 2 };

// What reading a few places came to.
struct Places {
  // Distinct blocks that were read, and how many of them failed as those of a missing device do.
  int asked = 0;
  int failed = 0;
};

struct PresenceJob {
  // --- the question ---
  int watch = 0;
  // Of the job's own; -1 for none.
  int fd = -1;
  bool isDevice = false;
  // Served by somebody else (FUSE, network): only its attributes are asked for, from whoever serves it.
  bool remote = false;
  int64_t size = 0;
  // Ask the node of the device too where the file cannot answer. Empty where there is none.
  bool urgent = false;
  std::string node;
  uint64_t device = 0;
  int64_t sequence = -1;

  // --- the answer ---
  Places file;
  Presence raw = Presence::kUnknown;
  // Buffered read behind the end: -errno. The only sign of a shutdown where no non-blocking read is to be had.
  int buffered = 0;
  // remote: -errno of its attributes, or its size.
  int attributes = 0;
  int64_t remoteSize = -1;
  // Direct reads were refused for what they are, not for what is there.
  bool directUnusable = false;

  enum State : int { kQueued, kRunning, kDone, kCancelled };
  std::atomic<int> state{kQueued};
  // Whoever asked is gone: do not begin another read.
  std::atomic<bool> abandoned{false};
  std::shared_ptr<PresenceJob> next;
};

// Queues the job; `report` is called with it on a prober thread. 0 or -errno, when no thread is to be had.
int PushPresence(const std::shared_ptr<PresenceJob>& job, void (*report)(const std::shared_ptr<PresenceJob>&));

// Nobody waits for the answer any more. True if its descriptor is closed now; false while a thread is inside a read, which closes it afterwards.
bool AbandonPresence(PresenceJob& job);

// The errors of a read that mean there may be no device: EIO, ENXIO, ENODEV, ETIMEDOUT and the transports' own. A medium error (ENODATA) is an answer of one.
bool MeansNoDevice(int error);

// What all signs together come to.
struct Evidence {
  bool isDevice = false;
  Places file;
  Presence raw = Presence::kUnknown;
  // The file system refuses what needs no device: it was shut down.
  bool refused = false;
  // errno of somebody's own operation; 0 for none.
  int reported = 0;
};

struct Judgement {
  // 0, CAUSE_UNPLUG or CAUSE_SHUTDOWN of src/memory/validity.ts. A shutdown is to be believed after a grace only.
  int cause = 0;
  // It was the device that failed, so it concerns every file on it.
  bool wholeDevice = false;
};

Judgement Judge(const Evidence& evidence);
