#include "common/image/augment.h"

#include "common/image/blur.h"
#include "common/image/preprocess.h"

#include <math.h>
#include <string.h>

struct augment augment_none(void) {
    return (struct augment){.crop_area_min = 1, .crop_area_max = 1, .crop_aspect = 1};
}

struct augment augment_default(void) {
    return (struct augment){
        .crop_area_min = 0.4f,
        .crop_area_max = 1.0f,
        .crop_aspect = 1.25f,
        .rotation_degrees = 10.0f,
        .translation = 0.04f,
        .brightness = 0.12f,
        .contrast = 0.5f,
        .gamma = 0.4f,
        .blur_probability = 0.3f,
        .blur_sigma_max = 0.008f,
        .noise_sigma_max = 0.03f,
        .erasing_probability = 0.25f,
        .erasing_area_max = 0.12f,
    };
}

static const struct range {
    const char *name;
    size_t offset;
    float low, high;
} ranges[] = {
    {"crop_area_min", offsetof(struct augment, crop_area_min), 0.05f, 1},
    {"crop_area_max", offsetof(struct augment, crop_area_max), 0.05f, 1},
    {"crop_aspect", offsetof(struct augment, crop_aspect), 1, 2},
    {"rotation_degrees", offsetof(struct augment, rotation_degrees), 0, 45},
    {"translation", offsetof(struct augment, translation), 0, 0.5f},
    {"flip_probability", offsetof(struct augment, flip_probability), 0, 1},
    {"brightness", offsetof(struct augment, brightness), 0, 0.5f},
    {"contrast", offsetof(struct augment, contrast), 0, 2},
    {"gamma", offsetof(struct augment, gamma), 0, 2},
    {"blur_probability", offsetof(struct augment, blur_probability), 0, 1},
    {"blur_sigma_max", offsetof(struct augment, blur_sigma_max), 0, 0.02f},
    {"noise_sigma_max", offsetof(struct augment, noise_sigma_max), 0, 0.2f},
    {"erasing_probability", offsetof(struct augment, erasing_probability), 0, 1},
    {"erasing_area_max", offsetof(struct augment, erasing_area_max), 0, 0.5f},
};

bool augment_check(const struct augment *augment, struct error *err) {
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        float value;
        memcpy(&value, (const char *)augment + ranges[i].offset, sizeof value);
        if (!(value >= ranges[i].low && value <= ranges[i].high)) /* so that a NaN fails */
            return error_set(err, ERROR_INVALID, "augment: %s is %g; %g to %g is possible", ranges[i].name,
                             (double)value, (double)ranges[i].low, (double)ranges[i].high);
    }
    if (augment->crop_area_min > augment->crop_area_max)
        return error_set(err, ERROR_INVALID, "augment: crop_area_min is above crop_area_max");
    return true;
}

size_t augment_scratch_bytes(const struct recipe *recipe) {
    return 2 * recipe_pixels(recipe);
}

/* --- drawing. Everything is drawn, needed or not: then one setting does not shift another's draws. --- */

/* Log-uniform in [1/limit, limit]: twice as much is as likely as half as much. */
static float draw_factor(struct rng *rng, float limit) {
    float reach = logf(limit);
    return expf(rng_uniform(rng, -reach, reach));
}

static void draw_geometry(const struct augment *augment, struct rng *rng, const struct recipe *recipe, struct variation *out) {
    const float area = rng_uniform(rng, augment->crop_area_min, augment->crop_area_max);
    const float aspect = draw_factor(rng, augment->crop_aspect);
    /* The crop's sides and centre are fractions of the picture's. */
    const double crop_width = fmin(sqrt((double)area * (double)aspect), 1.0);
    const double crop_height = fmin(sqrt((double)area / (double)aspect), 1.0);
    const double room_x = 1.0 - crop_width, room_y = 1.0 - crop_height;
    const float place_x = rng_uniform(rng, -0.5f, 0.5f), place_y = rng_uniform(rng, -0.5f, 0.5f);
    const float shift_x = rng_uniform(rng, -augment->translation, augment->translation);
    const float shift_y = rng_uniform(rng, -augment->translation, augment->translation);
    const double centre_x = 0.5 + (double)place_x * room_x + (double)shift_x;
    const double centre_y = 0.5 + (double)place_y * room_y + (double)shift_y;
    const double angle =
        (double)rng_uniform(rng, -augment->rotation_degrees, augment->rotation_degrees) * (M_PI / 180.0);
    const bool flip = rng_uniform(rng, 0, 1) < augment->flip_probability;
    const double across = (flip ? -1 : 1) * crop_width, first = (0.5 - 0.5 * recipe->width) * across;
    out->sine = sin(angle);
    out->cosine = cos(angle);
    out->down = crop_height;
    out->step[0] = variation_fixed(across * out->cosine);
    out->step[1] = variation_fixed(across * out->sine);
    out->origin[0] = centre_x * recipe->width - 0.5 + first * out->cosine;
    out->origin[1] = centre_y * recipe->height - 0.5 + first * out->sine;
}

static void draw_table(const struct augment *augment, struct rng *rng, struct variation *out) {
    const float brightness = rng_uniform(rng, -augment->brightness, augment->brightness);
    const float contrast = draw_factor(rng, 1.0f + augment->contrast);
    const float gamma = draw_factor(rng, 1.0f + augment->gamma);
    for (int i = 0; i < 256; i++) {
        float shade = powf((float)i / 255.0f, gamma);
        shade = (shade - 0.5f) * contrast + 0.5f + brightness;
        out->table[i] = (uint8_t)lrintf(255.0f * fminf(fmaxf(shade, 0), 1));
    }
}

static void draw_blur_and_noise(const struct augment *augment, struct rng *rng, const struct recipe *recipe,
                                struct variation *out) {
    const bool blurs = rng_uniform(rng, 0, 1) < augment->blur_probability;
    const float sigma = rng_uniform(rng, 0, augment->blur_sigma_max);
    blur_weights(blurs ? sigma * (float)recipe->width : 0, out);
    const float noise_sigma = rng_uniform(rng, 0, augment->noise_sigma_max);
    out->noise_scale = (int32_t)lrintf(noise_sigma * 255.0f / 147.8f * 65536.0f); /* the bell's deviation is 147.8 */
    out->noise_key = (uint64_t)rng_u32(rng) << 32;
    out->noise_key |= rng_u32(rng);
}

static void draw_erasing(const struct augment *augment, struct rng *rng, const struct recipe *recipe, struct variation *out) {
    const bool erases = rng_uniform(rng, 0, 1) < augment->erasing_probability;
    const float area = rng_uniform(rng, 0.2f, 1.0f) * augment->erasing_area_max;
    const float aspect = draw_factor(rng, 2.5f);
    const float width = erases ? fminf(sqrtf(area * aspect), 1) : 0, height = erases ? fminf(sqrtf(area / aspect), 1) : 0;
    out->erase_width = (int32_t)(width * (float)recipe->width);
    out->erase_height = (int32_t)(height * (float)recipe->height);
    out->erase_left = (int32_t)(rng_uniform(rng, 0, 1) * (float)(recipe->width - out->erase_width + 1));
    out->erase_top = (int32_t)(rng_uniform(rng, 0, 1) * (float)(recipe->height - out->erase_height + 1));
    out->erase_shade = (uint8_t)rng_below(rng, 256);
}

void augment_draw(const struct augment *augment, struct rng *rng, const struct recipe *recipe, struct variation *out) {
    memset(out, 0, sizeof *out); /* padding too: rows of bytes are compared and digested */
    draw_geometry(augment, rng, recipe, out);
    draw_table(augment, rng, out);
    draw_blur_and_noise(augment, rng, recipe, out);
    draw_erasing(augment, rng, recipe, out);
}

/* --- doing, row by row --- */

/* grey -> out, both (height, width): each output pixel looks up where it comes from. */
static void warp(const struct variation *v, int width, int height, const uint8_t *grey, uint8_t *out) {
    const int32_t dx = v->step[0], dy = v->step[1];
    for (int y = 0; y < height; y++) {
        int32_t start[2];
        variation_row(v, height, y, start);
        int32_t sx = start[0], sy = start[1];
        uint8_t *row = out + (size_t)y * (size_t)width;
        for (int x = 0; x < width; x++, sx += dx, sy += dy)
            row[x] = variation_sample(grey, width, height, sx, sy);
    }
}

static void shade_pixels(const struct variation *v, uint8_t *pixels, size_t count) {
    for (size_t i = 0; i < count; i++)
        pixels[i] = v->table[pixels[i]];
}

static void add_noise(const struct variation *variation, uint8_t *pixels, size_t count) {
    const struct variation copy = *variation, *v = &copy; /* which no pixel can be part of, as far as a compiler sees */
    for (size_t i = 0; i < count; i += 4) {
        const struct rng_block block = variation_noise(v, (int64_t)i);
        for (size_t k = 0; k < 4 && i + k < count; k++)
            pixels[i + k] = variation_noisy(v, pixels[i + k], block.v[k]);
    }
}

static void erase(const struct variation *v, int width, uint8_t *pixels) {
    for (int y = v->erase_top; y < v->erase_top + v->erase_height; y++)
        memset(pixels + (size_t)y * (size_t)width + v->erase_left, v->erase_shade, (size_t)v->erase_width);
}

void augment_apply(const struct augment *augment, struct rng *rng, const struct recipe *recipe,
                   const uint8_t *grey, void *scratch, float *out) {
    struct variation variation;
    const int width = recipe->width, height = recipe->height;
    const size_t count = recipe_pixels(recipe);
    uint8_t *pixels = scratch;
    augment_draw(augment, rng, recipe, &variation);
    warp(&variation, width, height, grey, pixels);
    blur_apply(&variation, pixels, width, height, pixels + count);
    shade_pixels(&variation, pixels, count);
    if (variation.noise_scale)
        add_noise(&variation, pixels, count);
    erase(&variation, width, pixels);
    preprocess_normalise(recipe, pixels, out);
}
