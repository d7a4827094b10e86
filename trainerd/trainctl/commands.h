#pragma once

/**
 * The commands of trainctl that are not in files of their own name's header: each gets its own argv (argv[0]
 * is the command's name) and returns the exit code: 0, 1 (failed; one line on stderr says why) or 2 (wrong
 * usage).
 */

/** `trainctl evaluate MODEL`: answers a part of a data set with a model file; prints and writes the report. */
int command_evaluate(int argc, char **argv);

/** `trainctl compare BEFORE AFTER`: two model files on the same pictures: what changed. */
int command_compare(int argc, char **argv);

/** `trainctl quantize MODEL`: a model that computes in 8 bits, or in bf16. */
int command_quantize(int argc, char **argv);

/** `trainctl import FILE`: published ImageNet weights (safetensors) into the project's names, for model.init. */
int command_import(int argc, char **argv);

/** `trainctl keygen`: a pair of keys in files, for encrypted sockets or for signing models. */
int command_keygen(int argc, char **argv);

/** `trainctl config`: every key of trainerd's configuration with type, default, range and meaning. */
int command_config(int argc, char **argv);
