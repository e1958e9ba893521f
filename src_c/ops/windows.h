/* windows.h: what pooling drivers share: which positions a window holds, how a call is cut into tasks, tiles. */
#ifndef FC_WINDOWS_H
#define FC_WINDOWS_H
#include "../kernels/kernels.h"
#include "image.h"

enum {
    FC_STREAM_ALIGN = 64, /* the widest vector */
    FC_TILE_BYTES = 64, /* channels-first images are pooled a cache line of channels at a time */
};

/* Whether so many bytes are more than a third of the last-level cache: what is left there must outlive what is read
 * meanwhile, and what its reader writes, three arrays of a size. In a chain of copies (Zen 3, 32 MiB) stores through
 * the caches take 0.4 of the time of those past them at 4 MiB, 0.6 at 6, 1.4 at 8, 1.4 at 12, 1.8 at 16; a copy that is
 * only read, by nobody who writes, 0.4 at 8, 0.9 at 10, 1.3 at 12. */
int fc_fills_cache(int64_t written);
/* Whether a call that does little but write and read so many bytes should write past the caches: if it fills them, and
 * with several threads, if it all does not fit: two cores of a Zen 4 write 28 GB/s past the caches, and a ReLU of 12.8
 * MB takes 0.45 ms so and 0.28 through them; one core 0.47 and 0.58. */
int fc_should_stream(int64_t written, int64_t read);

static inline int64_t fc_lesser(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fc_greater(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t fc_parts(int64_t size, int64_t part) { return (size + part - 1) / part; }

/* Adaptive windows as an axis whose kernel and stride bound theirs, and are theirs where they divide it. */
fc_pool_axis fc_window_axis(const fc_pool_axis *, int adaptive, int64_t in, int64_t out);
/* spans[i] for i < out */
void fc_window_spans(const fc_pool_axis *, int adaptive, int count_include_pad, int64_t in, int64_t out,
                     fc_span *spans);
/* covers[h] = the windows [first, first + count) that hold position h < in; dilation 1 */
void fc_window_covers(const fc_span *spans, int64_t in, int64_t out, fc_cover *covers);
/* covers[h] = the pairs (window, tap) that meet at position h; as many pairs as all spans have positions */
void fc_window_pairs(const fc_span *spans, int64_t step, int64_t in, int64_t out, fc_cover *covers, fc_pair *pairs);
/* First and one past the last position that `count` spans hold. */
void fc_window_range(const fc_span *spans, int64_t count, int64_t step, int64_t *begin, int64_t *end);

/* An output of rows x cols x lanes cut into equal blocks; task t is one block of one image, or where blocks are small a
 * group of neighbouring ones. */
typedef struct {
    int64_t rows, cols, lanes;
    int64_t row_parts, col_parts, lane_parts, tasks;
} fc_blocks;
typedef struct {
    int64_t n, row, rows, col, cols, lane, lanes;
} fc_block;
/* `axes` of the windows: an output block of r rows reads (r - 1) * stride + reach rows of the other side, at most
 * limit. */
typedef struct {
    int64_t size, stride_up, stride_down, reach, limit;
} fc_block_axis;
/* work: loads per output element. tile_lanes: 0, or the lanes of a tile that holds the other side of a block. */
fc_blocks fc_blocks_of(int64_t n, int64_t lanes, const fc_block_axis *h, const fc_block_axis *w, int64_t work,
                       int64_t tile_lanes);
/* How many blocks make a task */
int64_t fc_blocks_group(const fc_blocks *, int64_t work);
fc_block fc_block_at(const fc_blocks *, const fc_view *output, int64_t task);
/* Positions of the other side that `count` outputs of an axis can touch. */
int64_t fc_block_reach(const fc_block_axis *, int64_t count);

/* Whether images and channels can be counted as one axis in all of `count` views, which is then done. */
int fc_merge_images(fc_view *const *views, int count);

/* tile[row][col][lane] of pitch `lanes`, from and to the rectangle at (n, lane, row, col) of a view */
void fc_tile_load(const fc_kernels *, size_t item, const fc_view *, const fc_block *, void *tile, int64_t pitch);
void fc_tile_store(const fc_kernels *, size_t item, const fc_view *, const fc_block *, const void *tile, int64_t pitch);
#endif
