#pragma once
#include "inferd/config.h"

/**
 * A router, put together from its configuration: serves until SIGTERM, SIGINT or a drain request, then
 * drains. True: everything that was accepted was answered. False: what could not be started, or was not
 * answered in time.
 */
bool router_daemon_run(const struct inferd_config *config, struct error *err);

/** The configuration is all there is to check. */
bool router_daemon_check(const struct inferd_config *config, struct error *err);
