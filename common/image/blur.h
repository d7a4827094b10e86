#pragma once
#include "common/op/variation.h"

enum { BLUR_MAX_WIDTH = 2048 };

/**
 * Sets blur_radius and blur of a variation to those of a Gaussian of `sigma` pixels: weights of 1/256, cut off at 2.5 sigma or 32
 * pixels. A sigma under about 0.3 pixels changes nothing.
 */
void blur_weights(float sigma, struct variation *out);

/** Blurs in place with clamped edges, in integers. pixels: (height, width) with width <= 2048; scratch: as large. */
void blur_apply(const struct variation *variation, uint8_t *pixels, int width, int height, uint8_t *scratch);

/** Both at once. */
void blur_gaussian(uint8_t *pixels, int width, int height, float sigma, uint8_t *scratch);
