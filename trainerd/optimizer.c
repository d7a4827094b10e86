#include "trainerd/optimizer.h"

#include <math.h>
#include <string.h>

enum op_kind optimizer_kind(const struct trainer_config *config) {
    return config->optimizer.name == TRAINER_SGD ? OP_SGD : OP_ADAMW;
}

double optimizer_learning_rate(const struct trainer_config *config) {
    const struct trainer_optimizer_config *optimizer = &config->optimizer;
    double batches = (double)config->train.batch_size / optimizer->scaling_batch;
    switch (optimizer->scaling) {
    case TRAINER_SCALING_NONE: break;
    case TRAINER_SCALING_LINEAR: return optimizer->learning_rate * batches;
    case TRAINER_SCALING_SQRT: return optimizer->learning_rate * sqrt(batches);
    }
    return optimizer->learning_rate;
}

static struct schedule_spec schedule_of(const struct trainer_config *config, int64_t steps_per_epoch) {
    int64_t total = config->train.epochs * steps_per_epoch;
    int64_t warmup = (int64_t)(config->schedule.warmup_epochs * (double)steps_per_epoch);
    return (struct schedule_spec){.kind = config->schedule.kind, .base_rate = optimizer_learning_rate(config),
                                  .warmup_steps = warmup < total ? warmup : total, .total_steps = total,
                                  .final_fraction = config->schedule.final_learning_rate_factor};
}

/**
 * A moving average that starts from the first weights would remember them for 1 / (1 - decay) steps: the
 * decay grows with the steps, min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage.
 */
static double ema_decay(double decay, int64_t step) {
    return fmin(decay, (1.0 + (double)step) / (10.0 + (double)step));
}

void optimizer_hyper(const struct trainer_config *config, const struct optimizer_moment *moment, float out[HYPER_COUNT]) {
    const struct trainer_optimizer_config *optimizer = &config->optimizer;
    struct schedule_spec schedule = schedule_of(config, moment->steps_per_epoch);
    double update = (double)(moment->global_step - moment->skipped + 1);
    double loss_scale = moment->loss_scale != 0 ? moment->loss_scale : 1;
    double beta1 = optimizer->betas.count == 2 ? optimizer->betas.items[0] : 0.9;
    double beta2 = optimizer->betas.count == 2 ? optimizer->betas.items[1] : 0.999;
    memset(out, 0, HYPER_COUNT * sizeof *out);
    out[HYPER_LEARNING_RATE] = (float)schedule_rate(&schedule, moment->global_step);
    out[HYPER_WEIGHT_DECAY] = (float)optimizer->weight_decay;
    out[HYPER_MOMENTUM] = (float)optimizer->momentum;
    out[HYPER_BETA1] = (float)beta1;
    out[HYPER_BETA2] = (float)beta2;
    out[HYPER_EPSILON] = (float)optimizer->epsilon;
    out[HYPER_BIAS1] = (float)(1 - pow(beta1, update));
    out[HYPER_BIAS2] = (float)(1 - pow(beta2, update));
    out[HYPER_EMA_DECAY] = (float)ema_decay(config->train.ema_decay, moment->global_step);
    out[HYPER_GRADIENT_SCALE] = 1.0f / ((float)moment->ranks * (float)config->train.parts) / (float)loss_scale;
    out[HYPER_CLIP_NORM] = (float)config->train.clip_norm;
}
