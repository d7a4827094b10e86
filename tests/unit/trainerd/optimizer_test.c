/* The numbers that each update gets. */
#include "trainerd/optimizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct trainer_config sample_config(void) {
    struct trainer_config config = {0};
    config.train.parts = 1;
    config.train.epochs = 10;
    config.train.ema_decay = 0.99;
    config.train.clip_norm = 2;
    config.optimizer = (struct trainer_optimizer_config){
        .name = TRAINER_ADAMW, .learning_rate = 0.01, .momentum = 0.8, .epsilon = 1e-7, .weight_decay = 0.05};
    config.schedule = (struct trainer_schedule_config){SCHEDULE_COSINE, 2, 0.1};
    return config;
}

static void close_to(float value, double expected) {
    assert_true(fabs(value - expected) <= 1e-6 * fabs(expected));
}

static void the_configurations_numbers_are_handed_on(void **state) {
    (void)state;
    struct trainer_config config = sample_config();
    float hyper[HYPER_COUNT];
    optimizer_hyper(&config, &(struct optimizer_moment){5, 20, .ranks = 4}, hyper);
    close_to(hyper[HYPER_WEIGHT_DECAY], 0.05);
    close_to(hyper[HYPER_MOMENTUM], 0.8);
    close_to(hyper[HYPER_EPSILON], 1e-7);
    close_to(hyper[HYPER_CLIP_NORM], 2);
    close_to(hyper[HYPER_GRADIENT_SCALE], 0.25);
    assert_int_equal(optimizer_kind(&config), OP_ADAMW);
    config.optimizer.name = TRAINER_SGD;
    assert_int_equal(optimizer_kind(&config), OP_SGD);
}

/* Steps that were skipped moved no moments: the corrections do not count them. Gradients are divided by their scale. */
static void skipped_steps_and_scaled_losses_are_made_up_for(void **state) {
    (void)state;
    struct trainer_config config = sample_config();
    float hyper[HYPER_COUNT];
    optimizer_hyper(&config, &(struct optimizer_moment){5, 20, .skipped = 3, .ranks = 2, .loss_scale = 0x1p16}, hyper);
    close_to(hyper[HYPER_BIAS1], 1 - pow(0.9, 18));
    close_to(hyper[HYPER_BIAS2], 1 - pow(0.999, 18));
    assert_true(hyper[HYPER_GRADIENT_SCALE] == 0x1p-17f);
}

/* Loshchilov & Hutter 2019: 1 - beta^t with t from 1. */
static void betas_and_their_corrections_fit(void **state) {
    (void)state;
    struct trainer_config config = sample_config();
    double betas[] = {0.8, 0.95};
    float hyper[HYPER_COUNT];
    for (int given = 0; given < 2; given++) {
        config.optimizer.betas.items = given ? betas : NULL;
        config.optimizer.betas.count = given ? 2 : 0;
        double beta1 = given ? 0.8 : 0.9, beta2 = given ? 0.95 : 0.999;
        for (int step = 0; step < 50; step += 7) {
            optimizer_hyper(&config, &(struct optimizer_moment){5, step, .ranks = 1}, hyper);
            close_to(hyper[HYPER_BETA1], beta1);
            close_to(hyper[HYPER_BETA2], beta2);
            close_to(hyper[HYPER_BIAS1], 1 - pow(beta1, step + 1));
            close_to(hyper[HYPER_BIAS2], 1 - pow(beta2, step + 1));
        }
    }
}

/* Warm-up over 2 of 10 epochs of 5 steps: tenths of the rate; then half a cosine down to a tenth at step 50. */
static void the_rate_follows_the_schedule(void **state) {
    (void)state;
    struct trainer_config config = sample_config();
    float hyper[HYPER_COUNT];
    for (int step = 0; step < 10; step++) {
        optimizer_hyper(&config, &(struct optimizer_moment){5, step, .ranks = 1}, hyper);
        close_to(hyper[HYPER_LEARNING_RATE], 0.01 * (step + 1) / 10);
    }
    optimizer_hyper(&config, &(struct optimizer_moment){5, 30, .ranks = 1}, hyper); /* half way of the wave */
    close_to(hyper[HYPER_LEARNING_RATE], 0.01 * (0.1 + 0.9 / 2));
    optimizer_hyper(&config, &(struct optimizer_moment){5, 50, .ranks = 1}, hyper);
    close_to(hyper[HYPER_LEARNING_RATE], 0.001);
}

/* TensorFlow's ExponentialMovingAverage: min(decay, (1 + t) / (10 + t)). */
static void the_averages_decay_grows_from_a_tenth(void **state) {
    (void)state;
    struct trainer_config config = sample_config();
    float hyper[HYPER_COUNT];
    optimizer_hyper(&config, &(struct optimizer_moment){5, 0, .ranks = 1}, hyper);
    close_to(hyper[HYPER_EMA_DECAY], 0.1);
    optimizer_hyper(&config, &(struct optimizer_moment){5, 90, .ranks = 1}, hyper);
    close_to(hyper[HYPER_EMA_DECAY], 0.91);
    optimizer_hyper(&config, &(struct optimizer_moment){5, 100000, .ranks = 1}, hyper);
    close_to(hyper[HYPER_EMA_DECAY], 0.99);
}

/* Goyal et al. 2017: a batch of 8192 has 32 times the rate of one of 256; Krizhevsky 2014: the root of that. By hand. */
static void the_rate_is_scaled_for_the_batch(void **state) {
    (void)state;
    static const struct {
        enum trainer_scaling scaling;
        int batch, of;
        double rate;
    } cases[] = {
        {TRAINER_SCALING_NONE, 8192, 256, 0.1},     {TRAINER_SCALING_LINEAR, 8192, 256, 3.2},
        {TRAINER_SCALING_LINEAR, 64, 256, 0.025},   {TRAINER_SCALING_LINEAR, 256, 256, 0.1},
        {TRAINER_SCALING_SQRT, 1024, 256, 0.2},     {TRAINER_SCALING_SQRT, 64, 256, 0.05},
        {TRAINER_SCALING_SQRT, 8192, 256, 0.565685425}, {TRAINER_SCALING_LINEAR, 96, 32, 0.3},
    };
    struct trainer_config config = sample_config();
    float hyper[HYPER_COUNT];
    config.optimizer.learning_rate = 0.1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        config.optimizer.scaling = cases[i].scaling;
        config.optimizer.scaling_batch = cases[i].of;
        config.train.batch_size = cases[i].batch;
        close_to((float)optimizer_learning_rate(&config), cases[i].rate);
        optimizer_hyper(&config, &(struct optimizer_moment){5, 10, .ranks = 1}, hyper); /* just after the warm-up */
        close_to(hyper[HYPER_LEARNING_RATE], cases[i].rate);
    }
}

static void the_number_of_ranks_changes_no_rate(void **state) {
    (void)state;
    struct trainer_config config = sample_config();
    float one[HYPER_COUNT], eight[HYPER_COUNT];
    config.optimizer.scaling = TRAINER_SCALING_LINEAR;
    config.optimizer.scaling_batch = 256;
    config.train.batch_size = 64;
    optimizer_hyper(&config, &(struct optimizer_moment){5, 12, .ranks = 1}, one);
    optimizer_hyper(&config, &(struct optimizer_moment){5, 12, .ranks = 8}, eight);
    assert_true(one[HYPER_LEARNING_RATE] == eight[HYPER_LEARNING_RATE]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configurations_numbers_are_handed_on), cmocka_unit_test(betas_and_their_corrections_fit),
        cmocka_unit_test(skipped_steps_and_scaled_losses_are_made_up_for),
        cmocka_unit_test(the_rate_is_scaled_for_the_batch), cmocka_unit_test(the_number_of_ranks_changes_no_rate),
        cmocka_unit_test(the_rate_follows_the_schedule),            cmocka_unit_test(the_averages_decay_grows_from_a_tenth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
