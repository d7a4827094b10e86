#pragma once
#include "tests/bench/crew.h"
#include "tests/bench/scaling_model.h"

enum { SCALING_LOCAL_MAX = 2, SCALING_SIZES = 16, SCALING_BUCKETS = 128 };

/** So many ranks on this machine, a core each while there are cores. Times are medians over the rounds, means over the ranks. */
struct scaling_local {
    int ranks, batch; /**< of a rank */
    double lone_ms;   /**< a step of lone ranks side by side */
    double slowest;   /**< how many times as long as the mean the slowest of as many lone ranks takes, step by step */

    int sizes;
    double bytes[SCALING_SIZES], sum_ms[SCALING_SIZES]; /**< all-reduces while nothing computes */
    struct ring ring;                                   /**< fitted to these */
    double worst_fit;                                   /**< the largest relative error of the fit */

    struct scaling_bucket buckets[SCALING_BUCKETS];
    struct scaling_step step;
    struct scaling_slowdown slowdown;

    struct scaling_prediction predicted;
    double words_ms;                              /**< predicted: what the ranks tell each other behind a step */
    double measured_ms, busy_ms, waited_ms, cpu_ms; /**< a step of the ranks together */
};

struct scaling {
    struct subject_options subject; /**< batch: of all ranks */
    int ranks;                      /**< 2 or 4: those alone; 0: both */
    double step_ms;                 /**< a rank's step that interconnects are predicted for; 0: as measured here */
    int count;
    struct scaling_local local[SCALING_LOCAL_MAX];
    double whole_ms; /**< a step of a lone rank with the batch of all */
    struct machine machine;
};

/** The relative error of the prediction. */
double scaling_error(const struct scaling_local *local);

/** An interconnect that is assumed, not measured, and where its figures are from. */
struct scaling_network {
    const char *name;
    struct ring ring;
    int most_ranks; /**< that it connects */
    bool by_cores;  /**< the ranks' own cores move the bytes, as here: what was measured slows it down, too */
    const char *source;
};

/** Ends with a zeroed row. */
extern const struct scaling_network scaling_networks[];

enum { SCALING_STRONG_BATCH = 512 };

struct scaling_efficiency {
    double weak;   /**< each rank keeps its batch: a lone step / the ranks' step */
    double strong; /**< SCALING_STRONG_BATCH images are shared: a lone step of all / (ranks x the ranks' step) */
};
/** What a network amounts to: where cores move the bytes, not more than between the ranks here. */
struct ring scaling_ring(const struct scaling *scaling, const struct scaling_network *network);
/** NAN, both, for more ranks than it connects. */
struct scaling_efficiency scaling_over(const struct scaling *scaling, const struct scaling_network *network, int ranks);

void scaling_print_table(const struct scaling *scaling);
void scaling_print_json(const struct scaling *scaling);
