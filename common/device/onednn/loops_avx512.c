#include "common/device/onednn/lanes.h"

#include <immintrin.h>

static inline uint16_t lanes_pack(lanes_s32 mask) {
    __m512i all = (__m512i)mask;
    return _mm512_test_epi32_mask(all, all);
}

/* Past the cache; to must be aligned to a whole row. */
static inline void lanes_stream(float *to, lanes_f32 v) {
    _mm512_stream_ps(to, (__m512)v);
}

#define lanes_fence _mm_sfence
#define LOOPS_TABLE loops_avx512
#define LOOPS_NAME  "loops:avx512"
#include "common/device/onednn/loops_body.h"
