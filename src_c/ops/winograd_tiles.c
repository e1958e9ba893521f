/* winograd_tiles.c: inputs into the transformed domain. Channels-last x is read in place: squares of 6 x 6 a run of
 * tiles at a time, other tiles one by one, at the border through as many pointers as they have pixels; what lies
 * outside the image is read from zeros. Other layouts are loaded a run of tiles at a time into a zero-padded strip. */
#include "winograd_tiles.h"

#include "../scratch.h"
#include "../threads.h"

/* Products along an axis for each output of it; `phases` becomes so many times as many. Residues of the stride have
 * `least` taps, or one more, a phase for every `taps` of them. */
static double products_along(int64_t kernel, int64_t step, int64_t taps, int64_t *phases)
{
    if (kernel == 1)
        return 1;
    const int64_t least = kernel / step, more = kernel % step;
    const int64_t count = more * fc_ceil_div(least + 1, taps) + (step - more) * fc_ceil_div(least, taps),
                  whole = more * ((least + 1) / taps) + (step - more) * (least / taps);
    *phases *= count;
    return (double)(count * (fc_tile_inputs(taps) - 1) + (whole ? whole : count)) / (double)fc_tile_outputs(taps);
}

/* Taps along an axis of a phase: those with which there are the fewest products for each output, where the channels of
 * several phases are whole parts. What is a single phase, and squares of a stride that are small enough, have all of
 * the kernel's. */
static int64_t phase_taps(const fc_problem *p, int64_t step)
{
    enum { MAX_SINGLE_LINE = 4 }; /* 5 are 3 and 2, in 11 products for 4 outputs instead of 6 for 2 */
    const int64_t h = p->kernel_h, w = p->kernel_w, all = fc_ceil_div(fc_max(h, w), step);
    const int line = fc_min(h, w) == 1;
    if (line ? step == 1 && all <= MAX_SINGLE_LINE : h == w && all <= FC_WINOGRAD_MAX_KERNEL)
        return all;
    int64_t best = 0;
    double fewest = 0;
    for (int64_t taps = line ? 2 : 3; taps <= FC_WINOGRAD_MAX_KERNEL; taps++) {
        int64_t phases = 1;
        double products = products_along(h, step, taps, &phases) * products_along(w, step, taps, &phases);
        if (phases > 1)
            products *= (double)fc_round_up(p->in_channels, p->k->winograd->line) / (double)p->in_channels;
        if (phases <= FC_MAX_PHASES && (!best || products < fewest))
            best = taps, fewest = products;
    }
    return best;
}

/* First taps of the phases along an axis, which are those of their pixels too: those that have a tap at the last place
 * before the others. */
typedef struct {
    int64_t count, whole, first[FC_MAX_PHASES];
    int64_t padded; /* taps, with those beyond the kernel */
} phase_axis;

static phase_axis phases_along(int64_t kernel, int64_t step, int64_t taps)
{
    const int64_t piece = step * taps;
    phase_axis x = {.padded = kernel};
    if (kernel == 1) {
        x.count = x.whole = 1;
        return x;
    }
    for (int others = 0; others < 2; others++) {
        for (int64_t a = 0; a < step; a++)
            for (int64_t tap = a; tap < kernel; tap += piece) {
                const int64_t end = tap + piece - step + 1;
                if ((end > kernel) != others)
                    continue;
                x.first[x.count++] = tap;
                x.padded = fc_max(x.padded, end);
            }
        if (!others)
            x.whole = x.count;
    }
    if (x.whole == 0) /* of an oblong kernel: what all lack is counted and multiplied nevertheless */
        x.whole = x.count;
    return x;
}

/* A transposed convolution of a large stride asks for the tiles of hundreds of small problems. */
static void set_single_phase(fc_tiles *t)
{
    t->phases = 1;
    t->phase[0].last_points = FC_WHOLE_TILE;
    for (int i = 0; i < 4; i++)
        t->phases_at[i / 2][i % 2].end = 1;
    t->padded_h = t->p->kernel_h == 1 ? 1 : t->taps;
    t->padded_w = t->p->kernel_w == 1 ? 1 : t->taps;
}

/* In an order in which those of any point are neighbours. */
static void set_phases(fc_tiles *t)
{
    const fc_problem *p = t->p;
    t->step = p->kernel_h == 1 ? p->stride_w : p->stride_h;
    t->taps = phase_taps(p, t->step);
    if (t->step == 1 && fc_max(p->kernel_h, p->kernel_w) <= t->taps) {
        set_single_phase(t);
        return;
    }
    const phase_axis h = phases_along(p->kernel_h, t->step, t->taps), w = phases_along(p->kernel_w, t->step, t->taps);
    t->padded_h = fc_has_single_taps(t) ? p->kernel_h : h.padded;
    t->padded_w = fc_has_single_taps(t) ? p->kernel_w : w.padded;
    int64_t ends[4];
    for (int part = 0; part < 4; part++) {
        const int rows = part < 2, columns = part == 1 || part == 2; /* of those that have a tap at the last place */
        for (int64_t i = rows ? 0 : h.whole; i < (rows ? h.whole : h.count); i++)
            for (int64_t j = columns ? 0 : w.whole; j < (columns ? w.whole : w.count); j++)
                t->phase[t->phases++] = (fc_tile_phase){(int)h.first[i], (int)w.first[j],
                                                        (rows ? FC_LAST_ROW : 0) | (columns ? FC_LAST_COLUMN : 0)};
        ends[part] = t->phases;
    }
    t->phases_at[0][0] = (fc_range){0, ends[3]};
    t->phases_at[0][1] = (fc_range){ends[0], ends[2]};
    t->phases_at[1][0] = (fc_range){0, ends[1]};
    t->phases_at[1][1] = (fc_range){ends[0], ends[1]};
}

/* Dilation of an axis with several taps. */
static int64_t gap(int64_t kernel, int64_t dilation) { return kernel == 1 ? 1 : dilation; }

static void set_residues(fc_tiles *t)
{
    const fc_problem *p = t->p;
    t->gap_h = gap(p->kernel_h, p->dilation_h), t->gap_w = gap(p->kernel_w, p->dilation_w);
    t->residues_h = fc_min(t->gap_h, p->y.h), t->residues_w = fc_min(t->gap_w, p->y.w);
}

fc_tiles fc_make_tiles(const fc_problem *p)
{
    fc_tiles t = {.p = p, .in_place = p->x.stride_c == 1};
    set_phases(&t);
    set_residues(&t);
    const int64_t taps_h = p->kernel_h == 1 ? 1 : t.taps, taps_w = p->kernel_w == 1 ? 1 : t.taps;
    t.in_h = fc_tile_inputs(taps_h), t.in_w = fc_tile_inputs(taps_w);
    t.out_h = fc_tile_outputs(taps_h), t.out_w = fc_tile_outputs(taps_w);
    t.span_h = fc_extent(t.out_h, t.padded_h, t.step, 1);
    t.span_w = fc_extent(t.out_w, t.padded_w, t.step, 1);
    t.points = t.in_h * t.in_w;
    t.upright = taps_w == 1;
    const int square = taps_h == taps_w;
    if (t.taps == 2)
        t.k = square ? p->k->winograd_small : p->k->winograd_small_line;
    else
        t.k = square ? p->k->winograd : p->k->winograd_line;
    const int64_t h = fc_ceil_div(p->y.h, t.gap_h), w = fc_ceil_div(p->y.w, t.gap_w); /* of the first residue */
    t.rows = fc_ceil_div(h, t.out_h);
    const int64_t columns = fc_ceil_div(w, t.out_w);
    t.whole_rows = fc_max(0, h - t.rows * (t.out_h - 1));
    t.columns = t.residues_w * columns, t.whole_columns = t.residues_w * fc_max(0, w - columns * (t.out_w - 1));
    t.count = p->y.n * t.residues_h * t.rows * t.columns;
    t.fetch = t.in_place && t.in_h > 1 && p->x.n * p->x.h * p->x.w * p->in_channels * (int64_t)p->item > fc_l2_bytes();
    t.parts = t.phases * fc_channel_parts(p, p->in_channels);
    t.chunk = p->in_channels;
    return t;
}

void fc_set_block(fc_tiles *t, int64_t block)
{
    t->share = fc_ceil_div(block, fc_ceil_div(block, t->k->brick));
    /* What is copied is a run of one residue: a tile. */
    t->longest_run = t->residues_w == 1 || (t->in_place && t->p->y.stride_c == 1) ? fc_min(t->columns, block) : 1;
}

/* ---- residues of planes -------------------------------------------------------------------------------------------*/
static int64_t copy_bytes(const fc_problem *p, const fc_view *v, int64_t images)
{
    if (gap(p->kernel_h, p->dilation_h) * gap(p->kernel_w, p->dilation_w) == 1 || v->stride_c == 1)
        return 0;
    return fc_round_up(images * v->h * v->w * v->c * (int64_t)p->item, FC_LINE_BYTES);
}

/* Images of a stretch; 0 where x and y are not copied. A gradient of the weight is one sum over all images; a prepared
 * weight is laid out for the tiles of all of them. */
static int64_t images_of_copy(const fc_problem *p, int writes)
{
    enum { COPY_BYTES = 8 << 20 };
    const int prepared = p->packed && !p->packed_v;
    const int64_t image = copy_bytes(p, &p->x, 1) + copy_bytes(p, &p->y, 1),
                  images = image ? fc_min(p->y.n, COPY_BYTES / image) : 0;
    return (writes && !prepared) || images == p->y.n ? images : 0;
}

static fc_view images_from(const fc_view *v, int64_t n, int64_t count, int64_t item)
{
    fc_view w = *v;
    w.data = v->data ? (char *)v->data + n * v->stride_n * item : NULL;
    w.n = count;
    return w;
}

static fc_view pixels_of(const fc_view *v, char *data)
{
    fc_view w = *v;
    w.data = data;
    w.stride_c = 1, w.stride_w = w.c, w.stride_h = w.w * w.stride_w, w.stride_n = w.h * w.stride_h;
    return w;
}

static fc_problem stretch_of(const fc_problem *p, int64_t n, int64_t count)
{
    const int64_t item = (int64_t)p->item;
    fc_problem q = *p;
    q.x = images_from(&p->x, n, count, item);
    q.y = images_from(&p->y, n, count, item);
    q.residual = images_from(&p->residual, n, count, item);
    return q;
}

static int64_t own_bytes(const fc_problem *p, int64_t images)
{
    return copy_bytes(p, &p->x, images) + copy_bytes(p, &p->y, images);
}

/* Of a stretch, the last one included. */
static int64_t images_scratch(const fc_problem *p, int64_t images, fc_need_of *need)
{
    const int64_t rest = p->y.n % images;
    int64_t most = 0;
    for (int i = 0; need && i <= (rest > 0); i++) {
        fc_problem q = stretch_of(p, 0, i ? rest : images);
        q.x = pixels_of(&q.x, NULL), q.y = pixels_of(&q.y, NULL);
        most = fc_max(most, fc_need_bytes(need(&q)));
    }
    return most;
}

fc_need fc_pixels_scratch(const fc_problem *p, fc_need_of *need)
{
    const int64_t images = images_of_copy(p, 1);
    return images ? (fc_need){own_bytes(p, images) + images_scratch(p, images, need), 0} : need(p);
}

static fc_status run_on_copies(const fc_problem *p, int writes, char *memory, fc_run *run)
{
    const fc_dtype dtype = p->item == sizeof(float) ? FC_F32 : FC_F64;
    fc_problem q = *p;
    if (p->x.stride_c != 1) {
        q.x = pixels_of(&p->x, memory);
        fc_copy(dtype, &p->x, &q.x);
        memory += copy_bytes(p, &p->x, p->x.n);
    }
    if (p->y.stride_c != 1) {
        q.y = pixels_of(&p->y, memory);
        if (!writes)
            fc_copy(dtype, &p->y, &q.y);
    }
    const fc_status status = run(&q);
    if (p->y.stride_c != 1 && writes && status == FC_OK)
        fc_copy(dtype, &q.y, &p->y);
    return status;
}

fc_status fc_run_on_pixels(const fc_problem *p, fc_run *run, fc_need_of *need)
{
    const int64_t images = images_of_copy(p, need != NULL);
    if (images == 0)
        return run(p);
    const fc_shared_scratch memory = fc_scratch_share(own_bytes(p, images), images_scratch(p, images, need));
    fc_status status = memory.own ? FC_OK : FC_ENOMEM;
    for (int64_t n = 0; n < p->y.n && status == FC_OK; n += images) {
        const fc_problem q = stretch_of(p, n, fc_min(images, p->y.n - n));
        status = run_on_copies(&q, need != NULL, memory.own, run);
    }
    fc_scratch_unshare(memory);
    return status;
}

/* ---- inputs -------------------------------------------------------------------------------------------------------*/
fc_tile_image fc_tile_image_at(const fc_tiles *t, int64_t index)
{
    const fc_problem *p = t->p;
    if (t->gap_h == 1) /* the divisions below take as long as half a tile of 16 channels */
        return (fc_tile_image){.n = index, .h = {0, p->x.h, p->y.h, p->pad_top}};
    fc_tile_image m = {.n = index / t->residues_h, .row = index % t->residues_h};
    m.h = fc_residue_of(m.row, t->gap_h, p->pad_top, p->x.h, p->y.h);
    return m;
}

static fc_image image_at(const fc_tiles *t, const fc_view *v, const fc_tile_image *m, int64_t row, int64_t channel,
                         int64_t channels)
{
    fc_image image = fc_image_of(v, t->p->item, m->n, channel, channels);
    image.data += row * v->stride_h * (int64_t)t->p->item;
    image.stride_h *= t->gap_h;
    return image;
}

fc_image fc_tile_image_x(const fc_tiles *t, const fc_tile_image *m, int64_t channel, int64_t channels)
{
    fc_image image = image_at(t, &t->p->x, m, m->h.first, channel, channels);
    image.h = m->h.x_size;
    return image;
}

fc_image fc_tile_image_y(const fc_tiles *t, const fc_tile_image *m, int64_t channel, int64_t channels)
{
    fc_image image = image_at(t, &t->p->y, m, m->row, channel, channels);
    image.h = m->h.y_size;
    return image;
}

/* The i < count for which start + i * step lies inside an axis. */
static fc_range inside(int64_t start, int64_t step, int64_t count, int64_t size)
{
    if (step == 1) /* divisions would take as long as a tenth of four tiles of 16 channels */
        return (fc_range){fc_max(0, -start), fc_min(count, size - start)};
    return (fc_range){start < 0 ? fc_ceil_div(-start, step) : 0, fc_min(count, fc_ceil_div(size - start, step))};
}

/* v[e] = B' x B of some channels of a phase of a tile, whose corner is (top, left) of an image of which x is that
 * corner. */
static void transform_border(const fc_tiles *t, const fc_image *image, int last, int64_t top, int64_t left,
                             const char *x, int64_t row, int64_t pixel, int64_t channels, char *v)
{
    const int64_t item = (int64_t)t->p->item;
    const fc_range h = inside(top, t->step, t->in_h, image->h), w = inside(left, t->step * t->gap_w, t->in_w, image->w);
    const void *from[FC_WINOGRAD_MAX_POINTS];
    for (int e = 0; e < t->points; e++)
        from[e] = t->zeros;
    for (int64_t i = h.first; i < h.end; i++)
        for (int64_t j = w.first; j < w.end; j++)
            from[t->in_w * i + j] = x + (i * row + j * pixel) * item;
    t->k->input_border(from, channels, last, v);
}

/* What the tiles of a run read: x from column `first` on, which is at `base`, an image or a strip; pitches. */
typedef struct {
    fc_image image;
    const char *base;
    int64_t top, first, row, column, pixel;
    int64_t channels;
} run_inputs;

/* All phases of a line or of a square of 5 x 5, column `left`, which begins at x: v[chunk][phase][part of channels]. */
static void transform_tile(const fc_tiles *t, const run_inputs *in, int wanted, int64_t left, const char *x, char *v)
{
    const fc_problem *p = t->p;
    const int64_t item = (int64_t)p->item, part = fc_part_elements(t) * item, step = t->step, row = in->row,
                  pixel = in->pixel;
    const fc_image *image = &in->image;
    const int inner = !t->in_place || (in->top >= 0 && in->top + t->span_h <= image->h && left >= 0 &&
                                       left + (t->span_w - 1) * t->gap_w < image->w); /* the strip has its zeros */
    for (int64_t c = 0; c < in->channels; c += t->chunk) {
        const int64_t channels = fc_min(t->chunk, in->channels - c);
        for (int64_t i = 0; i < t->phases; i++, v += fc_channel_parts(p, channels) * part) {
            const fc_tile_phase f = t->phase[i];
            const int last = (f.last_points & wanted) | (t->phases > 1 ? FC_WHOLE_PARTS : 0);
            const char *from = x + (f.row * row + f.column * pixel + c) * item;
            if (inner)
                t->k->input(from, step * row, step * (t->upright ? row : pixel), channels, last, v);
            else
                transform_border(t, image, last, in->top + f.row, left + f.column * t->gap_w, from, step * row,
                                 step * pixel, channels, v);
        }
    }
}

static int64_t strip_row(const fc_tiles *t, int64_t channels)
{
    return (t->p->stride_w * t->out_w * (t->longest_run - 1) + t->span_w) * channels;
}

int64_t fc_tiles_strip_bytes(const fc_tiles *t)
{
    return t->in_place ? 0 : fc_round_up(t->span_h * strip_row(t, t->p->in_channels) * (int64_t)t->p->item, 64);
}

static fc_tile_run position(const fc_tiles *t, int64_t tile)
{
    const int64_t row = tile / t->columns;
    return (fc_tile_run){.n = row / t->rows, .row = row % t->rows, .column = tile % t->columns};
}

static int all_whole(const fc_tiles *t) { return t->whole_rows == t->rows && t->whole_columns == t->columns; }

/* Tiles of a kind before a tile. */
static int64_t tiles_before(const fc_tiles *t, const fc_tile_run *r, int kind)
{
    const int short_row = kind >= FC_SHORT_ROW, short_column = kind == FC_SHORT_COLUMN || kind == FC_SHORT_BOTH;
    const int64_t top = short_row ? t->whole_rows : 0, left = short_column ? t->whole_columns : 0;
    const int64_t height = (short_row ? t->rows : t->whole_rows) - top,
                  width = (short_column ? t->columns : t->whole_columns) - left;
    const int64_t row = r->row - top, in_row = fc_max(0, fc_min(r->column - left, width));
    return (r->n * height + fc_max(0, fc_min(row, height))) * width + (row >= 0 && row < height ? in_row : 0);
}

fc_tile_block fc_block_of(const fc_tiles *t, int64_t first, int64_t end)
{
    fc_tile_block b = {.first = first, .end = end};
    if (all_whole(t)) {
        b.kinds[FC_WHOLE + 1] = b.kinds[FC_SHORT_ROW + 1] = b.kinds[FC_SHORT_BOTH + 1] = end - first;
        return b;
    }
    const fc_tile_run from = position(t, first), to = position(t, end);
    for (int kind = 0; kind < FC_TILE_KINDS; kind++) {
        const int64_t before = tiles_before(t, &from, kind);
        b.start[kind] = b.kinds[kind] - before;
        b.kinds[kind + 1] = b.kinds[kind] + tiles_before(t, &to, kind) - before;
    }
    return b;
}

fc_tile_run fc_run_at(const fc_tiles *t, const fc_tile_block *b, int64_t tile, int64_t end)
{
    fc_tile_run r = position(t, tile);
    r.count = fc_min(fc_min(t->columns - r.column, t->longest_run), end - tile);
    r.whole = tile - b->first;
    if (all_whole(t))
        return r;
    const int whole = r.row < t->whole_rows ? FC_WHOLE : FC_SHORT_ROW,
              others = r.row < t->whole_rows ? FC_SHORT_COLUMN : FC_SHORT_BOTH;
    r.whole = b->start[whole] + tiles_before(t, &r, whole);
    r.others = b->start[others] + tiles_before(t, &r, others);
    return r;
}

static int has_short_phases(const fc_tiles *t)
{
    const fc_range least = t->phases_at[1][1];
    return least.end - least.first < t->phases;
}

fc_tile_slots fc_slots_of(const fc_tiles *t, const fc_tile_block *b, int e)
{
    const int64_t *kinds = b->kinds, tiles = kinds[FC_TILE_KINDS];
    if (tiles == kinds[FC_WHOLE + 1] - kinds[FC_WHOLE] && !has_short_phases(t))
        return (fc_tile_slots){0, tiles, (int)t->points - e};
    const int last_row = e / t->in_w == t->in_h - 1, last_column = e % t->in_w == t->in_w - 1;
    const int64_t first = last_column ? kinds[FC_WHOLE] : 0, end = kinds[last_row      ? FC_SHORT_ROW
                                                                         : last_column ? FC_SHORT_BOTH
                                                                                       : FC_TILE_KINDS];
    return (fc_tile_slots){first, end - first, last_column ? 1 : (int)(t->in_w - 1 - e % t->in_w)};
}

static run_inputs inputs_of(const fc_tiles *t, fc_range channels, const fc_tile_run *r, char *strip)
{
    const fc_problem *p = t->p;
    const fc_tile_image at = fc_tile_image_at(t, r->n);
    run_inputs in = {.image = fc_tile_image_x(t, &at, channels.first, channels.end - channels.first),
                     .top = p->stride_h * fc_tile_start(r->row, t->whole_rows, t->out_h) - at.h.pad,
                     .first = p->stride_w * fc_tile_left(t, r->column) - p->pad_left,
                     .channels = channels.end - channels.first};
    in.row = in.image.stride_h, in.column = in.image.stride_w, in.pixel = t->gap_w * in.column;
    in.base = in.image.data + (in.top * in.row + in.first * in.column) * (int64_t)p->item;
    if (!t->in_place) {
        const fc_window window = {in.top,  t->span_h, 1, in.first, p->stride_w * t->out_w * (r->count - 1) + t->span_w,
                                  t->gap_w};
        in.row = strip_row(t, in.channels), in.column = in.pixel = in.channels;
        fc_load_window(p->k, p->item, &in.image, &window, strip, &(fc_pitch){in.row, in.column, 1});
        in.base = strip;
    }
    return in;
}

/* The first column that a tile reads, and where its corner is; the tiles below read what is fetched. */
static int64_t left_of(const fc_tiles *t, const run_inputs *in, int64_t column, const char **x)
{
    const fc_problem *p = t->p;
    const int64_t left = p->stride_w * fc_tile_left(t, column) - p->pad_left, item = (int64_t)p->item,
                  step_w = p->stride_w * t->out_w;
    *x = in->base + (left - in->first) * in->column * item;
    if (t->fetch)
        fc_fetch_pixels(*x + (t->span_h * in->row + (t->span_w - step_w) * in->pixel) * item, p->stride_h * t->out_h,
                        step_w, in->row * item, in->pixel * item, in->channels * item);
    return left;
}

static void transform_run(const fc_tiles *t, const fc_tile_run *r, const run_inputs *in, char *v)
{
    fc_tile_place place = fc_first_place(t, r, t->parts);
    for (int64_t column = r->column; column < r->column + r->count;) {
        const char *x;
        const int64_t left = left_of(t, in, column, &x);
        transform_tile(t, in, fc_tile_wanted(t, r->row, column), left, x, v + place.at * (int64_t)t->p->item);
        fc_next_place(t, r, ++column, &place);
    }
}

/* All phases of squares of 6 x 6 in a row, the first of which begins at x, column `left`. */
static void transform_squares(const fc_tiles *t, const run_inputs *in, int64_t left, const char *x,
                              fc_winograd_inputs *s)
{
    const fc_problem *p = t->p;
    const int64_t item = (int64_t)p->item, part = fc_part_elements(t) * item, row = t->step * in->row,
                  pixel = t->step * in->pixel;
    s->columns = s->start[s->tiles - 1] + t->in_w;
    for (int64_t c = 0; c < in->channels; c += t->chunk) {
        s->channels = fc_min(t->chunk, in->channels - c);
        const int64_t parts = fc_channel_parts(p, s->channels);
        for (int64_t i = 0; i < t->phases; i++) {
            const fc_tile_phase f = t->phase[i];
            fc_range h = {0, t->in_h}, w = {0, s->columns}; /* a strip has its zeros */
            if (t->in_place) {
                h = inside(in->top + f.row, t->step, t->in_h, in->image.h);
                w = inside(left + f.column * t->gap_w, t->step * t->gap_w, s->columns, in->image.w);
            }
            s->first = fc_min(w.first, s->columns), s->end = fc_max(w.end, s->first);
            const char *from = x + (f.row * in->row + f.column * in->pixel + s->first * pixel + c) * item;
            for (int64_t j = 0; j < t->in_h; j++) {
                const int seen = j >= h.first && j < h.end;
                s->x[j] = seen ? from + j * row * item : t->zeros;
                s->pitch[j] = seen ? pixel * item : 0;
            }
            t->k->inputs(s);
            for (int64_t j = 0; j < s->tiles; j++)
                s->v[j] = (char *)s->v[j] + parts * part;
        }
    }
}

/* Neighbouring tiles of one residue have columns in common, and are transformed together. */
static void transform_squares_of_run(const fc_tiles *t, const fc_tile_run *r, const run_inputs *in, char *v)
{
    const int64_t unit = t->step * t->gap_w;
    fc_tile_place place = fc_first_place(t, r, t->parts);
    for (int64_t column = r->column, end = column + r->count; column < end;) {
        const int64_t count = fc_min(FC_WINOGRAD_RUN, end - column);
        int64_t left[FC_WINOGRAD_RUN];
        const char *x[FC_WINOGRAD_RUN];
        char *to[FC_WINOGRAD_RUN];
        for (int64_t i = 0; i < count; i++) {
            left[i] = left_of(t, in, column, &x[i]);
            to[i] = v + place.at * (int64_t)t->p->item;
            fc_next_place(t, r, ++column, &place);
        }
        for (int64_t a = 0; a < fc_min(t->residues_w, count); a++) {
            fc_winograd_inputs squares; /* no zeros: to fill it takes as long as to transform a row of points */
            squares.tiles = 0;
            squares.whole_parts = t->phases > 1, squares.last_row = r->row < t->whole_rows;
            for (int64_t i = a; i < count; i += t->residues_w) {
                const int64_t offset = left[i] - left[a];
                squares.start[squares.tiles] = unit == 1 ? offset : offset / unit;
                squares.v[squares.tiles++] = to[i];
            }
            transform_squares(t, in, left[a], x[a], &squares);
        }
    }
}

void fc_transform_channels(const fc_tiles *t, const fc_tile_block *b, fc_range channels, int64_t first, int64_t end,
                           char *strip, char *v)
{
    for (int64_t tile = first; tile < end;) {
        const fc_tile_run r = fc_run_at(t, b, tile, end);
        const run_inputs in = inputs_of(t, channels, &r, strip);
        (t->k->inputs ? transform_squares_of_run : transform_run)(t, &r, &in, v);
        tile += r.count;
    }
}
