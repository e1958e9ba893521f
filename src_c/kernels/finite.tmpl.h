/* finite.tmpl.h: the search for NaN and infinities: x * 0 is 0 for every other x, and NaN stays in a sum. */
static int N(finite)(int64_t count, const void *x_)
{
    const T *x = x_;
    vec sum[4] = {{0}}; /* 4 chains of additions: one would wait for itself */
    int64_t i = 0;
    for (; i + 4 * VL <= count; i += 4 * VL)
        for (int j = 0; j < 4; j++)
            sum[j] += vload(x + i + j * VL) * (T)0;
    const vec total = sum[0] + sum[1] + (sum[2] + sum[3]);
    T rest = 0;
    for (int j = 0; j < VL; j++)
        rest += total[j];
    for (; i < count; i++)
        rest += x[i] * (T)0;
    return rest == 0;
}
