#include "tests/conformance/inputs.h"

#include "common/base/rng.h"

#include <math.h>

bool case_inputs(const struct op_case *c, struct shape inputs[OP_MAX_INPUTS], struct error *err) {
    struct op plain = c->op;
    inputs[0] = inputs[1] = c->src;
    if (op_input_count(&c->op) < 2 || plain.kind != OP_CONV2D)
        return true;
    plain.conv2d.residual = false; /* the residual has the shape that the output has without it */
    plain.conv2d.int8.residual = DTYPE_NONE;
    return op_output_shape(&plain, inputs, &inputs[1], err);
}

static const float hyper_values[HYPER_COUNT] = {
    [HYPER_LEARNING_RATE] = 0.1f,  [HYPER_WEIGHT_DECAY] = 0.3f, [HYPER_MOMENTUM] = 0.8f,
    [HYPER_BETA1] = 0.9f,          [HYPER_BETA2] = 0.99f,       [HYPER_EPSILON] = 1e-3f,
    [HYPER_BIAS1] = 0.271f,        [HYPER_BIAS2] = 0.0297f,     [HYPER_EMA_DECAY] = 0.7f,
    [HYPER_GRADIENT_SCALE] = 0.5f,
};

/* How the values of a role are drawn: uniformly from [low, high), or by a rule of its own. */
struct recipe {
    double low, high;
    bool reaches; /* multiplied by the case's reach */
    double (*value)(const struct op_case *c, const struct op_args *args, int64_t i);
};

static double label_value(const struct op_case *c, const struct op_args *args, int64_t i) {
    (void)c;
    int64_t classes = args->desc[ARG_CLASS_WEIGHT].shape.dims[0];
    return (double)(i % 5 == 3 ? -1 : (i * 7 + 1) % classes); /* some rows do not count */
}

static double seed_value(const struct op_case *c, const struct op_args *args, int64_t i) {
    static const double seed[] = {20261123, 41, 1000003};
    (void)c;
    (void)args;
    return seed[i];
}

static double decay_value(const struct op_case *c, const struct op_args *args, int64_t i) {
    (void)c;
    (void)args;
    return (double)(i % 3 != 1);
}

static double hyper_value(const struct op_case *c, const struct op_args *args, int64_t i) {
    (void)args;
    return i == HYPER_CLIP_NORM && c->variant == 1 ? 1.5 : (double)hyper_values[i];
}

static double norm_value(const struct op_case *c, const struct op_args *args, int64_t i) {
    (void)args;
    return i == 0 ? 50.0 : c->variant == 2 ? 1 : 0;
}

/* Of twice the elements that there are here, as if another rank had as many, and of a variance that is positive. */
static double sums_value(const struct op_case *c, const struct op_args *args, int64_t i) {
    const int64_t *dims = args->desc[ARG_SRC].shape.dims;
    double count = 2.0 * (double)(dims[0] * dims[2] * dims[3]), channel = (double)(i % dims[1]);
    (void)c;
    return i < dims[1] ? count : i < 2 * dims[1] ? count * 0.2 * sin(channel) : count * (0.5 + 0.2 * cos(channel));
}

static const struct recipe plain = {-1, 1, false, NULL};
static const struct recipe recipes[ARG_COUNT] = {
    [ARG_SRC] = {-1, 1, true, NULL},        [ARG_SRC2] = {-1, 1, true, NULL},
    [ARG_BIAS] = {-1, 1, true, NULL},       [ARG_SHIFT] = {-1, 1, true, NULL},
    [ARG_SCALE] = {0.5, 1.5, false, NULL},  [ARG_RUNNING_VARIANCE] = {0.5, 1.5, false, NULL},
    [ARG_STATE2] = {0.5, 1.5, false, NULL}, [ARG_CLASS_WEIGHT] = {0.5, 2, false, NULL},
    [ARG_LABEL] = {.value = label_value},   [ARG_SEED] = {.value = seed_value},
    [ARG_DECAY] = {.value = decay_value},   [ARG_HYPER] = {.value = hyper_value},
    [ARG_NORM] = {.value = norm_value},     [ARG_SUMS] = {.value = sums_value},
    [ARG_SAVED_VARIANCE] = {0.5, 1.5, false, NULL},
};

static void fill(const struct op_case *c, const struct op_args *args, enum arg arg, struct rng *rng,
                 struct tensor *tensor) {
    const struct recipe *recipe = recipes[arg].value || recipes[arg].high > 0 ? &recipes[arg] : &plain;
    double factor = recipe->reaches && c->reach > 0 ? (double)c->reach : 1;
    int64_t count = shape_count(&tensor->shape);
    for (int64_t i = 0; i < count; i++) {
        /* Two draws make a double that f32 cannot hold, so that f64 runs are no coarser than they should be.
         */
        double unit = (double)rng_uniform(rng, 0, 1) + (double)rng_uniform(rng, 0, 1) / 16777216.0;
        double drawn = (recipe->low + (recipe->high - recipe->low) * unit) * factor;
        host_set(tensor, i, recipe->value ? recipe->value(c, args, i) : drawn);
    }
    if (arg == ARG_GRADIENT && c->variant == 2) {
        host_set(tensor, 3, NAN);
        host_set(tensor, count - 1, -INFINITY);
    }
}

void inputs_fill(const struct op_case *c, const struct op_args *args, uint64_t seed,
                 struct tensor tensors[ARG_COUNT]) {
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        struct rng rng;
        enum arg_direction direction = args->direction[arg];
        rng_init(&rng, seed, RNG_TEST, (uint64_t)arg, 0);
        if ((direction != ARG_IN && direction != ARG_INOUT) || !tensors[arg].data)
            continue;
        if (c->op.kind == OP_VARY)
            inputs_fill_vary(c, &rng, &tensors[arg]);
        else if (op_is_int8(&c->op))
            inputs_fill_int8(c, args, (enum arg)arg, &rng, &tensors[arg]);
        else
            fill(c, args, (enum arg)arg, &rng, &tensors[arg]);
    }
}
