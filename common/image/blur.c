#include "common/image/blur.h"

#include <math.h>
#include <string.h>

void blur_weights(float sigma, struct variation *out) {
    const int reach = (int)fminf(ceilf(2.5f * sigma), VARIATION_BLUR_RADIUS);
    float values[VARIATION_BLUR_RADIUS + 1], sum = 0.0f;
    for (int i = 0; i <= reach; i++) {
        values[i] = sigma > 0.0f ? expf(-0.5f * (float)(i * i) / (sigma * sigma)) : i == 0;
        sum += i == 0 ? values[i] : 2 * values[i];
    }
    int total = 0;
    out->blur_radius = 0;
    memset(out->blur, 0, sizeof out->blur);
    for (int i = 1; i <= reach; i++) {
        out->blur[i] = (uint16_t)lrintf(256.0f * values[i] / sum);
        total += 2 * out->blur[i];
        if (out->blur[i])
            out->blur_radius = i;
    }
    out->blur[0] = (uint16_t)(256 - total); /* so that 16 bits hold any weighted sum */
}

static void finish(const uint16_t *sums, int width, uint8_t *out) {
    for (int x = 0; x < width; x++)
        out[x] = (uint8_t)((sums[x] + 128u) >> 8);
}

static void blur_row(const struct variation *v, const uint8_t *in, int width, uint8_t *out) {
    uint8_t padded[BLUR_MAX_WIDTH + 2 * VARIATION_BLUR_RADIUS];
    uint16_t sums[BLUR_MAX_WIDTH];
    const int radius = v->blur_radius;
    memset(padded, in[0], (size_t)radius);
    memcpy(padded + radius, in, (size_t)width);
    memset(padded + radius + width, in[width - 1], (size_t)radius);
    for (int x = 0; x < width; x++)
        sums[x] = (uint16_t)(in[x] * v->blur[0]);
    for (int i = 1; i <= radius; i++)
        for (int x = 0; x < width; x++)
            sums[x] =
                (uint16_t)(sums[x] + (padded[x + radius - i] + padded[x + radius + i]) * v->blur[i]);
    finish(sums, width, out);
}

static void blur_column_row(const struct variation *v, const uint8_t *in, int width, int height, int y,
                            uint8_t *out) {
    uint16_t sums[BLUR_MAX_WIDTH];
    const uint8_t *centre = in + (size_t)y * (size_t)width;
    for (int x = 0; x < width; x++)
        sums[x] = (uint16_t)(centre[x] * v->blur[0]);
    for (int i = 1; i <= v->blur_radius; i++) {
        const uint8_t *above = in + (size_t)(y - i < 0 ? 0 : y - i) * (size_t)width;
        const uint8_t *below = in + (size_t)(y + i >= height ? height - 1 : y + i) * (size_t)width;
        for (int x = 0; x < width; x++)
            sums[x] = (uint16_t)(sums[x] + (above[x] + below[x]) * v->blur[i]);
    }
    finish(sums, width, out);
}

void blur_apply(const struct variation *variation, uint8_t *pixels, int width, int height, uint8_t *scratch) {
    if (variation->blur_radius == 0)
        return;
    for (int y = 0; y < height; y++)
        blur_row(variation, pixels + (size_t)y * (size_t)width, width, scratch + (size_t)y * (size_t)width);
    for (int y = 0; y < height; y++)
        blur_column_row(variation, scratch, width, height, y, pixels + (size_t)y * (size_t)width);
}

void blur_gaussian(uint8_t *pixels, int width, int height, float sigma, uint8_t *scratch) {
    struct variation variation;
    blur_weights(sigma, &variation);
    blur_apply(&variation, pixels, width, height, scratch);
}
