// What the page table says about a mapping of ours: which pages are there, and which are no longer the file's because somebody stored into them.
//
// Asks by PAGEMAP_SCAN (Linux 6.7), which needs no rights on the file and does not lie to those who do not own it, as mincore does.
#pragma once
#include <cstddef>
#include <cstdint>

// Drops the pages of a private file mapping that were stored into, so that the next touch finds the file's bytes again; answers with how many there were.
// Where PAGEMAP_SCAN is refused every page of the range is dropped and the answer is 0. Start and length are multiples of the page size.
int64_t DropScribbled(unsigned char* start, size_t length);

// The offset from `start` of the first page that is not in the page table, -1 if all are, -errno - 1 where PAGEMAP_SCAN is refused.
// With `repair` (private mappings) it drops what was stored into, as above; such a page counts as missing.
int64_t FirstMissing(unsigned char* start, size_t length, bool repair);

// Pages of the range that are in the page table, -errno where PAGEMAP_SCAN is refused.
int64_t CountPresent(unsigned char* start, size_t length);
