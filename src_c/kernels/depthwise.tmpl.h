/* depthwise.tmpl.h: two multiply-adds and two loads per cycle, and a load that straddles cache lines (x of a user's array
 * mostly does) counts twice: PX neighbouring outputs share what they load. A column of x is loaded once for the up to
 * FC_DEPTHWISE_TAPS taps of a group, a weight once for the PX outputs: 3 taps take 10 + 3 loads for 24 multiply-adds.
 * PX = 8 accumulators cover an FMA latency of 4 at two per cycle, and with 4 weights and a column fit in 16 registers.
 * A tile of PX pixels walks down the rows, so that the rows under it stay in L1 and each is read once from beyond. */
#define FC_PX 8
#define FC_LEAST_PX 4 /* rows of at least 5 are cut into tiles of 4 to 8 */
#define FC_UNROLL _Pragma("GCC unroll 16")

INLINE vec N(dw_load)(const T *p, int count) { return count == VL ? vload(p) : vload_tail(p, count); }

/* What a tile is, known when it is compiled. */
typedef struct {
    int pixels, edge, lanes; /* edge: some columns lie outside */
} N(dw_shape);

INLINE void N(depthwise_taps)(const fc_depthwise *d, const T *x, const T *w, int64_t column, const int taps,
                              const N(dw_shape) s, vec *acc)
{
    vec weight[FC_DEPTHWISE_TAPS];
    FC_UNROLL for (int j = 0; j < taps; j++) weight[j] = vload(w + j * d->weight_tap);
    x += column * d->x_pixel;
    const int64_t pitch = d->step * d->x_pixel;
    FC_UNROLL for (int k = 0; k < s.pixels + taps - 1; k++)
    {
        vec a = {0};
        if (!s.edge || (column + k * d->step >= d->first_column && column + k * d->step < d->end_column))
            a = N(dw_load)(x + k * pitch, s.lanes);
        FC_UNROLL for (int j = 0; j < taps; j++)
            if (k >= j && k - j < s.pixels)
                acc[k - j] += weight[j] * a;
    }
}

INLINE void N(depthwise_finish)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid, int64_t c,
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
    T *y = (T *)row->y + first * d->y_pixel + c;
    const vec lower = vset1((T)d->lower), upper = vset1((T)d->upper);
    FC_UNROLL for (int i = 0; i < s.pixels; i++)
    {
        if (s.pixels == FC_LEAST_PX && s.edge && i >= valid)
            break;
        if (residual)
            acc[i] += N(dw_load)(residual + (first + i) * d->residual_pixel + c, s.lanes);
        acc[i] = vclamp(acc[i], lower, upper);
        if (s.lanes != VL)
            vstore_tail(y + i * d->y_pixel, acc[i], s.lanes);
        else if (d->stream)
            vstream(y + i * d->y_pixel, acc[i]);
        else
            vstore(y + i * d->y_pixel, acc[i]);
    }
}

/* Outputs [first, first + pixels) of a row, of which `valid` exist; `lanes` channels from c on. */
INLINE void N(depthwise_tile)(const fc_depthwise *d, const fc_depthwise_row *row, int64_t first, int64_t valid, int64_t c,
                              const N(dw_shape) s)
{
    vec acc[FC_PX];
    FC_UNROLL for (int i = 0; i < s.pixels; i++) acc[i] = (vec){0};
    for (int64_t u = 0; u < row->taps; u++) {
        const T *x = (const T *)row->x + u * d->x_row + c, *w = (const T *)row->weights + u * d->weight_row + c;
        for (int64_t g = 0; g < d->group_count; g++) {
            const fc_depthwise_group *group = &d->groups[g];
            const int64_t column = group->column + first * d->step;
            switch (group->taps) {
            case 1:
                N(depthwise_taps)(d, x, w + group->weight, column, 1, s, acc);
                break;
            case 2:
                N(depthwise_taps)(d, x, w + group->weight, column, 2, s, acc);
                break;
            case 3:
                N(depthwise_taps)(d, x, w + group->weight, column, 3, s, acc);
                break;
            default:
                N(depthwise_taps)(d, x, w + group->weight, column, 4, s, acc);
            }
        }
    }
    N(depthwise_finish)(d, row, first, valid, c, s, acc);
}

/* The tile of all rows and a block of channels. */
#define FC_TILE(pixels, edge)                                                                                          \
    static void N(depthwise_##pixels##_##edge)(const fc_depthwise *d, int64_t first, int64_t valid, int64_t begin,     \
                                               int64_t end)                                                            \
    {                                                                                                                  \
        for (int64_t r = 0; r < d->row_count; r++) {                                                                   \
            int64_t c = begin;                                                                                         \
            for (; c + VL <= end; c += VL)                                                                             \
                N(depthwise_tile)(d, &d->rows[r], first, valid, c, (N(dw_shape)){pixels, edge, VL});                   \
            if (c < end)                                                                                               \
                N(depthwise_tile)(d, &d->rows[r], first, valid, c, (N(dw_shape)){pixels, edge, (int)(end - c)});       \
        }                                                                                                              \
    }
FC_TILE(4, 0) FC_TILE(5, 0) FC_TILE(6, 0) FC_TILE(7, 0) FC_TILE(8, 0)
FC_TILE(4, 1) FC_TILE(5, 1) FC_TILE(6, 1) FC_TILE(7, 1) FC_TILE(8, 1)
#undef FC_TILE

static void N(depthwise_rows)(const fc_depthwise *d)
{
    static void (*const tile[FC_PX - FC_LEAST_PX + 1][2])(const fc_depthwise *, int64_t, int64_t, int64_t, int64_t) = {
        {N(depthwise_4_0), N(depthwise_4_1)}, {N(depthwise_5_0), N(depthwise_5_1)}, {N(depthwise_6_0), N(depthwise_6_1)},
        {N(depthwise_7_0), N(depthwise_7_1)}, {N(depthwise_8_0), N(depthwise_8_1)},
    };
    const int64_t tiles = (d->count + FC_PX - 1) / FC_PX;
    for (int64_t begin = 0; begin < d->channels; begin += d->channel_block) {
        const int64_t end = begin + d->channel_block < d->channels ? begin + d->channel_block : d->channels;
        for (int64_t i = 0, first = 0; i < tiles; i++) { /* near-equal tiles */
            const int64_t valid = (d->count - first + tiles - i - 1) / (tiles - i);
            const int64_t pixels = valid < FC_LEAST_PX ? FC_LEAST_PX : valid;
            const int edge = first * d->step + d->least_column < d->first_column || valid < pixels ||
                             (first + pixels - 1) * d->step + d->most_column >= d->end_column;
            tile[pixels - FC_LEAST_PX][edge](d, first, valid, begin, end);
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
#undef FC_PX
#undef FC_LEAST_PX
#undef FC_UNROLL
