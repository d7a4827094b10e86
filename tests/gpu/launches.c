/*
 * Counts what a program hands to the GPU: kernels launched one by one, and graphs (whose kernels count as one
 * launch). CUDA's driver loads this object into every process that has its path in CUDA_INJECTION64_PATH, and
 * calls InitializeInjection; CUPTI, found at run time, then tells it of every call of the driver, cuDNN's own
 * among them. At the end of the process the counts are written to the file that THORAX_LAUNCHES names, as
 * "kernels graphs".
 */
#include <cupti.h>
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long kernels, graphs;

static void CUPTIAPI count(void *context, CUpti_CallbackDomain domain, CUpti_CallbackId id,
                           const void *data) {
    const CUpti_CallbackData *call = data;
    (void)context;
    if (domain != CUPTI_CB_DOMAIN_DRIVER_API || call->callbackSite != CUPTI_API_ENTER)
        return;
    switch (id) {
    case CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel:
    case CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz:
    case CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx:
    case CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx_ptsz:
        atomic_fetch_add(&kernels, 1);
        break;
    case CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch:
    case CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch_ptsz:
        atomic_fetch_add(&graphs, 1);
        break;
    default:
        break;
    }
}

static void write_counts(void) {
    const char *path = getenv("THORAX_LAUNCHES");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file)
        return;
    fprintf(file, "%ld %ld\n", atomic_load(&kernels), atomic_load(&graphs));
    fclose(file);
}

/** Called by the driver; 0 is what it takes for a refusal. */
int InitializeInjection(void);

int InitializeInjection(void) {
    static CUpti_SubscriberHandle subscriber;
    void *cupti = dlopen(CUPTI_OBJECT, RTLD_NOW | RTLD_LOCAL);
    if (!cupti) {
        fprintf(stderr, "launches: %s\n", dlerror());
        return 0;
    }
    CUptiResult (*subscribe)(CUpti_SubscriberHandle *, CUpti_CallbackFunc, void *);
    CUptiResult (*enable)(uint32_t, CUpti_SubscriberHandle, CUpti_CallbackDomain);
    *(void **)&subscribe = dlsym(cupti, "cuptiSubscribe");
    *(void **)&enable = dlsym(cupti, "cuptiEnableDomain");
    if (!subscribe || !enable || subscribe(&subscriber, count, NULL) != CUPTI_SUCCESS ||
        enable(1, subscriber, CUPTI_CB_DOMAIN_DRIVER_API) != CUPTI_SUCCESS) {
        fprintf(stderr, "launches: %s refuses to tell of the driver's calls\n", CUPTI_OBJECT);
        return 0;
    }
    atexit(write_counts);
    return 1;
}
