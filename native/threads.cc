// See threads.h.
#include "threads.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "quiet_thread.h"
#include "ring.h"
#include "tables.h"

namespace {

// Half of a small second-level cache.
constexpr size_t kScratchBytes = 128 * 1024;
// Parts of one read: 8 MiB.
constexpr int kFillParts = 64;

struct Pool {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work = PTHREAD_COND_INITIALIZER;
  Job* first = nullptr;
  Job* last = nullptr;
  unsigned threads = 0;
  unsigned idle = 0;
};

// Never destroyed: its threads go on while the process runs its exit handlers.
Pool& pool() {
  static Pool* instance = new Pool;
  return *instance;
}

class Locked {
 public:
  explicit Locked(pthread_mutex_t& mutex) : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
  ~Locked() { pthread_mutex_unlock(&mutex_); }

 private:
  pthread_mutex_t& mutex_;
};

// What a thread of the pool has for itself. On its stack: a thread_local variable of a library that was loaded late is allocated by malloc when it is first used, and a thread's first malloc
// makes an arena, two mappings that every child inherits.
struct Own {
  // Made when first needed. Threads of the pool never end, so it is never given back.
  char* scratch = nullptr;
};

// Brings a range into the page cache: one read of all of it, each part of which goes into the same little memory, so that the copy nobody wants stays in this processor's
// cache. That it is one system call matters: the kernel sees how much is wanted, sends all of it to the device before it waits for the first page, and where reads follow
// one another it reads into large folios. readahead(2) never does, which doubles the processor time, and reports no errors.
// Answers with the bytes from the first on that are resident, or with -errno if that is none.
int Fill(const Job& job, Own& own) {
  if (own.scratch == nullptr) own.scratch = static_cast<char*>(MapOwn(kScratchBytes));
  char* const scratch = own.scratch;
  if (scratch == nullptr) return -ENOMEM;
  uint64_t done = 0;
  while (done < job.length) {
    iovec parts[kFillParts];
    int count = 0;
    for (uint64_t at = done; at < job.length && count < kFillParts; at += kScratchBytes) {
      parts[count++] = {scratch, static_cast<size_t>(std::min<uint64_t>(kScratchBytes, job.length - at))};
    }
    const ssize_t result = preadv(job.fd, parts, count, job.position + static_cast<off_t>(done));
    if (result == 0) break;
    if (result > 0) {
      done += static_cast<uint64_t>(result);
    } else if (errno != EINTR) {
      if (done == 0) return -errno;
      break;
    }
  }
  return static_cast<int>(done);
}

int Execute(const Job& job, Own& own) {
  for (;;) {
    ssize_t result = -1;
    switch (job.operation) {
      case OP_READ:
        result = pread(job.fd, job.address, job.length, job.position);
        break;
      case OP_WRITE:
        if (job.durable) {
          const iovec part{job.address, job.length};
          result = pwritev2(job.fd, &part, 1, job.position, RWF_DSYNC);
        } else {
          result = pwrite(job.fd, job.address, job.length, job.position);
        }
        break;
      case OP_SYNC:
        result = fdatasync(job.fd);
        break;
      case OP_TRUNCATE:
        result = ftruncate(job.fd, job.position);
        break;
      case OP_ALLOCATE:
        result = fallocate(job.fd, 0, job.position, static_cast<off_t>(job.length));
        break;
      case OP_DISCARD:
        if (job.blockDevice) {
          uint64_t range[2] = {static_cast<uint64_t>(job.position), job.length};
          result = ioctl(job.fd, BLKDISCARD, range);
        } else {
          result = fallocate(job.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, job.position, static_cast<off_t>(job.length));
        }
        break;
      case OP_FILL:
        return Fill(job, own);
      case OP_EVICT:
        // Answers with the error itself instead of setting errno.
        return -posix_fadvise(job.fd, job.position, static_cast<off_t>(job.length), POSIX_FADV_DONTNEED);
    }
    if (result >= 0) return static_cast<int>(result);
    if (errno != EINTR) return -errno;
  }
}

void End(Job* job, int result) {
  // Held here: Finish gives the job back, and the completion it announces may make the environment let go of the ring.
  std::shared_ptr<JobOwner> owner = std::move(job->owner);
  owner->Finish(job, result);
}

void Run(void*) {
  prctl(PR_SET_NAME, "sectorwise-io");
  Own own;
  Pool& shared = pool();
  pthread_mutex_lock(&shared.mutex);
  for (;;) {
    while (shared.first == nullptr) {
      shared.idle++;
      pthread_cond_wait(&shared.work, &shared.mutex);
      shared.idle--;
    }
    Job* job = shared.first;
    shared.first = job->next;
    // Each thread wakes the next, so that the one that submits pays for one wake-up only.
    if (shared.first != nullptr && shared.idle > 0) pthread_cond_signal(&shared.work);
    pthread_mutex_unlock(&shared.mutex);
    int result = Execute(*job, own);
    End(job, result);
    pthread_mutex_lock(&shared.mutex);
  }
}

// With the mutex held: as many threads as `jobs` more can use. 0 or -errno. Never by a thread of the pool: whoever starts a thread allocates for it, and would make an arena of its own for that.
int StartThreads(unsigned jobs) {
  Pool& shared = pool();
  for (unsigned usable = shared.idle; usable < jobs && shared.threads < kThreadsMax; usable++) {
    const int status = StartQuietThread(Run);
    if (status != 0) return status;
    shared.threads++;
  }
  return 0;
}

}  // namespace

void PushJobs(Job* first, Job* last) {
  last->next = nullptr;
  unsigned jobs = 0;
  for (const Job* job = first; job != nullptr && jobs < kThreadsMax; job = job->next) jobs++;
  Pool& shared = pool();
  int status = 0;
  {
    Locked lock(shared.mutex);
    status = StartThreads(jobs);
    if (shared.threads > 0) {
      if (shared.first == nullptr) {
        shared.first = first;
      } else {
        shared.last->next = first;
      }
      shared.last = last;
      if (shared.idle > 0) pthread_cond_signal(&shared.work);
      return;
    }
  }
  // Not one thread to be had (a limit on processes): nobody else would ever answer.
  for (Job* job = first; job != nullptr;) {
    Job* next = job->next;
    End(job, status);
    job = next;
  }
}

void CancelJobs(JobOwner* owner) {
  Pool& shared = pool();
  Job* cancelled = nullptr;
  {
    Locked lock(shared.mutex);
    Job** link = &shared.first;
    shared.last = nullptr;
    while (Job* job = *link) {
      if (job->owner.get() == owner) {
        *link = job->next;
        job->next = cancelled;
        cancelled = job;
      } else {
        shared.last = job;
        link = &job->next;
      }
    }
  }
  while (cancelled != nullptr) {
    Job* next = cancelled->next;
    End(cancelled, -ECANCELED);
    cancelled = next;
  }
}
