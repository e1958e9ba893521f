/* pooled.tmpl.h: a window multiplies what its winner sees, a vector of each row of taps, by one number. Of 5 rows that
 * is 5 products and 8 loads, so bound by loads, if two channels at a time hide the latency of the sums: 10
 * accumulators. Not for SSE, whose 5 rows of two vectors each do not fit into the registers.
 */
#if FC_VECTOR_BYTES >= FC_POOLED_BYTES
typedef T N(pooled_vec) __attribute__((vector_size(FC_POOLED_BYTES)));
typedef T N(pooled_unaligned) __attribute__((vector_size(FC_POOLED_BYTES), aligned(sizeof(T)), may_alias));

#define FC_UNROLL _Pragma("GCC unroll 8")

INLINE void N(pooled_sum)(const fc_pooled *s, int64_t k, const int rows)
{
    enum { LANES = FC_POOLED_BYTES / sizeof(T) };
    N(pooled_unaligned) *sum = (N(pooled_unaligned) *)((T *)s->sum + k * rows * LANES);
    N(pooled_vec) acc[2][FC_POOLED_ROWS];
    FC_UNROLL for (int c = 0; c < 2; c++)
        FC_UNROLL for (int u = 0; u < rows; u++) acc[c][u] = sum[c * rows + u];
    const uint8_t *tap = s->tap + k;
    for (int64_t i = 0; i < s->height; i++) {
        const T *x = (const T *)s->x + i * s->step_h, *grad = (const T *)s->grad + i * s->grad_row + k;
        for (int64_t j = 0; j < s->width; j++, x += s->step_w, grad += s->grad_pixel, tap += s->channels)
            FC_UNROLL for (int c = 0; c < 2; c++)
            {
                const T *from = x + s->offset[tap[c]], g = grad[c];
                FC_UNROLL for (int u = 0; u < rows; u++, from += s->row)
                    acc[c][u] += g * *(const N(pooled_unaligned) *)from;
            }
    }
    FC_UNROLL for (int c = 0; c < 2; c++)
        FC_UNROLL for (int u = 0; u < rows; u++) sum[c * rows + u] = acc[c][u];
}
#undef FC_UNROLL

#define FC_POOLED(rows)                                                                                                \
    static void N(pooled_##rows)(const fc_pooled *s)                                                                   \
    {                                                                                                                  \
        for (int64_t k = 0; k < s->channels; k += 2)                                                                   \
            N(pooled_sum)(s, k, rows);                                                                                 \
    }
FC_POOLED(3)
FC_POOLED(5)
static const fc_pooled_kernels N(pooled_table) = {[3] = N(pooled_3), [5] = N(pooled_5)};
#undef FC_POOLED
#else
static const fc_pooled_kernels N(pooled_table) = {NULL};
#endif
