// Lets an addon that was linked on a newer system load with glibc 2.28.
//
// The few functions that the C++ runtime (linked in) and we call in a version that came later are answered here: the linker's --wrap and its preference for our own symbols lead there
// (CMakeLists.txt). Guarantees: no symbol newer than GLIBC_2.28 is asked for (a test looks); the functions do what those of glibc do, as far as this addon uses them.
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// The first version of glibc on each architecture, in which these have been all along.
#if defined(__x86_64__)
#define FIRST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST "GLIBC_2.17"
#elif defined(__GLIBC__)
#error "the first version of glibc on this architecture has to be named here"
#endif

#ifdef __GLIBC__
extern "C" {

// 2.32. The C++ runtime counts references without atomic instructions while it is not 0: there are always threads in Node.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

// 2.35. Where the unwinder looks first; nothing unwinds here (-fno-exceptions).
__attribute__((visibility("hidden"))) int _dl_find_object(void*, void*) { return -1; }

// 2.36. std::random_device has it, which nobody uses here.
__attribute__((visibility("hidden"))) uint32_t arc4random() {
  uint32_t value = 0;
  syscall(SYS_getrandom, &value, sizeof value, 0);
  return value;
}

// 2.33. Before, it was an inline function around another one; the system call fills the same structure on both architectures.
int __wrap_fstat64(int fd, struct stat64* about) { return static_cast<int>(syscall(SYS_fstat, fd, about)); }

// 2.34, when they moved from libpthread into libc; the older name of the version is in both.
int FirstOnce(pthread_once_t* once, void (*run)());
__asm__(".symver FirstOnce, pthread_once@" FIRST);
int __wrap_pthread_once(pthread_once_t* once, void (*run)()) { return FirstOnce(once, run); }

int FirstKeyCreate(pthread_key_t* key, void (*destroy)(void*));
__asm__(".symver FirstKeyCreate, __pthread_key_create@" FIRST);
int __wrap___pthread_key_create(pthread_key_t* key, void (*destroy)(void*)) { return FirstKeyCreate(key, destroy); }

}
#endif
