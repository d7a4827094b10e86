#pragma once
#include "common/op/precision.h"

enum { ENGINE_MAX_BATCHES = 16 };

/** What `inferctl bench --engine` is told. */
struct engine_options {
    const char *model;  /**< the file */
    const char *device; /**< "auto": the fastest that is there */
    const char *trace;  /**< file to write; NULL: none */
    int threads;        /**< that compute; 0: as many as this process has processors */
    int runs;
    enum precision precision;
    int batches[ENGINE_MAX_BATCHES];
    int batch_count;
    bool json;
};

/** Whether the flags of `bench` are about the engine, and not about a member's load. */
bool engine_options_meant(int argc, char **argv);

/** Reads and checks the flags; argv[0] is not looked at. */
bool engine_options_parse(int argc, char **argv, struct engine_options *out, struct error *err);
