#include "common/device/onednn/team.h"

#include <omp.h>

void team_run(int threads, team_body *body, void *context) {
#pragma omp parallel num_threads(threads)
    body(context, omp_get_thread_num(), omp_get_num_threads());
}

void team_adopt(int threads) {
    omp_set_num_threads(threads);
}

void team_share(int64_t count, int part, int parts, int64_t *begin, int64_t *end) {
    *begin = count * part / parts;
    *end = count * (part + 1) / parts;
}
