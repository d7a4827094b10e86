#pragma once
#include "trainerd/config.h"
#include "trainerd/progress.h"

/** What the command line asks of the supervising process. */
struct daemon_options {
    char *const *arguments; /**< argv: workers are started with it */
    bool once;              /**< end with the training, even where a publisher runs */
    bool resume;            /**< go on from the run's newest checkpoint; else an earlier run's files are an error */
    enum progress_style style;
};

/** How it ended where it did not fail. */
struct daemon_result {
    int left;     /**< models that another publisher (publish.to) should have and has not; which, has been said */
    bool stopped; /**< training was, before its end: it can go on from the checkpoint that was written */
};

/**
 * The supervising process: looks at the data, starts the publisher and the workers, shows how it goes,
 * publishes what they hand over, and goes on publishing when training has ended, until SIGTERM. Without a
 * `train:` section it only publishes. Of several nodes only the first publishes.
 */
bool daemon_run(const struct trainer_config *config, const struct daemon_options *options, struct daemon_result *result,
                struct error *err);

/** --check: builds the network that the configuration describes, and starts nothing. */
bool daemon_check(const struct trainer_config *config, struct error *err);
