// The watcher: one thread for the process that finds out that the device, the file system or the end of a watched file is gone.
//
// A fault does not tell: pages that are resident stay readable for ever. So it looks at what the kernel announces (uevents, a sysfs attribute of each
// device, the mount table) and asks by itself: every kHealthMs a cheap question to each file with live windows, every kPresenceMs a direct read.
//
//   kernel ──> watcher thread ──> cause word of the file (compare-exchange from 0) ──> signal word ──> eventfd of the environment ──> onSignal()
//                │        ▲
//                └─ jobs ─┴─ prober threads: everything that may block on a device
//
// Guarantees: the first cause of a file stands; the watcher thread and the callers of these functions never wait for a device (Unwatch waits
// kUnwatchWaitMs for a read that is running); after Unwatch no word of the watch is written, and its descriptors are closed but for one that hangs in
// a read, which the prober closes. An environment that ends takes its watches with it; the threads stay. No signal but SIGBUS and the other faults is
// delivered to them. Leaves to others: which devices belong to a file, and everything that happens after a cause is set (src/unplug/).
#pragma once

// Files with live windows are asked so often: size, a read that cannot block.
constexpr int kHealthMs = 250;
// One file of each device is read past all caches so often, while it has a file with live windows.
constexpr int kPresenceMs = 2000;
// A file system that says it was shut down, or a device that says it has no bytes, is given so long for the removal of the device to be announced.
constexpr int kGraceMs = 100;
// A suspicion is settled at the latest after this.
constexpr int kSettleMs = 190;
constexpr int kUnwatchWaitMs = 10;

// Connects the SIGBUS guard, in one line and from any thread, once: WatcherAlso(GuardEventFd(), GuardArm).
// When `fd` becomes readable it is drained, and every file with live windows gets the signal "fault" and is looked at as if somebody suspected it.
// `periodic`, where given, is called every kHealthMs on the watcher thread while any file is watched. -1 for no descriptor.
void WatcherAlso(int fd, int (*periodic)());
