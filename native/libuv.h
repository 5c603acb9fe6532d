// The few libuv functions that the addon needs, declared by hand.
//
// Node exports libuv's symbols from its own binary, but node-api-headers ships no uv.h. What is declared here takes only pointers and
// ints, has been in libuv since before 1.26 and is covered by its promise of a stable ABI within 1.x; every handle is opaque and its
// size is asked for at run time. Threads are made through libuv too: pthread_create of a new glibc would tie the addon to GLIBC_2.34.
#pragma once
#include <cstddef>

extern "C" {
struct uv_loop_s;
struct uv_handle_s;
struct uv_poll_s;

// enum uv_handle_type and enum uv_poll_event of uv.h.
constexpr int kUvPoll = 8;
constexpr int kUvReadable = 1;

size_t uv_handle_size(int type);
void uv_handle_set_data(uv_handle_s* handle, void* data);
void* uv_handle_get_data(const uv_handle_s* handle);
void uv_ref(uv_handle_s* handle);
void uv_unref(uv_handle_s* handle);
void uv_close(uv_handle_s* handle, void (*closed)(uv_handle_s*));
int uv_poll_init(uv_loop_s* loop, uv_poll_s* handle, int fd);
int uv_poll_start(uv_poll_s* handle, int events, void (*ready)(uv_poll_s*, int status, int events));
int uv_poll_stop(uv_poll_s* handle);

// uv_thread_t is pthread_t; uv_thread_options_t with UV_THREAD_HAS_STACK_SIZE.
struct uv_thread_options_s {
  unsigned int flags;
  size_t stack_size;
};
constexpr unsigned int kUvThreadHasStackSize = 1;
int uv_thread_create_ex(unsigned long* thread, const uv_thread_options_s* options, void (*entry)(void*), void* argument);
}
