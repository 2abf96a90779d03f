/* SPDX-License-Identifier: Apache-2.0 */
#include "record/aggregate.h"

#include "support/test.h"

static const char *const names[] = {"id", "x", "y y", "a,b", "2"};

static cbi_aggregates *parse(const char *text) {
    cbi_aggregates *a = NULL;
    cb_error err = {.message = ""};
    cb_status status = cbi_aggregates_parse(&text, 1, &a, &err);
    if (status == CB_OK)
        status = cbi_aggregates_bind(a, names, 5, 5, &err);
    if (status != CB_OK)
        print_message("%s: %s\n", text, err.message);
    assert_int_equal(status, CB_OK);
    return a;
}

static void refuses(const char *text, const char *why) {
    cbi_aggregates *a = NULL;
    cb_error err = {.message = ""};
    cb_status status = cbi_aggregates_parse(&text, 1, &a, &err);
    if (status == CB_OK)
        status = cbi_aggregates_bind(a, names, 5, 5, &err);
    assert_int_equal(status, CB_EINVAL);
    if (strstr(err.message, why) == NULL)
        print_message("%s: %s\n", text, err.message);
    assert_non_null(strstr(err.message, why));
    cbi_aggregates_destroy(a);
}

static void is(const char *text, cbi_aggregate_kind kind, const char *name, uint32_t column,
               bool lists) {
    cbi_aggregates *a = parse(text);
    assert_int_equal(a->items[0].kind, kind);
    assert_string_equal(a->items[0].name, name);
    assert_int_equal(a->columns[a->items[0].a].column, column);
    assert_int_equal(a->lists, lists);
    cbi_aggregates_destroy(a);
}

static void what_people_write_is_understood(void **state) {
    (void)state;
    is("sum(x)", CBI_AGG_SUM, "sum(x)", 1, false);
    is("total=sum(x)", CBI_AGG_SUM, "total", 1, false);
    is("sum:x", CBI_AGG_SUM, "sum:x", 1, false);
    is("mean(\"a,b\")", CBI_AGG_MEAN, "mean(\"a,b\")", 3, false);
    is("sum(y y)", CBI_AGG_SUM, "sum(y y)", 2, false);
    is("sum(3)", CBI_AGG_SUM, "sum(3)", 2, false);
    is("sum(2)", CBI_AGG_SUM, "sum(2)", 4, false); /* a column is called so */
    is("max(x:str)", CBI_AGG_MAX, "max(x:str)", 1, true);
    is("p99.9(x)", CBI_AGG_QUANTILE, "p99.9(x)", 1, true);
    is("median(x)", CBI_AGG_QUANTILE, "median(x)", 1, true);
    is("top3(x)", CBI_AGG_TOP, "top3(x)", 1, false);
    is("top8(x)", CBI_AGG_TOP, "top8(x)", 1, false);
    is("top9(x)", CBI_AGG_TOP, "top9(x)", 1, true);
    is("top3(x:str)", CBI_AGG_TOP, "top3(x:str)", 1, true);
    is("bottom10(x)", CBI_AGG_BOTTOM, "bottom10(x)", 1, true);
    is("argmax(id,x)", CBI_AGG_ARGMAX, "argmax(id,x)", 0, true);
    is("corr(x,id)", CBI_AGG_CORR, "corr(x,id)", 1, false);
    is("count(x)", CBI_AGG_COUNT, "count(x)", 1, false);
    cbi_aggregates *a = parse("n=count()");
    assert_int_equal(a->items[0].a, UINT32_MAX);
    cbi_aggregates_destroy(a);
}

static void quantiles_are_fractions(void **state) {
    (void)state;
    cbi_aggregates *a = parse("p99.9(x)");
    assert_int_equal(a->items[0].part, 999);
    assert_int_equal(a->items[0].whole, 1000);
    cbi_aggregates_destroy(a);
}

static void mistakes_are_named(void **state) {
    (void)state;
    refuses("sum", "FUNCTION(COLUMN)");
    refuses("sum(x", "parenthesis");
    refuses("sum()", "a column is needed");
    refuses("sum(x,y y)", "too many");
    refuses("corr(x)", "two columns");
    refuses("som(x)", "did you mean 'sum'");
    refuses("sum(xx)", "did you mean 'x'");
    refuses("sum(9)", "there is no column 9");
    refuses("sum(x:int)", "types are num, float and str");
    refuses("sum(x:str)", "text cannot be reckoned with");
    refuses("=sum(x)", "name is missing");
    refuses("sum(\"x)", "never closed");
    refuses("p101(x)", "no function");
    refuses("p(x)", "no function");
    refuses("top0(x)", "no function");
    refuses("sum(x,)", "expected here");
    refuses("", "FUNCTION(COLUMN)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_people_write_is_understood),
        cmocka_unit_test(quantiles_are_fractions),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
