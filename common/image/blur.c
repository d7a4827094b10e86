#include "common/image/blur.h"

#include <math.h>
#include <string.h>

/* Half a kernel: weights[0] is the centre's. All 2 x radius + 1 sum to 256, so that 16 bits hold any weighted
 * sum. */
struct kernel {
    int radius;
    uint16_t weights[BLUR_MAX_RADIUS + 1];
};

static struct kernel kernel_of(float sigma) {
    struct kernel kernel = {0};
    const int reach = (int)fminf(ceilf(2.5f * sigma), BLUR_MAX_RADIUS);
    float values[BLUR_MAX_RADIUS + 1], sum = 0.0f;
    for (int i = 0; i <= reach; i++) {
        values[i] = sigma > 0.0f ? expf(-0.5f * (float)(i * i) / (sigma * sigma)) : i == 0;
        sum += i == 0 ? values[i] : 2 * values[i];
    }
    int total = 0;
    for (int i = 1; i <= reach; i++) {
        kernel.weights[i] = (uint16_t)lrintf(256.0f * values[i] / sum);
        total += 2 * kernel.weights[i];
        if (kernel.weights[i])
            kernel.radius = i;
    }
    kernel.weights[0] = (uint16_t)(256 - total);
    return kernel;
}

static void finish(const uint16_t *sums, int width, uint8_t *out) {
    for (int x = 0; x < width; x++)
        out[x] = (uint8_t)((sums[x] + 128u) >> 8);
}

static void blur_row(const struct kernel *kernel, const uint8_t *in, int width, uint8_t *out) {
    uint8_t padded[BLUR_MAX_WIDTH + 2 * BLUR_MAX_RADIUS];
    uint16_t sums[BLUR_MAX_WIDTH];
    const int radius = kernel->radius;
    memset(padded, in[0], (size_t)radius);
    memcpy(padded + radius, in, (size_t)width);
    memset(padded + radius + width, in[width - 1], (size_t)radius);
    for (int x = 0; x < width; x++)
        sums[x] = (uint16_t)(in[x] * kernel->weights[0]);
    for (int i = 1; i <= radius; i++)
        for (int x = 0; x < width; x++)
            sums[x] =
                (uint16_t)(sums[x] + (padded[x + radius - i] + padded[x + radius + i]) * kernel->weights[i]);
    finish(sums, width, out);
}

static void blur_column_row(const struct kernel *kernel, const uint8_t *in, int width, int height, int y,
                            uint8_t *out) {
    uint16_t sums[BLUR_MAX_WIDTH];
    const uint8_t *centre = in + (size_t)y * (size_t)width;
    for (int x = 0; x < width; x++)
        sums[x] = (uint16_t)(centre[x] * kernel->weights[0]);
    for (int i = 1; i <= kernel->radius; i++) {
        const uint8_t *above = in + (size_t)(y - i < 0 ? 0 : y - i) * (size_t)width;
        const uint8_t *below = in + (size_t)(y + i >= height ? height - 1 : y + i) * (size_t)width;
        for (int x = 0; x < width; x++)
            sums[x] = (uint16_t)(sums[x] + (above[x] + below[x]) * kernel->weights[i]);
    }
    finish(sums, width, out);
}

void blur_gaussian(uint8_t *pixels, int width, int height, float sigma, uint8_t *scratch) {
    const struct kernel kernel = kernel_of(sigma);
    if (kernel.radius == 0)
        return;
    for (int y = 0; y < height; y++)
        blur_row(&kernel, pixels + (size_t)y * (size_t)width, width, scratch + (size_t)y * (size_t)width);
    for (int y = 0; y < height; y++)
        blur_column_row(&kernel, scratch, width, height, y, pixels + (size_t)y * (size_t)width);
}
