#include "common/device/onednn/loops.h"

extern const struct loops loops_portable, loops_avx2, loops_avx512;

const struct loops *loops_choose(void) {
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &loops_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &loops_avx2;
    return &loops_portable;
}
