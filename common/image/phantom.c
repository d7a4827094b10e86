#include "common/image/phantom.h"

#include "common/image/blur.h"
#include "common/image/canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* How one film of a patient was taken: drawn for all classes alike. */
struct exposure {
    float shift_u, shift_v, cosine,
        sine; /* position of the patient; the rotation includes the magnification */
    float gain, offset, gamma;
    float blur; /* sigma, fraction of the width */
    float noise;
    float border; /* collimated edge, fraction of the side; 0: none */
    uint64_t noise_key;
};

const char *phantom_name(enum phantom_kind kind) {
    static const char *const names[] = {
        [PHANTOM_NORMAL] = "NORMAL", [PHANTOM_PNEUMONIA] = "PNEUMONIA", [PHANTOM_INVALID] = "INVALID"};
    return (unsigned)kind < PHANTOM_KINDS ? names[kind] : "UNKNOWN";
}

static struct exposure draw_exposure(struct rng *rng) {
    struct exposure exposure = {
        .shift_u = rng_uniform(rng, -0.03f, 0.03f),
        .shift_v = rng_uniform(rng, -0.03f, 0.03f),
        .gain = rng_uniform(rng, 0.85f, 1.15f),
        .offset = rng_uniform(rng, -0.04f, 0.04f),
        .gamma = expf(rng_uniform(rng, -0.3f, 0.3f)),
        .noise = rng_uniform(rng, 0.005f, 0.035f),
    };
    const float angle = rng_uniform(rng, -0.07f, 0.07f), zoom = rng_uniform(rng, 0.94f, 1.08f);
    exposure.cosine = zoom * cosf(angle);
    exposure.sine = zoom * sinf(angle);
    const float soft = rng_uniform(rng, -0.006f, 0.009f), border = rng_uniform(rng, -0.06f, 0.05f);
    exposure.blur = fmaxf(soft, 0);
    exposure.border = fmaxf(border, 0);
    exposure.noise_key = (uint64_t)rng_u32(rng) << 32;
    exposure.noise_key |= rng_u32(rng);
    return exposure;
}

static uint8_t expose(const struct exposure *exposure, float shade) {
    shade = powf(fminf(fmaxf(shade, 0), 1), exposure->gamma) * exposure->gain + exposure->offset;
    return (uint8_t)lrintf(255 * fminf(fmaxf(shade, 0), 1));
}

static void paint(const struct scene *scene, const struct exposure *exposure, struct image *image) {
    uint8_t *pixels = image->pixels;
    for (int y = 0; y < image->height; y++)
        for (int x = 0; x < image->width; x++) {
            const float u = ((float)x + 0.5f) / (float)image->width - 0.5f;
            const float v = ((float)y + 0.5f) / (float)image->height - 0.5f;
            const float scene_u = 0.5f + exposure->cosine * u - exposure->sine * v + exposure->shift_u;
            const float scene_v = 0.5f + exposure->sine * u + exposure->cosine * v + exposure->shift_v;
            const float edge = 0.5f - fmaxf(fabsf(u), fabsf(v));
            const float shade = edge < exposure->border ? 0.01f : scene->shade(scene, scene_u, scene_v);
            *pixels++ = expose(exposure, shade);
        }
}

/* Quanta: stronger where the film is brighter, since less arrived there. */
static void add_noise(const struct exposure *exposure, struct image *image) {
    uint8_t *pixels = image->pixels;
    const size_t count = (size_t)image->width * (size_t)image->height;
    for (size_t i = 0; i < count; i++) {
        const struct rng_block block = rng_philox(exposure->noise_key, 0, i);
        const float bell =
            rng_unit(block.v[0]) + rng_unit(block.v[1]) + rng_unit(block.v[2]) + rng_unit(block.v[3]) - 2;
        const float value =
            (float)pixels[i] + bell * 1.73f * exposure->noise * (60.0f + 0.76f * (float)pixels[i]);
        pixels[i] = (uint8_t)lrintf(fminf(fmaxf(value, 0), 255));
    }
}

/* Letters of 5 x 7 dots, a row in each number, the leftmost dot in bit 4. */
static const struct glyph {
    char letter;
    uint8_t rows[7];
} glyphs[] = {
    {'S', {0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E}}, {'Y', {0x11, 0x11, 0x0A, 0x04, 0x04, 0x04, 0x04}},
    {'N', {0x11, 0x19, 0x15, 0x13, 0x11, 0x11, 0x11}}, {'T', {0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04}},
    {'H', {0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11}}, {'E', {0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F}},
    {'I', {0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E}}, {'C', {0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E}},
};

static bool dot_of(char letter, int x, int y) {
    for (size_t i = 0; i < sizeof glyphs / sizeof *glyphs; i++)
        if (glyphs[i].letter == letter && x < 5 && y < 7)
            return glyphs[i].rows[y] >> (4 - x) & 1;
    return false;
}

/* White on a black box at the lower left edge: legible on any picture, and the same on all of them. */
static void mark(struct image *image) {
    static const char text[] = "SYNTHETIC";
    const int letters = (int)strlen(text), columns = 6 * letters + 1, rows = 9;
    const int dot = image->width / 120 > 1 ? image->width / 120 : 1;
    const int left = (image->width - columns * dot) / 8, top = image->height - (rows + 1) * dot;
    uint8_t *pixels = image->pixels;
    for (int y = 0; y < rows * dot; y++)
        for (int x = 0; x < columns * dot; x++) {
            const int column = x / dot - 1, row = y / dot - 1;
            const bool white = column >= 0 && row >= 0 && dot_of(text[column / 6], column % 6, row);
            pixels[(size_t)(top + y) * (size_t)image->width + (size_t)(left + x)] = white ? 255 : 0;
        }
}

/* The purposes of the seed's streams; a patient's is shared by the patient's films. */
enum { STREAM_PATIENT = 1, STREAM_OPACITIES, STREAM_INVALID, STREAM_EXPOSURE };

static void setup_scene(enum phantom_kind kind, uint64_t seed, struct scene *scene) {
    struct rng patient, other;
    const uint64_t person = seed / PHANTOM_VIEWS;
    if (kind == PHANTOM_INVALID) {
        rng_init(&other, person, RNG_PHANTOM, STREAM_INVALID, 0);
        invalid_setup(scene, &other);
        return;
    }
    rng_init(&patient, person, RNG_PHANTOM, STREAM_PATIENT, 0);
    rng_init(&other, person, RNG_PHANTOM, STREAM_OPACITIES, 0);
    thorax_setup(scene, &patient, &other, kind == PHANTOM_PNEUMONIA);
}

bool phantom_draw(enum phantom_kind kind, uint64_t seed, int width, int height, struct image *out,
                  struct error *err) {
    *out = (struct image){0};
    if ((unsigned)kind >= PHANTOM_KINDS || width < PHANTOM_MIN_SIDE || width > PHANTOM_MAX_SIDE ||
        height < PHANTOM_MIN_SIDE || height > PHANTOM_MAX_SIDE)
        return error_set(err, ERROR_INVALID, "no phantom of kind %d has %d x %d pixels; %d to %d is possible",
                         (int)kind, width, height, PHANTOM_MIN_SIDE, PHANTOM_MAX_SIDE);
    uint8_t *scratch = malloc((size_t)width * (size_t)height);
    if (!scratch)
        return error_set(err, ERROR_MEMORY, "no memory for a phantom");
    bool ok = image_init(out, width, height, 1, 8, err);
    if (ok) {
        struct scene scene;
        struct rng rng;
        setup_scene(kind, seed, &scene);
        rng_init(&rng, seed, RNG_PHANTOM, STREAM_EXPOSURE, 0);
        const struct exposure exposure = draw_exposure(&rng);
        paint(&scene, &exposure, out);
        blur_gaussian(out->pixels, width, height, exposure.blur * (float)width, scratch);
        add_noise(&exposure, out);
        mark(out);
    }
    free(scratch);
    return ok;
}

bool phantom_tint(struct image *image, uint64_t seed, struct error *err) {
    if (!image->pixels || image->channels != 1 || image->bits != 8)
        return error_set(err, ERROR_INVALID, "only a grey 8-bit picture can be tinted");
    struct image colour;
    if (!image_init(&colour, image->width, image->height, 3, 8, err))
        return false;
    struct rng rng;
    rng_init(&rng, seed, RNG_PHANTOM, 0, 0);
    float power[3];
    for (int c = 0; c < 3; c++)
        power[c] = expf(rng_uniform(&rng, -0.8f, 0.8f));
    const size_t count = (size_t)image->width * (size_t)image->height;
    const uint8_t *grey = image->pixels;
    uint8_t *pixels = colour.pixels;
    for (size_t i = 0; i < count; i++)
        for (int c = 0; c < 3; c++)
            pixels[3 * i + (size_t)c] = (uint8_t)lrintf(255 * powf((float)grey[i] / 255, power[c]));
    image_fini(image);
    *image = colour;
    return true;
}
