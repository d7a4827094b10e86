#define WIDTH 8
#include "common/device/onednn/lanes.h"

#include <immintrin.h>

static inline uint16_t lanes_greater(lanes_f32 a, lanes_f32 b) {
    return (uint16_t)_mm256_movemask_ps((__m256)(a > b));
}

/* Past the cache; to must be aligned to as much as is stored. */
static inline void lanes_stream_f32(float *to, lanes_f32 v) {
    _mm256_stream_ps(to, (__m256)v);
}

static inline void lanes_stream_u16(uint16_t *to, lanes_u16 v) {
    _mm_stream_si128((__m128i *)(void *)to, (__m128i)v);
}

#define lanes_keep   lanes_keep_portable
#define lanes_widen  lanes_widen_portable
#define lanes_narrow lanes_narrow_portable
#define lanes_fence  _mm_sfence
#define LOOPS_TABLE  loops_avx2
#define LOOPS_NAME   "loops:avx2"
#include "common/device/onednn/loops_body.h"
