#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/text.h"
#include "common/graph/passes.h"
#include "common/graph/plan.h"
#include "common/image/preprocess.h"
#include "trainerd/export.h"
#include "trainerd/trainctl/calibrate.h"
#include "trainerd/trainctl/commands.h"
#include "trainerd/trainctl/comparison.h"
#include "trainerd/trainctl/session.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: trainctl quantize MODEL.safetensors --config FILE --out FILE [--precision int8|bf16] [--version NAME]\n"
    "                         [--method search|min_max|percentile|mse|entropy] [--images N] [--search-images N]\n"
    "                         [--weight-bits 8|7] [--max-auc-loss X] [--min-agreement X] [--force]\n"
    "                         [--set KEY=VALUE]... [--json]\n"
    "\n"
    "Makes an f32 model into one that computes in 8-bit integers (or bf16). Ranges of activations are observed on N\n"
    "training pictures (256; 8 to 4096) of the configuration's data set; `search` gives each tensor the range that changes "
    "the\n"
    "answers to the first 64 of them least. Temperature, threshold and figures are fitted and measured again on the\n"
    "validation part, and compared with the f32 model's. Nothing is written where more than X of the area under the\n"
    "curve is lost (0.002) or fewer than X of the decisions agree (0.995), unless --force. --weight-bits 7 is for\n"
    "processors without VNNI. Research and integration; not a medical device.\n";

/* STRIDE mixes the classes, which lists have one after the other; it shares no factor with any number up to IMAGES_MAX. */
enum { BATCH = 8, IMAGES_MAX = 4096, STRIDE = 7919 };

struct quantize_options {
    const char *model, *out, *version, *method;
    struct session_spec session;
    enum precision precision;
    int64_t images, search_images, weight_bits;
    double max_area_loss, min_agreement;
    bool force, json;
};

/** Everything that quantising holds. */
struct quantize {
    const struct quantize_options *options;
    struct session session;
    struct model_file file, written;
    struct model_network network; /* as it was trained, in f32 */
    struct model_network result;
    struct calibration calibration;
    struct evaluation before, after;
    char candidate[4096]; /* what is written first, and renamed once it was found good; "" where there is none */
};

/* --- options --- */

static const struct option option_rows[] = {{"config", required_argument, NULL, 'c'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"precision", required_argument, NULL, 'p'},
                                            {"version", required_argument, NULL, 'v'},
                                            {"method", required_argument, NULL, 'm'},
                                            {"images", required_argument, NULL, 'i'},
                                            {"search-images", required_argument, NULL, 'I'},
                                            {"weight-bits", required_argument, NULL, 'w'},
                                            {"max-auc-loss", required_argument, NULL, 'a'},
                                            {"min-agreement", required_argument, NULL, 'g'},
                                            {"force", no_argument, NULL, 'f'},
                                            {"set", required_argument, NULL, 's'},
                                            {"json", no_argument, NULL, 'j'},
                                            {NULL, 0, NULL, 0}};

static bool take_share(const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= 0 && *out <= 1;
}

static bool take_option(int option, const char *value, struct quantize_options *out) {
    switch (option) {
    case 'c':
        out->session.config = value;
        return true;
    case 'o':
        out->out = value;
        return true;
    case 'v':
        out->version = value;
        return true;
    case 'm':
        out->method = value;
        return true;
    case 'f':
        out->force = true;
        return true;
    case 'j':
        out->json = true;
        return true;
    case 'p':
        out->precision = precision_parse(value);
        return out->precision == PRECISION_INT8 || out->precision == PRECISION_BF16;
    case 'i':
        return text_to_int(value, BATCH, IMAGES_MAX, &out->images, NULL);
    case 'I':
        return text_to_int(value, BATCH, IMAGES_MAX, &out->search_images, NULL);
    case 'w':
        return text_to_int(value, 7, 8, &out->weight_bits, NULL);
    case 'a':
        return take_share(value, &out->max_area_loss);
    case 'g':
        return take_share(value, &out->min_agreement);
    case 's':
        if (out->session.setting_count == SESSION_SETTINGS_MAX)
            return false;
        out->session.settings[out->session.setting_count++] = value;
        return true;
    default:
        return false;
    }
}

static bool parse_method(const char *name, enum range_method *out) {
    for (*out = 0; *out < RANGE_METHOD_COUNT; (*out)++) {
        if (strcmp(name, range_method_name(*out)) == 0)
            return true;
    }
    return strcmp(name, "search") == 0;
}

static bool parse(int argc, char **argv, struct quantize_options *out) {
    enum range_method method;
    int option;
    optind = 0;
    opterr = 0;
    while ((option = getopt_long(argc, argv, "", option_rows, NULL)) != -1) {
        if (!take_option(option, optarg, out))
            return false;
    }
    out->model = optind + 1 == argc ? argv[optind] : NULL;
    return out->model && out->session.config && out->out && parse_method(out->method, &method);
}

/* --- calibration --- */

/**
 * Training pictures, evenly from the whole list, as the network takes them: (count, C, H, W), owned; NULL on error. count:
 * in, how many are wanted; out, how many there are: whole batches.
 */
static float *training_pictures(const struct session *session, int *count, struct error *err) {
    const struct job *job = &session->job;
    size_t values = recipe_values(&job->recipe);
    int64_t there = job->train_count / BATCH * BATCH;
    *count = (int)(*count / BATCH * BATCH < there ? *count / BATCH * BATCH : there);
    if (*count < BATCH) {
        error_set(err, ERROR_INVALID, "%lld training pictures are too few to calibrate with", (long long)job->train_count);
        return NULL;
    }
    float *images = malloc((size_t)*count * values * sizeof *images);
    if (!images)
        error_set(err, ERROR_MEMORY, "out of memory for %d pictures", *count);
    for (int64_t i = 0; images && i < *count; i++) {
        int64_t place = i * STRIDE % *count * job->train_count / *count;
        preprocess_normalise(&job->recipe, image_cache_get(&job->cache, job->train_indices[place]),
                             images + (size_t)i * values);
    }
    return images;
}

static void tell_progress(void *context, int done, int total, double loss) {
    (void)context;
    fprintf(stderr, "\rtrainctl quantize: %d of %d tensors, loss %.3g%s", done, total, loss, done == total ? "\n" : "");
}

static bool calibrate_network(struct quantize *q, const struct graph *folded, const struct parameters *parameters,
                              struct error *err) {
    int count = (int)q->options->images;
    float *images = training_pictures(&q->session, &count, err);
    int search = (int)q->options->search_images / BATCH * BATCH;
    struct calibrate_spec spec = {.folded = folded,
                                  .parameters = parameters,
                                  .device = q->session.device,
                                  .images = images,
                                  .count = count,
                                  .search_count = search < count ? search : count,
                                  .batch = BATCH,
                                  .weight_bits = (int)q->options->weight_bits,
                                  .progress = isatty(STDERR_FILENO) ? tell_progress : NULL};
    (void)parse_method(q->options->method, &spec.method);
    bool ok = images && calibrate(&spec, &q->calibration, err);
    free(images);
    return ok;
}

/** Folds, calibrates, and makes the graph and the weights in 8 bits. */
static bool quantise_network(struct quantize *q, struct error *err) {
    struct parameters *parameters = NULL;
    struct graph *folded =
        graph_fold_for_inference(q->network.graph, q->network.parameters, NULL, PRECISION_F32, &parameters, err);
    bool ok = folded && calibrate_network(q, folded, parameters, err);
    ok = ok && (q->result.graph = graph_quantise(folded, &q->calibration.table, err));
    ok = ok && (q->result.parameters = quantise_parameters(folded, parameters, &q->calibration.table, q->result.graph,
                                                           (int)q->options->weight_bits, err));
    parameters_destroy(parameters);
    graph_destroy(folded);
    return ok;
}

/** bf16 keeps graph and weights. */
static bool narrow_network(struct quantize *q, struct error *err) {
    bool ok = model_network_open(&q->file, &q->result, err);
    q->result.precision = q->options->precision;
    return ok;
}

/** What is measured here must be what a processor with that many bits computes. */
static bool check_device(const struct quantize *q, struct error *err) {
    struct device_info info;
    if (!plan_precision_supported(q->session.device, q->options->precision, PLAN_INFER, err))
        return false;
    q->session.device->ops->info(q->session.device, &info);
    return q->options->precision != PRECISION_INT8 || q->options->weight_bits <= info.int8_weight_bits ||
           error_set(
               err, ERROR_UNSUPPORTED,
               "this processor's 8-bit arithmetic is exact for weights of %d bits: use --weight-bits %d, or one with VNNI",
               info.int8_weight_bits, info.int8_weight_bits);
}

static bool make_network(struct quantize *q, struct error *err) {
    enum precision precision = q->options->precision;
    return precision == PRECISION_INT8 ? quantise_network(q, err) : narrow_network(q, err);
}

/* --- the model --- */

/** The name that is asked for, or the f32 model's with the precision behind it. */
static bool name_version(const struct quantize *q, char *out, size_t size, struct error *err) {
    const char *asked = q->options->version, *before = q->file.manifest.version;
    int length = asked ? snprintf(out, size, "%s", asked)
                       : snprintf(out, size, "%s-%s", before, precision_name(q->options->precision));
    return (length >= 0 && (size_t)length < size) ||
           error_set(err, ERROR_TOO_LARGE, "the version's name is too long: --version");
}

/** Writes what was made beside where it is to be, and opens it: what is read back is what is judged. */
static bool write_candidate(struct quantize *q, struct error *err) {
    const struct manifest *manifest = &q->file.manifest;
    const struct job *job = &q->session.job;
    struct model_spec model = model_file_spec(&q->file);
    char version[128], path[sizeof q->candidate];
    if (!name_version(q, version, sizeof version, err))
        return false;
    struct export_spec spec = {.name = manifest->name,
                               .version = version,
                               .model = &model,
                               .graph = q->result.graph,
                               .parameters = q->result.parameters,
                               .precision = q->options->precision,
                               .quantisation = q->calibration.table.count ? &q->calibration.table : NULL,
                               .device = q->session.device,
                               .recipe = &job->recipe,
                               .class_names = (const char *const *)job->dataset.class_names,
                               .evaluation = &q->after,
                               .data_name = session_data_name(&q->session),
                               .point = q->session.config.publish.operating_point,
                               .data_digest = manifest->data_digest,
                               .intended_use = manifest->intended_use,
                               .training = manifest->training};
    if (snprintf(path, sizeof path, "%s.candidate", q->options->out) >= (int)sizeof path)
        return error_set(err, ERROR_TOO_LARGE, "--out: the path is too long");
    memcpy(q->candidate, path, sizeof path);
    return export_model(q->candidate, &spec, err) && model_file_open(q->candidate, &q->written, err);
}

/** Says what was chosen; for people. */
static void print_choices(const struct calibration *c) {
    int by_method[RANGE_METHOD_COUNT] = {0};
    for (int i = 0; i < c->table.count; i++)
        by_method[c->methods[i]]++;
    printf("%d tensors:", c->table.count);
    for (int i = 0; i < RANGE_METHOD_COUNT; i++)
        printf(" %s %d%s", range_method_name((enum range_method)i), by_method[i], i + 1 < RANGE_METHOD_COUNT ? "," : "");
    printf("; first convolution in %s\n", c->stem_in_f32 ? "f32" : "8 bits");
    printf("logits off by %.3g of their size (root mean square) with one method for all, %.3g as chosen\n",
           sqrt(c->first_loss / c->logit_power), sqrt(c->loss / c->logit_power));
}

/** Whether what is lost may be lost. */
static bool judge(const struct quantize *q, const struct comparison *comparison, struct error *err) {
    double lost = comparison->area[0] - comparison->area[1];
    if (q->options->force)
        return true;
    if (lost > q->options->max_area_loss)
        return error_set(err, ERROR_INVALID,
                         "the area under the curve falls by %.5f, more than %.5f: nothing is written (--force)", lost,
                         q->options->max_area_loss);
    return comparison->agreement >= q->options->min_agreement ||
           error_set(err, ERROR_INVALID, "%.5f of the decisions agree, fewer than %.5f: nothing is written (--force)",
                     comparison->agreement, q->options->min_agreement);
}

static bool conclude(struct quantize *q, struct error *err) {
    struct compared models[2] = {{&q->file.manifest, &q->before}, {&q->written.manifest, &q->after}};
    struct comparison comparison;
    char part[256];
    snprintf(part, sizeof part, "%.100s, validation part", session_data_name(&q->session));
    if (!comparison_make(&comparison, models, err))
        return false;
    if (!q->options->json && q->calibration.table.count)
        print_choices(&q->calibration);
    if (!comparison_print(&comparison, models, part, q->options->json, stdout, err) || !judge(q, &comparison, err))
        return false;
    if (rename(q->candidate, q->options->out) != 0)
        return error_set(err, ERROR_IO, "%s: cannot be put in place: %s", q->options->out, strerror(errno));
    *q->candidate = '\0';
    if (!q->options->json)
        printf("%s: %zu bytes, %.3f of the f32 file\n", q->options->out, q->written.map.size,
               (double)q->written.map.size / (double)q->file.map.size);
    return true;
}

static bool run(struct quantize *q, struct error *err) {
    const char *path = q->options->model;
    if (!model_file_open(path, &q->file, err))
        return false;
    if (strcmp(q->file.manifest.precision, "f32") != 0)
        return error_set(err, ERROR_INVALID, "%s is in %s already; quantise the f32 model", path, q->file.manifest.precision);
    if (!model_network_open(&q->file, &q->network, err))
        return error_prefix(err, "%s", path);
    if (!session_open(&q->session, &q->options->session, &q->file.manifest, err))
        return false;
    return check_device(q, err) && make_network(q, err) &&
           session_answer(&q->session, &q->network, DATASET_VALIDATION, &q->before, err) &&
           session_answer(&q->session, &q->result, DATASET_VALIDATION, &q->after, err) && write_candidate(q, err) &&
           conclude(q, err);
}

static void quantize_fini(struct quantize *q) {
    model_file_close(&q->written);
    if (*q->candidate)
        unlink(q->candidate);
    evaluation_fini(&q->before);
    evaluation_fini(&q->after);
    calibration_fini(&q->calibration);
    model_network_close(&q->result);
    model_network_close(&q->network);
    session_close(&q->session);
    model_file_close(&q->file);
}

int command_quantize(int argc, char **argv) {
    struct quantize_options options = {.precision = PRECISION_INT8,
                                       .method = "search",
                                       .images = 256,
                                       .search_images = 64,
                                       .weight_bits = 8,
                                       .max_area_loss = 0.002,
                                       .min_agreement = 0.995};
    struct quantize q = {.options = &options};
    struct error err = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    bool ok = run(&q, &err);
    if (!ok)
        fprintf(stderr, "trainctl quantize: %s\n", err.message);
    quantize_fini(&q);
    return ok ? 0 : 1;
}
