/* conv_grad_weight.c: the gradient of the weight by matrix products whose reduction runs over output pixels, cut as
 * conv_grad_weight_plan.c says.
 *
 *     grad_weight[k][c][u][v] = sum_{n,i,j} grad_y[n][i][j][k] * x[n][i * stride_h + ..u][j * stride_w + ..v][c]
 *
 * All output lines of the batch (rows, or pieces of long rows) are cut into `slices`, whose number and ends depend on
 * the shape only. A task owns one slice and one part of the weight and sums into its own piece of a
 * buffer[slice][group][u][v][c][k]. The slices are added in order at the end: no two threads share an output and the
 * bits do not depend on their number. Within a slice, blocks of lines small enough for the caches are loaded as strips
 * (see conv_direct.c). When one block holds all pixels there is nothing to add up: each panel is computed in the cache
 * and stored at once, or where panels do not go round the threads, these share out taps and pieces of rows of taps.
 *
 * A padded channels-last x is read where it lies, tap by tap, over the outputs whose tap is inside; a copied one has
 * its zeros, and the taps of a row of the kernel are one product.
 *
 * Pixels a power of two apart share cache sets. grad_y is copied panel by panel, and while a panel is multiplied the
 * next one is fetched; x, if it must be copied, gets another pitch.
 *
 * A pointwise (1x1) problem is symmetric in x and grad_y. Where vectors have 64 bytes or the first-level cache 12 ways,
 * both are read where they lie, and if they have no gaps a block of pixels is multiplied while the next one is fetched
 * ("dense"). Elsewhere the side with fewer channels is transposed into rows of pixels, so that the tile kernel of the
 * forward pass reads both sides in order.
 *
 * Lanes are output channels, the rows of a tile (v, c) of x. With few output channels it is the other way round
 * ("turned"): the sums are the same, their buffer is [u][k][v][c], or [u][v][k][c].
 */
#include "conv_grad_weight.h"

#include "../scratch.h"
#include "../threads.h"

#include <string.h>

enum { ADD_ELEMENTS = 8192 }; /* of the buffer, per task of the final sum */

/* ---- strips -------------------------------------------------------------------------------------------------------*/
typedef struct {
    int64_t n, h, w, images, rows, columns; /* of outputs */
} block;

/* Rows [first, first + rows) of the strip of an image of a block. */
static void load_rows(const fc_grad_weight_plan *s, int64_t group, const block *b, int64_t image, int64_t first,
                      int64_t rows, char *strip)
{
    const fc_problem *p = s->p;
    const int64_t step_h = p->kernel_h == 1 ? p->stride_h : 1,
                  step_w = p->kernel_w == 1 || s->gathered ? p->stride_w : 1;
    fc_window window = {
        b->h * p->stride_h - p->pad_top + first * step_h,
        rows,
        step_h,
        b->w * p->stride_w - p->pad_left,
        s->gathered ? b->columns : fc_strip_extent(b->columns, p->kernel_w, p->stride_w, p->dilation_w),
        step_w,
    };
    const fc_image x = fc_image_of(&p->x, p->item, b->n + image, group * p->in_channels, p->in_channels);
    strip += (image * s->x_image + first * s->x_row) * (int64_t)p->item;
    for (int64_t v = 0; v < (s->gathered ? p->kernel_w : 1); v++) {
        fc_load_window(p->k, p->item, &x, &window, strip, &(fc_pitch){s->x_row, s->x_pixel, 1});
        strip += p->in_channels * (int64_t)p->item;
        window.left += p->dilation_w;
    }
}

static int64_t strip_rows(const fc_problem *p, int64_t rows)
{
    return fc_strip_extent(rows, p->kernel_h, p->stride_h, p->dilation_h);
}

/* The window of x under a block: x itself, or a copy. */
static const char *load_strip(const fc_grad_weight_plan *s, int64_t group, const block *b, char *scratch)
{
    const fc_problem *p = s->p;
    const int64_t top = b->h * p->stride_h - p->pad_top, left = b->w * p->stride_w - p->pad_left;
    if (s->x_in_place)
        return fc_at(p->x.data,
                     b->n * p->x.stride_n + group * p->in_channels + top * p->x.stride_h + left * p->x.stride_w,
                     p->item);
    for (int64_t i = 0; i < b->images; i++)
        load_rows(s, group, b, i, 0, strip_rows(p, b->rows), scratch);
    return scratch;
}

/* grad_y of a block for some output channels: data[image][row][pixel][channel], pitches in elements */
typedef struct {
    const char *data;
    int64_t image, row, pixel;
} outputs;

/* A part of the weight: pieces [first, last) of the tap units, output channels [k0, k0 + columns) of a group. */
typedef struct {
    int64_t group, first, last, k0, columns;
} part;

/* Whether the pixels of a block follow each other in an array, and their channels. */
static int is_run(const fc_view *v, const block *b)
{
    const int rows_follow = b->rows == 1 || (b->columns == v->w && v->stride_h == v->w * v->stride_w);
    const int images_follow =
        b->images == 1 || (b->rows == v->h && b->columns == v->w && v->stride_n == v->h * v->w * v->stride_w);
    return v->stride_c == 1 && rows_follow && images_follow;
}

/* A channel of a pixel of the block that is such a run, or of a later pixel */
static const char *pixel_at(const fc_grad_weight_plan *s, const fc_view *v, const block *b, int64_t channel,
                            int64_t pixel)
{
    return fc_at(v->data, b->n * v->stride_n + b->h * v->stride_h + (b->w + pixel) * v->stride_w + channel, s->p->item);
}

/* Where the panel that is copied after this one lies in grad_y: its pieces, a line of each pixel, are no stream that
 * the hardware could see, and are fetched while this one is multiplied. NULL where pixels do not follow each other. */
static const char *next_panel(const fc_grad_weight_plan *s, const block *b, const part *of)
{
    const fc_view *y = &s->p->y;
    if (!is_run(y, b))
        return NULL;
    const int last = of->k0 + s->panel >= s->p->out_channels;
    const int64_t channel = of->group * s->p->out_channels + (last ? 0 : of->k0 + s->panel);
    return pixel_at(s, y, b, channel, last ? b->images * b->rows * b->columns : 0);
}

/* What a dense block fetches: both lines of each pixel of the next panel, where panels are copied or there is one
 * block; else all of the next block. */
static void set_ahead(const fc_grad_weight_plan *s, const block *b, const char *panel, fc_lines *ahead)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, lanes = FC_LINE_BYTES / item, pixels = b->columns, end = b->w + pixels;
    if (s->single || !s->y_in_place) {
        ahead[0] = (fc_lines){panel, p->y.stride_w, pixels};
        ahead[1] = (fc_lines){panel + FC_LINE_BYTES, p->y.stride_w, pixels};
        return;
    }
    ahead[0] = (fc_lines){fc_at(p->y.data, end * p->out_channels, p->item), lanes, pixels * p->out_channels / lanes};
    ahead[1] = (fc_lines){fc_at(p->x.data, end * p->in_channels, p->item), lanes, pixels * p->in_channels / lanes};
}

/* Rows (v, c) of a piece of a tap unit, whole vectors but for the last. */
static fc_range rows_of(const fc_grad_weight_plan *s, int64_t piece)
{
    const int64_t lanes = s->p->k->vector_lanes, end = piece + 1;
    return (fc_range){piece * s->rows / s->splits / lanes * lanes,
                      end == s->splits ? s->rows : end * s->rows / s->splits / lanes * lanes};
}

/* Lines and columns of a block whose tap, or row of taps, lies inside x. */
typedef struct {
    fc_range lines, columns;
} seen;

static seen seen_by(const fc_grad_weight_plan *s, const block *b, int64_t u, int64_t v)
{
    const fc_problem *p = s->p;
    const fc_range rows = fc_seeing_outputs(u, p->y.h, p->stride_h, p->dilation_h, p->pad_top, p->x.h);
    seen r = {.lines.first = fc_max(0, rows.first - b->h), .columns = {0, b->columns}};
    r.lines.end = fc_max(r.lines.first, fc_min(b->rows, rows.end - b->h));
    if (s->merged) /* a unit is all taps of a row */
        return r;
    const fc_range columns = fc_seeing_outputs(v, p->y.w, p->stride_w, p->dilation_w, p->pad_left, p->x.w);
    r.columns.first = fc_min(fc_max(0, columns.first - b->w), b->columns);
    r.columns.end = fc_max(r.columns.first, fc_min(columns.end - b->w, b->columns));
    return r;
}

/* One side of a product over outputs, which are so far apart: so many lanes or rows of a tile. */
typedef struct {
    const char *data;
    int64_t image, line, step, count;
} side;

static fc_gemm_at product_of(side a, side b)
{
    return (fc_gemm_at){.a = a.data,
                        .a_image = a.image,
                        .a_line = a.line,
                        .a_step = a.step,
                        .rows = a.count,
                        .b = b.data,
                        .b_image = b.image,
                        .b_line = b.line,
                        .b_step = b.step,
                        .columns = b.count};
}

/* The product of a piece of a tap unit, into c[unit][row][..], or turned c[unit][k][row]. */
static fc_gemm_at piece_of(const fc_grad_weight_plan *s, const block *b, const char *x, const outputs *y,
                           const part *of, int64_t piece, char *c, int64_t c_row)
{
    const fc_problem *p = s->p;
    const int64_t item = (int64_t)p->item, unit = piece / s->splits, u = s->merged ? unit : unit / p->kernel_w,
                  v = s->merged ? 0 : unit % p->kernel_w;
    const fc_range rows = rows_of(s, piece % s->splits);
    const seen r = seen_by(s, b, u, v);
    side xs = {.image = s->x_image, .line = s->x_step_h * s->x_row, .step = s->x_step_w * s->x_pixel},
         ys = {.image = y->image, .line = y->row, .step = y->pixel, .count = of->columns};
    xs.data = x + (u * p->dilation_h * s->x_row + v * p->dilation_w * s->x_pixel + r.lines.first * xs.line +
                   r.columns.first * xs.step + rows.first) *
                      item;
    xs.count = rows.end - rows.first;
    ys.data = y->data + (r.lines.first * ys.line + r.columns.first * ys.step) * item;
    fc_gemm_at product = s->turned ? product_of(ys, xs) : product_of(xs, ys);
    product.images = b->images;
    product.lines = r.lines.end - r.lines.first;
    product.depth = r.columns.end - r.columns.first;
    product.c_row = s->turned ? s->rows : c_row;
    product.c =
        c + (s->turned ? unit * of->columns * s->rows + rows.first : (unit * s->rows + rows.first) * c_row) * item;
    return product;
}

/* c[unit][..][k] (+)= the block's products for a part of the weight. */
static void add_products(const fc_grad_weight_plan *s, const block *b, const char *x, const outputs *y, const part *of,
                         char *c, int64_t c_row, int accumulate)
{
    const fc_problem *p = s->p;
    const int64_t pixels = b->images * b->rows * b->columns, pieces = of->last - of->first;
    const char *ahead = s->y_in_place && !s->dense ? NULL : next_panel(s, b, of);
    for (int64_t i = 0; i < pieces; i++) {
        fc_gemm_at product = piece_of(s, b, x, y, of, of->first + i, c, c_row);
        product.accumulate = accumulate;
        if (s->dense) {
            set_ahead(s, b, ahead, product.ahead);
        } else if (ahead) {
            const int64_t first = i * pixels / pieces, end = (i + 1) * pixels / pieces;
            product.ahead[0] = (fc_lines){fc_at(ahead, first * p->y.stride_w, p->item), p->y.stride_w, end - first};
        }
        p->k->gemm->at(&product);
    }
}

/* Output channels [first, last) of a turned sum: (u, v, c) of each are an image. */
static void unpack_turned(const fc_grad_weight_plan *s, int64_t group, int64_t first, int64_t last, const char *sum)
{
    const fc_problem *p = s->p;
    const int64_t c = p->in_channels, row = p->kernel_w * p->out_channels * c;
    const fc_window all = {0, p->kernel_h, 1, 0, p->kernel_w, 1};
    const fc_pitch pitch = {row, s->merged ? c : p->out_channels * c, 1};
    for (int64_t k = first; k < last; k++) {
        const fc_image to = {(char *)p->weight + (group * p->weight_g + k * p->weight_k) * (int64_t)p->item,
                             p->kernel_h,
                             p->kernel_w,
                             c,
                             p->weight_u,
                             p->weight_v,
                             p->weight_c,
                             0};
        fc_store_window(p->k, p->item, &to, &all, sum + k * (s->merged ? p->kernel_w : 1) * c * (int64_t)p->item,
                        &pitch);
    }
}

static void unpack_part(void *context, int64_t task, int slot)
{
    (void)slot;
    const fc_grad_weight_plan *s = context;
    const fc_problem *p = s->p;
    const int64_t part = task % s->unpack_parts, panel = task / s->unpack_parts % s->panels,
                  group = task / s->unpack_parts / s->panels, k0 = panel * s->panel, width = p->out_channels;
    const char *from = s->buffer + (group * s->buffer_group + k0) * (int64_t)p->item;
    if (s->turned) {
        unpack_turned(s, group, part * width / s->unpack_parts, (part + 1) * width / s->unpack_parts, from);
        return;
    }
    const int64_t c0 = part * p->in_channels / s->unpack_parts, c1 = (part + 1) * p->in_channels / s->unpack_parts;
    fc_unpack_weights(p, group, k0, fc_min(s->panel, width - k0), c0, c1 - c0, fc_at(from, c0 * width, p->item), width,
                      p->in_channels * width);
}

/* ---- pointwise: the same with x[channel][pixel] -------------------------------------------------------------------*/
/* to[image][row][column][channel] = v, of the block's pixels */
static void load_pixels(const fc_grad_weight_plan *s, const fc_view *v, const block *b, int64_t channel,
                        int64_t channels, char *to, fc_pitch pitch, int64_t image)
{
    const fc_window window = {b->h, b->rows, 1, b->w, b->columns, 1};
    for (int64_t i = 0; i < b->images; i++) {
        const fc_image from = fc_image_of(v, s->p->item, b->n + i, channel, channels);
        fc_load_window(s->p->k, s->p->item, &from, &window, to + i * image * (int64_t)s->p->item, &pitch);
    }
}

/* c[channel of x][k] (+)= sum over the block's pixels, for one panel of output channels. source: where y is to be
 * copied from, or NULL */
static void add_pixels(const fc_grad_weight_plan *s, const block *b, const char *x, const outputs *y,
                       const char *source, const part *of, char *c, int64_t c_row, int accumulate)
{
    const fc_problem *p = s->p;
    const int64_t tiles = fc_ceil_div(p->in_channels, p->k->gemm->max_rows);
    fc_gemm product = {
        .a = x,
        .a_row = s->x_pixel,
        .taps_h = 1,
        .taps_w = 1,
        .length = b->images * b->rows * b->columns,
        .b = y->data,
        .y = c,
        .y_row = c_row,
        .columns = of->columns,
        .accumulate = accumulate,
        .ahead = next_panel(s, b, of),
        .ahead_every = fc_ahead_every(p, tiles),
        .source = source,
        .source_row = p->y.stride_w,
    };
    fc_set_ahead_rows(p, p->y.stride_w, &product);
    p->k->gemm->rows(&product, p->in_channels);
}

static const char *load_block(const fc_grad_weight_plan *s, const block *b, int64_t group, char *scratch)
{
    if (!s->transposed)
        return load_strip(s, group, b, scratch);
    const fc_pitch pitch = {b->columns, 1, s->x_pixel};
    load_pixels(s, &s->p->x, b, group * s->p->in_channels, s->p->in_channels, scratch, pitch, b->rows * b->columns);
    return scratch;
}

/* The block's x is loaded; its grad_y is read in place, or copied panel by panel. */
static void add_block(const fc_grad_weight_plan *s, const block *b, const char *x, const part *of, char *scratch,
                      char *c, int64_t c_row, int accumulate)
{
    const fc_problem *p = s->p;
    const fc_view *v = &p->y;
    const int64_t item = (int64_t)p->item, lanes = p->k->vector_lanes, channel = of->group * p->out_channels + of->k0;
    if (s->y_in_place) {
        const int64_t at = b->n * v->stride_n + channel + b->h * v->stride_h + b->w * v->stride_w;
        const outputs y = {(char *)v->data + at * item, v->stride_n, v->stride_h, v->stride_w};
        add_products(s, b, x, &y, of, c, c_row, accumulate);
        return;
    }
    char *panel = scratch + (s->shared ? 0 : s->x_bytes);
    for (int64_t k = 0; k < of->columns; k += s->panel) {
        const part piece = {of->group, of->first, of->last, of->k0 + k, fc_min(s->panel, of->columns - k)};
        const int64_t width = piece.columns > lanes ? s->panel : lanes, row = b->columns * width;
        const outputs y = {panel, b->rows * row, row, width};
        const int copies = s->transposed && is_run(v, b) && fc_copies_panel(p, piece.columns, p->in_channels);
        if (!copies)
            load_pixels(s, v, b, channel + k, piece.columns, panel, (fc_pitch){row, width, 1}, y.image);
        if (s->transposed)
            add_pixels(s, b, x, &y, copies ? pixel_at(s, v, b, channel + k, 0) : NULL, &piece, c + k * item, c_row,
                       accumulate);
        else
            add_products(s, b, x, &y, &piece, c + k * item, c_row, accumulate);
    }
}

/* ---- one block: x, loaded by parts, channels of rows of pixels, or rows of strips ---------------------------------*/
enum { PART_CHANNELS = 32 };

static block whole_block(const fc_problem *p) { return (block){0, 0, 0, p->y.n, p->y.h, p->y.w}; }

static int64_t x_parts(const fc_grad_weight_plan *s)
{
    const fc_problem *p = s->p;
    return s->transposed ? fc_ceil_div(p->in_channels, PART_CHANNELS) : p->y.n * strip_rows(p, p->y.h);
}

static void load_part(void *context, int64_t task, int slot)
{
    (void)slot;
    const fc_grad_weight_plan *s = context;
    const fc_problem *p = s->p;
    const block all = whole_block(p);
    const int64_t group = task / x_parts(s), part = task % x_parts(s), c0 = part * PART_CHANNELS;
    char *x = s->x + group * s->x_bytes;
    if (s->transposed)
        load_pixels(s, &p->x, &all, group * p->in_channels + c0, fc_min(PART_CHANNELS, p->in_channels - c0),
                    x + c0 * s->x_pixel * (int64_t)p->item, (fc_pitch){all.columns, 1, s->x_pixel},
                    all.rows * all.columns);
    else
        load_rows(s, group, &all, part / strip_rows(p, p->y.h), part % strip_rows(p, p->y.h), 1, x);
}

/* ---- one block of all taps: (group, part of the panels) -----------------------------------------------------------*/
static void run_single(void *context, int64_t task, int slot)
{
    const fc_grad_weight_plan *s = context;
    const fc_problem *p = s->p;
    const int64_t piece = task % s->column_parts, group = task / s->column_parts;
    const block all = whole_block(p);
    char *scratch = s->threads + slot * s->thread_bytes, *sum = scratch + (s->shared ? 0 : s->x_bytes) + s->y_bytes;
    const char *x = s->shared ? s->x + group * s->x_bytes : load_block(s, &all, group, scratch);
    for (int64_t panel = piece * s->panels / s->column_parts; panel < (piece + 1) * s->panels / s->column_parts;
         panel++) {
        const int64_t k0 = panel * s->panel;
        const part of = {group, 0, s->row_units, k0, fc_min(s->panel, p->out_channels - k0)};
        if (s->pointwise && p->weight_k == 1) { /* c[channel of x][k] is a piece of the weight itself */
            char *to = (char *)p->weight + (group * p->weight_g + k0) * (int64_t)p->item;
            add_block(s, &all, x, &of, scratch, to, p->weight_c, 0);
            continue;
        }
        add_block(s, &all, x, &of, scratch, sum, s->panel, 0);
        if (s->turned) {
            unpack_turned(s, group, 0, p->out_channels, sum);
            continue;
        }
        fc_unpack_weights(p, group, k0, of.columns, 0, p->in_channels, sum, s->panel, p->in_channels * s->panel);
    }
}

/* ---- many blocks: (slice, group, part of the panels, part of the taps) --------------------------------------------*/
/* Where a line of the shape starts, counted in pixels of the batch. */
static int64_t first_pixel(const fc_grad_weight_plan *s, int64_t line)
{
    return line / s->pieces * s->row_pixels + line % s->pieces * s->line_pixels;
}

/* The largest block that starts at `pixel` and ends by `end`. */
static block block_at(const fc_grad_weight_plan *s, int64_t pixel, int64_t end)
{
    const fc_view *y = &s->p->y;
    const int64_t row = pixel / y->w, left = end - pixel;
    block b = {.n = row / y->h, .h = row % y->h, .w = pixel % y->w, .images = 1, .rows = 1};
    b.columns = fc_min(fc_min(s->block_w, y->w - b.w), left);
    if (b.columns < y->w)
        return b;
    b.rows = fc_min(fc_min(s->block_h, y->h - b.h), left / y->w);
    if (b.rows == y->h)
        b.images = fc_min(s->block_n, left / (y->h * y->w));
    return b;
}

static void run_slice(void *context, int64_t task, int slot)
{
    const fc_grad_weight_plan *s = context;
    const fc_problem *p = s->p;
    const int64_t row_part = task % s->row_parts, column_part = task / s->row_parts % s->column_parts;
    const int64_t group = task / (s->row_parts * s->column_parts) % p->groups;
    const int64_t slice = task / (s->row_parts * s->column_parts * p->groups);
    const int64_t k0 = column_part * s->panels / s->column_parts * s->panel;
    const int64_t k1 = fc_min(p->out_channels, (column_part + 1) * s->panels / s->column_parts * s->panel);
    const int64_t first = row_part * s->row_units / s->row_parts, last = (row_part + 1) * s->row_units / s->row_parts;
    const part of = {group, first, last, k0, k1 - k0};
    const int64_t begin = first_pixel(s, slice * s->lines / s->slices),
                  end = first_pixel(s, (slice + 1) * s->lines / s->slices);
    char *scratch = s->threads + slot * s->thread_bytes;
    char *sum = s->buffer + (slice * s->buffer_slice + group * s->buffer_group + k0) * (int64_t)p->item;
    for (int64_t pixel = begin; pixel < end;) {
        const block b = block_at(s, pixel, end);
        const char *x = s->shared ? s->x + group * s->x_bytes : load_block(s, &b, group, scratch);
        add_block(s, &b, x, &of, scratch, sum, p->out_channels, pixel > begin);
        pixel += b.images * b.rows * b.columns;
    }
}

#define ADD_SLICES(type)                                                                                               \
    for (int64_t i = 1; i < s->slices; i++) {                                                                          \
        type *restrict sum = (type *)s->buffer;                                                                        \
        const type *restrict part = (const type *)s->buffer + i * s->buffer_slice;                                     \
        for (int64_t e = begin; e < end; e++)                                                                          \
            sum[e] += part[e];                                                                                         \
    }

static void add_slices(void *context, int64_t task, int slot)
{
    (void)slot;
    const fc_grad_weight_plan *s = context;
    const int64_t begin = task * ADD_ELEMENTS, end = fc_min(begin + ADD_ELEMENTS, s->p->groups * s->buffer_group);
    if (s->p->item == 4) {
        ADD_SLICES(float)
    } else {
        ADD_SLICES(double)
    }
}

fc_status fc_conv_direct_grad_weight(const fc_problem *problem)
{
    fc_problem copy = *problem;
    fc_grad_weight_plan s = fc_plan_grad_weight(&copy);
    const fc_problem *p = &copy;
    const int64_t tasks = s.slices * p->groups * s.column_parts * s.row_parts;
    const int64_t buffer = fc_round_up(s.slices * s.buffer_slice * (int64_t)p->item, 64);
    const int64_t shared = s.shared ? p->groups * s.x_bytes : 0;
    const int slots = fc_parallel_slots(tasks);
    s.buffer = fc_scratch_acquire_parts(buffer + shared, slots, s.thread_bytes);
    if (!s.buffer)
        return FC_ENOMEM;
    s.x = s.buffer + buffer;
    s.threads = s.x + shared;
    if (s.shared)
        fc_parallel(p->groups * x_parts(&s), load_part, &s);
    if (s.at_once) {
        fc_parallel_in(slots, tasks, run_single, &s);
    } else {
        fc_parallel_in(slots, tasks, run_slice, &s);
        if (s.slices > 1)
            fc_parallel(fc_ceil_div(p->groups * s.buffer_group, ADD_ELEMENTS), add_slices, &s);
        fc_parallel(p->groups * s.panels * s.unpack_parts, unpack_part, &s);
    }
    fc_scratch_release(s.buffer);
    return FC_OK;
}
