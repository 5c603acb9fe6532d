// The validity table: one word for each cell of the arena, then words for files and devices. 0 means valid, anything else why it is not.
//
//   word of a cell    | first page that is gone, of the cell's 512 (0: all) | cause, 8 bits |      a page other than 0 only with kCauseTruncate
//
// One for the process. Written by whoever finds out that bytes are gone, read by TypeScript in nanoseconds; never unmapped and never moved.
// Leaves to others: what the values mean (src/memory/validity.ts), and when a cell is handed out (mapping.cc).
#pragma once
#include <node_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

// The causes that the guard sets; the others are TypeScript's.
constexpr int32_t kCauseTruncate = 2;
constexpr int32_t kCauseFault = 5;
constexpr int kWordPageShift = 8;
constexpr int32_t kWordCauseMask = 0xff;

// Sets a cell's word. The first cause stands; where it speaks for a part of the cell and this one for more, that part grows. Safe in a signal handler.
void MarkCell(size_t cell, int32_t word);

// Makes a run of cells valid again: they are about to be handed out anew.
void ValidateCells(size_t first, size_t count);

// A word of the table, for threads that JavaScript does not know of.
std::atomic<int32_t>& ValidityWord(size_t index);

void InitValidity(napi_env env, napi_value exports);
