#pragma once

/**
 * `trainctl models [--at ENDPOINT] [--json]`: prints what a publisher has published and who is in its pool.
 * argv[0] is "models". Returns the exit code: 0, 1 (failed; one line on stderr says why) or 2 (wrong usage).
 */
int command_models(int argc, char **argv);
