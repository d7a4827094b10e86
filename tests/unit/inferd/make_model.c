#include "common/base/digest.h"
#include "common/base/text.h"
#include "tests/unit/inferd/tiny_model.h"
#include <stdio.h>

static bool parse(int count, char **words, struct tiny_model_spec *out, struct error *err) {
    int64_t seed, size = 0;
    if (count < 2 || count > 5) {
        return error_set(err, ERROR_INVALID,
                         "usage: make_model FILE NAME SEED [TEMPERATURE [ARCHITECTURE [SIZE]]]");
    }
    *out = (struct tiny_model_spec){.name = words[0], .temperature = 1, .golden = true};
    out->architecture = count > 3 ? words[3] : NULL;
    if (!text_to_int(words[1], 0, INT32_MAX, &seed, err) ||
        (count > 2 && !text_to_double(words[2], &out->temperature, err)) ||
        (count > 4 && !text_to_int(words[4], 28, TINY_MODEL_MAX_SIZE, &size, err))) {
        return false;
    }
    out->seed = (uint64_t)seed;
    out->size = (int)size;
    return true;
}

/** A model file with random weights, for tests that start the daemon. A low temperature (default 1) makes the
 * answers of random weights differ clearly. */
int main(int argc, char **argv) {
    struct error err = {0};
    struct tiny_model_spec spec;
    if (!parse(argc - 2, argv + 2, &spec, &err) || !digest_start(&err) ||
        !tiny_model_write(argv[1], &spec, &err)) {
        fprintf(stderr, "make_model: %s\n", err.message);
        return 1;
    }
    return 0;
}
