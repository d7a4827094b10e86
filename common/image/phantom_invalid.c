#include "common/image/canvas.h"

#include <math.h>

/* Each painter reads its parameters from scene->value: all drawn from [0, 1), each scaled where it is used.
 */

static float grain(const struct scene *scene, float u, float v, float frequency) {
    return canvas_noise(scene->texture, frequency * u, frequency * v, 4) - 0.5f;
}

/* A tube of bone: dense walls, a lighter marrow, flesh around it. */
static float bone(float distance, float radius) {
    const float wall = canvas_step(radius, 0.85f * radius, distance);
    return wall * (0.3f + 0.15f * canvas_step(0.4f * radius, 0.8f * radius, distance));
}

/* Two long bones of a forearm or a shin that meet a third at a joint. */
static float limb_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float tilt = 0.3f * (p[0] - 0.5f), joint = 0.35f + 0.3f * p[1], centre = 0.45f + 0.1f * p[2];
    const float x = u + tilt * (v - 0.5f), flesh = 0.17f + 0.12f * p[3];
    const float distance = fabsf(x - centre) / (1 + 0.25f * sinf(6 * v + 6 * p[4]));
    const float upper[2][2] = {{centre, -0.2f}, {centre, joint - 0.05f}};
    const float left[2][2] = {{centre - 0.055f, joint + 0.045f}, {centre - 0.07f, 1.2f}};
    const float right[2][2] = {{centre + 0.06f, joint + 0.07f}, {centre + 0.075f, 1.2f}};
    const float swell = 1 + 0.7f * expf(-powf((v - joint) / 0.09f, 2));
    float shade = 0.03f + 0.35f * canvas_step(flesh, 0.8f * flesh, distance);
    shade += bone(canvas_segment(upper[0], upper[1], x, v), 0.07f * swell);
    shade += bone(canvas_segment(left[0], left[1], x, v), 0.042f * swell);
    shade += bone(canvas_segment(right[0], right[1], x, v), 0.032f * swell);
    return shade + 0.08f * grain(scene, u, v, 24) * shade;
}

/* Five rays of bones in soft outlines. */
static float hand_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float wrist[2] = {0.5f, 1.02f}, turn = 0.3f * (p[0] - 0.5f);
    const float palm[2] = {0.5f, 0.74f}, radii[2] = {0.2f, 0.24f};
    float soft = canvas_step(1.05f, 0.95f, canvas_ellipse(palm, radii, 0, u, v)), hard = 0;
    for (int finger = 0; finger < 5; finger++) {
        const float angle = (-0.95f + 0.4f * (float)finger) * (0.8f + 0.3f * p[1]) + turn;
        const float length = 0.92f - 0.07f * fabsf((float)finger - 2.4f) - (finger == 0 ? 0.22f : 0);
        const float tip[2] = {wrist[0] + length * sinf(angle) * 0.75f, wrist[1] - length * cosf(angle)};
        const float distance = canvas_segment(wrist, tip, u, v);
        const float along = hypotf(u - wrist[0], v - wrist[1]) / length;
        const float knuckle = fabsf(along - 0.55f) < 0.012f || fabsf(along - 0.76f) < 0.012f ? 0 : 1;
        if (along > 0.25f)
            hard = fmaxf(hard, knuckle * bone(distance, 0.021f + 0.006f * cosf(along * 29)));
        soft = fmaxf(soft, canvas_step(0.055f, 0.045f, distance) * canvas_step(0.2f, 0.3f, along));
    }
    return 0.03f + (0.3f + 0.1f * p[2]) * soft + hard + 0.05f * grain(scene, u, v, 24) * soft;
}

/* A head in section: a bright ring, folds inside, two dark ventricles. */
static float head_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float centre[2] = {0.47f + 0.06f * p[0], 0.47f + 0.06f * p[1]};
    const float radii[2] = {0.3f + 0.08f * p[2], 0.37f + 0.08f * p[3]};
    const float ring = canvas_ellipse(centre, radii, 0, u, v);
    const float folds = fabsf(grain(scene, u, v, 18));
    const float left[2] = {centre[0] - 0.045f, centre[1]}, right[2] = {centre[0] + 0.045f, centre[1]};
    const float slit[2] = {0.025f, 0.09f};
    float shade = 0.02f + canvas_step(1.02f, 0.98f, ring) * (0.35f + 0.3f * p[4] + 1.2f * folds * ring);
    shade += (0.4f + 0.3f * p[5]) * canvas_step(0.9f, 0.93f, ring) * canvas_step(1.02f, 0.98f, ring);
    const float holes =
        fminf(canvas_ellipse(left, slit, 0.3f, u, v), canvas_ellipse(right, slit, -0.3f, u, v));
    return shade - 0.3f * canvas_step(1.1f, 0.8f, holes);
}

static float gradient_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float angle = 2 * (float)M_PI * p[0], along = (u - 0.5f) * cosf(angle) + (v - 0.5f) * sinf(angle);
    const float round = hypotf(u - p[1], v - p[2]);
    return 0.5f + (p[3] > 0.5f ? along : round - 0.5f) * (0.5f + p[4]);
}

/* A film that saw nothing, or too much. */
static float blank_shade(const struct scene *scene, float u, float v) {
    return scene->value[0] + 0.03f * grain(scene, u, v, 3);
}

static float noise_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    return 0.3f + 0.4f * p[0] + (0.6f + 1.4f * p[1]) * grain(scene, u, v, 3 + 60 * p[2] * p[2]);
}

/* Lines of words of letters: strokes at random in a grid of cells, as a scanned report has them. */
static float text_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float lines = 18 + 16 * p[0], x = u * lines * 1.8f, y = v * lines;
    const int32_t column = (int32_t)x, line = (int32_t)y;
    const struct rng_block cell = rng_philox(scene->texture, (uint64_t)line, (uint64_t)column);
    const float ends = 0.6f + 0.35f * rng_unit(rng_philox(scene->texture, 99, (uint64_t)line).v[0]);
    const bool blank = cell.v[0] % 6 == 0 || u < 0.08f || u > ends || v < 0.06f || v > 0.94f || line % 9 == 8;
    const float s = x - (float)column, t = y - (float)line;
    const bool upright = fabsf(s - 0.3f - 0.4f * rng_unit(cell.v[1])) < 0.11f && t > 0.2f && t < 0.8f;
    const bool level = fabsf(t - 0.3f - 0.4f * rng_unit(cell.v[2])) < 0.1f && s > 0.15f && s < 0.85f;
    const float paper = 0.85f + 0.1f * p[1] + 0.05f * grain(scene, u, v, 6);
    return !blank && (upright || level) ? 0.15f : paper;
}

/* Sky, sun, two ranges of hills, a house. */
static float landscape_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float sun[2] = {p[0], 0.1f + 0.2f * p[1]}, disc[2] = {0.06f, 0.06f};
    const float far_hill = 0.45f + 0.2f * canvas_noise(scene->texture + 1, 3 * u, 0, 3);
    const float near_hill = 0.6f + 0.25f * canvas_noise(scene->texture + 2, 2.2f * u, 5, 4);
    const float house = 0.2f + 0.6f * p[2], wall = near_hill + 0.02f;
    float shade = 0.75f - 0.35f * v + 0.25f * grain(scene, u, 2 * v, 5) * canvas_step(0.2f, 0.5f, p[3]);
    shade = canvas_mix(shade, 1, canvas_step(1.1f, 0.9f, canvas_ellipse(sun, disc, 0, u, v)));
    if (v > far_hill)
        shade = 0.42f + 0.2f * grain(scene, u, v, 20);
    if (v > near_hill)
        shade = 0.25f + 0.5f * p[4] * v + 0.5f * grain(scene, u, v, 45);
    if (fabsf(u - house) < 0.09f && v > wall - 0.17f && v < wall)
        shade = fabsf(u - house) < 0.025f && v > wall - 0.09f ? 0.1f : 0.8f;
    if (v < wall - 0.17f && v > wall - 0.3f + 1.1f * fabsf(u - house))
        shade = 0.3f;
    return shade;
}

static float negative_landscape_shade(const struct scene *scene, float u, float v) {
    return 1 - landscape_shade(scene, u, v);
}

static float (*const painters[])(const struct scene *scene, float u, float v) = {
    limb_shade,  hand_shade, head_shade,      gradient_shade,           blank_shade,
    noise_shade, text_shade, landscape_shade, negative_landscape_shade,
};

void invalid_setup(struct scene *scene, struct rng *rng) {
    enum { PAINTERS = sizeof painters / sizeof *painters };
    const uint32_t which = rng_below(rng, PAINTERS + 1);
    if (which == PAINTERS) {
        struct rng build = *rng;
        thorax_setup(scene, &build, rng, false);
        thorax_negate(scene);
        return;
    }
    *scene = (struct scene){.shade = painters[which], .texture = rng_u32(rng)};
    for (size_t i = 0; i < sizeof scene->value / sizeof *scene->value; i++)
        scene->value[i] = rng_uniform(rng, 0, 1);
}
