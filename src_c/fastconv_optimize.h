/* fastconv_optimize.h: steps of optimizers; included by fastconv.h.
 *
 * All parameters of a group in one call, each entry read and written once (ops/optimize.c). */
#ifndef FC_OPTIMIZE_H
#define FC_OPTIMIZE_H

/* data[count], grad[count]; the others as said below. first_task is the driver's. */
typedef struct {
    void *data;
    const void *grad;
    void *first, *second;
    int64_t count;
    double numbers[2];
    int64_t first_task;
} fc_update;

/* g = grad + weight_decay * data; v = momentum * v + numbers[0] * g, v = first (null: v = g);
 * data -= lr * (nesterov ? g + momentum * v : v) */
typedef struct {
    double lr, momentum, weight_decay;
    int nesterov;
} fc_sgd;
/* w = data * shrink; g = grad + weight_decay * w; m = first: m += (1 - beta1) * (g - m);
 * v = second: v = beta2 * v + (1 - beta2) * g^2; data = w - numbers[0] * m / (sqrt(v) / numbers[1] + eps) */
typedef struct {
    double beta1, beta2, eps, weight_decay, shrink;
} fc_adam;

void fc_sgd_step(fc_dtype, const fc_sgd *, fc_update *updates, int64_t count);
void fc_adam_step(fc_dtype, const fc_adam *, fc_update *updates, int64_t count);
#endif
