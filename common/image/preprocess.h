#pragma once
#include "common/image/image.h"
#include "common/image/recipe.h"

/** A picture with a shorter side than this (pixels) shows no chest and is refused. */
enum { PREPROCESS_MIN_SOURCE = 16 };

/**
 * The one way from a picture to what the network sees, shared by trainer and daemon; first half: grey and
 * size. 16-bit samples become 8-bit ones first, rounded: (v + 128) / 257, so full range goes to full range.
 * Then colour to grey, then the resize, in integers: the result is the same on every machine. grey:
 * (recipe->height, recipe->width), the caller's. Errors: INVALID (recipe; picture too small), MEMORY.
 * Thread-safe; allocates two rows and one strip (recipe->width x image->height bytes) while it works.
 */
bool preprocess_pixels(const struct recipe *recipe, const struct image *image, uint8_t *grey,
                       struct error *err);

/**
 * Second half: grey (height, width) -> out (channels, height, width), out = (grey / 255 - mean) / stddev in
 * float, in that order of operations, as torchvision's ToTensor and Normalize. The recipe must be a checked
 * one.
 */
void preprocess_normalise(const struct recipe *recipe, const uint8_t *grey, float *out);
