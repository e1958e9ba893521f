/* conv_choose.h: the methods, and which of them serves a problem. */
#ifndef FC_OPS_CONV_CHOOSE_H
#define FC_OPS_CONV_CHOOSE_H
#include "conv.h"

typedef enum {
    FC_BY_DEPTHWISE,
    FC_BY_FLAT,
    FC_BY_GROUPS,
    FC_BY_INPUTS,
    FC_BY_PIXELS,
    FC_BY_TAPS,
    FC_BY_DOTS,
    FC_BY_WINOGRAD,
    FC_BY_ROWS,
    FC_BY_PHASES,
    FC_BY_PRODUCTS, /* direct */
    FC_BY_WHOLE,
} fc_method_kind;

typedef struct {
    fc_method_kind kind;
    const char *name, *reason;
    fc_run *run;
    fc_need (*scratch)(const fc_problem *);
    int64_t (*packed)(const fc_problem *);
    fc_status (*pack)(const fc_problem *, char *to);
} fc_method;

/* Lays the problem out and picks its method; NULL when the algorithm asked for cannot serve it. */
const fc_method *fc_choose(fc_problem *);
/* Whether all phases of a gradient of the input at once (fc_conv_phases_grad_input) take less than `apart`, the sum of
 * their fc_forward_cost. */
int fc_phases_grad_input_pay(const fc_problem *, double apart);
/* What computes the gradient of the weight of a problem that is laid out, trimmed and turned; NULL as above. */
fc_run *fc_choose_grad_weight(const fc_problem *);
#endif
