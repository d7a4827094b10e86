/* A test double of CUPTI: who subscribes and enables the driver's calls is told of five, each at its begin
 * and end. */
#include <cupti.h>

static CUpti_CallbackFunc told;

CUptiResult cuptiSubscribe(CUpti_SubscriberHandle *subscriber, CUpti_CallbackFunc callback, void *context) {
    (void)subscriber, (void)context;
    told = callback;
    return CUPTI_SUCCESS;
}

CUptiResult cuptiEnableDomain(uint32_t enable, CUpti_SubscriberHandle subscriber,
                              CUpti_CallbackDomain domain) {
    static const CUpti_CallbackId calls[] = {
        CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel, CUPTI_DRIVER_TRACE_CBID_cuMemcpyHtoDAsync_v2,
        CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch, CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx,
        CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz};
    (void)subscriber;
    for (size_t i = 0; enable && i < sizeof calls / sizeof *calls; i++)
        for (int end = 0; end < 2; end++) {
            CUpti_CallbackData data = {.callbackSite = end ? CUPTI_API_EXIT : CUPTI_API_ENTER};
            told(NULL, domain, calls[i], &data);
        }
    return CUPTI_SUCCESS;
}
