#include "tests/bench/scaling.h"

#include "common/base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One rank's step, an all-reduce's cost and what the two do to each other, measured apart; from these, what ranks together take
 * (scaling_model.h), beside what they were measured to take, and over interconnects that are not here.
 */

enum { STEPS = 3, SCHEDULES = 2, SMALLEST_SUM = 4 << 10, LARGEST_SUM = 128 << 20 };
static const double SUMS_MS = 200; /* so long all-reduces of one size go on in a round */

/* The crews of one number of ranks, and what each round found. */
struct bench {
    struct scaling_local *local;
    int round, rounds;
    struct crew *lone, *together;
    struct crew_report *reports; /* (ranks) */
    double lone_ms[SUBJECT_MAX_ROUNDS], slowest[SUBJECT_MAX_ROUNDS], step_ms[SUBJECT_MAX_ROUNDS], busy_ms[SUBJECT_MAX_ROUNDS],
        waited_ms[SUBJECT_MAX_ROUNDS], cpu_ms[SUBJECT_MAX_ROUNDS], update_ms[SUBJECT_MAX_ROUNDS],
        slow_compute[SUBJECT_MAX_ROUNDS], slow_sum[SUBJECT_MAX_ROUNDS], segment_ms[CREW_MAX_VALUES][SUBJECT_MAX_ROUNDS],
        sum_ms[SCALING_SIZES + 1][SUBJECT_MAX_ROUNDS]; /* the last row: of the size that the slow-downs are measured with */
    int segments;
    double segment_bytes[CREW_MAX_VALUES];
};

/* --- what one round measures --- */

static double mean_over(const struct bench *bench, double (*value)(const struct crew_report *report)) {
    double sum = 0;
    for (int rank = 0; rank < bench->local->ranks; rank++)
        sum += value(&bench->reports[rank]);
    return sum / bench->local->ranks;
}

static double busy_of(const struct crew_report *report) {
    return report->busy_ms / report->count;
}

static double waited_of(const struct crew_report *report) {
    return report->waited_ms / report->count;
}

static double cpu_of(const struct crew_report *report) {
    return report->cpu_ms / report->count;
}

static double update_of(const struct crew_report *report) {
    return report->update_ms;
}

static double slow_compute_of(const struct crew_report *report) {
    return report->elapsed_ms / report->alone_ms;
}

static double all_busy_of(const struct crew_report *report) {
    return report->busy_ms;
}

static bool run_steps(struct bench *bench, struct crew *crew, struct error *err) {
    const struct crew_order warm = {CREW_STEPS, 1, 0}, order = {CREW_STEPS, STEPS, 0};
    return crew_tell(crew, &warm, bench->reports, err) && crew_tell(crew, &order, bench->reports, err);
}

/* Who waits for the slowest in every step takes so many times the mean. */
static double slowest_of(const struct bench *bench) {
    double slowest = 0, mean = mean_over(bench, crew_mean_ms);
    for (int i = 0; i < STEPS; i++) {
        double most = 0;
        for (int rank = 0; rank < bench->local->ranks; rank++)
            most = fmax(most, bench->reports[rank].ms[i]);
        slowest += most / STEPS;
    }
    return slowest / mean;
}

static bool measure_lone(struct bench *bench, struct error *err) {
    if (!run_steps(bench, bench->lone, err))
        return false;
    bench->lone_ms[bench->round] = mean_over(bench, crew_mean_ms);
    bench->slowest[bench->round] = slowest_of(bench);
    return true;
}

static bool measure_together(struct bench *bench, struct error *err) {
    if (!run_steps(bench, bench->together, err))
        return false;
    bench->step_ms[bench->round] = mean_over(bench, crew_mean_ms);
    bench->busy_ms[bench->round] = mean_over(bench, busy_of);
    bench->waited_ms[bench->round] = mean_over(bench, waited_of);
    bench->cpu_ms[bench->round] = mean_over(bench, cpu_of);
    return true;
}

static bool measure_schedule(struct bench *bench, struct error *err) {
    const struct crew_order order = {CREW_SCHEDULE, SCHEDULES, 0};
    if (!crew_tell(bench->together, &order, bench->reports, err))
        return false;
    bench->segments = bench->reports[0].count;
    for (int i = 0; i < bench->segments; i++) {
        double sum = 0;
        for (int rank = 0; rank < bench->local->ranks; rank++)
            sum += bench->reports[rank].ms[i];
        bench->segment_ms[i][bench->round] = sum / bench->local->ranks;
        bench->segment_bytes[i] = bench->reports[0].bytes[i];
    }
    bench->update_ms[bench->round] = mean_over(bench, update_of);
    return true;
}

/* A few that do not count show how many fill the time. */
static bool time_sums(struct bench *bench, size_t bytes, double *mean_ms, struct error *err) {
    struct crew_order order = {CREW_SUMS, 2, bytes};
    if (!crew_tell(bench->together, &order, bench->reports, err))
        return false;
    order.count = (int)fmin(CREW_MAX_VALUES, fmax(2, SUMS_MS / crew_mean_ms(&bench->reports[0])));
    if (!crew_tell(bench->together, &order, bench->reports, err))
        return false;
    *mean_ms = mean_over(bench, crew_mean_ms);
    return true;
}

static bool measure_curve(struct bench *bench, struct error *err) {
    struct scaling_local *local = bench->local;
    local->sizes = 0;
    for (size_t bytes = SMALLEST_SUM; bytes <= LARGEST_SUM; bytes *= 2) {
        local->bytes[local->sizes] = (double)bytes;
        if (!time_sums(bench, bytes, &bench->sum_ms[local->sizes++][bench->round], err))
            return false;
    }
    return true;
}

/* Sums of the largest bucket, for as long as a step takes or more. */
static bool measure_slowdown(struct bench *bench, struct error *err) {
    struct crew_order order = {.task = CREW_OVERLAP};
    double *alone_ms = &bench->sum_ms[SCALING_SIZES][bench->round];
    for (int i = 0; i < bench->segments; i++)
        order.bytes = (size_t)fmax((double)order.bytes, bench->segment_bytes[i]);
    if (!time_sums(bench, order.bytes, alone_ms, err))
        return false;
    order.count = (int)fmin(CREW_MAX_VALUES, fmax(4, ceil(bench->lone_ms[bench->round] / *alone_ms)));
    if (!crew_tell(bench->together, &order, bench->reports, err))
        return false;
    bench->slow_compute[bench->round] = mean_over(bench, slow_compute_of);
    bench->slow_sum[bench->round] = mean_over(bench, all_busy_of) / order.count / *alone_ms;
    return true;
}

/* --- what the rounds say together --- */

static double median(const struct bench *bench, const double *values) {
    return subject_median(values, bench->rounds);
}

/* Every rank waits for the slowest: the schedule is stretched by what that costs lone ranks. */
static bool conclude_schedule(struct bench *bench, struct error *err) {
    struct scaling_local *local = bench->local;
    double now_ms = 0;
    int count = 0;
    for (int i = 0; i < bench->segments; i++) {
        now_ms += median(bench, bench->segment_ms[i]) * local->slowest;
        if (bench->segment_bytes[i] <= 0)
            continue;
        if (count == SCALING_BUCKETS)
            return error_set(err, ERROR_TOO_LARGE, "more than %d buckets: larger ones", SCALING_BUCKETS);
        local->buckets[count++] = (struct scaling_bucket){now_ms, bench->segment_bytes[i]};
    }
    local->step = (struct scaling_step){local->buckets, count, now_ms, median(bench, bench->update_ms)};
    return true;
}

static bool conclude_ring(struct bench *bench, struct error *err) {
    struct scaling_local *local = bench->local;
    for (int i = 0; i < local->sizes; i++)
        local->sum_ms[i] = median(bench, bench->sum_ms[i]);
    if (!ring_fit(local->ranks, local->bytes, local->sum_ms, local->sizes, &local->ring))
        return error_set(err, ERROR_STATE, "the all-reduces of %d ranks cost nothing that a ring would", local->ranks);
    for (int i = 0; i < local->sizes; i++)
        local->worst_fit =
            fmax(local->worst_fit, fabs(ring_ms(&local->ring, local->ranks, local->bytes[i]) / local->sum_ms[i] - 1));
    return true;
}

static bool conclude(struct bench *bench, struct error *err) {
    struct scaling_local *local = bench->local;
    local->lone_ms = median(bench, bench->lone_ms);
    local->slowest = median(bench, bench->slowest);
    local->measured_ms = median(bench, bench->step_ms);
    local->busy_ms = median(bench, bench->busy_ms);
    local->waited_ms = median(bench, bench->waited_ms);
    local->cpu_ms = median(bench, bench->cpu_ms);
    local->slowdown.compute = fmax(1, median(bench, bench->slow_compute));
    local->slowdown.sum = fmax(1, median(bench, bench->slow_sum));
    if (!conclude_schedule(bench, err) || !conclude_ring(bench, err))
        return false;
    local->predicted = scaling_predict(&local->step, &local->ring, local->ranks, &local->slowdown);
    local->words_ms = (local->ranks - 1) * local->ring.alpha_ms;
    return true;
}

/* --- all of it --- */

static struct crew *open_crew(const struct scaling *scaling, int ranks, int batch, bool lone, struct error *err) {
    struct crew_spec spec = {scaling->subject, ranks, lone};
    spec.subject.batch = batch;
    return crew_open(&spec, err);
}

static bool run_rounds(struct bench *bench, struct error *err) {
    for (; bench->round < bench->rounds; bench->round++) {
        if (!measure_lone(bench, err) || !measure_together(bench, err) || !measure_schedule(bench, err) ||
            !measure_slowdown(bench, err) || !measure_curve(bench, err))
            return false;
    }
    return conclude(bench, err);
}

static bool measure_local(struct scaling *scaling, int ranks, struct error *err) {
    struct scaling_local *local = &scaling->local[scaling->count++];
    *local = (struct scaling_local){.ranks = ranks, .batch = scaling->subject.batch / ranks};
    struct bench *bench = calloc(1, sizeof *bench);
    struct crew_report *reports = calloc((size_t)ranks, sizeof *reports);
    bool ok = (bench && reports) || error_set(err, ERROR_MEMORY, "out of memory for %d ranks' reports", ranks);
    if (ok) {
        *bench = (struct bench){.local = local, .rounds = scaling->subject.rounds, .reports = reports};
        ok = (bench->lone = open_crew(scaling, ranks, local->batch, true, err)) &&
             (bench->together = open_crew(scaling, ranks, local->batch, false, err)) && run_rounds(bench, err);
        if (ok)
            scaling->machine = crew_machine(bench->lone);
        crew_close(bench->together);
        crew_close(bench->lone);
    }
    free(reports);
    free(bench);
    return ok;
}

/* What one rank takes for the batch of all, beside another one that does the same. */
static bool measure_whole(struct scaling *scaling, struct error *err) {
    enum { BESIDE = 2 };
    static struct crew_report reports[BESIDE];
    double ms[SUBJECT_MAX_ROUNDS];
    const struct crew_order order = {CREW_STEPS, 1, 0};
    struct crew *crew = open_crew(scaling, BESIDE, scaling->subject.batch, true, err);
    bool ok = crew && crew_tell(crew, &order, reports, err);
    for (int round = 0; ok && round < scaling->subject.rounds; round++) {
        ok = crew_tell(crew, &order, reports, err);
        ms[round] = (crew_mean_ms(&reports[0]) + crew_mean_ms(&reports[1])) / BESIDE;
    }
    if (ok)
        scaling->whole_ms = subject_median(ms, scaling->subject.rounds);
    crew_close(crew);
    return ok;
}

static const char usage[] =
    "Usage: scaling [--ranks 2|4] [--architecture NAME] [--size N] [--batch N] [--precision NAME] [--rounds N] [--step-ms MS]\n"
    "               [--bucket-bytes N] [--bf16-gradients] [--json]\n"
    "Measures a rank's step, all-reduces, and how much they disturb each other; predicts what ranks together take, here (beside\n"
    "what they do take) and over interconnects. The batch is of all local ranks. --step-ms: interconnects are predicted for\n"
    "ranks whose step takes so long.\n";

static bool take_ranks(const char *text, int *out) {
    return subject_take_number(text, 4, out) && (*out == 2 || *out == 4);
}

static bool take_step(const char *text, double *out) {
    struct error err = {0};
    if (text_to_double(text, out, &err) && *out > 0 && *out < 1e9)
        return true;
    fprintf(stderr, "a step takes more than 0 ms, not \"%s\"\n", text);
    return false;
}

static int parse_options(int argc, char **argv, struct scaling *scaling) {
    static const struct option rows[] = {CREW_OPTION_ROWS,
                                         {"ranks", required_argument, 0, 'A'},
                                         {"step-ms", required_argument, 0, 'B'},
                                         {"help", no_argument, 0, 'h'},
                                         {0}};
    for (int c; (c = getopt_long(argc, argv, "h", rows, NULL)) >= 0;) {
        if (c == 'h') {
            fputs(usage, stdout);
            return 0;
        }
        bool good = c == 'A'   ? take_ranks(optarg, &scaling->ranks)
                    : c == 'B' ? take_step(optarg, &scaling->step_ms)
                               : crew_take_option(&scaling->subject, c, optarg);
        if (!good) {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (scaling->subject.batch % 4 != 0)
        fputs("scaling: the batch is a multiple of 4\n", stderr);
    return optind == argc && scaling->subject.batch % 4 == 0 ? -1 : 2;
}

int main(int argc, char **argv) {
    static struct scaling scaling;
    struct error err = {0};
    scaling.subject = subject_options_default();
    scaling.subject.rounds = 3;
    int code = parse_options(argc, argv, &scaling);
    if (code >= 0)
        return code;
    bool good = true;
    for (int ranks = 2; good && ranks <= 4; ranks += 2)
        good = (scaling.ranks && scaling.ranks != ranks) || measure_local(&scaling, ranks, &err);
    good = good && measure_whole(&scaling, &err);
    if (!good)
        fprintf(stderr, "scaling: %s\n", err.message);
    else if (scaling.subject.json)
        scaling_print_json(&scaling);
    else
        scaling_print_table(&scaling);
    return good ? 0 : 1;
}
