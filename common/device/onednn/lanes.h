#pragma once
#include "common/device/onednn/loops.h"

#include <string.h>

/*
 * WIDTH floats as one value (GCC's vector extension, which clang has too): what one register holds, which the loops_*.c that
 * includes this has defined. A row's LANES are PARTS of them: GCC keeps vectors that are wider than a register in memory.
 */
enum { PARTS = LANES / WIDTH };
typedef float lanes_f32 __attribute__((vector_size(WIDTH * sizeof(float))));
typedef int32_t lanes_s32 __attribute__((vector_size(WIDTH * sizeof(int32_t))));
typedef uint32_t lanes_u32 __attribute__((vector_size(WIDTH * sizeof(uint32_t))));
typedef uint16_t lanes_u16 __attribute__((vector_size(WIDTH * sizeof(uint16_t))));

static inline lanes_f32 lanes_load_f32(const float *from, int count) {
    lanes_f32 v = {0};
    if (count == WIDTH)
        memcpy(&v, from, sizeof v);
    else
        memcpy(&v, from, (size_t)count * sizeof *from);
    return v;
}

static inline void lanes_store_f32(float *to, lanes_f32 v, int count) {
    if (count == WIDTH)
        memcpy(to, &v, sizeof v);
    else
        memcpy(to, &v, (size_t)count * sizeof *to);
}

/* Ends a stretch of lanes_stream where the instruction set has none. */
static inline void lanes_no_fence(void) {}

/* bf16 to f32: exact, the lower half is zero. */
static inline lanes_f32 lanes_widen_portable(lanes_u16 v) {
    return (lanes_f32)(__builtin_convertvector(v, lanes_u32) << 16);
}

/* f32 to bf16: to nearest, ties to even; the carry takes what is too large to infinity. A NaN keeps its upper half, made
 * quiet, since rounding could turn it into infinity. */
static inline lanes_u16 lanes_narrow_portable(lanes_f32 v) {
    const lanes_u32 bits = (lanes_u32)v, nan = (lanes_u32)(v != v);
    const lanes_u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    return __builtin_convertvector((quiet & nan) | (rounded & ~nan), lanes_u16);
}

/* Written so that a NaN stays one: it must reach the loss and be seen there. */
static inline lanes_f32 lanes_activate(lanes_f32 v, enum activation activation) {
    const lanes_f32 zero = {0}, six = zero + 6;
    if (activation != ACTIVATION_NONE)
        v = (lanes_f32)((lanes_s32)v & ~(v < zero));
    if (activation == ACTIVATION_RELU6) {
        lanes_s32 over = v > six;
        v = (lanes_f32)(((lanes_s32)six & over) | ((lanes_s32)v & ~over));
    }
    return v;
}

/* One bit per lane, set where the mask is. */
static inline uint16_t lanes_pack_portable(lanes_s32 mask) {
    uint32_t bits = 0;
    for (int i = 0; i < WIDTH; i++)
        bits |= ((uint32_t)mask[i] & 1u) << i;
    return (uint16_t)bits;
}

/* v where the bit is set, else 0. */
static inline lanes_f32 lanes_keep_portable(uint16_t bits, lanes_f32 v) {
    const lanes_s32 zero = {0};
    lanes_s32 each;
    for (int i = 0; i < WIDTH; i++)
        each[i] = 1 << i;
    return (lanes_f32)((lanes_s32)v & (((zero + bits) & each) != zero));
}
