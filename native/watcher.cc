// See watcher.h.
//
// One table of watches under one lock. The lock is held for system calls that cannot block alone, and let go every few watches, so that a caller in
// JavaScript waits microseconds for it. Anything that may wait for a device is a job of presence.cc.
//
//   Watch ──> Device (sysfs attribute, one for all files on it)     how its removal is heard of
//     └─────> Group  (device number)                                whose files are asked in turn, one job at a time
#include "watcher.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <map>
#include <memory>
#include <pthread.h>
#include <sched.h>
#include <set>
#include <string>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <vector>

#include "facilities.h"
#include "presence.h"
#include "quiet_thread.h"
#include "validity.h"
#include "wakeup.h"

#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, __u64)  // include/uapi/linux/fs.h, Linux 5.15
#endif

namespace {

// src/memory/validity.ts.
constexpr int kCauseUnplug = 3;
constexpr int kCauseShutdown = 4;

// Bits of the signal word: src/unplug/watcher.ts.
constexpr int kSignalSize = 1;
constexpr int kSignalLost = 2;
constexpr int kSignalFault = 4;
constexpr int kSignalSettled = 8;

// How the loss of a device concerns a file: src/unplug/devices.ts.
constexpr int kRoleOwn = 0;     // it holds the bytes
constexpr int kRoleDisk = 1;    // the disk that `own` is a partition of
constexpr int kRoleMember = 2;  // one of several below: the file may survive its loss

// While somebody waits for an answer the watches concerned are looked at so often.
constexpr int kAttentiveMs = 10;
// A grace is prolonged while a read is still out, but a suspicion is to be answered with its outcome.
constexpr int kGraceMaxMs = kSettleMs - 2 * kAttentiveMs;
constexpr size_t kWatchesPerHold = 64;
// The default would overflow when a rack of disks goes at once.
constexpr int kNetlinkBytes = 1 << 20;
// Behind the end of any file, and not aligned: touches neither device nor page cache, but a file system that was shut down refuses it (presence.cc).
constexpr off_t kBeyond = (off_t{1} << 60) + 1;

int64_t NowMs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

// --- the table ---------------------------------------------------------------------------------------------------------------------------------

struct Environment {
  napi_env env = nullptr;
  Wakeup wakeup;
  napi_ref onSignal = nullptr;
  bool started = false;
  bool ended = false;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  // Kept until libuv let go of the wake-up.
  std::shared_ptr<Environment> self;
};

struct Device {
  uint64_t id;
  std::string folder;
  std::string numbers;
  int64_t sequence;
  // <folder>/size, or -errno.
  int attribute;
  int references = 0;
  bool gone = false;
  int64_t askedAt = -1;
};

struct Group {
  std::string key;
  int references = 0;
  std::shared_ptr<PresenceJob> inFlight;
  std::deque<int> urgent;
  std::deque<int> routine;
  int64_t nextRoutine = 0;
  // Whose turn it was.
  int last = 0;
  // Found while the watches are gone through: the first live one, and the first after `last`.
  int firstLive = 0;
  int nextLive = 0;
};

struct Watch {
  int id;
  std::shared_ptr<Environment> environment;
  int fd = -1;
  int word;
  int signal;
  int live;
  bool isDevice;
  bool remote;
  int64_t size;
  int64_t sequence;
  // By role.
  std::vector<std::pair<Device*, int>> devices;
  std::string node;
  uint64_t nodeDevice;
  Group* group;

  bool nowait = true;
  bool direct = true;
  int lost = 0;
  // Something refuses that should not, since when; 0 for no trouble.
  int64_t troubleSince = 0;
  int troubleCause = 0;
  Presence raw = Presence::kUnknown;
  bool refused = false;
  // When the suspicion has to be settled; 0 for none. Those that come meanwhile join it: `round` counts them, `settled` is the last one that ended.
  int64_t deadline = 0;
  int round = 0;
  int settled = 0;
  int reported = 0;
  // Another suspicion came while a job was out: it saw the state before.
  bool again = false;
  bool queuedUrgent = false;
  bool queuedRoutine = false;
  std::shared_ptr<PresenceJob> job;
};

struct Source {
  bool used;
  std::string reason;
};

struct State {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  std::map<int, std::shared_ptr<Watch>> watches;
  std::map<std::string, std::unique_ptr<Device>> devices;
  std::map<std::string, std::unique_ptr<Group>> groups;
  // Watches in trouble or under suspicion.
  std::set<int> attentive;
  std::vector<std::shared_ptr<PresenceJob>> answers;
  int nextWatch = 1;
  uint64_t nextDevice = 1;
  bool running = false;
  bool opened = false;
  bool checkAll = false;
  int epoll = -1;
  int control = -1;
  int netlink = -1;
  int mounts = -1;
  Source netlinkSource{false, "no file was watched yet"};
  Source mountsSource{false, "no file was watched yet"};
  int attributeError = 0;
  int also = -1;
  int (*periodic)() = nullptr;
};

// Never destroyed: the thread goes on while the process runs its exit handlers.
State& state() {
  static State* instance = new State;
  return *instance;
}

class Locked {
 public:
  Locked() { pthread_mutex_lock(&state().mutex); }
  ~Locked() { pthread_mutex_unlock(&state().mutex); }
  // Lets others in who wait.
  void Pause() {
    pthread_mutex_unlock(&state().mutex);
    sched_yield();
    pthread_mutex_lock(&state().mutex);
  }
};

// What epoll answers with; devices have their id above these.
constexpr uint64_t kTagControl = 1;
constexpr uint64_t kTagNetlink = 2;
constexpr uint64_t kTagMounts = 3;
constexpr uint64_t kTagAlso = 4;
constexpr uint64_t kTagDevices = 16;

int Listen(int fd, uint32_t events, uint64_t tag) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  return epoll_ctl(state().epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void Drain(int fd) {
  uint64_t count;
  while (read(fd, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

void WakeThread() {
  const uint64_t one = 1;
  while (write(state().control, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Answer(const std::shared_ptr<PresenceJob>& job) {
  Locked hold;
  state().answers.push_back(job);
  WakeThread();
}

// Everything below runs with the lock held.

void Signal(Watch& watch, int bits) {
  ValidityWord(watch.signal).fetch_or(bits);
  watch.environment->wakeup.Signal();
}

bool IsLive(const Watch& watch) { return ValidityWord(watch.live).load(std::memory_order_relaxed) > 0; }

void StartJob(Group& group);

// False while a thread is inside a read with a descriptor of the watch.
bool LetGo(Watch& watch) {
  bool closed = true;
  if (watch.job != nullptr) {
    closed = AbandonPresence(*watch.job);
    watch.job.reset();
  }
  if (watch.fd >= 0) close(watch.fd);
  watch.fd = -1;
  return closed;
}

void Settle(Watch& watch) {
  watch.deadline = 0;
  watch.reported = 0;
  watch.again = false;
  watch.settled = watch.round;
  Signal(watch, kSignalSettled);
}

void Lose(Watch& watch, int cause) {
  if (watch.lost != 0) return;
  watch.lost = cause;
  // First, so that a JavaScript loop that never returns to its event loop sees it. Whatever closed or ended the file before stands.
  int32_t none = 0;
  ValidityWord(watch.word).compare_exchange_strong(none, cause);
  LetGo(watch);
  watch.troubleSince = 0;
  Signal(watch, kSignalLost);
  if (watch.deadline != 0) Settle(watch);
}

void Ask(Watch& watch, bool urgent) {
  if (watch.lost != 0 || watch.fd < 0) return;
  if (urgent) {
    if (watch.queuedUrgent) return;
    watch.queuedUrgent = true;
    watch.group->urgent.push_back(watch.id);
  } else {
    if (watch.queuedRoutine || watch.queuedUrgent || watch.job != nullptr) return;
    watch.queuedRoutine = true;
    watch.group->routine.push_back(watch.id);
  }
  StartJob(*watch.group);
}

// One at a time for each device: a hung one keeps one thread.
void StartJob(Group& group) {
  State& all = state();
  while (group.inFlight == nullptr) {
    const bool urgent = !group.urgent.empty();
    std::deque<int>& line = urgent ? group.urgent : group.routine;
    if (line.empty()) return;
    const int id = line.front();
    line.pop_front();
    const auto found = all.watches.find(id);
    if (found == all.watches.end()) continue;
    Watch& watch = *found->second;
    (urgent ? watch.queuedUrgent : watch.queuedRoutine) = false;
    if (watch.lost != 0 || watch.fd < 0) continue;
    auto job = std::make_shared<PresenceJob>();
    job->watch = id;
    job->fd = fcntl(watch.fd, F_DUPFD_CLOEXEC, 0);
    if (job->fd < 0) continue;
    job->isDevice = watch.isDevice;
    job->remote = watch.remote;
    job->size = watch.direct ? watch.size : 0;
    job->urgent = urgent;
    job->node = watch.node;
    job->device = watch.nodeDevice;
    job->sequence = watch.sequence;
    if (PushPresence(job, Answer) < 0) {
      close(job->fd);
      continue;
    }
    watch.job = job;
    group.inFlight = std::move(job);
  }
}

void Trouble(Watch& watch, int cause, int64_t now) {
  watch.troubleCause = cause;
  if (watch.troubleSince != 0) return;
  watch.troubleSince = now;
  watch.raw = Presence::kUnknown;
  state().attentive.insert(watch.id);
  Ask(watch, true);
}

void DeviceGone(Device& device);

// The attribute of a device that was removed gives ENODEV. Asked at most once for each moment, however many files are on it.
bool Removed(Device& device, int64_t now) {
  if (device.gone || device.attribute < 0 || device.askedAt == now) return device.gone;
  device.askedAt = now;
  char text[32];
  return pread(device.attribute, text, sizeof text, 0) < 0 && errno == ENODEV;
}

// The questions that cannot block, and what follows from them.
void Check(Watch& watch, int64_t now) {
  if (watch.lost != 0) return;
  for (size_t i = 0; i < watch.devices.size(); i++) {
    Device& device = *watch.devices[i].first;
    if (device.gone ? watch.devices[i].second != kRoleMember : Removed(device, now)) {
      if (!device.gone) DeviceGone(device);
      if (watch.devices[i].second != kRoleMember) Lose(watch, kCauseUnplug);
      if (watch.lost != 0) return;
    }
  }
  // What others serve is asked on the probers alone: attributes may come from a server that does not answer.
  if (watch.fd < 0 || watch.remote) return;

  int error = 0;
  int64_t size = -1;
  if (watch.isDevice) {
    uint64_t bytes = 0;
    if (ioctl(watch.fd, BLKGETSIZE64, &bytes) < 0) {
      error = errno;
    } else {
      size = static_cast<int64_t>(bytes);
    }
    uint64_t sequence = 0;
    if (watch.sequence >= 0 && ioctl(watch.fd, BLKGETDISKSEQ, &sequence) == 0 && static_cast<int64_t>(sequence) != watch.sequence) return Lose(watch, kCauseUnplug);
  } else {
    struct statx about;
    if (statx(watch.fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &about) < 0) {
      error = errno;
    } else {
      size = static_cast<int64_t>(about.stx_size);
    }
  }
  if (error == 0 && watch.nowait) {
    char byte;
    iovec target{&byte, 1};
    if (preadv2(watch.fd, &target, 1, kBeyond, RWF_NOWAIT) < 0) {
      // Unknown to the file system, or to a kernel before 4.14; any other refusal that is no sign of loss will not change either.
      if (MeansNoDevice(errno)) {
        error = errno;
      } else if (errno != EAGAIN && errno != EINTR) {
        watch.nowait = false;
      }
    }
  }
  if (error == ENODEV || error == ENXIO) return Lose(watch, kCauseUnplug);
  if (MeansNoDevice(error)) {
    watch.refused = true;
    Trouble(watch, kCauseShutdown, now);
  } else if (watch.isDevice && size == 0 && watch.size > 0) {
    // A device that goes loses its size some moments before its entry in sysfs; and one without a byte is none.
    Trouble(watch, kCauseUnplug, now);
  } else {
    // Where no read of this kind is to be had, the prober's answer stands.
    if (watch.nowait) watch.refused = false;
    if (!watch.refused) watch.troubleSince = 0;
    if (size >= 0 && size != watch.size) {
      watch.size = size;
      Signal(watch, kSignalSize);
    }
  }
  if (watch.troubleSince != 0) {
    const int64_t since = now - watch.troubleSince;
    if (since >= kGraceMaxMs || (since >= kGraceMs && watch.job == nullptr && !watch.queuedUrgent)) {
      Lose(watch, watch.raw == Presence::kDead ? kCauseUnplug : watch.troubleCause);
    }
  }
}

void DeviceGone(Device& device) {
  if (device.gone) return;
  device.gone = true;
  if (device.attribute >= 0) {
    // It would be readable for ever.
    epoll_ctl(state().epoll, EPOLL_CTL_DEL, device.attribute, nullptr);
  }
  for (auto& entry : state().watches) {
    Watch& watch = *entry.second;
    for (const auto& [candidate, role] : watch.devices) {
      if (candidate != &device) continue;
      if (role == kRoleMember) {
        Ask(watch, true);
      } else {
        Lose(watch, kCauseUnplug);
      }
    }
  }
}

// The device that holds the file's bytes does not answer any more.
void WholeDeviceGone(Watch& watch) {
  for (size_t i = 0; i < watch.devices.size(); i++) {
    if (watch.devices[i].second == kRoleOwn) DeviceGone(*watch.devices[i].first);
  }
  for (auto& entry : state().watches) {
    if (watch.isDevice && entry.second->isDevice && entry.second->group == watch.group) Lose(*entry.second, kCauseUnplug);
  }
  Lose(watch, kCauseUnplug);
}

void TakeAnswer(const std::shared_ptr<PresenceJob>& job, int64_t now) {
  State& all = state();
  for (auto& entry : all.groups) {
    Group& group = *entry.second;
    if (group.inFlight != job) continue;
    group.inFlight.reset();
    StartJob(group);
    break;
  }
  const auto found = all.watches.find(job->watch);
  // The watch is over, or it is another job that it waits for.
  if (found == all.watches.end() || found->second->job != job) return;
  const std::shared_ptr<Watch> watch = found->second;
  watch->job.reset();
  if (job->remote) {
    if (job->attributes == -ENOTCONN || job->attributes == -ESHUTDOWN || job->attributes == -ECONNABORTED || job->attributes == -ENODEV) {
      return Lose(*watch, kCauseShutdown);
    }
    if (job->remoteSize >= 0 && job->remoteSize != watch->size) {
      watch->size = job->remoteSize;
      Signal(*watch, kSignalSize);
    }
  } else {
    if (job->directUnusable) watch->direct = false;
    watch->raw = job->raw;
    if (!watch->nowait) {
      watch->refused = job->buffered < 0 && MeansNoDevice(-job->buffered);
      if (watch->refused) {
        Trouble(*watch, kCauseShutdown, now);
      } else if (watch->troubleCause == kCauseShutdown) {
        watch->troubleSince = 0;
      }
    }
    Check(*watch, now);
    if (watch->lost != 0) return;
    const Judgement judgement = Judge({job->isDevice, job->file, job->raw, watch->refused, watch->reported});
    if (judgement.cause == kCauseUnplug) {
      if (judgement.wholeDevice) {
        WholeDeviceGone(*watch);
      } else {
        Lose(*watch, kCauseUnplug);
        // Its neighbours are most likely gone too; each is judged by itself.
        for (auto& entry : all.watches) {
          if (entry.second->group == watch->group && IsLive(*entry.second)) Ask(*entry.second, true);
        }
      }
      return;
    }
  }
  if (watch->again) {
    watch->again = false;
    if (now < watch->deadline) Ask(*watch, true);
  }
}

// Those in trouble or under suspicion.
void Attend(int64_t now) {
  State& all = state();
  const std::vector<int> ids(all.attentive.begin(), all.attentive.end());
  for (const int id : ids) {
    const auto found = all.watches.find(id);
    if (found == all.watches.end()) {
      all.attentive.erase(id);
      continue;
    }
    const std::shared_ptr<Watch> watch = found->second;
    Check(*watch, now);
    if (watch->deadline != 0) {
      const bool answered = watch->job == nullptr && !watch->queuedUrgent && watch->troubleSince == 0;
      if (answered || now >= watch->deadline) Settle(*watch);
    }
    if (watch->deadline == 0 && watch->troubleSince == 0) all.attentive.erase(id);
  }
}

// Every live file, or every one at all, and whose turn it is to be read from the device.
void Tick(Locked& hold, int64_t now, bool everyFile) {
  State& all = state();
  for (auto& entry : all.groups) entry.second->firstLive = entry.second->nextLive = 0;
  int last = 0;
  for (size_t count = 1;; count++) {
    const auto next = all.watches.upper_bound(last);
    if (next == all.watches.end()) break;
    last = next->first;
    const std::shared_ptr<Watch> watch = next->second;
    const bool live = IsLive(*watch);
    if (watch->lost == 0 && (live || everyFile)) Check(*watch, now);
    if (watch->lost == 0 && live) {
      Group& group = *watch->group;
      if (watch->fd >= 0) {
        // Each has attributes of its own, and there is no cheaper way to them.
        if (watch->remote && now >= group.nextRoutine) Ask(*watch, false);
        if (group.firstLive == 0) group.firstLive = last;
        if (group.nextLive == 0 && last > group.last) group.nextLive = last;
      }
    }
    if (count % kWatchesPerHold == 0) hold.Pause();
  }
  for (auto& entry : all.groups) {
    Group& group = *entry.second;
    if (group.firstLive == 0 || now < group.nextRoutine) continue;
    group.nextRoutine = now + kPresenceMs;
    group.last = group.nextLive != 0 ? group.nextLive : group.firstLive;
    const auto found = all.watches.find(group.last);
    if (found != all.watches.end() && !found->second->remote) Ask(*found->second, false);
  }
}

// --- what the kernel announces -----------------------------------------------------------------------------------------------------------------

const char* Field(const char* text, const char* end, const char* name) {
  const size_t length = strlen(name);
  for (const char* at = text; at < end; at += strnlen(at, end - at) + 1) {
    if (static_cast<size_t>(end - at) > length && memcmp(at, name, length) == 0 && at[length] == '=') return at + length + 1;
  }
  return nullptr;
}

// KEY=value strings, each ended by a zero byte, after a first one that sums them up: Documentation/core-api/kobject, lib/kobject_uevent.c.
void TakeUevent(const char* text, const char* end, int64_t now) {
  const char* action = Field(text, end, "ACTION");
  const char* subsystem = Field(text, end, "SUBSYSTEM");
  const char* major = Field(text, end, "MAJOR");
  const char* minor = Field(text, end, "MINOR");
  if (action == nullptr || subsystem == nullptr || major == nullptr || minor == nullptr || strcmp(subsystem, "block") != 0) return;
  const char* sequence = Field(text, end, "DISKSEQ");
  const int64_t instance = sequence == nullptr ? -1 : strtoll(sequence, nullptr, 10);
  const std::string numbers = std::string(major) + ":" + minor;
  const bool removed = strcmp(action, "remove") == 0;
  for (auto& entry : state().devices) {
    Device& device = *entry.second;
    if (device.gone || device.numbers != numbers) continue;
    const bool other = instance >= 0 && device.sequence >= 0 && instance != device.sequence;
    // Numbers are reused: the removal of a predecessor says nothing, the arrival of a successor everything.
    if (removed ? !other : other && instance > device.sequence) {
      DeviceGone(device);
    } else {
      for (auto& each : state().watches) {
        for (const auto& used : each.second->devices) {
          if (used.first == &device) Check(*each.second, now);
        }
      }
    }
  }
}

void TakeUevents(int64_t now) {
  for (;;) {
    char text[8192];
    sockaddr_nl from{};
    iovec part{text, sizeof text - 1};
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t count = recvmsg(state().netlink, &message, MSG_DONTWAIT);
    if (count < 0) {
      if (errno == EINTR) continue;
      // Some were lost: every attribute is read instead.
      if (errno == ENOBUFS) state().checkAll = true;
      return;
    }
    // Anybody may send; only the kernel has no port.
    if (from.nl_pid != 0) continue;
    text[count] = 0;
    TakeUevent(text, text + count, now);
  }
}

void Fault(int64_t now) {
  State& all = state();
  for (auto& entry : all.watches) {
    Watch& watch = *entry.second;
    if (watch.lost != 0 || !IsLive(watch)) continue;
    Signal(watch, kSignalFault);
    all.attentive.insert(watch.id);
    Ask(watch, true);
  }
  Attend(now);
}

// --- the thread --------------------------------------------------------------------------------------------------------------------------------

int64_t nextTick = 0;

int Timeout() {
  Locked hold;
  State& all = state();
  if (all.watches.empty()) return -1;
  if (!all.attentive.empty()) return kAttentiveMs;
  const int64_t left = nextTick - NowMs();
  return left <= 0 ? 0 : static_cast<int>(left);
}

void Run(void*) {
  prctl(PR_SET_NAME, "sectorwise-watch");
  State& all = state();
  for (;;) {
    epoll_event events[32];
    const int count = epoll_wait(all.epoll, events, 32, Timeout());
    int (*periodic)() = nullptr;
    {
      Locked hold;
      const int64_t now = NowMs();
      for (int i = 0; i < count; i++) {
        const uint64_t tag = events[i].data.u64;
        if (tag == kTagControl) {
          Drain(all.control);
        } else if (tag == kTagNetlink) {
          TakeUevents(now);
        } else if (tag == kTagMounts) {
          all.checkAll = true;
        } else if (tag == kTagAlso) {
          Drain(all.also);
          Fault(now);
        } else {
          for (auto& entry : all.devices) {
            if (entry.second->id + kTagDevices != tag) continue;
            entry.second->askedAt = -1;
            if (Removed(*entry.second, now)) DeviceGone(*entry.second);
            break;
          }
        }
      }
      std::vector<std::shared_ptr<PresenceJob>> answers;
      answers.swap(all.answers);
      for (const auto& job : answers) TakeAnswer(job, now);
      Attend(now);
      const bool due = now >= nextTick;
      if (due || all.checkAll) {
        const bool everyFile = all.checkAll;
        all.checkAll = false;
        Tick(hold, now, everyFile);
      }
      if (due) {
        nextTick = now + kHealthMs;
        periodic = all.periodic;
      }
    }
    if (periodic != nullptr) periodic();
  }
}

std::string ErrorText(int error) {
  char text[64];
  snprintf(text, sizeof text, "%s (errno %d)", strerror(error), error);
  return text;
}

// With the lock held. 0 or -errno: without these two nothing works; each of the sources may be missing.
int OpenSources() {
  State& all = state();
  if (all.opened) return 0;
  if (all.epoll < 0) all.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (all.epoll < 0) return -errno;
  if (all.control < 0) all.control = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (all.control < 0) return -errno;
  int status = Listen(all.control, EPOLLIN, kTagControl);
  if (status < 0 && status != -EEXIST) return status;
  all.opened = true;

  all.netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  kernel.nl_groups = 1;
  if (all.netlink < 0) {
    status = -errno;
  } else {
    setsockopt(all.netlink, SOL_SOCKET, SO_RCVBUF, &kNetlinkBytes, sizeof kNetlinkBytes);
    status = bind(all.netlink, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0 ? -errno : Listen(all.netlink, EPOLLIN, kTagNetlink);
  }
  if (status < 0) {
    all.netlinkSource = {false, "refused with " + ErrorText(-status) + "; removals are seen in sysfs, every " + std::to_string(kHealthMs) + " ms"};
    if (all.netlink >= 0) close(all.netlink);
    all.netlink = -1;
  } else {
    all.netlinkSource = {true, "the kernel announces removed devices; not to a network namespace of a container, where sysfs is read instead"};
  }

  all.mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
  status = all.mounts < 0 ? -errno : Listen(all.mounts, EPOLLPRI | EPOLLERR, kTagMounts);
  if (status < 0) {
    all.mountsSource = {false, "refused with " + ErrorText(-status) + "; files are looked at every " + std::to_string(kHealthMs) + " ms as always"};
    if (all.mounts >= 0) close(all.mounts);
    all.mounts = -1;
  } else {
    all.mountsSource = {true, "every file is looked at when something is mounted or unmounted"};
  }
  if (all.also >= 0) Listen(all.also, EPOLLIN, kTagAlso);
  return 0;
}

// With the lock held.
int StartThread() {
  State& all = state();
  if (all.running) return 0;
  const int status = StartQuietThread(Run);
  if (status == 0) all.running = true;
  return status;
}

// --- watches -----------------------------------------------------------------------------------------------------------------------------------

Device* HoldDevice(const std::string& folder, const std::string& numbers, int64_t sequence) {
  State& all = state();
  // A device that came back has the same folder and is another one.
  const std::string key = folder + " " + std::to_string(sequence);
  auto& place = all.devices[key];
  // One that was lost is not to be found in its own successor where the kernel numbers no instances.
  if (place != nullptr && place->gone && place->sequence < 0) {
    const std::string old = key + " gone " + std::to_string(place->id);
    all.devices[old] = std::move(place);
  }
  if (place == nullptr) {
    place.reset(new Device{all.nextDevice++, folder, numbers, sequence, -1});
    int attribute = open((folder + "/size").c_str(), O_RDONLY | O_CLOEXEC);
    if (attribute < 0) {
      attribute = -errno;
      // Every block device has it, and a moment ago this one was there.
      place->gone = errno == ENOENT || errno == ENODEV;
      if (!place->gone) all.attributeError = errno;
    } else {
      // What was never read polls as changed, and what is gone would be readable for ever.
      char text[32];
      place->gone = pread(attribute, text, sizeof text, 0) < 0 && errno == ENODEV;
      if (!place->gone) Listen(attribute, EPOLLPRI | EPOLLERR, kTagDevices + place->id);
    }
    place->attribute = attribute;
  }
  place->references++;
  return place.get();
}

void DropDevice(Device* device) {
  if (--device->references > 0) return;
  if (device->attribute >= 0) close(device->attribute);
  auto& devices = state().devices;
  for (auto entry = devices.begin(); entry != devices.end(); ++entry) {
    if (entry->second.get() != device) continue;
    devices.erase(entry);
    return;
  }
}

Group* HoldGroup(const std::string& key) {
  auto& place = state().groups[key];
  if (place == nullptr) {
    place.reset(new Group);
    place->key = key;
  }
  place->references++;
  return place.get();
}

// A job that is out is found by its group when it answers; without one it is dropped.
void DropGroup(Group* group) {
  if (--group->references == 0) state().groups.erase(std::string(group->key));
}

// The rest of a watch that is in the table no more.
bool End(Watch& watch) {
  state().attentive.erase(watch.id);
  const bool closed = LetGo(watch);
  for (const auto& used : watch.devices) DropDevice(used.first);
  DropGroup(watch.group);
  return closed;
}

std::shared_ptr<Watch> Find(int id, const Environment* environment) {
  const auto found = state().watches.find(id);
  if (found == state().watches.end() || found->second->environment.get() != environment) return nullptr;
  return found->second;
}

// --- JavaScript's side -------------------------------------------------------------------------------------------------------------------------

std::shared_ptr<Environment>& Of(const Napi::CallbackInfo& info) { return *static_cast<std::shared_ptr<Environment>*>(info.Data()); }

void Woken(void* context) {
  auto* raw = static_cast<Environment*>(context);
  if (raw->ended || raw->onSignal == nullptr) return;
  const std::shared_ptr<Environment> environment = raw->self;
  napi_env env = environment->env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value callback = nullptr;
  napi_value global;
  napi_get_reference_value(env, environment->onSignal, &callback);
  napi_get_global(env, &global);
  if (napi_make_callback(env, nullptr, global, callback, 0, nullptr, nullptr) != napi_ok) {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (pending) {
      // Nobody below us on the stack would ever see it.
      napi_value error;
      napi_get_and_clear_last_exception(env, &error);
      napi_fatal_exception(env, error);
    }
  }
  napi_close_handle_scope(env, scope);
}

void StopWaking(napi_async_cleanup_hook_handle, void* data) {
  auto* environment = static_cast<Environment*>(data);
  environment->ended = true;
  environment->wakeup.Stop(
      [](void* context) {
        auto* stopped = static_cast<Environment*>(context);
        napi_remove_async_cleanup_hook(stopped->cleanup);
        stopped->self.reset();
      },
      environment);
}

// startWatching(onSignal): 0 or -errno.
Napi::Value StartWatching(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Environment> environment = Of(info);
  napi_env env = info.Env();
  auto answer = [&](int status) { return Napi::Number::New(info.Env(), status); };
  if (environment->started) return answer(0);
  {
    Locked hold;
    const int status = OpenSources();
    if (status < 0) return answer(status);
  }
  int status = environment->wakeup.fd() >= 0 ? 0 : environment->wakeup.Open();
  if (status < 0) return answer(status);
  uv_loop_s* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return answer(-ENOSYS);
  environment->env = env;
  environment->self = environment;
  status = environment->wakeup.Watch(loop, Woken, environment.get());
  if (status < 0) {
    environment->wakeup.Stop([](void* context) { static_cast<Environment*>(context)->self.reset(); }, environment.get());
    return answer(status);
  }
  napi_create_reference(env, info[0], 1, &environment->onSignal);
  napi_add_async_cleanup_hook(env, StopWaking, environment.get(), &environment->cleanup);
  environment->started = true;
  return answer(0);
}

int64_t Integer(const Napi::Object& object, const char* name) { return object.Get(name).As<Napi::Number>().Int64Value(); }

// watch(request): the number of the watch, or -errno.
Napi::Value StartWatch(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Environment> environment = Of(info);
  Napi::Env env = info.Env();
  const Napi::Object request = info[0].As<Napi::Object>();
  if (!environment->started) return Napi::Number::New(env, -EINVAL);
  auto watch = std::make_shared<Watch>();
  watch->environment = environment;
  watch->word = static_cast<int>(Integer(request, "word"));
  watch->signal = static_cast<int>(Integer(request, "signal"));
  watch->live = static_cast<int>(Integer(request, "live"));
  watch->isDevice = request.Get("isDevice").ToBoolean();
  watch->remote = request.Get("remote").ToBoolean();
  watch->size = Integer(request, "size");
  watch->sequence = Integer(request, "sequence");
  const std::string key = request.Get("group").As<Napi::String>();
  watch->node = request.Get("node").As<Napi::String>();
  watch->nodeDevice = makedev(Integer(request, "nodeMajor"), Integer(request, "nodeMinor"));
  const int fd = static_cast<int>(Integer(request, "fd"));
  if (fd >= 0) {
    if (watch->remote) {
      // Closing a descriptor of these asks the server (FUSE_FLUSH), which may not answer; one that only names the file does not.
      char name[40];
      snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
      watch->fd = open(name, O_PATH | O_CLOEXEC);
    } else {
      watch->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
  }
  if (fd >= 0 && watch->fd < 0) return Napi::Number::New(env, -errno);
  const Napi::Array devices = request.Get("devices").As<Napi::Array>();

  Locked hold;
  State& all = state();
  const int status = StartThread();
  if (status < 0) {
    if (watch->fd >= 0) close(watch->fd);
    return Napi::Number::New(env, status);
  }
  for (uint32_t i = 0; i < devices.Length(); i++) {
    const Napi::Object device = devices.Get(i).As<Napi::Object>();
    watch->devices.emplace_back(
        HoldDevice(device.Get("folder").As<Napi::String>(), device.Get("numbers").As<Napi::String>(), Integer(device, "sequence")),
        static_cast<int>(Integer(device, "role")));
  }
  watch->group = HoldGroup(key);
  watch->id = all.nextWatch++;
  const bool first = all.watches.empty();
  all.watches.emplace(watch->id, watch);
  // It sleeps without end when nothing is watched.
  if (first) WakeThread();
  // The device may be gone already; and what the file system cannot answer is known from here on.
  Check(*watch, NowMs());
  return Napi::Number::New(env, watch->id);
}

// unwatch(id): true when no descriptor of the watch is left.
Napi::Value Unwatch(const Napi::CallbackInfo& info) {
  std::shared_ptr<Watch> watch;
  std::shared_ptr<PresenceJob> job;
  bool closed = true;
  {
    Locked hold;
    watch = Find(info[0].As<Napi::Number>().Int32Value(), Of(info).get());
    if (watch == nullptr) return Napi::Boolean::New(info.Env(), true);
    job = watch->job;
    state().watches.erase(watch->id);
    closed = End(*watch);
  }
  if (!closed) {
    // A read of one block takes microseconds, on a device that is well; the caller most likely wants to unmount next.
    const timespec nap{0, 100000};
    for (const int64_t end = NowMs() + kUnwatchWaitMs; NowMs() < end && job->state.load() == PresenceJob::kRunning;) nanosleep(&nap, nullptr);
    closed = job->state.load() != PresenceJob::kRunning;
  }
  return Napi::Boolean::New(info.Env(), closed);
}

void BeginSuspicion(Watch& watch, int error) {
  watch.reported = error;
  if (watch.deadline == 0) {
    watch.deadline = NowMs() + kSettleMs;
    watch.round++;
  }
  if (watch.job != nullptr) {
    watch.again = true;
  } else {
    Ask(watch, true);
  }
  state().attentive.insert(watch.id);
  WakeThread();
}

// suspect(id, errno): the number of the round; the signal word gets "settled" when it ends, within kSettleMs.
Napi::Value Suspect(const Napi::CallbackInfo& info) {
  Locked hold;
  const std::shared_ptr<Watch> watch = Find(info[0].As<Napi::Number>().Int32Value(), Of(info).get());
  if (watch == nullptr) return Napi::Number::New(info.Env(), 0);
  if (watch->lost != 0) {
    watch->round++;
    Settle(*watch);
  } else {
    BeginSuspicion(*watch, abs(info[1].As<Napi::Number>().Int32Value()));
  }
  return Napi::Number::New(info.Env(), watch->round);
}

// settledRound(id): the last round that ended.
Napi::Value SettledRound(const Napi::CallbackInfo& info) {
  Locked hold;
  const std::shared_ptr<Watch> watch = Find(info[0].As<Napi::Number>().Int32Value(), Of(info).get());
  return Napi::Number::New(info.Env(), watch == nullptr ? 0 : watch->settled);
}

// suspectSync(id, errno): waits for the answer; 0 or the cause.
Napi::Value SuspectSync(const Napi::CallbackInfo& info) {
  std::shared_ptr<Watch> watch;
  {
    Locked hold;
    watch = Find(info[0].As<Napi::Number>().Int32Value(), Of(info).get());
    if (watch == nullptr) return Napi::Number::New(info.Env(), 0);
    if (watch->lost == 0) BeginSuspicion(*watch, abs(info[1].As<Napi::Number>().Int32Value()));
  }
  const timespec nap{0, 500000};
  for (const int64_t end = NowMs() + 2 * kSettleMs;;) {
    {
      Locked hold;
      if (watch->lost != 0 || watch->deadline == 0 || NowMs() >= end) return Napi::Number::New(info.Env(), watch->lost);
    }
    nanosleep(&nap, nullptr);
  }
}

// checkNow(id): 0 or the cause, from what cannot block.
Napi::Value CheckNow(const Napi::CallbackInfo& info) {
  Locked hold;
  const std::shared_ptr<Watch> watch = Find(info[0].As<Napi::Number>().Int32Value(), Of(info).get());
  if (watch == nullptr) return Napi::Number::New(info.Env(), 0);
  const bool trouble = watch->troubleSince != 0;
  for (const auto& used : watch->devices) used.first->askedAt = -1;
  Check(*watch, NowMs());
  if (!trouble && watch->troubleSince != 0) WakeThread();
  return Napi::Number::New(info.Env(), watch->lost);
}

// refWatcher(held): whether the wake-up keeps the event loop alive. It does not unless somebody waits for an answer.
Napi::Value RefWatcher(const Napi::CallbackInfo& info) {
  if (info[0].ToBoolean()) {
    Of(info)->wakeup.Ref();
  } else {
    Of(info)->wakeup.Unref();
  }
  return info.Env().Undefined();
}

Napi::Value WatcherFeatures(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array list = Napi::Array::New(env);
  auto add = [&](const char* name, bool used, const std::string& reason) {
    Napi::Object feature = Napi::Object::New(env);
    feature.Set("name", name);
    feature.Set("used", Napi::Boolean::New(env, used));
    feature.Set("reason", reason);
    list.Set(list.Length(), feature);
  };
  Locked hold;
  State& all = state();
  add("uevents", all.netlinkSource.used, all.netlinkSource.reason);
  size_t attributes = 0;
  for (auto& entry : all.devices) attributes += entry.second->attribute >= 0;
  std::string reason = std::to_string(attributes) + (attributes == 1 ? " device is" : " devices are") + " watched";
  if (all.attributeError != 0) reason += "; refused for one with " + ErrorText(all.attributeError);
  add("sysfs attributes", attributes > 0, reason);
  add("mount table", all.mountsSource.used, all.mountsSource.reason);
  return list;
}

// judgePresence(isDevice, asked, failed, raw, refused, reported): the judgement alone, for its tests.
Napi::Value JudgePresence(const Napi::CallbackInfo& info) {
  auto number = [&](size_t index) { return info[index].As<Napi::Number>().Int32Value(); };
  Evidence evidence;
  evidence.isDevice = info[0].ToBoolean();
  evidence.file = {number(1), number(2)};
  evidence.raw = static_cast<Presence>(number(3));
  evidence.refused = info[4].ToBoolean();
  evidence.reported = number(5);
  const Judgement judgement = Judge(evidence);
  Napi::Object answer = Napi::Object::New(info.Env());
  answer.Set("cause", judgement.cause);
  answer.Set("wholeDevice", Napi::Boolean::New(info.Env(), judgement.wholeDevice));
  return answer;
}

// The words of this environment are somebody else's from here on.
void EnvironmentEnds(void* data) {
  auto* hold = static_cast<std::shared_ptr<Environment>*>(data);
  const std::shared_ptr<Environment> environment = *hold;
  environment->ended = true;
  {
    Locked locked;
    auto& watches = state().watches;
    for (auto entry = watches.begin(); entry != watches.end();) {
      if (entry->second->environment != environment) {
        ++entry;
        continue;
      }
      const std::shared_ptr<Watch> watch = entry->second;
      entry = watches.erase(entry);
      End(*watch);
    }
  }
  delete hold;
}

}  // namespace

void WatcherAlso(int fd, int (*periodic)()) {
  Locked hold;
  State& all = state();
  all.also = fd;
  all.periodic = periodic;
  if (all.opened && fd >= 0) Listen(fd, EPOLLIN, kTagAlso);
}

void InitWatcher(Napi::Env env, Napi::Object exports) {
  auto* environment = new std::shared_ptr<Environment>(std::make_shared<Environment>());
  napi_add_env_cleanup_hook(env, EnvironmentEnds, environment);
  auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) { exports.Set(name, Napi::Function::New(env, function, name, environment)); };
  add("startWatching", StartWatching);
  add("watch", StartWatch);
  add("unwatch", Unwatch);
  add("suspect", Suspect);
  add("settledRound", SettledRound);
  add("suspectSync", SuspectSync);
  add("checkNow", CheckNow);
  add("refWatcher", RefWatcher);
  add("watcherFeatures", WatcherFeatures);
  add("judgePresence", JudgePresence);
  Napi::Object periods = Napi::Object::New(env);
  periods.Set("health", kHealthMs);
  periods.Set("presence", kPresenceMs);
  periods.Set("grace", kGraceMs);
  periods.Set("settle", kSettleMs);
  exports.Set("watcherPeriods", periods);
}
