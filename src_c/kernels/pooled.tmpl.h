/* pooled.tmpl.h: a window multiplies what its winner sees, rows of taps of a vector or two, by one number. Of 5 x 1 vectors that is 5
 * products and 8 loads, so bound by loads, if two channels at a time hide the latency of the sums: 10 accumulators.
 */
typedef T N(pooled_vec) __attribute__((vector_size(FC_POOLED_BYTES)));
typedef T N(pooled_unaligned) __attribute__((vector_size(FC_POOLED_BYTES), aligned(sizeof(T)), may_alias));
enum { N(POOLED_LANES) = FC_POOLED_BYTES / sizeof(T) };

#define FC_UNROLL _Pragma("GCC unroll 16")

INLINE void N(pooled_sum)(const fc_pooled *s, int64_t k, const int channels, const int rows, const int vectors)
{
    const int64_t size = rows * vectors * N(POOLED_LANES);
    T *sum = (T *)s->sum + k * size;
    N(pooled_vec) acc[2][FC_POOLED_ROWS][FC_POOLED_VECTORS];
    FC_UNROLL for (int c = 0; c < channels; c++)
        FC_UNROLL for (int u = 0; u < rows; u++)
            FC_UNROLL for (int q = 0; q < vectors; q++)
                acc[c][u][q] = *(const N(pooled_unaligned) *)(sum + c * size + (u * vectors + q) * N(POOLED_LANES));
    const uint8_t *tap = s->tap + k;
    for (int64_t i = 0; i < s->height; i++) {
        const T *x = (const T *)s->x + i * s->step_h, *grad = (const T *)s->grad + i * s->grad_row + k;
        for (int64_t j = 0; j < s->width; j++, x += s->step_w, grad += s->grad_pixel, tap += s->channels)
            FC_UNROLL for (int c = 0; c < channels; c++)
            {
                const T *from = x + s->offset[tap[c]], g = grad[c];
                FC_UNROLL for (int u = 0; u < rows; u++, from += s->row)
                    FC_UNROLL for (int q = 0; q < vectors; q++)
                        acc[c][u][q] += g * *(const N(pooled_unaligned) *)(from + q * N(POOLED_LANES));
            }
    }
    FC_UNROLL for (int c = 0; c < channels; c++)
        FC_UNROLL for (int u = 0; u < rows; u++)
            FC_UNROLL for (int q = 0; q < vectors; q++)
                *(N(pooled_unaligned) *)(sum + c * size + (u * vectors + q) * N(POOLED_LANES)) = acc[c][u][q];
}

#define FC_POOLED(rows, vectors)                                                                                       \
    static void N(pooled_##rows##_##vectors)(const fc_pooled *s)                                                       \
    {                                                                                                                  \
        int64_t k = 0;                                                                                                 \
        for (; vectors == 1 && k + 2 <= s->channels; k += 2)                                                           \
            N(pooled_sum)(s, k, 2, rows, vectors);                                                                     \
        for (; k < s->channels; k++)                                                                                   \
            N(pooled_sum)(s, k, 1, rows, vectors);                                                                     \
    }
FC_POOLED(3, 1)
FC_POOLED(3, 2)
FC_POOLED(5, 1)
FC_POOLED(5, 2)
static const fc_pooled_kernels N(pooled_table) = {
    [3] = {NULL, N(pooled_3_1), N(pooled_3_2)},
    [5] = {NULL, N(pooled_5_1), N(pooled_5_2)},
};
#undef FC_POOLED
#undef FC_UNROLL
