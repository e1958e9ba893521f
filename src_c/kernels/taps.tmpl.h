/* taps.tmpl.h: a sum takes one load per tap, so two a cycle; four neighbouring outputs share the loop over the taps and
 * hide the latency of the additions. The order of a sum is (r, v), and lanes beyond the channels hold other taps: they
 * are not kept. Taps beyond an edge read zeros, which change no bit: loops of the same length for all outputs are
 * predicted.
 */
enum { N(TAPS_OUTPUTS) = 4 };

/* Outputs i .. i + outputs - 1, channels [c, c + VL). Whole vectors are stored: what lies beyond the channels is
 * overwritten by the next pixel, so pixels come in order, and of several vectors the last is a tail. */
INLINE void N(taps_sum)(const fc_taps *s, int64_t i, int64_t c, const int outputs, const int edge)
{
    static const T zero[VL];
    const int64_t pixel = s->pixel, step = s->dilation * pixel + s->channels, start = i - s->pad;
    vec sum[N(TAPS_OUTPUTS)];
    _Pragma("GCC unroll 4") for (int j = 0; j < outputs; j++) sum[j] = (vec){0};
    for (int64_t r = 0; r < s->row_count; r++) {
        const T *p = (const T *)s->row[r] + start * pixel + c;
        for (int64_t v = 0, at = start; v < s->taps; v++, p += step, at += s->dilation)
            _Pragma("GCC unroll 4") for (int j = 0; j < outputs; j++)
            {
                const int inside = !edge || (uint64_t)(at + j) < (uint64_t)s->width;
                sum[j] += vload(inside ? p + j * pixel : zero);
            }
    }
    const int64_t left = s->channels - c;
    const int count = left < VL ? (int)left : VL;
    if (s->finish) {
        const T *scale = s->scale, *bias = s->bias, *residual = s->residual;
        const vec a = scale ? N(gemm_load)(scale + c, count) : vset1(1),
                  b = bias ? N(gemm_load)(bias + c, count) : (vec){0};
        _Pragma("GCC unroll 4") for (int j = 0; j < outputs; j++)
        {
            sum[j] = vmuladd(sum[j], a, b);
            if (residual)
                sum[j] += N(gemm_load)(residual + (i + j) * s->residual_pixel + c, count);
            sum[j] = vclamp(sum[j], vset1((T)s->lower), vset1((T)s->upper));
        }
    }
    T *y = (T *)s->y + i * s->channels + c;
    _Pragma("GCC unroll 4") for (int j = 0; j < outputs; j++, y += s->channels) if (count == VL || c == 0)
        vstore(y, sum[j]);
    else vstore_tail(y, sum[j], count);
}

static void N(taps_row)(const fc_taps *s)
{
    const int64_t last = s->count - N(TAPS_OUTPUTS); /* the last four outputs may be computed in part once more */
    if (last < 0) {
        for (int64_t i = 0; i < s->count; i++)
            for (int64_t c = 0; c < s->channels; c += VL)
                N(taps_sum)(s, i, c, 1, 1);
        return;
    }
    for (int64_t next = 0; next < s->count; next += N(TAPS_OUTPUTS)) {
        const int64_t i = next < last ? next : last, start = i - s->pad,
                      end = start + (s->taps - 1) * s->dilation + N(TAPS_OUTPUTS);
        for (int64_t c = 0; c < s->channels; c += VL)
            if (start >= 0 && end <= s->width)
                N(taps_sum)(s, i, c, N(TAPS_OUTPUTS), 0);
            else
                N(taps_sum)(s, i, c, N(TAPS_OUTPUTS), 1);
    }
}
