#pragma once
#include "trainerd/training.h"

/**
 * What happens after an epoch's last step, on all ranks together: the weights to use (the EMA's where one is kept, with rank 0's
 * running statistics) answer the validation part, sharded and exact; rank 0 logs the figures, with several ranks on CPUs what
 * their sums took, and where the figures are the best so far writes a model file under models/ in the run's folder and hands it
 * on for publishing. Updates best_metric, best_epoch, stale_epochs and models of the state alike on every rank.
 */
bool epoch_end_evaluate(struct training *training, struct error *err);
