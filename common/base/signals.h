#pragma once
#include "common/base/error.h"
#include <signal.h>

/** Set by the handlers that signals_install puts in place; loops look at them. */
extern volatile sig_atomic_t signals_stop;  /**< SIGTERM or SIGINT arrived: how many times */
extern volatile sig_atomic_t signals_child; /**< SIGCHLD arrived */

/** Installs the handlers (without SA_RESTART, so that a poll returns) and ignores SIGPIPE. Call once in main. */
bool signals_install(struct error *err);
