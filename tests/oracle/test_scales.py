#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# ctest-timeout: 300
"""Decimals near what 128 bits hold: whether a group-by takes them is settled by the numbers of a column and by nothing else, and what it says
is what exact fractions say. A column is refused when its largest number does not fit in 128 bits at the scale of its finest one, or a sum
does not at that scale."""
import csv
import io
import os
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))
import harness as h

getcontext().prec = 200
TOP = 2**127


def scale(text):
    return max(0, -Decimal(text).normalize().as_tuple().exponent)


def answer(name, values, places):
    """None: refused."""
    total, n = sum(values), len(values)
    if name == "sum":
        return total if -TOP <= total * 10**places < TOP else None
    if name == "mean":
        return total / n
    if name == "varp":
        return sum(v * v for v in values) / n - (total / n) ** 2
    return min(values) if name == "min" else max(values)


class Scales(h.Case):
    def group(self, path, names, key, budget, threads):
        result = h.carbide("group", "-k", key, *(f"{n}(x)" for n in names), "-S", budget, "-j", threads, "-T", self.temp, path)
        if result.exit == h.BAD_DATA:
            self.assertSaid(result, "128 bits", "float")
            return None
        self.assertEnded(result, h.DONE)
        return {row[0]: row[1:] for row in list(csv.reader(io.StringIO(result.out.decode())))[1:]}

    def everywhere(self, rows, names, told):
        """The same from every way a row can go: both kinds of keys, budgets, threads, orders."""
        groups, places = {}, max(scale(x) for _, x in rows)
        for k, x in rows:
            groups.setdefault(str(k), []).append(Fraction(x))
        fits = all(abs(v) * 10**places < TOP for values in groups.values() for v in values)
        want = {k: [answer(n, values, places) for n in names] for k, values in groups.items()}
        if not fits or any(None in row for row in want.values()):
            want = None
        for n, (key, budget, threads) in enumerate((("k", "8M", 1), ("k:num", "256M", 1), ("k", "64M", 2), ("k:num", "8M", 2))):
            if n % 2 == 0:
                path = self.write("in.csv", ("k,x\n" + "".join(f"{k},{x}\n" for k, x in rows)).encode())
            else:
                random.Random(n).shuffle(rows)
            got = self.group(path, names, key, budget, threads)
            self.assertEqual(got is None, want is None, f"{told}: {key} {budget} -j{threads}")
            for k in want or ():
                for name, field, exact in zip(names, got[k], want[k]):
                    if name in ("sum", "min", "max"):
                        self.assertEqual(Fraction(field), exact, f"{told}: {name} of {k}")
                    else:
                        self.assertLessEqual(abs(Fraction(field) - exact), abs(exact) / 10**15, f"{told}: {name} of {k}")
        return want is not None

    def test_numbers_that_cancel_before_a_fine_one_comes(self):
        for count in (0, 3000):
            for large, fine in (("1e30", "1e-20"), ("5000000000000000000", "1e-25"), ("5000000000000000000", "1e-19"), ("1e14", "1e-16"),
                                ("100", "1.3877787807814457e-17"), ("9" * 38, "1"), ("17014118346046923173", "1e-19")):
                others = [(i % 500, str(i % 89)) for i in range(count)]
                for rows in ([(7, large), (7, "-" + large), *others, (7, fine)], [(7, fine), *others, (7, large), (7, "-" + large)]):
                    for names in (["sum"], ["max"], ["mean"], ["varp"], ["sum", "min", "varp"]):
                        self.everywhere(list(rows), names, f"{count} {large} {fine} {names}")

    def test_any_numbers(self):
        taken = []
        for n in range(300 if h.LONG else max(8, int(40 * h.SHARE))):
            rng = random.Random(f"{h.SEED} scales {n}")
            most, finest = rng.choice([(30, 12), (25, 18), (19, 20), (8, 30), (18, 18)])
            rows = []
            for _ in range(rng.choice([3, 50, 2000])):
                digits, places = rng.randrange(1, most), rng.choice([0, 0, 2, rng.randrange(finest + 1)])
                v = Decimal(rng.randrange(-10**digits, 10**digits)).scaleb(-places)
                text = f"{v:f}"
                rows.append((rng.randrange(rng.choice([1, 20, 1000])), text.rstrip("0").rstrip(".") if "." in text else text))
            names = rng.sample(["sum", "mean", "varp", "min", "max"], rng.randrange(1, 4))
            taken.append(self.everywhere(rows, names, f"plan {n} (seed {h.SEED}): {names}"))

        self.assertIn(True, taken)

    def test_a_group_of_nothing_has_all_its_columns(self):
        names = [f"c{i}=count(x)" for i in range(3000)]
        result = h.carbide("group", *names, "--format", "csv", stdin=b"x\n")
        self.assertEnded(result, h.DONE)
        header, row = csv.reader(io.StringIO(result.out.decode()))
        self.assertEqual((len(header), row), (3000, ["0"] * 3000))


if __name__ == "__main__":
    h.main()
