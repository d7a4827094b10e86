#pragma once
#include <stdint.h>

enum { LADDER_MAX = 8, LADDER_MAX_IMAGES = 64 };

/**
 * The batch sizes that a model computes in, what each costs as measured, and from both how many of the images
 * that wait are best computed next. Plain data.
 */
struct ladder {
    int count;
    int images[LADDER_MAX];     /**< rising; a batch in between is computed as the next larger one */
    double cost_us[LADDER_MAX]; /**< 0: not measured */
};

/** The step that computes that many images: the smallest that holds them, else the largest. */
int ladder_step(const struct ladder *ladder, int images);

/** A batch of that step took so long once. The least counts: all that disturbs a measurement makes it longer. */
void ladder_note(struct ladder *ladder, int step, double us);

/**
 * How many of `waiting` (> 0) images to compute next, at most the largest step: the first batch of the split
 * that makes the sum of their waiting times small, together with those of as many that are to come and will
 * wait for all. So a few go in larger batches only where those are much cheaper, a long queue where they are
 * a little cheaper, and none is padded where two exact ones are faster. While a step has no measured cost: all
 * that wait.
 */
int ladder_take(const struct ladder *ladder, int waiting);
