#include "common/tensor/element.h"
#include "tests/emulation/emulation.h"

#include <cublas_v2.h>
#include <stdlib.h>

/* cuBLAS in plain loops: matrices by columns, products summed in double. */

struct cublasContext {
    int device;
    cudaStream_t stream;
    struct emulation_range workspace; /* 0 bytes: cuBLAS's own */
    cublasMath_t math;
};

/* The memory of a destroyed handle stays: no later one may look like it. */
static const char KIND[] = "cublasHandle_t";

static bool check(cublasHandle_t handle, const char *who) {
    int current = 0;
    if (!emulation_handle_check(KIND, handle, who) || cudaGetDevice(&current) != cudaSuccess)
        return false;
    if (current == handle->device)
        return true;
    emulation_finding("%s: a handle of device %d while device %d is current", who, handle->device, current);
    return false;
}

/* --- handles --- */

cublasStatus_t cublasCreate_v2(cublasHandle_t *out) {
    emulation_note(EMULATION_HANDLE, "cublasCreate");
    struct cublasContext *handle = calloc(1, sizeof *handle);
    if (!handle || cudaGetDevice(&handle->device) != cudaSuccess) {
        free(handle);
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    emulation_handle_add(KIND, handle);
    *out = handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    emulation_note(EMULATION_HANDLE, "cublasDestroy");
    return emulation_handle_remove(KIND, handle, "cublasDestroy") ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    if (!check(handle, "cublasSetStream") || emulation_stream_device(stream, "cublasSetStream") != handle->device)
        return CUBLAS_STATUS_INVALID_VALUE;
    handle->stream = stream;
    handle->workspace = (struct emulation_range){0}; /* as documented: back to cuBLAS's own */
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void *workspace, size_t bytes) {
    struct emulation_range range = {workspace, bytes, true};
    if (!check(handle, "cublasSetWorkspace") || !emulation_check_range(handle->device, "cublasSetWorkspace", &range) ||
        !emulation_check_alignment("cublasSetWorkspace", workspace, 256))
        return CUBLAS_STATUS_INVALID_VALUE;
    handle->workspace = range;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t math) {
    if (!check(handle, "cublasSetMathMode"))
        return CUBLAS_STATUS_INVALID_VALUE;
    handle->math = math;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int *version) {
    *version = CUBLAS_VERSION;
    return check(handle, "cublasGetVersion") ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

const char *cublasGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "the operation completed successfully";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the GPU program failed to execute";
    default:
        return "unknown error";
    }
}

/* --- products --- */

struct matrix {
    void *data;
    enum dtype dtype;
    int rows, columns, leading; /* as it is stored */
    bool transposed;
};

struct product {
    struct matrix a, b, c;
    int depth;
    double alpha, beta;
};

static double entry(const struct matrix *m, int row, int column) {
    int64_t at = m->transposed ? (int64_t)row * m->leading + column : (int64_t)column * m->leading + row;
    return element_load(m->data, m->dtype, at);
}

/** The operand as (outer, depth), so that sums run along it; `of_rows`: outer counts the rows of op(m). NULL: no memory. */
static double *along_depth(const struct matrix *m, int outer, int depth, bool of_rows) {
    double *out = malloc((size_t)outer * (size_t)depth * sizeof *out);
    for (int i = 0; out && i < outer; i++)
        for (int p = 0; p < depth; p++)
            out[(size_t)i * (size_t)depth + (size_t)p] = of_rows ? entry(m, i, p) : entry(m, p, i);
    return out;
}

static void run_product(void *argument) {
    const struct product *p = argument;
    struct matrix c = p->c;
    double *a = along_depth(&p->a, c.rows, p->depth, true), *b = along_depth(&p->b, c.columns, p->depth, false);
    if (!a || !b)
        abort();
    for (int j = 0; j < c.columns; j++)
        for (int i = 0; i < c.rows; i++) {
            int64_t at = (int64_t)j * c.leading + i;
            double sum = 0;
            for (int d = 0; d < p->depth; d++)
                sum += a[(size_t)i * (size_t)p->depth + (size_t)d] * b[(size_t)j * (size_t)p->depth + (size_t)d];
            double before = p->beta != 0 ? p->beta * element_load(c.data, c.dtype, at) : 0;
            element_store(c.data, c.dtype, at, p->alpha * sum + before);
        }
    free(a);
    free(b);
}

static struct emulation_range range_of(const struct matrix *m, bool written) {
    size_t elements = (size_t)m->leading * (size_t)(m->columns - 1) + (size_t)m->rows;
    return (struct emulation_range){m->data, elements * dtype_size(m->dtype), written};
}

static bool overlap(const struct emulation_range *a, const struct emulation_range *b) {
    const char *p = a->memory, *q = b->memory;
    return p < q + b->bytes && q < p + a->bytes;
}

static bool matrix_is_right(const struct matrix *m, const char *name, const char *who) {
    if (m->rows <= 0 || m->columns <= 0 || m->leading < m->rows) {
        emulation_finding("%s: %s is %d x %d with %d from column to column", who, name, m->rows, m->columns, m->leading);
        return false;
    }
    return emulation_check_alignment(who, m->data, dtype_size(m->dtype));
}

static cublasStatus_t queue_product(cublasHandle_t handle, struct product *p, const char *who) {
    emulation_note(EMULATION_CUBLAS, who);
    if (!check(handle, who))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!p->a.dtype || !p->b.dtype || !p->c.dtype)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!matrix_is_right(&p->a, "A", who) || !matrix_is_right(&p->b, "B", who) || !matrix_is_right(&p->c, "C", who))
        return CUBLAS_STATUS_INVALID_VALUE;
    struct emulation_range ranges[] = {range_of(&p->a, false), range_of(&p->b, false), range_of(&p->c, true),
                                       handle->workspace};
    if (overlap(&ranges[2], &ranges[0]) || overlap(&ranges[2], &ranges[1]))
        emulation_finding("%s: C overlaps an operand", who);
    if (p->a.dtype == DTYPE_F32 && handle->math == CUBLAS_TF32_TENSOR_OP_MATH)
        emulation_note(EMULATION_MATH, "tf32");
    cudaError_t result = emulation_enqueue(handle->stream, who, ranges, 4, run_product, p, sizeof *p);
    return result == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

static struct matrix operand(cublasOperation_t operation, int rows, int columns, const void *data, enum dtype dtype,
                             int leading) {
    bool transposed = operation != CUBLAS_OP_N;
    return (struct matrix){.data = (void *)data,
                           .dtype = dtype,
                           .rows = transposed ? columns : rows,
                           .columns = transposed ? rows : columns,
                           .leading = leading,
                           .transposed = transposed};
}

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                              const float *alpha, const float *A, int lda, const float *B, int ldb, const float *beta,
                              float *C, int ldc) {
    struct product p = {.a = operand(transa, m, k, A, DTYPE_F32, lda),
                        .b = operand(transb, k, n, B, DTYPE_F32, ldb),
                        .c = operand(CUBLAS_OP_N, m, n, C, DTYPE_F32, ldc),
                        .depth = k,
                        .alpha = (double)*alpha,
                        .beta = (double)*beta};
    return queue_product(handle, &p, "cublasSgemm");
}

/**
 * s8 by s8 into s32, as documented: alpha and beta s32, A and B at multiples of 4 bytes from column to column. A transposed, B
 * not, and sizes in multiples of 4 are what tensor cores ask for: anything else would be slow, and here it is a finding.
 */
static cublasStatus_t queue_integer_product(cublasHandle_t handle, struct product *p, const char *who) {
    const struct matrix *operands[] = {&p->a, &p->b};
    for (int i = 0; i < 2; i++)
        if (operands[i]->leading % 4 != 0 || !emulation_check_alignment(who, operands[i]->data, 4))
            return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!p->a.transposed || p->b.transposed || p->c.rows % 4 != 0 || p->depth % 4 != 0)
        emulation_finding("%s: integers that no tensor core takes: %d x %d, depth %d", who, p->c.rows, p->c.columns, p->depth);
    return queue_product(handle, p, who);
}

static enum dtype dtype_of(cudaDataType type) {
    if (type == CUDA_R_8I || type == CUDA_R_32I)
        return type == CUDA_R_8I ? DTYPE_S8 : DTYPE_S32;
    return type == CUDA_R_32F ? DTYPE_F32 : type == CUDA_R_16F ? DTYPE_F16 : type == CUDA_R_16BF ? DTYPE_BF16 : DTYPE_NONE;
}

/** As cuBLAS: A and B of one type, C of that type or f32, sums in f32, whose alpha and beta are f32 too; or integers. */
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n, int k,
                            const void *alpha, const void *A, cudaDataType Atype, int lda, const void *B, cudaDataType Btype,
                            int ldb, const void *beta, void *C, cudaDataType Ctype, int ldc, cublasComputeType_t computeType,
                            cublasGemmAlgo_t algo) {
    (void)algo;
    bool in_f32 = computeType == CUBLAS_COMPUTE_32F || computeType == CUBLAS_COMPUTE_32F_PEDANTIC ||
                  computeType == CUBLAS_COMPUTE_32F_FAST_TF32;
    bool in_s32 = computeType == CUBLAS_COMPUTE_32I && Atype == CUDA_R_8I && Ctype == CUDA_R_32I;
    bool real = Atype != CUDA_R_8I && Atype != CUDA_R_32I;
    if (Atype != Btype || !(in_s32 || (in_f32 && real && (Ctype == Atype || Ctype == CUDA_R_32F))))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    struct product p = {.a = operand(transa, m, k, A, dtype_of(Atype), lda),
                        .b = operand(transb, k, n, B, dtype_of(Btype), ldb),
                        .c = operand(CUBLAS_OP_N, m, n, C, dtype_of(Ctype), ldc),
                        .depth = k,
                        .alpha = in_s32 ? *(const int32_t *)alpha : (double)*(const float *)alpha,
                        .beta = in_s32 ? *(const int32_t *)beta : (double)*(const float *)beta};
    return (in_s32 ? queue_integer_product : queue_product)(handle, &p, "cublasGemmEx");
}
