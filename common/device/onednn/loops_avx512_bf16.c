#include "common/device/onednn/lanes_avx512.h"

/* Takes subnormal numbers for zero, unlike the portable one. */
static inline lanes_u16 lanes_narrow(lanes_f32 v) {
    return (lanes_u16)_mm512_cvtneps_pbh((__m512)v);
}

#define lanes_fence _mm_sfence
#define LOOPS_TABLE loops_avx512_bf16
#define LOOPS_NAME  "loops:avx512_bf16"
#include "common/device/onednn/loops_body.h"
