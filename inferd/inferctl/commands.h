#pragma once

#define INFERCTL_DEFAULT_ENDPOINT "tcp://127.0.0.1:5700"

enum { INFERCTL_FAILED = 1, INFERCTL_USAGE = 2 };

/**
 * The commands of inferctl: argv[0] is the command's name, argv[-1] the program's. Each returns the exit code: 0, 1 (failed;
 * stderr says why) or 2 (wrong usage). To add one: a function in a file of its own, and a row in main.c.
 */

/** `diagnose FILE...`: asks for each file and prints a table or, with --json, an array. 1 where any got no
 * answer. */
int command_diagnose(int argc, char **argv);

/** `status`: how the member is. */
int command_status(int argc, char **argv);

/** `drain`: has the member finish what it accepted and exit, and waits until it is gone. 1 where it is still busy
 * after --timeout-ms. */
int command_drain(int argc, char **argv);

/**
 * `bench`: a closed loop (--closed N: N clients, each with one request outstanding), an open loop (--open RATE: Poisson
 * arrivals, latencies from the intended time) or a search for the most that is answered in a second (--saturation).
 * 1 where a reply was wrong or did not come. With --engine MODEL no member is asked: see bench_engine.h.
 */
int command_bench(int argc, char **argv);
