#include "common/image/canvas.h"

#include <math.h>

float canvas_step(float low, float high, float x) {
    float t = (x - low) / (high - low);
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return t * t * (3 - 2 * t);
}

float canvas_mix(float a, float b, float t) {
    return a + (b - a) * t;
}

float canvas_ellipse(const float centre[2], const float radii[2], float angle, float u, float v) {
    const float x = u - centre[0], y = v - centre[1], c = cosf(angle), s = sinf(angle);
    const float along = (x * c + y * s) / radii[0], across = (y * c - x * s) / radii[1];
    return sqrtf(along * along + across * across);
}

float canvas_segment(const float a[2], const float b[2], float u, float v) {
    const float x = b[0] - a[0], y = b[1] - a[1];
    float t = ((u - a[0]) * x + (v - a[1]) * y) / (x * x + y * y + 1e-9f);
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    const float du = u - a[0] - t * x, dv = v - a[1] - t * y;
    return sqrtf(du * du + dv * dv);
}

/* A hash of a lattice point (finaliser of MurmurHash3), in [0, 1). */
static float lattice(uint32_t seed, int32_t x, int32_t y) {
    uint32_t h = seed ^ ((uint32_t)x * 0x9E3779B1u) ^ ((uint32_t)y * 0x85EBCA77u);
    h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
    h = (h ^ (h >> 13)) * 0xC2B2AE35u;
    return rng_unit(h ^ (h >> 16));
}

static float smooth_noise(uint32_t seed, float x, float y) {
    const float column = floorf(x), row = floorf(y);
    const int32_t i = (int32_t)column, j = (int32_t)row;
    const float s = canvas_step(0, 1, x - column), t = canvas_step(0, 1, y - row);
    const float above = canvas_mix(lattice(seed, i, j), lattice(seed, i + 1, j), s);
    const float below = canvas_mix(lattice(seed, i, j + 1), lattice(seed, i + 1, j + 1), s);
    return canvas_mix(above, below, t);
}

float canvas_noise(uint32_t seed, float x, float y, int octaves) {
    float sum = 0, weight = 1, total = 0;
    for (int octave = 0; octave < octaves; octave++) {
        sum += weight * smooth_noise(seed + (uint32_t)octave * 101u, x, y);
        total += weight;
        weight *= 0.5f;
        x *= 2;
        y *= 2;
    }
    return sum / total;
}
