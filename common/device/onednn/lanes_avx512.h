#pragma once
#include "common/device/onednn/lanes.h"

#include <immintrin.h>

/* What AVX-512 does in one instruction. */

static inline uint16_t lanes_pack(lanes_s32 mask) {
    __m512i all = (__m512i)mask;
    return _mm512_test_epi32_mask(all, all);
}

/* Past the cache; to must be aligned to a whole row. */
static inline void lanes_stream_f32(float *to, lanes_f32 v) {
    _mm512_stream_ps(to, (__m512)v);
}

static inline void lanes_stream_u16(uint16_t *to, lanes_u16 v) {
    _mm256_stream_si256((__m256i *)(void *)to, (__m256i)v);
}
