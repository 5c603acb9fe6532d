// One initializer for each facility; each adds its functions to the addon's exports.
#pragma once
#include <napi.h>

void InitRing(Napi::Env env, Napi::Object exports);
void InitSlab(Napi::Env env, Napi::Object exports);
void InitTables(Napi::Env env, Napi::Object exports);
void InitMapping(Napi::Env env, Napi::Object exports);
void InitGuard(Napi::Env env, Napi::Object exports);
void InitResidency(Napi::Env env, Napi::Object exports);
void InitLock(Napi::Env env, Napi::Object exports);
void InitGeometry(Napi::Env env, Napi::Object exports);
void InitWatcher(Napi::Env env, Napi::Object exports);
