#pragma once
#include "common/base/error.h"
#include <stdint.h>

struct tiny_model_spec {
    const char *name;
    uint64_t seed; /**< of the weights */
    double temperature;
    bool golden;        /**< with golden images, answered by the reference device */
    float golden_shift; /**< added to one golden probability: a model that answers otherwise where it was made
                         */
    const char *golden_device; /**< that answers them; NULL: tiny_model_device() */
    int recipe_size;           /**< 0: as the network takes */
    const char *architecture;  /**< NULL: ResNet-18 with a 3x3 stem */
    int size;                  /**< pixels each way, up to TINY_MODEL_MAX_SIZE; 0: 28 */
};

enum { TINY_MODEL_MAX_SIZE = 256 };

/**
 * Writes a model file with random weights and three classes for tests: a real
 * file in all but what it knows. Two operating points: "rule_in" at .6 and "rule_out" at .2.
 */
bool tiny_model_write(const char *path, const struct tiny_model_spec *spec, struct error *err);

/** The fastest device that is there: the reference takes seconds for each image. */
const char *tiny_model_device(void);
