// The addon's table of contents: each facility adds its own functions to the exports.
//
// Context-aware: everything that belongs to one environment (main thread or worker) hangs off objects of that environment;
// what belongs to the process (arena, validity table, thread pool) is reached through functions of its own file.
#include <napi.h>

#include "facilities.h"

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  InitRing(env, exports);
  InitSlab(env, exports);
  InitTables(env, exports);
  InitMapping(env, exports);
  InitGuard(env, exports);
  InitResidency(env, exports);
  InitLock(env, exports);
  InitGeometry(env, exports);
  // After the validity table: what ends an environment runs in reverse order, and a watch must be over before its words belong to somebody else.
  InitWatcher(env, exports);
  return exports;
}

NODE_API_MODULE(sectorwise, Init)
