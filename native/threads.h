// The pool of threads that executes what no kernel ring does: one for the process, shared by every ring of every environment.
//
// A job is one system call; its result, short counts included, is reported as it came. Guarantees: each job that was pushed is finished exactly once,
// on some thread of the pool (or by CancelJobs); a job holds its owner alive until after its completion was announced.
// Threads are made when there is more to do than threads, up to kThreadsMax, and stay. Leaves to others: checking what a job asks for (ring.cc).
#pragma once
#include <cstdint>
#include <memory>

constexpr unsigned kThreadsMax = 16;

struct Job;

// Who is told that a job ended. The job may be reused as soon as Finish was entered.
class JobOwner {
 public:
  virtual ~JobOwner() = default;
  virtual void Finish(Job* job, int result) = 0;
};

struct Job {
  Job* next;
  std::shared_ptr<JobOwner> owner;
  // The OP_ codes of src/io/engine.ts.
  uint32_t operation;
  int fd;
  bool blockDevice;
  // Of a write: durable when it is finished.
  bool durable;
  void* address;
  uint64_t length;
  int64_t position;
  uint32_t handle;
};

// Takes the chain `first` … `last` with one lock.
void PushJobs(Job* first, Job* last);
// Takes back the jobs of `owner` that no thread has begun, and finishes them with -ECANCELED.
void CancelJobs(JobOwner* owner);
