#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/image/augment.h"
#include "common/image/phantom.h"
#include "tests/bench/subject.h"
#include "trainerd/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/*
 * What it costs a training step that its batch comes from the loader: steps on a batch that lies in the plan
 * already, against as many fed by the real loader from the real cache, augmented as by default. Rounds of
 * both take turns; the ratio is the median of the rounds' ratios.
 */

enum {
    PICTURES_PER_CLASS = 32,
    PICTURES = SUBJECT_CLASSES * PICTURES_PER_CLASS,
    PREFETCH = 4,
    NICE = 5,
    STEPS = 3
};

struct bench {
    struct subject subject;
    int loader_threads;
    char folder[128]; /* of the pictures and their cache; removed at the end */
    struct dataset dataset;
    struct recipe recipe;
    struct image_cache cache;
    int32_t indices[PICTURES], labels[PICTURES];
    int64_t count;
    struct sampler sampler;
    struct augment augment;
    const struct augment *augment_by_class[SUBJECT_CLASSES];
    struct loader *loader;
    double resident_ms[SUBJECT_MAX_ROUNDS], fed_ms[SUBJECT_MAX_ROUNDS],
        ratio[SUBJECT_MAX_ROUNDS]; /* ms of one step */
};

/* --- setting up --- */

static bool draw_picture(const struct bench *bench, enum phantom_kind kind, int number, struct error *err) {
    const int side =
        bench->subject.options.size < PHANTOM_MIN_SIDE ? PHANTOM_MIN_SIDE : bench->subject.options.size;
    struct image image;
    char path[256];
    snprintf(path, sizeof path, "%s/train/%s", bench->folder, phantom_name(kind));
    if (!file_make_folders(path, err))
        return false;
    snprintf(path, sizeof path, "%s/train/%s/phantom%d-0.png", bench->folder, phantom_name(kind),
             (int)kind * PICTURES_PER_CLASS + number);
    if (!phantom_draw(kind, (uint64_t)number * PHANTOM_VIEWS, side, side, &image, err))
        return false;
    bool good = image_write_png(path, &image, NULL, 0, err);
    image_fini(&image);
    return good;
}

static bool draw_pictures(struct bench *bench, struct error *err) {
    const char *parent = getenv("TMPDIR");
    snprintf(bench->folder, sizeof bench->folder, "%s/loader_step-XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(bench->folder)) {
        bench->folder[0] = '\0';
        return error_set_errno(err, "make a folder in %s", parent ? parent : "/tmp");
    }
    for (int i = 0; i < PICTURES; i++)
        if (!draw_picture(bench, (enum phantom_kind)(i % PHANTOM_KINDS), i / PHANTOM_KINDS, err))
            return false;
    return true;
}

static bool open_data(struct bench *bench, struct error *err) {
    const struct subject_options *o = &bench->subject.options;
    char folder[192];
    snprintf(folder, sizeof folder, "%s/cache", bench->folder);
    struct dataset_spec dataset = {.directory = bench->folder, .seed = 1};
    struct image_cache_spec cache = {.folder = folder, .recipe = &bench->recipe, .threads = o->threads};
    bench->recipe = recipe_default(o->size, o->size, o->channels);
    if (!dataset_open(&bench->dataset, &dataset, err) ||
        !image_cache_open(&bench->cache, &bench->dataset, &cache, err))
        return false;
    bench->count = image_cache_part(&bench->cache, &bench->dataset, DATASET_TRAIN, bench->indices);
    for (int64_t i = 0; i < bench->count; i++)
        bench->labels[i] = bench->dataset.samples[bench->indices[i]].label;
    return true;
}

static bool open_loader(struct bench *bench, struct error *err) {
    struct sampler_spec sampler = {.labels = bench->labels,
                                   .count = bench->count,
                                   .classes = SUBJECT_CLASSES,
                                   .batch_size = bench->subject.options.batch,
                                   .ranks = 1,
                                   .seed = 1};
    bench->augment = augment_default();
    for (int i = 0; i < SUBJECT_CLASSES; i++)
        bench->augment_by_class[i] = &bench->augment;
    struct loader_spec loader = {.cache = &bench->cache,
                                 .recipe = &bench->recipe,
                                 .labels = bench->labels,
                                 .indices = bench->indices,
                                 .count = bench->count,
                                 .sampler = &bench->sampler,
                                 .augment_by_class = bench->augment_by_class,
                                 .ranks = 1,
                                 .seed = 1,
                                 .threads = bench->loader_threads,
                                 .prefetch = PREFETCH,
                                 .nice = NICE};
    return sampler_init(&bench->sampler, &sampler, err) && (bench->loader = loader_create(&loader, err));
}

static void finish(struct bench *bench) {
    loader_destroy(bench->loader);
    sampler_fini(&bench->sampler);
    image_cache_close(&bench->cache);
    dataset_close(&bench->dataset);
    subject_close(&bench->subject);
    if (bench->folder[0])
        (void)file_remove_tree(bench->folder, NULL);
}

/* --- measuring --- */

static int64_t process_ns(void) {
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (int64_t)spent.tv_sec * 1000000000 + spent.tv_nsec;
}

/* Waits until the ring is full: this process computes no more. */
static void settle(void) {
    enum { PAUSE_MS = 20, IDLE_NS = 1000000, PAUSES_MOST = 500 };
    int64_t before = process_ns();
    for (int i = 0; i < PAUSES_MOST; i++) {
        clock_sleep_ms(PAUSE_MS);
        int64_t now = process_ns();
        if (now - before < IDLE_NS)
            return;
        before = now;
    }
}

static bool run_step(struct bench *bench, struct error *err) {
    float loss;
    return subject_run(&bench->subject, NULL, err) && plan_read_loss(bench->subject.plan, &loss, err);
}

static bool time_resident(struct bench *bench, double *step_ms, struct error *err) {
    int64_t start = clock_now_ns();
    for (int i = 0; i < STEPS; i++)
        if (!run_step(bench, err))
            return false;
    *step_ms = subject_elapsed_ms(start) / STEPS;
    return true;
}

/* As trainerd does it: the batch goes back when the step is over. */
static bool run_fed_step(struct bench *bench, struct error *err) {
    struct batch batch;
    if (!loader_next(bench->loader, &batch, err))
        return false;
    const int64_t seed[3] = {1, batch.step, 0};
    bool good = plan_set_images(bench->subject.plan, batch.images, err) &&
                plan_set_targets(bench->subject.plan, batch.labels, seed, err) && run_step(bench, err);
    loader_release(bench->loader);
    return good;
}

/* One batch is taken and given back unused, so that the loader makes as many during the steps as they take.
 */
static bool time_fed(struct bench *bench, double *step_ms, struct error *err) {
    struct batch unused;
    if (!loader_next(bench->loader, &unused, err))
        return false;
    int64_t start = clock_now_ns();
    loader_release(bench->loader);
    for (int i = 0; i < STEPS; i++)
        if (!run_fed_step(bench, err))
            return false;
    *step_ms = subject_elapsed_ms(start) / STEPS;
    return true;
}

/* Every other round begins with the fed steps, so that neither kind is always the first. */
static bool measure(struct bench *bench, struct error *err) {
    if (!run_fed_step(bench, err))
        return false;
    for (int round = 0; round < bench->subject.options.rounds; round++) {
        bool fed_first = round % 2;
        settle();
        if (fed_first && !time_fed(bench, &bench->fed_ms[round], err))
            return false;
        settle();
        if (!time_resident(bench, &bench->resident_ms[round], err))
            return false;
        settle();
        if (!fed_first && !time_fed(bench, &bench->fed_ms[round], err))
            return false;
        bench->ratio[round] = bench->fed_ms[round] / bench->resident_ms[round];
    }
    return true;
}

static void print(const struct bench *bench) {
    const struct subject_options *o = &bench->subject.options;
    double resident = subject_median(bench->resident_ms, o->rounds),
           fed = subject_median(bench->fed_ms, o->rounds);
    double ratio = subject_median(bench->ratio, o->rounds), waited = loader_waited_ms(bench->loader);
    const char *format =
        o->json ? "{\"architecture\": \"%s\", \"size\": %d, \"batch\": %d, \"loader_threads\": %d, "
                  "\"rounds\": %d, "
                  "\"resident_ms\": %.3f, \"measured_ms\": %.3f, \"waited_ms\": %.3f, \"ratio\": %.4f}\n"
                : "%s at %d, batch %d, loaded by %d threads, %d rounds: a step on a resident batch %.1f ms, "
                  "fed by the "
                  "loader %.1f ms, waited %.1f ms in all, ratio %.3f\n";
    printf(format, o->architecture, o->size, o->batch, bench->loader_threads, o->rounds, resident, fed,
           waited, ratio);
}

static const char usage[] =
    "Usage: loader_step [--architecture NAME] [--size N] [--channels N] [--batch N] [--threads N] "
    "[--loader-threads N]\n"
    "                   [--rounds N] [--device NAME] [--json]\n"
    "Compares a training step that the loader feeds with one on a batch that is already there.\n";

static int parse_options(int argc, char **argv, struct bench *bench) {
    static const struct option rows[] = {SUBJECT_OPTION_ROWS,
                                         {"loader-threads", required_argument, 0, 'L'},
                                         {"help", no_argument, 0, 'h'},
                                         {0}};
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        bool good = c == 'L' ? subject_take_number(optarg, 64, &bench->loader_threads)
                             : subject_take_option(&bench->subject.options, c, optarg);
        if (!good) {
            fputs(usage, stderr);
            return 2;
        }
    }
    return optind == argc ? -1 : 2;
}

int main(int argc, char **argv) {
    static struct bench bench = {.loader_threads = 1};
    struct error err = {0};
    bench.subject.options = subject_options_default();
    int code = parse_options(argc, argv, &bench);
    if (code >= 0)
        return code;
    bool good = draw_pictures(&bench, &err) && open_data(&bench, &err) &&
                subject_open(&bench.subject, &err) && subject_fill(&bench.subject, &err) &&
                open_loader(&bench, &err) && measure(&bench, &err);
    if (good)
        print(&bench);
    else
        fprintf(stderr, "loader_step: %s\n", err.message);
    finish(&bench);
    return good ? 0 : 1;
}
