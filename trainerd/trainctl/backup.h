#pragma once

/**
 * `trainctl backup --store DIR --out FOLDER`: a whole copy of a publisher's store, also while it publishes.
 * `trainctl restore --from FOLDER --store DIR`: makes a store of it for a publisher that is not running.
 * argv[0] is the command's name; each returns the exit code: 0, 1 (failed; one line on stderr says why) or 2
 * (wrong usage).
 */
int command_backup(int argc, char **argv);
int command_restore(int argc, char **argv);
