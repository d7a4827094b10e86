#include "common/device/cuda/internal.h"

/* Streams do not wait for CUDA's legacy default stream, which nothing here uses. */

bool cuda_stream_create(struct device *device, struct stream **out, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    cudaStream_t stream;
    if (!cuda_enter(cuda, err) || !cuda_check(cuda, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                                              "cudaStreamCreateWithFlags", err))
        return false;
    *out = (struct stream *)stream;
    return true;
}

void cuda_stream_destroy(struct device *device, struct stream *stream) {
    if (stream && cuda_enter(cuda_device_of(device), NULL))
        cudaStreamDestroy((cudaStream_t)stream);
}

bool cuda_event_create(struct device *device, struct event **out, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    cudaEvent_t event;
    if (!cuda_enter(cuda, err) || !cuda_check(cuda, cudaEventCreateWithFlags(&event, cudaEventDisableTiming),
                                              "cudaEventCreateWithFlags", err))
        return false;
    *out = (struct event *)event;
    return true;
}

void cuda_event_destroy(struct device *device, struct event *event) {
    if (event && cuda_enter(cuda_device_of(device), NULL))
        cudaEventDestroy((cudaEvent_t)event);
}

bool cuda_event_record(struct device *device, struct event *event, struct stream *stream, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda, cudaEventRecord((cudaEvent_t)event, cuda_stream_of(cuda, stream)),
                      "cudaEventRecord", err);
}

bool cuda_stream_wait(struct device *device, struct stream *stream, struct event *event, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda, cudaStreamWaitEvent(cuda_stream_of(cuda, stream), (cudaEvent_t)event, 0),
                      "cudaStreamWaitEvent", err);
}

/* Any thread may ask, so the device's own state is not touched: no cuda_enter, no cuda_check. */
int cuda_event_done(struct device *device, struct event *event, struct error *err) {
    (void)device;
    cudaError_t state = cudaEventQuery((cudaEvent_t)event);
    if (state == cudaErrorNotReady) {
        cudaGetLastError(); /* CUDA keeps it as an error, for whoever looks next */
        return 0;
    }
    return cuda_ok(state, "work on the GPU", err) ? 1 : -1;
}

bool cuda_synchronise(struct device *device, struct stream *stream, struct error *err) {
    struct cuda_device *cuda = cuda_device_of(device);
    return cuda_enter(cuda, err) &&
           cuda_check(cuda, cudaStreamSynchronize(cuda_stream_of(cuda, stream)), "work on the GPU", err);
}
