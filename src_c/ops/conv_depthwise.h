/* conv_depthwise.h: what the depthwise convolution and the gradient of its weight share. */
#ifndef FC_OPS_CONV_DEPTHWISE_H
#define FC_OPS_CONV_DEPTHWISE_H
#include "conv.h"

/* Along an axis output i belongs to phase i % count and sees the inputs from i / count * stride - pad of the phase
 * on. */
typedef struct {
    const fc_phase *phases;
    int64_t count;
    int64_t size; /* outputs of phase 0, which has the most */
    int64_t stride;
    int64_t least, most; /* inputs that output 0 of any phase sees */
    int shared; /* all phases have the same taps; otherwise each has its own */
} fc_depthwise_axis;

/* Of a convolution: a single phase, kept in *f. */
fc_depthwise_axis fc_depthwise_forward_axis(fc_phase *f, int64_t outputs, int64_t taps, int64_t stride,
                                            int64_t dilation, int64_t pad);

/* Inputs along an axis that `outputs` neighbouring outputs of all phases see. */
static inline int64_t fc_depthwise_reach(const fc_depthwise_axis *a, int64_t outputs)
{
    return (outputs - 1) * a->stride + a->most - a->least + 1;
}

/* Whether groups have more than one channel on either side. */
static inline int fc_depthwise_is_spread(const fc_problem *p) { return p->in_channels * p->out_channels > 1; }
/* Input channels of so many output channels, whole groups. */
static inline int64_t fc_depthwise_inputs(const fc_problem *p, int64_t outputs)
{
    return outputs / p->out_channels * p->in_channels;
}
/* What a lane of a vector of outputs reads, see kernels/depthwise.h. */
void fc_depthwise_spread(const fc_problem *, int32_t (*spread)[FC_MAX_LANES]);

/* Whether `pixels` pixels of a tile drive each other out of L1: those that lie a multiple of 1 KiB apart share 4 of its
 * 64 sets of 8 ways, of 4 KiB one. Half as many again as there are places: 30 pixels for 32 (3x3, 256 channels) gain
 * nothing by a copy, 60 (5x5) a tenth. */
static inline int fc_depthwise_aliases(const fc_view *x, size_t item, int64_t pixels)
{
    enum { LEAST = 1024, L1_WAY = 4096, WAYS = 8 };
    const int64_t pitch = x->stride_w * (int64_t)item, power = fc_min(pitch & -pitch, L1_WAY);
    return power >= LEAST && 2 * pixels > 3 * WAYS * (L1_WAY / power);
}

/* Taps of a group, at most. */
static inline int64_t fc_depthwise_taps(const fc_problem *p)
{
    return fc_depthwise_is_spread(p) ? FC_SPREAD_TAPS : FC_DEPTHWISE_TAPS;
}

/* The depthwise problem of input channel c and output channel k of each group. */
fc_problem fc_depthwise_pair(const fc_problem *, int64_t c, int64_t k);

/* The groups of a phase along w, as even as `most` taps allow, and order[i] (may be NULL): the tap of the weight that
 * comes i-th. Columns count from w->least; of them x has [first, end), `pixel` bytes apart. Returns the number of
 * groups. */
int64_t fc_depthwise_groups(const fc_depthwise_axis *w, const fc_phase *, int64_t most, int64_t pixel, fc_range x,
                            fc_depthwise_group *groups, int64_t *order);
/* Where in the weight the rows of taps take theirs, phase after phase: to[in_channels * kernel_w], scratch[kernel_w] */
void fc_depthwise_order(const fc_problem *, const fc_depthwise_axis *w, int64_t *to, fc_depthwise_group *scratch);
/* Threads for a loop over the blocks of a weight: a small one is not worth a second. */
int fc_depthwise_slots(int64_t elements, int64_t blocks);
/* lane[FC_DEPTHWISE_ALIGN]: where in the weight the output channels of a block have theirs */
void fc_depthwise_lanes(const fc_problem *, int64_t *lane);
/* The outputs of a phase that see nothing but x. */
fc_range fc_depthwise_inner(const fc_depthwise_axis *w, const fc_phase *, fc_range x);
#endif
