#include "common/image/canvas.h"

#include <math.h>

/* The thorax's parameters in scene->value. Anatomical sides: the heart lies to the right of the picture. */
enum {
    CENTRE,      /* u of the spine */
    LUNG_TOP,    /* v of the apex */
    LUNG_BASE,   /* v of the diaphragm's dome */
    LUNG_WIDTH,  /* from the spine to the ribs' wall, at the base */
    BODY_WIDTH,  /* from the spine to the skin */
    HEART_SIZE,  /* radius */
    HEART_V,     /* v of its centre */
    HEART_ANGLE, /* radians */
    RIB_GAP,     /* v between neighbouring ribs */
    RIB_START,   /* v of the first */
    RIB_SHADE,   /* how much a rib adds */
    RIB_SLOPE,   /* how far it falls towards the side */
    AIR,         /* shade of the lungs */
    TISSUE,      /* shade of the soft parts */
    VESSELS,     /* strength of the vessels */
    BREASTS,     /* strength of the lower haze on both sides, which is normal */
    GAS,         /* radius of the stomach's bubble */
    NEGATIVE,    /* 1: black and white are swapped */
    OPACITIES,   /* how many follow */
    FIRST_OPACITY,
};

/* One opacity's parameters, from FIRST_OPACITY on. */
enum { OPACITY_U, OPACITY_V, OPACITY_RADIUS_U, OPACITY_RADIUS_V, OPACITY_DENSITY, OPACITY_VALUES };

enum { RIBS = 10, MAX_OPACITIES = 3 };

/* Where a point lies within its own half of the chest. */
struct place {
    float side;    /* -1: left in the picture, 1: right */
    float lateral; /* distance from the spine */
    float depth;   /* 0 at the apex, 1 at the dome */
};

static struct place place_of(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    struct place place = {.side = u < p[CENTRE] ? -1.0f : 1.0f, .lateral = fabsf(u - p[CENTRE])};
    place.depth = (v - p[LUNG_TOP]) / (p[LUNG_BASE] - p[LUNG_TOP]);
    return place;
}

/* 1 inside the lungs, 0 outside. The wall widens from the apex; the diaphragm is a dome, lower on the heart's
 * side. */
static float lung_at(const struct scene *scene, const struct place *place, float v) {
    const float *p = scene->value;
    if (place->depth <= 0)
        return 0;
    const float inner = 0.045f + 0.015f * place->depth;
    const float outer = p[LUNG_WIDTH] * sqrtf(1 - powf(fmaxf(1 - place->depth, 0), 2.2f));
    const float middle = 0.55f * p[LUNG_WIDTH], reach = (place->lateral - middle) / p[LUNG_WIDTH];
    const float floor_v =
        p[LUNG_BASE] + (place->side > 0 ? 0.025f : 0) + 0.45f * p[LUNG_WIDTH] * reach * reach * 2;
    return canvas_step(0, 0.02f, place->lateral - inner) * canvas_step(0, 0.025f, outer - place->lateral) *
           canvas_step(0, 0.02f, floor_v - v) * canvas_step(0, 0.05f, place->depth);
}

static float body_at(const struct scene *scene, const struct place *place, float v) {
    const float neck = 0.09f, shoulder = 0.02f + 0.13f * canvas_step(neck, 0.34f, place->lateral);
    const float arms = scene->value[BODY_WIDTH] + 0.12f * canvas_step(0.45f, 0.1f, v);
    return canvas_step(0, 0.03f, v - shoulder * canvas_step(0.6f * neck, neck, place->lateral)) *
           canvas_step(0, 0.03f, arms - place->lateral);
}

/* The back parts of the ribs start at the spine and fall towards the side; the front parts rise, fainter. */
static float ribs_at(const struct scene *scene, const struct place *place, float v) {
    const float *p = scene->value;
    const float x = place->lateral / p[LUNG_WIDTH];
    if (x > 1.08f)
        return 0;
    float sum = 0;
    for (int rib = 0; rib < RIBS; rib++) {
        const float start = p[RIB_START] + p[RIB_GAP] * (float)rib;
        const float back = start - 0.05f * x + p[RIB_SLOPE] * x * x;
        const float front = start + 0.16f - 0.13f * x * x;
        const float near_back = (v - back) / (0.19f * p[RIB_GAP]),
                    near_front = (v - front) / (0.2f * p[RIB_GAP]);
        if (fabsf(near_back) < 2)
            sum += expf(-powf(near_back, 4)) * (0.75f + 0.25f * near_back * near_back);
        if (fabsf(near_front) < 2 && x > 0.3f)
            sum += 0.4f * expf(-powf(near_front, 4)) * canvas_step(0.3f, 0.6f, x);
    }
    return p[RIB_SHADE] * sum;
}

/* Branches that are dense and thick at the hilum and thin out: ridges of noise along the distance from it. */
static float vessels_at(const struct scene *scene, const struct place *place, float v) {
    const float *p = scene->value;
    const float x = place->lateral - 0.05f, y = v - canvas_mix(p[LUNG_TOP], p[LUNG_BASE], 0.52f);
    const float distance = sqrtf(x * x + y * y);
    const float bend = canvas_noise(scene->texture + 9u, 8 * place->lateral + 50 * place->side, 8 * v, 2);
    const float angle = 2.2f * atan2f(y, x) + 7 * place->side + 1.6f * bend;
    const float ridge =
        1 - fabsf(2 * canvas_noise(scene->texture, angle * (2 + 5 * distance), 6 * distance, 2) - 1);
    const float hilum = expf(-(x * x * 2.5f + y * y) / 0.006f);
    const float branches = powf(ridge, 6) * expf(-distance / 0.2f) * canvas_step(0.02f, 0.1f, distance);
    return p[VESSELS] * (branches + hilum);
}

static float spine_at(const struct scene *scene, const struct place *place, float v) {
    const float *p = scene->value;
    const float width = 0.05f + 0.02f * canvas_step(0.25f, 0.42f, v) * canvas_step(0.75f, 0.5f, v);
    const float bodies = 0.5f + 0.5f * cosf(v * 2 * (float)M_PI / (0.85f * p[RIB_GAP]));
    const float bone = canvas_step(0.05f, 0.03f, place->lateral) * (0.03f + 0.05f * bodies);
    const float windpipe = 0.12f * canvas_step(0.02f, 0.012f, place->lateral) * canvas_step(0.42f, 0.36f, v);
    return canvas_step(width + 0.02f, width - 0.02f, place->lateral) * 0.1f + bone - windpipe;
}

static float heart_at(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const float centre[2] = {p[CENTRE] + 0.32f * p[HEART_SIZE], p[HEART_V]};
    const float radii[2] = {1.15f * p[HEART_SIZE], 0.85f * p[HEART_SIZE]};
    const float arch[2] = {p[CENTRE] + 0.05f, p[HEART_V] - 1.75f * p[HEART_SIZE]}, small[2] = {0.045f, 0.05f};
    return fmaxf(canvas_step(1.1f, 0.92f, canvas_ellipse(centre, radii, p[HEART_ANGLE], u, v)),
                 canvas_step(1.3f, 0.8f, canvas_ellipse(arch, small, 0, u, v)));
}

static float clavicles_at(const struct scene *scene, const struct place *place, float v) {
    const float top = scene->value[LUNG_TOP];
    const float inner[2] = {0.05f, top + 0.075f}, outer[2] = {0.33f, top - 0.01f};
    const float wave = 0.012f * sinf(place->lateral * 16);
    return 0.14f * canvas_step(0.019f, 0.009f, canvas_segment(inner, outer, place->lateral, v + wave));
}

/* How much of the air is replaced, 0..1: soft-edged, cloudy, and only where there is lung. */
static float opacity_at(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    float clear = 1;
    for (int i = 0; i < (int)p[OPACITIES]; i++) {
        const float *o = p + FIRST_OPACITY + i * OPACITY_VALUES;
        const float radii[2] = {o[OPACITY_RADIUS_U], o[OPACITY_RADIUS_V]};
        const float cloud = canvas_noise(scene->texture + 77u + (uint32_t)i, 14 * u, 14 * v, 4);
        const float distance = canvas_ellipse(o, radii, 0, u, v) + 0.9f * (cloud - 0.5f);
        clear *=
            1 - o[OPACITY_DENSITY] * canvas_step(1.15f, 0.45f, distance) * (0.7f + 0.6f * (cloud - 0.25f));
    }
    return fminf(fmaxf(1 - clear, 0), 0.97f);
}

static float abdomen_at(const struct scene *scene, const struct place *place, float u, float v) {
    const float *p = scene->value;
    const float bubble[2] = {p[CENTRE] + 0.17f, p[LUNG_BASE] + 0.07f}, radii[2] = {1.3f * p[GAS], p[GAS]};
    return 0.1f * canvas_step(0.9f, 1.05f, place->depth) -
           0.22f * canvas_step(1.1f, 0.6f, canvas_ellipse(bubble, radii, 0, u, v));
}

static float thorax_shade(const struct scene *scene, float u, float v) {
    const float *p = scene->value;
    const struct place place = place_of(scene, u, v);
    const float body = body_at(scene, &place, v), lung = lung_at(scene, &place, v),
                heart = heart_at(scene, u, v);
    const float air = lung * (1 - 0.92f * heart);
    const float grain = 0.05f * (canvas_noise(scene->texture + 5u, 22 * u, 22 * v, 4) - 0.5f);
    float shade = p[TISSUE] + abdomen_at(scene, &place, u, v) + 0.1f * heart + grain;
    float lungs = p[AIR] + vessels_at(scene, &place, v) + grain + 0.04f * place.depth;
    lungs += p[BREASTS] * canvas_step(0.45f, 0.75f, place.depth) * canvas_step(0.06f, 0.14f, place.lateral);
    lungs = canvas_mix(lungs, p[TISSUE] + 0.06f, opacity_at(scene, u, v));
    shade = canvas_mix(shade, lungs, air);
    shade += ribs_at(scene, &place, v) * canvas_mix(0.25f, 1, lung) + spine_at(scene, &place, v) +
             clavicles_at(scene, &place, v);
    shade = canvas_mix(0.02f, shade, body);
    return p[NEGATIVE] > 0 ? 1 - shade : shade;
}

/* A place in one of the lungs, away from the heart; from faint but certain to massive. */
static void draw_opacity(const struct scene *scene, struct rng *rng, float *opacity) {
    const float *p = scene->value;
    const float side = rng_below(rng, 2) ? 1 : -1, depth = rng_uniform(rng, 0.3f, 0.88f);
    const float lateral =
        p[LUNG_WIDTH] * rng_uniform(rng, 0.42f, 0.75f) + (side > 0 && depth > 0.5f ? 0.045f : 0);
    opacity[OPACITY_U] = p[CENTRE] + side * lateral;
    opacity[OPACITY_V] = canvas_mix(p[LUNG_TOP], p[LUNG_BASE], depth);
    opacity[OPACITY_RADIUS_U] = rng_uniform(rng, 0.1f, 0.16f);
    opacity[OPACITY_RADIUS_V] = opacity[OPACITY_RADIUS_U] * rng_uniform(rng, 0.8f, 1.7f);
    opacity[OPACITY_DENSITY] = rng_uniform(rng, 0.6f, 1.0f);
}

static void draw_build(struct scene *scene, struct rng *rng) {
    float *p = scene->value;
    p[CENTRE] = rng_uniform(rng, 0.48f, 0.52f);
    p[LUNG_TOP] = rng_uniform(rng, 0.09f, 0.15f);
    p[LUNG_BASE] = rng_uniform(rng, 0.68f, 0.78f);
    p[LUNG_WIDTH] = rng_uniform(rng, 0.31f, 0.37f);
    p[BODY_WIDTH] = p[LUNG_WIDTH] + rng_uniform(rng, 0.05f, 0.11f);
    p[HEART_SIZE] = rng_uniform(rng, 0.125f, 0.165f);
    p[HEART_V] = p[LUNG_BASE] - rng_uniform(rng, 0.08f, 0.12f);
    p[HEART_ANGLE] = rng_uniform(rng, 0.4f, 0.8f);
    p[RIB_GAP] = rng_uniform(rng, 0.072f, 0.086f);
    p[RIB_START] = p[LUNG_TOP] - 0.01f;
    p[RIB_SHADE] = rng_uniform(rng, 0.07f, 0.13f);
    p[RIB_SLOPE] = rng_uniform(rng, 0.1f, 0.19f);
    p[AIR] = rng_uniform(rng, 0.14f, 0.24f);
    p[TISSUE] = rng_uniform(rng, 0.55f, 0.66f);
    p[VESSELS] = rng_uniform(rng, 0.1f, 0.2f);
    p[BREASTS] = rng_uniform(rng, 0, 0.05f);
    p[GAS] = rng_uniform(rng, 0.0f, 0.05f) + 0.005f;
    scene->texture = rng_u32(rng);
}

void thorax_setup(struct scene *scene, struct rng *patient, struct rng *opacities, bool with_opacities) {
    *scene = (struct scene){.shade = thorax_shade};
    draw_build(scene, patient);
    if (!with_opacities)
        return;
    const int count = 1 + (int)rng_below(opacities, MAX_OPACITIES);
    for (int i = 0; i < count; i++)
        draw_opacity(scene, opacities, scene->value + FIRST_OPACITY + i * OPACITY_VALUES);
    scene->value[OPACITIES] = (float)count;
}

void thorax_negate(struct scene *scene) {
    scene->value[NEGATIVE] = 1;
}
