#pragma once
#include <stdint.h>

enum { BLUR_MAX_WIDTH = 2048, BLUR_MAX_RADIUS = 32 };

/**
 * Gaussian blur in place with clamped edges, in integers (weights of 1/256, cut off at 2.5 sigma or 32
 * pixels). pixels: (height, width) with width <= 2048; scratch: as large. A sigma under about 0.3 pixels
 * changes nothing.
 */
void blur_gaussian(uint8_t *pixels, int width, int height, float sigma, uint8_t *scratch);
