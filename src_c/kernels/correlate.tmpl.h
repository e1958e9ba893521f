/* correlate.tmpl.h: lanes are neighbouring outputs of a row. A tile of 3 outputs by 5 taps loads 3 + 5 vectors for 15
 * multiplications, and those of x, which straddle cache lines, count twice: AVX-512 15 + 3 + 1 registers. AVX2 2 by 5,
 * 10 + 2 + 1. All are loaded by masks, so that the end of a row needs no code of its own: an x that no output sees may
 * be infinite.
 */
#if FC_F32 && FC_VECTOR_BYTES >= 32
#define FC_OUTPUTS (FC_VECTOR_BYTES == 64 ? 3 : 2)
enum { N(CORRELATE_TAPS) = 5 };
#define FC_UNROLL _Pragma("GCC unroll 8")

INLINE void N(correlate_step)(const fc_correlate *g, const T *x, const T *y, int count, const int outputs,
                              const int taps, vec (*acc)[N(CORRELATE_TAPS)])
{
    vec b[FC_OUTPUTS];
    FC_UNROLL for (int k = 0; k < outputs; k++)
    {
        b[k] = vload_tail(y, count);
        y += g->y_plane;
    }
    FC_UNROLL for (int v = 0; v < taps; v++)
    {
        const vec a = vrounded(vload_tail(x, count));
        x += g->x_tap;
        FC_UNROLL for (int k = 0; k < outputs; k++) acc[k][v] = vmuladd(b[k], a, acc[k][v]);
    }
}

INLINE void N(correlate_tile)(const fc_correlate *g, const T *x, const T *y, T *sum, const int outputs, const int taps)
{
    vec acc[FC_OUTPUTS][N(CORRELATE_TAPS)];
    FC_UNROLL for (int k = 0; k < outputs; k++)
        FC_UNROLL for (int v = 0; v < taps; v++) acc[k][v] = vload(sum + k * g->sum_output + v * VL);
    for (int64_t l = 0; l < g->lines; l++, x += g->x_line, y += g->y_line)
        for (int64_t j = 0; j < g->columns; j += VL)
            N(correlate_step)(g, x + j, y + j, g->columns - j < VL ? (int)(g->columns - j) : VL, outputs, taps, acc);
    FC_UNROLL for (int k = 0; k < outputs; k++)
        FC_UNROLL for (int v = 0; v < taps; v++) vstore(sum + k * g->sum_output + v * VL, acc[k][v]);
}

typedef void N(correlate_fn)(const fc_correlate *, const T *x, const T *y, T *sum);
#define FC_TILE(outputs, taps)                                                                                         \
    static void N(correlate_##outputs##_##taps)(const fc_correlate *g, const T *x, const T *y, T *sum)                 \
    {                                                                                                                  \
        N(correlate_tile)(g, x, y, sum, outputs, taps);                                                                \
    }
#define FC_TILES(outputs) FC_TILE(outputs, 1) FC_TILE(outputs, 3) FC_TILE(outputs, 5)
#define FC_ENTRY(outputs) {N(correlate_##outputs##_1), N(correlate_##outputs##_3), N(correlate_##outputs##_5)}
FC_TILES(1)
FC_TILES(2)
#if FC_VECTOR_BYTES == 64
FC_TILES(3)
static N(correlate_fn) *const N(correlate_tiles)[FC_OUTPUTS][3] = {FC_ENTRY(1), FC_ENTRY(2), FC_ENTRY(3)};
#else
static N(correlate_fn) *const N(correlate_tiles)[FC_OUTPUTS][3] = {FC_ENTRY(1), FC_ENTRY(2)};
#endif

static void N(correlate)(const fc_correlate *g)
{
    const T *y = g->y;
    T *sum = g->sum;
    for (int64_t left = g->outputs, count; left > 0; left -= count) {
        const int64_t tiles = (left + FC_OUTPUTS - 1) / FC_OUTPUTS;
        count = (left + tiles - 1) / tiles; /* near-equal */
        const T *x = g->x;
        for (int64_t v = 0, taps; v < g->taps; v += taps, x += taps * g->x_tap) {
            taps = g->taps - v >= 5 ? 5 : g->taps - v >= 3 ? 3 : 1;
            N(correlate_tiles)[count - 1][taps / 2](g, x, y, sum + v * VL);
        }
        y += count * g->y_plane;
        sum += count * g->sum_output;
    }
}
#define FC_CORRELATE N(correlate)
#undef FC_OUTPUTS
#undef FC_UNROLL
#undef FC_TILE
#undef FC_TILES
#undef FC_ENTRY
#else
#define FC_CORRELATE NULL
#endif
