/* conv_winograd_few.c: the products of conv_winograd.c where tiles are few: with AVX-512 the weights are transformed in
 * registers (kernels/winograd_few.tmpl.h), with 16 registers two rows of points at a time in the first-level cache
 * (kernels/winograd_pairs.tmpl.h). */
#include "conv_winograd.h"

typedef void few_kernel(const fc_winograd_few *);

/* From point e on, for the slots before `end` that need it, in groups of FC_WINOGRAD_FEW from slot 0 on, as for any
 * other point. Of these the first may hold a tile that does not need the point, which is cleared before it is used, and
 * the last may be followed by slots of a brick that hold no tile. */
static void multiply_slots(const fc_winograd_plan *s, few_kernel *const *kernels, int64_t e, int64_t end,
                           const fc_winograd_few *all)
{
    const int64_t item = (int64_t)s->p->item, line = s->tiles.k->line;
    const fc_tile_slots slots = fc_slots_of(&s->tiles, &s->stretch, (int)e);
    end = fc_min(end, slots.first + slots.count);
    for (int64_t slot = slots.first / FC_WINOGRAD_FEW * FC_WINOGRAD_FEW, count; slot < end; slot += count) {
        const int64_t at = (e * s->tiles.k->point + slot * line) * item;
        fc_winograd_few f = *all;
        f.v = (const char *)all->v + at;
        f.m = (char *)all->m + at;
        for (count = FC_WINOGRAD_FEW; !kernels[count] || (count / 2 >= end - slot && kernels[count / 2]);)
            count /= 2;
        kernels[count](&f);
    }
}

/* The square of points that all tiles have, then its edges; 1 or 2 tiles of 6 x 6 had their last column with the
 * square, 3 went as 4. */
void fc_winograd_multiply_few(const fc_winograd_plan *s, fc_winograd_few *f)
{
    const fc_tiles *t = &s->tiles;
    const int64_t tiles = s->stretch.end - s->stretch.first,
                  by_four = t->k->multiply_few[1] ? (tiles + 1) / FC_WINOGRAD_FEW * FC_WINOGRAD_FEW : tiles;
    multiply_slots(s, t->k->multiply_few, 0, tiles, f);
    f->corner = 1, f->pitch = t->k->point;
    multiply_slots(s, t->k->multiply_few_edge, t->points - t->in_w, tiles, f);
    f->corner = 0, f->pitch *= t->in_w;
    fc_swap(&f->row, &f->tap);
    multiply_slots(s, t->k->multiply_few_edge, t->in_w - 1, by_four, f);
}

fc_winograd_pair_product fc_winograd_products_of(const fc_winograd_plan *s, const fc_winograd_piece *k, int pair)
{
    const fc_tiles *t = &s->tiles;
    const int64_t part = fc_part_elements(t);
    const int last = (int)t->in_w - 1,
              rows[] = {pair ? 2 * pair - 1 : 0, pair ? 2 * pair : last}; /* 0 and 5, 1 and 2, 3 and 4 */
    fc_winograd_pair_product product = {
        .part = part,
        .v_brick = t->parts * part,
        .m_brick = fc_channel_parts(s->p, k->width) * part,
        .share = t->share,
        .vectors = (int)(k->width / s->lanes),
    };
    fc_tile_slots slots[4]; /* of the points of a row but the last one, and of that */
    for (int i = 0; i < 4; i++)
        slots[i] = fc_slots_of(t, &s->stretch, (int)t->in_w * rows[i / 2] + i % 2 * last);
    for (int i = 0, count = 0; i < 4; i++) {
        const fc_tile_slots run = slots[i];
        if (run.count == 0)
            continue;
        product.run[product.runs].first = run.first, product.run[product.runs].tiles = run.count;
        for (int j = i; j < 4; j++) {
            if (slots[j].first != run.first || slots[j].count != run.count)
                continue;
            slots[j].count = 0;
            for (int column = j % 2 * last; column < last + j % 2; column++, product.run[product.runs].points++) {
                product.at[count] = (int)t->in_w * rows[j / 2] + column;
                product.from[count++] = (int)t->in_w * (j / 2) + column;
            }
        }
        product.runs++;
    }
    return product;
}
