#pragma once

/**
 * `trainctl publish FILE [--to ENDPOINT]`: checks a model file and hands it to a running publisher, in
 * chunks; a transfer that was cut goes on where it stopped. argv[0] is "publish". Returns the exit code: 0, 1
 * (failed; one line on stderr says why) or 2 (wrong usage).
 */
int command_publish(int argc, char **argv);
