#pragma once

/** The test of the supervisor is its own worker: `--mode NAME --worker RANK` behaves as the row of that name says. */
enum { SUPERVISOR_MODE_RANKS = 2 };

/** Returns the exit code. */
int supervisor_mode_run(const char *mode, const char *rank_text);
