#include "common/base/thread_slice.h"

#include <sched.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint64_t SHORT_NS = 100000; /* the least that the kernel takes */

/** The first version of the kernel's struct sched_attr, which the C library does not declare. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

void thread_slice_set(enum thread_slice slice) {
    struct attributes attributes = {.size = sizeof attributes,
                                    .policy = SCHED_OTHER,
                                    .nice = getpriority(PRIO_PROCESS, 0), /* on Linux: the thread's */
                                    .runtime = slice == THREAD_SLICE_SHORT ? SHORT_NS : 0};
    if (sched_getscheduler(0) == SCHED_OTHER) { /* who chose another policy has chosen */
        syscall(SYS_sched_setattr, 0, &attributes, 0);
    }
}
