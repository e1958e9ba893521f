/* winograd.h: the transforms of Winograd convolution on 6 x 6 tiles (Lavin and Gray 2015); lanes are channels.
 *
 * F(4x4, 3x3):  y = A' [(G w G') o (B' x B)] A,  x 6 x 6, w 3 x 3, y 4 x 4, o elementwise.
 * F(3x3, 4x4):  the gradient of the weight, dw = A3' [(G4 dy G4') o (B' x B)] A3, with the same B.
 * The 36 products of tiles and channels in the middle are matrix products. Positions are numbered e = 6 * row + column.
 */
#ifndef FC_KERNELS_WINOGRAD_H
#define FC_KERNELS_WINOGRAD_H
#include <stdint.h>

enum {
    FC_WINOGRAD_TILE = 6,   /* input tile */
    FC_WINOGRAD_OUT = 4,    /* output tile */
    FC_WINOGRAD_POINTS = 36,
};

typedef struct {
    /* v[e * pitch + c] = (B' x B)[e] for c < channels rounded up to a vector; x[e] points at channel 0 of pixel e */
    void (*input)(const void *const *x, int64_t channels, void *v, int64_t pitch);
    /* u[e * pitch + i] = (G w G')[e] for i < count (a multiple of vector_lanes); w[tap * tap_pitch + i] */
    void (*weights)(const void *w, int64_t tap_pitch, int64_t count, void *u, int64_t pitch);
    /* y[row * y_row + column * y_pixel + k] = clamp((A' m A)[row][column] * scale[k] + bias[k] + residual, lower, upper)
     * for row < rows, column < columns, k < channels; m[e * pitch + k]. With check, returns whether A' m A is finite for the
     * first vector of channels, otherwise 1. */
    int (*output)(const void *m, int64_t pitch, int64_t channels, const void *scale, const void *bias,
                  const void *residual, int64_t residual_row, int64_t residual_pixel, double lower, double upper,
                  void *y, int64_t y_row, int64_t y_pixel, int rows, int columns, int check);
    /* d[e * pitch + k] = (G4 dy G4')[e] for k < channels rounded up; dy[4 * row + column] points at channel 0 */
    void (*gradient)(const void *const *dy, int64_t channels, void *d, int64_t pitch);
    /* w[tap * tap_pitch + k] = (A3' u A3)[tap] for k < channels */
    void (*weight_gradient)(const void *u, int64_t pitch, int64_t channels, void *w, int64_t tap_pitch);
} fc_winograd_kernels;
#endif
