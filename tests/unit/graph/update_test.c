/* Training steps against the optimisers' formulas, on one linear layer whose gradient can be written down. */
#include "common/graph/plan.h"
#include "tests/unit/graph/network.h"

#include <math.h>
#include <stdlib.h>

enum { FEATURES = 2, CLASSES = 2, BATCH = 2, WEIGHTS = CLASSES * FEATURES, ALL = WEIGHTS + CLASSES };

static const float images[BATCH * FEATURES] = {0.5f, -1.0f, 1.5f, 0.25f};
static const int32_t labels[BATCH] = {0, 1};

/** Weight (CLASSES, FEATURES), then bias (CLASSES), in double; with the optimiser's states. */
struct hand {
    double value[ALL], gradient[ALL], state[ALL], state2[ALL], ema[ALL], loss;
};

/** Softmax cross-entropy of W x + b: dlogits = (p - y) / N. */
static void hand_gradient(struct hand *hand) {
    hand->loss = 0;
    for (int i = 0; i < ALL; i++)
        hand->gradient[i] = 0;
    for (int n = 0; n < BATCH; n++) {
        double z[CLASSES], sum = 0;
        for (int k = 0; k < CLASSES; k++) {
            z[k] = hand->value[WEIGHTS + k];
            for (int f = 0; f < FEATURES; f++)
                z[k] += hand->value[k * FEATURES + f] * images[n * FEATURES + f];
            sum += exp(z[k]);
        }
        hand->loss += (log(sum) - z[labels[n]]) / BATCH;
        for (int k = 0; k < CLASSES; k++) {
            double d = (exp(z[k]) / sum - (k == labels[n])) / BATCH;
            hand->gradient[WEIGHTS + k] += d;
            for (int f = 0; f < FEATURES; f++)
                hand->gradient[k * FEATURES + f] += d * images[n * FEATURES + f];
        }
    }
}

static double hand_norm(const struct hand *hand) {
    double sum = 0;
    for (int i = 0; i < ALL; i++)
        sum += hand->gradient[i] * hand->gradient[i];
    return sqrt(sum);
}

/** Loshchilov & Hutter 2019, algorithm 2, with decay on weights only; then the moving average. */
static void hand_adamw(struct hand *hand, const float *h) {
    for (int i = 0; i < ALL; i++) {
        double g = hand->gradient[i] * h[HYPER_GRADIENT_SCALE], decay = i < WEIGHTS ? h[HYPER_WEIGHT_DECAY] : 0;
        hand->value[i] *= 1 - h[HYPER_LEARNING_RATE] * decay;
        hand->state[i] = h[HYPER_BETA1] * hand->state[i] + (1 - h[HYPER_BETA1]) * g;
        hand->state2[i] = h[HYPER_BETA2] * hand->state2[i] + (1 - h[HYPER_BETA2]) * g * g;
        double m = hand->state[i] / h[HYPER_BIAS1], v = hand->state2[i] / h[HYPER_BIAS2];
        hand->value[i] -= h[HYPER_LEARNING_RATE] * m / (sqrt(v) + h[HYPER_EPSILON]);
        hand->ema[i] = h[HYPER_EMA_DECAY] * hand->ema[i] + (1 - h[HYPER_EMA_DECAY]) * hand->value[i];
    }
}

/** PyTorch's SGD: decay is added to the gradient, the buffer has no dampening; clipped to norm c by c / (n + 1e-6) first. */
static void hand_sgd(struct hand *hand, const float *h) {
    double norm = hand_norm(hand) * h[HYPER_GRADIENT_SCALE], clip = h[HYPER_CLIP_NORM];
    double scale = h[HYPER_GRADIENT_SCALE] * (clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1);
    for (int i = 0; i < ALL; i++) {
        double g = hand->gradient[i] * scale + (i < WEIGHTS ? h[HYPER_WEIGHT_DECAY] * hand->value[i] : 0);
        hand->state[i] = h[HYPER_MOMENTUM] * hand->state[i] + g;
        hand->value[i] -= h[HYPER_LEARNING_RATE] * hand->state[i];
        hand->ema[i] = h[HYPER_EMA_DECAY] * hand->ema[i] + (1 - h[HYPER_EMA_DECAY]) * hand->value[i];
    }
}

struct bench {
    struct device *device;
    struct graph *graph;
    struct parameters *parameters;
    struct plan *plan;
    struct hand hand;
};

static void bench_init(struct bench *bench, enum op_kind optimizer) {
    struct error err = {0};
    *bench = (struct bench){.device = network_device(), .graph = graph_create()};
    struct layers layers = {bench->graph, &err, 1e-5f};
    if (layer_head(&layers, "fc", graph_add_input(bench->graph, FEATURES, 1, 1, &err), CLASSES, 0) < 0)
        fail_msg("%s", err.message);
    bench->parameters = network_parameters(bench->graph, 1);
    for (int i = 0; i < ALL; i++) {
        float *data = bench->parameters->tensors[i < WEIGHTS ? 0 : 1].data;
        data[i < WEIGHTS ? i : i - WEIGHTS] = 0.3f * (float)(i - 2);
        bench->hand.value[i] = bench->hand.ema[i] = 0.3f * (float)(i - 2);
    }
    struct plan_spec spec = {.graph = bench->graph, .parameters = bench->parameters, .device = bench->device, .mode = PLAN_TRAIN,
                             .batch = BATCH, .optimizer = optimizer, .ema = true};
    bench->plan = network_plan(&spec);
}

static void bench_fini(struct bench *bench) {
    plan_destroy(bench->plan);
    parameters_destroy(bench->parameters);
    graph_destroy(bench->graph);
    device_close(bench->device);
}

static void bench_equal(struct bench *bench, enum plan_buffer which, const double *expected) {
    assert_true(plan_export(bench->plan, which, bench->parameters, NULL));
    for (int i = 0; i < ALL; i++) {
        const float *data = bench->parameters->tensors[i < WEIGHTS ? 0 : 1].data;
        assert_true(fabs(data[i < WEIGHTS ? i : i - WEIGHTS] - expected[i]) < 1e-6);
    }
}

static void bench_run(struct bench *bench) {
    const int64_t seed[3] = {0};
    float loss = 0;
    assert_true(plan_set_images(bench->plan, images, NULL) && plan_set_targets(bench->plan, labels, seed, NULL));
    assert_true(plan_run(bench->plan, NULL) && plan_read_loss(bench->plan, &loss, NULL));
    hand_gradient(&bench->hand);
    assert_true(fabs(loss - bench->hand.loss) < 1e-6);
    bench_equal(bench, PLAN_GRADIENTS, bench->hand.gradient);
}

static void adamw_and_the_average_follow_their_formulas(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, OP_ADAMW);
    for (int step = 1; step <= 4; step++) {
        const float hyper[HYPER_COUNT] = {
            [HYPER_LEARNING_RATE] = 0.1f, [HYPER_WEIGHT_DECAY] = 0.2f, [HYPER_BETA1] = 0.9f,     [HYPER_BETA2] = 0.99f,
            [HYPER_EPSILON] = 1e-8f,      [HYPER_EMA_DECAY] = 0.75f,   [HYPER_GRADIENT_SCALE] = 0.5f,
            [HYPER_BIAS1] = (float)(1 - pow(0.9, step)), [HYPER_BIAS2] = (float)(1 - pow(0.99, step))};
        bench_run(&bench);
        assert_true(plan_update(bench.plan, hyper, NULL));
        hand_adamw(&bench.hand, hyper);
        bench_equal(&bench, PLAN_VALUES, bench.hand.value);
        bench_equal(&bench, PLAN_STATE, bench.hand.state);
        bench_equal(&bench, PLAN_STATE2, bench.hand.state2);
        bench_equal(&bench, PLAN_EMA, bench.hand.ema);
    }
    bench_fini(&bench);
}

static void sgd_clips_decays_and_remembers(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, OP_SGD);
    for (int step = 0; step < 4; step++) {
        const float hyper[HYPER_COUNT] = {
            [HYPER_LEARNING_RATE] = 0.1f, [HYPER_WEIGHT_DECAY] = 0.01f, [HYPER_MOMENTUM] = 0.9f, [HYPER_EMA_DECAY] = 0.9f,
            [HYPER_GRADIENT_SCALE] = 1,   [HYPER_CLIP_NORM] = step % 2 ? 0.1f : 0};
        double norm[2];
        bench_run(&bench);
        assert_true(plan_update(bench.plan, hyper, NULL) && plan_read_gradient_norm(bench.plan, 1, norm, NULL));
        assert_true(fabs(norm[0] - hand_norm(&bench.hand)) < 1e-6 && norm[1] == 0);
        hand_sgd(&bench.hand, hyper);
        bench_equal(&bench, PLAN_VALUES, bench.hand.value);
        bench_equal(&bench, PLAN_STATE, bench.hand.state);
        bench_equal(&bench, PLAN_EMA, bench.hand.ema);
    }
    bench_fini(&bench);
}

static void a_gradient_that_is_not_finite_changes_nothing(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, OP_ADAMW);
    bench_run(&bench);
    struct parameters *gradients = parameters_create(bench.graph, NULL);
    ((float *)gradients->tensors[0].data)[1] = NAN;
    ((float *)gradients->tensors[1].data)[0] = INFINITY;
    assert_true(plan_import(bench.plan, PLAN_GRADIENTS, gradients, NULL));
    const float hyper[HYPER_COUNT] = {[HYPER_LEARNING_RATE] = 0.1f, [HYPER_WEIGHT_DECAY] = 0.2f, [HYPER_EMA_DECAY] = 0.5f,
                                      [HYPER_GRADIENT_SCALE] = 1, [HYPER_BIAS1] = 1, [HYPER_BIAS2] = 1};
    double norm[2];
    assert_true(plan_update(bench.plan, hyper, NULL) && plan_read_gradient_norm(bench.plan, 1, norm, NULL));
    assert_true(norm[1] == 2);
    bench_equal(&bench, PLAN_VALUES, bench.hand.value);
    bench_equal(&bench, PLAN_EMA, bench.hand.ema);
    parameters_destroy(gradients);
    bench_fini(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw_and_the_average_follow_their_formulas),
        cmocka_unit_test(sgd_clips_decays_and_remembers),
        cmocka_unit_test(a_gradient_that_is_not_finite_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
