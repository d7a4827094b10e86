#pragma once

/**
 * What people decide about published models, and what was decided. argv[0] is the command's name; each
 * returns the exit code: 0, 1 (failed; one line on stderr says why) or 2 (wrong usage).
 */

/** `trainctl approve MODEL --by NAME [--note TEXT]`: lets a model be activated. */
int command_approve(int argc, char **argv);
/** `trainctl revoke MODEL --by NAME [--reason TEXT]`: never to be run again. */
int command_revoke(int argc, char **argv);
/** `trainctl events [--after N]`: what happened, from the publisher's registry. */
int command_events(int argc, char **argv);
