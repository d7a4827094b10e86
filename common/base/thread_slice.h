#pragma once

/**
 * The time slice that the calling thread asks Linux's scheduler (EEVDF) for. With a short one it is scheduled
 * before threads that compute, as soon as it has something to do; it gets no more of the core for that. Threads
 * that it starts inherit it. Kernels before 6.12 take no notice, and refusing is no harm: best effort.
 *
 * Source: sched(7), SCHED_OTHER's sched_runtime.
 */
enum thread_slice {
    THREAD_SLICE_NORMAL, /**< the system's (some milliseconds): for threads that compute */
    THREAD_SLICE_SHORT,  /**< the shortest: for threads that wait, and pass on what arrives */
};

void thread_slice_set(enum thread_slice slice);
