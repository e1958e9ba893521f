/* norm.h: table of the batch normalisation kernels.
 *
 *     t = (x - centre) * gain + shift,  y = clamp(t + residual, lower, upper)
 *
 * `last`: pixels data[p * pixel + c] with contiguous channels, parameters by channel. `plane`: contiguous values of a
 * channel, parameters as numbers. Both give the same bits. */
#ifndef FC_KERNELS_NORM_H
#define FC_KERNELS_NORM_H
#include <stdint.h>

typedef struct {
    const void *centre, *gain, *shift; /* [channels] */
    const void *slope, *offset;        /* [channels], gradient only */
    double lower, upper;               /* -inf, inf: no clamp */
    double low, high;                  /* closed where the clamp holds: t <= low or t >= high; NaN: no such end */
    int stream; /* what is written bypasses the caches, for the driver to fence; pixels are aligned to 64 bytes */
} fc_norm_channels;

/* data[n * image + p * pixel + c], where maps see one image; planes: data[n * image + c * pixel + p]. data may be null
 * where a kernel says so. */
typedef struct {
    void *data;
    int64_t pixel, image;
} fc_norm_pixels;

/* The gradient of the clamp: g where it is open, 0 where closed. */
typedef enum {
    FC_GATE_NONE, /* no clamp */
    FC_GATE_INPUT, /* closed is told from t, which is computed again with the same bits */
    FC_GATE_OUTPUT, /* closed is told from y (a residual was added to t) */
} fc_norm_gate;

/* What sums are wanted. With d = x - centre, where the statistics are wanted a typical value of the first pixels takes
 * the place of centre and is put out too:
 *     sum[c] = sum d, square[c] = sum d^2, grad[c] = sum g, product[c] = sum g * d       over all images and pixels */
typedef enum {
    FC_NORM_STATISTICS = 1, /* centre, sum, square */
    FC_NORM_GRADIENT = 2, /* grad, product */
    FC_NORM_BOTH = 3,
} fc_norm_wanted;

typedef struct {
    fc_norm_wanted wanted;
    fc_norm_gate gate;
    int64_t images, pixels; /* of them */
    int64_t typical; /* images whose first FC_NORM_TYPICAL pixels make the typical value */
    int maps; /* gated[p][c] = gain * g behind the gate, grad_x of constant statistics; not with FC_GATE_OUTPUT, and
               * always with FC_NORM_GRADIENT and FC_GATE_NONE */
    int images_follow; /* planes: what is read next is the next image; 0: what follows in memory */
    fc_norm_pixels g, x;
    fc_norm_pixels y; /* only with FC_GATE_OUTPUT */
    fc_norm_pixels gated; /* with maps, or with FC_GATE_OUTPUT: g behind the gate */
    void *centre, *sum, *square, *grad, *product; /* results, [channels] */
    void *partial; /* scratch: 2 * FC_NORM_PARTIAL_BYTES */
} fc_norm_sums;

enum {
    FC_NORM_TYPICAL = 64, /* pixels of an image */
    FC_NORM_FOUR = 4,     /* pixels, or sums, of a lane */
    /* 4 sums for each lane of pixels, of as many channels as half of a first-level cache holds: 64 (AVX-512, float32)
     * or more */
    FC_NORM_PARTIAL_BYTES = 1 << 14,
};

typedef struct {
    void (*sums_last)(int64_t channels, const fc_norm_channels *, const fc_norm_sums *);
    /* the sums of channels [channel, channel + channels), the first ones of the arrays and of the results; no
     * FC_GATE_OUTPUT */
    void (*sums_plane)(int64_t channel, int64_t channels, const fc_norm_channels *, const fc_norm_sums *);
    /* residual.data may be null */
    void (*map_last)(int64_t pixels, int64_t channels, const fc_norm_channels *, fc_norm_pixels x,
                     fc_norm_pixels residual, fc_norm_pixels y);
    /* `count` values of each of `channels` planes of `images`; channel: whose parameters the first plane takes */
    void (*map_plane)(int64_t images, int64_t channels, int64_t count, int64_t channel, const fc_norm_channels *,
                      fc_norm_pixels x, fc_norm_pixels residual, fc_norm_pixels y);
    /* grad_x = g * gain + (x - centre) * slope + offset, g behind the gate (NONE or INPUT); null slope: g * gain */
    void (*grad_last)(int64_t pixels, int64_t channels, const fc_norm_channels *, fc_norm_gate, fc_norm_pixels g,
                      fc_norm_pixels x, fc_norm_pixels grad_x);
    void (*grad_plane)(int64_t images, int64_t channels, int64_t count, int64_t channel, const fc_norm_channels *,
                       fc_norm_gate, fc_norm_pixels g, fc_norm_pixels x, fc_norm_pixels grad_x);
} fc_norm_kernels;
#endif
