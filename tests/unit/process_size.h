#pragma once
#include <stdint.h>

/** What leaks show in. Source: proc(5). */
struct process_size {
    int64_t resident_bytes;
    int descriptors;
};

/** Of the process with that id; 0: of this one. Zeros where it is gone. */
struct process_size process_size_of(int process);
