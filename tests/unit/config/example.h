#pragma once
#include "common/config/schema.h"

/** One key of every type, for the tests of this folder. */
enum example_kind { EXAMPLE_SGD, EXAMPLE_ADAMW };

struct example_part {
    float strength;
    int times;
};

struct example {
    struct {
        int epochs, batch_size;
        double rate;
        enum example_kind kind;
    } train;
    struct {
        const char *name, *folder;
        int64_t seed;
        bool loud;
    } run;
    size_t bucket;
    int64_t patience_ms;
    struct string_list views;
    struct double_list betas;
    struct named_lists classes;
    struct example_part part;
    struct schema_table parts; /**< of struct example_part */
};

extern const struct schema example_schema;
