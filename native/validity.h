// The validity table: one word for each cell of the arena, then words for files and devices. 0 means valid, anything else why it is not.
//
// One for the process. Written by whoever finds out that bytes are gone, read by TypeScript in nanoseconds; never unmapped and never moved.
// Leaves to others: what the values mean (src/memory/validity.ts), and when a cell is handed out (mapping.cc).
#pragma once
#include <node_api.h>

#include <cstddef>
#include <cstdint>

// Makes a run of cells valid again: they are about to be handed out anew.
void ValidateCells(size_t first, size_t count);

void InitValidity(napi_env env, napi_value exports);
