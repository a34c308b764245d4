/* Whether a pickle holds plain data alone: loading it then runs nobody's code. Opcodes and their arguments are those of the
 * pickle protocol, versions 4 and 5 (PEP 3154, PEP 574; listed by Python's pickletools).
 */
#ifndef TG_PLAIN_H
#define TG_PLAIN_H

#include "tg_base.h"

#define TG_PLAIN_NO (-1)   /* not plain, or not known to be */

/* How many bytes follow an opcode: a fixed number, or TG_PLAIN_SIZED + how wide the number is that says how many more. */
#define TG_PLAIN_SIZED 16

static inline int tg_plain_argument(uint8_t opcode)
{
    switch (opcode) {
    case '.': case 'N': case 0x88: case 0x89:                       /* STOP NONE NEWTRUE NEWFALSE */
    case ']': case ')': case '}': case 0x8f:                        /* EMPTY_ LIST TUPLE DICT SET */
    case '(': case 'a': case 'e': case 's': case 'u': case 0x90:    /* MARK APPEND APPENDS SETITEM SETITEMS ADDITEMS */
    case 't': case 0x85: case 0x86: case 0x87: case 0x91:           /* TUPLE TUPLE1 TUPLE2 TUPLE3 FROZENSET */
    case 0x94:                                                      /* MEMOIZE */
        return 0;
    case 0x80: case 'K': case 'h':                                  /* PROTO BININT1 BINGET */
        return 1;
    case 'M':                                                       /* BININT2 */
        return 2;
    case 'J': case 'j':                                             /* BININT LONG_BINGET */
        return 4;
    case 0x95: case 'G':                                            /* FRAME BINFLOAT */
        return 8;
    case 0x8a: case 0x8c: case 'C':                                 /* LONG1 SHORT_BINUNICODE SHORT_BINBYTES */
        return TG_PLAIN_SIZED + 1;
    case 0x8b: case 'X': case 'B':                                  /* LONG4 BINUNICODE BINBYTES */
        return TG_PLAIN_SIZED + 4;
    case 0x8d: case 0x8e: case 0x96:                                /* BINUNICODE8 BINBYTES8 BYTEARRAY8 */
        return TG_PLAIN_SIZED + 8;
    default:
        return TG_PLAIN_NO;
    }
}

static inline bool tg_plain(const uint8_t *pickle, size_t size)
{
    size_t at = 0;
    while (at < size) {
        uint8_t opcode = pickle[at++];
        int argument = tg_plain_argument(opcode);
        if (argument == TG_PLAIN_NO)
            return false;
        uint64_t length = (uint64_t)argument;
        if (argument >= TG_PLAIN_SIZED) {
            size_t width = (size_t)(argument - TG_PLAIN_SIZED);
            if (size - at < width)
                return false;
            length = 0;
            for (size_t i = width; i-- > 0;)
                length = length << 8 | pickle[at + i];
            at += width;
        }
        if (opcode == '.')
            return at == size;
        if (size - at < length)
            return false;
        at += (size_t)length;
    }
    return false;
}

#endif
