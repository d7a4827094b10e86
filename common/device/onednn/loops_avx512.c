#include "common/device/onednn/lanes.h"

#include <immintrin.h>

static inline uint16_t lanes_pack(lanes_s32 mask) {
    __m512i all = (__m512i)mask;
    return _mm512_test_epi32_mask(all, all);
}

#define LOOPS_TABLE loops_avx512
#define LOOPS_NAME  "loops:avx512"
#include "common/device/onednn/loops_body.h"
