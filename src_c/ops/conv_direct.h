/* conv_direct.h: how conv_direct.c cuts a problem (conv_direct_plan.c). */
#ifndef FC_OPS_CONV_DIRECT_H
#define FC_OPS_CONV_DIRECT_H
#include "conv.h"

enum {
    FC_STRIP_HEAD = 64, /* of a thread's memory: the block whose strips it keeps */
    FC_MAX_TILED = 128, /* columns of a row whose tiles are cut by what they see */
};

/* Columns [first, end) of a row, which see no more than `taps` of a row of the kernel. */
typedef struct {
    int64_t first, end;
    fc_range taps;
} fc_column_tile;

typedef struct {
    const fc_problem *p;
    int64_t lanes, panel, panels, chunk;   /* columns of a panel but the last, number of panels, channels per chunk */
    int together;                          /* the panels of a few rows before the next rows */
    int64_t block_n, block_h, block_w;     /* block of outputs */
    int64_t count_n, count_h, count_w;     /* number of blocks */
    int64_t parts;                         /* pieces of the panel loop */
    int in_place, dense_y;
    int kept;                              /* a thread keeps the strips of all chunks for its next part */
    int stream;                            /* y bypasses the caches */
    int64_t strip_pixel, strip_row, strip_image;  /* pitches, elements */
    int64_t strip_step_h, strip_step_w;    /* strip rows and columns between neighbouring outputs */
    int64_t tile_pixel;                    /* pitch of the output tile when y is not channels-last */
    int by_pixel;                          /* rows of a tile are images */
    fc_range inside;                       /* in place: columns that see no padding */
    int64_t tiles;                         /* of a row, or 0: as the tile kernel cuts it */
    fc_column_tile tile[FC_MAX_TILED];
    int pack_late;                         /* each task packs the panels it uses, into its own memory */
    char *threads;
    int64_t strip_bytes, tile_bytes, thread_bytes;
} fc_direct_plan;

fc_direct_plan fc_plan_direct(const fc_problem *);

static inline int64_t fc_tap_count(const fc_problem *p) { return p->kernel_h * p->kernel_w; }

/* Two vectors each; where the tile kernel has room an odd one joins the last two. */
static inline int64_t fc_panels(const fc_problem *p)
{
    const int64_t vectors = fc_ceil_div(p->out_channels, p->k->vector_lanes);
    return p->k->gemm->widest > 2 && !p->narrow ? fc_max(1, vectors / 2) : fc_ceil_div(vectors, 2);
}

/* Of the largest register tile */
static inline int64_t fc_tile_rows(const fc_problem *p)
{
    return p->out_channels <= p->k->vector_lanes ? p->k->gemm->single_rows : p->k->gemm->max_rows;
}

/* Whether the first tile of a panel, of so many columns and rows, packs it: rows of a [c][k] weight. */
static inline int fc_packs_weight(const fc_problem *p, int64_t columns, int64_t rows)
{
    return p->weight_k == 1 && fc_tap_count(p) == 1 && fc_sees_no_padding(p) && fc_copies_panel(p, columns, rows);
}

static inline int64_t fc_chunks(const fc_direct_plan *s) { return fc_ceil_div(s->p->in_channels, s->chunk); }

/* The first column from w on that is not inside */
static inline int64_t fc_next_edge(const fc_range *inside, int64_t w)
{
    return w >= inside->first && w < inside->end ? inside->end : w;
}
#endif
