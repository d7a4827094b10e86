#include "tests/bench/crew_rank.h"

#include "common/base/clock.h"
#include "common/base/cpu.h"
#include "common/base/text.h"
#include "tests/unit/trainerd/file_store.h"
#include "trainerd/step.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIMEOUT_MS = 120000 };

struct rank {
    const struct crew_spec *spec;
    int index;
    struct subject subject;
    struct collective *collective;
    struct step step;
    int64_t steps; /* so far */
    float *images;
    int32_t *labels;
    float hyper[HYPER_COUNT];
    double alone_ms[CREW_MAX_VALUES]; /* of each segment, once CREW_SCHEDULE has found it */
};

/* --- opening --- */

/* trainerd's share of the cores; one thread computes. */
static bool take_place(struct rank *rank, struct error *err) {
    struct cpu_set available, mine;
    if (!cpu_available(&available, err))
        return false;
    cpu_share(&available, rank->index, rank->spec->ranks, &mine);
    mine.count = 1;
    return cpu_pin(&mine, err);
}

static bool open_collective(struct rank *rank, const char *folder, struct error *err) {
    const struct crew_spec *spec = rank->spec;
    struct collective_store store = file_store(folder);
    struct collective_spec collective = {.name = spec->lone ? "solo" : "gloo",
                                         .rank = spec->lone ? 0 : rank->index,
                                         .world_size = spec->lone ? 1 : spec->ranks,
                                         .store = &store,
                                         .timeout_ms = TIMEOUT_MS};
    return (rank->collective = collective_open(&collective, err));
}

static bool make_batch(struct rank *rank, struct error *err) {
    const struct subject_options *o = &rank->subject.options;
    size_t count = (size_t)o->batch * (size_t)o->channels * (size_t)o->size * (size_t)o->size;
    rank->images = malloc(count * sizeof *rank->images);
    rank->labels = malloc((size_t)o->batch * sizeof *rank->labels);
    if (!rank->images || !rank->labels)
        return error_set(err, ERROR_MEMORY, "out of memory for a batch");
    subject_draw(rank->images, count);
    for (int i = 0; i < o->batch; i++)
        rank->labels[i] = i % SUBJECT_CLASSES;
    subject_hyper(rank->hyper, rank->collective->world_size);
    return true;
}

static bool open_rank(struct rank *rank, const char *folder, struct error *err) {
    rank->subject.options = rank->spec->subject;
    rank->subject.options.threads = 1;
    rank->subject.options.bf16_gradients &= !rank->spec->lone;
    if (!take_place(rank, err) || !subject_open(&rank->subject, err) || !subject_fill(&rank->subject, err) ||
        !open_collective(rank, folder, err) || !make_batch(rank, err))
        return false;
    if (plan_segment_count(rank->subject.plan) > CREW_MAX_VALUES)
        return error_set(err, ERROR_TOO_LARGE, "the plan has more than %d segments", CREW_MAX_VALUES);
    struct step_spec step = {rank->subject.plan, rank->subject.device, rank->collective, TIMEOUT_MS};
    return step_init(&rank->step, &step, err);
}

static void close_rank(struct rank *rank) {
    collective_close(rank->collective);
    if (rank->step.spec.device)
        step_fini(&rank->step);
    subject_close(&rank->subject);
    free(rank->images);
    free(rank->labels);
}

/* --- tasks --- */

/* As training.c:train_step, but for the loader: behind the step the ranks tell each other their losses. */
static bool train_once(struct rank *rank, struct error *err) {
    float loss, all[CREW_MAX_RANKS];
    struct step_input input = {rank->images, rank->labels, {1, rank->steps++, 0}};
    return step_run(&rank->step, &input, rank->hyper, &loss, err) &&
           collective_allgather(rank->collective, &loss, sizeof loss, all, err);
}

static bool do_steps(struct rank *rank, const struct crew_order *order, struct crew_report *report, struct error *err) {
    for (; report->count < order->count; report->count++) {
        int64_t start = clock_now_ns();
        if (!train_once(rank, err))
            return false;
        report->ms[report->count] = subject_elapsed_ms(start);
    }
    return true;
}

static bool start_sum(struct rank *rank, void *buffer, size_t bytes, int *ticket, struct error *err) {
    enum dtype dtype = rank->subject.options.bf16_gradients ? DTYPE_BF16 : DTYPE_F32;
    struct collective_piece piece = {.buffer = buffer, .dtype = dtype, .count = (int64_t)(bytes / dtype_size(dtype))};
    return collective_start(rank->collective, &piece, ticket, err);
}

/* Zeroes: sums of sums would overflow, and these take as long. Touched, so that no page is fetched while the clock runs. */
static void *make_buffer(size_t bytes, struct error *err) {
    void *buffer = malloc(bytes);
    if (buffer)
        memset(buffer, 0, bytes);
    else
        error_set(err, ERROR_MEMORY, "out of memory for %zu bytes", bytes);
    return buffer;
}

static bool do_sums(struct rank *rank, const struct crew_order *order, struct crew_report *report, struct error *err) {
    void *buffer = make_buffer(order->bytes, err);
    bool ok = buffer && collective_barrier(rank->collective, err);
    for (; ok && report->count < order->count; report->count++) {
        int ticket;
        int64_t start = clock_now_ns();
        ok = start_sum(rank, buffer, order->bytes, &ticket, err) && collective_wait(rank->collective, ticket, -1, err);
        report->ms[report->count] = subject_elapsed_ms(start);
    }
    free(buffer);
    return ok;
}

static double bytes_behind(const struct plan *plan, int segment) {
    const struct plan_reduction *sums;
    double bytes = 0;
    int count = plan_reductions(plan, segment, &sums);
    for (int i = 0; i < count; i++)
        bytes += (double)sums[i].count * (double)dtype_size(sums[i].dtype);
    return bytes;
}

/* One step alone, its parts' times in column `run` of the rows of ms: (segments + 1, SUBJECT_MAX_ROUNDS), the update's last. */
static bool time_segments(struct rank *rank, int run, double (*ms)[SUBJECT_MAX_ROUNDS], struct error *err) {
    struct plan *plan = rank->subject.plan;
    int segments = plan_segment_count(plan);
    int64_t start = clock_now_ns();
    if (!plan_set_images(plan, rank->images, err) ||
        !plan_set_targets(plan, rank->labels, (const int64_t[3]){1, rank->steps++, 0}, err))
        return false;
    for (int i = 0; i < segments; i++) {
        if (!plan_run_segment(plan, i, err))
            return false;
        ms[i][run] = subject_elapsed_ms(start);
        start = clock_now_ns();
    }
    bool ok = plan_update(plan, rank->hyper, err);
    ms[segments][run] = subject_elapsed_ms(start);
    return ok;
}

static bool do_schedule(struct rank *rank, const struct crew_order *order, struct crew_report *report, struct error *err) {
    int segments = plan_segment_count(rank->subject.plan), runs = order->count;
    double(*ms)[SUBJECT_MAX_ROUNDS] = calloc((size_t)segments + 1, sizeof *ms);
    bool ok = ms || error_set(err, ERROR_MEMORY, "out of memory for %d segments' times", segments);
    if (ok && runs > SUBJECT_MAX_ROUNDS)
        ok = error_set(err, ERROR_INVALID, "at most %d steps are timed by segments", SUBJECT_MAX_ROUNDS);
    for (int run = 0; ok && run < runs; run++)
        ok = time_segments(rank, run, ms, err);
    for (int i = 0; ok && i < segments; i++) {
        report->ms[i] = rank->alone_ms[i] = subject_median(ms[i], runs);
        report->bytes[i] = bytes_behind(rank->subject.plan, i);
    }
    report->count = segments;
    report->update_ms = ok ? subject_median(ms[segments], runs) : 0;
    free(ms);
    return ok;
}

static bool all_done(struct rank *rank, int64_t end) {
    struct collective_times times;
    return !collective_read_times(rank->collective, &times) || times.sums >= end;
}

/* Computes until the sums are over. What counts are the segments that had sums beside them from begin to end. */
static bool compute_beside(struct rank *rank, int64_t sums_at_end, struct crew_report *report, struct error *err) {
    int segments = plan_segment_count(rank->subject.plan);
    int64_t start = clock_now_ns();
    double alone_ms = 0;
    for (int i = 0;; i = (i + 1) % segments) {
        if (!plan_run_segment(rank->subject.plan, i, err))
            return false;
        if (all_done(rank, sums_at_end))
            return report->alone_ms > 0 || error_set(err, ERROR_STATE, "the sums were over before a segment was");
        report->alone_ms = alone_ms += rank->alone_ms[i];
        report->elapsed_ms = subject_elapsed_ms(start);
    }
}

static bool do_overlap(struct rank *rank, const struct crew_order *order, struct crew_report *report, struct error *err) {
    struct collective_times before;
    int tickets[CREW_MAX_VALUES];
    void *buffer = make_buffer(order->bytes, err);
    collective_read_times(rank->collective, &before);
    bool ok = buffer && collective_barrier(rank->collective, err);
    for (int i = 0; ok && i < order->count; i++)
        ok = start_sum(rank, buffer, order->bytes, &tickets[i], err);
    ok = ok && compute_beside(rank, before.sums + order->count, report, err);
    for (int i = 0; ok && i < order->count; i++)
        ok = collective_wait(rank->collective, tickets[i], -1, err);
    free(buffer);
    return ok;
}

static bool (*const tasks[])(struct rank *rank, const struct crew_order *order, struct crew_report *report, struct error *err) = {
    [CREW_STEPS] = do_steps, [CREW_SUMS] = do_sums, [CREW_SCHEDULE] = do_schedule, [CREW_OVERLAP] = do_overlap};

/* --- orders --- */

/* What threads other than this one have had of the cores. */
static int64_t others_cpu_ns(void) {
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (int64_t)spent.tv_sec * 1000000000 + spent.tv_nsec - clock_thread_ns();
}

static void obey(struct rank *rank, const struct crew_order *order, struct crew_report *report) {
    struct collective_times before, after;
    int64_t cpu_ns = others_cpu_ns();
    collective_read_times(rank->collective, &before);
    (void)tasks[order->task](rank, order, report, &report->error);
    collective_read_times(rank->collective, &after);
    report->cpu_ms = (double)(others_cpu_ns() - cpu_ns) * 1e-6;
    report->busy_ms = (double)(after.busy_ns - before.busy_ns) * 1e-6;
    report->waited_ms = (double)(after.waited_ns - before.waited_ns) * 1e-6;
    report->sums = (double)(after.sums - before.sums);
    report->sum_bytes = (double)(after.bytes - before.bytes);
}

_Noreturn void crew_rank_run(const struct crew_spec *spec, int index, const char *folder, int socket) {
    static struct rank rank;
    static struct crew_report report;
    struct crew_order order;
    struct device_info info = {0};
    rank.spec = spec;
    rank.index = index;
    if (open_rank(&rank, folder, &report.error)) {
        rank.subject.device->ops->info(rank.subject.device, &info);
        (void)text_copy(report.device, sizeof report.device, info.name);
    }
    while (crew_send(socket, &report, sizeof report) && report.error.code == ERROR_NONE &&
           crew_receive(socket, &order, sizeof order)) {
        report = (struct crew_report){0};
        obey(&rank, &order, &report);
    }
    bool well = report.error.code == ERROR_NONE;
    close_rank(&rank);
    _exit(well ? 0 : 1);
}
