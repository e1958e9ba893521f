/* optimize.tmpl.h: one step of SGD and of Adam on the entries of a parameter. */
INLINE void N(sgd_run)(int64_t count, T lr, T momentum, T decay, T share, T *restrict data, const T *restrict grad,
                       T *restrict velocity, const int nesterov)
{
    for (int64_t i = 0; i < count; i++) {
        const T g = grad[i] + decay * data[i];
        const T v = velocity ? momentum * velocity[i] + share * g : g;
        if (velocity)
            velocity[i] = v;
        data[i] -= lr * (nesterov ? g + momentum * v : v);
    }
}

static void N(sgd)(int64_t count, const fc_sgd *s, double share, void *data, const void *grad, void *velocity)
{
    const T lr = (T)s->lr, momentum = (T)s->momentum, decay = (T)s->weight_decay;
    if (!velocity)
        N(sgd_run)(count, lr, momentum, decay, (T)share, data, grad, NULL, 0);
    else if (s->nesterov)
        N(sgd_run)(count, lr, momentum, decay, (T)share, data, grad, velocity, 1);
    else
        N(sgd_run)(count, lr, momentum, decay, (T)share, data, grad, velocity, 0);
}

#if FC_F32
#define FC_SQRT __builtin_sqrtf
#else
#define FC_SQRT __builtin_sqrt
#endif
static void N(adam)(int64_t count, const fc_adam *a, double rate_, double root_, void *data_, const void *grad_,
                    void *mean_, void *square_)
{
    T *restrict data = data_, *restrict mean = mean_, *restrict square = square_;
    const T *restrict grad = grad_;
    const T keep1 = (T)(1 - a->beta1), keep2 = (T)(1 - a->beta2), beta2 = (T)a->beta2, decay = (T)a->weight_decay;
    const T shrink = (T)a->shrink, eps = (T)a->eps, rate = (T)rate_, root = (T)root_;
    for (int64_t i = 0; i < count; i++) {
        const T w = data[i] * shrink, g = grad[i] + decay * w;
        mean[i] += keep1 * (g - mean[i]);
        square[i] = beta2 * square[i] + keep2 * (g * g);
        data[i] = w - rate * (mean[i] / (FC_SQRT(square[i]) / root + eps));
    }
}
#undef FC_SQRT

static const fc_optimize_kernels N(optimize_table) = {.sgd = N(sgd), .adam = N(adam)};
