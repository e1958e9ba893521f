/* image.h: moving rectangles of images between layouts; the only code that knows about padding and channels-first. */
#ifndef FC_IMAGE_H
#define FC_IMAGE_H
#include "../fastconv.h"
#include "../kernels/kernels.h"

/* data[h][w][c], strides in elements */
typedef struct {
    char *data;
    int64_t h, w, c;
    int64_t stride_h, stride_w, stride_c;
    int stream; /* stores of planes bypass the caches; stride_c is a multiple of 64 bytes */
} fc_image;

/* A rectangle of an image: rows top, top + row_step, ...; columns left, left + column_step, ... */
typedef struct {
    int64_t top, rows, row_step;
    int64_t left, columns, column_step;
} fc_window;

/* Image n of a view, channels [channel, channel + channels). */
fc_image fc_image_of(const fc_view *, size_t item, int64_t n, int64_t channel, int64_t channels);

/* Pitches of a strip, in elements: strip[r * row + column * pixel + c * channel]. */
typedef struct {
    int64_t row, pixel, channel;
} fc_pitch;

/* to[row][column][c] = image[top + row * row_step][left + column * column_step][c], zero outside the image. */
void fc_load_window(const fc_kernels *, size_t item, const fc_image *, const fc_window *, void *to, const fc_pitch *);
/* image[top + row * row_step][left + column * column_step][c] = from[row][column][c]; the window lies inside. */
void fc_store_window(const fc_kernels *, size_t item, const fc_image *, const fc_window *, const void *from,
                     const fc_pitch *);
#endif
