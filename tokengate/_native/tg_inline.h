/* How many blocks of tokengate.testing.inline() are open in this process. While none is, which is always outside tests, a
 * call costs one load for it; who finds one open asks its own context whether the block is its own.
 */
#ifndef TG_INLINE_H
#define TG_INLINE_H

#include "tg_base.h"

/* tg_inline_blocks. Written: who enters and leaves a block (relaxed add). Read: submitters (relaxed). It orders nothing: who is inside a
 * block is there by what its own thread did, or got its context from, so that it sees at least that one. */
static _Atomic(uint32_t) tg_inline_blocks = 0;

static inline bool tg_inline_open(void)
{
    return atomic_load_explicit(&tg_inline_blocks, memory_order_relaxed) != 0;
}

static inline void tg_inline_count(bool entered)
{
    atomic_fetch_add_explicit(&tg_inline_blocks, entered ? 1u : UINT32_MAX, memory_order_relaxed);
}

#endif
