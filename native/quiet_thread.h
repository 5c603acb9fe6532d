// Threads of the library's own: the ring's, those that ask devices, the one that unmaps.
#pragma once

// Starts a thread that no signal but a fault is delivered to; it is never joined, so it is to run for as long as the process. 0 or -errno.
int StartQuietThread(void (*entry)(void*));
