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

/* What one picture's variation is. Everything is drawn, needed or not: then one setting does not shift
 * another's draws. */
struct draw {
    double crop_width, crop_height; /* fractions of the sides */
    double centre_x, centre_y;      /* of the crop, fractions */
    double angle;                   /* radians */
    bool flip;
    float brightness, contrast, gamma;
    float blur_sigma;  /* fraction of the width; 0: none */
    float noise_sigma; /* white = 1 */
    uint64_t noise_key;
    float erase_width, erase_height; /* fractions of the sides; 0: none */
    float erase_x, erase_y;          /* position in what room is left, [0, 1) */
    uint8_t erase_shade;
};

/* Log-uniform in [1/limit, limit]: twice as much is as likely as half as much. */
static float draw_factor(struct rng *rng, float limit) {
    float reach = logf(limit);
    return expf(rng_uniform(rng, -reach, reach));
}

static void draw_geometry(const struct augment *augment, struct rng *rng, struct draw *draw) {
    const float area = rng_uniform(rng, augment->crop_area_min, augment->crop_area_max);
    const float aspect = draw_factor(rng, augment->crop_aspect);
    draw->crop_width = fmin(sqrt((double)area * (double)aspect), 1.0);
    draw->crop_height = fmin(sqrt((double)area / (double)aspect), 1.0);
    const double room_x = 1.0 - draw->crop_width, room_y = 1.0 - draw->crop_height;
    const float place_x = rng_uniform(rng, -0.5f, 0.5f), place_y = rng_uniform(rng, -0.5f, 0.5f);
    const float shift_x = rng_uniform(rng, -augment->translation, augment->translation);
    const float shift_y = rng_uniform(rng, -augment->translation, augment->translation);
    draw->centre_x = 0.5 + (double)place_x * room_x + (double)shift_x;
    draw->centre_y = 0.5 + (double)place_y * room_y + (double)shift_y;
    draw->angle =
        (double)rng_uniform(rng, -augment->rotation_degrees, augment->rotation_degrees) * (M_PI / 180.0);
    draw->flip = rng_uniform(rng, 0, 1) < augment->flip_probability;
}

static void draw_shades(const struct augment *augment, struct rng *rng, struct draw *draw) {
    draw->brightness = rng_uniform(rng, -augment->brightness, augment->brightness);
    draw->contrast = draw_factor(rng, 1.0f + augment->contrast);
    draw->gamma = draw_factor(rng, 1.0f + augment->gamma);
    const bool blur = rng_uniform(rng, 0, 1) < augment->blur_probability;
    const float sigma = rng_uniform(rng, 0, augment->blur_sigma_max);
    draw->blur_sigma = blur ? sigma : 0;
    draw->noise_sigma = rng_uniform(rng, 0, augment->noise_sigma_max);
    draw->noise_key = (uint64_t)rng_u32(rng) << 32;
    draw->noise_key |= rng_u32(rng);
}

static void draw_erasing(const struct augment *augment, struct rng *rng, struct draw *draw) {
    const bool erase = rng_uniform(rng, 0, 1) < augment->erasing_probability;
    const float area = rng_uniform(rng, 0.2f, 1.0f) * augment->erasing_area_max;
    const float aspect = draw_factor(rng, 2.5f);
    draw->erase_width = erase ? fminf(sqrtf(area * aspect), 1) : 0;
    draw->erase_height = erase ? fminf(sqrtf(area / aspect), 1) : 0;
    draw->erase_x = rng_uniform(rng, 0, 1);
    draw->erase_y = rng_uniform(rng, 0, 1);
    draw->erase_shade = (uint8_t)rng_below(rng, 256);
}

/* Source positions are in units of 1/65536 pixel; pixel centres are whole numbers. */
enum { FRACTION_BITS = 16, ONE = 1 << FRACTION_BITS };

/* The shade at a position, black outside the picture; the outermost half pixel repeats its edge. */
static uint8_t sample(const uint8_t *grey, int width, int height, int32_t x, int32_t y) {
    const int32_t right = (width - 1) * ONE, bottom = (height - 1) * ONE;
    if (x < -ONE / 2 || y < -ONE / 2 || x > right + ONE / 2 || y > bottom + ONE / 2)
        return 0;
    x = x < 0 ? 0 : x > right ? right : x;
    y = y < 0 ? 0 : y > bottom ? bottom : y;
    int column = x >> FRACTION_BITS, row = y >> FRACTION_BITS;
    column -= column == width - 1; /* the last pixel is its left neighbour's fraction 256 */
    row -= row == height - 1;
    const uint32_t fx = (uint32_t)(x - column * ONE) >> 8, fy = (uint32_t)(y - row * ONE) >> 8; // 0..256
    const uint8_t *at = grey + (size_t)row * (size_t)width + column;
    const uint32_t top = at[0] * (256 - fx) + at[1] * fx;
    const uint32_t low = at[width] * (256 - fx) + at[width + 1] * fx;
    return (uint8_t)((top * (256 - fy) + low * fy + (1 << 15)) >> 16);
}

static int32_t to_fixed(double value) {
    return (int32_t)lrint(value * ONE);
}

/* grey -> out, both (height, width): each output pixel looks up where it comes from. */
static void warp(const struct draw *draw, int width, int height, const uint8_t *grey, uint8_t *out) {
    const double cosine = cos(draw->angle), sine = sin(draw->angle);
    const double step_u = (draw->flip ? -1 : 1) * draw->crop_width, step_v = draw->crop_height;
    const int32_t dx = to_fixed(step_u * cosine), dy = to_fixed(step_u * sine);
    for (int y = 0; y < height; y++) {
        /* Where the row's first pixel lies, relative to the crop's centre, before and after the rotation. */
        const double u = (0.5 - 0.5 * width) * step_u, v = (y + 0.5 - 0.5 * height) * step_v;
        int32_t sx = to_fixed(draw->centre_x * width - 0.5 + u * cosine - v * sine);
        int32_t sy = to_fixed(draw->centre_y * height - 0.5 + u * sine + v * cosine);
        uint8_t *row = out + (size_t)y * (size_t)width;
        for (int x = 0; x < width; x++, sx += dx, sy += dy)
            row[x] = sample(grey, width, height, sx, sy);
    }
}

static void shade_pixels(const struct draw *draw, uint8_t *pixels, size_t count) {
    uint8_t table[256];
    for (int i = 0; i < 256; i++) {
        float shade = powf((float)i / 255.0f, draw->gamma);
        shade = (shade - 0.5f) * draw->contrast + 0.5f + draw->brightness;
        table[i] = (uint8_t)lrintf(255.0f * fminf(fmaxf(shade, 0), 1));
    }
    for (size_t i = 0; i < count; i++)
        pixels[i] = table[pixels[i]];
}

/* The sum of four random bytes (Irwin-Hall): mean 510, standard deviation 147.8, bell-shaped, and cheap. */
static int32_t bell(uint32_t bits) {
    return (int32_t)((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)) - 510;
}

static void add_noise(const struct draw *draw, uint8_t *pixels, size_t count) {
    const int32_t scale = (int32_t)lrintf(draw->noise_sigma * 255.0f / 147.8f * 65536.0f);
    for (size_t i = 0; i < count; i += 4) {
        const struct rng_block block = rng_philox(draw->noise_key, 0, i);
        for (size_t k = 0; k < 4 && i + k < count; k++) {
            int32_t value = pixels[i + k] + ((bell(block.v[k]) * scale + (1 << 15)) >> 16);
            pixels[i + k] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
}

static void erase(const struct draw *draw, int width, int height, uint8_t *pixels) {
    const int columns = (int)(draw->erase_width * (float)width),
              rows = (int)(draw->erase_height * (float)height);
    const int left = (int)(draw->erase_x * (float)(width - columns + 1));
    const int top = (int)(draw->erase_y * (float)(height - rows + 1));
    for (int y = top; y < top + rows; y++)
        memset(pixels + (size_t)y * (size_t)width + left, draw->erase_shade, (size_t)columns);
}

void augment_apply(const struct augment *augment, struct rng *rng, const struct recipe *recipe,
                   const uint8_t *grey, void *scratch, float *out) {
    struct draw draw;
    draw_geometry(augment, rng, &draw);
    draw_shades(augment, rng, &draw);
    draw_erasing(augment, rng, &draw);
    const int width = recipe->width, height = recipe->height;
    const size_t count = recipe_pixels(recipe);
    uint8_t *pixels = scratch;
    warp(&draw, width, height, grey, pixels);
    blur_gaussian(pixels, width, height, draw.blur_sigma * (float)width, pixels + count);
    shade_pixels(&draw, pixels, count);
    if (draw.noise_sigma > 0)
        add_noise(&draw, pixels, count);
    erase(&draw, width, height, pixels);
    preprocess_normalise(recipe, pixels, out);
}
