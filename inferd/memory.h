#pragma once
#include <stdint.h>

/**
 * Bytes that this process could still take without pushing anything out: what the system calls available, or
 * what the control group leaves, whichever is less. INT64_MAX where neither can be read. Source: proc(5); the
 * kernel's cgroup-v2.rst.
 */
int64_t memory_available(void);
