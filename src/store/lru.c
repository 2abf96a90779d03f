/* SPDX-License-Identifier: Apache-2.0 */
#include "store/lru.h"

static cbi_lru_list *list_of(cbi_lru *lru, const cbi_lru_entry *entry) {
    return entry->cold ? &lru->cold : &lru->others;
}

void cbi_lru_add(cbi_lru *lru, cbi_lru_entry *entry) {
    cbi_lru_list *list = list_of(lru, entry);
    entry->older = list->newest;
    entry->newer = NULL;
    *(list->newest != NULL ? &list->newest->newer : &list->oldest) = entry;
    list->newest = entry;
    lru->count++;
}

void cbi_lru_remove(cbi_lru *lru, cbi_lru_entry *entry) {
    cb_assert_debug(lru->count > 0);
    cbi_lru_list *list = list_of(lru, entry);
    *(entry->older != NULL ? &entry->older->newer : &list->oldest) = entry->newer;
    *(entry->newer != NULL ? &entry->newer->older : &list->newest) = entry->older;
    entry->older = entry->newer = NULL;
    lru->count--;
}

void cbi_lru_touch(cbi_lru *lru, cbi_lru_entry *entry) {
    if (list_of(lru, entry)->newest != entry) {
        cbi_lru_remove(lru, entry);
        cbi_lru_add(lru, entry);
    }
}

static bool may_go(const cbi_lru_entry *e, cb_mode mode, int64_t data_set) {
    bool kin = data_set != CBI_NO_DATA_SET && e->data_set == data_set;
    return e->mode == mode && !kin && e->pins == 0 && !e->marked;
}

uint64_t cbi_lru_choose(cbi_lru *lru, cb_mode mode, uint64_t bytes, int64_t data_set,
                        cbi_lru_entry **victims) {
    cbi_lru_entry *first = NULL, **end = &first;
    uint64_t sum = 0;
    for (int pass = 0; pass < 2 && sum < bytes; pass++) {
        cbi_lru_entry *e = pass == 0 ? lru->cold.oldest : lru->others.oldest;
        for (; e != NULL && sum < bytes; e = e->newer) {
            if (may_go(e, mode, data_set)) {
                e->marked = true;
                e->next_victim = NULL;
                *end = e;
                end = &e->next_victim;
                sum += e->bytes;
            }
        }
    }
    if (sum < bytes) { /* all or nothing */
        cbi_lru_unmark(first);
        first = NULL;
        sum = 0;
    }
    *victims = first;
    return sum;
}

void cbi_lru_unmark(cbi_lru_entry *victims) {
    for (cbi_lru_entry *e = victims; e != NULL; e = e->next_victim) {
        e->marked = false;
    }
}
