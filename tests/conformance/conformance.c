#include "tests/conformance/conformance.h"

#include "common/base/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SEED = 20261123 };
static const double tolerance = 1e-5, tolerance_backward_weight = 1e-4;

/* One way to run a case on the tested device. */
struct mode {
    const char *name;
    bool preferred_layouts, in_place;
    bool fixed_gradients; /* gradients are asked for in the layouts of their tensors, as plans do; else in any
                           */
};
static const struct mode modes[] = {
    {.name = "canonical"},
    {.name = "canonical, in place", .in_place = true},
    {.name = "preferred layouts", .preferred_layouts = true},
    {.name = "preferred layouts, in place",
     .preferred_layouts = true,
     .in_place = true,
     .fixed_gradients = true},
};
static const struct mode oracle_mode = {.name = "oracle"};

/* The state of one case on one device: what its forward pass left for the backward passes. */
struct side {
    struct device *device;
    const struct mode *mode;
    struct op_args forward; /* as prepared */
    struct workspace workspace;
};

/* --- precisions --- */

/* What a precision narrows f32 to; DTYPE_NONE: nothing. */
static enum dtype narrow_dtype(enum precision precision) {
    return precision == PRECISION_BF16 ? DTYPE_BF16 : precision == PRECISION_F16 ? DTYPE_F16 : DTYPE_NONE;
}

static bool is_narrow(enum dtype dtype) {
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16;
}

/* Gives the arguments the dtypes of a precision. False where that changes nothing: it is the f32 case once more. */
static bool narrow(enum precision precision, const struct op_case *c, struct op_args *args) {
    bool changed = precision == PRECISION_F32 || precision == PRECISION_INT8;
    precision_apply(precision, &c->op, args);
    if (c->op.kind == OP_REORDER && narrow_dtype(precision))
        args->desc[c->variant ? ARG_SRC : ARG_DST] = tensor_desc_dense(narrow_dtype(precision), &c->src);
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++)
        changed = changed || (args->direction[arg] != ARG_ABSENT && is_narrow(args->desc[arg].dtype));
    return changed;
}

/* The same inputs, but results that are not rounded: what the tested device's rounded ones are measured by. */
static struct kernel_request unrounded(const struct kernel_request *request) {
    struct kernel_request wide = *request;
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT && !op_is_int8(&request->op); arg++)
        if (wide.args.direction[arg] == ARG_OUT && is_narrow(wide.args.desc[arg].dtype))
            wide.args.desc[arg] = tensor_desc_dense(DTYPE_F32, &wide.args.desc[arg].shape);
    return wide;
}

static bool convolution_request(const struct shape *shape, enum precision precision, struct kernel_request *out) {
    struct window window = {{3, 3}, {1, 1}, {1, 1}, {1, 1}};
    *out = (struct kernel_request){
        .op = {OP_CONV2D, .conv2d = {.channels_out = shape->dims[1], .window = window, .groups = 1}},
        .pass = PASS_FORWARD};
    if (shape->rank != 4 || !op_arguments(&out->op, out->pass, shape, &out->args, NULL))
        return false;
    precision_apply(precision, &out->op, &out->args);
    return true;
}

static bool int8_convolution_request(const struct tensor_desc *desc, struct kernel_request *out) {
    if (!convolution_request(&desc->shape, PRECISION_INT8, out))
        return false;
    out->op.conv2d.int8 = (struct conv2d_int8){.src = desc->dtype, .dst = desc->dtype};
    out->pass = PASS_INFER;
    return op_arguments(&out->op, out->pass, &desc->shape, &out->args, NULL);
}

bool conformance_supports(const struct conformance *conformance, enum precision precision) {
    struct shape shape = shape_of(4, 1, 16, 8, 8);
    struct kernel_request request;
    struct device_info info;
    conformance->tested->ops->info(conformance->tested, &info);
    if (precision == PRECISION_INT8)
        return info.int8_weight_bits > 0;
    return convolution_request(&shape, precision, &request) &&
           conformance->tested->ops->supports(conformance->tested, &request);
}

/* --- layouts, chosen as a plan would --- */

/* The layout in which a 3x3 convolution likes to leave such a tensor: what elementwise kinds meet. */
static const struct layout *usual_layout(struct device *device, const struct tensor_desc *desc) {
    struct kernel_request request;
    bool integers = desc->dtype == DTYPE_U8 || desc->dtype == DTYPE_S8;
    enum precision precision = desc->dtype == DTYPE_BF16  ? PRECISION_BF16
                               : desc->dtype == DTYPE_F16 ? PRECISION_F16
                                                          : PRECISION_F32;
    if (!(integers ? int8_convolution_request(desc, &request) : convolution_request(&desc->shape, precision, &request)))
        return NULL;
    request.args.desc[ARG_SRC].layout = LAYOUT_ANY;
    request.args.desc[ARG_WEIGHT].layout = LAYOUT_ANY;
    request.args.desc[ARG_DST].layout = LAYOUT_ANY;
    struct kernel *kernel = kernel_prepare(device, &request, NULL);
    const struct layout *layout = kernel ? kernel->args.desc[ARG_DST].layout : NULL;
    kernel_release(kernel);
    return layout;
}

/* Backward, tensors come in the layouts that the forward pass left them in; gradients, in those of their
 * tensors. */
static const struct tensor_desc *forward_desc(const struct side *side, enum arg arg) {
    bool has_dst = side->forward.direction[ARG_DST] != ARG_ABSENT; /* sums have none, and gradients of their source's shape */
    enum arg same = arg == ARG_DIFF_DST                           ? (has_dst ? ARG_DST : ARG_SRC)
                    : arg == ARG_DIFF_SRC || arg == ARG_DIFF_SRC2 ? ARG_SRC
                                                                  : arg;
    return &side->forward.desc[same];
}

static void choose_layouts(const struct side *side, struct kernel_request *request) {
    bool chooses = op_chooses_layout(&request->op), backward = request->pass >= PASS_BACKWARD_DATA;
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        struct tensor_desc *desc = &request->args.desc[arg];
        enum arg_direction direction = request->args.direction[arg];
        if (direction == ARG_ABSENT || desc->shape.rank < 2 || arg == ARG_SUMS)
            continue;
        bool any = chooses || (direction == ARG_OUT && !(backward && side->mode->fixed_gradients));
        if (any)
            desc->layout = LAYOUT_ANY;
        else if (backward)
            *desc = *forward_desc(side, (enum arg)arg);
        else
            desc->layout = usual_layout(side->device, desc);
    }
}

/* --- running --- */

/* Runs one pass on one side; outputs go to tensors. */
static bool run_pass(struct side *side, struct kernel_request request, struct tensor tensors[ARG_COUNT],
                     struct device_run *run, struct error *err) {
    if (side->mode->preferred_layouts)
        choose_layouts(side, &request);
    *run = (struct device_run){.device = side->device, .request = &request, .in_place = side->mode->in_place};
    if (!device_run(run, tensors, &side->workspace, err))
        return false;
    if (request.pass == PASS_FORWARD)
        side->forward = run->prepared;
    return true;
}

/* The oracle's results: the forward pass's are what every backward pass starts from. */
struct truth {
    const struct op_case *c;
    enum precision precision;
    struct shape inputs[OP_MAX_INPUTS];
    struct tensor forward[ARG_COUNT];
    struct tensor unrounded[ARG_COUNT]; /* of an operation on integers with a narrow dst: the same with an f32 one */
};

/* Fresh inputs of a pass: random ones, and what the oracle's forward pass computed. */
static bool make_inputs(const struct truth *truth, const struct kernel_request *request,
                        struct tensor tensors[ARG_COUNT], struct error *err) {
    static const enum arg kept[] = {ARG_DST, ARG_SAVED_MEAN, ARG_SAVED_VARIANCE};
    if (!host_tensors_init(tensors, &request->args, err))
        return false;
    inputs_fill(truth->c, &request->args, SEED, tensors);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        bool was_kept = request->args.direction[kept[i]] == ARG_IN && truth->forward[kept[i]].data;
        for (int64_t k = 0; was_kept && k < shape_count(&tensors[kept[i]].shape); k++)
            host_set(&tensors[kept[i]], k, host_get(&truth->forward[kept[i]], k));
    }
    return true;
}

/* --- comparing --- */

/* max |a - b| / max |b|, where each element may be `rounding` of its size away for free; infinite where one has a NaN or infinity
 * that the other has not. */
static double relative_error(const struct tensor *a, const struct tensor *b, double rounding) {
    double difference = 0, most = 0;
    for (int64_t i = 0; i < shape_count(&b->shape); i++) {
        double x = host_get(a, i), y = host_get(b, i);
        if (x == y || (isnan(x) && isnan(y)))
            x = y = isfinite(y) ? y : 0;
        if (!isfinite(x) || !isfinite(y))
            return INFINITY;
        difference = fmax(difference, fabs(x - y) - rounding * fabs(y));
        most = fmax(most, fabs(y));
    }
    return difference == 0 ? 0 : difference / fmax(most, 1e-30);
}

/* bf16 has eight significant bits, f16 eleven: the nearest number is at most 2^-8 or 2^-11 of it away. */
static double step_of(enum dtype dtype) {
    return dtype == DTYPE_BF16 ? ldexp(1, -8) : dtype == DTYPE_F16 ? ldexp(1, -11) : 0;
}

/* What rounding an element of an output to its dtype may cost; f16 loses more below its smallest normal number. */
static double rounding_of(const struct conformance *conformance, enum dtype dtype) {
    return conformance->exact ? 0 : step_of(dtype);
}

/* oneDNN adds up the gradients of the windows that a pixel won in bf16 itself: a rounding for each but the first. */
static double sum_rounding(enum precision precision, const struct kernel_request *request) {
    const struct window *w = &request->op.max_pool;
    int windows = 1;
    if (precision != PRECISION_BF16 || request->op.kind != OP_MAX_POOL || request->pass != PASS_BACKWARD_DATA)
        return 0;
    for (int i = 0; i < 2; i++)
        windows *= (w->kernel[i] + w->stride[i] - 1) / w->stride[i];
    return (windows - 1) * ldexp(1, -8);
}

/*
 * Devices that round what a convolution sums (device_info.rounds_sums): of the largest gradient of a weight, one step; behind a
 * bias or residual two of the largest result, for what is rounded may be larger than what is left.
 */
static double early_rounding(const struct conformance *conformance, enum precision precision,
                             const struct kernel_request *request) {
    const struct conv2d *conv = &request->op.conv2d;
    bool adds = request->pass <= PASS_FORWARD && (conv->bias || conv->residual);
    struct device_info info;
    conformance->tested->ops->info(conformance->tested, &info);
    if (request->op.kind != OP_CONV2D || !info.rounds_sums)
        return 0;
    return (adds ? 2 : request->pass == PASS_BACKWARD_WEIGHT) * step_of(narrow_dtype(precision));
}

/* Pictures are the same everywhere, or a run on one device cannot be compared with a run on another. */
static double allowed(const struct conformance *conformance, const struct truth *truth, const struct kernel_request *request) {
    if (conformance->exact || request->op.kind == OP_VARY)
        return 0;
    return (request->pass == PASS_BACKWARD_WEIGHT ? tolerance_backward_weight : tolerance) +
           sum_rounding(truth->precision, request) + early_rounding(conformance, truth->precision, request);
}

static struct conformance_worst *worst_of(struct conformance *conformance, const struct truth *truth,
                                          const struct kernel_request *request) {
    return &conformance->worst[truth->precision][request->op.kind][request->pass];
}

static void note(struct conformance_worst *worst, const struct truth *truth, enum arg arg, double error,
                 const char *by) {
    char shape[SHAPE_TEXT_SIZE], text[96];
    worst->error = error;
    worst->arg = arg;
    (void)text_copy(worst->implementation, sizeof worst->implementation, by);
    snprintf(worst->text, sizeof worst->text, "%s on %s", op_text(&truth->c->op, text, sizeof text),
             shape_text(&truth->c->src, shape));
}

/* 0 where all that differs is what a last bit in f32 explains. */
static double beyond_rounding(struct conformance_worst *worst, const struct tensor *got, const struct tensor *want,
                              const struct tensor *unrounded) {
    int64_t wrong = worst->rounding.wrong;
    rounding_compare(got, want, unrounded, &worst->rounding);
    return worst->rounding.wrong > wrong ? relative_error(got, want, 0) : 0;
}

static void compare(struct conformance *conformance, const struct truth *truth, const struct device_run *run,
                    const struct mode *mode, struct tensor got[ARG_COUNT], struct tensor want[ARG_COUNT]) {
    const struct kernel_request *request = run->request;
    struct conformance_worst *worst = worst_of(conformance, truth, request);
    for (int arg = ARG_NONE + 1; arg < ARG_COUNT; arg++) {
        enum arg_direction direction = request->args.direction[arg];
        if ((direction != ARG_OUT && direction != ARG_INOUT) || arg == ARG_WORKSPACE)
            continue;
        double rounding = rounding_of(conformance, got[arg].dtype);
        double error = relative_error(&got[arg], &want[arg], rounding);
        if (truth->unrounded[arg].data && !conformance->exact)
            error = beyond_rounding(worst, &got[arg], &want[arg], &truth->unrounded[arg]);
        if (error > worst->error || worst->arg == ARG_NONE)
            note(worst, truth, (enum arg)arg, error, run->implementation);
        if (error > allowed(conformance, truth, request)) {
            char text[96], shape[SHAPE_TEXT_SIZE];
            worst->failures++;
            printf("FAIL %s %s on %s, %s, %s: %s differs by %.3g (%s)\n", precision_name(truth->precision),
                   op_text(&request->op, text, sizeof text), shape_text(&truth->c->src, shape),
                   pass_name(request->pass), mode->name, arg_name((enum arg)arg), error, run->implementation);
        }
    }
}

static void report_error(struct conformance *conformance, const struct truth *truth,
                         const struct kernel_request *request, const struct mode *mode,
                         const struct error *err) {
    char shape[SHAPE_TEXT_SIZE];
    worst_of(conformance, truth, request)->failures++;
    printf("FAIL %s on %s, %s, %s: %s\n", precision_name(truth->precision), shape_text(&truth->c->src, shape),
           pass_name(request->pass), mode->name, err->message);
}

/* One pass in one mode on the tested device, compared with what the oracle made of it. */
static bool check_pass(struct conformance *conformance, const struct truth *truth, struct side *side,
                       const struct kernel_request *request, struct tensor want[ARG_COUNT],
                       struct error *err) {
    struct tensor got[ARG_COUNT];
    struct error failure = {0};
    struct device_run run;
    if (!make_inputs(truth, request, got, err))
        return false;
    struct conformance_worst *worst = worst_of(conformance, truth, request);
    if (run_pass(side, *request, got, &run, &failure)) {
        run.request = request;
        worst->runs++;
        worst->in_place += run.shared;
        compare(conformance, truth, &run, side->mode, got, want);
    } else {
        report_error(conformance, truth, request, side->mode, &failure);
    }
    host_tensors_fini(got);
    return true;
}

/* --- a case --- */

enum { MODE_COUNT = sizeof modes / sizeof *modes };

/* False where the operation is none on integers, or its dst not narrower than f32. */
static bool leave_unrounded(struct op *op) {
    enum dtype *dst = op->kind == OP_CONV2D ? &op->conv2d.int8.dst : op->kind == OP_RESCALE ? &op->rescale.dst : NULL;
    bool narrow = op_is_int8(op) && dst && *dst != DTYPE_F32;
    if (narrow)
        *dst = DTYPE_F32;
    return narrow;
}

static bool run_unrounded(struct truth *truth, struct side *oracle, const struct kernel_request *request, struct error *err) {
    struct kernel_request wide = *request;
    struct device_run run;
    return !leave_unrounded(&wide.op) ||
           (op_arguments(&wide.op, wide.pass, truth->inputs, &wide.args, err) &&
            make_inputs(truth, &wide, truth->unrounded, err) && run_pass(oracle, wide, truth->unrounded, &run, err));
}

static bool check_pass_in_all_modes(struct conformance *conformance, struct truth *truth, struct side *oracle,
                                    struct side sides[MODE_COUNT], const struct kernel_request *request,
                                    struct error *err) {
    struct tensor want[ARG_COUNT];
    struct device_run run;
    const struct kernel_request exact = conformance->exact ? *request : unrounded(request);
    if (!make_inputs(truth, &exact, want, err))
        return false;
    bool ok = run_pass(oracle, exact, want, &run, err) && run_unrounded(truth, oracle, request, err);
    for (int i = 0; ok && i < MODE_COUNT; i++)
        ok = check_pass(conformance, truth, &sides[i], request, want, err);
    if (ok && request->pass == PASS_FORWARD)
        memcpy(truth->forward, want, sizeof want);
    else
        host_tensors_fini(want);
    return ok;
}

/* On CPUs the loader varies pictures: their devices need not. */
static bool is_left_out(const struct conformance *conformance, const struct kernel_request *request) {
    struct device_info info;
    conformance->tested->ops->info(conformance->tested, &info);
    return request->op.kind == OP_VARY && info.host_memory && !conformance->tested->ops->supports(conformance->tested, request);
}

bool conformance_case(struct conformance *conformance, enum precision precision, const struct op_case *c, struct error *err) {
    struct truth truth = {.c = c, .precision = precision};
    struct side oracle = {.device = conformance->oracle, .mode = &oracle_mode}, sides[MODE_COUNT] = {0};
    bool ok = case_inputs(c, truth.inputs, err);
    for (int i = 0; i < MODE_COUNT; i++)
        sides[i] = (struct side){.device = conformance->tested, .mode = &modes[i]};
    for (enum pass pass = 0; ok && pass < PASS_COUNT; pass++) {
        struct kernel_request request = {.op = c->op, .pass = pass};
        struct error why = {0};
        if (op_arguments(&c->op, pass, truth.inputs, &request.args, &why))
            ok = !narrow(precision, c, &request.args) || is_left_out(conformance, &request) ||
                 check_pass_in_all_modes(conformance, &truth, &oracle, sides, &request, err);
        else if (why.code != ERROR_UNSUPPORTED)
            ok = error_set(err, why.code, "%s", why.message);
    }
    for (int i = 0; i < MODE_COUNT; i++)
        workspace_fini(&sides[i].workspace, conformance->tested);
    workspace_fini(&oracle.workspace, conformance->oracle);
    host_tensors_fini(truth.forward);
    host_tensors_fini(truth.unrounded);
    return ok;
}

static int report_line(const struct conformance *conformance, enum precision precision, enum op_kind kind, enum pass pass) {
    const struct conformance_worst *w = &conformance->worst[precision][kind][pass];
    if (w->runs > 0 || w->failures > 0)
        printf("%-22s %-16s %-5s %5d %9d %6d %9.2e  %s: %s (%s)\n", op_kind_name(kind), pass_name(pass),
               precision_name(precision), w->runs, w->in_place, w->failures, w->error, arg_name(w->arg), w->text,
               w->implementation);
    if (w->rounding.elements)
        printf("    %lld of %lld elements rounded to another step, %lld of them far from its edge\n",
               (long long)w->rounding.differing, (long long)w->rounding.elements, (long long)w->rounding.wrong);
    return w->failures;
}

int conformance_report(const struct conformance *conformance) {
    int failures = 0;
    printf("%-22s %-16s %-5s %5s %9s %6s %9s  %s\n", "operation", "pass", "in", "runs", "in place", "failed", "worst", "where");
    for (int kind = 0; kind < OP_KIND_COUNT; kind++)
        for (int pass = 0; pass < PASS_COUNT; pass++)
            for (int precision = 0; precision < PRECISION_COUNT; precision++)
                failures += report_line(conformance, (enum precision)precision, (enum op_kind)kind, (enum pass)pass);
    return failures;
}
