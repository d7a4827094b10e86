#include "tests/bench/subject.h"

#include "common/base/clock.h"
#include "common/base/text.h"
#include "common/models/registry.h"
#include "common/weights/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct subject_options subject_options_default(void) {
    return (struct subject_options){.architecture = "resnet50",
                                    .device = "onednn",
                                    .size = 224,
                                    .channels = 3,
                                    .batch = 16,
                                    .threads = 2,
                                    .rounds = 5};
}

bool subject_take_number(const char *text, int most, int *out) {
    struct error err = {0};
    int64_t value;
    if (!text_to_int(text, 1, most, &value, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return false;
    }
    *out = (int)value;
    return true;
}

static bool take_precision(const char *text, enum precision *out) {
    *out = precision_parse(text);
    if (*out == PRECISION_COUNT)
        fprintf(stderr, "there is no precision \"%s\"\n", text);
    return *out != PRECISION_COUNT;
}

bool subject_take_option(struct subject_options *options, int option, const char *value) {
    switch (option) {
    case 'a':
        options->architecture = value;
        return true;
    case 'd':
        options->device = value;
        return true;
    case 'p':
        return take_precision(value, &options->precision);
    case 'w':
        options->weights = value;
        return true;
    case 'j':
        options->json = true;
        return true;
    case 's':
        return subject_take_number(value, 512, &options->size);
    case 'c':
        return subject_take_number(value, 3, &options->channels);
    case 'b':
        return subject_take_number(value, 1024, &options->batch);
    case 't':
        return subject_take_number(value, 1024, &options->threads);
    case 'r':
        return subject_take_number(value, SUBJECT_MAX_ROUNDS, &options->rounds);
    default:
        return false;
    }
}

static bool make_plan(struct subject *subject, struct plan *share, struct error *err) {
    const struct subject_options *o = &subject->options;
    struct plan_spec plan = {.graph = subject->graph,
                             .parameters = subject->parameters,
                             .device = subject->device,
                             .mode = o->infer ? PLAN_INFER : PLAN_TRAIN,
                             .precision = o->precision == PRECISION_INT8 ? PRECISION_F32 : o->precision,
                             .batch = o->batch,
                             .share = share,
                             .bucket_bytes = o->bucket_bytes,
                             .bf16_reductions = o->bf16_gradients,
                             .optimizer = OP_SGD,
                             .ema = true};
    return (subject->plan = plan_create(&plan, err)) != NULL;
}

/* Fresh weights, or those of the file; a head of other classes is refused, for it would compute another function. */
static bool make_weights(struct subject *subject, struct error *err) {
    const struct subject_options *o = &subject->options;
    struct import_report report;
    parameters_initialise(subject->graph, subject->parameters, 1);
    if (!o->weights)
        return true;
    const struct model_architecture *architecture = model_find(o->architecture, err);
    if (!architecture ||
        !import_weights_file(o->weights, subject->graph, architecture, subject->parameters, &report, err))
        return false;
    if (report.fresh_head || report.summed_channels)
        return error_set(err, ERROR_SHAPE, "%s: not %d classes of pictures with %d channels", o->weights,
                         SUBJECT_CLASSES, o->channels);
    return true;
}

bool subject_open(struct subject *subject, struct error *err) {
    const struct subject_options *o = &subject->options;
    struct model_spec model = {.architecture = o->architecture,
                               .input_channels = o->channels,
                               .size = o->size,
                               .classes = SUBJECT_CLASSES};
    struct device_spec device = {.name = o->device, .threads = o->threads};
    subject->graph = model_build(&model, err);
    subject->device = subject->graph ? device_open(&device, err) : NULL;
    subject->parameters = subject->device ? parameters_create(subject->graph, err) : NULL;
    if (o->precision == PRECISION_INT8 && !o->infer)
        return error_set(err, ERROR_UNSUPPORTED, "precision int8: nothing is trained in it");
    return subject->parameters && make_weights(subject, err) &&
           (o->precision != PRECISION_INT8 || subject_quantise(subject, err)) && make_plan(subject, NULL, err);
}

bool subject_open_beside(struct subject *subject, const struct subject *first, int batch, struct error *err) {
    *subject = *first;
    subject->plan = NULL;
    subject->beside = true;
    subject->options.batch = batch;
    return make_plan(subject, first->options.infer ? first->plan : NULL, err);
}

void subject_close(struct subject *subject) {
    plan_destroy(subject->plan);
    if (subject->beside)
        return;
    device_close(subject->device);
    parameters_destroy(subject->parameters);
    graph_destroy(subject->graph);
}

void subject_draw(float *pixels, size_t count) {
    for (size_t i = 0; i < count; i++)
        pixels[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
}

bool subject_fill(struct subject *subject, struct error *err) {
    const struct subject_options *o = &subject->options;
    size_t count = (size_t)o->batch * (size_t)o->channels * (size_t)o->size * (size_t)o->size;
    float *images = malloc(count * sizeof *images);
    int32_t *labels = malloc((size_t)o->batch * sizeof *labels);
    const int64_t seed[3] = {1, 0, 0};
    bool good = (images && labels) || error_set(err, ERROR_MEMORY, "out of memory for a batch");
    if (good)
        subject_draw(images, count);
    for (int i = 0; good && i < o->batch; i++)
        labels[i] = i % SUBJECT_CLASSES;
    good = good && plan_set_images(subject->plan, images, err) &&
           (o->infer || plan_set_targets(subject->plan, labels, seed, err));
    free(images);
    free(labels);
    return good;
}

void subject_hyper(float hyper[HYPER_COUNT], int ranks) {
    const float values[HYPER_COUNT] = {
        [HYPER_LEARNING_RATE] = 1e-4f, [HYPER_WEIGHT_DECAY] = 1e-4f, [HYPER_MOMENTUM] = .9f,
        [HYPER_EMA_DECAY] = .999f,     [HYPER_GRADIENT_SCALE] = 1 / (float)ranks,   [HYPER_CLIP_NORM] = 1};
    memcpy(hyper, values, sizeof values);
}

bool subject_run(struct subject *subject, double *update_ms, struct error *err) {
    float hyper[HYPER_COUNT];
    subject_hyper(hyper, 1);
    if (!plan_run(subject->plan, err))
        return false;
    int64_t ran = clock_now_ns();
    if (!subject->options.infer && !plan_update(subject->plan, hyper, err))
        return false;
    if (!subject->device->ops->synchronise(subject->device, NULL, err))
        return false;
    if (update_ms)
        *update_ms = subject_elapsed_ms(ran);
    return true;
}

double subject_elapsed_ms(int64_t start_ns) {
    return (double)(clock_now_ns() - start_ns) * 1e-6;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double subject_quantile(const double *values, int count, double part) {
    double sorted[SUBJECT_MAX_ROUNDS];
    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, compare);
    double place = part * (count - 1);
    int below = (int)place, above = below + 1 < count ? below + 1 : below;
    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

double subject_median(const double *values, int count) {
    return subject_quantile(values, count, .5);
}
