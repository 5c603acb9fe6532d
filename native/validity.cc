// The words live in the library's own zeroed memory rather than in a mapping, so there is no way for them to be missing: untouched pages cost nothing,
// and the addon is linked never to be unloaded (Node unloads an addon with the last worker that used it, and the buffers' memory would go with it).
//
// Claimed words belong to an environment: a worker that is terminated gives back what it never freed.
#include "validity.h"

#include <atomic>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "mapping.h"

namespace {

constexpr size_t kExtra = 65536;

alignas(4096) std::atomic<int32_t> words[kArenaCellsMax + kExtra];
static_assert(sizeof(std::atomic<int32_t>) == sizeof(int32_t), "JavaScript reads the words as an Int32Array");
static_assert(std::atomic<int32_t>::is_always_lock_free, "the guard sets words in a signal handler");

// Which of the extra words are free: those that came back, then those never handed out.
std::mutex extra_lock;
std::vector<int32_t> returned;
int32_t untouched = 0;

struct Environment {
  napi_ref buffer = nullptr;
  std::unordered_set<int32_t> claimed;
};

napi_value Number(napi_env env, int32_t value) {
  napi_value result = nullptr;
  napi_create_int32(env, value, &result);
  return result;
}

Environment* EnvironmentOf(napi_env env, napi_callback_info info, size_t* argc, napi_value* argv) {
  void* data = nullptr;
  napi_get_cb_info(env, info, argc, argv, nullptr, &data);
  return static_cast<Environment*>(data);
}

void NothingToFree(napi_env, void*, void*) {}

napi_value Validity(napi_env env, napi_callback_info info) {
  size_t argc = 0;
  Environment* environment = EnvironmentOf(env, info, &argc, nullptr);
  const size_t cells = TheArena().cells;
  napi_value buffer = nullptr;
  if (environment->buffer != nullptr) {
    napi_get_reference_value(env, environment->buffer, &buffer);
  } else {
    if (napi_create_external_arraybuffer(env, words, (cells + kExtra) * sizeof(words[0]), NothingToFree, nullptr, &buffer) != napi_ok) return nullptr;
    napi_create_reference(env, buffer, 1, &environment->buffer);
  }
  napi_value result = nullptr;
  napi_create_object(env, &result);
  napi_set_named_property(env, result, "buffer", buffer);
  napi_set_named_property(env, result, "cells", Number(env, static_cast<int32_t>(cells)));
  napi_set_named_property(env, result, "extra", Number(env, kExtra));
  return result;
}

napi_value ClaimWord(napi_env env, napi_callback_info info) {
  size_t argc = 0;
  Environment* environment = EnvironmentOf(env, info, &argc, nullptr);
  int32_t index = static_cast<int32_t>(TheArena().cells);
  {
    std::lock_guard<std::mutex> hold(extra_lock);
    if (!returned.empty()) {
      index += returned.back();
      returned.pop_back();
    } else if (untouched < static_cast<int32_t>(kExtra)) {
      index += untouched++;
    } else {
      return Number(env, -1);
    }
  }
  words[index].store(0);
  environment->claimed.insert(index);
  return Number(env, index);
}

void GiveBack(int32_t index) {
  std::lock_guard<std::mutex> hold(extra_lock);
  returned.push_back(index - static_cast<int32_t>(TheArena().cells));
}

napi_value FreeWord(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argument = nullptr;
  Environment* environment = EnvironmentOf(env, info, &argc, &argument);
  int32_t index = -1;
  napi_get_value_int32(env, argument, &index);
  // A word freed twice would be handed to two owners, and the end of one would be read as the end of the other.
  if (environment->claimed.erase(index) == 1) GiveBack(index);
  return nullptr;
}

void EnvironmentEnds(void* data) {
  Environment* environment = static_cast<Environment*>(data);
  for (int32_t index : environment->claimed) GiveBack(index);
  delete environment;
}

}  // namespace

void ValidateCells(size_t first, size_t count) {
  for (size_t cell = first; cell < first + count; cell++) words[cell].store(0, std::memory_order_relaxed);
}

void MarkCell(size_t cell, int32_t word) {
  const int32_t first_gone = (word & kWordCauseMask) == kCauseTruncate ? word >> kWordPageShift : 0;
  int32_t seen = 0;
  int32_t wanted = word;
  while (!words[cell].compare_exchange_weak(seen, wanted)) {
    if (seen == 0) {
      wanted = word;
      continue;
    }
    // A part of a cell is gone only by truncation, so what a word has no page for is gone as a whole.
    if (seen >> kWordPageShift <= first_gone) return;
    wanted = (seen & kWordCauseMask) | first_gone << kWordPageShift;
  }
}

std::atomic<int32_t>& ValidityWord(size_t index) { return words[index]; }

void InitValidity(napi_env env, napi_value exports) {
  Environment* environment = new Environment();
  napi_add_env_cleanup_hook(env, EnvironmentEnds, environment);
  const napi_property_descriptor functions[] = {
      {"validity", nullptr, Validity, nullptr, nullptr, nullptr, napi_enumerable, environment},
      {"claimWord", nullptr, ClaimWord, nullptr, nullptr, nullptr, napi_enumerable, environment},
      {"freeWord", nullptr, FreeWord, nullptr, nullptr, nullptr, napi_enumerable, environment},
  };
  napi_define_properties(env, exports, sizeof(functions) / sizeof(functions[0]), functions);
}
