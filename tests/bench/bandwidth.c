#include "tests/bench/bandwidth.h"

#include "common/base/clock.h"

#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFER_BYTES ((size_t)1 << 30)
enum { ALIGNMENT = 2 << 20 };

static float *make_buffer(int value) {
    float *buffer = aligned_alloc(ALIGNMENT, BUFFER_BYTES);
    if (buffer) {
        (void)madvise(buffer, BUFFER_BYTES, MADV_HUGEPAGE);
        memset(buffer, value, BUFFER_BYTES);
    }
    return buffer;
}

bool bandwidth_init(struct bandwidth *bandwidth, int threads, struct error *err) {
    *bandwidth = (struct bandwidth){.threads = threads, .from = make_buffer(1), .to = make_buffer(2)};
    if (bandwidth->from && bandwidth->to)
        return true;
    bandwidth_fini(bandwidth);
    return error_set(err, ERROR_MEMORY, "out of memory for two buffers of 1 GiB");
}

void bandwidth_fini(struct bandwidth *bandwidth) {
    free(bandwidth->from);
    free(bandwidth->to);
    *bandwidth = (struct bandwidth){0};
}

static double copy_with_ordinary_stores(const struct bandwidth *bandwidth) {
    const int64_t count = BUFFER_BYTES / sizeof(float);
    const float *from = bandwidth->from;
    float *to = bandwidth->to;
    int64_t start = clock_now_ns();
#pragma omp parallel for simd num_threads(bandwidth->threads) schedule(static)
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i] + 1;
    return (double)(clock_now_ns() - start) * 1e-9;
}

/* The C library streams past the cache where a copy is as large as this. */
static double copy_with_streaming_stores(const struct bandwidth *bandwidth) {
    int64_t start = clock_now_ns();
#pragma omp parallel num_threads(bandwidth->threads)
    {
        size_t share = BUFFER_BYTES / sizeof(float) / (size_t)omp_get_num_threads(),
               first = share * (size_t)omp_get_thread_num();
        memcpy(bandwidth->to + first, bandwidth->from + first, share * sizeof(float));
    }
    return (double)(clock_now_ns() - start) * 1e-9;
}

double bandwidth_measure(const struct bandwidth *bandwidth) {
    double ordinary = copy_with_ordinary_stores(bandwidth), streaming = copy_with_streaming_stores(bandwidth);
    return 2.0 * (double)BUFFER_BYTES / (ordinary < streaming ? ordinary : streaming);
}
