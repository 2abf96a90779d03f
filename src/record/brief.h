/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_BRIEF_H
#define CBI_BRIEF_H

#include "base/base.h"

/*
 * Short texts of few characters in half the bytes. The brief form of a text is another name for it:
 * two texts have the same one if and only if they are the same, for one alphabet. brief.c has the
 * layout.
 */

enum {
    CBI_BRIEF_LETTERS = 15,
    CBI_BRIEF_TEXT_MAX = 64, /* longer ones stay as they are, behind a mark */
    CBI_BRIEF_MARK = 255,
    CBI_BRIEF_FIXED = 128, /* with the number of bytes: the pattern is not among the codes */
    CBI_BRIEF_SLACK = 100  /* bytes behind a brief form that may be written */
};

/** Fifteen letters and their codes, and what stands at the same place in every text that was seen.
 * Plain data, immutable once made. */
typedef struct cbi_brief {
    uint8_t letters[16];
    uint8_t codes[256];
    uint8_t pattern[CBI_BRIEF_TEXT_MAX]; /* 0 where the bit is not set */
    uint64_t fixed;         /* a bit for each place of the pattern that texts must have */
    uint32_t pattern_bytes; /* shorter texts do not have it */
} cbi_brief;

/** What texts have in common, place by place. Begins as zeros. */
typedef struct cbi_brief_common {
    uint8_t first[CBI_BRIEF_TEXT_MAX]; /* of the first text */
    uint64_t same;
    bool any;
} cbi_brief_common;

void cbi_brief_see(cbi_brief_common *c, const uint8_t *text, size_t bytes);

/** From how many times each byte was seen; answers the share of bytes that are not among the
 * letters, 1 if nothing was seen. `common`: of the same texts, NULL when nothing is known. */
double cbi_brief_init(cbi_brief *b, const uint64_t times[256], const cbi_brief_common *common);

/** The most a brief form of so many bytes takes. */
static inline size_t cbi_brief_most(size_t text_bytes) {
    return text_bytes + 1;
}

/** The brief form of a text, at `to`; answers its bytes. CBI_BRIEF_SLACK more may be written. */
size_t cbi_brief_put(const cbi_brief *b, const uint8_t *text, size_t bytes, uint8_t *to);
/** Those of many texts, one behind the other from `to` on: texts[i] and bytes[i] become those of
 * their brief forms. Answers where the last one ends. */
uint8_t *cbi_brief_put_all(const cbi_brief *b, const uint8_t **texts, uint32_t *bytes, size_t count,
                           uint8_t *to);

/** Of a text by its brief form. */
static inline size_t cbi_brief_text_bytes(const uint8_t *brief, size_t bytes) {
    return brief[0] == CBI_BRIEF_MARK ? bytes - 1 : (size_t)(brief[0] & (CBI_BRIEF_FIXED - 1));
}
/** The text: cbi_brief_text_bytes of it are written. */
void cbi_brief_get(const cbi_brief *b, const uint8_t *brief, size_t bytes, uint8_t *text);

#endif
