#pragma once
#include "common/base/error.h"
#include <signal.h>

/* Set by the handlers that signals_install puts in place; loops look at them. */

/**
 * How often SIGTERM or SIGINT arrived: more than once is impatience. SIGUSR1, by which batch systems announce the end of a job's
 * time, asks for the same, however often it comes; the SIGTERM that then follows does not count again.
 */
extern volatile sig_atomic_t signals_stop;
extern volatile sig_atomic_t signals_regroup; /**< SIGUSR2 arrived: ranks of a training run are to meet anew, others ignore it */
extern volatile sig_atomic_t signals_child;   /**< SIGCHLD arrived */

/** Installs the handlers (without SA_RESTART, so that a poll returns) and ignores SIGPIPE. Call once in main. */
bool signals_install(struct error *err);
