#pragma once
#include "inferd/config.h"

/**
 * One member of the pool, put together: slot, server, and a model file or a subscriber. Serves until SIGTERM
 * or SIGINT, then drains. True: everything that was accepted was answered. False: what could not be started,
 * or was not answered in time.
 */
bool daemon_run(const struct inferd_config *config, struct error *err);

/** Loads and proves the configured model file, where there is one, without serving. */
bool daemon_check(const struct inferd_config *config, struct error *err);
