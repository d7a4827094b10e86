#pragma once
#include "common/base/error.h"
#include <stddef.h>
#include <stdint.h>

enum {
    RECIPE_VERSION = 1,
    RECIPE_MIN_SIDE = 28,
    RECIPE_MAX_SIDE = 512,
    RECIPE_MAX_CHANNELS = 3,
    RECIPE_JSON_SIZE = 1024, /**< room for any recipe as JSON */
};

/**
 * How a picture becomes a network's input. A model carries it (as JSON), and both daemons follow it with the
 * same code: colour -> grey (Pillow's "L" weights), 16 -> 8 bits, resized to width x height without regard to
 * the aspect ("squash") by an antialiased triangle filter, bit for bit what Pillow's
 * convert("L").resize((width, height), BILINEAR) gives, and then (grey / 255 - mean[c]) / stddev[c] for each
 * channel c. Plain data.
 */
struct recipe {
    int version; /**< RECIPE_VERSION */
    int width, height;
    int channels;    /**< 1, or 3: the grey picture three times, for weights trained on colour */
    float mean[3];   /**< of grey / 255; the first `channels` count, the others are 0 */
    float stddev[3]; /**< > 0; the others are 1 */
};

/** width x height with that many channels: mean 0.5 and stddev 0.25 for grey, ImageNet's for three channels.
 */
struct recipe recipe_default(int width, int height, int channels);

/** Version, sizes (28..512), channels (1, 3), means in [-4, 5] and stddevs in [1/256, 8], all finite. Error:
 * INVALID, naming the field. */
bool recipe_check(const struct recipe *recipe, struct error *err);

/** Writes the recipe as one line of JSON; recipe_parse gives the same floats back. size >= RECIPE_JSON_SIZE
 * is enough. */
bool recipe_print(const struct recipe *recipe, char *out, size_t size, struct error *err);

/**
 * Reads JSON of `length` bytes as recipe_print writes it. Strict: unknown, missing or duplicate keys, another
 * version or method, and values out of range are errors (FORMAT, UNSUPPORTED, INVALID), which name the key.
 */
bool recipe_parse(const char *json, size_t length, struct recipe *out, struct error *err);

/** True where both give the same input for every picture. */
bool recipe_equal(const struct recipe *a, const struct recipe *b);

/** width x height: bytes of the grey picture. */
static inline size_t recipe_pixels(const struct recipe *recipe) {
    return (size_t)recipe->width * (size_t)recipe->height;
}

/** channels x height x width: floats of the network's input. */
static inline size_t recipe_values(const struct recipe *recipe) {
    return recipe_pixels(recipe) * (size_t)recipe->channels;
}
