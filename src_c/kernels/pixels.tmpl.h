/* pixels.tmpl.h: R runs of neighbouring outputs meet K weights: R loads and K broadcasts for R * K multiply-adds. The
 * fewer of the two are kept in registers while the others pass by: R * K accumulators + min(R, K) + 1. R is the
 * largest, up to 8, that fits into the registers (32 of AVX-512, 16 elsewhere), where 8 accumulators are enough no more
 * than that: 8 8 8 6 5 4 3 2 for K = 1 .. 8, and 8 6 3 2 2 2 1 1.
 */
#define FC_UNROLL _Pragma("GCC unroll 16")

INLINE void N(pixels_tile)(const fc_pixels *p, const int channels, const int runs)
{
    vec acc[FC_PIXELS_MAX_RUNS][FC_PIXELS_MAX_CHANNELS];
    FC_UNROLL for (int r = 0; r < runs; r++)
        FC_UNROLL for (int k = 0; k < channels; k++) acc[r][k] = (vec){0};
    const T *w = p->weights, *x[FC_PIXELS_MAX_RUNS];
    FC_UNROLL for (int r = 0; r < runs; r++) x[r] = p->x[r];
    for (int64_t c = 0; c < p->in_channels; c++)
        for (int64_t u = 0; u < p->kernel_h; u++) {
            const int64_t offset = c * p->plane + u * p->row;
            for (int64_t v = 0; v < p->kernel_w; v++, w += channels) {
                const int64_t at = offset + p->tap[v];
                vec a[FC_PIXELS_MAX_RUNS], weight[FC_PIXELS_MAX_CHANNELS];
                if (runs < channels) {
                    FC_UNROLL for (int r = 0; r < runs; r++) a[r] = vload(x[r] + at);
                    FC_UNROLL for (int k = 0; k < channels; k++)
                    {
                        weight[k] = vset1(w[k]);
                        FC_UNROLL for (int r = 0; r < runs; r++) acc[r][k] = vmuladd(a[r], weight[k], acc[r][k]);
                    }
                } else {
                    FC_UNROLL for (int k = 0; k < channels; k++) weight[k] = vset1(w[k]);
                    FC_UNROLL for (int r = 0; r < runs; r++)
                    {
                        a[r] = vload(x[r] + at);
                        FC_UNROLL for (int k = 0; k < channels; k++) acc[r][k] = vmuladd(a[r], weight[k], acc[r][k]);
                    }
                }
            }
        }
    FC_UNROLL for (int r = 0; r < runs; r++)
        FC_UNROLL for (int k = 0; k < channels; k++) vstore((T *)p->y[r] + k * p->y_channel, acc[r][k]);
}

#define FC_TILE(k, r)                                                                                                  \
    static void N(pixels_##k##_##r)(const fc_pixels *p) { N(pixels_tile)(p, k, r); }
#define FC_ROW1(F, k) F(k, 1)
#define FC_ROW2(F, k) FC_ROW1(F, k) F(k, 2)
#define FC_ROW3(F, k) FC_ROW2(F, k) F(k, 3)
#define FC_ROW4(F, k) FC_ROW3(F, k) F(k, 4)
#define FC_ROW5(F, k) FC_ROW4(F, k) F(k, 5)
#define FC_ROW6(F, k) FC_ROW5(F, k) F(k, 6)
#define FC_ROW8(F, k) FC_ROW6(F, k) F(k, 7) F(k, 8)
#if FC_VECTOR_BYTES == 64
#define FC_TABLE(F) \
    FC_ROW8(F, 1) FC_ROW8(F, 2) FC_ROW8(F, 3) FC_ROW6(F, 4) FC_ROW5(F, 5) FC_ROW4(F, 6) FC_ROW3(F, 7) FC_ROW2(F, 8)
#define FC_MAX_RUNS {0, 8, 8, 8, 6, 5, 4, 3, 2}
#else
#define FC_TABLE(F) \
    FC_ROW8(F, 1) FC_ROW6(F, 2) FC_ROW3(F, 3) FC_ROW2(F, 4) FC_ROW2(F, 5) FC_ROW2(F, 6) FC_ROW1(F, 7) FC_ROW1(F, 8)
#define FC_MAX_RUNS {0, 8, 6, 3, 2, 2, 2, 1, 1}
#endif
FC_TABLE(FC_TILE)
#define FC_ENTRY(k, r) [k][r] = N(pixels_##k##_##r),

/* ---- runs one below the other (stride and dilation 1 along the column) ----------------------------------------------
 * Most loads straddle cache lines and count twice. A vector of x serves up to FC_PIXELS_TAPS rows of taps: R + 3 loads
 * for 4 * R * K multiply-adds. R * K accumulators + 4 * K weights + 1 load: R = 8 8 6 for K = 1 .. 3 in 32 registers, R
 * = 8 for K = 1 in 16. */
INLINE void N(pixels_below)(const fc_pixels *p, const T *x, const T *w, const int channels, const int runs,
                            const int taps, vec acc[FC_PIXELS_MAX_RUNS][3])
{
    const int64_t next = p->kernel_w * channels; /* weights of the next row of taps */
    for (int64_t v = 0; v < p->kernel_w; v++, w += channels) {
        const T *at = x + p->tap[v];
        vec weight[FC_PIXELS_TAPS][3];
        FC_UNROLL for (int j = 0; j < taps; j++)
            FC_UNROLL for (int k = 0; k < channels; k++) weight[j][k] = vset1(w[j * next + k]);
        FC_UNROLL for (int i = 0; i < runs + taps - 1; i++, at += p->row)
        {
            vec a = vrounded(vload(at)); /* loaded once */
            FC_UNROLL for (int j = 0; j < taps; j++)
                if (i >= j && i - j < runs)
                    FC_UNROLL for (int k = 0; k < channels; k++)
                        acc[i - j][k] = vmuladd(a, weight[j][k], acc[i - j][k]);
        }
    }
}

INLINE void N(pixels_column)(const fc_pixels *p, const int channels, const int runs)
{
    vec acc[FC_PIXELS_MAX_RUNS][3];
    FC_UNROLL for (int r = 0; r < runs; r++)
        FC_UNROLL for (int k = 0; k < channels; k++) acc[r][k] = (vec){0};
    const T *w = p->weights;
    const int64_t parts = (p->kernel_h + FC_PIXELS_TAPS - 1) / FC_PIXELS_TAPS;
    for (int64_t c = 0; c < p->in_channels; c++) {
        const T *x = (const T *)p->x[0] + c * p->plane;
        for (int64_t i = 0, u = 0; i < parts; i++) { /* near-equal parts */
            const int64_t taps = (p->kernel_h - u + parts - i - 1) / (parts - i);
            switch (taps) {
            case 1:
                N(pixels_below)(p, x, w, channels, runs, 1, acc);
                break;
            case 2:
                N(pixels_below)(p, x, w, channels, runs, 2, acc);
                break;
            case 3:
                N(pixels_below)(p, x, w, channels, runs, 3, acc);
                break;
            default:
                N(pixels_below)(p, x, w, channels, runs, 4, acc);
            }
            u += taps, x += taps * p->row, w += taps * p->kernel_w * channels;
        }
    }
    FC_UNROLL for (int r = 0; r < runs; r++)
        FC_UNROLL for (int k = 0; k < channels; k++) vstore((T *)p->y[0] + r * p->y_row + k * p->y_channel, acc[r][k]);
}

#define FC_COLUMN(k, r)                                                                                                \
    static void N(pixels_column_##k##_##r)(const fc_pixels *p) { N(pixels_column)(p, k, r); }
static void N(pixels_finish)(int64_t count, double scale, double bias, double lower, double upper, void *y)
{
    const vec a = vset1((T)scale), b = vset1((T)bias), low = vset1((T)lower), high = vset1((T)upper);
    for (T *t = y, *end = t + count; t < end; t += VL)
        vstore(t, vclamp(vmuladd(vload(t), a, b), low, high));
}

#if FC_VECTOR_BYTES == 64
#define FC_COLUMNS(F) FC_ROW8(F, 1) FC_ROW8(F, 2) FC_ROW6(F, 3)
#define FC_MAX_BELOW {0, 8, 8, 6}
#else
#define FC_COLUMNS(F) FC_ROW8(F, 1)
#define FC_MAX_BELOW {0, 8}
#endif
FC_COLUMNS(FC_COLUMN)
#define FC_COLUMN_ENTRY(k, r) [k][r] = N(pixels_column_##k##_##r),
static const fc_pixels_kernels N(pixels_table) = {.max_runs = FC_MAX_RUNS,
                                                  .tile = {FC_TABLE(FC_ENTRY)},
                                                  .max_below = FC_MAX_BELOW,
                                                  .column = {FC_COLUMNS(FC_COLUMN_ENTRY)},
                                                  .finish = N(pixels_finish)};
#undef FC_COLUMN
#undef FC_COLUMNS
#undef FC_COLUMN_ENTRY
#undef FC_MAX_BELOW
#undef FC_TILE
#undef FC_ENTRY
#undef FC_TABLE
#undef FC_MAX_RUNS
#undef FC_ROW1
#undef FC_ROW2
#undef FC_ROW3
#undef FC_ROW4
#undef FC_ROW5
#undef FC_ROW6
#undef FC_ROW8
#undef FC_UNROLL
