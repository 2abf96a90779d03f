/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REAL_H
#define CBI_REAL_H

#include "record/decimal.h"

/*
 * Floating point numbers of any exponent with which one can reckon: a column of `x:float`.
 *
 * A number is the double nearest to its text. It is carried about as its *rank*, an integer that is
 * ordered as numbers are: what compares, chooses or counts decimals does the same with ranks. -0 is
 * 0, and all that are no numbers (nan) are one value, above every other.
 *
 * Sums are exact: an integer so wide that 2^63 numbers of any exponents fit (Kulisch's long
 * accumulator), to which mantissas are added as integers. Additions can come in any order and in
 * any number of states; a result is rounded once, to the nearest double, half to even.
 */

/** Words of a sum of numbers, of one of products; the first has what was seen of inf and nan. */
enum { CBI_REAL_SUM = 1 + 34, CBI_REAL_SQUARE = 1 + 67 };

/** Reads a whole text: what cbi_decimal_parse takes, with any exponent, and inf, infinity, nan with
 * a sign. d->value is the rank, its scale 0. Never CBI_NUMBER_WIDE. Bytes from `base` on may be
 * read. */
cbi_number_kind cbi_real_parse(const uint8_t *base, const uint8_t *begin, size_t bytes,
                               cbi_decimal *d);
double cbi_real_of_rank(cbi_i128 rank);

/** Zeroed words are a sum of nothing. */
void cbi_real_add(uint64_t *sum, cbi_i128 rank);
/** += the product of two, to CBI_REAL_SQUARE words. */
void cbi_real_add_product(uint64_t *sum, cbi_i128 x, cbi_i128 y);
/** Both of `words`. */
void cbi_real_merge(uint64_t *sum, const uint64_t *other, unsigned words);

/** sum / n; n = 1: the sum itself. */
double cbi_real_mean(const uint64_t *sum, uint64_t n);
/** sum of (x - mean)^2, divided by n or (`sample`, n > 1) by n - 1, and its root. nan where there
 * was inf or nan. */
double cbi_real_spread(uint64_t n, const uint64_t *square, const uint64_t *sum, bool sample,
                       bool root);
/** Pearson's, within 1e-15; false: one of them is constant. */
bool cbi_real_correlation(uint64_t n, const uint64_t *xx, const uint64_t *yy, const uint64_t *xy,
                          const uint64_t *x, const uint64_t *y, double *result);
/** (low * (whole - part) + high * part) / whole, exact and rounded once. */
double cbi_real_between(cbi_i128 low, cbi_i128 high, uint64_t part, uint64_t whole);

#endif
