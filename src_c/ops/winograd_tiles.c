/* winograd_tiles.c: inputs into the transformed domain. Channels-last x is read in place through 25 or 36 pointers per tile, those
 * outside the image to zeros; other layouts are loaded a run of tiles at a time into a zero-padded strip. */
#include "winograd_tiles.h"

fc_tiles fc_make_tiles(const fc_problem *p)
{
    fc_tiles t = {.p = p, .in_place = p->x.stride_c == 1};
    t.step = p->stride_h, t.phases = t.step * t.step;
    const int64_t taps_h = fc_ceil_div(p->kernel_h, t.step), taps_w = fc_ceil_div(p->kernel_w, t.step);
    t.in_h = fc_tile_inputs(taps_h), t.in_w = fc_tile_inputs(taps_w);
    t.out_h = fc_tile_outputs(taps_h), t.out_w = fc_tile_outputs(taps_w);
    t.span_h = fc_extent(t.out_h, p->kernel_h, t.step, 1), t.span_w = fc_extent(t.out_w, p->kernel_w, t.step, 1);
    t.points = t.in_h * t.in_w;
    t.taps = fc_max(taps_h, taps_w);
    t.upright = taps_w == 1;
    const int square = taps_h == taps_w;
    if (t.taps == 2)
        t.k = square ? p->k->winograd_small : p->k->winograd_small_line;
    else
        t.k = square ? p->k->winograd : p->k->winograd_line;
    t.rows = fc_ceil_div(p->y.h, t.out_h);
    t.columns = fc_ceil_div(p->y.w, t.out_w);
    t.count = p->y.n * t.rows * t.columns;
    t.fetch = t.in_place && t.in_h > 1 && p->x.n * p->x.h * p->x.w * p->in_channels * (int64_t)p->item > fc_l2_bytes();
    t.parts = t.phases * fc_channel_parts(p, p->in_channels);
    t.chunk = p->in_channels;
    return t;
}

void fc_set_block(fc_tiles *t, int64_t block)
{
    t->share = fc_ceil_div(block, fc_ceil_div(block, t->k->brick));
    t->longest_run = fc_min(t->columns, block);
}

/* The i < count for which start + i * step lies inside an axis. */
static fc_range inside(int64_t start, int64_t step, int64_t count, int64_t size)
{
    const fc_range r = {start < 0 ? fc_ceil_div(-start, step) : 0, fc_min(count, fc_ceil_div(size - start, step))};
    return r;
}

/* v[e] = B' x B of some channels of a phase of a tile, whose corner is (top, left) of an image of which x is that corner. */
static void transform_border(const fc_tiles *t, int last, int64_t top, int64_t left, const char *x, int64_t row,
                             int64_t pixel, int64_t channels, char *v)
{
    const int64_t item = (int64_t)t->p->item;
    const fc_range h = inside(top, t->step, t->in_h, t->p->x.h), w = inside(left, t->step, t->in_w, t->p->x.w);
    const void *from[FC_WINOGRAD_MAX_POINTS];
    for (int e = 0; e < t->points; e++)
        from[e] = t->zeros;
    for (int64_t i = h.first; i < h.end; i++)
        for (int64_t j = w.first; j < w.end; j++)
            from[t->in_w * i + j] = x + (i * row + j * pixel) * item;
    t->k->input_border(from, channels, last, v);
}

/* All phases of a tile: v[chunk][phase][part of channels]. */
static void transform_tile(const fc_tiles *t, int64_t top, int64_t left, const char *x, int64_t row, int64_t pixel,
                           char *v)
{
    const fc_problem *p = t->p;
    const int64_t item = (int64_t)p->item, part = fc_part_elements(t) * item, step = t->step;
    const int whole = !t->in_place || (top >= 0 && top + t->span_h <= p->x.h && left >= 0 &&
                                       left + t->span_w <= p->x.w); /* the strip has its zeros */
    for (int64_t c = 0; c < p->in_channels; c += t->chunk) {
        const int64_t channels = fc_min(t->chunk, p->in_channels - c);
        for (int64_t i = 0; i < t->phases; i++, v += fc_channel_parts(p, channels) * part) {
            const fc_tile_phase f = fc_tile_phase_at(p, i);
            const char *from = x + (f.row * row + f.column * pixel + c) * item;
            if (whole)
                t->k->input(from, step * row, step * (t->upright ? row : pixel), channels, f.last, v);
            else
                transform_border(t, f.last, top + f.row, left + f.column, from, step * row, step * pixel, channels, v);
        }
    }
}

static int64_t strip_row(const fc_tiles *t)
{
    return (t->step * t->out_w * (t->longest_run - 1) + t->span_w) * t->p->in_channels;
}

int64_t fc_tiles_strip_bytes(const fc_tiles *t)
{
    return t->in_place ? 0 : fc_round_up(t->span_h * strip_row(t) * (int64_t)t->p->item, 64);
}

fc_tile_run fc_run_at(const fc_tiles *t, int64_t tile, int64_t end)
{
    fc_tile_run r = {
        .n = tile / (t->rows * t->columns), .row = tile / t->columns % t->rows, .column = tile % t->columns};
    r.count = fc_min(t->columns - r.column, end - tile);
    return r;
}

static void transform_run(const fc_tiles *tiles, int64_t group, const fc_tile_run *r, int64_t at, char *strip, char *v)
{
    const fc_problem *p = tiles->p;
    const int64_t item = (int64_t)p->item, step_h = tiles->step * tiles->out_h, step_w = tiles->step * tiles->out_w;
    const int64_t top = r->row * step_h - p->pad_top;
    int64_t left = r->column * step_w - p->pad_left;
    const fc_image image = fc_image_of(&p->x, p->item, r->n, group * p->in_channels, p->in_channels);
    const char *base = image.data + (top * image.stride_h + left * image.stride_w) * item;
    int64_t row = image.stride_h, pixel = image.stride_w;
    if (!tiles->in_place) {
        const fc_window window = {top, tiles->span_h, 1, left, step_w * (r->count - 1) + tiles->span_w, 1};
        row = strip_row(tiles), pixel = p->in_channels;
        fc_load_window(p->k, p->item, &image, &window, strip, &(fc_pitch){row, pixel, 1});
        base = strip;
    }
    for (int64_t t = 0; t < r->count; t++, left += step_w) {
        const char *x = base + step_w * t * pixel * item;
        if (tiles->fetch)
            fc_fetch_pixels(x + (tiles->span_h * row + (tiles->span_w - step_w) * pixel) * item, step_h, step_w,
                            row * item, pixel * item, p->in_channels * item);
        transform_tile(tiles, top, left, x, row, pixel, v + fc_tile_at(tiles, at + t, tiles->parts) * item);
    }
}

void fc_transform_inputs(const fc_tiles *t, int64_t group, int64_t first, int64_t end, int64_t base, char *strip,
                         char *v)
{
    for (int64_t tile = first; tile < end;) {
        const fc_tile_run r = fc_run_at(t, tile, end);
        transform_run(t, group, &r, tile - base, strip, v);
        tile += r.count;
    }
}
