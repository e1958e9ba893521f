/* windows.c: windows of an axis, blocks of an output, tiles of an image. */
#include "windows.h"
#include "../threads.h"

#include <stdio.h>

enum {
    TASK_WORK = 1 << 17,   /* loads per task: 10 to 30 us, enough to hide the 0.1 us of taking a task */
    LAST_CACHE = 32 << 20,  /* bytes of the last-level cache where the machine does not tell */
    TILE_LIMIT = 128 << 10, /* bytes of a tile: with its output it stays in a 256 KiB second-level cache */
};

/* Bytes of the last-level cache that a processor can use. Linux tells those of one such cache; the sysconf of glibc
 * adds up all of an AMD package, 384 MiB for 12 of 32, or finds none (Arm). */
static int64_t last_cache(void)
{
    long kib = 0;
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (file) {
        if (fscanf(file, "%ldK", &kib) != 1)
            kib = 0;
        fclose(file);
    }
    return kib >= 1 << 10 ? (int64_t)kib << 10 : LAST_CACHE;
}

static int64_t last_cache_once(void)
{
    static int64_t cache; /* benign race: every thread writes the same value */
    int64_t known = __atomic_load_n(&cache, __ATOMIC_RELAXED);
    if (!known) {
        known = last_cache();
        __atomic_store_n(&cache, known, __ATOMIC_RELAXED);
    }
    return known;
}

int fc_fills_cache(int64_t written) { return written > last_cache_once() / 3; }

int fc_should_stream(int64_t written, int64_t read)
{
    const int alone = fc_parallel_slots(INT64_MAX) == 1;
    return fc_fills_cache(written) && (alone || written + read > last_cache_once() / 8 * 7);
}

fc_pool_axis fc_window_axis(const fc_pool_axis *axis, int adaptive, int64_t in, int64_t out)
{
    if (!adaptive)
        return *axis;
    if (in % out == 0)
        return (fc_pool_axis){.kernel = in / out, .stride = in / out, .dilation = 1};
    return (fc_pool_axis){.kernel = fc_lesser(in, in / out + 2), .stride = fc_parts(in, out), .dilation = 1};
}

static fc_span adaptive_span(int64_t i, int64_t in, int64_t out)
{
    const int64_t begin = (int64_t)((__int128)i * in / out);
    const int64_t end = (int64_t)(((__int128)(i + 1) * in + out - 1) / out);
    return (fc_span){.begin = begin, .count = end - begin, .area = end - begin};
}

void fc_window_spans(const fc_pool_axis *a, int adaptive, int count_include_pad, int64_t in, int64_t out,
                     fc_span *spans)
{
    for (int64_t i = 0; i < out; i++) {
        if (adaptive) {
            spans[i] = adaptive_span(i, in, out);
            continue;
        }
        const int64_t start = i * a->stride - a->pad_before;
        const int64_t tap = start < 0 ? fc_parts(-start, a->dilation) : 0;
        const int64_t end = fc_lesser(a->kernel, start < in ? fc_parts(in - start, a->dilation) : 0);
        spans[i] = (fc_span){.begin = start + tap * a->dilation, .count = end - tap, .tap = tap, .area = end - tap};
        if (count_include_pad)
            spans[i].area = fc_lesser(start + a->kernel, in + a->pad_after) - start;
    }
}

void fc_window_covers(const fc_span *spans, int64_t in, int64_t out, fc_cover *covers)
{
    int64_t first = 0, end = 0; /* both ends of a window grow with its number */
    for (int64_t h = 0; h < in; h++) {
        while (first < out && spans[first].begin + spans[first].count <= h)
            first++;
        end = fc_greater(end, first);
        while (end < out && spans[end].begin <= h)
            end++;
        covers[h] = (fc_cover){first, end - first};
    }
}

void fc_window_pairs(const fc_span *spans, int64_t step, int64_t in, int64_t out, fc_cover *covers, fc_pair *pairs)
{
    for (int64_t h = 0; h < in; h++)
        covers[h] = (fc_cover){0, 0};
    for (int64_t i = 0; i < out; i++)
        for (int64_t u = 0; u < spans[i].count; u++)
            covers[spans[i].begin + u * step].count++;
    int64_t first = 0;
    for (int64_t h = 0; h < in; h++) {
        covers[h].first = first;
        first += covers[h].count;
        covers[h].count = 0;
    }
    for (int64_t i = 0; i < out; i++)
        for (int64_t u = 0; u < spans[i].count; u++) {
            fc_cover *cover = &covers[spans[i].begin + u * step];
            pairs[cover->first + cover->count++] = (fc_pair){i, spans[i].tap + u};
        }
}

void fc_window_range(const fc_span *spans, int64_t count, int64_t step, int64_t *begin, int64_t *end)
{
    *begin = spans[0].begin, *end = spans[count - 1].begin + spans[count - 1].count;
    if (step == 1) /* both ends of a window grow with its number */
        return;
    for (int64_t i = 0; i < count; i++) {
        *begin = fc_lesser(*begin, spans[i].begin);
        *end = fc_greater(*end, spans[i].begin + (spans[i].count - 1) * step + 1);
    }
}

int64_t fc_block_reach(const fc_block_axis *axis, int64_t count)
{
    return fc_lesser(axis->limit, (count - 1) * axis->stride_up / axis->stride_down + axis->reach);
}

fc_blocks fc_blocks_of(int64_t n, int64_t lanes, const fc_block_axis *h, const fc_block_axis *w, int64_t work,
                       int64_t tile_lanes)
{
    fc_blocks b = {.lanes = tile_lanes ? fc_lesser(lanes, tile_lanes) : lanes};
    work = fc_greater(1, work);
    int64_t positions = fc_greater(1, TASK_WORK / fc_greater(1, b.lanes * work));
    if (tile_lanes) /* halos are loaded twice: blocks are larger */
        positions *= 4;
    b.cols = fc_lesser(w->size, positions);
    while (tile_lanes && b.cols > 1 && fc_block_reach(h, 1) * fc_block_reach(w, b.cols) > TILE_LIMIT / FC_TILE_BYTES)
        b.cols = fc_parts(b.cols, 2);
    b.rows = b.cols < w->size ? 1 : fc_lesser(h->size, fc_greater(1, positions / b.cols));
    while (tile_lanes && b.rows > 1 &&
           fc_block_reach(h, b.rows) * fc_block_reach(w, b.cols) > TILE_LIMIT / FC_TILE_BYTES)
        b.rows = fc_parts(b.rows, 2);
    b.row_parts = fc_parts(h->size, b.rows);
    b.rows = fc_parts(h->size, b.row_parts);
    b.col_parts = fc_parts(w->size, b.cols);
    b.lane_parts = fc_parts(lanes, b.lanes);
    b.tasks = n * b.lane_parts * b.row_parts * b.col_parts;
    return b;
}

int64_t fc_blocks_group(const fc_blocks *b, int64_t work)
{
    const int64_t most = fc_greater(1, TASK_WORK / fc_greater(1, b->rows * b->cols * b->lanes * work));
    return fc_parts(b->tasks, fc_greater(1, fc_parts(b->tasks, most))); /* equal ones: two threads share few */
}

fc_block fc_block_at(const fc_blocks *b, const fc_view *output, int64_t task)
{
    const int64_t col = task % b->col_parts, row = task / b->col_parts % b->row_parts;
    const int64_t lane = task / b->col_parts / b->row_parts % b->lane_parts;
    fc_block block = {.n = task / b->col_parts / b->row_parts / b->lane_parts,
                      .row = row * b->rows,
                      .col = col * b->cols,
                      .lane = lane * b->lanes};
    block.rows = fc_greater(0, fc_lesser(b->rows, output->h - block.row));
    block.cols = fc_lesser(b->cols, output->w - block.col);
    block.lanes = fc_lesser(b->lanes, output->c - block.lane);
    return block;
}

int fc_merge_images(fc_view *const *views, int count)
{
    for (int i = 0; i < count; i++)
        if (views[i]->c > 1 && views[i]->n > 1 && views[i]->stride_n != views[i]->c * views[i]->stride_c)
            return 0;
    for (int i = 0; i < count; i++) {
        fc_view *v = views[i];
        if (v->c == 1)
            v->stride_c = v->stride_n;
        v->c *= v->n;
        v->n = 1;
    }
    return 1;
}

static int streams(size_t item, const fc_view *v)
{
    const int64_t size = (int64_t)item;
    return fc_should_stream(v->n * v->c * v->h * v->w * size, v->n * v->c * v->h * v->w * size) &&
           v->stride_c * size % FC_STREAM_ALIGN == 0;
}

/* Whole rows that follow each other in memory are one long row. */
static fc_image tile_image(size_t item, const fc_view *v, const fc_block *b, fc_window *window)
{
    fc_image image = fc_image_of(v, item, b->n, b->lane, b->lanes);
    *window = (fc_window){
        .top = b->row, .rows = b->rows, .row_step = 1, .left = b->col, .columns = b->cols, .column_step = 1};
    if (b->cols == v->w && v->stride_h == v->w * v->stride_w) {
        image.w = v->h * v->w;
        image.h = 1;
        *window =
            (fc_window){.rows = 1, .row_step = 1, .left = b->row * v->w, .columns = b->rows * v->w, .column_step = 1};
    }
    return image;
}

void fc_tile_load(const fc_kernels *k, size_t item, const fc_view *v, const fc_block *b, void *tile, int64_t pitch)
{
    fc_window window;
    const fc_image image = tile_image(item, v, b, &window);
    fc_load_window(k, item, &image, &window, tile, &(fc_pitch){b->cols * pitch, pitch, 1});
}

void fc_tile_store(const fc_kernels *k, size_t item, const fc_view *v, const fc_block *b, const void *tile,
                   int64_t pitch)
{
    fc_window window;
    fc_image image = tile_image(item, v, b, &window);
    image.stream = streams(item, v);
    fc_store_window(k, item, &image, &window, tile, &(fc_pitch){b->cols * pitch, pitch, 1});
}
