#include "tests/emulation/child.h"
#include "tests/emulation/emulation.h"

#include <cublas_v2.h>
#include <cudnn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The emulated cuBLAS and cuDNN: small sums that can be checked by hand, and that each of their checks fires. */

enum { IMAGE = 5, FILTER = 3, MEMORY_BYTES = 4096 };

static void dnn_ok(cudnnStatus_t status) {
    child_require(status == CUDNN_STATUS_SUCCESS, cudnnGetErrorString(status));
}

static void ok(cudaError_t result) {
    child_require(result == cudaSuccess, cudaGetErrorString(result));
}

/** A convolution of one 5 x 5 image with one 3 x 3 filter of ones, without padding: 3 x 3 sums of nine. */
struct fixture {
    cudaStream_t stream;
    cudnnHandle_t handle;
    cudnnTensorDescriptor_t x_view, y_view;
    cudnnFilterDescriptor_t w_view;
    cudnnConvolutionDescriptor_t convolution;
    void *x, *w, *y, *workspace;
    size_t workspace_bytes;
};

static void *filled(float value) {
    float host[MEMORY_BYTES / sizeof(float)];
    void *memory;
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        host[i] = value;
    ok(cudaMalloc(&memory, sizeof host));
    ok(cudaMemcpy(memory, host, sizeof host, cudaMemcpyHostToDevice));
    return memory;
}

static struct fixture set_up(void) {
    struct fixture f = {
        .x = filled(2), .w = filled(1), .y = filled(0), .workspace = filled(0), .workspace_bytes = MEMORY_BYTES};
    int out = IMAGE - FILTER + 1;
    ok(cudaStreamCreateWithFlags(&f.stream, cudaStreamNonBlocking));
    dnn_ok(cudnnCreate(&f.handle));
    dnn_ok(cudnnSetStream(f.handle, f.stream));
    dnn_ok(cudnnCreateTensorDescriptor(&f.x_view));
    dnn_ok(cudnnCreateTensorDescriptor(&f.y_view));
    dnn_ok(cudnnCreateFilterDescriptor(&f.w_view));
    dnn_ok(cudnnCreateConvolutionDescriptor(&f.convolution));
    dnn_ok(cudnnSetTensor4dDescriptor(f.x_view, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, IMAGE, IMAGE));
    dnn_ok(cudnnSetTensor4dDescriptor(f.y_view, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, out, out));
    dnn_ok(cudnnSetFilter4dDescriptor(f.w_view, CUDNN_DATA_FLOAT, CUDNN_TENSOR_NCHW, 1, 1, FILTER, FILTER));
    dnn_ok(cudnnSetConvolution2dDescriptor(f.convolution, 0, 0, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    return f;
}

static void tear_down(struct fixture *f) {
    ok(cudaStreamSynchronize(f->stream));
    dnn_ok(cudnnDestroyTensorDescriptor(f->x_view));
    dnn_ok(cudnnDestroyTensorDescriptor(f->y_view));
    dnn_ok(cudnnDestroyFilterDescriptor(f->w_view));
    dnn_ok(cudnnDestroyConvolutionDescriptor(f->convolution));
    dnn_ok(cudnnDestroy(f->handle));
    ok(cudaStreamDestroy(f->stream));
    void *const all[] = {f->x, f->w, f->y, f->workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ok(cudaFree(all[i]));
}

static cudnnStatus_t convolve(struct fixture *f, cudnnConvolutionFwdAlgo_t algorithm, float beta) {
    const float one = 1;
    return cudnnConvolutionForward(f->handle, &one, f->x_view, f->x, f->w_view, f->w, f->convolution, algorithm, f->workspace,
                                   f->workspace_bytes, &beta, f->y_view, f->y);
}

static float first_of(struct fixture *f, const void *memory) {
    float value;
    ok(cudaMemcpyAsync(&value, memory, sizeof value, cudaMemcpyDeviceToHost, f->stream));
    ok(cudaStreamSynchronize(f->stream));
    return value;
}

/* --- what is right --- */

static void sum_by_hand(void) {
    struct fixture f = set_up();
    const float one = 1, zero = 0;
    dnn_ok(convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0));
    child_require(first_of(&f, f.y) == 18, "nine twos");
    dnn_ok(convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, 1));
    child_require(first_of(&f, f.y) == 36, "and once more, added");
    dnn_ok(cudnnConvolutionBackwardData(f.handle, &one, f.w_view, f.w, f.y_view, f.y, f.convolution,
                                        CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, f.workspace, f.workspace_bytes, &zero, f.x_view,
                                        f.x));
    child_require(first_of(&f, f.x) == 36, "the corner is seen once");
    dnn_ok(cudnnConvolutionBackwardFilter(f.handle, &one, f.x_view, f.x, f.y_view, f.y, f.convolution,
                                          CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, f.workspace, f.workspace_bytes, &zero,
                                          f.w_view, f.w));
    /* The image is 36 times how many windows see a pixel: (1 2 3) x (1 2 3) there, so 36 * 36 * 36. */
    child_require(first_of(&f, f.w) == 36 * 36 * 36, "the first tap meets nine pixels");
    tear_down(&f);
}

static void sum_in_bf16_with_bias(void) {
    struct fixture f = set_up();
    const float one = 1;
    uint16_t result;
    cudnnTensorDescriptor_t bias;
    cudnnActivationDescriptor_t relu;
    int out = IMAGE - FILTER + 1;
    dnn_ok(cudnnCreateTensorDescriptor(&bias));
    dnn_ok(cudnnCreateActivationDescriptor(&relu));
    dnn_ok(cudnnSetActivationDescriptor(relu, CUDNN_ACTIVATION_RELU, CUDNN_NOT_PROPAGATE_NAN, 0));
    dnn_ok(cudnnSetTensor4dDescriptor(bias, CUDNN_TENSOR_NHWC, CUDNN_DATA_BFLOAT16, 1, 1, 1, 1));
    dnn_ok(cudnnSetTensor4dDescriptor(f.x_view, CUDNN_TENSOR_NHWC, CUDNN_DATA_BFLOAT16, 1, 1, IMAGE, IMAGE));
    dnn_ok(cudnnSetTensor4dDescriptor(f.y_view, CUDNN_TENSOR_NHWC, CUDNN_DATA_BFLOAT16, 1, 1, out, out));
    dnn_ok(cudnnSetFilter4dDescriptor(f.w_view, CUDNN_DATA_BFLOAT16, CUDNN_TENSOR_NHWC, 1, 1, FILTER, FILTER));
    ok(cudaMemsetAsync(f.x, 0x40, MEMORY_BYTES, f.stream)); /* 0x4040 is 3 */
    ok(cudaMemsetAsync(f.w, 0x40, MEMORY_BYTES, f.stream));
    dnn_ok(cudnnConvolutionBiasActivationForward(f.handle, &one, f.x_view, f.x, f.w_view, f.w, f.convolution,
                                                 CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, f.workspace,
                                                 f.workspace_bytes, &one, f.y_view, f.y, bias, f.w, relu, f.y_view, f.y));
    ok(cudaMemcpyAsync(&result, f.y, sizeof result, cudaMemcpyDeviceToHost, f.stream));
    ok(cudaStreamSynchronize(f.stream));
    child_require(result == 0x42A8, "81 + 0 + 3 = 84 in bf16");
    dnn_ok(cudnnDestroyTensorDescriptor(bias));
    dnn_ok(cudnnDestroyActivationDescriptor(relu));
    tear_down(&f);
}

static void multiply(void) {
    cublasHandle_t handle;
    float *a = filled(2), *b = filled(3), *c = filled(1), host[4];
    const float one = 1, half = 0.5f;
    child_require(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate");
    child_require(cublasSgemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, 2, 2, 5, &one, a, 5, b, 5, &half, c, 2) ==
                      CUBLAS_STATUS_SUCCESS,
                  "sgemm");
    ok(cudaMemcpy(host, c, sizeof host, cudaMemcpyDeviceToHost));
    child_require(host[0] == 30.5f && host[3] == 30.5f, "5 * 6 + 0.5");
    child_require(cublasDestroy(handle) == CUBLAS_STATUS_SUCCESS, "cublasDestroy");
    ok(cudaFree(a));
    ok(cudaFree(b));
    ok(cudaFree(c));
}

/** a (4, 8) of 127 and -128 by turns, b (8, 1) of -128: what s16 would not hold, and f32 neither beyond 2^24. */
static void fill_bytes(int8_t *a, int8_t *b) {
    int8_t rows[4][8], column[8];
    for (int i = 0; i < 4; i++)
        memset(rows[i], i % 2 ? 127 : -128, sizeof rows[i]);
    memset(column, -128, sizeof column);
    ok(cudaMemcpy(a, rows, sizeof rows, cudaMemcpyHostToDevice));
    ok(cudaMemcpy(b, column, sizeof column, cudaMemcpyHostToDevice));
}

/** With so many bytes from column to column, and A transposed or not. */
static cublasStatus_t multiply_bytes(int leading, cublasOperation_t operation, int shift, int32_t out[4]) {
    cublasHandle_t handle;
    float *a = filled(0), *b = filled(0), *c = filled(0);
    const int32_t one = 1, zero = 0;
    fill_bytes((int8_t *)a, (int8_t *)b);
    child_require(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate");
    cublasStatus_t status = cublasGemmEx(handle, operation, CUBLAS_OP_N, 4, 1, 8, &one, (int8_t *)a + shift, CUDA_R_8I, leading,
                                         b, CUDA_R_8I, 8, &zero, c, CUDA_R_32I, 4, CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT);
    ok(cudaMemcpy(out, c, sizeof(int32_t[4]), cudaMemcpyDeviceToHost));
    child_require(cublasDestroy(handle) == CUBLAS_STATUS_SUCCESS, "cublasDestroy");
    ok(cudaFree(a));
    ok(cudaFree(b));
    ok(cudaFree(c));
    return status;
}

static void multiply_integers(void) {
    int32_t out[4];
    child_require(multiply_bytes(8, CUBLAS_OP_T, 0, out) == CUBLAS_STATUS_SUCCESS, "gemm of integers");
    child_require(out[0] == 8 * 128 * 128 && out[1] == -8 * 127 * 128, "8 * (-128 * -128), 8 * (127 * -128)");
}

static void step_by_odd_bytes(void) {
    int32_t out[4];
    child_require(multiply_bytes(10, CUBLAS_OP_T, 0, out) == CUBLAS_STATUS_NOT_SUPPORTED, "10 bytes from column to column");
}

static void misalign_integers(void) {
    int32_t out[4];
    multiply_bytes(8, CUBLAS_OP_T, 2, out);
}

static void multiply_untransposed(void) {
    int32_t out[4];
    multiply_bytes(8, CUBLAS_OP_N, 0, out);
}

static void products_of_integers_are_exact_and_aligned(void **state) {
    (void)state;
    assert_clean(multiply_integers);
    assert_clean(step_by_odd_bytes);
    assert_found(misalign_integers, "cublasGemmEx");
    assert_found(multiply_untransposed, "integers that no tensor core takes");
}

static void sums_are_right(void **state) {
    (void)state;
    assert_clean(sum_by_hand);
    assert_clean(sum_in_bf16_with_bias);
    assert_clean(multiply);
}

static void list_algorithms(void) {
    cudnnConvolutionBwdFilterAlgoPerf_t rows[8];
    int count = 0;
    struct fixture f = set_up();
    dnn_ok(cudnnSetConvolution2dDescriptor(f.convolution, 0, 0, 1, 1, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    dnn_ok(cudnnGetConvolutionBackwardFilterAlgorithm_v7(f.handle, f.x_view, f.y_view, f.convolution, f.w_view, 8, &count,
                                                         rows));
    child_require(count == 3 && rows[0].algo == CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0, "the fastest first");
    child_require(rows[0].determinism == CUDNN_NON_DETERMINISTIC && rows[2].determinism == CUDNN_DETERMINISTIC,
                  "determinism");
    tear_down(&f);
}

/* All that fit into the workspace, by times that rise; the result is overwritten, and there when the call returns. */
static void measure_algorithms(void) {
    cudnnConvolutionFwdAlgoPerf_t rows[8];
    struct fixture f = set_up();
    int count = 0;
    dnn_ok(cudnnFindConvolutionForwardAlgorithmEx(f.handle, f.x_view, f.x, f.w_view, f.w, f.convolution, f.y_view, f.y, 8,
                                                  &count, rows, f.workspace, f.workspace_bytes));
    child_require(count == 4 && rows[0].algo == CUDNN_CONVOLUTION_FWD_ALGO_GEMM, "not what the heuristics say");
    for (int i = 1; i < count; i++)
        child_require(rows[i].time > rows[i - 1].time && rows[i].status == CUDNN_STATUS_SUCCESS, "times");
    child_require(first_of(&f, f.y) == 18, "nine twos");
    dnn_ok(cudnnFindConvolutionForwardAlgorithmEx(f.handle, f.x_view, f.x, f.w_view, f.w, f.convolution, f.y_view, f.y, 8,
                                                  &count, rows, NULL, 0));
    child_require(rows[0].algo == CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, "the one that needs no workspace");
    child_require(rows[1].status == CUDNN_STATUS_ALLOC_FAILED, "no workspace");
    tear_down(&f);
}

static void algorithms_are_listed(void **state) {
    (void)state;
    assert_clean(list_algorithms);
    assert_clean(measure_algorithms);
}

/* --- what is not --- */

static void say_wrong_result(void) {
    struct fixture f = set_up();
    dnn_ok(cudnnSetTensor4dDescriptor(f.y_view, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, IMAGE, IMAGE));
    child_require(convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0) == CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                  "status");
}

static void say_wrong_groups(void) {
    struct fixture f = set_up();
    dnn_ok(cudnnSetConvolutionGroupCount(f.convolution, 2));
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0);
}

static void mix_types(void) {
    struct fixture f = set_up();
    dnn_ok(cudnnSetFilter4dDescriptor(f.w_view, CUDNN_DATA_HALF, CUDNN_TENSOR_NCHW, 1, 1, FILTER, FILTER));
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0);
}

static void set_nothing(void) {
    struct fixture f = set_up();
    dnn_ok(cudnnCreateTensorDescriptor(&f.x_view));
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0);
}

static void set_nonsense(void) {
    struct fixture f = set_up();
    cudnnSetTensor4dDescriptor(f.x_view, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 0, IMAGE, IMAGE);
}

static void bring_little_workspace(void) {
    struct fixture f = set_up();
    f.workspace_bytes = 16;
    child_require(convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, 0) ==
                      CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT,
                  "status");
}

static void overstate_workspace(void) {
    struct fixture f = set_up();
    f.workspace_bytes = 2 * MEMORY_BYTES;
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, 0);
}

static void take_wrong_algorithm(void) {
    struct fixture f = set_up();
    dnn_ok(cudnnSetConvolution2dDescriptor(f.convolution, 0, 0, 2, 2, 1, 1, CUDNN_CROSS_CORRELATION, CUDNN_DATA_FLOAT));
    dnn_ok(cudnnSetTensor4dDescriptor(f.y_view, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, 2, 2));
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, 0);
}

static void overlay(void) {
    struct fixture f = set_up();
    f.y = f.x;
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0);
}

static void hand_nans_on(void) {
    struct fixture f = set_up();
    const float one = 1;
    cudnnTensorDescriptor_t bias;
    cudnnActivationDescriptor_t relu;
    dnn_ok(cudnnCreateTensorDescriptor(&bias));
    dnn_ok(cudnnSetTensor4dDescriptor(bias, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, 1, 1, 1, 1));
    dnn_ok(cudnnCreateActivationDescriptor(&relu));
    dnn_ok(cudnnSetActivationDescriptor(relu, CUDNN_ACTIVATION_RELU, CUDNN_PROPAGATE_NAN, 0));
    cudnnConvolutionBiasActivationForward(f.handle, &one, f.x_view, f.x, f.w_view, f.w, f.convolution,
                                          CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM, f.workspace, f.workspace_bytes,
                                          &one, f.y_view, f.y, bias, f.w, relu, f.y_view, f.y);
}

static void use_destroyed(void) {
    struct fixture f = set_up();
    dnn_ok(cudnnDestroyTensorDescriptor(f.y_view));
    convolve(&f, CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM, 0);
}

static void convolutions_that_cannot_be_are_found(void **state) {
    (void)state;
    assert_found(say_wrong_result, "height or width does not follow");
    assert_found(say_wrong_groups, "the groups do not divide the channels");
    assert_found(mix_types, "does not do this combination of types or layouts");
    assert_found(set_nothing, "that was never set");
    assert_found(set_nonsense, "sizes, types or modes that cuDNN does not take");
    assert_found(bring_little_workspace, "a workspace of 16 bytes where algorithm 1 needs");
    assert_found(overstate_workspace, "out of bounds");
    assert_found(take_wrong_algorithm, "algorithm 6 does not do this convolution");
    assert_found(hand_nans_on, "does not do this combination");
    assert_found(overlay, "the result overlaps an argument");
    assert_found(use_destroyed, "is no cudnnTensorDescriptor_t, or it was destroyed");
}

static void leak_descriptor(void) {
    struct fixture f = set_up();
    cudnnTensorDescriptor_t more;
    dnn_ok(cudnnCreateTensorDescriptor(&more));
    tear_down(&f);
}

static void leak_handle(void) {
    cublasHandle_t handle;
    child_require(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate");
}

static void step_wrongly(void) {
    cublasHandle_t handle;
    float *a = filled(2);
    const float one = 1;
    child_require(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "cublasCreate");
    child_require(cublasSgemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, 2, 2, 5, &one, a, 2, a, 5, &one, a + 64, 2) ==
                      CUBLAS_STATUS_INVALID_VALUE,
                  "status");
}

static void use_on_other_device(void) {
    cudnnHandle_t handle;
    dnn_ok(cudnnCreate(&handle));
    ok(cudaSetDevice(1));
    cudnnSetStream(handle, NULL);
}

static void misuse_of_handles_is_found(void **state) {
    static const char *const two_devices[] = {"THORAX_EMULATION_DEVICES=2", NULL};
    struct outcome outcome;
    (void)state;
    assert_found(leak_descriptor, "a cudnnTensorDescriptor_t");
    assert_found(leak_handle, "a cublasHandle_t");
    assert_found(step_wrongly, "A is 5 x 2 with 2 from column to column");
    child_run(use_on_other_device, two_devices, &outcome);
    assert_int_equal(outcome.status, EMULATION_EXIT_FINDING);
    assert_non_null(strstr(outcome.stderr_text, "a handle of device 0 while device 1 is current"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(products_of_integers_are_exact_and_aligned),
        cmocka_unit_test(algorithms_are_listed),
        cmocka_unit_test(convolutions_that_cannot_be_are_found),
        cmocka_unit_test(misuse_of_handles_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
