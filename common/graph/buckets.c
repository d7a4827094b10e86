#include "common/graph/buckets.h"

/** The first gradient of the last bucket. */
static int begin_of_last(const size_t *ends, int count, size_t most) {
    int begin = count - 1;
    while (begin > 0 && ends[count - 1] - (begin > 1 ? ends[begin - 2] : 0) <= most)
        begin--;
    return begin;
}

int buckets_cut(const size_t *ends, int count, size_t bucket_bytes, int *last) {
    size_t small = bucket_bytes < BUCKETS_SMALL_BYTES ? bucket_bytes : BUCKETS_SMALL_BYTES, begin = 0;
    int found = 0, tail = begin_of_last(ends, count, small);
    for (int i = 0; i < count; i++) {
        bool full = i < tail && ends[i] - begin >= (found ? bucket_bytes : small);
        if (!full && i + 1 != tail && i + 1 != count)
            continue;
        last[found++] = i;
        begin = ends[i];
    }
    return found;
}
