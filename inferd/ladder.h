#pragma once
#include <stdint.h>

enum { LADDER_MAX = 8, LADDER_MAX_IMAGES = 64 };

/**
 * The batch sizes that a model computes in, what each costs as measured, and from both how many of the images
 * that wait are best computed next. Plain data; one thread at a time.
 */
struct ladder {
    int count;
    int images[LADDER_MAX];     /**< rising; a batch in between is computed as the next larger one */
    double cost_us[LADDER_MAX]; /**< 0: not measured */
};

/** The step that computes that many images: the smallest that holds them, else the largest. */
int ladder_step(const struct ladder *ladder, int images);

/**
 * A batch of that many images took so long: part of running means. A machine that is slower for a while is so
 * for all steps, so what one shows moves all of them, and itself a little more. A reading above twice the mean
 * counts as twice it: a thread that lost its core for a moment has measured that, and not the batch.
 */
void ladder_learn(struct ladder *ladder, int images, double us);

/**
 * How many of `waiting` (> 0) images to compute next, at most the largest step: the first batch of the split
 * that makes the sum of their waiting times small, together with those of as many that are to come and will
 * wait for all. So a few go in larger batches only where those are much cheaper, a long queue where they are
 * a little cheaper, and none is padded where two exact ones are faster. While a step has no measured cost: all
 * that wait.
 */
int ladder_take(const struct ladder *ladder, int waiting);
