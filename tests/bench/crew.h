#pragma once
#include "tests/bench/machine.h"
#include "tests/bench/subject.h"

/*
 * Ranks as trainerd has them, for benchmarks: processes on their shares of the cores, one computing thread each, with trainerd's
 * plan, step and collective. They wait for orders, all do the same at the same time, and report what it took.
 */
enum { CREW_MAX_RANKS = 8, CREW_MAX_VALUES = 512 };

struct crew_spec {
    struct subject_options subject; /**< what each rank trains; batch is a rank's */
    int ranks;
    bool lone; /**< each trains by itself, side by side, with collective solo; else together, with gloo */
};

enum crew_task {
    CREW_STEPS,    /**< count training steps */
    CREW_SUMS,     /**< count all-reduces of `bytes` bytes, as gradients travel, one after the other, while nothing computes */
    CREW_SCHEDULE, /**< count steps without any reduction, each segment timed */
    CREW_OVERLAP   /**< count all-reduces of `bytes` bytes while steps are computed all the time; after CREW_SCHEDULE */
};

struct crew_order {
    enum crew_task task;
    int count; /**< 1 to CREW_MAX_VALUES, or COLLECTIVE_TICKETS */
    size_t bytes;
};

/** What one rank found. */
struct crew_report {
    struct error error;            /**< its code is ERROR_NONE where all went well */
    int count;                     /**< of values */
    double ms[CREW_MAX_VALUES];    /**< of each step or sum; CREW_SCHEDULE: of each segment, the median */
    double bytes[CREW_MAX_VALUES]; /**< CREW_SCHEDULE: of the gradients that are ready behind each segment, as they travel */
    double update_ms;              /**< CREW_SCHEDULE: of the weights' update, the median */
    double busy_ms, waited_ms;     /**< sums were under way, and were waited for (collective_read_times); of the whole task */
    double sums, sum_bytes;
    double cpu_ms;                 /**< that threads other than the computing one had of the cores, over the whole task */
    double elapsed_ms, alone_ms;   /**< CREW_OVERLAP: what the whole segments took beside the sums, and take alone */
    char device[64];               /**< the device's name */
};

struct crew;

/** Starts the ranks and waits until all are ready. NULL on error, which names the rank. Before the caller has threads. */
struct crew *crew_open(const struct crew_spec *spec, struct error *err);
/** Takes NULL. Ends the ranks. */
void crew_close(struct crew *crew);

/** All ranks do it; reports: (ranks). Where one fails the crew can only be closed. */
bool crew_tell(struct crew *crew, const struct crew_order *order, struct crew_report *reports, struct error *err);

/** What the machine is. */
struct machine crew_machine(const struct crew *crew);

/**
 * Rows of struct option for what crews are made of, and the function that takes one of them, as SUBJECT_OPTION_ROWS and
 * subject_take_option are; the caller's own rows use values from 'A' to 'K'.
 */
#define CREW_OPTION_ROWS                                                                                     \
    SUBJECT_OPTION_ROWS, {"bucket-bytes", required_argument, 0, 'X'}, {                                     \
        "bf16-gradients", no_argument, 0, 'Y'                                                                \
    }
bool crew_take_option(struct subject_options *options, int option, const char *value);

/** Mean milliseconds of a report's steps or sums. */
double crew_mean_ms(const struct crew_report *report);
