#pragma once

/* Rollouts, for people. argv[0] is the command's name; each returns the exit code: 0, 1 (failed; one line on
 * stderr says why) or 2 (wrong usage). */

/** `trainctl rollout start|status|pause|resume|abort`. */
int command_rollout(int argc, char **argv);
/** `trainctl rollback [MODEL] --by NAME [--reason TEXT]`: back to a model that is still in the store. */
int command_rollback(int argc, char **argv);
