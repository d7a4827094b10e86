#include "common/base/digest.h"
#include "common/base/text.h"
#include "tests/unit/inferd/tiny_model.h"
#include <stdio.h>

/** make_model FILE NAME SEED [TEMPERATURE]: a model file with random weights, for tests that start the daemon. A low
 * temperature (default 1) makes the answers of random weights differ clearly. */
int main(int argc, char **argv) {
    struct error err = {0};
    int64_t seed;
    double temperature = 1;
    if (argc < 4 || argc > 5 || !text_to_int(argv[3], 0, INT32_MAX, &seed, &err) ||
        (argc == 5 && !text_to_double(argv[4], &temperature, &err))) {
        fputs("usage: make_model FILE NAME SEED [TEMPERATURE]\n", stderr);
        return 2;
    }
    struct tiny_model_spec spec = {
        .name = argv[2], .seed = (uint64_t)seed, .temperature = temperature, .golden = true};
    if (!digest_start(&err) || !tiny_model_write(argv[1], &spec, &err)) {
        fprintf(stderr, "make_model: %s\n", err.message);
        return 1;
    }
    return 0;
}
