#include "tests/conformance/norm_ranks.h"

/* The request of a pass of the batch norm, or of its sums. */
static bool request_of(const struct norm_ranks *ranks, enum op_kind kind, enum pass pass, struct kernel_request *out,
                       struct error *err) {
    struct shape inputs[OP_MAX_INPUTS] = {ranks->src, ranks->src};
    *out = (struct kernel_request){.op = ranks->op, .pass = pass};
    out->op.kind = kind;
    if (!op_arguments(&out->op, pass, inputs, &out->args, err))
        return false;
    for (int arg = 0; arg < ARG_COUNT; arg++)
        if (out->args.desc[arg].dtype == DTYPE_F32)
            out->args.desc[arg] = tensor_desc_dense(ranks->dtype, &out->args.desc[arg].shape);
    return true;
}

bool norm_ranks_init(struct norm_ranks *ranks, struct error *err) {
    static const enum op_kind kinds[] = {OP_BATCH_NORM_SUMS, OP_BATCH_NORM};
    static const enum pass passes[] = {PASS_FORWARD, PASS_BACKWARD_DATA};
    struct op_args all = {0};
    for (int i = 0; i < 4; i++) {
        struct kernel_request request;
        if (!request_of(ranks, kinds[i / 2], passes[i % 2], &request, err))
            return false;
        for (int arg = 0; arg < ARG_COUNT; arg++)
            if (request.args.direction[arg] != ARG_ABSENT) {
                all.direction[arg] = ARG_INOUT;
                all.desc[arg] = request.args.desc[arg];
            }
    }
    bool ok = true;
    for (int r = 0; ok && r < NORM_RANKS; r++)
        ok = host_tensors_init(ranks->tensors[r], &all, err);
    return ok;
}

void norm_ranks_fini(struct norm_ranks *ranks) {
    for (int r = 0; r < NORM_RANKS; r++) {
        host_tensors_fini(ranks->tensors[r]);
        workspace_fini(&ranks->workspaces[r], ranks->device);
    }
}

static bool run_each(struct norm_ranks *ranks, enum op_kind kind, enum pass pass, struct error *err) {
    struct kernel_request request;
    bool ok = request_of(ranks, kind, pass, &request, err);
    for (int r = 0; ok && r < NORM_RANKS; r++) {
        struct device_run run = {.device = ranks->device, .request = &request};
        if (kind == OP_BATCH_NORM && pass == PASS_FORWARD)
            workspace_fini(&ranks->workspaces[r], ranks->device);
        ok = device_run(&run, ranks->tensors[r], &ranks->workspaces[r], err);
    }
    return ok;
}

static void add_up(struct norm_ranks *ranks) {
    for (int64_t i = 0; i < shape_count(&ranks->tensors[0][ARG_SUMS].shape); i++) {
        double sum = 0;
        for (int r = 0; r < NORM_RANKS; r++)
            sum += host_get(&ranks->tensors[r][ARG_SUMS], i);
        for (int r = 0; r < NORM_RANKS; r++)
            host_set(&ranks->tensors[r][ARG_SUMS], i, sum);
    }
}

bool norm_ranks_run(struct norm_ranks *ranks, enum pass pass, struct error *err) {
    if (!run_each(ranks, OP_BATCH_NORM_SUMS, pass, err))
        return false;
    add_up(ranks);
    return run_each(ranks, OP_BATCH_NORM, pass, err);
}
