/* norm.h: table of the batch normalisation kernels.
 *
 *     t = (x - centre) * gain + shift,  y = clamp(t + residual, lower, upper)
 *
 * `last`: pixels data[p * pixel + c] with contiguous channels, parameters by channel. `plane`: contiguous values of one
 * channel, parameters as numbers. Both give the same bits. */
#ifndef FC_KERNELS_NORM_H
#define FC_KERNELS_NORM_H
#include <stdint.h>

typedef struct {
    const void *centre, *gain, *shift; /* [channels] */
    const void *slope, *offset;        /* [channels], gradient only */
    double lower, upper;               /* -inf, inf: no clamp */
    double low, high;                  /* closed where the clamp holds: t <= low or t >= high; NaN: no such end */
    int stream;                        /* what is written bypasses the caches; its pixels are aligned to 64 bytes */
} fc_norm_channels;

/* data[p * pixel + c]; data may be null where a kernel says so */
typedef struct {
    void *data;
    int64_t pixel;
} fc_norm_pixels;

/* The gradient of the clamp: g where it is open, 0 where closed. */
typedef enum {
    FC_GATE_NONE,   /* no clamp */
    FC_GATE_INPUT,  /* closed is told from t, which is computed again with the same bits */
    FC_GATE_OUTPUT, /* closed is told from y (a residual was added to t) */
} fc_norm_gate;

typedef struct {
    /* pivot[c]: a typical value; sum[c] = sum_p (x[p][c] - pivot[c]), square[c] = sum_p (x[p][c] - pivot[c])^2 */
    void (*sums)(int64_t pixels, const void *x, int64_t pixel, int64_t channels, void *pivot, void *sum, void *square);
    /* sum[c] = sum_p g[p][c], product[c] = sum_p g[p][c] * (x[p][c] - centre[c]), g behind the gate. y and gated only with
     * FC_GATE_OUTPUT: gated[p][c] = g behind the gate. */
    void (*grad_sums)(int64_t pixels, int64_t channels, const fc_norm_channels *, fc_norm_gate, fc_norm_pixels g,
                      fc_norm_pixels x, fc_norm_pixels y, fc_norm_pixels gated, void *sum, void *product);
    /* residual.data may be null */
    void (*map_last)(int64_t pixels, int64_t channels, const fc_norm_channels *, fc_norm_pixels x,
                     fc_norm_pixels residual, fc_norm_pixels y);
    /* channel: the parameters to use */
    void (*map_plane)(int64_t count, int64_t channel, const fc_norm_channels *, const void *x, const void *residual,
                      void *y);
    /* grad_x = g * gain + (x - centre) * slope + offset, g behind the gate (NONE or INPUT); null slope: g * gain */
    void (*grad_last)(int64_t pixels, int64_t channels, const fc_norm_channels *, fc_norm_gate, fc_norm_pixels g,
                      fc_norm_pixels x, fc_norm_pixels grad_x);
    void (*grad_plane)(int64_t count, int64_t channel, const fc_norm_channels *, fc_norm_gate, const void *g,
                       const void *x, void *grad_x);
} fc_norm_kernels;
#endif
