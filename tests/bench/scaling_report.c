#include "tests/bench/scaling.h"

#include <math.h>
#include <stdio.h>

static const int NETWORK_RANKS[] = {8, 64, 512};
enum { NETWORK_COLUMNS = sizeof NETWORK_RANKS / sizeof *NETWORK_RANKS };

static const char formula[] =
    "an all-reduce of s bytes over n ranks, a ring: t(n, s) = 2 (n - 1) alpha + 2 (n - 1) / n * s / beta\n"
    "a step: a bucket's sum begins when it is ready and the one before is over; beside each other compute and sums take as many\n"
    "times as long as measured; behind the last sum come the update and the ranks' words, (n - 1) alpha. A step waits for the\n"
    "slowest rank.\n"
    "efficiency: weak = t(1 rank, batch b) / t(n ranks, b each); strong = t(1 rank, B) / (n t(n ranks, B / n each))\n";

/* --- the table --- */

static void print_local(const struct scaling *scaling, const struct scaling_local *local) {
    const struct scaling_local *l = local;
    double predicted = l->predicted.step_ms + l->words_ms;
    printf("\n%d ranks, batch %d each%s\n", l->ranks, l->batch,
           l->ranks > scaling->machine.cores ? ": more than there are cores, they take turns on them" : ", a core each");
    printf("  a lone step %.1f ms (%.1f + update %.1f by segments); the slowest of %d takes %.3f times the mean\n", l->lone_ms,
           l->step.compute_ms / l->slowest, l->step.update_ms, l->ranks, l->slowest);
    printf("  alpha %.1f us, beta %.2f GB/s, the fit is off by up to %.0f %%; beside each other compute takes %.3f times, sums "
           "%.2f times as long\n",
           l->ring.alpha_ms * 1e3, l->ring.bytes_per_ms * 1e-6, l->worst_fit * 100, l->slowdown.compute, l->slowdown.sum);
    printf("  sums:");
    for (int i = 0; i < l->sizes; i++)
        printf("  %.0f KiB %.3f ms", l->bytes[i] / 1024, l->sum_ms[i]);
    printf("\n  buckets ready:");
    for (int i = 0; i < l->step.count; i++)
        printf("  %.2f MiB at %.1f ms", l->step.buckets[i].bytes / (1 << 20), l->step.buckets[i].ready_ms);
    printf("\n  predicted %.1f ms (sums %.1f, exposed %.1f); measured %.1f ms (sums under way %.1f, waited for %.1f, on the core "
           "%.1f)\n",
           predicted, l->predicted.sum_ms, l->predicted.exposed_ms, l->measured_ms, l->busy_ms, l->waited_ms, l->cpu_ms);
    printf("  error %+.1f %%, %+.1f ms left unexplained; efficiency weak %.3f, predicted %.3f; strong (batch %d in all) %.3f, "
           "predicted %.3f\n",
           scaling_error(l) * 100, l->measured_ms - predicted, l->lone_ms / l->measured_ms, l->lone_ms / predicted,
           scaling->subject.batch, scaling->whole_ms / (l->ranks * l->measured_ms), scaling->whole_ms / (l->ranks * predicted));
}

static void print_efficiency(double value) {
    if (isnan(value))
        printf(" %9s", "-");
    else
        printf(" %9.3f", value);
}

static void print_networks(const struct scaling *scaling) {
    const struct scaling_local *local = &scaling->local[0];
    double step_ms = scaling->step_ms > 0 ? scaling->step_ms : local->step.compute_ms + local->step.update_ms;
    printf("\nover interconnects, assumed and not measured, for ranks whose step of %d images takes %.1f ms%s\n", local->batch,
           step_ms, scaling->step_ms > 0 ? " (as told)" : " (as here)");
    printf("weak: %d images a rank; strong: %d in all; slower ranks among many are not in it\n", local->batch,
           SCALING_STRONG_BATCH);
    printf("%-26s %9s %9s", "", "alpha us", "GB/s");
    for (int i = 0; i < NETWORK_COLUMNS; i++)
        printf("  weak %-4d strong %-3d", NETWORK_RANKS[i], NETWORK_RANKS[i]);
    putchar('\n');
    for (const struct scaling_network *network = scaling_networks; network->name; network++) {
        struct ring ring = scaling_ring(scaling, network);
        printf("%-26s %9.1f %9.2f", network->name, ring.alpha_ms * 1e3, ring.bytes_per_ms * 1e-6);
        for (int i = 0; i < NETWORK_COLUMNS; i++) {
            struct scaling_efficiency efficiency = scaling_over(scaling, network, NETWORK_RANKS[i]);
            print_efficiency(efficiency.weak);
            print_efficiency(efficiency.strong);
        }
        printf("  %s%s\n", network->source, network->by_cores ? "; slow-downs as here, and no better than here" : "");
    }
}

void scaling_print_table(const struct scaling *scaling) {
    const struct subject_options *o = &scaling->subject;
    printf("%s, %s%s, %d pixels, batch %d, %d rounds; %s, %s, %d cores\n", o->architecture, precision_name(o->precision),
           o->bf16_gradients ? ", gradients in bf16" : "", o->size, o->batch, o->rounds, scaling->machine.device,
           scaling->machine.cpu, scaling->machine.cores);
    fputs(formula, stdout);
    for (int i = 0; i < scaling->count; i++)
        print_local(scaling, &scaling->local[i]);
    print_networks(scaling);
}

/* --- JSON --- */

static void print_number(const char *name, double value) {
    if (isnan(value))
        printf(", \"%s\": null", name);
    else
        printf(", \"%s\": %.8g", name, value);
}

static void print_local_json(const struct scaling *scaling, const struct scaling_local *local) {
    const struct {
        const char *name;
        double value;
    } rows[] = {{"lone_ms", local->lone_ms}, {"slowest", local->slowest}, {"update_ms", local->step.update_ms},
                {"alpha_ms", local->ring.alpha_ms}, {"bytes_per_ms", local->ring.bytes_per_ms}, {"worst_fit", local->worst_fit},
                {"compute_slowdown", local->slowdown.compute}, {"sum_slowdown", local->slowdown.sum},
                {"predicted_ms", local->predicted.step_ms + local->words_ms}, {"predicted_sum_ms", local->predicted.sum_ms},
                {"predicted_exposed_ms", local->predicted.exposed_ms}, {"measured_ms", local->measured_ms},
                {"communication_ms", local->busy_ms}, {"exposed_ms", local->waited_ms}, {"communication_cpu_ms", local->cpu_ms},
                {"error", scaling_error(local)}, {"weak", local->lone_ms / local->measured_ms},
                {"strong", scaling->whole_ms / (local->ranks * local->measured_ms)}};
    printf("{\"ranks\": %d, \"batch\": %d, \"oversubscribed\": %s", local->ranks, local->batch,
           local->ranks > scaling->machine.cores ? "true" : "false");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        print_number(rows[i].name, rows[i].value);
    printf(",\n  \"sums\": [");
    for (int i = 0; i < local->sizes; i++)
        printf("%s{\"bytes\": %.0f, \"ms\": %.6g}", i ? ", " : "", local->bytes[i], local->sum_ms[i]);
    printf("],\n  \"buckets\": [");
    for (int i = 0; i < local->step.count; i++)
        printf("%s{\"bytes\": %.0f, \"ready_ms\": %.6g}", i ? ", " : "", local->buckets[i].bytes, local->buckets[i].ready_ms);
    printf("]}");
}

static void print_network_json(const struct scaling *scaling, const struct scaling_network *network) {
    printf("{\"name\": \"%s\", \"assumed\": true, \"source\": \"%s\"", network->name, network->source);
    struct ring ring = scaling_ring(scaling, network);
    print_number("alpha_ms", ring.alpha_ms);
    print_number("bytes_per_ms", ring.bytes_per_ms);
    printf(", \"efficiency\": [");
    for (int i = 0; i < NETWORK_COLUMNS; i++) {
        struct scaling_efficiency efficiency = scaling_over(scaling, network, NETWORK_RANKS[i]);
        printf("%s{\"ranks\": %d", i ? ", " : "", NETWORK_RANKS[i]);
        print_number("weak", efficiency.weak);
        print_number("strong", efficiency.strong);
        putchar('}');
    }
    printf("]}");
}

/* ratio, measured_ms and limit_ms: of the last number of local ranks, as tests/bench/bars reads them. */
void scaling_print_json(const struct scaling *scaling) {
    const struct subject_options *o = &scaling->subject;
    const struct scaling_local *last = &scaling->local[scaling->count - 1];
    printf("{\"architecture\": \"%s\", \"precision\": \"%s\", \"size\": %d, \"batch\": %d, \"rounds\": %d, "
           "\"bf16_gradients\": %s",
           o->architecture, precision_name(o->precision), o->size, o->batch, o->rounds, o->bf16_gradients ? "true" : "false");
    print_number("ratio", fabs(scaling_error(last)));
    print_number("measured_ms", last->measured_ms);
    print_number("limit_ms", last->predicted.step_ms + last->words_ms);
    print_number("whole_ms", scaling->whole_ms);
    print_number("assumed_step_ms", scaling->step_ms > 0 ? scaling->step_ms : NAN);
    printf(",\n \"machine\": ");
    machine_print_json(&scaling->machine, stdout);
    printf(",\n \"local\": [");
    for (int i = 0; i < scaling->count; i++) {
        printf("%s\n  ", i ? "," : "");
        print_local_json(scaling, &scaling->local[i]);
    }
    printf("],\n \"networks\": [");
    for (const struct scaling_network *network = scaling_networks; network->name; network++) {
        printf("%s\n  ", network == scaling_networks ? "" : ",");
        print_network_json(scaling, network);
    }
    printf("]}\n");
}
