#include "common/device/onednn/loops.h"

/* Which instruction sets of x86 there are loops for. */
extern const struct loops loops_portable, loops_avx2, loops_avx512, loops_avx512_bf16;

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw");
}

const struct loops *loops_row(int i) {
    const struct loops *runnable[4];
    int count = 0;
    if (has_avx512() && __builtin_cpu_supports("avx512bf16"))
        runnable[count++] = &loops_avx512_bf16;
    if (has_avx512())
        runnable[count++] = &loops_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        runnable[count++] = &loops_avx2;
    runnable[count++] = &loops_portable;
    return i >= 0 && i < count ? runnable[i] : NULL;
}
