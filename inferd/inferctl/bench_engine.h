#pragma once

/**
 * `bench --engine MODEL`: no member is asked; the model file's plans are made here, as a member makes them, and every step
 * of them is timed alone on made-up images. argv[-1] is the program's name: it may be started anew with OpenMP's settings.
 * Returns the exit code.
 */
int bench_engine(int argc, char **argv);
