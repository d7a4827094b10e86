#pragma once
#include <stdint.h>

/** How much memory this process may take at most: the machine's, or its control group's where that is less
 * (cgroup v2, memory.max). INT64_MAX where neither can be read. Any thread. */
int64_t memory_limit_bytes(void);

/**
 * Bytes that this process could still take without pushing anything out: what the system calls available, or
 * what its control group or one above it leaves, whichever is less. INT64_MAX where none can be read. Any
 * thread. Source: proc(5); the kernel's cgroup-v2.rst.
 */
int64_t memory_available(void);

/** Where the two above look, for tests: root is put before "/proc" and "/sys/fs/cgroup". */
int64_t memory_group_limit_at(const char *root);
int64_t memory_available_at(const char *root);
