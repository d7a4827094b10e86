#pragma once
#include "trainerd/metrics_log.h"
#include <stdio.h>

/**
 * What a training run shows while it runs: a bar that redraws itself on a terminal, one line per event
 * elsewhere, or lines of JSON for machines. Opaque; one thread at a time.
 */
struct progress;

enum progress_style {
    PROGRESS_AUTO, /**< PROGRESS_BAR where out is a terminal, else PROGRESS_LINES */
    PROGRESS_BAR,
    PROGRESS_LINES, /**< `event key=value ...`; steps at most every 10 s */
    PROGRESS_JSON,  /**< metric_json's lines; steps at most once a second */
};

/** Borrows out until progress_destroy. NULL where memory ends. */
struct progress *progress_create(FILE *out, enum progress_style style);
/** Ends the bar's line. Takes NULL. */
void progress_destroy(struct progress *progress);

/** Where the run is after a step. */
struct progress_step {
    int epoch, epochs;   /**< counted from 1 */
    int64_t step, steps; /**< done so far and in all, over all epochs; steps 0: unknown */
    int64_t images;      /**< trained on so far, over all ranks */
    double loss;
    int64_t now_ms; /**< clock_now_ms() */
};

/**
 * Tells of a step; cheap, shows no more than a reader can take in. Speed and time left come from the last
 * half minute or so; a step number that falls back (a new phase) starts them anew.
 */
void progress_step(struct progress *progress, const struct progress_step *step);

/** Shows an event at once, above the bar. */
void progress_event(struct progress *progress, const char *event, const struct metric *metrics, int count);
