// See presence.h.
#include "presence.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "quiet_thread.h"

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, __u64)  // include/uapi/linux/fs.h, Linux 5.15
#endif

namespace {

constexpr int64_t kBlock = 4096;
// Behind the end of any file, and not aligned: a read there touches neither device nor page cache, but a file system that was shut down refuses it.
constexpr off_t kBeyond = (off_t{1} << 60) + 1;

constexpr int kCauseUnplug = 3;
constexpr int kCauseShutdown = 4;

struct Pool {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work = PTHREAD_COND_INITIALIZER;
  std::shared_ptr<PresenceJob> first;
  PresenceJob* last = nullptr;
  void (*report)(const std::shared_ptr<PresenceJob>&) = nullptr;
  unsigned threads = 0;
  unsigned idle = 0;
};

// Never destroyed: its threads go on while the process runs its exit handlers.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

ssize_t Read(int fd, void* target, size_t bytes, off_t position) {
  ssize_t count;
  do count = pread(fd, target, bytes, position);
  while (count < 0 && errno == EINTR);
  return count < 0 ? -errno : count;
}

int64_t SizeOf(int fd, bool isDevice) {
  if (isDevice) {
    uint64_t bytes = 0;
    return ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : static_cast<int64_t>(bytes);
  }
  struct stat st;
  return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

// Up to kPlacesMax distinct blocks that have bytes on the device: the last, the middle, the first, then what lies between. Reading a hole would prove
// nothing, so the next data after each candidate is taken where the file system tells.
int ChoosePlaces(int fd, int64_t size, bool isDevice, bool ownOffset, int64_t* places) {
  const int64_t last = (size - 1) / kBlock * kBlock;
  const int64_t candidates[] = {last, size / 2, 0, size / 4 * 3, size / 4};
  int count = 0;
  for (int64_t candidate : candidates) {
    int64_t place = candidate;
    if (!isDevice && ownOffset) {
      const off_t data = lseek(fd, place, SEEK_DATA);
      if (data < 0 && errno == ENXIO) continue;
      if (data >= 0) place = data;
    }
    place = place / kBlock * kBlock;
    bool known = false;
    for (int i = 0; i < count; i++) known = known || places[i] == place;
    if (!known) places[count++] = place;
    if (count == kPlacesMax) break;
  }
  return count;
}

// False where direct reads are refused as such.
bool ReadPlaces(const PresenceJob& job, int fd, int64_t size, bool isDevice, bool ownOffset, void* block, Places* out) {
  if (size <= 0) return true;
  int64_t places[kPlacesMax];
  const int count = ChoosePlaces(fd, size, isDevice, ownOffset, places);
  for (int i = 0; i < count && !job.abandoned.load(std::memory_order_relaxed); i++) {
    const ssize_t result = Read(fd, block, kBlock, places[i]);
    if (result == -EINVAL || result == -EOPNOTSUPP || result == -EBADF) return false;
    if (result == -EAGAIN || result == -ENOMEM) continue;
    bool failed = result < 0 && MeansNoDevice(static_cast<int>(-result));
    if (result == 0) {
      // A removed device answers like the end of the file. So does the end of the file.
      const int64_t now = SizeOf(fd, isDevice);
      if (now > 0 ? places[i] >= now : !isDevice) continue;
      failed = true;
    }
    out->asked++;
    if (failed) out->failed++;
  }
  return true;
}

// The device by its node, if it may be opened and is still the same one.
Presence AskNode(const PresenceJob& job, void* block) {
  const int fd = open(job.node.c_str(), O_RDONLY | O_DIRECT | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return errno == ENXIO || errno == ENODEV || errno == ENOMEDIUM ? Presence::kDead : Presence::kUnknown;
  Presence answer = Presence::kUnknown;
  struct stat st;
  uint64_t sequence = 0;
  if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) && st.st_rdev == job.device) {
    if (job.sequence >= 0 && ioctl(fd, BLKGETDISKSEQ, &sequence) == 0 && static_cast<int64_t>(sequence) != job.sequence) {
      answer = Presence::kDead;
    } else {
      Places places;
      ReadPlaces(job, fd, SizeOf(fd, true), true, false, block, &places);
      if (places.failed < places.asked) {
        answer = Presence::kAlive;
      } else if (places.asked >= 2) {
        answer = Presence::kDead;
      }
    }
  }
  close(fd);
  return answer;
}

void Execute(PresenceJob& job, void* block) {
  if (job.remote) {
    struct statx about;
    if (statx(job.fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE, &about) < 0) {
      job.attributes = -errno;
    } else {
      job.remoteSize = static_cast<int64_t>(about.stx_size);
    }
    return;
  }
  if (job.fd >= 0) {
    // One byte behind the end may wait for a lock of the file, never for the device; here that is nobody's loss.
    const ssize_t beyond = Read(job.fd, block, 1, kBeyond);
    if (beyond < 0) job.buffered = static_cast<int>(beyond);
    if (job.size > 0) {
      char name[40];
      snprintf(name, sizeof name, "/proc/self/fd/%d", job.fd);
      const int own = open(name, O_RDONLY | O_DIRECT | O_NONBLOCK | O_CLOEXEC);
      if (own >= 0) {
        job.directUnusable = !ReadPlaces(job, own, job.size, job.isDevice, true, block, &job.file);
        close(own);
      } else if (job.isDevice && (errno == ENXIO || errno == ENODEV || errno == ENOMEDIUM)) {
        job.raw = Presence::kDead;
      } else if ((fcntl(job.fd, F_GETFL) & O_DIRECT) != 0) {
        // It may be read but not opened: the opener had rights that we have no more. Its offset is the opener's.
        job.directUnusable = !ReadPlaces(job, job.fd, job.size, job.isDevice, false, block, &job.file);
      } else {
        job.directUnusable = true;
      }
      if (job.directUnusable) job.file = Places();
    }
  }
  const bool allFailed = job.file.failed == job.file.asked;
  if (!job.isDevice && !job.node.empty() && allFailed && (job.urgent || job.file.asked > 0) && !job.abandoned.load()) job.raw = AskNode(job, block);
}

void Run(void*) {
  prctl(PR_SET_NAME, "sectorwise-look");
  void* block = mmap(nullptr, kBlock, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Pool& shared = pool();
  pthread_mutex_lock(&shared.mutex);
  for (;;) {
    while (shared.first == nullptr) {
      shared.idle++;
      pthread_cond_wait(&shared.work, &shared.mutex);
      shared.idle--;
    }
    std::shared_ptr<PresenceJob> job = std::move(shared.first);
    shared.first = std::move(job->next);
    if (shared.first == nullptr) {
      shared.last = nullptr;
    } else if (shared.idle > 0) {
      // Each thread wakes the next: this one may not come back for long.
      pthread_cond_signal(&shared.work);
    } else if (shared.threads < kProbersMax && StartQuietThread(Run) == 0) {
      shared.threads++;
    }
    pthread_mutex_unlock(&shared.mutex);
    int expected = PresenceJob::kQueued;
    if (job->state.compare_exchange_strong(expected, PresenceJob::kRunning)) {
      if (block != MAP_FAILED) Execute(*job, block);
      if (job->fd >= 0) close(job->fd);
      job->fd = -1;
      job->state.store(PresenceJob::kDone);
    }
    shared.report(job);
    job.reset();
    pthread_mutex_lock(&shared.mutex);
  }
}

}  // namespace

int PushPresence(const std::shared_ptr<PresenceJob>& job, void (*report)(const std::shared_ptr<PresenceJob>&)) {
  Pool& shared = pool();
  pthread_mutex_lock(&shared.mutex);
  int status = 0;
  shared.report = report;
  if (shared.idle == 0 && shared.threads < kProbersMax) {
    status = StartQuietThread(Run);
    if (status == 0) shared.threads++;
  }
  if (shared.threads > 0) {
    status = 0;
    if (shared.last == nullptr) {
      shared.first = job;
    } else {
      shared.last->next = job;
    }
    shared.last = job.get();
    if (shared.idle > 0) pthread_cond_signal(&shared.work);
  }
  pthread_mutex_unlock(&shared.mutex);
  return status;
}

bool AbandonPresence(PresenceJob& job) {
  job.abandoned.store(true);
  int expected = PresenceJob::kQueued;
  if (job.state.compare_exchange_strong(expected, PresenceJob::kCancelled)) {
    if (job.fd >= 0) close(job.fd);
    job.fd = -1;
    return true;
  }
  return expected != PresenceJob::kRunning;
}

bool MeansNoDevice(int error) {
  switch (error) {
    case EIO:
    case ENXIO:
    case ENODEV:
    case ENOMEDIUM:
    case ETIMEDOUT:
    case ENOLINK:
    case EREMOTEIO:
    case ENOTCONN:
    case ESHUTDOWN:
      return true;
    default:
      return false;
  }
}

Judgement Judge(const Evidence& evidence) {
  const Places& file = evidence.file;
  const bool allFailed = file.failed == file.asked;
  // A device that answers anywhere is there: what else failed are bad sectors, or a file system that refuses.
  if (allFailed && evidence.raw == Presence::kDead) return {kCauseUnplug, true};
  if (evidence.refused) return {kCauseShutdown, false};
  if (evidence.raw == Presence::kUnknown && allFailed) {
    // One bad sector must never end a file, so one place is not enough.
    if (file.asked >= 2) return {kCauseUnplug, evidence.isDevice};
    if (file.asked == 0 && (evidence.reported == ENODEV || evidence.reported == ENXIO)) return {kCauseUnplug, false};
  }
  return {};
}
