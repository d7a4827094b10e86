#include "common/base/signals.h"
#include "inferd/inferctl/bench_engine.h"
#include "inferd/inferctl/bench_options.h"
#include "inferd/inferctl/commands.h"
#include "inferd/inferctl/engine_options.h"
#include "inferd/inferctl/options.h"
#include <stdlib.h>
#include <string.h>

enum { IMAGE_MAX_BYTES = 256 << 20, SATURATION_STEPS = 9, FLAT_STEPS = 2 };
static const double FLAT_GAIN = 1.03; /* a step that gains less is flat */
static const double REFUSED_SHARE = .01;

static bool read_images(const struct bench_options *options, struct bench_image *images, struct error *err) {
    bool differ = false;
    for (int i = 0; i < options->file_count; i++) {
        if (!file_read(options->files[i], IMAGE_MAX_BYTES, &images[i].file, err)) {
            return false;
        }
        images[i].digest = digest_of(images[i].file.data, images[i].file.size);
        differ = differ || !digest_equal(&images[i].digest, &images[0].digest);
    }
    return differ || error_set(err, ERROR_INVALID,
                               "bench: all images are the same; at least two different ones are needed");
}

static void free_images(struct bench_image *images, int count) {
    for (int i = 0; images && i < count; i++) {
        free(images[i].file.data);
    }
    free(images);
}

static struct bench_load_spec load_of(const struct bench_options *options, const struct bench_image *images,
                                      const struct client_keys *keys) {
    return (struct bench_load_spec){
        .endpoints = options->endpoints,
        .endpoint_count = options->endpoint_count,
        .keys = keys,
        .images = images,
        .image_count = options->file_count,
        .operating_point = options->operating_point,
        .stat = options->stat,
        .timeout_ms = options->timeout_ms,
        .pace = {.rate = options->open,
                 .outstanding = options->closed ? options->closed : options->outstanding,
                 .requests = options->requests,
                 .duration_ns = options->seconds * 1000000000,
                 .seed = (uint64_t)options->seed}};
}

/** Runs, reports, and returns false with the first request that was lost or answered wrongly. */
static bool run_once(const struct bench_options *options, const struct bench_load_spec *spec,
                     struct error *err) {
    struct bench_result *result = calloc(1, sizeof *result);
    bool ok = result || error_set(err, ERROR_MEMORY, "no memory for a result");
    ok = ok && bench_load_run(spec, result, err);
    if (ok) {
        bench_report(result, options->json, stdout);
        if (result->failure.code != ERROR_NONE) {
            *err = result->failure;
            ok = false;
        }
    }
    free(result);
    return ok;
}

/** Doubles the clients until FLAT_STEPS steps in a row gain nothing, or the pool begins to refuse. Returns
 * the steps. */
static int climb(struct bench_load_spec *spec, struct bench_result *steps, struct error *err) {
    double best = 0;
    int flat = 0, count = 0;
    for (int clients = spec->endpoint_count; count < SATURATION_STEPS && flat < FLAT_STEPS && !signals_stop;
         clients *= 2) {
        struct bench_result *step = &steps[count];
        spec->pace.outstanding = clients;
        if (!bench_load_run(spec, step, err)) {
            return 0;
        }
        count++;
        if (step->failure.code != ERROR_NONE) {
            *err = step->failure;
            return 0;
        }
        flat = bench_rate(step) < best * FLAT_GAIN ? flat + 1 : 0;
        best = bench_rate(step) > best ? bench_rate(step) : best;
        if ((double)bench_refused(step) > REFUSED_SHARE * (double)step->sent) {
            break;
        }
    }
    return count;
}

static bool run_saturation(const struct bench_options *options, struct bench_load_spec *spec,
                           struct error *err) {
    struct bench_result *steps = calloc(SATURATION_STEPS, sizeof *steps);
    if (!steps) {
        return error_set(err, ERROR_MEMORY, "no memory for the results");
    }
    int count = climb(spec, steps, err);
    if (count > 0) {
        bench_report_saturation(steps, count, options->json, stdout);
    }
    free(steps);
    return count > 0;
}

static bool bench(const struct bench_options *options, struct error *err) {
    struct bench_image *images = calloc((size_t)options->file_count, sizeof *images);
    struct client_keys_spec key_files = key_options_spec(&options->keys);
    struct client_keys keys = {0};
    bool ok = images || error_set(err, ERROR_MEMORY, "no memory for %d images", options->file_count);
    ok = ok && client_keys_load(&keys, &key_files, err) && signals_install(err) && read_images(options, images, err);
    if (ok) {
        struct bench_load_spec spec = load_of(options, images, &keys);
        ok = options->saturation ? run_saturation(options, &spec, err) : run_once(options, &spec, err);
    }
    client_keys_fini(&keys);
    free_images(images, options->file_count);
    return ok;
}

int command_bench(int argc, char **argv) {
    struct bench_options options;
    struct error err = {0};
    if (engine_options_meant(argc, argv)) {
        return bench_engine(argc, argv);
    }
    if (!bench_options_parse(argc, argv, &options, &err)) {
        return options_fail(&err, INFERCTL_USAGE);
    }
    return bench(&options, &err) ? 0 : options_fail(&err, INFERCTL_FAILED);
}
