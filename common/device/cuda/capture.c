#include "common/device/cuda/internal.h"

/*
 * Recordings are CUDA graphs. Capture is thread-local: what other threads do meanwhile, on this GPU too, does not disturb it.
 */

bool cuda_record_begin(struct device *device, struct stream *stream, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda,
                      cudaStreamBeginCapture(cuda_stream_of(cuda, stream), cudaStreamCaptureModeThreadLocal),
                      "cudaStreamBeginCapture", err);
}

/** Makes it ready for its first launch, which would have to put it onto the GPU otherwise. Takes the graph. */
static struct recording *instantiate(struct cuda_device *device, cudaGraph_t graph, cudaStream_t stream,
                                     struct error *err) {
    cudaGraphExec_t executable = NULL;
    bool ok = cuda_check(device, cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate", err) &&
              cuda_check(device, cudaGraphUpload(executable, stream), "cudaGraphUpload", err);
    if (!ok && executable)
        cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
    return ok ? (struct recording *)executable : NULL;
}

struct recording *cuda_record_end(struct device *device, struct stream *stream, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    cudaStream_t on = cuda_stream_of(cuda, stream);
    cudaGraph_t graph = NULL;
    if (!cuda_enter(cuda, err) ||
        !cuda_check(cuda, cudaStreamEndCapture(on, &graph), "cudaStreamEndCapture", err))
        return NULL;
    return instantiate(cuda, graph, on, err);
}

bool cuda_recording_launch(struct device *device, struct recording *recording, struct stream *stream,
                           struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda, cudaGraphLaunch((cudaGraphExec_t)recording, cuda_stream_of(cuda, stream)),
                      "cudaGraphLaunch", err);
}

void cuda_recording_destroy(struct device *device, struct recording *recording) {
    if (cuda_enter(cuda_device_of(device), NULL))
        cudaGraphExecDestroy((cudaGraphExec_t)recording);
}
