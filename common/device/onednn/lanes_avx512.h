#pragma once
#define WIDTH 16
#include "common/device/onednn/lanes.h"

#include <immintrin.h>

/* What AVX-512 does in one instruction. */

static inline uint16_t lanes_greater(lanes_f32 a, lanes_f32 b) {
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
}

static inline lanes_f32 lanes_keep(uint16_t bits, lanes_f32 v) {
    return (lanes_f32)_mm512_maskz_mov_ps(bits, (__m512)v);
}

/* Each half to the upper half of a lane, in one instruction. */
static inline lanes_f32 lanes_widen(lanes_u16 v) {
    const __m512i order = _mm512_slli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 16);
    return (lanes_f32)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, order, _mm512_castsi256_si512((__m256i)v));
}

/* Past the cache; to must be aligned to as much as is stored. */
static inline void lanes_stream_f32(float *to, lanes_f32 v) {
    _mm512_stream_ps(to, (__m512)v);
}

static inline void lanes_stream_u16(uint16_t *to, lanes_u16 v) {
    _mm256_stream_si256((__m256i *)(void *)to, (__m256i)v);
}
