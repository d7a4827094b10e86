#pragma once
#include <stdbool.h>

/** What tells `train` from `infer`: the rest of the two programs is one, a ladder of batch sizes, measured in rounds. */
struct ladder_program {
    const char *name, *usage;
    const char *batches; /**< unless --batch says otherwise, e.g. "1,2,4" */
    bool infer;
};

/** The whole program; returns its exit code. */
int ladder_main(int argc, char **argv, const struct ladder_program *program);
