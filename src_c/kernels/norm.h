/* norm.h: table of the batch normalisation kernels.
 *
 * `last`: pixels x[p * pixel + c] with contiguous channels, parameters by channel. `plane`: contiguous values of one
 * channel, parameters as numbers. Both give the same bits. */
#ifndef FC_KERNELS_NORM_H
#define FC_KERNELS_NORM_H
#include <stdint.h>

/* y = (x - centre) * scale + shift */
typedef struct {
    const void *centre, *scale, *shift; /* [channels] */
} fc_norm_affine;
/* grad_x = grad_y * gain + (x - centre) * slope + shift */
typedef struct {
    const void *centre, *gain, *slope, *shift; /* [channels] */
} fc_norm_grad;

typedef struct {
    /* pivot[c]: a typical value; sum[c] = sum_p (x[p][c] - pivot[c]), square[c] = sum_p (x[p][c] - pivot[c])^2 */
    void (*sums)(int64_t pixels, const void *x, int64_t pixel, int64_t channels, void *pivot, void *sum, void *square);
    /* sum[c] = sum_p g[p][c], product[c] = sum_p g[p][c] * (x[p][c] - centre[c]) */
    void (*grad_sums)(int64_t pixels, const void *g, int64_t g_pixel, const void *x, int64_t x_pixel, int64_t channels,
                      const void *centre, void *sum, void *product);
    void (*affine_last)(int64_t pixels, const void *x, int64_t x_pixel, int64_t channels, const fc_norm_affine *,
                        void *y, int64_t y_pixel);
    /* channel: the parameters to use */
    void (*affine_plane)(int64_t count, const void *x, int64_t channel, const fc_norm_affine *, void *y);
    void (*grad_last)(int64_t pixels, const void *g, int64_t g_pixel, const void *x, int64_t x_pixel, int64_t channels,
                      const fc_norm_grad *, void *y, int64_t y_pixel);
    void (*grad_plane)(int64_t count, const void *g, const void *x, int64_t channel, const fc_norm_grad *, void *y);
} fc_norm_kernels;
#endif
