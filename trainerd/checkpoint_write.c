#include "trainerd/checkpoint_write.h"

#include "trainerd/running_statistics.h"

#include <stdlib.h>

/** What every rank says after the writing. */
struct write_word {
    int32_t written, node;
};

/** All that write keep rank 0's running statistics, not their own. Weights are the same everywhere and stay what they are. */
static bool take_statistics(const struct checkpoint_write_spec *spec, struct error *err) {
    bool first = spec->collective->rank == 0;
    if (spec->writes && !plan_export(spec->plan, PLAN_VALUES, spec->host, err))
        return false;
    return running_statistics_share(spec->collective, spec->graph, spec->host, err) &&
           (first || !spec->writes || plan_import(spec->plan, PLAN_VALUES, spec->host, err));
}

/** Tells the others whether this rank's part went well, and hears of theirs. */
static bool await_writers(const struct checkpoint_write_spec *spec, bool written, struct error *err) {
    int ranks = spec->collective->world_size;
    struct write_word mine = {written, spec->node}, *all = calloc((size_t)ranks, sizeof *all);
    bool ok = all || error_set(err, ERROR_MEMORY, "out of memory");
    ok = ok && collective_allgather(spec->collective, &mine, sizeof mine, all, err);
    for (int rank = 0; ok && rank < ranks; rank++) {
        if (!all[rank].written)
            ok = error_set(err, ERROR_PEER, "rank %d on node %d could not write the checkpoint of step %lld", rank,
                           all[rank].node, (long long)spec->state->global_step);
    }
    free(all);
    return ok;
}

bool checkpoint_write(const struct checkpoint_write_spec *spec, struct error *err) {
    if (spec->replicates && !take_statistics(spec, err))
        return false;
    bool written =
        !spec->writes || checkpoint_save(spec->folder, spec->plan, spec->graph, spec->state, spec->keep_last, err);
    return await_writers(spec, written, written ? err : NULL) && written;
}
