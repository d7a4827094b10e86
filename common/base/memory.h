#pragma once
#include <stdint.h>

/** How much memory this process may take at most: the machine's, or its control group's where that is less
 * (cgroup v2, memory.max). INT64_MAX where neither can be read. */
int64_t memory_limit_bytes(void);
