#include "common/op/variation.h"
#include "tests/conformance/inputs.h"

#include <math.h>
#include <string.h>

/* Any map, also one that leads far out of the picture: devices must agree on what they never see in training, too. */
static void fill_geometry(const struct vary *vary, struct rng *rng, struct variation *v) {
    const double angle = (double)rng_uniform(rng, -3.2f, 3.2f), across = (double)rng_uniform(rng, -1.3f, 1.3f);
    v->sine = sin(angle);
    v->cosine = cos(angle);
    v->down = (double)rng_uniform(rng, 0.2f, 1.3f);
    v->step[0] = variation_fixed(across * v->cosine);
    v->step[1] = variation_fixed(across * v->sine);
    v->origin[0] = (double)rng_uniform(rng, -0.3f, 1.3f) * vary->width;
    v->origin[1] = (double)rng_uniform(rng, -0.3f, 1.3f) * vary->height;
}

static void fill_blur(struct rng *rng, struct variation *v) {
    int left = 256;
    v->blur_radius = 1 + (int)rng_below(rng, VARIATION_BLUR_RADIUS);
    for (int i = 1; i <= v->blur_radius; i++) {
        v->blur[i] = (uint16_t)rng_below(rng, (uint32_t)(left / 4 + 1));
        left -= 2 * v->blur[i];
    }
    v->blur[0] = (uint16_t)left;
}

static void fill_erasing(const struct vary *vary, struct rng *rng, struct variation *v) {
    v->erase_width = (int32_t)rng_below(rng, (uint32_t)vary->width + 1);
    v->erase_height = (int32_t)rng_below(rng, (uint32_t)vary->height / 2);
    v->erase_left = (int32_t)rng_below(rng, (uint32_t)(vary->width - v->erase_width + 1));
    v->erase_top = (int32_t)rng_below(rng, (uint32_t)(vary->height - v->erase_height + 1));
    v->erase_shade = (uint8_t)rng_below(rng, 256);
}

void inputs_fill_vary(const struct op_case *c, struct rng *rng, struct tensor *rows) {
    const int64_t count = rows->shape.dims[0], bytes = rows->shape.dims[1];
    for (int64_t n = 0; n < count; n++) {
        uint8_t *row = (uint8_t *)rows->data + n * bytes;
        struct variation *v = (struct variation *)(void *)row;
        for (int64_t i = 0; i < bytes; i++)
            row[i] = (uint8_t)rng_below(rng, 256);
        memset(v, 0, offsetof(struct variation, table)); /* the table stays as wild as the pixels */
        fill_geometry(&c->op.vary, rng, v);
        fill_erasing(&c->op.vary, rng, v);
        if (n % 3 != 2)
            fill_blur(rng, v);
        if (n % 4 != 3)
            v->noise_scale = (int32_t)rng_below(rng, 23000);
        v->noise_key = (uint64_t)rng_u32(rng) << 32 | rng_u32(rng);
    }
}
