/* depthwise.tmpl.h: every multiply-add needs its own load of x, so two load ports bound the speed: the weight is loaded
 * once for PX neighbouring outputs. PX = 8 accumulators cover an FMA latency of 4 at two per cycle. Runs of PX pixels go
 * through all channels before the next run: memory is walked in order and the rows' lines stay in L1. A single pixel has 4
 * vectors of channels in flight instead. */
#define FC_PX 8
#define FC_UNROLL _Pragma("GCC unroll 16")

INLINE vec N(dw_load)(const T *p, int count) { return count == VL ? vload(p) : vload_tail(p, count); }

INLINE void N(depthwise_finish)(const fc_depthwise *d, int64_t pixel, int64_t c, vec sum, const int count)
{
    const T *scale = d->scale, *bias = d->bias, *residual = d->residual;
    if (scale)
        sum *= N(dw_load)(scale + c, count);
    if (bias)
        sum += N(dw_load)(bias + c, count);
    if (residual)
        sum += N(dw_load)(residual + pixel * d->residual_pixel + c, count);
    sum = vclamp(sum, vset1((T)d->lower), vset1((T)d->upper));
    T *y = (T *)d->y + pixel * d->y_pixel + c;
    if (count == VL)
        vstore(y, sum);
    else
        vstore_tail(y, sum, count);
}

/* vectors > 1 only with one pixel: acc[i] is pixel i, or vector i of channels */
INLINE void N(depthwise_run)(const fc_depthwise *d, int64_t first, int64_t c, const int pixels, const int vectors,
                             const int count)
{
    vec acc[FC_PX];
    FC_UNROLL for (int i = 0; i < pixels * vectors; i++) acc[i] = (vec){0};
    for (int64_t u = 0; u < d->rows; u++) {
        const T *x = (const T *)d->x + u * d->x_row + first * d->step + c, *w = (const T *)d->weights + u * d->weight_row + c;
        for (int64_t v = 0; v < d->taps_w; v++, x += d->tap, w += d->weight_tap) {
            vec weight = N(dw_load)(w, count);
            FC_UNROLL for (int i = 0; i < pixels; i++) acc[i] += weight * N(dw_load)(x + i * d->step, count);
            FC_UNROLL for (int i = 1; i < vectors; i++) acc[i] += vload(w + i * VL) * vload(x + i * VL);
        }
    }
    FC_UNROLL for (int i = 0; i < pixels; i++)
        FC_UNROLL for (int j = 0; j < vectors; j++) N(depthwise_finish)(d, first + i, c + j * VL, acc[i + j], count);
}

#define FC_RUN(pixels)                                                                                                 \
    static void N(depthwise_run_##pixels)(const fc_depthwise *d, int64_t first)                                        \
    {                                                                                                                  \
        int64_t c = 0;                                                                                                 \
        for (; pixels == 1 && c + 4 * VL <= d->channels; c += 4 * VL)                                                  \
            N(depthwise_run)(d, first, c, pixels, pixels == 1 ? 4 : 1, VL);                                            \
        for (; c + VL <= d->channels; c += VL)                                                                         \
            N(depthwise_run)(d, first, c, pixels, 1, VL);                                                              \
        if (c < d->channels)                                                                                           \
            N(depthwise_run)(d, first, c, pixels, 1, (int)(d->channels - c));                                          \
    }
FC_RUN(1) FC_RUN(2) FC_RUN(3) FC_RUN(4) FC_RUN(5) FC_RUN(6) FC_RUN(7) FC_RUN(8)
#undef FC_RUN

static void N(depthwise_row)(const fc_depthwise *d)
{
    static void (*const run[FC_PX + 1])(const fc_depthwise *, int64_t) = {
        0, N(depthwise_run_1), N(depthwise_run_2), N(depthwise_run_3), N(depthwise_run_4),
        N(depthwise_run_5), N(depthwise_run_6), N(depthwise_run_7), N(depthwise_run_8),
    };
    const int64_t groups = (d->count + FC_PX - 1) / FC_PX;
    for (int64_t i = 0, first = 0; i < groups; i++) {
        const int64_t pixels = (d->count - first + groups - i - 1) / (groups - i);
        run[pixels](d, first);
        first += pixels;
    }
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

static const fc_depthwise_kernels N(depthwise_table) = {.row = N(depthwise_row), .at = N(depthwise_at)};
#undef FC_PX
#undef FC_UNROLL
