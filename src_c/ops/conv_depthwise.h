/* conv_depthwise.h: what the depthwise convolution and the gradient of its weight share. */
#ifndef FC_OPS_CONV_DEPTHWISE_H
#define FC_OPS_CONV_DEPTHWISE_H
#include "conv.h"

/* Along an axis output i belongs to phase i % count and sees the inputs from i / count * stride - pad of the phase on. */
typedef struct {
    const fc_phase *phases;
    int64_t count;
    int64_t size; /* outputs of phase 0, which has the most */
    int64_t stride;
    int64_t least, most; /* inputs that output 0 of any phase sees */
} fc_depthwise_axis;

/* Of a convolution: a single phase, kept in *f. */
fc_depthwise_axis fc_depthwise_forward_axis(fc_phase *f, int64_t outputs, int64_t taps, int64_t stride,
                                            int64_t dilation, int64_t pad);

/* Inputs along an axis that `outputs` neighbouring outputs of all phases see. */
static inline int64_t fc_depthwise_reach(const fc_depthwise_axis *a, int64_t outputs)
{
    return (outputs - 1) * a->stride + a->most - a->least + 1;
}

/* The groups of a phase along w, as even as FC_DEPTHWISE_TAPS allows, and order[i] (may be NULL): the tap of the weight that
 * comes i-th. Columns count from w->least; of them x has [first, end), `pixel` bytes apart. Returns the number of groups. */
int64_t fc_depthwise_groups(const fc_depthwise_axis *w, const fc_phase *, int64_t pixel, fc_range x,
                            fc_depthwise_group *groups, int64_t *order);
/* The outputs of a phase that see nothing but x. */
fc_range fc_depthwise_inner(const fc_depthwise_axis *w, const fc_phase *, fc_range x);
#endif
