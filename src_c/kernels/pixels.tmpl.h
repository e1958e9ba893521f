/* pixels.tmpl.h: R runs of neighbouring outputs meet K weights: R loads and K broadcasts for R * K multiply-adds. The
 * fewer of the two are kept in registers while the others pass by: R * K accumulators + min(R, K) + 1. R is the
 * largest, up to 8, that fits into the registers (32 of AVX-512, 16 elsewhere), where 8 accumulators are enough no more
 * than that: 8 8 8 6 5 4 3 2 for K = 1 .. 8, and 8 6 3 2 2 2 1 1. What is left over takes half as many, or all with
 * some in vain.
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

#define FC_TILE(k, r, all)                                                                                             \
    static void N(pixels_##k##_##all)(const fc_pixels *p) { N(pixels_tile)(p, k, r); }
#if FC_VECTOR_BYTES == 64
#define FC_TABLE(F)                                                                                                    \
    F(1, 4, 0) F(1, 8, 1) F(2, 4, 0) F(2, 8, 1) F(3, 4, 0) F(3, 8, 1) F(4, 3, 0) F(4, 6, 1) F(5, 2, 0) F(5, 5, 1)      \
    F(6, 2, 0) F(6, 4, 1) F(7, 1, 0) F(7, 3, 1) F(8, 1, 0) F(8, 2, 1)
#define FC_MAX_RUNS {0, 8, 8, 8, 6, 5, 4, 3, 2}
#else
#define FC_TABLE(F)                                                                                                    \
    F(1, 4, 0) F(1, 8, 1) F(2, 3, 0) F(2, 6, 1) F(3, 1, 0) F(3, 3, 1) F(4, 1, 0) F(4, 2, 1) F(5, 1, 0) F(5, 2, 1)      \
    F(6, 1, 0) F(6, 2, 1) F(7, 1, 1) F(8, 1, 1)
#define FC_MAX_RUNS {0, 8, 6, 3, 2, 2, 2, 1, 1}
#endif
FC_TABLE(FC_TILE)
#define FC_ENTRY(k, r, all) [k][all] = N(pixels_##k##_##all),

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

#define FC_COLUMN(k, r, all)                                                                                           \
    static void N(pixels_column_##k##_##all)(const fc_pixels *p) { N(pixels_column)(p, k, r); }
static void N(pixels_finish)(int64_t count, double scale, double bias, double lower, double upper, void *y)
{
    const vec a = vset1((T)scale), b = vset1((T)bias), low = vset1((T)lower), high = vset1((T)upper);
    for (T *t = y, *end = t + count; t < end; t += VL)
        vstore(t, vclamp(vmuladd(vload(t), a, b), low, high));
}

/* ---- planes of any number of outputs: FC_PLANES_RUNS * FC_PLANES accumulators ---------------------------------------
 * 16 of 32 registers and 12 of 16, with the runs of x; 8 would be enough for the latency, but a weight is loaded for
 * each run. */
#if FC_VECTOR_BYTES == 64
#define FC_PLANES 8
#else
#define FC_PLANES 6
#endif
_Static_assert(FC_PLANES <= FC_PLANES_MAX, "no_bias of conv_pixels.c");
static void N(pixels_planes)(const fc_planes *p)
{
    enum { RUNS = FC_PLANES_RUNS };
    vec acc[RUNS][FC_PLANES];
    FC_UNROLL for (int r = 0; r < RUNS; r++)
        FC_UNROLL for (int k = 0; k < FC_PLANES; k++) acc[r][k] = (vec){0};
    const T *w = p->weights, *bias = p->bias, *x[RUNS];
    FC_UNROLL for (int r = 0; r < RUNS; r++) x[r] = p->x[r];
    for (int64_t i = 0; i < p->steps; i++, w += FC_PLANES) {
        vec a[RUNS];
        FC_UNROLL for (int r = 0; r < RUNS; r++) a[r] = vrounded(vload(x[r] + p->offset[i])); /* loaded once */
        FC_UNROLL for (int k = 0; k < FC_PLANES; k++)
        {
            const vec weight = vset1(w[k]);
            FC_UNROLL for (int r = 0; r < RUNS; r++) acc[r][k] = vmuladd(a[r], weight, acc[r][k]);
        }
    }
    FC_UNROLL for (int k = 0; k < FC_PLANES; k++)
        FC_UNROLL for (int r = 0; r < RUNS; r++) acc[r][k] += vset1(bias[k]);
    if (p->bounded) {
        const vec lower = vset1((T)p->lower), upper = vset1((T)p->upper);
        FC_UNROLL for (int r = 0; r < RUNS; r++)
            FC_UNROLL for (int k = 0; k < FC_PLANES; k++) acc[r][k] = vclamp(acc[r][k], lower, upper);
    }
    const int64_t channel = p->y_channel;
    FC_UNROLL for (int r = 0; r < RUNS; r++)
    {
        T *y = p->y[r];
        FC_UNROLL for (int k = 0; k < FC_PLANES; k++, y += channel)
        {
            __asm__("" : "+r"(y)); /* one after the other: addresses for all would not fit the registers */
            vstore(y, acc[r][k]);
        }
    }
}

#if FC_VECTOR_BYTES == 64
#define FC_COLUMNS(F) F(1, 4, 0) F(1, 8, 1) F(2, 4, 0) F(2, 8, 1) F(3, 3, 0) F(3, 6, 1)
#define FC_MAX_BELOW {0, 8, 8, 6}
#else
#define FC_COLUMNS(F) F(1, 4, 0) F(1, 8, 1)
#define FC_MAX_BELOW {0, 8}
#endif
FC_COLUMNS(FC_COLUMN)
#define FC_COLUMN_ENTRY(k, r, all) [k][all] = N(pixels_column_##k##_##all),
static const fc_pixels_kernels N(pixels_table) = {.max_runs = FC_MAX_RUNS,
                                                  .tile = {FC_TABLE(FC_ENTRY)},
                                                  .max_below = FC_MAX_BELOW,
                                                  .column = {FC_COLUMNS(FC_COLUMN_ENTRY)},
                                                  .planes_channels = FC_PLANES,
                                                  .planes = N(pixels_planes),
                                                  .finish = N(pixels_finish)};
#undef FC_PLANES
#undef FC_COLUMN
#undef FC_COLUMNS
#undef FC_COLUMN_ENTRY
#undef FC_MAX_BELOW
#undef FC_TILE
#undef FC_ENTRY
#undef FC_TABLE
#undef FC_MAX_RUNS
#undef FC_UNROLL
