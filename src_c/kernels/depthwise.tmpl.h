/* depthwise.tmpl.h: two multiply-adds and two loads per cycle, and a load that straddles cache lines (x of a user's
 * array mostly does) counts twice: PX neighbouring outputs share what they load. A column of x is loaded once for all
 * taps of a group, a weight once for the PX outputs: 3 taps take 10 + 3 loads for 24 multiply-adds. PX = 8 accumulators
 * cover an FMA latency of 4 at two per cycle. A tile of PX pixels walks down the rows, so that the rows under it stay
 * in L1 and each is read once from beyond. */
#define FC_PX 8
#define FC_LEAST_PX 5 /* of a tile that may have fewer outputs; the others have 7 or 8 */
#define FC_PAIRS (FC_VECTOR_BYTES == 64) /* 32 registers */
#define FC_UNROLL _Pragma("GCC unroll 16")

/* Where a masked load is an instruction it is as fast as a plain one, and less code than a choice. */
INLINE vec N(dw_load)(const T *p, int count)
{
    if (FC_VECTOR_BYTES >= 32 && !__builtin_constant_p(count))
        return vload_tail(p, count);
    return count == VL ? vload(p) : vload_tail(p, count);
}

INLINE int N(lanes_left)(int64_t channels) { return channels < VL ? (int)channels : VL; }

/* How many of the `left` outputs of a row are the next tile: 7 and 8 where the row can be cut so, else up to 5 at its
 * end (9 = 5 + 4, 17 = 7 + 5 + 5). Rows of more than 6 compute at most one output that does not exist. */
INLINE int64_t N(depthwise_next)(int64_t left)
{
    const int64_t tiles = (left + FC_PX - 1) / FC_PX;
    if (left >= tiles * (FC_PX - 1))
        return (left + tiles - 1) / tiles;
    if (left <= 2 * FC_LEAST_PX)
        return left < FC_LEAST_PX ? left : FC_LEAST_PX;
    const int64_t even = (left - FC_LEAST_PX + tiles - 2) / (tiles - 1);
    return even < FC_PX ? FC_PX - 1 : FC_PX;
}

/* What a tile is, known when it is compiled. */
typedef struct {
    int pixels, taps; /* taps: of the only group, FC_TWO_AND_ONE of two groups, or 0 */
    int edge, part; /* some columns may lie outside; some outputs may not exist */
    int lanes;
} N(dw_shape);

/* 3 taps with stride 2: taps 0 and 2 are neighbours, 1 is by itself. Known when compiled, 96 channels at 112x112 take
 * 0.94 of the time, that of reading x from the third-level cache, 144 at 56x56 0.92 (Zen 4, one thread). */
#define FC_TWO_AND_ONE 21

/* Where a row of taps starts, and its pitches in bytes. */
typedef struct {
    const char *x;
    const T *w;
    int64_t pitch, pitch3;
    int64_t inside, columns; /* of an edge: columns [inside, inside + columns) exist */
} N(dw_taps);

/* f(taps) for the taps of a group */
#define FC_EACH_TAPS(f) f(1) f(2) f(3) f(4) f(5) f(7)

#define FC_OPAQUE(p) __asm__("" : "+r"(p)) /* or GCC keeps an address per column, more than there are registers */

INLINE void N(depthwise_taps)(const N(dw_taps) * t, const int taps, const N(dw_shape) s, vec *acc)
{
    vec weight[FC_DEPTHWISE_TAPS];
    FC_UNROLL for (int j = 0; j < taps; j++) weight[j] = vload(t->w + j * FC_DEPTHWISE_ALIGN);
    const char *x = t->x;
    FC_UNROLL for (int k = 0; k < s.pixels + taps - 1; k++)
    {
        vec a = {0};
        if (k && k % 3 == 0) {
            x += t->pitch3;
            FC_OPAQUE(x);
        }
        if (!s.edge || (uint64_t)(k - t->inside) < (uint64_t)t->columns)
            a = N(dw_load)((const T *)(x + k % 3 * t->pitch), s.lanes);
        if (taps > 1 || s.edge) /* or GCC loads it again for each tap, or multiplies before it knows which a */
            a = vrounded(a);
        FC_UNROLL for (int j = 0; j < taps; j++)
            if (k >= j && k - j < s.pixels)
                acc[k - j] = vmuladd(weight[j], a, acc[k - j]);
    }
}

INLINE void N(depthwise_map)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid,
                             int64_t c, const N(dw_shape) s, vec *acc)
{
    const T *scale = d->scale, *bias = d->bias, *residual = row->residual;
    if (scale) {
        vec a = N(dw_load)(scale + c, s.lanes);
        FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] *= a;
    }
    if (bias) {
        vec a = N(dw_load)(bias + c, s.lanes);
        FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] += a;
    }
    if (residual) {
        FC_UNROLL for (int i = 0; i < s.pixels; i++)
        {
            if (!s.part || i < valid)
                acc[i] += N(dw_load)(residual + (first + i) * d->residual_pixel + c, s.lanes);
        }
    }
    const vec lower = vset1((T)d->lower), upper = vset1((T)d->upper);
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] = vclamp(acc[i], lower, upper);
}

INLINE void N(depthwise_store)(const fc_depthwise *d, char *y, int64_t valid, const N(dw_shape) s, const vec *acc)
{
    const int64_t pitch = d->y_pixel * (int64_t)sizeof(T);
    FC_UNROLL for (int i = 0; i < s.pixels; i++, y += pitch)
    {
        FC_OPAQUE(y);
        if (s.part && i >= valid)
            break;
        if (s.lanes != VL)
            vstore_tail((T *)y, acc[i], s.lanes);
        else
            vstore((T *)y, acc[i]);
    }
}

/* Outputs [first, first + pixels) of a row, of which `valid` exist; `lanes` channels from c on. t: of output 0, column
 * 0 */
INLINE void N(depthwise_tile)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid,
                              int64_t c, N(dw_taps) t, const N(dw_shape) s)
{
    vec acc[FC_PX];
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] = (vec){0};
    t.x += c * (int64_t)sizeof(T);
    t.w += c / FC_DEPTHWISE_ALIGN * d->weight_block + c % FC_DEPTHWISE_ALIGN;
    for (int64_t u = row->taps; u > 0; u--) {
        if (s.taps == FC_TWO_AND_ONE) {
            N(dw_taps) one = t;
            one.x += d->groups[1].x - d->groups[0].x;
            one.w += 2 * FC_DEPTHWISE_ALIGN;
            N(depthwise_taps)(&t, 2, s, acc);
            N(depthwise_taps)(&one, 1, s, acc);
        } else if (s.taps) {
            N(depthwise_taps)(&t, s.taps, s, acc);
        } else {
            N(dw_taps) g = t;
            for (const fc_depthwise_group *group = d->groups; group < d->groups + d->group_count; group++) {
                g.x = t.x + group->x;
                g.inside = group->inside - first, g.columns = group->columns;
#define FC_CASE(n)                                                                                                     \
    case n:                                                                                                            \
        N(depthwise_taps)(&g, n, s, acc);                                                                              \
        break;
                switch (group->taps) { FC_EACH_TAPS(FC_CASE) }
#undef FC_CASE
                g.w += group->taps * FC_DEPTHWISE_ALIGN;
            }
        }
        t.x += d->x_row, t.w += d->weight_row;
    }
    if (d->maps)
        N(depthwise_map)(d, row, first, valid, c, s, acc);
    N(depthwise_store)(d, (char *)((T *)row->y + first * d->y_pixel + c), valid, s, acc);
}

/* The tile of two rows that are one row of x apart, with all 3 x 3 taps: a column of x serves both. 16 accumulators, 6
 * weights and a column take 23 registers. */
INLINE void N(depthwise_pair)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid,
                              int64_t c, N(dw_taps) t, const N(dw_shape) s)
{
    vec acc[2][FC_PX];
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[0][i] = acc[1][i] = (vec){0};
    t.x += c * (int64_t)sizeof(T);
    const T *w = t.w + c / FC_DEPTHWISE_ALIGN * d->weight_block + c % FC_DEPTHWISE_ALIGN;
    FC_UNROLL for (int u = 0; u < 4; u++)
    {
        vec weight[2][3];
        FC_UNROLL for (int j = 0; j < 3; j++)
        {
            weight[0][j] = u < 3 ? vload(w + u * d->weight_row + j * FC_DEPTHWISE_ALIGN) : (vec){0};
            weight[1][j] = u > 0 ? vload(w + (u - 1) * d->weight_row + j * FC_DEPTHWISE_ALIGN) : (vec){0};
        }
        const char *x = t.x;
        FC_UNROLL for (int k = 0; k < s.pixels + 2; k++)
        {
            vec a = {0};
            if (k && k % 3 == 0) {
                x += t.pitch3;
                FC_OPAQUE(x);
            }
            if (!s.edge || (uint64_t)(k - t.inside) < (uint64_t)t.columns)
                a = N(dw_load)((const T *)(x + k % 3 * t.pitch), s.lanes);
            a = vrounded(a);
            FC_UNROLL for (int j = 0; j < 3; j++)
            {
                if (u < 3 && k >= j && k - j < s.pixels)
                    acc[0][k - j] = vmuladd(weight[0][j], a, acc[0][k - j]);
                if (u > 0 && k >= j && k - j < s.pixels)
                    acc[1][k - j] = vmuladd(weight[1][j], a, acc[1][k - j]);
            }
        }
        t.x += d->x_row;
    }
    FC_UNROLL for (int r = 0; r < 2; r++)
    {
        if (d->maps)
            N(depthwise_map)(d, row + r, first, valid, c, s, acc[r]);
        N(depthwise_store)(d, (char *)((T *)row[r].y + first * d->y_pixel + c), valid, s, acc[r]);
    }
}

INLINE N(dw_taps) N(depthwise_start)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, const int taps)
{
    N(dw_taps) t = {.w = row->weights, .pitch = d->x_step, .pitch3 = 3 * d->x_step};
    t.x = (const char *)row->x + first * d->x_step;
    if (taps) {
        t.x += d->groups->x;
        t.inside = d->groups->inside - first, t.columns = d->groups->columns;
    }
    return t;
}

/* A tile of a row and a block of channels, whole vectors of them. */
#define FC_TILE(pixels, edge, taps, TILE)                                                                              \
    static void N(depthwise_##pixels##_##edge##_##taps)(const fc_depthwise *d, const fc_depthwise_row *row,            \
                                                        int64_t first, int64_t valid, int64_t begin, int64_t end)      \
    {                                                                                                                  \
        const int part = pixels == FC_LEAST_PX;                                                                        \
        const N(dw_taps) t = N(depthwise_start)(d, row, first, taps);                                                  \
        for (int64_t c = begin; c < end; c += VL)                                                                      \
            TILE(d, row, first, valid, c, t, (N(dw_shape)){pixels, taps, edge, part, VL});                             \
    }
/* The remaining channels, for any tile: one function in place of five. */
#define FC_TAIL(taps)                                                                                                  \
    static void N(depthwise_tail_##taps)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first,            \
                                         int64_t valid, int64_t c, int64_t end)                                        \
    {                                                                                                                  \
        const N(dw_taps) t = N(depthwise_start)(d, row, first, taps);                                                  \
        N(depthwise_tile)(d, row, first, valid, c, t, (N(dw_shape)){FC_PX, taps, 1, 1, (int)(end - c)});               \
    }
FC_TAIL(0)
FC_TAIL(3)
#undef FC_TAIL
#define FC_TILES(...)                                                                                                  \
    FC_TILE(5, 1, __VA_ARGS__)                                                                                         \
    FC_TILE(7, 0, __VA_ARGS__)                                                                                         \
    FC_TILE(7, 1, __VA_ARGS__)                                                                                         \
    FC_TILE(8, 0, __VA_ARGS__)                                                                                         \
    FC_TILE(8, 1, __VA_ARGS__)
FC_TILES(0, N(depthwise_tile))
FC_TILES(3, N(depthwise_tile))
FC_TILE(7, 0, 21, N(depthwise_tile))
FC_TILE(8, 0, 21, N(depthwise_tile))
#if FC_PAIRS
FC_TILES(33, N(depthwise_pair))
#endif
#undef FC_TILE

/* Those of FC_LEAST_PX, then of 7 and 8, inside and at the edge */
#define FC_TABLE(name, taps)                                                                                           \
    {                                                                                                                  \
        N(name##_5_1_##taps), N(name##_7_0_##taps), N(name##_7_1_##taps), N(name##_8_0_##taps), N(name##_8_1_##taps)   \
    }
INLINE int N(depthwise_which)(int64_t valid, int edge)
{
    return valid <= FC_LEAST_PX ? 0 : 1 + 2 * (valid == FC_PX) + edge;
}

typedef void N(depthwise_fn)(const fc_depthwise *, const fc_depthwise_row *, int64_t, int64_t, int64_t, int64_t);
#if FC_PAIRS
static N(depthwise_fn) *const N(depthwise_pairs)[] = FC_TABLE(depthwise, 33);

/* Of a taller kernel whose first and last rows lie in the padding, 3 rows of taps may be left that differ from row to
 * row. */
INLINE int N(depthwise_is_pair)(const fc_depthwise *d, int64_t r)
{
    const fc_depthwise_row *a = d->rows + r, *b = a + 1;
    return r + 1 < d->row_count && a->taps == 3 && b->taps == 3 && a->weights == b->weights &&
           (const char *)b->x == (const char *)a->x + d->x_row;
}
#endif

/* A tile, outputs [first, first + valid) of all rows, channels [begin, end) */
static void N(depthwise_walk)(const fc_depthwise *d, int64_t first, int64_t valid, int64_t begin, int64_t end)
{
    static N(depthwise_fn) *const any[] = FC_TABLE(depthwise, 0), *const of_three[] = FC_TABLE(depthwise, 3);
    static N(depthwise_fn) *const stride_2[] = {N(depthwise_5_1_0), N(depthwise_7_0_21), N(depthwise_7_1_0),
                                                N(depthwise_8_0_21), N(depthwise_8_1_0)};
    const int three = d->group_count == 1 && d->groups->taps == 3;
    const int two_and_one = d->group_count == 2 && d->groups->taps == 2 && d->groups[1].taps == 1;
    const int64_t whole = begin + (end - begin) / VL * VL;
    const int edge = first < d->first_inner || first + valid > d->end_inner;
    const int which = N(depthwise_which)(valid, edge);
    N(depthwise_fn) *whole_tile = (three ? of_three : two_and_one ? stride_2 : any)[which];
    for (int64_t r = 0; r < d->row_count; r++) {
        const fc_depthwise_row *row = &d->rows[r];
        N(depthwise_fn) *tail = three ? N(depthwise_tail_3) : N(depthwise_tail_0);
        if (whole < end)
            tail(d, row, first, valid, whole, end);
#if FC_PAIRS
        if (three && N(depthwise_is_pair)(d, r)) {
            N(depthwise_pairs)[which](d, row, first, valid, begin, whole);
            r++;
            if (whole < end)
                tail(d, row + 1, first, valid, whole, end);
            continue;
        }
#endif
        whole_tile(d, row, first, valid, begin, whole);
    }
}

static void N(depthwise_span)(const fc_depthwise *d, int64_t first, int64_t left, int64_t begin, int64_t end)
{
    while (left > 0) {
        const int64_t valid = N(depthwise_next)(left);
        N(depthwise_walk)(d, first, valid, begin, end);
        first += valid, left -= valid;
    }
}

static void N(depthwise_rows)(const fc_depthwise *d)
{
    for (int64_t begin = 0; begin < d->channels; begin += d->channel_block) {
        const int64_t end = begin + d->channel_block < d->channels ? begin + d->channel_block : d->channels;
        N(depthwise_span)(d, 0, d->count, begin, end);
    }
}

#if FC_PAIRS && FC_F32
/* Row r of the outputs of d[0], of one tap, and d[1], of two: a column serves both. t: of d[1] */
INLINE void N(depthwise_alternate)(const fc_depthwise *d, int64_t r, int64_t first, int64_t c, N(dw_taps) t,
                                   const N(dw_shape) s)
{
    const fc_depthwise_row *one = d[0].rows + r, *two = d[1].rows + r;
    const int64_t weights = c / FC_DEPTHWISE_ALIGN * d->weight_block + c % FC_DEPTHWISE_ALIGN;
    const T *w = (const T *)one->weights + weights;
    t.w += weights;
    t.x += c * (int64_t)sizeof(T);
    vec acc[2][FC_PX];
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[0][i] = acc[1][i] = (vec){0};
    for (int64_t u = one->taps; u > 0; u--) {
        const vec weight[] = {vload(w), vload(t.w), vload(t.w + FC_DEPTHWISE_ALIGN)};
        const char *x = t.x;
        FC_UNROLL for (int k = 0; k < s.pixels + 1; k++)
        {
            if (k && k % 3 == 0) {
                x += t.pitch3;
                FC_OPAQUE(x);
            }
            const vec a = vrounded(vload((const T *)(x + k % 3 * t.pitch)));
            if (k < s.pixels) {
                acc[0][k] = vmuladd(weight[0], a, acc[0][k]);
                acc[1][k] = vmuladd(weight[1], a, acc[1][k]);
            }
            if (k > 0)
                acc[1][k - 1] = vmuladd(weight[2], a, acc[1][k - 1]);
        }
        t.x += d->x_row, t.w += d->weight_row, w += d->weight_row;
    }
    const int64_t y = (first * d->y_pixel + c) * (int64_t)sizeof(T);
    N(depthwise_store)(d, (char *)one->y + y, s.pixels, s, acc[0]);
    N(depthwise_store)(d, (char *)two->y + y, s.pixels, s, acc[1]);
}

#define FC_TILE(pixels)                                                                                                \
    static void N(depthwise_alternate_##pixels)(const fc_depthwise *d, int64_t first, int64_t begin, int64_t end)      \
    {                                                                                                                  \
        for (int64_t r = 0; r < d->row_count; r++) {                                                                   \
            const N(dw_taps) t = N(depthwise_start)(d + 1, d[1].rows + r, first, 2);                                   \
            for (int64_t c = begin; c < end; c += VL)                                                                  \
                N(depthwise_alternate)(d, r, first, c, t, (N(dw_shape)){pixels, 2, 0, 0, VL});                         \
        }                                                                                                              \
    }
FC_TILE(7)
FC_TILE(8)
#undef FC_TILE

/* Outputs [first, first + valid) of both, channels [begin, end): together where tiles of both are whole. */
static void N(depthwise_walk_both)(const fc_depthwise *d, int64_t first, int64_t valid, int64_t begin, int64_t end)
{
    const int64_t whole = begin + (end - begin) / VL * VL;
    const int together = first >= d[1].first_inner && first + valid <= d[1].end_inner && first + valid <= d[1].count;
    if (valid >= FC_PX - 1 && together) {
        (valid == FC_PX ? N(depthwise_alternate_8) : N(depthwise_alternate_7))(d, first, begin, whole);
        begin = whole;
    }
    for (int i = 0; i < 2; i++) {
        const int64_t left = d[i].count - first;
        if (begin < end)
            N(depthwise_span)(d + i, first, valid < left ? valid : left, begin, end);
    }
}

static void N(depthwise_alternating)(const fc_depthwise *d)
{
    for (int64_t begin = 0; begin < d->channels; begin += d->channel_block) {
        const int64_t end = begin + d->channel_block < d->channels ? begin + d->channel_block : d->channels;
        for (int64_t first = 0, valid; first < d->count; first += valid) {
            valid = N(depthwise_next)(d->count - first);
            N(depthwise_walk_both)(d, first, valid, begin, end);
        }
    }
}
#define FC_ALTERNATING .alternating = N(depthwise_alternating),
#else
#define FC_ALTERNATING
#endif

#include "depthwise_at.tmpl.h"

#undef FC_EACH_TAPS
#if FC_F32 && FC_VECTOR_BYTES >= 32 /* one instruction permutes a vector */
#include "spread.tmpl.h"
#else
#define FC_SPREAD_KERNELS
#endif
static const fc_depthwise_kernels N(depthwise_table) = {
    .rows = N(depthwise_rows), .at = N(depthwise_at), FC_ALTERNATING FC_SPREAD_KERNELS};
#undef FC_SPREAD_KERNELS
#undef FC_ALTERNATING
#undef FC_TILE
#undef FC_TILES
#undef FC_STRIDE_2
#undef FC_TABLE
#undef FC_OPAQUE
#undef FC_PX
#undef FC_LEAST_PX
#undef FC_PAIRS
#undef FC_UNROLL
