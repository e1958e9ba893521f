/* conv_grad_weight.h: how conv_grad_weight.c cuts a problem (conv_grad_weight_plan.c). */
#ifndef FC_OPS_CONV_GRAD_WEIGHT_H
#define FC_OPS_CONV_GRAD_WEIGHT_H
#include "conv.h"

typedef struct {
    const fc_problem *p;
    int64_t taps, panel, panels; /* columns of a panel, number of panels */
    int64_t slices, lines, pieces; /* lines = batch * out_h * pieces, pieces of one output row */
    int64_t row_pixels, line_pixels; /* of a row and a line of the whole problem, before rows were joined */
    int64_t block_n, block_h, block_w; /* images, rows and columns of a block */
    int single; /* one block holds everything */
    int at_once; /* and each panel is stored as soon as it is summed */
    int pointwise;
    int transposed; /* pointwise: x strips are [channel][pixel], y strips one panel [pixel][column] */
    int64_t row_parts, column_parts; /* pieces of the taps (u, or u and v) and of the panels */
    int64_t row_units, splits; /* kernel_h or taps, each in so many pieces of its rows (v, c) or c */
    int64_t unpack_parts; /* of a panel */
    int x_in_place, y_in_place, merged; /* merged: (v, c) is one axis */
    int gathered; /* a strip has all taps of a row beside each other, for each output */
    int dense; /* pointwise, and both sides are read where they lie: a row of pixels without gaps */
    int turned; /* lanes are (v, c) */
    int64_t aliasing; /* pixels a multiple of this apart are worth a copy, bytes */
    int64_t rows; /* (v, c) or c */
    int64_t x_pixel, x_row, x_image, x_step_h, x_step_w; /* pitches of the strips, elements */
    int64_t x_bytes, y_bytes, thread_bytes;
    int64_t buffer_group, buffer_slice; /* elements */
    int shared; /* a single block whose x is loaded once for all tasks */
    char *buffer, *threads, *x; /* x[group] if it is shared */
} fc_grad_weight_plan;

/* A 1x1 problem may be laid out anew on the way; the plan is of that one. */
fc_grad_weight_plan fc_plan_grad_weight(fc_problem *);
#endif
