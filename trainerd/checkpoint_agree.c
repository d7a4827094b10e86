#include "trainerd/checkpoint_agree.h"

#include "trainerd/checkpoint_spread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_CHECKPOINT = -1, SHOWN_DIGITS = 12 };

/** What a rank says of its newest checkpoint. */
struct claim {
    int64_t step; /* NO_CHECKPOINT: it has none */
    uint64_t run, bytes;
    struct digest digest; /* of the file; of the first rank of a node only, and not before anybody needs it */
    int32_t node, local_rank;
};

/** The claims of all ranks, by rank. */
struct claims {
    const struct checkpoint_agree_spec *spec;
    struct checkpoint_found found; /* this rank's */
    struct claim mine, *all;
    int count;
    int64_t step; /* the newest of all */
};

static bool gather(struct claims *claims, struct error *err) {
    return collective_allgather(claims->spec->collective, &claims->mine, sizeof claims->mine, claims->all, err);
}

/** Looks what is here, and hears what the others have. */
static bool claims_init(struct claims *claims, const struct checkpoint_agree_spec *spec, struct error *err) {
    claims->spec = spec;
    claims->count = spec->collective->world_size;
    if (!(claims->all = calloc((size_t)claims->count, sizeof *claims->all)))
        return error_set(err, ERROR_MEMORY, "out of memory");
    memset(&claims->mine, 0, sizeof claims->mine);
    claims->mine.step = NO_CHECKPOINT;
    claims->mine.node = spec->node;
    claims->mine.local_rank = spec->local_rank;
    if (spec->local_rank == 0)
        checkpoint_clean(spec->folder);
    if (checkpoint_find(spec->folder, spec->resumes ? spec->run : 0, &claims->found, NULL)) {
        claims->mine.step = claims->found.state.global_step;
        claims->mine.run = claims->found.state.run;
        claims->mine.bytes = claims->found.bytes;
    }
    if (!gather(claims, err))
        return false;
    claims->step = NO_CHECKPOINT;
    for (int rank = 0; rank < claims->count; rank++)
        claims->step = claims->all[rank].step > claims->step ? claims->all[rank].step : claims->step;
    return true;
}

static bool has_it(const struct claims *claims, int rank) {
    return claims->all[rank].step == claims->step;
}

/** The first rank of a node speaks for its folder. */
static bool leads(const struct claims *claims, int rank) {
    return claims->all[rank].local_rank == 0;
}

/** A run that begins afresh overwrites nothing. The rank that found something says where. */
static bool check_empty(const struct claims *claims, struct error *err) {
    if (claims->step == NO_CHECKPOINT)
        return true;
    if (claims->mine.step != NO_CHECKPOINT) {
        error_set(err, ERROR_STATE, "%s (node %d): an earlier run left checkpoints here", claims->spec->folder,
                  claims->spec->node);
        return error_hint(err, "give the run another run.name, go on with --resume auto, or remove them");
    }
    return error_set(err, ERROR_PEER, "another node has checkpoints of an earlier run");
}

static bool check_runs(const struct claims *claims, struct error *err) {
    int first = NO_CHECKPOINT;
    for (int rank = 0; rank < claims->count; rank++) {
        const struct claim *claim = &claims->all[rank];
        if (claim->run == 0) /* unknown */
            continue;
        if (first >= 0 && claim->run != claims->all[first].run)
            return error_set(err, ERROR_STATE,
                             "rank %d on node %d has checkpoints of run %016llx, and rank %d on node %d of run %016llx", first,
                             claims->all[first].node, (unsigned long long)claims->all[first].run, rank, claim->node,
                             (unsigned long long)claim->run);
        first = first < 0 ? rank : first;
    }
    return true;
}

/** Folders of several nodes hold the same bytes, or are one. */
static bool check_content(struct claims *claims, struct error *err) {
    int first = -1;
    if (claims->mine.step == claims->step && claims->mine.local_rank == 0 &&
        !digest_file(claims->found.path, &claims->mine.digest, err))
        return false;
    if (!gather(claims, err))
        return false;
    for (int rank = 0; rank < claims->count; rank++) {
        const struct claim *claim = &claims->all[rank];
        if (!has_it(claims, rank) || !leads(claims, rank))
            continue;
        first = first < 0 ? rank : first;
        if (digest_equal(&claim->digest, &claims->all[first].digest) && claim->bytes == claims->all[first].bytes)
            continue;
        char ours[DIGEST_HEX_SIZE], theirs[DIGEST_HEX_SIZE];
        error_set(err, ERROR_STATE,
                  "rank %d on node %d and rank %d on node %d have other checkpoints of step %lld: %.*s and %.*s",
                  first, claims->all[first].node, rank, claim->node, (long long)claims->step, SHOWN_DIGITS,
                  digest_hex(&claims->all[first].digest, ours), SHOWN_DIGITS, digest_hex(&claim->digest, theirs));
        return error_hint(err, "remove the one that is wrong (SHA-256 of the files)");
    }
    return true;
}

/** The rank that speaks for a rank's folder; -1: none does. */
static int leader_of(const struct claims *claims, int rank) {
    for (int i = 0; i < claims->count; i++) {
        if (leads(claims, i) && claims->all[i].node == claims->all[rank].node)
            return i;
    }
    return -1;
}

/** Only a whole node may lack the checkpoint, and only where nodes have folders of their own. */
static bool check_seen(const struct claims *claims, int root, struct error *err) {
    for (int rank = 0; rank < claims->count; rank++) {
        int leader = leader_of(claims, rank);
        bool is_sent_it = claims->spec->replicates && leads(claims, root) && leader >= 0 && !has_it(claims, leader);
        if (has_it(claims, rank) || is_sent_it)
            continue;
        char other[40] = "none";
        if (claims->all[rank].step != NO_CHECKPOINT)
            snprintf(other, sizeof other, "one of step %lld", (long long)claims->all[rank].step);
        error_set(err, ERROR_STATE, "rank %d on node %d has a checkpoint of step %lld, rank %d on node %d has %s", root,
                  claims->all[root].node, (long long)claims->step, rank, claims->all[rank].node, other);
        return error_hint(err, "do they see the same run folder? checkpoint.replicate: true is for nodes that do not");
    }
    return true;
}

/** The lowest rank that has the checkpoint and speaks for its node; any that has it where none does. */
static int root_of(const struct claims *claims) {
    int any = 0;
    for (int rank = claims->count - 1; rank >= 0; rank--)
        any = has_it(claims, rank) ? rank : any;
    for (int rank = 0; rank < claims->count; rank++) {
        if (has_it(claims, rank) && leads(claims, rank))
            return rank;
    }
    return any;
}

/** The nodes that lack the checkpoint get it; afterwards each of their ranks can read it. */
static bool hand_out(struct claims *claims, int root, struct checkpoint_agreement *out, struct error *err) {
    const struct checkpoint_agree_spec *spec = claims->spec;
    const struct claim *source = &claims->all[root];
    bool lacks = claims->mine.step != claims->step;
    if (source->bytes > spec->bytes_max)
        return error_set(err, ERROR_TOO_LARGE, "rank %d on node %d: a checkpoint of %llu bytes, this network's have at most %zu",
                         root, source->node, (unsigned long long)source->bytes, spec->bytes_max);
    if (lacks && !checkpoint_path(spec->folder, claims->step, out->path, err))
        return false;
    struct checkpoint_spread_spec spread = {.collective = spec->collective, .device = spec->device, .root = root,
                                            .from = claims->found.path,
                                            .to = lacks && spec->local_rank == 0 ? out->path : NULL,
                                            .bytes = source->bytes, .digest = source->digest, .alive = spec->alive,
                                            .context = spec->context};
    return checkpoint_spread(&spread, err) && collective_barrier(spec->collective, err);
}

static bool agree(struct claims *claims, struct checkpoint_agreement *out, struct error *err) {
    out->skipped = claims->found.skipped;
    for (int rank = 0; rank < claims->count; rank++)
        out->nodes += leads(claims, rank);
    if (!claims->spec->resumes)
        return check_empty(claims, err);
    if (claims->step == NO_CHECKPOINT)
        return true;
    if (!check_runs(claims, err) || (out->nodes > 1 && !check_content(claims, err)))
        return false;
    int root = root_of(claims);
    for (int rank = 0; rank < claims->count; rank++)
        out->received += leads(claims, rank) && !has_it(claims, rank);
    if (claims->mine.step == claims->step)
        memcpy(out->path, claims->found.path, sizeof out->path);
    return check_seen(claims, root, err) && (out->received == 0 || hand_out(claims, root, out, err));
}

bool checkpoint_agree(const struct checkpoint_agree_spec *spec, struct checkpoint_agreement *out, struct error *err) {
    struct claims *claims = calloc(1, sizeof *claims);
    *out = (struct checkpoint_agreement){0};
    if (!claims)
        return error_set(err, ERROR_MEMORY, "out of memory");
    bool ok = claims_init(claims, spec, err) && agree(claims, out, err);
    free(claims->all);
    free(claims);
    return ok;
}
