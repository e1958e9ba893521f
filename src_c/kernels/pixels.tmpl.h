/* pixels.tmpl.h: K weights stay broadcast while R runs of neighbouring outputs pass by: R loads and K broadcasts for R * K
 * multiply-adds. R is the largest, up to 8, with R * K accumulators + K broadcasts + 1 load within the registers
 * (32 of AVX-512, 16 elsewhere): 8 8 8 6 5 4 3 2 for K = 1 .. 8, and 8 6 3 2 2 1 1 1.
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
                vec weight[FC_PIXELS_MAX_CHANNELS];
                FC_UNROLL for (int k = 0; k < channels; k++) weight[k] = vset1(w[k]);
                FC_UNROLL for (int r = 0; r < runs; r++)
                {
                    vec a = vload(x[r] + at);
                    FC_UNROLL for (int k = 0; k < channels; k++) acc[r][k] += a * weight[k];
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
    FC_ROW8(F, 1) FC_ROW6(F, 2) FC_ROW3(F, 3) FC_ROW2(F, 4) FC_ROW2(F, 5) FC_ROW1(F, 6) FC_ROW1(F, 7) FC_ROW1(F, 8)
#define FC_MAX_RUNS {0, 8, 6, 3, 2, 2, 1, 1, 1}
#endif
FC_TABLE(FC_TILE)
#define FC_ENTRY(k, r) [k][r] = N(pixels_##k##_##r),
static const fc_pixels_kernels N(pixels_table) = {.max_runs = FC_MAX_RUNS, .tile = {FC_TABLE(FC_ENTRY)}};
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
