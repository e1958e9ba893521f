/* depthwise.tmpl.h: two multiply-adds and two loads per cycle, and a load that straddles cache lines (x of a user's array
 * mostly does) counts twice: PX neighbouring outputs share what they load. A column of x is loaded once for all taps of a
 * group, a weight once for the PX outputs: 3 taps take 10 + 3 loads for 24 multiply-adds. PX = 8 accumulators cover an FMA
 * latency of 4 at two per cycle. A tile of PX pixels walks down the rows, so that the rows under it stay in L1 and each is
 * read once from beyond. */
#define FC_PX 8
#define FC_LEAST_PX 4 /* rows of at least 5 are cut into tiles of 4 to 8 */
#define FC_UNROLL _Pragma("GCC unroll 16")

INLINE vec N(dw_load)(const T *p, int count) { return count == VL ? vload(p) : vload_tail(p, count); }

/* What a tile is, known when it is compiled. */
typedef struct {
    int pixels, taps; /* taps: of the only group, or 0 */
    int edge, part;   /* some columns lie outside; some outputs do not exist */
    int lanes;
} N(dw_shape);

/* Where a row of taps starts, and its pitches in bytes. */
typedef struct {
    const char *x;
    const T *w;
    int64_t pitch, pitch3;
    int64_t inside, columns; /* of an edge: columns [inside, inside + columns) exist */
} N(dw_taps);

#define FC_OPAQUE(p) __asm__("" : "+r"(p)) /* or GCC keeps an address per column, more than there are registers */

INLINE void N(depthwise_taps)(const N(dw_taps) *t, const int taps, const N(dw_shape) s, vec *acc)
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
                acc[k - j] += weight[j] * a;
    }
}

INLINE void N(depthwise_map)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid, int64_t c,
                             const N(dw_shape) s, vec *acc)
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
    const int stream = d->stream;
    FC_UNROLL for (int i = 0; i < s.pixels; i++, y += pitch)
    {
        FC_OPAQUE(y);
        if (s.part && i >= valid)
            break;
        if (s.lanes != VL)
            vstore_tail((T *)y, acc[i], s.lanes);
        else if (stream)
            vstream((T *)y, acc[i]);
        else
            vstore((T *)y, acc[i]);
    }
}

/* Outputs [first, first + pixels) of a row, of which `valid` exist; `lanes` channels from c on. t: of output 0, column 0 */
INLINE void N(depthwise_tile)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid, int64_t c,
                              N(dw_taps) t, const N(dw_shape) s)
{
    vec acc[FC_PX];
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] = (vec){0};
    t.x += c * (int64_t)sizeof(T);
    t.w += c / FC_DEPTHWISE_ALIGN * d->weight_block + c % FC_DEPTHWISE_ALIGN;
    for (int64_t u = row->taps; u > 0; u--) {
        if (s.taps) {
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
                switch (group->taps) { FC_CASE(1) FC_CASE(2) FC_CASE(3) FC_CASE(4) FC_CASE(5) FC_CASE(6) FC_CASE(7) FC_CASE(8) }
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

/* A tile of a row and a block of channels. */
#define FC_TILE(pixels, edge, taps)                                                                                    \
    static void N(depthwise_##pixels##_##edge##_##taps)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid,        \
                                                        int64_t begin, int64_t end)                                    \
    {                                                                                                                  \
        const int part = pixels == FC_LEAST_PX && edge;                                                                \
        N(dw_taps) t = {.w = row->weights, .pitch = d->x_step, .pitch3 = 3 * d->x_step}; \
        t.x = (const char *)row->x + first * d->x_step;\
        if (taps) { t.x += d->groups->x; t.inside = d->groups->inside - first; t.columns = d->groups->columns; } \
        int64_t c = begin;                                                                                         \
        for (; c + VL <= end; c += VL)                                                                             \
            N(depthwise_tile)(d, row, first, valid, c, t, (N(dw_shape)){pixels, taps, edge, part, VL});             \
        if (c < end)                                                                                               \
            N(depthwise_tile)(d, row, first, valid, c, t, (N(dw_shape)){pixels, taps, edge, part, (int)(end - c)}); \
    }
#define FC_TILES(taps) \
    FC_TILE(4, 0, taps) FC_TILE(5, 0, taps) FC_TILE(6, 0, taps) FC_TILE(7, 0, taps) FC_TILE(8, 0, taps) \
    FC_TILE(4, 1, taps) FC_TILE(5, 1, taps) FC_TILE(6, 1, taps) FC_TILE(7, 1, taps) FC_TILE(8, 1, taps)
FC_TILES(0) FC_TILES(3)
#undef FC_TILES
#undef FC_TILE

static void N(depthwise_rows)(const fc_depthwise *d)
{
#define FC_ENTRY(px) {{N(depthwise_##px##_0_0), N(depthwise_##px##_0_3)}, {N(depthwise_##px##_1_0), N(depthwise_##px##_1_3)}}
    static void (*const tile[FC_PX - FC_LEAST_PX + 1][2][2])(const fc_depthwise *, const fc_depthwise_row *, int64_t, int64_t, int64_t, int64_t) = {
        FC_ENTRY(4), FC_ENTRY(5), FC_ENTRY(6), FC_ENTRY(7), FC_ENTRY(8)
    };
#undef FC_ENTRY
    const int three = d->group_count == 1 && d->groups->taps == 3;
    const int64_t tiles = (d->count + FC_PX - 1) / FC_PX;
    for (int64_t begin = 0; begin < d->channels; begin += d->channel_block) {
        const int64_t end = begin + d->channel_block < d->channels ? begin + d->channel_block : d->channels;
        for (int64_t i = 0, first = 0; i < tiles; i++) { /* near-equal tiles */
            const int64_t valid = (d->count - first + tiles - i - 1) / (tiles - i);
            const int64_t pixels = valid < FC_LEAST_PX ? FC_LEAST_PX : valid;
            const int edge = first < d->first_inner || first + pixels > d->end_inner || valid < pixels;
            for (int64_t r = 0; r < d->row_count; r++)
                tile[pixels - FC_LEAST_PX][edge][three](d, &d->rows[r], first, valid, begin, end);
            first += valid;
        }
    }
    if (d->stream)
        vfence();
}

/* ---- gradient of the weight: up to 3 x 4 taps in accumulators, one load of y for all of them -----------------------*/
INLINE void N(depthwise_at_tile)(const fc_depthwise_at *d, int64_t u, int64_t v, int64_t c, const int rows, const int taps,
                                 const int count)
{
    vec acc[3][4];
    T *to = (T *)d->c + u * d->c_row + v * d->c_tap + c;
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < taps; j++) acc[i][j] = N(dw_load)(to + i * d->c_row + j * d->c_tap, count);
    const T *x0 = (const T *)d->x + u * d->x_row + v * d->tap + c, *y = (const T *)d->y + c;
    const T *x1 = x0 + d->x_row, *x2 = x1 + d->x_row;
    for (int64_t p = 0; p < d->count; p++, y += d->y_pixel, x0 += d->step, x1 += d->step, x2 += d->step) {
        vec g = N(dw_load)(y, count);
        FC_UNROLL for (int j = 0; j < taps; j++)
        {
            acc[0][j] += g * N(dw_load)(x0 + j * d->tap, count);
            if (rows > 1)
                acc[1][j] += g * N(dw_load)(x1 + j * d->tap, count);
            if (rows > 2)
                acc[2][j] += g * N(dw_load)(x2 + j * d->tap, count);
        }
    }
    FC_UNROLL for (int i = 0; i < rows; i++)
        FC_UNROLL for (int j = 0; j < taps; j++)
            if (count == VL)
                vstore(to + i * d->c_row + j * d->c_tap, acc[i][j]);
            else
                vstore_tail(to + i * d->c_row + j * d->c_tap, acc[i][j], count);
}

#define FC_AT(rows, taps)                                                                                              \
    static void N(depthwise_at_##rows##taps)(const fc_depthwise_at *d, int64_t u, int64_t v)                           \
    {                                                                                                                  \
        int64_t c = 0;                                                                                                 \
        for (; c + VL <= d->channels; c += VL)                                                                         \
            N(depthwise_at_tile)(d, u, v, c, rows, taps, VL);                                                          \
        if (c < d->channels)                                                                                           \
            N(depthwise_at_tile)(d, u, v, c, rows, taps, (int)(d->channels - c));                                      \
    }
FC_AT(1, 1) FC_AT(1, 2) FC_AT(1, 3) FC_AT(1, 4) FC_AT(2, 1) FC_AT(2, 2) FC_AT(2, 3) FC_AT(2, 4)
FC_AT(3, 1) FC_AT(3, 2) FC_AT(3, 3) FC_AT(3, 4)
#undef FC_AT

static void N(depthwise_at)(const fc_depthwise_at *d)
{
#define FC_ROW(r) {N(depthwise_at_##r##1), N(depthwise_at_##r##2), N(depthwise_at_##r##3), N(depthwise_at_##r##4)}
    static void (*const tile[3][4])(const fc_depthwise_at *, int64_t, int64_t) = {FC_ROW(1), FC_ROW(2), FC_ROW(3)};
#undef FC_ROW
    for (int64_t u = 0; u < d->rows; u += 3)
        for (int64_t v = 0; v < d->taps_w; v += 4) {
            const int64_t rows = d->rows - u < 3 ? d->rows - u : 3, taps = d->taps_w - v < 4 ? d->taps_w - v : 4;
            tile[rows - 1][taps - 1](d, u, v);
        }
}

static const fc_depthwise_kernels N(depthwise_table) = {.rows = N(depthwise_rows), .at = N(depthwise_at)};
#undef FC_OPAQUE
#undef FC_PX
#undef FC_LEAST_PX
#undef FC_UNROLL
