// See tables.h.
#include "tables.h"

#include <errno.h>
#include <node_api.h>
#include <sys/mman.h>

#include <cstdint>

#include "facilities.h"

namespace {

constexpr size_t kPage = 4096;
// What one ArrayBuffer takes on Node 20.
constexpr int64_t kTablesMax = int64_t{4} << 30;

struct Region {
  void* start;
  size_t bytes;
};

void UnmapRegion(napi_env, void*, void* data) {
  Region* const region = static_cast<Region*>(data);
  munmap(region->start, region->bytes);
  delete region;
}

napi_value Number(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

// createTables(bytes): an ArrayBuffer, or -errno. The memory goes back when the buffer was collected.
napi_value CreateTables(napi_env env, napi_callback_info info) {
  size_t argc = 1;
  napi_value argument = nullptr;
  napi_get_cb_info(env, info, &argc, &argument, nullptr, nullptr);
  int64_t bytes = -1;
  napi_get_value_int64(env, argument, &bytes);
  if (bytes <= 0 || bytes > kTablesMax || bytes % static_cast<int64_t>(kPage) != 0) return Number(env, -EINVAL);
  void* const start = MapOwn(static_cast<size_t>(bytes));
  if (start == nullptr) return Number(env, -errno);
  Region* const region = new Region{start, static_cast<size_t>(bytes)};
  napi_value buffer = nullptr;
  if (napi_create_external_arraybuffer(env, start, region->bytes, UnmapRegion, region, &buffer) == napi_ok) return buffer;
  UnmapRegion(env, start, region);
  napi_value ignored = nullptr;
  napi_get_and_clear_last_exception(env, &ignored);
  return Number(env, -EOPNOTSUPP);
}

}  // namespace

void* MapOwn(size_t bytes) {
  void* const start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  madvise(start, bytes, MADV_DONTFORK);
  return start;
}

void InitTables(Napi::Env env, Napi::Object exports) {
  const napi_property_descriptor function = {"createTables", nullptr, CreateTables, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  napi_define_properties(env, exports, 1, &function);
}
