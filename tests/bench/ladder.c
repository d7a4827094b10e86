#include "tests/bench/ladder.h"

#include "common/base/clock.h"
#include "tests/bench/machine.h"
#include "tests/bench/serve.h"
#include "tests/bench/subject.h"

#include <stdio.h>
#include <string.h>

/*
 * Every batch size has a plan of its own; a round visits each of them, so that a slow second of the machine hits all alike.
 * The figure of a round is the mean over as many runs as fill ROUND_MS; what is printed are the quartiles over the rounds.
 */

enum { MAX_RUNGS = 16, MAX_BATCH = 1024 };

static const double ROUND_MS = 200;

struct rung {
    struct subject subject;
    double ms[SUBJECT_MAX_ROUNDS];
};

struct ladder {
    struct subject_options options;
    const char *batches;
    bool serve, split;
    int count;
    struct rung rungs[MAX_RUNGS];
};

/* --- measuring --- */

static bool time_rung(struct rung *rung, double *mean_ms, struct error *err) {
    int runs = 0;
    int64_t start = clock_now_ns();
    double elapsed_ms;
    do {
        if (!subject_run(&rung->subject, NULL, err))
            return false;
        runs++;
        elapsed_ms = subject_elapsed_ms(start);
    } while (elapsed_ms < ROUND_MS);
    *mean_ms = elapsed_ms / runs;
    return true;
}

/* The caches are another plan's where the ladder has several: a run that does not count brings in its own. */
static bool run_round(struct ladder *ladder, int round, struct error *err) {
    for (int i = 0; i < ladder->count; i++) {
        struct rung *rung = &ladder->rungs[i];
        if (ladder->count > 1 && !subject_run(&rung->subject, NULL, err))
            return false;
        if (!time_rung(rung, &rung->ms[round], err))
            return false;
    }
    return true;
}

static bool measure(struct ladder *ladder, struct error *err) {
    for (int i = 0; i < ladder->count; i++)
        if (!subject_run(&ladder->rungs[i].subject, NULL, err))
            return false;
    for (int round = 0; round < ladder->options.rounds; round++)
        if (!run_round(ladder, round, err))
            return false;
    return true;
}

/* --- reporting --- */

static void print_table(const struct ladder *ladder) {
    const struct subject_options *o = &ladder->options;
    struct machine machine = machine_describe(&ladder->rungs[0].subject);
    printf("%s %s, %s, %d pixels, %d rounds; %s, %s, %d cores\n", o->infer ? "inference with" : "training",
           o->architecture, precision_name(o->precision), o->size, o->rounds, machine.device, machine.cpu, machine.cores);
    printf("%6s %10s %21s %10s\n", "batch", "ms", "quartiles", "images/s");
    for (int i = 0; i < ladder->count; i++) {
        const struct rung *rung = &ladder->rungs[i];
        double ms = subject_median(rung->ms, o->rounds);
        printf("%6d %10.2f %10.2f %10.2f %10.1f\n", rung->subject.options.batch, ms,
               subject_quantile(rung->ms, o->rounds, .25), subject_quantile(rung->ms, o->rounds, .75),
               rung->subject.options.batch * 1e3 / ms);
    }
}

static void print_json(const struct ladder *ladder) {
    const struct subject_options *o = &ladder->options;
    struct machine machine = machine_describe(&ladder->rungs[0].subject);
    printf("{\"mode\": \"%s\", \"architecture\": \"%s\", \"precision\": \"%s\", \"size\": %d, \"channels\": %d, "
           "\"threads\": %d, \"rounds\": %d,\n \"machine\": ",
           o->infer ? "infer" : "train", o->architecture, precision_name(o->precision), o->size, o->channels, o->threads,
           o->rounds);
    machine_print_json(&machine, stdout);
    printf(",\n \"batches\": [");
    for (int i = 0; i < ladder->count; i++) {
        const struct rung *rung = &ladder->rungs[i];
        int batch = rung->subject.options.batch;
        double ms = subject_median(rung->ms, o->rounds);
        printf("%s\n  {\"batch\": %d, \"ms\": %.4f, \"quartiles_ms\": [%.4f, %.4f], \"images_per_s\": %.2f}", i ? "," : "",
               batch, ms, subject_quantile(rung->ms, o->rounds, .25), subject_quantile(rung->ms, o->rounds, .75),
               batch * 1e3 / ms);
    }
    printf("]}\n");
}

/* --- opening --- */

/* Returns how many numbers the text "1,2,4" has, 0 (said on stderr) where it is no such list. */
static int parse_batches(const char *text, int batches[MAX_RUNGS]) {
    int count = 0;
    for (size_t length; *text; text += length + (text[length] == ',')) {
        char number[16];
        length = strcspn(text, ",");
        snprintf(number, sizeof number, "%.*s", (int)length, text);
        if (count == MAX_RUNGS) {
            fprintf(stderr, "more than %d batch sizes\n", MAX_RUNGS);
            return 0;
        }
        if (!subject_take_number(number, MAX_BATCH, &batches[count++]))
            return 0;
    }
    return count;
}

static bool open_rungs(struct ladder *ladder, const int *batches, int count, struct error *err) {
    for (int i = 0; i < count; i++) {
        struct subject *subject = &ladder->rungs[i].subject;
        subject->options = ladder->options;
        subject->options.batch = batches[i];
        ladder->count = i + 1;
        bool opened = i == 0 ? subject_open(subject, err)
                             : subject_open_beside(subject, &ladder->rungs[0].subject, batches[i], err);
        if (!opened || !subject_fill(subject, err))
            return false;
    }
    return true;
}

static void close_rungs(struct ladder *ladder) {
    while (ladder->count > 0)
        subject_close(&ladder->rungs[--ladder->count].subject);
}

static int parse_options(int argc, char **argv, const struct ladder_program *program, struct ladder *ladder) {
    static const struct option rows[] = {
        SUBJECT_OPTION_ROWS, {"serve", no_argument, 0, 'S'}, {"split", no_argument, 0, 'X'}, {"help", no_argument, 0, 'h'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        if (c == 'h') {
            fputs(program->usage, stdout);
            return 0;
        }
        if (c == 'S') {
            ladder->serve = true;
        } else if (c == 'X') {
            ladder->split = true;
        } else if (c == 'b') {
            ladder->batches = optarg;
        } else if (!subject_take_option(&ladder->options, c, optarg)) {
            fputs(program->usage, stderr);
            return 2;
        }
    }
    return optind == argc ? -1 : 2;
}

static bool serve_rung(struct ladder *ladder, struct error *err) {
    struct subject *subject = &ladder->rungs[0].subject;
    struct split *split = ladder->split ? split_open(subject, err) : NULL;
    bool good = (split || !ladder->split) && serve(subject, split, stdin, stdout, err);
    split_close(split);
    return good;
}

static bool run(struct ladder *ladder, const int *batches, int count, struct error *err) {
    if (!open_rungs(ladder, batches, count, err))
        return false;
    if (ladder->serve)
        return serve_rung(ladder, err);
    if (!measure(ladder, err))
        return false;
    ladder->options.json ? print_json(ladder) : print_table(ladder);
    return true;
}

int ladder_main(int argc, char **argv, const struct ladder_program *program) {
    static struct ladder ladder;
    struct error err = {0};
    int batches[MAX_RUNGS];
    ladder.options = subject_options_default();
    ladder.options.infer = program->infer;
    ladder.batches = program->batches;
    int code = parse_options(argc, argv, program, &ladder);
    if (code >= 0)
        return code;
    int count = parse_batches(ladder.batches, batches);
    if (ladder.split && !(ladder.serve && ladder.options.infer)) {
        fprintf(stderr, "%s: --split is for inference with --serve\n", program->name);
        return 2;
    }
    if (count == 0 || (ladder.serve && count != 1)) {
        fprintf(stderr, "%s: --batch takes numbers with commas between them, and with --serve one number\n", program->name);
        return 2;
    }
    bool good = run(&ladder, batches, count, &err);
    if (!good)
        fprintf(stderr, "%s: %s\n", program->name, err.message);
    close_rungs(&ladder);
    return good ? 0 : 1;
}
