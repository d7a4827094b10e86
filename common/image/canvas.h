#pragma once
#include "common/base/rng.h"
#include "common/image/image.h"
#include "common/image/phantom.h"

/* Between the phantom's files only. Positions are fractions of the picture (u to the right, v down); shades
 * are 0 black .. 1 white. */

/** A painter: the shade at a position. paint is what its setup prepared. */
struct scene {
    float (*shade)(const struct scene *scene, float u, float v);
    uint32_t texture; /**< seeds the scene's noise */
    float value[48];  /**< the scene's own drawn parameters */
};

/** Prepares a thorax: build from the patient, opacities where wanted. Never fails. */
void thorax_setup(struct scene *scene, struct rng *patient, struct rng *opacities, bool with_opacities);

/** Swaps black and white of a thorax that is set up. */
void thorax_negate(struct scene *scene);

/** Prepares one of the things that are no frontal chest film. */
void invalid_setup(struct scene *scene, struct rng *rng);

/** 0 below low, 1 above high, smooth between. */
float canvas_step(float low, float high, float x);

/** a at t = 0, b at t = 1. */
float canvas_mix(float a, float b, float t);

/** Distance of (u, v) from the centre in units of the radii, after turning by angle (radians): 1 on the rim.
 */
float canvas_ellipse(const float centre[2], const float radii[2], float angle, float u, float v);

/** Distance of (u, v) from the segment a-b. */
float canvas_segment(const float a[2], const float b[2], float u, float v);

/** Smooth noise in [0, 1): `octaves` layers, each twice as fine and half as strong. The same on every
 * machine. */
float canvas_noise(uint32_t seed, float x, float y, int octaves);
