#pragma once
#include "common/base/error.h"
#include "common/base/rng.h"
#include "common/image/recipe.h"
#include "common/op/variation.h"

/**
 * How training pictures are varied. Plain data, one per class where a config wants it so. Each picture draws
 * every value anew. Lengths are fractions of the picture, so that one setting means the same at 28 and at 512
 * pixels.
 */
struct augment {
    float crop_area_min;    /**< part of the area that the random crop keeps, from ... (0.05..1) */
    float crop_area_max;    /**< ... to; the crop is stretched to the full size again (crop_area_min..1) */
    float crop_aspect;      /**< the crop's width/height is drawn log-uniformly from [1/a, a] (1..2) */
    float rotation_degrees; /**< rotation about the crop's centre from [-r, r] (0..45) */
    float translation; /**< shift of the crop, a fraction of the side, from [-t, t] in x and y (0..0.5) */
    float flip_probability; /**< mirror left-right (0..1); hearts have a side, so 0 unless wanted */
    float brightness;       /**< added to the shade (white = 1), from [-b, b] (0..0.5) */
    float contrast; /**< the distance from mid-grey times a factor drawn log-uniformly from [1/(1+c), 1+c]
                       (0..2) */
    float gamma;    /**< shade to the power drawn log-uniformly from [1/(1+g), 1+g] (0..2) */
    float blur_probability;    /**< Gaussian blur (0..1): films of all classes may be soft */
    float blur_sigma_max;      /**< its sigma, from 0 to this fraction of the width (0..0.02) */
    float noise_sigma_max;     /**< nearly Gaussian noise with sigma from 0 to this (white = 1) (0..0.2) */
    float erasing_probability; /**< one rectangle filled with one random shade (0..1) */
    float erasing_area_max;    /**< its area, from a fifth of this to this fraction of the picture (0..0.5) */
};

/** Nothing changes: augment_apply is then preprocess_normalise, bit for bit. */
struct augment augment_none(void);

/**
 * Strong crop and jitter, no flip. On this data weak augmentation learns the cameras instead of the lungs
 * (recall of NORMAL on the shifted test split .64, against .88-.95 with a strong one), which in-distribution
 * validation does not show.
 */
struct augment augment_default(void);

/** Every value within its range above; else ERROR_INVALID naming the field. */
bool augment_check(const struct augment *augment, struct error *err);

/**
 * Draws one picture's variation, for pictures of the recipe's size. Depends on nothing but the arguments and the state of rng,
 * which advances by the same number of draws whatever the settings. Augment and recipe must be checked ones.
 */
void augment_draw(const struct augment *augment, struct rng *rng, const struct recipe *recipe, struct variation *out);

/** Bytes of scratch that augment_apply wants for a recipe. */
size_t augment_scratch_bytes(const struct recipe *recipe);

/**
 * One random variation of grey (height, width) as network input: crop, rotation, shift and mirror as one
 * affine map with bilinear sampling (black outside), then blur, shade (gamma, contrast, brightness, by one
 * table), noise, erasing, and preprocess_normalise into out (channels, height, width). The variation is what
 * augment_draw draws; OP_VARY does the same on a device, to the bit. scratch: augment_scratch_bytes(), any
 * alignment, the caller's, one per thread. Augment and recipe must be checked ones.
 */
void augment_apply(const struct augment *augment, struct rng *rng, const struct recipe *recipe,
                   const uint8_t *grey, void *scratch, float *out);
