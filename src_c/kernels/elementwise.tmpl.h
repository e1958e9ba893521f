/* elementwise.tmpl.h: functions of one value, and their gradients.
 *
 * exp: x = n ln 2 + r, |r| <= ln 2 / 2, exp(x) = 2^n (1 + p(r)) with p the Taylor series of exp(r) - 1. Its first omitted
 * term is r^8 / 8! = 5e-9 (float) and r^14 / 14! = 4e-18 (double), below half an ulp of 1. ln 2 is split so that n times
 * its high part is exact without fused multiply-add.
 */
#if FC_F32
#define FC_EXP_MIN ((T)-104) /* exp(-104) is less than half the least denormal */
#define FC_EXP_MAX ((T)89)   /* exp(89) is infinite */
#define FC_LN2_HIGH ((T)0.693359375)
#define FC_LN2_LOW ((T)-2.12194440054690583e-4)
#define FC_ROUND ((T)12582912) /* 1.5 * 2^23: adding it rounds to a whole number, which ends up in the low bits */
#define FC_BIAS 127
#define FC_FRACTION 23
#define FC_TANH_MAX ((T)10) /* 1 - tanh(10) = 4e-9 */
#else
#define FC_EXP_MIN ((T)-746)
#define FC_EXP_MAX ((T)710)
#define FC_LN2_HIGH ((T)0.693147180369123816490)
#define FC_LN2_LOW ((T)1.90821492927058770002e-10)
#define FC_ROUND ((T)6755399441055744) /* 1.5 * 2^52 */
#define FC_BIAS 1023
#define FC_FRACTION 52
#define FC_TANH_MAX ((T)20) /* 1 - tanh(20) = 8e-18 */
#endif

/* 2^n for -1022 <= n <= 1023 (float: -126 <= n <= 127) */
INLINE vec N(power_of_2)(ivec n) { return (vec)((n + FC_BIAS) << FC_FRACTION); }

/* n and p(r) of exp(x) = 2^n (1 + p(r)) */
INLINE vec N(exp_parts)(vec x, ivec *n)
{
    const vec shifted = x * vset1((T)1.44269504088896340736) + vset1(FC_ROUND), whole = shifted - vset1(FC_ROUND);
    const vec r = (x - whole * vset1(FC_LN2_HIGH)) - whole * vset1(FC_LN2_LOW);
    *n = (ivec)shifted - (ivec)vset1(FC_ROUND);
    vec q = vset1((T)(1.0 / 5040));
#if !FC_F32
    q = vset1((T)(1.0 / 6227020800));
    q = q * r + vset1((T)(1.0 / 479001600));
    q = q * r + vset1((T)(1.0 / 39916800));
    q = q * r + vset1((T)(1.0 / 3628800));
    q = q * r + vset1((T)(1.0 / 362880));
    q = q * r + vset1((T)(1.0 / 40320));
    q = q * r + vset1((T)(1.0 / 5040));
#endif
    q = q * r + vset1((T)(1.0 / 720));
    q = q * r + vset1((T)(1.0 / 120));
    q = q * r + vset1((T)(1.0 / 24));
    q = q * r + vset1((T)(1.0 / 6));
    q = q * r + vset1((T)0.5);
    return q * (r * r) + r;
}

INLINE vec N(exp)(vec x)
{
    ivec n;
    const vec p = N(exp_parts)(vclamp(x, vset1(FC_EXP_MIN), vset1(FC_EXP_MAX)), &n);
    const ivec half = n >> 1; /* two factors: 2^n itself may be out of range */
    return (p + vset1(1)) * N(power_of_2)(half) * N(power_of_2)(n - half);
}

INLINE vec N(absolute)(vec x) { return (vec)((ivec)x & ~(ivec)vset1((T)-0.0)); }

/* e = exp(-|x|), at most 1; sigmoid = (x > 0 ? 1 : e) / (1 + e), and 1 - sigmoid the same of -x */
INLINE vec N(sigmoid)(vec x, vec *complement)
{
    const vec e = N(exp)(-N(absolute)(x)), inv = vset1(1) / (vset1(1) + e);
    const vmask positive = vgreater(x, (vec){0});
    *complement = vpick(positive, e * inv, inv);
    return vpick(positive, inv, e * inv);
}

/* With d = exp(2|x|) - 1 = 2^n p + (2^n - 1), exact near 0: tanh|x| = d / (d + 2). */
INLINE vec N(tanh)(vec x)
{
    const vec sign_bit = vset1((T)-0.0);
    ivec n;
    const vec two_x = vclamp(N(absolute)(x), (vec){0}, vset1(FC_TANH_MAX)) * vset1(2);
    const vec p = N(exp_parts)(two_x, &n), scale = N(power_of_2)(n);
    const vec d = scale * p + (scale - vset1(1));
    return (vec)((ivec)(d / (d + vset1(2))) | ((ivec)x & (ivec)sign_bit));
}

/* exp(z^2) erfc(z) = t * sum_k c_k T_k(2 t - 1), t = 1 / (1 + z / 4), z >= 0: Chebyshev coefficients of the left side over t
 * (64 nodes, 40 digits). The terms left out sum to 1e-9 (float) and 6e-18 (double). */
INLINE vec N(scaled_erfc)(vec z)
{
    static const double c[] = {
        0.40802446954913146, 0.37635823567636745, 0.14758035457222363, 0.049571317930027586,
        0.014227107557117175, 0.003443493262717524, 0.000682254183283808, 0.00010340451975756189,
        9.72854595199015e-06, -1.1988713758412045e-07, -2.1747767703449563e-07, -3.0291767735991394e-08,
        9.47991756520455e-10, 8.633411694990956e-10, 6.872156425953403e-11, -1.7034898438296277e-11,
        -3.3921306868290887e-12, 2.6158087668540244e-13, 1.212767580310864e-13, -2.114689543244809e-15,
        -4.117340933404178e-15, -6.328712721700708e-17, 1.4393110983449846e-16, 4.5614947982841305e-18,
    };
    const vec t = vset1(1) / (vset1(1) + z * vset1((T)0.25)), s = t + t - vset1(1), two_s = s + s;
    vec b1 = {0}, b2 = {0};
    _Pragma("GCC unroll 32") for (int k = FC_F32 ? 12 : 23; k > 0; k--)
    {
        const vec b0 = two_s * b1 + (vset1((T)c[k]) - b2);
        b2 = b1;
        b1 = b0;
    }
    return t * (s * b1 + (vset1((T)c[0]) - b2));
}

/* Phi(x), the normal distribution, and exp(-x^2 / 2) */
INLINE vec N(normal)(vec x, vec *bell)
{
    *bell = N(exp)(x * x * vset1((T)-0.5));
    const vec tail = vset1((T)0.5) * *bell * N(scaled_erfc)(N(absolute)(x) * vset1((T)0.70710678118654752440));
    return vpick(vgreater(x, (vec){0}), vset1(1) - tail, tail);
}

/* (1 + tanh(u)) / 2 = sigmoid(2 u). Beyond |x| = 64 it is 0 or 1 and x^3 could overflow. */
INLINE vec N(gelu_argument)(vec x, vec *slope)
{
    const vec a = vclamp(x, vset1(-64), vset1(64)), k = vset1((T)1.59576912160573071176); /* 2 sqrt(2 / pi) */
    const vec cubic = vset1((T)0.044715) * a * a;
    *slope = k * (vset1(1) + vset1(3) * cubic);
    return k * (a + cubic * a);
}

INLINE vec N(elementwise_value)(const fc_elementwise function, vec x, vec alpha)
{
    const vec zero = {0};
    vec other;
    switch (function) {
    case FC_RELU:
        return vclamp(x, zero, vset1((T)INFINITY));
    case FC_RELU6:
        return vclamp(x, zero, vset1(6));
    case FC_LEAKY_RELU:
        return vpick(vgreater(x, zero), x, x * alpha);
    case FC_SIGMOID:
        return N(sigmoid)(x, &other);
    case FC_TANH:
        return N(tanh)(x);
    case FC_SILU:
        return x * N(sigmoid)(x, &other);
    case FC_GELU:
        return x * N(normal)(x, &other);
    default:
        return x * N(sigmoid)(N(gelu_argument)(x, &other), &other);
    }
}

/* g where x is greater than 0 or NaN, otherwise 0 */
INLINE vec N(gate)(vec x, vec g) { return vpick(vor(vgreater(x, (vec){0}), visnan(x)), g, (vec){0}); }

INLINE vec N(elementwise_slope)(const fc_elementwise function, vec x, vec g, vec alpha)
{
    vec s, c, slope;
    switch (function) {
    case FC_RELU:
        return N(gate)(x, g);
    case FC_RELU6:
        return N(gate)(x, N(gate)(vset1(6) - x, g));
    case FC_LEAKY_RELU:
        return g * vpick(vgreater(x, (vec){0}), vset1(1), alpha);
    case FC_SIGMOID:
        s = N(sigmoid)(x, &c);
        return g * (s * c);
    case FC_TANH: /* 1 - tanh^2 = 4 sigmoid(2 x) sigmoid(-2 x), without cancellation */
        s = N(sigmoid)(x + x, &c);
        return g * (vset1(4) * s * c);
    case FC_SILU:
        s = N(sigmoid)(x, &c);
        return g * (s + x * s * c);
    case FC_GELU:
        s = N(normal)(x, &c);
        return g * (s + x * c * vset1((T)0.39894228040143267794)); /* 1 / sqrt(2 pi) */
    default:
        s = N(sigmoid)(N(gelu_argument)(x, &slope), &c);
        return g * (s + x * s * c * slope);
    }
}

INLINE void N(elementwise_run)(const fc_elementwise function, int64_t count, double alpha_, const T *g, const T *x, T *y)
{
    const vec alpha = vset1((T)alpha_);
    int64_t i = 0;
    for (; i + VL <= count; i += VL) {
        const vec a = vload(x + i);
        vstore(y + i, g ? N(elementwise_slope)(function, a, vload(g + i), alpha) : N(elementwise_value)(function, a, alpha));
    }
    const int tail = (int)(count - i);
    if (tail) {
        const vec a = vload_tail(x + i, tail);
        const vec out = g ? N(elementwise_slope)(function, a, vload_tail(g + i, tail), alpha)
                          : N(elementwise_value)(function, a, alpha);
        vstore_tail(y + i, out, tail);
    }
}

#define FC_CASES(g)                                                                                                    \
    switch (function) {                                                                                                \
        FC_CASE(FC_RELU, g)                                                                                            \
        FC_CASE(FC_RELU6, g)                                                                                           \
        FC_CASE(FC_LEAKY_RELU, g)                                                                                      \
        FC_CASE(FC_SIGMOID, g)                                                                                         \
        FC_CASE(FC_TANH, g)                                                                                            \
        FC_CASE(FC_SILU, g)                                                                                            \
        FC_CASE(FC_GELU, g)                                                                                            \
        FC_CASE(FC_GELU_TANH, g)                                                                                       \
    }
#define FC_CASE(name, g)                                                                                               \
    case name:                                                                                                         \
        N(elementwise_run)(name, count, alpha, g, x, y);                                                               \
        break;

static void N(elementwise_map)(fc_elementwise function, int64_t count, double alpha, const void *x, void *y)
{
    FC_CASES(NULL)
}

static void N(elementwise_grad)(fc_elementwise function, int64_t count, double alpha, const void *g, const void *x, void *y)
{
    FC_CASES(g)
}

static const fc_elementwise_kernels N(elementwise_table) = {.map = N(elementwise_map), .grad = N(elementwise_grad)};
#undef FC_EXP_MIN
#undef FC_EXP_MAX
#undef FC_LN2_HIGH
#undef FC_LN2_LOW
#undef FC_ROUND
#undef FC_BIAS
#undef FC_FRACTION
#undef FC_TANH_MAX
#undef FC_CASES
#undef FC_CASE
